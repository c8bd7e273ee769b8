# Copyright (c) SmolCluster contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible filter: list problems that prevent a deployment of Loki and Grafana."""

from __future__ import annotations

DOCUMENTATION = r"""
name: log_store_problems
short_description: List problems that prevent a deployment of Loki and Grafana
description: Checks all settings of the role and the facts of the host, and lists all problems at once.
author: [SmolCluster contributors (@smolcluster)]
positional: host
options:
  _input:
    description: >-
      The role's settings: C(project_dir), C(docker_source), C(retention), C(grafana_default_password),
      C(grafana_password_is_one_line), C(grafana_password_is_long_enough), C(listen), C(ports), C(images),
      C(max_disk) and C(command).
    type: dict
    required: true
  host: {description: Results of the module M(smolcluster.logging.log_store_info)., type: dict, required: true}
"""
EXAMPLES = r"""
problems: "{{ settings | smolcluster.logging.log_store_problems(host) }}"
"""
RETURN = r"""
_value: {description: One sentence per problem with the way out; empty without problems., type: list, elements: str}
"""

from ansible_collections.smolcluster.logging.plugins.plugin_utils import controller


class FilterModule:
    """Name of the filter."""

    def filters(self) -> dict:
        """Filters by name."""
        return {"log_store_problems": controller.problems}
