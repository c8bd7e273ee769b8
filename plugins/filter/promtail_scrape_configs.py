# Copyright (c) SmolCluster contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible filter: turn log sources into Promtail's scrape configs."""

from __future__ import annotations

DOCUMENTATION = r"""
name: promtail_scrape_configs
short_description: Turn log sources into Promtail's scrape configs
description: Returns one scrape config per source, so that each source has its own stages.
author: [SmolCluster contributors (@smolcluster)]
positional: formats, node, zone, copies, rank
options:
  _input:
    description: Sources as in the variable C(smolcluster_log_sources).
    type: list
    elements: dict
    required: true
  formats: {description: Folders of format presets., type: list, elements: path, required: true}
  node: {description: Value of the label C(node)., type: str, required: true}
  zone:
    description: Time zone of lines whose time has none, as an IANA name; C(Local) is the node's own.
    type: str
    required: true
  copies: {description: Folder of the copies that the agent reads., type: path, required: true}
  rank: {description: Rank of entries for which nothing else says it., type: str, default: ''}
"""
EXAMPLES = r"""
scrape_configs: >-
  {{ sources | smolcluster.logging.promtail_scrape_configs(folders, 'mini1', 'Local', '/run/promtail/files') }}
"""
RETURN = r"""
_value: {description: Value of Promtail's C(scrape_configs)., type: list, elements: dict}
"""

from typing import Any

from ansible_collections.smolcluster.logging.plugins.plugin_utils import presets, promtail_config, sources


def scrape_configs(
    log_sources: list[dict[str, Any]], formats: list[str], node: str, zone: str, copies: str, rank: str = ""
) -> list[dict[str, Any]]:
    """Scrape configs of log sources; see `promtail_config.scrape_configs`."""
    known = presets.load(*formats)
    found = [sources.preset_of(source, known) for source in log_sources]
    return promtail_config.scrape_configs(log_sources, found, node, zone, copies, rank)


class FilterModule:
    """Name of the filter."""

    def filters(self) -> dict:
        """Filters by name."""
        return {"promtail_scrape_configs": scrape_configs}
