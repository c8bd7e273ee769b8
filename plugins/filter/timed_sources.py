# Copyright (c) SmolCluster contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible filter: log sources for modules that look at the times in files."""

from __future__ import annotations

DOCUMENTATION = r"""
name: timed_sources
short_description: Log sources for modules that look at the times in files
description: Returns the sources with what is needed to find the time in a line.
author: [SmolCluster contributors (@smolcluster)]
positional: formats, zone
options:
  _input: {description: Entries of C(smolcluster_log_sources)., type: list, elements: dict, required: true}
  formats: {description: Folders of format presets., type: list, elements: path, required: true}
  zone:
    description: Time zone of times without one, as an IANA name; C(Local) is the node's own.
    type: str
    required: true
"""
EXAMPLES = r"""
sources: "{{ smolcluster_log_sources | smolcluster.logging.timed_sources(folders, 'Local') }}"
"""
RETURN = r"""
_value:
  description: Of each source C(name), C(paths), C(exclude), C(shared), C(zone) and C(times).
  type: list
  elements: dict
"""

from typing import Any

from ansible_collections.smolcluster.logging.plugins.plugin_utils import presets, sources


def timed_sources(log_sources: list[dict[str, Any]], formats: list[str], zone: str) -> list[dict[str, Any]]:
    """Sources with what is needed to find the time in a line; see `sources.timed`."""
    return sources.timed(log_sources, presets.load(*formats), zone)


class FilterModule:
    """Name of the filter."""

    def filters(self) -> dict:
        """Filters by name."""
        return {"timed_sources": timed_sources}
