# Copyright (c) SmolCluster contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible filter: log sources as one node watches them."""

from __future__ import annotations

DOCUMENTATION = r"""
name: watched_sources
short_description: Log sources as one node watches them
description: Returns the sources, without paths where C(shared) says that another node ships the files.
author: [SmolCluster contributors (@smolcluster)]
positional: node
options:
  _input: {description: Entries of C(smolcluster_log_sources)., type: list, elements: dict, required: true}
  node: {description: Name of the node., type: str, required: true}
"""
EXAMPLES = r"""
sources: "{{ smolcluster_log_sources | smolcluster.logging.watched_sources('mini1') }}"
"""
RETURN = r"""
_value: {description: The sources., type: list, elements: dict}
"""

from ansible_collections.smolcluster.logging.plugins.plugin_utils import shared


class FilterModule:
    """Name of the filter."""

    def filters(self) -> dict:
        """Filters by name."""
        return {"watched_sources": shared.watched}
