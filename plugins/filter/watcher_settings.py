# Copyright (c) SmolCluster contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible filter: settings of the program that watches log files; see plugin_utils/watcher.py."""

from __future__ import annotations

DOCUMENTATION = r"""
name: watcher_settings
short_description: Turn log sources into the settings of the program that watches the files
description: Returns path patterns, links that may be followed, and the expression for the first line of an entry.
author: [SmolCluster contributors (@smolcluster)]
positional: formats, layout, port, timeout, node, loki_url
options:
  _input: {description: Entries of C(smolcluster_log_sources)., type: list, elements: dict, required: true}
  formats: {description: Folders of format presets., type: list, elements: path, required: true}
  layout:
    description: Paths of the agent; see the module M(smolcluster.logging.agent_host_info).
    type: dict
    required: true
  port: {description: TCP port of the agent's metrics on 127.0.0.1., type: int, required: true}
  timeout: {description: Seconds that a stop of the agent may take., type: int, required: true}
  node: {description: Name of the node., type: str, required: true}
  loki_url: {description: URL of Loki., type: str, required: true}
"""
EXAMPLES = r"""
settings: "{{ smolcluster_log_sources | smolcluster.logging.watcher_settings(folders, layout, 9080, 2, 'mini1', url) }}"
"""
RETURN = r"""
_value: {description: Settings of watcher.py., type: dict}
"""

from typing import Any

from ansible_collections.smolcluster.logging.plugins.plugin_utils import presets, sources, watcher


def settings(
    log_sources: list[dict[str, Any]],
    formats: list[str],
    layout: dict[str, Any],
    port: int,
    timeout: int,
    node: str,
    loki_url: str,
) -> dict[str, Any]:
    """Settings of the watcher; see `watcher.settings`."""
    known = presets.load(*formats)
    found = [sources.preset_of(source, known) for source in log_sources]
    return watcher.settings(log_sources, found, layout, port, timeout, node, loki_url)


class FilterModule:
    """Name of the filter."""

    def filters(self) -> dict:
        """Filters by name."""
        return {"watcher_settings": settings}
