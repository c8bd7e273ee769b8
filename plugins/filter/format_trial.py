# Copyright (c) SmolCluster contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible filter: settings for the trial of a format."""

from __future__ import annotations

DOCUMENTATION = r"""
name: format_trial
short_description: Return the settings for the trial of a format
description: Returns what the module M(smolcluster.logging.agent_format_trial) needs, and what prevents a trial.
author: [SmolCluster contributors (@smolcluster)]
positional: formats, file, zone
options:
  _input: {description: Name or mapping of a format preset., type: raw, required: true}
  formats: {description: Folders of format presets., type: list, elements: path, required: true}
  file: {description: Path of the log on the control node., type: path, required: true}
  zone: {description: Time zone of times without one., type: str, required: true}
"""
EXAMPLES = r"""
trial: "{{ 'auto' | smolcluster.logging.format_trial(['roles/agent/vars/formats'], 'my.log', 'Local') }}"
"""
RETURN = r"""
_value:
  description: >-
    C(problems) (sentences), C(platform) of the control node, and without problems C(file) (absolute), C(stages),
    C(entry_start) and C(console).
  type: dict
"""

from ansible_collections.smolcluster.logging.plugins.plugin_utils import format_trial


class FilterModule:
    """Name of the filter."""

    def filters(self) -> dict:
        """Filters by name."""
        return {"format_trial": format_trial.settings}
