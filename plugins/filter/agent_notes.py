# Copyright (c) SmolCluster contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible filter: list notes on a deployment of an agent."""

from __future__ import annotations

DOCUMENTATION = r"""
name: agent_notes
short_description: List notes on a deployment of an agent
description: Notes on what does not prevent the deployment, but can lose lines later.
author: [SmolCluster contributors (@smolcluster)]
positional: node
options:
  _input:
    description: "The role's settings: C(sources), C(loki_url), C(adopt), C(user), C(reads_all),
      C(install_method), C(full_disk_access) and C(check_mode)."
    type: dict
    required: true
  node: {description: Results of the module M(smolcluster.logging.agent_host_info)., type: dict, required: true}
"""
EXAMPLES = r"""
notes: "{{ settings | smolcluster.logging.agent_notes(node) }}"
"""
RETURN = r"""
_value: {description: One text per note with the way out; empty without notes., type: list, elements: str}
"""

from ansible_collections.smolcluster.logging.plugins.plugin_utils import agent_checks


class FilterModule:
    """Name of the filter."""

    def filters(self) -> dict:
        """Filters by name."""
        return {"agent_notes": agent_checks.notes}
