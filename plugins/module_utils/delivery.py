# Copyright (c) SmolCluster contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""The proof that lines of a path arrive in Loki, which leaves everything on the node as it was.

A path with a wildcard is proven by a new file: lines with a marker are written to it and looked for in Loki. The file
is made in a folder that is there, as that folder's owner, under a name that training does not choose; nothing that is
there is opened for writing, and nothing is removed but this very file.

Where no such file can be, or where a source's stages may change or drop the marker, the agent's own counters are the
proof: of the new file, or of a file that it follows. What neither can show is reported as not probed, with the reason.
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

from ansible_collections.smolcluster.logging.plugins.module_utils import globs, host, loki, watch
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
# How long the agent's counters may take to follow: it looks for new files every 2 s, and at their sizes every 10 s.
COUNTED = 12
# Lines are looked for around now this long, before every time that a wrong zone could give them is searched.
NEAR = 5
ZONES = 26 * 3600
# How far back Loki searches by default, less a day (max_query_length of 721h).
OLDEST = 29 * DAY
PROBLEM = re.compile(r"level=(warn|error)|^error|permission denied|operation not permitted|no such file", re.IGNORECASE)

# Stages of Promtail that leave a line's text, its labels `node` and `filename` and its way to Loki alone.
# https://grafana.com/docs/loki/v3.6.x/send-data/promtail/stages/
HARMLESS = frozenset(
    "decolorize geoip logfmt metrics multiline non_indexed_labels regex structured_metadata template timestamp".split()
)
LOKI, COUNTERS = "Loki", "counters"


def percentiles(values: list[float]) -> dict[str, float]:
    """Median, 99th percentile and maximum of values, by nearest rank (no value that did not occur)."""
    ordered = sorted(values)
    ranks = {"p50": 0.5, "p99": 0.99, "max": 1.0}
    return {name: round(ordered[max(0, math.ceil(rank * len(ordered)) - 1)], 3) for name, rank in ranks.items()}


def below(path: str, folder: str) -> bool:
    """Whether a path is a folder, or lies in it."""
    return (path + "/").startswith(folder.rstrip("/") + "/")


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


