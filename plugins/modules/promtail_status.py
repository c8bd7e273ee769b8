# Copyright (c) SmolCluster contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module: how the agent of a node is, and what is wrong with it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: promtail_status
short_description: Tell how a node's Promtail is
description:
  - Puts together what the service, the agent's own metrics, its journal, its positions file and Loki say.
  - Reads only. A node that is unwell is a result, not a failure.
author: [SmolCluster contributors (@smolcluster)]
attributes:
  check_mode: {support: full, description: It never changes anything.}
  diff_mode: {support: none, description: It never changes anything.}
options:
  loki_url: {description: Base address of Loki., type: str, required: true}
  http_port: {description: TCP port of the agent's own metrics on 127.0.0.1., type: int, required: true}
  node: {description: Value of the label C(node) of this node's lines., type: str, required: true}
  positions_file: {description: Where the agent saves how far it has read., type: path, required: true}
  service: {description: Name of the service., type: str, default: promtail}
"""
EXAMPLES = r"""
- name: How is the agent?
  smolcluster.logging.promtail_status:
    loki_url: http://192.0.2.10:3100
    http_port: 9080
    node: mini1
    positions_file: /var/lib/promtail/positions.yaml
"""
RETURN = r"""
status:
  description: What is known of the agent; null where nothing is.
  returned: always
  type: dict
  contains:
    running: {description: Whether the service runs., type: bool}
    version: {description: Version of the agent., type: str}
    uptime: {description: Seconds since its start., type: float}
    sent: {description: Lines delivered since its start., type: int}
    retried: {description: Batches sent again since its start., type: int}
    dropped: {description: Lines given up since its start by Promtail's name of the reason., type: dict}
    cut: {description: Lines that were too long and lost their end since its start., type: int}
    files: {description: Number of files that it follows., type: int}
    backlog: {description: Bytes of these that it has not read yet., type: int}
    last_line: {description: Seconds since the time of the node's newest line in Loki within a day., type: float}
    clock_skew: {description: Seconds by which the node's clock is ahead of Loki's., type: float}
    others: {description: Command lines of other Promtails on the node., type: list, elements: str}
problems:
  description: What is wrong, each with the way out; empty when all is well.
  returned: always
  type: list
  elements: str
"""

import os
import re
import time
from urllib.error import URLError

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.smolcluster.logging.plugins.module_utils import linux, loki, promtail
from ansible_collections.smolcluster.logging.plugins.module_utils.metrics import Metrics
from ansible_collections.smolcluster.logging.plugins.module_utils.systemd import Systemd

DAY = 86400
# Seconds; the agent saves its positions every 10.
UNSAVED = 60
# Seconds that clocks may differ; a date without fractions tells them to half a second.
SKEW = 2
TOO_OLD = "too far behind"


class Status:
    """What is known of a node's agent.

    Parameters:
        module: the module that runs; gives parameters and commands.
    """

    def __init__(self, module: AnsibleModule) -> None:
        self.params = module.params
        self.service = Systemd(module.run_command, self.params["service"])
        self.problems: list[str] = []
        self.status: dict = dict.fromkeys(
            ("running", "version", "uptime", "sent", "retried", "dropped", "cut", "files", "backlog", "last_line",
             "clock_skew", "others")
        )  # fmt: skip

    def gather(self) -> dict:
        """Ask everybody.

        Returns:
            Results of the module.
        """
        pid = self.service.pid()
        self.status["running"] = bool(pid)
        others = [other for other in linux.processes_of(promtail.PROGRAM) if other != pid]
        self.status["others"] = [" ".join(linux.command_line(other)) for other in others]
        if self.status["others"]:
            self.problems.append(
                f"another Promtail runs here: {', '.join(self.status['others'])}. On the same files it sends every "
                "line twice; promtail_adopt: true retires it"
            )
        if pid:
            self.status["uptime"] = linux.age(pid)
            self.agent()
            self.positions()
        else:
            words = self.service.journal(1)
            self.problems.append(
                f"the agent does not run{f' ({words})' if words else ''}. `ansible-playbook site.yml --tags promtail` "
                "deploys and starts it"
            )
        self.store()
        return {"changed": False, "status": self.status, "problems": self.problems}

    def agent(self) -> None:
        """What the agent's metrics say."""
        url = f"http://127.0.0.1:{self.params['http_port']}/metrics"
        try:
            with loki.DIRECT.open(url, timeout=5) as answer:
                metrics = Metrics(answer.read().decode())
        except (URLError, OSError) as error:
            self.problems.append(f"the agent does not answer at {url}: {error}. Restart it: systemctl restart promtail")
            return
        dropped = {
            key: int(value) for key, value in metrics.by("promtail_dropped_entries_total", "reason").items() if value
        }
        unread = metrics.total("promtail_file_bytes_total") - metrics.total("promtail_read_bytes_total")
        self.status |= {
            "version": next(iter(metrics.by("promtail_build_info", "version")), None),
            "sent": int(metrics.total("promtail_sent_entries_total")),
            "retried": int(metrics.total("promtail_batch_retries_total")),
            "dropped": dropped,
            "cut": int(metrics.total("promtail_mutated_entries_total")),
            "files": int(metrics.total("promtail_files_active_total")),
            "backlog": max(0, int(unread)),
        }
        self.problems += self.losses(dropped)
        if self.status["retried"] and (words := self.words("error sending batch, will retry", seconds=30)):
            self.problems.append(f"the agent cannot deliver and tries again: {words}")

    def losses(self, dropped: dict[str, int]) -> list[str]:
        """What stands behind dropped lines."""
        problems = []
        for reason, count in dropped.items():
            words = self.words("final error sending batch")
            why = f": {words}" if words else ""
            if TOO_OLD in why:
                why += (
                    ". Lines that are read again after a crash are refused so, harmlessly; others are lost when a "
                    "clock was set back by more than an hour"
                )
            problems.append(f"a batch or more with {count} lines was not taken whole ({reason}){why}")
        return problems

    def words(self, phrase: str, seconds: int | None = None) -> str:
        """Error in the newest line of the agent's journal with a phrase; empty without one."""
        lines = [line for line in self.service.journal(200, seconds).splitlines() if phrase in line]
        found = re.search(r'error="((?:[^"\\]|\\.)*)"', lines[-1]) if lines else None
        return found[1].replace('\\"', '"') if found else ""

    def positions(self) -> None:
        """Whether the agent can save how far it has read."""
        try:
            unsaved = time.time() - os.stat(self.params["positions_file"]).st_mtime
        except OSError:
            unsaved = float("inf")
        if min(unsaved, self.status["uptime"] or 0) > UNSAVED:
            self.problems.append(
                f"{self.params['positions_file']} was not saved for more than {UNSAVED} s: the disk is full or "
                "read-only. After a restart all is read again"
            )

    def store(self) -> None:
        """What Loki says."""
        url, now = self.params["loki_url"], time.time_ns()
        try:
            self.status["clock_skew"] = round(loki.skew(url), 1)
            query = f'{{node="{self.params["node"]}"}}'
            streams = loki.streams(url, query, now - DAY * loki.SECOND, now + DAY * loki.SECOND, 1)
        except loki.LokiError as error:
            self.problems.append(f"this node cannot ask Loki: {error}")
            return
        times = [int(moment) for stream in streams for moment, _ in stream["values"]]
        if times:
            self.status["last_line"] = round((now - max(times)) / loki.SECOND, 1)
        if abs(self.status["clock_skew"]) > SKEW:
            self.problems.append(
                f"this node's clock is {self.status['clock_skew']:+.0f} s off Loki's; set it (for example by chrony)"
            )


def main() -> None:
    """Run the module; it has nothing to fail on."""
    module = AnsibleModule(
        argument_spec={
            "loki_url": {"type": "str", "required": True},
            "http_port": {"type": "int", "required": True},
            "node": {"type": "str", "required": True},
            "positions_file": {"type": "path", "required": True},
            "service": {"type": "str", "default": "promtail"},
        },
        supports_check_mode=True,
    )
    module.exit_json(**Status(module).gather())


if __name__ == "__main__":
    main()
