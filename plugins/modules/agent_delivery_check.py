# Copyright (c) SmolCluster contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module: prove that lines of a watched path arrive in Loki."""

from __future__ import annotations

DOCUMENTATION = r"""
module: agent_delivery_check
short_description: Prove that lines of a node arrive in Loki
description:
  - Writes marked lines in the format of a source to a new file that the source watches, queries Loki for them, and
    names the cause when some do not arrive. The file is created as the owner of its folder, and removed at the end. No
    folder is created, and no existing file is written to.
  - Where no new file is possible, or where stages of a source may change or drop the lines, the agent's own counters
    are the proof. A path that these cannot prove either is reported as not probed, with the reason.
author: [SmolCluster contributors (@smolcluster)]
extends_documentation_fragment: [smolcluster.logging.agent]
attributes:
  check_mode:
    support: partial
    description: Proves less in check mode.
    details: No line is written; it only checks that the agent runs and that Loki answers.
  diff_mode: {support: none, description: It makes no lasting changes.}
options:
  loki_url: {description: Base URL of Loki., type: str, required: true}
  http_port: {description: TCP port of the agent's own metrics on 127.0.0.1., type: int, required: true}
  node: {description: Value of the label C(node) of this node's lines., type: str, required: true}
  path: {description: Path or pattern that a source watches., type: str, required: true}
  name: {description: Text that the name of a new file must contain., type: str, default: ""}
  exclude: {description: Pattern of paths that the source leaves out., type: str, default: ""}
  source:
    description: >-
      The source, as P(smolcluster.logging.timed_sources#filter) returns it, to compare the times in its files with the
      clock; empty to leave that out.
    type: dict
    default: {}
  sample:
    description: Format of a line for Python's C(logging.Formatter); by default only the marker is written.
    type: str
    default: "%(message)s"
  sample_time:
    description: Format of the time of such a line for C(strftime); by default as Python's logging writes it.
    type: str
    default: ""
  stages:
    description: Promtail's stages of the source, if the user has written them; they may change what arrives.
    type: list
    elements: dict
    default: []
  lines: {description: Number of lines to write., type: int, default: 20}
  timeout: {description: Seconds until all lines must have arrived., type: int, default: 30}
  zone: {description: Time zone of the lines' times (IANA name); C(Local) is the node's own., type: str, default: Local}
"""
EXAMPLES = r"""
- name: Lines of the workers arrive
  smolcluster.logging.agent_delivery_check:
    agent: promtail
    loki_url: http://192.0.2.10:3100
    http_port: 9080
    node: mini1
    path: /tmp/smolcluster-logs/worker-*.log
    sample: "%(asctime)s | %(levelname)s | rank:verify | %(message)s"
"""
RETURN = r"""
proof:
  description: Source of the proof, C(Loki) or C(counters) (of the agent); empty when the path was not proven.
  returned: always
  type: str
  sample: Loki
not_probed: {description: Why the path could not be tried; empty when it was., returned: always, type: str}
written: {description: Number of lines written., returned: always, type: int, sample: 20}
delivered: {description: Number of lines found in Loki., returned: always, type: int, sample: 20}
labels: {description: Labels of the lines in Loki., returned: always, type: dict}
latency:
  description: >-
    Seconds from writing a line to finding it: median, 99th percentile and maximum. The first line is left out, because
    the agent has to find the file first.
  returned: when lines were delivered
  type: dict
  sample: {p50: 0.15, p99: 0.3, max: 0.3}
time_error:
  description: Largest difference in seconds between a line's time and its time in Loki.
  returned: when lines were delivered
  type: float
newest_line:
  description: Age in seconds of the newest line in Loki from a file that the agent follows.
  returned: when such a file is the proof
  type: float
clock_skew:
  description: Seconds by which the node's clock is ahead of Loki's.
  returned: when Loki answers
  type: float
cause: {description: Why lines are missing or have wrong times; empty without a problem., returned: always, type: str}
"""

import signal

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.smolcluster.logging.plugins.module_utils import delivery, host
from ansible_collections.smolcluster.logging.plugins.module_utils.agents.registry import AGENTS
from ansible_collections.smolcluster.logging.plugins.module_utils.errors import DeploymentError


def end(number: int, frame: object) -> None:  # noqa: ARG001
    """End the run on a signal, so that its file is removed."""
    raise SystemExit(128 + number)


def main() -> None:
    """Run the module; missing lines are a result, not a failure, so that the table shows all nodes."""
    module = AnsibleModule(
        argument_spec={
            "agent": {"type": "str", "choices": list(AGENTS), "required": True},
            "loki_url": {"type": "str", "required": True},
            "http_port": {"type": "int", "required": True},
            "node": {"type": "str", "required": True},
            "path": {"type": "str", "required": True},
            "name": {"type": "str", "default": ""},
            "exclude": {"type": "str", "default": ""},
            "source": {"type": "dict", "default": {}},
            "sample": {"type": "str", "default": "%(message)s"},
            "sample_time": {"type": "str", "default": ""},
            "stages": {"type": "list", "elements": "dict", "default": []},
            "lines": {"type": "int", "default": 20},
            "timeout": {"type": "int", "default": 30},
            "zone": {"type": "str", "default": "Local"},
        },
        supports_check_mode=True,
    )
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, end)
    try:
        probe = delivery.Probe(delivery.Options(**module.params), module.run_command)
        module.exit_json(**(probe.look_only() if module.check_mode else probe.run()))
    except DeploymentError as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        hint = host.system.hint(str(error))
        module.fail_json(msg=f"{module.params['path']}: a line cannot be written: {error}{hint}")


if __name__ == "__main__":
    main()
