# Copyright (c) SmolCluster contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible filter: set the thresholds of the alert rules."""

from __future__ import annotations

DOCUMENTATION = r"""
name: alert_rules
short_description: Set the thresholds of the alert rules
description: Returns the generated alert rules with the thresholds of the user.
author: [SmolCluster contributors (@smolcluster)]
positional: settings
options:
  _input: {description: Text of the generated file., type: str, required: true}
  settings: {description: 'C(wanted), and the value of each threshold by its variable.', type: dict, required: true}
"""
EXAMPLES = r"""
text: "{{ lookup('file', 'alerting/alert-rules.yml') | smolcluster.logging.alert_rules(thresholds) }}"
"""
RETURN = r"""
_value: {description: Text of the file to deploy., type: str}
"""

from ansible_collections.smolcluster.logging.plugins.plugin_utils import alerts


class FilterModule:
    """Name of the filter."""

    def filters(self) -> dict:
        """Filters by name."""
        return {"alert_rules": alerts.rules}
