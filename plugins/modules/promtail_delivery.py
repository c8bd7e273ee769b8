# Copyright (c) SmolCluster contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module: write marked lines to a watched file and follow them to Loki."""

from __future__ import annotations

DOCUMENTATION = r"""
module: promtail_delivery
short_description: Prove that lines of a node arrive in Loki
description:
  - Writes marked lines in a source's own format to a file that the source watches, asks Loki for them, and tells the
    cause when some do not arrive.
  - A file that was not there before is removed at the end, and so are its folders.
author: [SmolCluster contributors (@smolcluster)]
attributes:
  check_mode: {support: partial, description: Writes no line; looks whether agent and Loki answer.}
  diff_mode: {support: none, description: It changes nothing that stays.}
options:
  loki_url: {description: Base address of Loki., type: str, required: true}
  http_port: {description: TCP port of the agent's own metrics on 127.0.0.1., type: int, required: true}
  path: {description: Path or glob that a source watches., type: str, required: true}
  sample:
    description: Line in the notation of Python's C(logging.Formatter); without one the bare marker is written.
    type: str
    default: "%(message)s"
  lines: {description: How many lines are written., type: int, default: 20}
  timeout: {description: Seconds that the lines may take together., type: int, default: 30}
  systems:
    description: What differs between systems, by the name of the kernel; C(service) is the service's name.
    type: dict
    required: true
  zone: {description: IANA name of the zone of the lines' times; C(Local) is the node's own., type: str, default: Local}
"""
EXAMPLES = r"""
- name: Lines of the workers arrive
  smolcluster.logging.promtail_delivery:
    loki_url: http://192.0.2.10:3100
    http_port: 9080
    path: /tmp/smolcluster-logs/worker-*.log
    systems: {Linux: {service: promtail}}
    sample: "%(asctime)s | %(levelname)s | rank:verify | %(message)s"
"""
RETURN = r"""
written: {description: Number of lines written., returned: always, type: int, sample: 20}
delivered: {description: Number of lines found in Loki., returned: always, type: int, sample: 20}
labels: {description: Labels of the lines as found., returned: always, type: dict}
latency:
  description: >-
    Seconds from writing a line to finding it: median, 99th percentile and maximum. The first line does not count, it
    waits for the file to be found.
  returned: when lines were delivered
  type: dict
  sample: {p50: 0.15, p99: 0.3, max: 0.3}
time_error:
  description: Largest difference in seconds between a line's time and its time in Loki.
  returned: when lines were delivered
  type: float
clock_skew:
  description: Seconds by which the node's clock is ahead of Loki's.
  returned: when Loki answers
  type: float
cause: {description: Why lines are missing or their times wrong; empty when all is well., returned: always, type: str}
"""

import json
import logging
import math
import re
import time
import uuid
import zoneinfo
from datetime import datetime
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.smolcluster.logging.plugins.module_utils import host, loki
from ansible_collections.smolcluster.logging.plugins.module_utils.service import ABSENT

# Seconds; Loki refuses what is further in the future (creation_grace_period of the role docker_loki_grafana).
FUTURE = 4200
# EACCES, and EPERM by which macOS hides files.
DENIED = ("permission denied", "operation not permitted")


class AgentError(Exception):
    """The agent does not run or does not answer; the text says which."""


def percentiles(values: list[float]) -> dict[str, float]:
    """Median, 99th percentile and maximum of values, by nearest rank (no value that did not occur)."""
    ordered = sorted(values)
    ranks = {"p50": 0.5, "p99": 0.99, "max": 1.0}
    return {name: round(ordered[max(0, math.ceil(rank * len(ordered)) - 1)], 3) for name, rank in ranks.items()}


def watched_name(pattern: str, marker: str) -> str:
    """A path that a glob matches: the marker for `*`, one character for `?` and `[…]`, the first of `{…,…}`."""
    name = re.sub(r"\{([^,}]*)[^}]*\}", r"\1", pattern)
    name = re.sub(r"\[([^]!^])[^]]*\]", r"\1", name)
    return re.sub(r"\*+", marker, name.replace("?", "0"))


class ZoneFormatter(logging.Formatter):
    """A formatter whose times are those of a zone.

    Parameters:
        sample: line in the notation of `logging.Formatter`.
        zone: IANA name, or `Local`.
    """

    def __init__(self, sample: str, zone: str) -> None:
        super().__init__(sample)
        self._zone = None if zone == "Local" else zoneinfo.ZoneInfo(zone)

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: ARG002, N802
        """Time as `logging` writes it by default: `2026-04-06 12:34:56,789`."""
        moment = datetime.fromtimestamp(record.created).astimezone(self._zone)
        return f"{moment:%Y-%m-%d %H:%M:%S},{int(record.msecs):03d}"


