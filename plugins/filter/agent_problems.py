# Copyright (c) SmolCluster contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible filter: list problems that prevent a deployment of an agent."""

from __future__ import annotations

DOCUMENTATION = r"""
name: agent_problems
short_description: List problems that prevent a deployment of an agent
description: Checks all settings of the role and the facts of the node, and lists all problems at once.
author: [SmolCluster contributors (@smolcluster)]
positional: formats, node
options:
  _input:
    description: >-
      The role's settings: C(sources), C(loki_url), C(version), C(base_url), C(timezone), C(rank), C(http_port),
      C(adopt), C(home), C(user), C(account), C(reads_all), C(install_method), C(homebrew_tap), C(full_disk_access)
      and C(platform) (empty when there is no program for the node).
    type: dict
    required: true
  formats: {description: Folders of format presets., type: list, elements: path, required: true}
  node: {description: Results of the module M(smolcluster.logging.agent_host_info)., type: dict, required: true}
"""
EXAMPLES = r"""
problems: "{{ settings | smolcluster.logging.agent_problems(['roles/agent/vars/formats'], node) }}"
"""
RETURN = r"""
_value: {description: One sentence per problem with the way out; empty without problems., type: list, elements: str}
"""

from ansible_collections.smolcluster.logging.plugins.plugin_utils import agent_checks


class FilterModule:
    """Name of the filter."""

    def filters(self) -> dict:
        """Filters by name."""
        return {"agent_problems": agent_checks.problems}