def doubtful(stages: list[Any]) -> list[str]:
    """Stages of a user's own that may change or drop a line, its label `node`, or its way to Loki.

    Parameters:
        stages: Promtail's stages of a source; none for a preset, whose stages do neither.
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
    """A line for a source, in the notation of `logging.Formatter`: JSON where its stages read that."""
    if any("json" in stage for stage in stages):
        return '{"message": "%(message)s"}'
    return sample


# The probe


@dataclass
class Options:
    """What is to be proven; the options of the module `agent_delivery_check`, see there."""

    agent: str
    loki_url: str
    http_port: int
    node: str
    path: str
    exclude: str
    sample: str
    stages: list[Any]
    lines: int
    timeout: int
    zone: str


class Probe:
    """The proof of one path.

    Parameters:
        options: what is to be proven.
        run: function that runs a command.
    """

    def __init__(self, options: Options, run: Callable) -> None:
        self.options = options
        self.agent = AGENTS[options.agent]
        self.layout = layout_of(self.agent.NAME, host.SYSTEM)
        self.service = host.Service(run, self.layout.service)
        # A letter at the end: a name that ends in digits is that of a rotated file.
        self.marker = f"verify-{uuid.uuid4().hex[:12]}x"
        self.doubts = doubtful(options.stages)
        self.formatter = ZoneFormatter(sample_of(options.stages, options.sample), options.zone)
        self.began = time.time()
        self.skew = 0.0
        self.path = ""  # of the file that is looked for
        self.written: dict[int, float] = {}  # number of a line -> when, seconds since 1970
        self.found: dict[int, tuple[float, float]] = {}  # number -> when found, its time in Loki
        self.labels: dict[str, str] = {}
        self.results: dict[str, Any] = {
            "changed": False, "proof": "", "written": 0, "delivered": 0, "labels": {}, "not_probed": "", "cause": "",
        }  # fmt: skip

    def run(self) -> dict[str, Any]:
        """Prove the path.

        Returns:
            Results of the module.
        """
        try:
            self.skew = loki.skew(self.options.loki_url)
            self.results["clock_skew"] = round(self.skew, 1)
            self.metrics()
            self.prove()
        except loki.LokiError as error:
            self.results["cause"] = f"this node cannot ask Loki: {error}"
        except AgentError as error:
            self.results["cause"] = str(error)
        except UnprovableError as error:
            self.results["not_probed"] = str(error)
        self.results.update(written=len(self.written), delivered=len(self.found), labels=self.labels)
        self.measure()
        return self.results

    def look_only(self) -> dict[str, Any]:
        """Look at agent and Loki without writing a line.

        Returns:
            Results of the module.
        """
        try:
            self.results["clock_skew"] = round(loki.skew(self.options.loki_url), 1)
            self.metrics()
            self.results["not_probed"] = "check mode writes no lines"
        except loki.LokiError as error:
            self.results["cause"] = f"this node cannot ask Loki: {error}"
        except AgentError as error:
            self.results["cause"] = str(error)
        return self.results

    def prove(self) -> None:
        """Prove the path by a new file, else by one that the agent follows.

        Raises:
            LokiError: Loki cannot be asked.
            AgentError: the agent cannot.
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
        """A new file that the path matches.

        Raises:
            UnprovableError: there cannot be one.
        """
        path, exclude = self.options.path, self.options.exclude
        refused = ""
        try:
            for folder, name in islice(candidates(path, exclude, self.marker), 10):
                try:
                    return OwnFile(folder, name)
                except FolderError as error:
                    refused = str(error)
                except OSError as error:
                    refused = f"no file can be made in {folder} by its owner: {error.strerror}"
            raise UnprovableError(refused or unprovable(path, exclude, self.marker))
        except globs.PatternError as error:
            raise UnprovableError(f"the path cannot be read: {error}") from error

    def write(self, file: OwnFile) -> None:
        """Append one line."""
        number = len(self.written) + 1
        record = logging.LogRecord("verify", logging.INFO, "", 0, f"{self.marker} {number} end", None, None)
        file.append(self.formatter.format(record))
        self.written[number] = record.created

    def look(self) -> None:
        """Ask Loki for the lines, by node and marker: what stages make of other labels is not known.

        Around now at first: every time that a wrong zone could give them is much to search.
        """
        now = time.time()
        labels = {"node": self.options.node}
        start, end = self.began - 60, now + 60
        if self.found:
            shift = next(told - self.written[number] for number, (_seen, told) in self.found.items())
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
        """Streams with some labels.

        Parameters:
            labels: label names and values.
            rest: what follows the selector in the query.
            start: earliest time, in seconds since 1970.
            end: time after the latest.
            limit: how many lines at most.
        """
        chosen = ", ".join(f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in labels.items())
        moments = [int(moment * loki.SECOND) for moment in (start, end)]
        return loki.streams(self.options.loki_url, f"{{{chosen}}} {rest}".strip(), *moments, limit)

    def follow(self, file: OwnFile) -> None:
        """Write line after line, each when the one before has arrived, and wait until all are there.

        In the second half of the time no more are written, so that the last one has time to arrive.

        Raises:
            LokiError: Loki refuses; or it does not answer when the time is over (until then it may be starting anew).
        """
        # What stages may drop is not waited for longer than the agent needs to read it.
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
        """Say what the lines that arrived, or did not, prove."""
        if len(self.found) == len(self.written):
            self.results["proof"] = LOKI
        elif self.doubts and self.read_lines() >= len(self.written) and not self.undelivered():
            self.results["proof"] = COUNTERS
        else:
            self.results["cause"] = self.cause()

    def measure(self) -> None:
        """Add latency and error of the times, where lines were found."""
        pairs = [(*self.found[number], moment) for number, moment in self.written.items() if number in self.found]
        if not pairs:
            return
        waits = [seen - moment for seen, _told, moment in pairs]
        self.results["latency"] = percentiles(waits[1:] or waits)
        error = max((told - moment for _seen, told, moment in pairs), key=abs)
        self.results["time_error"] = round(error, 3)
        # Where nothing is said of times, they are those at which lines were read.
        if abs(error) >= 1 and not self.results["cause"] and not self.options.stages:
            self.results["cause"] = (
                f"times are off by {error:+.0f} s: the agent takes them for another zone. Set promtail_timezone, or "
                "restart the agent if this node's zone was changed since its start"
            )

    # Proof by a file that is there

    def followed_file(self, reason: str) -> None:
        """Prove the path by the newest file that it matches and the agent follows.

        Parameters:
            reason: why there is no new file.

        Raises:
            UnprovableError: this proves nothing, either.
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
                    f"{reason}. The agent has not read {self.path} to its end within {COUNTED} s{self.evidence()}"
                )
            time.sleep(0.5)
        written, now = status.st_mtime, time.time()
        labels = {"node": self.options.node, "filename": self.path}
        streams = self.streams(labels, "", max(now - OLDEST, written - ZONES), max(written, now) + ZONES, 1)
        times = [int(moment) / loki.SECOND for stream in streams for moment, _line in stream["values"]]
        if not times:
            raise UnprovableError(
                f"{reason}. The agent has read {self.path} to its end, and Loki has no line of that name"
                f"{self.evidence()}"
            )
        self.labels = streams[0]["stream"]
        self.results.update(proof=COUNTERS, newest_line=round(now - max(times), 1))

    def followed(self) -> list[tuple[str, os.stat_result]]:
        """Files that the path matches and the agent follows."""
        found = []
        for path in self.report().files:
            if self.matches(path):
                with suppress(OSError):
                    found.append((path, os.lstat(path)))
        return [(path, status) for path, status in found if stat.S_ISREG(status.st_mode)]

    def matches(self, path: str) -> bool:
        """Whether the probed path matches a file's path."""
        exclude = self.options.exclude
        return globs.matches(self.options.path, path) and not (exclude and globs.matches(exclude, path))

    def exact(self) -> str | None:
        """The path, where it names one file."""
        names = [globs.plain(name) for name in self.options.path.split("/")]
        return None if None in names else "/".join(name for name in names if name is not None)

    def unfollowed(self) -> str:
        """What is known of the files that the path matches, none of which the agent follows."""
        refused = [f"{printable(path)}: {why}" for path, why in self.report().refused.items() if self.matches(path)]
        if refused:
            return f"The agent is not given {printable('; '.join(refused[:3]))}"
        return "The agent follows no file of that path, so there is nothing to look at"

    # What the agent says

    def metrics(self) -> Metrics:
        """The agent's own metrics.

        Raises:
            AgentError: it does not run or does not answer; the text says which.
        """
        state = self.service.state()
        if state.active_state == ABSENT:
            raise AgentError("the agent is not installed; `ansible-playbook site.yml --tags promtail` deploys it")
        if not state.pid:
            raise AgentError(f"the agent does not run; `{self.service.log_command}` says why")
        try:
            return fetch(self.options.http_port)
        except AgentError as error:
            raise AgentError(f"the agent runs, but {error}") from error

    def read_lines(self) -> int:
        """Lines of the new file that the agent has read, waited for until it has read what was written."""
        end = time.monotonic() + COUNTED
        while True:
            lines = self.agent.read_lines(self.metrics(), self.path) or 0
            if lines >= len(self.written) or time.monotonic() > end:
                return lines
            time.sleep(0.5)

    def report(self) -> watch.Report:
        """What the watcher of the log files reports; an empty one where there is none."""
        return watch.report(self.layout.report) or watch.Report()

    def refused(self, path: str) -> str:
        """Why the agent is not given a file or a folder above it; empty when nothing says so."""
        found = [f"{one}: {why}" for one, why in self.report().refused.items() if below(path, one)]
        return printable(f"the agent is not given {found[0]}") if found else ""

    def said(self, *of: str) -> list[str]:
        """Lines of the agent's journal since the probe began that tell of a problem with something.

        Parameters:
            of: texts, one of which stands in the line.
        """
        seconds = math.ceil(time.time() - self.began) + 1
        lines = self.service.journal(500, seconds).splitlines()
        return [line.strip() for line in lines if PROBLEM.search(line) and any(one in line for one in of)]

    def undelivered(self) -> list[str]:
        """Lines in which the agent tells that Loki did not take what it sent."""
        return self.said(self.agent.RETRIED, self.agent.REFUSED)

    def evidence(self) -> str:
        """The newest line of the agent's journal about the file or the delivery, to stand behind a text."""
        lines = self.said(self.path, self.agent.RETRIED, self.agent.REFUSED)
        return f": {lines[-1]}{host.system.hint(lines[-1])}" if lines else ""

    def cause(self) -> str:
        """Why lines are missing, by what is known of this file and this time; else what was looked at."""
        if refused := self.refused(self.path):
            return refused
        read = self.agent.read_lines(self.metrics(), self.path)
        if read is None:
            named = self.said(self.path)
            if named:
                return f"the agent does not follow {self.path}: {named[-1]}{host.system.hint(named[-1])}"
            return (
                f"the agent does not follow {self.path}. Looked at: its journal of this time, and the files that it is "
                "not given; nothing about that file was found there. If smolcluster_log_sources was changed since the "
                "last deployment: `ansible-playbook site.yml --tags promtail`"
            )
        if self.skew > loki.FUTURE:
            return f"this node's clock is {self.skew:.0f} s ahead of Loki's, which refuses such lines; set its clock"
        if lines := self.undelivered():
            return f"the agent cannot deliver: {lines[-1]}{host.system.hint(lines[-1])}"
        return (
            f"{len(self.written) - len(self.found)} of {len(self.written)} lines were not found in Loki within "
            f"{self.options.timeout} s. Looked at: the agent's metrics (it has read {read} of these lines), its "
            "journal of this time, and the files that it is not given; nothing was found there"
        )
