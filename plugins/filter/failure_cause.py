# Copyright (c) SmolCluster contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible filter: explain why a module did not run on a host."""

from __future__ import annotations

DOCUMENTATION = r"""
name: failure_cause
short_description: Explain why a module did not run on a host
description: >-
  Returns the error of a failed task. Adds the cause and the way out where the text of the error shows them, for
  example sudo that requires a terminal, or Python that is too old.
author: [SmolCluster contributors (@smolcluster)]
options:
  _input: {description: Result of the failed task; C(ansible_failed_result) in a rescue., type: dict, required: true}
"""
EXAMPLES = r"""
message: "{{ inventory_hostname }}: {{ ansible_failed_result | smolcluster.logging.failure_cause }}"
"""
RETURN = r"""
_value: {description: The error and the way out., type: str}
"""

from ansible_collections.smolcluster.logging.plugins.plugin_utils import failure


class FilterModule:
    """Name of the filter."""

    def filters(self) -> dict:
        """Filters by name."""
        return {"failure_cause": failure.explain}
