"""The invariant that every fault is held against, and its record.

While one fault runs, each rank writes numbered lines in the real format. Afterwards, for every rank: count = unique =
written, no gap, order by time = order by number, labels right, time error under 1 s.
"""

from __future__ import annotations

import json
import re
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from lab import loki as pages
from lab.config import STATE, Host
from lab.shell import wait_for
from plugins.module_utils import loki
from tests.lab.harness import CONTROLLER, MINIS, Lab

FOLDER = "/srv/training"  # on a disk that a reboot leaves alone, as /tmp is not
ELSEWHERE = "/srv/elsewhere"  # where links of the watched folders may lead
WRITER = (Path(__file__).parent / "writer.py").read_text()
LOKI = "smolcluster-logging-loki-1"
RECORD = STATE / "delivery.json"
LINE = re.compile(r"rank:(?P<rank>\d+) \| seq=(?P<seq>\d{6}) run=\w+ at=(?P<at>\d+)$")
SOURCES = [
    {
        "name": "smolcluster-worker",
        "paths": [
            "/tmp/smolcluster-logs/worker-*.log",
            f"{FOLDER}/worker-*.log",
            f"{ELSEWHERE}/ray/session_latest/logs/worker-*.log",
        ],
        "follow": [ELSEWHERE],
        "format": "smolcluster",
        "labels": {"job": "smolcluster-worker", "component": "worker"},
    }
]


@dataclass
class Row:
    """What a fault did, for docs/delivery.md.

    Parameters:
        fault: the test's first line.
        written: lines that all ranks wrote.
        lost: of these not in Loki.
        duplicated: lines that Loki shows more than once.
        catch_up: seconds from the end of the fault until all lines were there; none when some never came.
    """

    fault: str
    written: int
    lost: int
    duplicated: int
    catch_up: float | None


@dataclass
class Rank:
    """One rank's outcome: what is wrong with it, in words.

    Parameters:
        host: mini that it ran on.
        written: lines it wrote.
        missing: numbers that are not in Loki.
        duplicated: lines beyond the first of each number.
        faults: other violations of the invariant.
    """

    host: Host
    written: int
    missing: list[int]
    duplicated: int
    faults: list[str] = field(default_factory=list)

    def words(self) -> list[str]:
        """Everything that violates the invariant."""
        words = list(self.faults)
        if self.missing:
            words.append(f"{len(self.missing)} of {self.written} lines lost, from number {self.missing[0]}")
        if self.duplicated:
            words.append(f"{self.duplicated} lines duplicated")
        return [f"{self.host.name}: {text}" for text in words]


