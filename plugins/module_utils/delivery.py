# Copyright (c) SmolCluster contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Prove that lines from a path arrive in Loki, without lasting changes on the node.

For a path with a wildcard, lines with a marker are written to a new file and searched for in Loki. The file is created
in an existing folder, as the owner of that folder, with a name that training does not use. No existing file is opened
for writing, and only this file is removed.

Where no such file is possible, or where stages of the source may change or drop the marker, the agent's own counters
are the proof: for the new file, or for a file that the agent follows. A path that neither can prove is reported as not
probed, with the reason.
"""

from __future__ import annotations

import json
import logging
import math
import os
import re
import stat
import time
import uuid
import zoneinfo
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any

from ansible_collections.smolcluster.logging.plugins.module_utils import globs, host, loki, shifted_times, watch
from ansible_collections.smolcluster.logging.plugins.module_utils.agents.registry import AGENTS
from ansible_collections.smolcluster.logging.plugins.module_utils.layout import layout_of
from ansible_collections.smolcluster.logging.plugins.module_utils.metrics import AgentError, Metrics, fetch
from ansible_collections.smolcluster.logging.plugins.module_utils.probe_file import (
    OwnFile,
    UnprovableError,
    candidates,
    unprovable,
)
from ansible_collections.smolcluster.logging.plugins.module_utils.services.base import ABSENT
from ansible_collections.smolcluster.logging.plugins.module_utils.source_folders import FolderError
from ansible_collections.smolcluster.logging.plugins.module_utils.watch import printable

DAY = 86400
# Seconds until the agent's counters are up to date: it looks for new files every 2 s, and at file sizes every 10 s.
COUNTED = 12
# Seconds in which lines are searched for around the present time only. After that, every time is searched that a wrong
# time zone could give them.
NEAR = 5
ZONES = 26 * 3600
# How far back Loki searches by default, less a day (max_query_length of 721h).
OLDEST = 29 * DAY
PROBLEM = re.compile(r"level=(warn|error)|^error|permission denied|operation not permitted|no such file", re.IGNORECASE)

# Stages of Promtail that change neither the text of a line nor its labels `node` and `filename`, and drop no line.
# https://grafana.com/docs/loki/v3.6.x/send-data/promtail/stages/
HARMLESS = frozenset(
    "decolorize geoip logfmt metrics multiline non_indexed_labels regex structured_metadata template timestamp".split()
)
LOKI, COUNTERS = "Loki", "counters"


def percentiles(values: list[float]) -> dict[str, float]:
    """Median, 99th percentile and maximum of values, by nearest rank (only values that occurred)."""
    ordered = sorted(values)
    ranks = {"p50": 0.5, "p99": 0.99, "max": 1.0}
    return {name: round(ordered[max(0, math.ceil(rank * len(ordered)) - 1)], 3) for name, rank in ranks.items()}


def below(path: str, folder: str) -> bool:
    """Whether a path is a folder itself or inside it."""
    return (path + "/").startswith(folder.rstrip("/") + "/")


class ZoneFormatter(logging.Formatter):
    """A formatter that writes times in a given time zone.

    Parameters:
        sample: format of a line for `logging.Formatter`.
        zone: IANA name, or `Local`.
        time_format: format of the time for `strftime`; empty for that of `logging`.
    """

    def __init__(self, sample: str, zone: str, time_format: str = "") -> None:
        super().__init__(sample, time_format or None)
        self._zone = None if zone == "Local" else zoneinfo.ZoneInfo(zone)

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802
        """Time in the given format; by default as `logging` writes it: `2026-04-06 12:34:56,789`."""
        moment = datetime.fromtimestamp(record.created).astimezone(self._zone)
        if datefmt:
            return moment.strftime(datefmt)
        return f"{moment:%Y-%m-%d %H:%M:%S},{int(record.msecs):03d}"


def doubtful(stages: list[Any]) -> list[str]:
    """Stages that may drop a line, or change its text or its label `node`.

    Parameters:
        stages: Promtail's stages of a source; empty for a preset, which has no such stages.
    """
    found = set()
    for stage in stages:
        for name, options in stage.items():
            named = "node" in options if isinstance(options, (list, dict)) else False
            kept = {"labels": not named, "static_labels": not named, "labeldrop": not named, "labelallow": named}
            if not kept.get(name, name in HARMLESS):
                found.add(name)
    return sorted(found)


def sample_of(stages: list[Any], sample: str) -> str:
    """Format of a line for a source, for `logging.Formatter`: JSON where its stages parse JSON."""
    if any("json" in stage for stage in stages):
        return '{"message": "%(message)s"}'
    return sample


# The probe


@dataclass
class Options:
    """What to prove: the options of the module `agent_delivery_check`, documented there."""

    agent: str
    loki_url: str
    http_port: int
    node: str
    path: str
    name: str
    exclude: str
    source: dict[str, Any]
    sample: str
    sample_time: str
    stages: list[Any]
    lines: int
    timeout: int
    zone: str


class Probe:
    """The proof for one path.

    Parameters:
        options: what to prove.
        run: function that runs a command.
    """

    def __init__(self, options: Options, run: Callable) -> None:
        self.options = options
        self.agent = AGENTS[options.agent]
        self.layout = layout_of(self.agent.NAME, host.SYSTEM)
        self.service = host.Service(run, self.layout.service)
        # A letter at the end, because a file name that ends in digits looks like a rotated file.
        self.marker = f"verify-{uuid.uuid4().hex[:12]}x"
        self.doubts = doubtful(options.stages)
        self.formatter = ZoneFormatter(sample_of(options.stages, options.sample), options.zone, options.sample_time)
        self.began = time.time()
        self.skew = 0.0
        self.path = ""  # of the file with the lines
        self.size = 0  # of that file, in bytes
        self.written: dict[int, float] = {}  # number of a line -> time of writing, in seconds since 1970
        self.found: dict[int, tuple[float, float]] = {}  # number -> when it was found, its time in Loki
        self.labels: dict[str, str] = {}
        self.results: dict[str, Any] = {
            "changed": False, "proof": "", "written": 0, "delivered": 0, "labels": {}, "not_probed": "", "cause": "",
        }  # fmt: skip

    def run(self) -> dict[str, Any]:
        """Prove the path.

        Returns:
            Results of the module.
        """
        times = None
        try:
            self.skew = loki.skew(self.options.loki_url)
            self.results["clock_skew"] = round(self.skew, 1)
            self.metrics()
            times = self.times()
            self.prove()
        except loki.LokiError as error:
            self.results["cause"] = f"this node cannot query Loki: {error}"
        except AgentError as error:
            self.results["cause"] = str(error)
        except UnprovableError as error:
            self.results["not_probed"] = str(error)
        self.results.update(written=len(self.written), delivered=len(self.found), labels=self.labels)
        self.measure()
        if times and not self.results["cause"]:
            self.results["cause"] = "; ".join(times.problems())
        return self.results

    def times(self) -> shifted_times.Times:
        """A first look at the times in the files of the path that are being written."""
        source = self.options.source
        mine = [source | {"paths": [self.options.path]}] if source else []
        return shifted_times.Times(mine, list(self.report().files))

    def look_only(self) -> dict[str, Any]:
        """Check the agent and Loki without writing a line.

        Returns:
            Results of the module.
        """
        try:
            self.results["clock_skew"] = round(loki.skew(self.options.loki_url), 1)
            self.metrics()
            self.results["not_probed"] = "check mode writes no lines"
        except loki.LokiError as error:
            self.results["cause"] = f"this node cannot query Loki: {error}"
        except AgentError as error:
            self.results["cause"] = str(error)
        return self.results

    def prove(self) -> None:
        """Prove the path with a new file, or else with a file that the agent follows.

        Raises:
            LokiError: a query to Loki fails.
            AgentError: the agent does not answer.
            UnprovableError: neither is possible.
        """
        try:
            file = self.new_file()
        except UnprovableError as error:
            self.followed_file(str(error))
            return
        self.path = file.path
        try:
            self.follow(file)
            self.judge()
        finally:
            file.remove()

    def new_file(self) -> OwnFile:
        """Create a new file that matches the path.

        Raises:
            UnprovableError: that is not possible.
        """
        path, exclude = self.options.path, self.options.exclude
        marker = "-".join(filter(None, (self.options.name, self.marker)))
        refused = ""
        try:
            for folder, name in islice(candidates(path, exclude, marker), 10):
                try:
                    return OwnFile(folder, name)
                except FolderError as error:
                    refused = str(error)
                except OSError as error:
                    refused = f"the owner of {folder} cannot create a file in it: {error.strerror}"
            raise UnprovableError(refused or unprovable(path, exclude, marker))
        except globs.PatternError as error:
            raise UnprovableError(f"the path is not a valid pattern: {error}") from error

    def write(self, file: OwnFile) -> None:
        """Append one line."""
        number = len(self.written) + 1
        record = logging.LogRecord("verify", logging.INFO, "", 0, f"{self.marker} {number} end", None, None)
        line = self.formatter.format(record)
        file.append(line)
        self.size += len(line.encode()) + 1
        self.written[number] = record.created

    def look(self) -> None:
        """Query Loki for the lines, by node and marker only, because stages may change other labels.

        At first only around the present time: it takes long to search every time that a wrong time zone could give.
        """
        now = time.time()
        labels = {"node": self.options.node}
        start, end = self.began - 60, now + 60
        if self.found:
            shift = next(stored - self.written[number] for number, (_seen, stored) in self.found.items())
            start, end = start + shift, end + shift
        elif now - self.written[1] > NEAR:
            start, end = now - ZONES, now + ZONES
            if not self.options.stages:
                labels["filename"] = self.path
        for stream in self.streams(labels, f'|= "{self.marker}"', start, end, loki.PAGE):
            self.labels = stream["stream"]
            for moment, text in stream["values"]:
                for number in re.findall(rf"{self.marker} (\d+) end", text):
                    self.found.setdefault(int(number), (time.time(), int(moment) / loki.SECOND))

    def streams(self, labels: dict[str, str], rest: str, start: float, end: float, limit: int) -> list[dict]:
        """Streams that have the given labels.

        Parameters:
            labels: label names and values.
            rest: the query after its stream selector.
            start: earliest time, in seconds since 1970.
            end: end of the time range (exclusive), in seconds since 1970.
            limit: how many lines at most.
        """
        chosen = ", ".join(f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in labels.items())
        moments = [int(moment * loki.SECOND) for moment in (start, end)]
        return loki.streams(self.options.loki_url, f"{{{chosen}}} {rest}".strip(), *moments, limit)

    def follow(self, file: OwnFile) -> None:
        """Write the lines, each after the previous one has arrived, and wait until all have arrived.

        No line is written in the second half of the time, so that the last one has time to arrive.

        Raises:
            LokiError: Loki refuses a query, or does not answer at the end of the time (before that it may be
                restarting).
        """
        # Lines that stages may drop are waited for only as long as the agent needs to read them.
        time_given = min(COUNTED, self.options.timeout) if self.doubts else self.options.timeout
        begin, silence = time.monotonic(), None
        while len(self.written) < self.options.lines and (
            not self.written or time.monotonic() < begin + time_given / 2
        ):
            self.write(file)
            while len(self.found) < len(self.written) and time.monotonic() < begin + time_given:
                time.sleep(0.02)
                try:
                    self.look()
                    silence = None
                except loki.NoAnswerError as error:
                    silence = error
        if silence:
            raise silence

    def judge(self) -> None:
        """Set the proof, or the cause of missing lines."""
        if len(self.found) == len(self.written):
            self.results["proof"] = LOKI
        elif self.doubts and self.was_read() and not self.undelivered():
            self.results["proof"] = COUNTERS
        else:
            self.results["cause"] = self.cause()

    def measure(self) -> None:
        """Add latency and time error, if lines were found."""
        pairs = [(*self.found[number], moment) for number, moment in self.written.items() if number in self.found]
        if not pairs:
            return
        waits = [seen - moment for seen, _told, moment in pairs]
        self.results["latency"] = percentiles(waits[1:] or waits)
        error = max((stored - moment for _seen, stored, moment in pairs), key=abs)
        self.results["time_error"] = round(error, 3)
        # With stages of the user's own, Loki's time may be the time of reading, so a difference proves nothing.
        if abs(error) >= 1 and not self.results["cause"] and not self.options.stages:
            self.results["cause"] = (
                f"times are off by {error:+.0f} s: the agent reads them in another time zone. Set promtail_timezone, "
                "or restart the agent if this node's time zone was changed since the agent's start"
            )

    # Proof with an existing file

    def followed_file(self, reason: str) -> None:
        """Prove the path with the newest matching file that the agent follows.

        Parameters:
            reason: why no new file could be used.

        Raises:
            UnprovableError: this is not possible either.
        """
        newest = max(self.followed(), key=lambda one: one[1].st_mtime, default=None)
        if not newest:
            if refused := self.refused(self.exact() or globs.fixed_part(globs.alternatives(self.options.path)[0])):
                self.results["cause"] = refused
                return
            raise UnprovableError(f"{reason}. {self.unfollowed()}")
        self.path, status = newest
        if not status.st_size:
            raise UnprovableError(f"{reason}. {self.path} is empty")
        end = time.monotonic() + COUNTED
        while self.report().files.get(self.path, (0, 0))[0] < status.st_size:
            if time.monotonic() > end:
                raise UnprovableError(
                    f"{reason}. The agent did not read {self.path} to its end within {COUNTED} s{self.evidence()}"
                )
            time.sleep(0.5)
        written, now = status.st_mtime, time.time()
        labels = {"node": self.options.node, "filename": self.path}
        streams = self.streams(labels, "", max(now - OLDEST, written - ZONES), max(written, now) + ZONES, 1)
        times = [int(moment) / loki.SECOND for stream in streams for moment, _line in stream["values"]]
        if not times:
            raise UnprovableError(
                f"{reason}. The agent has read {self.path} to its end, but Loki has no line with that filename"
                f"{self.evidence()}"
            )
        self.labels = streams[0]["stream"]
        self.results.update(proof=COUNTERS, newest_line=round(now - max(times), 1))

    def followed(self) -> list[tuple[str, os.stat_result]]:
        """Files that match the path and that the agent follows."""
        found = []
        for path in self.report().files:
            if self.matches(path):
                with suppress(OSError):
                    found.append((path, os.lstat(path)))
        return [(path, status) for path, status in found if stat.S_ISREG(status.st_mode)]

    def matches(self, path: str) -> bool:
        """Whether the path of a file matches the probed path."""
        exclude = self.options.exclude
        return globs.matches(self.options.path, path) and not (exclude and globs.matches(exclude, path))

    def exact(self) -> str | None:
        """The path, if it names one file; else None."""
        names = [globs.plain(name) for name in self.options.path.split("/")]
        return None if None in names else "/".join(name for name in names if name is not None)

    def unfollowed(self) -> str:
        """What is known about matching files that the agent does not follow."""
        refused = [f"{printable(path)}: {why}" for path, why in self.report().refused.items() if self.matches(path)]
        if refused:
            return f"Not shipped: {printable('; '.join(refused[:3]))}"
        return "The agent follows no file with that path, so its counters prove nothing"

    # Reports of the agent

    def metrics(self) -> Metrics:
        """The agent's own metrics.

        Raises:
            AgentError: the agent does not run or does not answer; the text says which.
        """
        state = self.service.state()
        if state.active_state == ABSENT:
            raise AgentError("the agent is not installed. `ansible-playbook site.yml --tags promtail` deploys it")
        if not state.pid:
            raise AgentError(f"the agent does not run. `{self.service.log_command}` shows its log")
        try:
            return fetch(self.options.http_port)
        except AgentError as error:
            raise AgentError(f"the agent runs, but {error}") from error

    def was_read(self) -> bool:
        """Whether the agent has read the new file to its end; waits for that."""
        end = time.monotonic() + COUNTED
        while True:
            read, size = self.report().files.get(self.path, (0, 0))
            if read == size >= self.size:
                return True
            if time.monotonic() > end:
                return False
            time.sleep(0.5)

    def report(self) -> watch.Report:
        """Report of the watcher; an empty one when there is no report."""
        return watch.report(self.layout.report) or watch.Report()

    def refused(self, path: str) -> str:
        """Why the watcher does not ship a file or a folder above it; empty when the report has no reason."""
        found = [f"{one}: {why}" for one, why in self.report().refused.items() if below(path, one)]
        return printable(f"not shipped: {found[0]}") if found else ""

    def said(self, *of: str) -> list[str]:
        """Lines of the agent's log since the start of the probe that report a problem.

        Parameters:
            of: texts; a line must contain one of them.
        """
        seconds = math.ceil(time.time() - self.began) + 1
        lines = self.service.journal(500, seconds).splitlines()
        return [line.strip() for line in lines if PROBLEM.search(line) and any(one in line for one in of)]

    def undelivered(self) -> list[str]:
        """Log lines of the agent about batches that Loki did not accept."""
        return self.said(self.agent.RETRIED, self.agent.REFUSED)

    def evidence(self) -> str:
        """The newest log line of the agent about the file or the delivery, as the end of a message; may be empty."""
        lines = self.said(self.path, self.agent.RETRIED, self.agent.REFUSED)
        return f": {lines[-1]}{host.system.hint(lines[-1])}" if lines else ""

    def cause(self) -> str:
        """Why lines are missing, if evidence about this file and this time shows it; else what was checked."""
        if refused := self.refused(self.path):
            return refused
        self.metrics()  # that the agent runs
        if self.path not in (files := self.report().files):
            named = self.said(self.path)
            if named:
                return f"the agent does not follow {self.path}: {named[-1]}{host.system.hint(named[-1])}"
            return (
                f"the agent does not follow {self.path}. Its log of this time and the list of files that are not "
                "shipped say nothing about that file. If smolcluster_log_sources was changed since the last "
                "deployment, run `ansible-playbook site.yml --tags promtail`"
            )
        if self.skew > loki.FUTURE:
            return f"this node's clock is {self.skew:.0f} s ahead of Loki's, so Loki refuses its lines. Set the clock"
        if lines := self.undelivered():
            return f"the agent cannot deliver: {lines[-1]}{host.system.hint(lines[-1])}"
        return (
            f"{len(self.written) - len(self.found)} of {len(self.written)} lines were not found in Loki within "
            f"{self.options.timeout} s. The agent has read {files[self.path][0]} of {self.size} bytes of the file. Its "
            "log of this time and the list of files that are not shipped show no cause"
        )
