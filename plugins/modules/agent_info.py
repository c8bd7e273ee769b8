# Copyright (c) SmolCluster contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module: the state of a node's agent, and its problems."""

from __future__ import annotations

DOCUMENTATION = r"""
module: agent_info
short_description: Report the state of a node's agent
description:
  - Collects the state from the service, the agent's own metrics and log, the watcher of the log files, and Loki.
  - It changes nothing. A node with problems is a result, not a failure.
author: [SmolCluster contributors (@smolcluster)]
extends_documentation_fragment: [smolcluster.logging.agent]
attributes:
  check_mode: {support: full, description: It never changes anything.}
  diff_mode: {support: none, description: It never changes anything.}
options:
  loki_url: {description: Base URL of Loki., type: str, required: true}
  http_port: {description: TCP port of the agent's own metrics on 127.0.0.1., type: int, required: true}
  node: {description: Value of the label C(node) of this node's lines., type: str, required: true}
  sources:
    description: Log sources of this node, as P(smolcluster.logging.timed_sources#filter) returns them.
    type: list
    elements: dict
    default: []
  version:
    description: Name of the folder of the version to compare with; without it RV(deployed) is not returned.
    type: str
    default: ''
"""
EXAMPLES = r"""
- name: State of the agent is known
  smolcluster.logging.agent_info:
    agent: promtail
    loki_url: http://192.0.2.10:3100
    http_port: 9080
    node: mini1
"""
RETURN = r"""
status:
  description: State of the agent; a value that is not known is null.
  returned: always
  type: dict
  contains:
    running: {description: Whether the service runs., type: bool}
    version: {description: Version of the agent., type: str}
    uptime: {description: Seconds since its start., type: int}
    sent: {description: Lines delivered since its start., type: int}
    retried: {description: Requests repeated since its start., type: int}
    dropped: {description: Lines dropped since its start by the agent's name of the reason., type: dict}
    cut: {description: Lines truncated since its start because they were too long., type: int}
    files: {description: Number of logs that are followed., type: int}
    backlog: {description: Bytes of these logs that the agent has not read yet., type: int}
    last_line: {description: Age in seconds of the node's newest line in Loki of the last day., type: float}
    clock_skew: {description: Seconds by which the node's clock is ahead of Loki's., type: float}
    others: {description: Command lines of other agents on the node., type: list, elements: str}
    notes: {description: Notes that are not problems., type: list, elements: str}
folders:
  description: Folders of the sources, as in the results of M(smolcluster.logging.agent_host_info).
  returned: always
  type: list
  elements: dict
machine: {description: Identity of the node itself; two names of one node have the same., returned: always, type: str}
problems:
  description: Problems, each with the way out; empty without problems.
  returned: always
  type: list
  elements: str
deployed:
  description:
    - What the node has of a deployment, to compare it with what a deployment would make.
    - C(node) are facts that its files depend on, as M(smolcluster.logging.agent_host_info) returns them.
    - C(files) are the SHA-256 of its files by path. That of the service's definition is without the digest that the
      service was started with, and is missing unless the service runs the program of O(version) with it and starts at
      boot.
    - C(foreign) says whether there are remains of a manual setup.
  returned: with O(version)
  type: dict
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.smolcluster.logging.plugins.module_utils.agents.registry import AGENTS
from ansible_collections.smolcluster.logging.plugins.module_utils.status import Status


def main() -> None:
    """Run the module; nothing makes it fail."""
    module = AnsibleModule(
        argument_spec={
            "agent": {"type": "str", "choices": list(AGENTS), "required": True},
            "loki_url": {"type": "str", "required": True},
            "http_port": {"type": "int", "required": True},
            "node": {"type": "str", "required": True},
            "sources": {"type": "list", "elements": "dict", "default": []},
            "version": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    module.exit_json(**Status(module).gather())


if __name__ == "__main__":
    main()