class Training:
    """Ranks that write while a fault runs.

    Parameters:
        lab: the running lab.
        fault: name of the fault, for the record.
    """

    def __init__(self, lab: Lab, fault: str) -> None:
        self.lab, self.fault = lab, fault
        self.run = uuid.uuid4().hex[:10]
        self.hosts: list[Host] = []
        self.stem = f"-{self.run}"
        self.healed: float | None = None
        self.began = time.time_ns()
        # For tests that write without ranks: numbers of the lines in Loki, by the mark that the lines have.
        self.seen: dict[str, list[int]] = {}

    def record_seen(self) -> None:
        """Keep a row of a test without ranks; every number from 0 to the last one seen was written once."""
        if self.seen:
            written = sum(max(numbers) + 1 for numbers in self.seen.values())
            unique = sum(len(set(numbers)) for numbers in self.seen.values())
            found = sum(len(numbers) for numbers in self.seen.values())
            record(Row(self.fault, written, written - unique, found - unique, None))

    def path(self, host: Host, folder: str = FOLDER) -> str:
        """Log file of the rank on a host."""
        return f"{folder}/worker-rank{MINIS.index(host)}-{host.name}{self.stem}.log"

    def start(
        self,
        hosts: list[Host],
        rate: float = 20,
        ahead: float = 0,
        rotate: int = 0,
        zone: str = "",
        folder: str = FOLDER,
    ) -> Training:
        """Start one rank a host.

        Parameters:
            hosts: minis to write on.
            rate: lines per second.
            ahead: seconds that the rank's clock is ahead.
            rotate: size in bytes at which the file is rotated; 0 is never.
            zone: `TZ` of the rank; none is the mini's own.
            folder: where the file lies.
        """
        self.folder = folder
        for host in hosts:
            self.lab.on(host, f"mkdir -p -m 1777 {folder} && cat > {folder}/writer.py", data=WRITER)
            words = f"{self.path(host, folder)} {MINIS.index(host)} {self.run} {rate} {ahead} {rotate}"
            program = f"{f'TZ={zone} ' if zone else ''}exec python3 {folder}/writer.py {words}"
            self.lab.on(host, f"setsid su smol -s /bin/sh -c '{program}' >/dev/null 2>&1 &")
        self.hosts += [host for host in hosts if host not in self.hosts]
        self.wait_written(3, hosts)
        return self

    def written(self, host: Host) -> int:
        """Number of the last line that a rank has written; 0 before the first."""
        return int(self.lab.on(host, f"cat {self.path(host, self.folder)}.{self.run}.written", check=False) or 0)

    def wait_written(self, more: int, hosts: list[Host] | None = None, timeout: float = 150) -> None:
        """Wait until each rank has written further lines.

        Parameters:
            more: how many.
            hosts: minis to wait for; none is all.
            timeout: seconds that it may take.
        """
        targets = {host: self.written(host) + more for host in hosts or self.hosts}
        for host, target in targets.items():
            wait_for(lambda host=host, target=target: self.written(host) >= target, f"{host.name} writes", timeout)

    def stop(self) -> Training:
        """End the ranks."""
        for host in self.hosts:
            # Only these arguments hold the run; `[.]` keeps the shell that searches from finding itself.
            self.lab.on(host, f"pkill -TERM -f 'writer[.]py.* {self.run} ' || true")
        for host in self.hosts:
            wait_for(
                lambda host=host: not self.lab.on(host, f"pgrep -f 'writer[.]py.* {self.run} ' || true"),
                f"{host.name}: the rank has ended",
                10,
            )
        return self

    def heal(self) -> None:
        """Note that the fault is over; catching up counts from here."""
        self.healed = time.monotonic()

    def arrived(self) -> dict[str, int]:
        """Lines in Loki by node, each as often as Loki counts it."""
        query = f'sum by (node) (count_over_time({{job="smolcluster-worker"}} |= "run={self.run}" [3h]))'
        try:
            series = loki.instant(self.lab.loki_url, query, time.time_ns() + 3600 * loki.SECOND)
        except loki.LokiError:
            return {}
        return {one["metric"].get("node", ""): int(one["value"][1]) for one in series}

    def ranks(self) -> list[Rank]:
        """Outcome of every rank, from all its lines in Loki."""
        start, end = self.began - 7200 * loki.SECOND, time.time_ns() + 7200 * loki.SECOND
        found = pages.entries(self.lab.loki_url, f'{{job="smolcluster-worker"}} |= "run={self.run}"', start, end)
        counts = self.arrived()
        return [self.rank(host, found, counts.get(host.name, 0)) for host in self.hosts]

    def rank(self, host: Host, found: list[pages.Entry], count: int) -> Rank:
        """Outcome of one rank.

        Parameters:
            host: its mini.
            found: entries of all ranks.
            count: how many lines of this node Loki counts.
        """
        own = [(moment, LINE.search(line), labels) for moment, line, labels in found if labels["node"] == host.name]
        written, expected = self.written(host), self.labels(host)
        numbers = Counter(int(match["seq"]) for _, match, _ in own if match)
        result = Rank(host, written, [n for n in range(1, written + 1) if n not in numbers], 0)
        result.duplicated = max(sum(numbers.values()), count) - len(numbers)
        if broken := sum(match is None for _, match, _ in own):
            result.faults.append(f"{broken} lines are not as written")
        in_order = sorted((moment, int(match["seq"])) for moment, match, _ in own if match)
        if [number for _, number in in_order] != sorted(number for _, number in in_order):
            result.faults.append("order by time is not order by number")
        wrong = [labels for _, _, labels in own if any(labels.get(key) != value for key, value in expected.items())]
        if wrong:
            result.faults.append(f"labels are {wrong[0]}, not {expected}")
        error = max((abs(moment / 1e6 - int(match["at"])) for moment, match, _ in own if match), default=0)
        if error >= 1000:
            result.faults.append(f"times are off by up to {error / 1000:.1f} s")
        return result

    def labels(self, host: Host) -> dict[str, str]:
        """Labels that every line of a host must have; the file's name may be that of a link to it."""
        return {
            "job": "smolcluster-worker",
            "component": "worker",
            "node": host.name,
            "rank": str(MINIS.index(host)),
            "level": "INFO",
        }

    def settle(self, timeout: float, wanted: dict[str, int] | None = None) -> float | None:
        """Wait until Loki counts as many lines as were written.

        Parameters:
            timeout: seconds that it may take.
            wanted: lines by node; none is what the ranks have written.

        Returns:
            Seconds since the fault was over; none when the time was not enough.
        """
        begin = self.healed or time.monotonic()
        wanted = wanted or {host.name: self.written(host) for host in self.hosts}
        while time.monotonic() < begin + timeout:
            counts = self.arrived()
            if all(counts.get(name, 0) >= count for name, count in wanted.items()):
                return time.monotonic() - begin
            time.sleep(0.2)
        return None

    def outcome(self, timeout: float = 60) -> tuple[Row, list[Rank]]:
        """End the ranks, wait for their lines and record what came of them.

        Parameters:
            timeout: seconds that the lines may take from the end of the fault.
        """
        self.stop()
        catch_up = self.settle(timeout)
        ranks = self.ranks()
        row = Row(
            self.fault,
            sum(rank.written for rank in ranks),
            sum(len(rank.missing) for rank in ranks),
            sum(rank.duplicated for rank in ranks),
            None if catch_up is None else round(catch_up, 1),
        )
        record(row)
        return row, ranks

    def prove(self, timeout: float = 60) -> Row:
        """Hold what arrived against the invariant.

        Raises:
            AssertionError: it does not hold; says for which rank and how.
        """
        row, ranks = self.outcome(timeout)
        words = [text for rank in ranks for text in rank.words()]
        assert not words, "; ".join(words)
        return row


