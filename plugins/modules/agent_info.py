# Copyright (c) SmolCluster contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module: the state of a node's agent, and its problems."""

from __future__ import annotations

DOCUMENTATION = r"""
module: agent_info
short_description: Report the state of a node's agent
description:
  - Collects what the service, the agent's own metrics, its log, the watcher of the log files and Loki say.
  - Reads only. A node with problems is a result, not a failure.
author: [SmolCluster contributors (@smolcluster)]
extends_documentation_fragment: [smolcluster.logging.agent]
attributes:
  check_mode: {support: full, description: It never changes anything.}
  diff_mode: {support: none, description: It never changes anything.}
options:
  loki_url: {description: Base address of Loki., type: str, required: true}
  http_port: {description: TCP port of the agent's own metrics on 127.0.0.1., type: int, required: true}
  node: {description: Value of the label C(node) of this node's lines., type: str, required: true}
"""
EXAMPLES = r"""
- name: Agent status is read
  smolcluster.logging.agent_info:
    agent: promtail
    loki_url: http://192.0.2.10:3100
    http_port: 9080
    node: mini1
"""
RETURN = r"""
status:
  description: What is known of the agent; null where nothing is.
  returned: always
  type: dict
  contains:
    running: {description: Whether the service runs., type: bool}
    version: {description: Version of the agent., type: str}
    uptime: {description: Seconds since its start., type: int}
    sent: {description: Lines delivered since its start., type: int}
    retried: {description: Batches sent again since its start., type: int}
    dropped: {description: Lines given up since its start by the agent's name of the reason., type: dict}
    cut: {description: Lines that were too long and lost their end since its start., type: int}
    files: {description: Number of logs that are followed., type: int}
    backlog: {description: Bytes of these that the agent has not read yet., type: int}
    last_line: {description: Seconds since the time of the node's newest line in Loki within a day., type: float}
    clock_skew: {description: Seconds by which the node's clock is ahead of Loki's., type: float}
    others: {description: Command lines of other agents on the node., type: list, elements: str}
    notes: {description: What is worth knowing and no problem., type: list, elements: str}
problems:
  description: What is wrong, each with the way out; empty when all is well.
  returned: always
  type: list
  elements: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.smolcluster.logging.plugins.module_utils.agents.registry import AGENTS
from ansible_collections.smolcluster.logging.plugins.module_utils.status import Status


def main() -> None:
    """Run the module; it has nothing to fail on."""
    module = AnsibleModule(
        argument_spec={
            "agent": {"type": "str", "choices": list(AGENTS), "required": True},
            "loki_url": {"type": "str", "required": True},
            "http_port": {"type": "int", "required": True},
            "node": {"type": "str", "required": True},
        },
        supports_check_mode=True,
    )
    module.exit_json(**Status(module).gather())


if __name__ == "__main__":
    main()
