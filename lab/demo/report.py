"""What Loki knows of a training: printed as tables for somebody who has never seen it."""

from __future__ import annotations

import re
import time
from collections import defaultdict
from datetime import UTC, datetime

from lab.shell import LabError
from plugins.module_utils import loki

URL = "http://127.0.0.1:3100"
JOBS = '{job=~"smolcluster.+"}'
WIDTH = 100


def clock(moment: int) -> str:
    """Time in nanoseconds since 1970 as UTC text with milliseconds."""
    return datetime.fromtimestamp(moment / loki.SECOND, UTC).strftime("%H:%M:%S.%f")[:-3]


def entries(query: str, start: int) -> list[tuple[int, str, dict]]:
    """Entries of a log query since `start` (nanoseconds), oldest first: time, line, labels."""
    found = loki.streams(URL, query, start, time.time_ns() + loki.SECOND)
    rows = [(int(moment), line, stream["stream"]) for stream in found for moment, line in stream["values"]]
    return sorted(rows, key=lambda row: row[0])


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
            found[labels["host"]] += 1
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
    heading("Last lines of every rank (times in UTC; the lines' own are local)")
    by_host: dict[str, list[tuple[int, str, dict]]] = defaultdict(list)
    for row in entries(JOBS, start):
        by_host[row[2]["host"]].append(row)
    for host, rows in sorted(by_host.items()):
        labels = rows[-1][2]
        print(f"{host}   node={labels['node']} rank={labels['rank']}")
        for moment, line, _ in rows[-count:]:
            print(f"  {clock(moment)}  {line.splitlines()[0]}"[:WIDTH])


def loss(start: int, rows: int = 10) -> None:
    """Print the loss over the steps, as the server logged it."""
    heading('Loss over the steps, from {component="server"} |= "metric:loss"')
    found = [
        (int(match[1]), float(match[2]))
        for _, line, _ in entries('{component="server"} |= "metric:loss"', start)
        if (match := re.search(r"step:(\d+) \| metric:loss \| value:([\d.]+)", line))
    ]
    highest = max(value for _, value in found)
    for step, value in found[:: max(1, len(found) // rows)]:
        print(f"  step {step:4}  {value:10.4f}  {'#' * round(60 * value / highest)}")


def one_error(start: int) -> None:
    """Print one error with its traceback."""
    heading("One error with its traceback, a single entry")
    moment, line, labels = entries('{level="ERROR"} |= "Traceback"', start)[0]
    print(f"node={labels['node']} rank={labels['rank']} host={labels['host']} at {clock(moment)} UTC")
    for part in line.splitlines():
        print(f"  {part}"[:WIDTH])


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
        last = found[-1][1].splitlines()[0] if found else ""
        print(f"{query:34} {len(found):5} entries, last: {last}"[:WIDTH])
    seconds = (time.time_ns() - start) // loki.SECOND + 1
    for title, query, label in (
        ("Lines per minute and rank", f"sum by (rank) (count_over_time({JOBS}[{seconds}s])) * 60 / {seconds}", "rank"),
        ("Errors per node", f'sum by (node) (count_over_time({{level="ERROR"}}[{seconds}s]))', "node"),
    ):
        heading(f"{title}: {query}")
        for series in sorted(loki.instant(URL, query), key=lambda series: series["metric"][label]):
            print(f"  {label} {series['metric'][label]:10} {float(series['value'][1]):8.0f}")


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
    loss(start)
    one_error(start)
    documented(start)
