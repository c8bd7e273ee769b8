# Copyright (c) SmolCluster contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible filter: list sources whose files several nodes ship."""

from __future__ import annotations

DOCUMENTATION = r"""
name: shared_folder_problems
short_description: List sources whose files several nodes ship
description: Compares the folders of a node's sources with those of other nodes.
author: [SmolCluster contributors (@smolcluster)]
positional: node
options:
  _input:
    description: >-
      For each node, by its name, the results of the module M(smolcluster.logging.agent_host_info) or
      M(smolcluster.logging.agent_info).
    type: dict
    required: true
  node: {description: Name of the node., type: str, required: true}
"""
EXAMPLES = r"""
problems: "{{ {'mini1': first, 'mini2': second} | smolcluster.logging.shared_folder_problems('mini1') }}"
"""
RETURN = r"""
_value: {description: One text for each path with the way out; empty without problems., type: list, elements: str}
"""

from typing import Any

from ansible_collections.smolcluster.logging.plugins.plugin_utils import shared


def problems(nodes: dict[str, dict[str, Any]], node: str) -> list[str]:
    """Sources whose files other nodes ship as well; see `shared.double`."""
    return shared.double(node, nodes)


class FilterModule:
    """Name of the filter."""

    def filters(self) -> dict:
        """Filters by name."""
        return {"shared_folder_problems": problems}
