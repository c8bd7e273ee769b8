# Copyright (c) SmolCluster contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible filter: folders that log sources begin with."""

from __future__ import annotations

DOCUMENTATION = r"""
name: source_folders
short_description: List the folders that log sources begin with
description: The part of each path before its first wildcard, with the owner and mode that a missing one is to get.
author: [SmolCluster contributors (@smolcluster)]
options:
  _input: {description: Entries of C(smolcluster_log_sources)., type: list, elements: dict, required: true}
"""
EXAMPLES = r"""
folders: "{{ smolcluster_log_sources | smolcluster.logging.source_folders }}"
"""
RETURN = r"""
_value:
  description: One entry per folder with its C(path) and, where a source says so, C(owner) and C(mode).
  type: list
  elements: dict
"""

from ansible_collections.smolcluster.logging.plugins.plugin_utils import sources


class FilterModule:
    """Name of the filter."""

    def filters(self) -> dict:
        """Filters by name."""
        return {"source_folders": sources.source_folders}
