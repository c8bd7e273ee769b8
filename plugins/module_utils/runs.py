# Copyright (c) SmolCluster contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Training runs: a name, its nodes, its start and its end.

A run is two lines in Loki, one for its start and one for its end, in a stream of their own. The lines of training and
the agents are not touched: a line belongs to a run by its node and its time. Records are kept as long as the lines.
"""

from __future__ import annotations

import difflib
import json
import re
import time
from dataclasses import dataclass, field

from ansible_collections.smolcluster.logging.plugins.module_utils import health_lines, loki

# Labels of the stream that has the records. It has no `node`, so that no query for a node's lines finds them.
STREAM = {"job": "smolcluster-runs", "component": "controller"}
# Lines that `verify` writes are not from training.
PROBE = "verify"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
SILENCE = 600  # seconds without a line after which a run without a recorded end has ended
# Seconds before now that are searched for records. Loki refuses queries over more than `max_query_length`, by default
# 721 h.
SEARCHED = 720 * 3600
STEPS = 10_000  # values of one metric query; Loki refuses more than 11,000


class RunError(Exception):
    """A run cannot be recorded; the text says why, and the way out."""


@dataclass
class Run:
    """A run, with what Loki has of it. Times are nanoseconds since 1970.

    Parameters:
        name: its name.
        nodes: names of its nodes.
        start: when it started.
        end: its recorded end, or the time of its last line before the silence that ended it; None while it runs.
        recorded: whether the end was recorded.
        last_line: time of its last line; None without lines.
        lines: number of its lines.
        errors: number of lines with the level ERROR or above.
        ranks: its ranks, by number where they are numbers.
    """

    name: str
    nodes: list[str]
    start: int
    end: int | None = None
    recorded: bool = False
    last_line: int | None = None
    lines: int = 0
    errors: int = 0
    ranks: list[str] = field(default_factory=list)

    def selector(self) -> str:
        """LogQL selector of the lines of its nodes."""
        names = "|".join(re.escape(node).replace("\\-", "-") for node in self.nodes)
        return f"{{node=~{json.dumps(names)}, job!={json.dumps(health_lines.JOB)}, rank!={json.dumps(PROBE)}}}"

    def shown(self) -> dict:
        """The run as a result of a module: times in seconds since 1970."""

        def seconds(moment: int | None) -> float | None:
            return None if moment is None else round(moment / loki.SECOND, 3)

        return {
            "name": self.name,
            "nodes": self.nodes,
            "start": seconds(self.start),
            "end": seconds(self.end),
            "end_recorded": self.recorded,
            "last_line": seconds(self.last_line),
            "lines": self.lines,
            "errors": self.errors,
            "ranks": self.ranks,
        }


def by_number(rank: str) -> tuple[bool, int, str]:
    """Sort key that puts numbers first, in their order."""
    return (not rank.isdecimal(), int(rank) if rank.isdecimal() else 0, rank)


class Runs:
    """The runs that a Loki has records of.

    Parameters:
        url: base URL of Loki.
        silence: seconds without a line after which a run without a recorded end has ended.
        now: current time, nanoseconds since 1970.

    Raises:
        loki.LokiError: Loki does not answer, or refuses a query. Also from every method.
    """

    def __init__(self, url: str, silence: int = SILENCE, now: int | None = None) -> None:
        self.url, self.silence = url, silence
        self.now = time.time_ns() if now is None else now
        self.runs = self._recorded()

    def _recorded(self) -> list[Run]:
        """All runs, the oldest first, without what their lines say."""
        selector = "{" + ", ".join(f"{label}={json.dumps(value)}" for label, value in STREAM.items()) + "}"
        begin = self.now - SEARCHED * loki.SECOND
        found = loki.streams(self.url, selector, begin, self.now + loki.SECOND)
        records = sorted((int(moment), text) for stream in found for moment, text in stream["values"])
        runs: dict[str, Run] = {}
        for moment, text in records:
            try:
                record = json.loads(text)
                name, event = str(record["run"]), record["event"]
                if event == "start":
                    runs.setdefault(name, Run(name, [str(node) for node in record["nodes"]], moment))
                elif event == "end" and name in runs and runs[name].end is None:
                    runs[name].end, runs[name].recorded = moment, True
            except (ValueError, LookupError, TypeError):  # somebody else has pushed this line
                continue
        return list(runs.values())

    def _bound(self, run: Run) -> int:
        """Time at which the lines of a run end at the latest: its end, or the start of the next run on its nodes."""
        if run.end is not None:
            return run.end
        later = [other.start for other in self.runs if other.start > run.start and set(other.nodes) & set(run.nodes)]
        return min([*later, self.now])

    def _last_line(self, run: Run, bound: int) -> int | None:
        """Time of the last line of a run before a time; None without lines."""
        found = loki.streams(self.url, run.selector(), run.start, bound + 1, limit=1)
        return max((int(moment) for stream in found for moment, _line in stream["values"]), default=None)

    def _silent_since(self, run: Run, bound: int) -> int | None:
        """A time in the first silence of a run after its first line; None if there is none before a time."""
        first, last = run.start // loki.SECOND, bound // loki.SECOND
        step = max(min(60, self.silence), (last - first) // STEPS + 1)
        query = f"sum(count_over_time({run.selector()} [{self.silence}s]))"
        found = loki.series(self.url, query, first, last, step)
        busy = {int(moment) for one in found for moment, _count in one["values"]}
        if not busy:
            return None
        silent = next((moment for moment in range(min(busy), last + 1, step) if moment not in busy), None)
        return None if silent is None else silent * loki.SECOND

    def complete(self, run: Run) -> Run:
        """Add to a run what its lines say: its end, its last line, its ranks and the numbers of lines."""
        bound = self._bound(run)
        if run.end is None:
            silent = self._silent_since(run, bound)
            run.last_line = self._last_line(run, bound if silent is None else silent)
            quiet = self.now - (run.last_line or run.start) > self.silence * loki.SECOND
            if silent is not None or bound < self.now or quiet:
                run.end = bound = run.last_line or run.start
        else:
            run.last_line = self._last_line(run, bound)
        if run.last_line is not None:
            self._count(run, bound)
        return run

    def _count(self, run: Run, bound: int) -> None:
        """Count the lines of a run until a time, that time included."""
        # Whole milliseconds, the shortest unit of a range. A range includes its last moment, but not its first one.
        length = (bound - run.start) // 1_000_000 + 1
        query = f"sum by (rank, level) (count_over_time({run.selector()} [{length}ms]))"
        ranks = set()
        for one in loki.instant(self.url, query, bound):
            lines, labels = int(float(one["value"][1])), one["metric"]
            run.lines += lines
            if labels.get("level") in ("ERROR", "CRITICAL", "FATAL"):
                run.errors += lines
            if labels.get("rank"):
                ranks.add(labels["rank"])
        run.ranks = sorted(ranks, key=by_number)

    def named(self, name: str) -> Run:
        """The run with a name.

        Raises:
            RunError: there is none.
        """
        for run in self.runs:
            if run.name == name:
                return run
        near = difflib.get_close_matches(name, [run.name for run in self.runs], 3)
        raise RunError(
            f"there is no run {name}. "
            + (f"Similar names: {', '.join(near)}" if near else "`ansible-playbook playbooks/runs.yml` lists all runs")
        )

    def start(self, name: str, nodes: list[str], check_only: bool = False) -> tuple[Run, bool]:
        """Record the start of a run.

        Parameters:
            name: its name.
            nodes: names of its nodes.
            check_only: whether to record nothing.

        Returns:
            The run, and whether it is new; a run that was started before and still runs on these nodes is not.

        Raises:
            RunError: the name is not usable or is used, or another run still runs on one of the nodes.
        """
        check_name(name)
        for run in self.runs:
            if run.name == name:
                self.complete(run)
                if run.end is None and sorted(run.nodes) == sorted(nodes):
                    return run, False
                why = (
                    "it has ended"
                    if run.end is not None
                    else f"it still runs on {', '.join(run.nodes)}; end it with `-e run_end={name}`"
                )
                raise RunError(f"the name {name} is used by a run of {shown_time(run.start)}: {why}. Use another name")
        for run in self.runs:
            shared = sorted(set(run.nodes) & set(nodes))
            if shared and not run.recorded and self.complete(run).end is None:
                raise RunError(
                    f"the run {run.name} of {shown_time(run.start)} still runs on {', '.join(shared)}, and the lines "
                    "of two runs on one node cannot be distinguished. "
                    f"End it with `-e run_end={run.name}`, or wait until its nodes are silent for "
                    f"{self.silence // 60} min"
                )
        run = Run(name, list(nodes), self.now)
        if not check_only:
            self._record({"run": name, "event": "start", "nodes": run.nodes})
        self.runs.append(run)
        return run, True

    def finish(self, name: str, check_only: bool = False) -> tuple[Run, bool]:
        """Record the end of a run.

        Parameters:
            name: its name.
            check_only: whether to record nothing.

        Returns:
            The run, and whether its end is new.

        Raises:
            RunError: there is no run with this name.
        """
        run = self.named(name)
        if run.recorded:
            return self.complete(run), False
        ended = self.complete(run).end
        if ended is not None:  # silence has ended it: record nothing that is later
            return run, False
        if not check_only:
            self._record({"run": name, "event": "end"})
        run.end, run.recorded = self.now, True
        return run, True

    def _record(self, record: dict) -> None:
        loki.push(self.url, STREAM, json.dumps(record, sort_keys=True), self.now)


def check_name(name: str) -> None:
    """Make sure that a name can be used for a run.

    Raises:
        RunError: it cannot.
    """
    if not NAME.fullmatch(name):
        raise RunError(
            f"{name!r} cannot be the name of a run. Use letters, digits, '.', '_' and '-', at most 100, and begin with "
            "a letter or a digit"
        )


def shown_time(moment: int) -> str:
    """A time in nanoseconds since 1970 as text in UTC."""
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(moment // loki.SECOND))
