# Copyright (c) SmolCluster contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible filter: list problems of the settings for alerts."""

from __future__ import annotations

DOCUMENTATION = r"""
name: alert_problems
short_description: List problems of the settings for alerts
description: Checks the contact point and the thresholds, and lists all problems at once.
author: [SmolCluster contributors (@smolcluster)]
options:
  _input:
    description: >-
      C(type) and C(address) of the contact point, C(smtp), C(root_url), and the thresholds by their variables.
    type: dict
    required: true
"""
EXAMPLES = r"""
problems: "{{ settings | smolcluster.logging.alert_problems }}"
"""
RETURN = r"""
_value: {description: One sentence per problem with the way out; empty without problems., type: list, elements: str}
"""

from ansible_collections.smolcluster.logging.plugins.plugin_utils import alerts


class FilterModule:
    """Name of the filter."""

    def filters(self) -> dict:
        """Filters by name."""
        return {"alert_problems": alerts.alert_problems}
