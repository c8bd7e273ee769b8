"""How long it takes from writing a line on a node until the terminal shows it."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

from lab import engine
from lab.config import ARTIFACTS
from tests.lab.harness import MINIS, ROOT, Lab

MINI = MINIS[1]
# Writes lines that hold the time at which they were written, at uneven intervals.
STAMPS = """
import datetime, pathlib, random, time
path = pathlib.Path("/tmp/smolcluster-logs/worker-rank79-stamps.log")
with path.open("a", buffering=1) as file:
    for number in range(%d):
        time.sleep(random.uniform(0.2, 0.6))
        when = datetime.datetime.now()
        file.write(f"{when:%%Y-%%m-%%d %%H:%%M:%%S},{when.microsecond // 1000:03} | INFO | rank:79 | {time.time()}\\n")
path.unlink()
"""


def latency(lab: Lab, lines: int = 100) -> float:
    """Median of the seconds from writing a line on a node until `cluster-logs tail` prints it; one clock for both."""
    with tempfile.TemporaryDirectory() as folder:
        archive = next((ARTIFACTS / "releases").glob(f"*/logcli-{engine.platform()}.zip"))
        with zipfile.ZipFile(archive) as packed:
            Path(packed.extract(packed.namelist()[0], folder)).rename(f"{folder}/logcli").chmod(0o755)
        program = ROOT / "roles/docker_loki_grafana/files/cluster_logs.py"
        tail = subprocess.Popen(
            [sys.executable, program, "tail", "--url", lab.loki_url, "--rank", "79", "--since", "1m"],
            env=os.environ | {"PATH": f"{folder}:{os.environ['PATH']}"},
            stdout=subprocess.PIPE,
            text=True,
        )
        with tail:
            writer = subprocess.Popen(["docker", "exec", "-i", MINI.container, "python3", "-"], stdin=subprocess.PIPE)
            with writer:
                writer.stdin.write((STAMPS % lines).encode())
                writer.stdin.close()
                start, waits = time.time(), []
                while len(waits) < lines:
                    written = float(tail.stdout.readline().rpartition(" ")[2])
                    if written > start:  # not of an earlier measurement
                        waits.append(time.time() - written)
            tail.terminate()
    return statistics.median(waits[10:])  # without those from before the tail was connected
