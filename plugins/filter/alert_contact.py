# Copyright (c) SmolCluster contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible filter: write Grafana's file for the contact point of alerts."""

from __future__ import annotations

DOCUMENTATION = r"""
name: alert_contact
short_description: Write Grafana's file for the contact point of alerts
description: Without a type the file removes the contact point of an earlier run.
author: [SmolCluster contributors (@smolcluster)]
options:
  _input: {description: 'C(wanted), C(type) and C(address) of the contact point.', type: dict, required: true}
"""
EXAMPLES = r"""
text: "{{ {'wanted': true, 'type': 'slack', 'address': address} | smolcluster.logging.alert_contact }}"
"""
RETURN = r"""
_value: {description: Text of the file., type: str}
"""

from ansible_collections.smolcluster.logging.plugins.plugin_utils import alerts


class FilterModule:
    """Name of the filter."""

    def filters(self) -> dict:
        """Filters by name."""
        return {"alert_contact": alerts.contact_points}