def record(row: Row) -> None:
    """Keep a row for docs/delivery.md; a newer one of the same fault replaces it."""
    rows = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    rows[row.fault] = asdict(row)
    RECORD.write_text(json.dumps(rows, indent=2))


def store(lab: Lab, *words: str) -> None:
    """Run `docker` on the controller for Loki's container."""
    lab.on(CONTROLLER, " ".join(["docker", *words, LOKI]))


def store_ready(lab: Lab, timeout: float = 90) -> None:
    """Wait until Loki answers."""

    def ready() -> bool:
        try:
            return loki.get(lab.loki_url, "/ready")[0].startswith("ready")
        except loki.LokiError:
            return False

    wait_for(ready, "Loki is ready", timeout)


@contextmanager
def store_down(lab: Lab, training: Training | None = None) -> Iterator[None]:
    """Loki is stopped meanwhile, and ready again afterwards; then the training's fault is over."""
    store(lab, "stop", "--time", "10")
    try:
        yield
    finally:
        store(lab, "start")
        store_ready(lab)
        if training:
            training.heal()


def agent_ready(lab: Lab, host: Host, timeout: float = 40) -> None:
    """Wait until a host's agent answers."""
    wait_for(
        lambda: lab.on(host, "curl -fsS -o /dev/null http://127.0.0.1:9080/metrics && echo up", check=False) == "up",
        f"{host.name}: the agent answers",
        timeout,
    )