class Probe:
    """One file with marked lines.

    Parameters:
        module: the module that runs; gives parameters and commands.
    """

    def __init__(self, module: AnsibleModule) -> None:
        self.params = module.params
        self.service = host.manager(module.run_command, self.params["systems"][host.SYSTEM]["service"])
        self.marker = f"verify-{uuid.uuid4().hex[:12]}"
        self.path = Path(watched_name(self.params["path"], self.marker))
        # A file of training is only written to, never removed.
        self.path_is_ours = not self.path.exists()
        self.formatter = ZoneFormatter(self.params["sample"], self.params["zone"])
        self.written: dict[str, float] = {}  # line -> when, seconds since 1970
        self.found: dict[str, tuple[float, float]] = {}  # line -> when found, its time in Loki
        self.labels: dict[str, str] = {}

    def write(self) -> None:
        """Append one line."""
        record = logging.LogRecord("verify", logging.INFO, "", 0, f"{self.marker} {len(self.written) + 1}", None, None)
        line = self.formatter.format(record)
        with self.path.open("a") as file:
            file.write(line + "\n")
        self.written[line] = record.created

    def look(self) -> None:
        """Ask Loki for the lines, over every time that a wrong zone could give them."""
        now = time.time_ns()
        day = 26 * 3600 * loki.SECOND
        query = f'{{filename={json.dumps(str(self.path), ensure_ascii=False)}}} |= "{self.marker}"'
        for stream in loki.streams(self.params["loki_url"], query, now - day, now + day):
            self.labels = stream["stream"]
            for moment, line in stream["values"]:
                self.found.setdefault(line, (time.time(), int(moment) / loki.SECOND))

    def follow(self) -> None:
        """Write line after line, each when the one before has arrived, until all are there or the time is over."""
        deadline = time.monotonic() + self.params["timeout"]
        while len(self.written) < self.params["lines"] and time.monotonic() < deadline:
            self.write()
            while len(self.found) < len(self.written) and time.monotonic() < deadline:
                time.sleep(0.02)
                self.look()

    def run(self) -> dict:
        """Write, follow and clear away.

        Returns:
            Results of the module.
        """
        results = {"changed": False, "cause": ""}
        made = [folder for folder in self.path.parents if not folder.exists()]
        for folder in reversed(made):
            # Training may come to use the folder meanwhile, under any account.
            folder.mkdir()
            folder.chmod(0o1777)
        try:
            results["clock_skew"] = round(loki.skew(self.params["loki_url"]), 1)
            self.follow()
        except loki.LokiError as error:
            results["cause"] = f"this node cannot ask Loki: {error}"
        finally:
            lost = [line for line in self.written if line not in self.found]
            if lost and not results["cause"]:
                results["cause"] = self.cause(results["clock_skew"])
            if self.path_is_ours:
                self.path.unlink(missing_ok=True)
            for folder in made:
                if not any(folder.iterdir()):
                    folder.rmdir()
        results |= {"written": len(self.written), "delivered": len(self.found), "labels": self.labels}
        if self.found:
            waits = [self.found[line][0] - moment for line, moment in self.written.items() if line in self.found]
            errors = [self.found[line][1] - moment for line, moment in self.written.items() if line in self.found]
            results["latency"] = percentiles(waits[1:] or waits)
            results["time_error"] = round(max(errors, key=abs), 3)
            if abs(results["time_error"]) >= 1 and not results["cause"]:
                results["cause"] = (
                    f"times are off by {results['time_error']:+.0f} s: the agent takes them for another zone. Set "
                    "promtail_timezone, or restart the agent if this node's zone was changed since its start"
                )
        return results

    def look_only(self) -> dict:
        """Look at agent and Loki without writing a line.

        Returns:
            Results of the module.
        """
        results = {"changed": False, "written": 0, "delivered": 0, "labels": {}, "cause": ""}
        try:
            results["clock_skew"] = round(loki.skew(self.params["loki_url"]), 1)
            self.metrics()
        except (loki.LokiError, AgentError) as error:
            results["cause"] = str(error)
        return results

    def metrics(self) -> str:
        """The agent's own metrics.

        Raises:
            AgentError: it does not run or does not answer.
        """
        state = self.service.state()
        if state.phase == ABSENT:
            raise AgentError("the agent is not installed; `ansible-playbook site.yml --tags promtail` deploys it")
        if not state.pid:
            raise AgentError(f"the agent does not run; `{self.service.words_command}` says why")
        port = self.params["http_port"]
        try:
            return loki.ask(f"http://127.0.0.1:{port}/metrics", timeout=5).text
        except loki.LokiError as error:
            raise AgentError(f"the agent does not answer on port {port}: {error}") from error

    def cause(self, skew: float) -> str:
        """Why lines are missing, from what the agent says of itself."""
        try:
            metrics = self.metrics()
        except AgentError as error:
            return str(error)
        journal = self.service.journal(30)
        if str(self.path) not in metrics:
            refused = [line for line in journal.splitlines() if any(words in line for words in DENIED)]
            return f"the agent does not follow {self.path}" + (
                f": {refused[-1]}{host.own.hint(refused[-1])}"
                if refused
                else "; promtail_sources on this node do not match it"
            )
        errors = [line for line in journal.splitlines() if "level=error" in line or "level=warn" in line]
        if skew > FUTURE:
            return f"this node's clock is {skew:.0f} s ahead of Loki's, which refuses such lines; set its clock"
        if errors:
            return f"the agent cannot deliver: {errors[-1]}{host.own.hint(errors[-1])}"
        return "the agent has read the lines but Loki does not show them within the time given"


def main() -> None:
    """Run the module; missing lines are a result, not a failure, so that all nodes end up in one table."""
    module = AnsibleModule(
        argument_spec={
            "loki_url": {"type": "str", "required": True},
            "http_port": {"type": "int", "required": True},
            "path": {"type": "str", "required": True},
            "sample": {"type": "str", "default": "%(message)s"},
            "lines": {"type": "int", "default": 20},
            "timeout": {"type": "int", "default": 30},
            "zone": {"type": "str", "default": "Local"},
            "systems": {"type": "dict", "required": True},
        },
        supports_check_mode=True,
    )
    probe = Probe(module)
    try:
        module.exit_json(**(probe.look_only() if module.check_mode else probe.run()))
    except OSError as error:
        module.fail_json(msg=f"{module.params['path']}: a line cannot be written: {error}{host.own.hint(str(error))}")


if __name__ == "__main__":
    main()
