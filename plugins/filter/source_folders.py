# Copyright (c) SmolCluster contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible filter: list the folders of log sources."""

from __future__ import annotations

DOCUMENTATION = r"""
name: source_folders
short_description: List the folders of log sources
description: Returns the part of each path before its first wildcard, with owner and mode for a missing folder.
author: [SmolCluster contributors (@smolcluster)]
options:
  _input: {description: Entries of C(smolcluster_log_sources)., type: list, elements: dict, required: true}
"""
EXAMPLES = r"""
folders: "{{ smolcluster_log_sources | smolcluster.logging.source_folders }}"
"""
RETURN = r"""
_value:
  description: One entry per folder with its C(path) and, if the source sets them, C(owner) and C(mode).
  type: list
  elements: dict
"""

from ansible_collections.smolcluster.logging.plugins.plugin_utils import sources


class FilterModule:
    """Name of the filter."""

    def filters(self) -> dict:
        """Filters by name."""
        return {"source_folders": sources.source_folders}
