# Copyright (c) SmolCluster contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Options that the modules for agents share."""

from __future__ import annotations


class ModuleDocFragment:
    """The option `agent`."""

    DOCUMENTATION = r"""
options:
  agent:
    description: Name of the agent, which is also the name of its program.
    type: str
    choices: [promtail]
    required: true
"""
