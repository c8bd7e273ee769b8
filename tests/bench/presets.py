"""What each format preset costs: Promtail reads one file with its stages, and sends to a receiver on this machine."""

from __future__ import annotations

import json
import re
import socket
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import chain, cycle, islice
from pathlib import Path

from ansible_collections.smolcluster.logging.plugins.module_utils import trial
from ansible_collections.smolcluster.logging.plugins.plugin_utils import presets, promtail_config

from lab.shell import wait_for
from plugins.module_utils.metrics import AgentError, Metrics, fetch
from tests.formats.reading import KNOWN, promtail

RATE = 1000  # lines per second
SECONDS = 5  # of each measurement
ROUNDS = 3
BASE = "smolcluster"
PATH = "/tmp/smolcluster-logs/worker-rank0-mini1.log"
FAMILIES = json.loads((Path(__file__).parents[1] / "formats/families.json").read_text())


@dataclass
class Case:
    """A row of the table.

    Parameters:
        name: name of the row.
        preset: the preset that is measured.
        groups: entries in groups; every group has the same share of the lines.
    """

    name: str
    preset: str
    groups: list[list[str]]


def cases() -> list[Case]:
    """Every preset with its own examples, and `auto` with what others write."""
    own = {name: [[example["entry"]] for example in preset["examples"]] for name, preset in KNOWN.items()}
    found = [Case(f"`{name}`", name, own[name]) for name in (BASE, *sorted(set(own) - {BASE, "auto"}))]
    mix = [[entry["entry"] for entry in family["entries"]] for family in FAMILIES]
    return [
        *found,
        Case("`auto`, SmolCluster's lines", "auto", own[BASE]),
        Case("`auto`, an even mix of all families", "auto", [group for group in mix if group]),
        Case("`auto`, lines that no preset matches", "auto", [["a line of print()"]]),
    ]


def records(groups: list[list[str]]) -> Iterator[str]:
    """Endless records, as the watcher gives them to the agent (roles/agent/files/records.py)."""
    for entry in chain.from_iterable(zip(*map(cycle, groups), strict=False)):
        escaped = entry.replace(trial.ESCAPE, trial.ESCAPED).replace("\n", trial.LINE_FEED)
        yield f"{PATH}\t{escaped}\n"


class Receiver(BaseHTTPRequestHandler):
    """Accepts what Promtail sends, and keeps nothing."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """Answer as Loki does."""
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@contextmanager
def receiver() -> Iterator[str]:
    """URL of a receiver."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Receiver) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/loki/api/v1/push"
        server.shutdown()


def free_port() -> int:
    """A TCP port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def used(pid: int) -> float:
    """Seconds of CPU that a process has used, by the scheduler's own account."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def sent(port: int) -> float:
    """Lines that Promtail has sent; -1 while it does not answer."""
    try:
        metrics: Metrics = fetch(port)
    except AgentError:
        return -1
    return metrics.total("promtail_sent_entries_total")


def load(program: str, case: Case, url: str) -> float:
    """Share of a core that Promtail uses while it reads the lines of a case.

    Parameters:
        program: path of Promtail.
        case: the case.
        url: where Promtail sends.
    """
    preset = presets.resolved(case.preset, KNOWN[case.preset], KNOWN)
    lines, port = records(case.groups), free_port()
    with tempfile.TemporaryDirectory() as folder:
        log, config = Path(folder, "in.log"), Path(folder, "config.yml")
        scrape = {
            "job_name": "bench",
            "pipeline_stages": [*promtail_config.RECORD, *promtail_config.preset_stages(preset, "Local")],
            "static_configs": [{"targets": ["localhost"], "labels": {"job": "bench", "__path__": str(log)}}],
        }
        settings = {
            "server": {"http_listen_address": "127.0.0.1", "http_listen_port": port, "grpc_listen_port": 0},
            "positions": {"filename": f"{folder}/positions.yaml"},
            "clients": [{"url": url, "batchwait": "50ms"}],
            "scrape_configs": [scrape],
        }
        config.write_text(json.dumps(settings))
        log.write_text("".join(islice(lines, RATE)))
        with subprocess.Popen([program, f"-config.file={config}"], stderr=subprocess.DEVNULL) as agent:
            try:
                wait_for(lambda: sent(port) >= RATE, "the first lines are sent", 60)
                before, start = used(agent.pid), time.monotonic()
                with log.open("a", buffering=1) as file:
                    for number, line in enumerate(islice(lines, RATE * SECONDS)):
                        file.write(line)
                        time.sleep(max(0.0, start + (number + 1) / RATE - time.monotonic()))
                wait_for(lambda: sent(port) >= RATE * (SECONDS + 1), "all lines are sent", 60)
                return (used(agent.pid) - before) / SECONDS
            finally:
                agent.kill()


def costs(chosen: str = "") -> dict[str, float]:
    """Median share of a core by the name of the row, at `RATE` lines per second; measured in turns.

    Parameters:
        chosen: expression for the names of the rows; empty for all.
    """
    with tempfile.TemporaryDirectory() as folder, receiver() as url:
        program, rows = promtail(folder), [case for case in cases() if re.search(chosen, case.name)]
        found: dict[str, list[float]] = {case.name: [] for case in rows}
        for _ in range(ROUNDS):
            for case in rows:
                found[case.name].append(load(program, case, url))
    return {name: statistics.median(shares) for name, shares in found.items()}


def table(found: dict[str, float]) -> str:
    """The costs as a table of docs/performance.md."""
    base = found[f"`{BASE}`"]
    goals = {"`auto`, SmolCluster's lines": "2", "`auto`, an even mix of all families": "4"}
    goals["`auto`, lines that no preset matches"] = "4"
    rows = [
        f"| {name} | {share * 100:.1f} % | {share / base:.1f} | {goals.get(name, '-')} |"
        for name, share in found.items()
    ]
    return "\n".join(["| preset | CPU | ratio | goal |", "|---|---|---|---|", *rows])


if __name__ == "__main__":
    print(table(costs()))
