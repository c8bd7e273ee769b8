"""What Loki knows of a training: printed as tables for somebody who has never seen it."""

from __future__ import annotations

import math
import re
import time
from collections import defaultdict
from datetime import UTC, datetime

from lab.config import LOKI
from lab.loki import Entry
from lab.loki import entries as ask
from lab.shell import LabError
from plugins.module_utils import loki

JOBS = '{job=~"smolcluster.+", job!="smolcluster-health"}'
WIDTH = 100
TIME = len("2026-04-06 12:34:56,789 | ")  # of a line


def clock(moment: int) -> str:
    """Time in nanoseconds since 1970 as UTC text with milliseconds."""
    return datetime.fromtimestamp(moment / loki.SECOND, UTC).strftime("%H:%M:%S.%f")[:-3]


def entries(query: str, start: int) -> list[Entry]:
    """Entries of a log query since `start` (nanoseconds), oldest first: time, line, labels."""
    return ask(LOKI, query, start, time.time_ns() + loki.SECOND)


def shortened(text: str, width: int) -> str:
    """Text in at most `width` characters; what is left out shows as `…`."""
    return text if len(text) <= width else text[: width - 1] + "…"


def heading(text: str) -> None:
    """Print a heading."""
    print(f"\n== {text} ==")


def wait_for_entries(expected: dict[str, int], start: int, timeout: float = 20) -> None:
    """Compare files with Loki: entries per log file, asked for until all are there.

    Parameters:
        expected: number of entries written, by file stem (label `host`).
        start: start of the training, nanoseconds since 1970.
        timeout: seconds to wait at most.

    Raises:
        LabError: some are missing, or there are too many.
    """
    deadline = time.monotonic() + timeout
    while True:
        found: dict[str, int] = defaultdict(int)
        for _, _, labels in entries(JOBS, start):
            found[labels.get("host", "")] += 1
        if all(found[host] == count for host, count in expected.items()) or time.monotonic() > deadline:
            break
        time.sleep(0.2)
    heading("Delivered")
    for host, count in expected.items():
        print(f"{host:24} {found[host]:5} of {count} entries")
    if any(found[host] != count for host, count in expected.items()):
        raise LabError(
            "the entries in Loki are not those in the files; `ansible-playbook playbooks/verify.yml` finds out why"
        )


def last_lines(start: int, count: int = 3) -> None:
    """Print the last lines of every rank."""
    heading("Last lines of every rank (times in UTC)")
    by_host: dict[str, list[Entry]] = defaultdict(list)
    for row in entries(JOBS, start):
        by_host[row[2].get("host", "")].append(row)
    for host, rows in sorted(by_host.items()):
        labels = rows[-1][2]
        print(f"{host}   node={labels.get('node')} rank={labels.get('rank')}")
        for moment, line, _ in rows[-count:]:
            # Without the line's own time, which is local.
            print(shortened(f"  {clock(moment)}  {line.splitlines()[0][TIME:]}", WIDTH))


def formats(start: int) -> None:
    """Print what is read of one line of each format.

    Raises:
        LabError: of a line, the level or the rank is not known.
    """
    heading("Two formats, the same labels; on mini3 only `format: python` is set (lab/demo/inventory.yml)")
    for node in ("mini2", "mini3"):
        moment, line, labels = entries(f'{{node="{node}", component="worker"}}', start)[0]
        print(shortened(line, WIDTH))
        print(f"  {clock(moment)} UTC, level={labels.get('level')}, rank={labels.get('rank')}")
        if not labels.get("level") or not labels.get("rank"):
            raise LabError("a line was not read as its format says; deploy with `make demo`")


def loss(start: int, rows: int = 10) -> None:
    """Print the loss over the steps, as the server logged it.

    Raises:
        LabError: no line has one.
    """
    heading('Loss over the steps, from {component="server"} |= "metric:loss" (bars are logarithmic)')
    found = [
        (int(match[1]), float(match[2]))
        for _, line, _ in entries('{component="server"} |= "metric:loss"', start)
        if (match := re.search(r"step:(\d+) \| metric:loss \| value:([\d.]+)", line))
    ]
    if not found:
        raise LabError("no line of the server contains a loss")
    shown = [*found[: -1 : max(1, len(found) // rows)], found[-1]]
    # The lowest loss that is shown has a bar of one character.
    bases = [math.log(max(value, 1e-6)) for _, value in shown]
    span = max(bases) - min(bases) or 1.0
    for (step, value), base in zip(shown, bases, strict=True):
        print(f"  step {step:4}  {value:10.4f}  {'#' * (1 + round(59 * (base - min(bases)) / span))}")


def one_error(start: int) -> None:
    """Print one error with its traceback.

    Raises:
        LabError: there is none.
    """
    heading("One error with its traceback, a single entry")
    found = entries('{level="ERROR"} |= "Traceback"', start)
    if not found:
        raise LabError("no ERROR with a traceback is in Loki")
    moment, line, labels = found[0]
    print(f"node={labels.get('node')} rank={labels.get('rank')} host={labels.get('host')} at {clock(moment)} UTC")
    for part in line.splitlines():
        print(f"  {part}")


def documented(start: int) -> None:
    """Run the queries of SmolCluster's documentation, and two that count."""
    heading("Queries of SmolCluster's documentation")
    queries = (
        '{job="smolcluster-worker"}',
        '{rank="0"}',
        '{level="ERROR"}',
        '{host="worker-rank0-mini2"}',
        '{component="server"} |= "loss"',
    )
    for query in queries:
        found = entries(query, start)
        last = found[-1][1].splitlines()[0].split(" | ", 3)[-1] if found else "-"
        print(shortened(f"{query:34} {len(found):5} entries, last: {last}", WIDTH))
    seconds = (time.time_ns() - start) // loki.SECOND + 1
    for title, query, label in (
        (
            "Lines per minute and rank (mean over the training)",
            f"sum by (rank) (count_over_time({JOBS}[{seconds}s])) * 60 / {seconds}",
            "rank",
        ),
        ("Errors per node", f'sum by (node) (count_over_time({{level="ERROR"}}[{seconds}s]))', "node"),
    ):
        heading(title)
        print(query)
        for series in sorted(loki.instant(LOKI, query), key=lambda series: series["metric"].get(label, "")):
            print(f"  {label} {series['metric'].get(label, '-'):10} {float(series['value'][1]):8.0f}")


def show(expected: dict[str, int], start: int) -> None:
    """Print everything.

    Parameters:
        expected: number of entries written, by file stem.
        start: start of the training, nanoseconds since 1970.

    Raises:
        LabError: Loki has not what the files have.
    """
    wait_for_entries(expected, start)
    last_lines(start)
    formats(start)
    loss(start)
    one_error(start)
    documented(start)
