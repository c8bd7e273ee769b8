"""The program that runs the agent: a shell plays the agent."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "roles/agent/files/watcher.py"
PARTS = f"{ROOT}/plugins/module_utils:{ROOT}/roles/promtail/files"


@pytest.fixture
def start(tmp_path):
    """Starts the program with a shell script as the agent."""
    logs = tmp_path / "logs"
    logs.mkdir()
    (logs / "worker-0.log").write_text("2026 one\n2026 two\n")

    def run(script: str, seconds: float = 1) -> subprocess.Popen:
        settings = {
            "folder": str(tmp_path / "files"),
            "report": str(tmp_path / "watch.json"),
            "positions": str(tmp_path / "positions.yaml"),
            "port": 9,
            "timeout": seconds,
            "folders": [],
            "health": {
                "agent": "a",
                "path": str(tmp_path / "health.log"),
                "metrics": {},
                "loki_url": "http://127.0.0.1:9",
            },
            "sources": [{"name": "w", "paths": [f"{logs}/worker-*.log"], "entry_start": "^2026", "join": True}],
        }
        (tmp_path / "settings.json").write_text(json.dumps(settings))
        command = [sys.executable, "-B", PROGRAM, tmp_path, tmp_path / "settings.json", "sh", "-c", script]
        return subprocess.Popen(
            command,
            env={"PATH": "/usr/bin:/bin", "PYTHONPATH": PARTS, "FOLDER": str(tmp_path)},
            stdout=subprocess.PIPE,
            text=True,
        )

    return run


def state(folder: Path) -> dict:
    """What is kept for the next start."""
    return json.loads((folder / "files.json").read_text())


READS = """
for f in "$FOLDER"/files/*; do printf 'positions:\\n  %s: "%d"\\n' $f $(wc -c < $f) > "$FOLDER/positions.yaml"; done
"""


def test_agent_finds_copies_at_its_start_and_ends_clean(start, tmp_path):
    process = start(f"trap 'exit 0' TERM; {READS} echo up; while :; do sleep 0.05; done")
    assert process.stdout.readline() == "up\n"
    assert (tmp_path / "watcher.pid").read_text() == f"{process.pid}\n"
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0
    found = state(tmp_path)
    assert found["clean"] is True
    assert [file["read"] for file in found["files"]] == [9]
    assert not (tmp_path / "watcher.pid").exists()
    assert not (tmp_path / "files").exists()


def test_agent_that_does_not_end_is_killed_in_time(start, tmp_path):
    process = start("trap '' TERM; echo up; while :; do sleep 0.05; done", 0.3)
    assert process.stdout.readline() == "up\n"
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 137
    assert state(tmp_path)["clean"] is False


def test_agent_that_fails_gives_its_code(start, tmp_path):
    assert start("exit 3").wait(10) == 3
    assert state(tmp_path)["clean"] is False


def test_stop_that_is_asked_for_twice_takes_no_longer(start):
    process = start("trap '' TERM; echo up; while :; do sleep 0.05; done", 1)
    assert process.stdout.readline() == "up\n"
    begin = time.monotonic()
    process.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 137
    assert time.monotonic() - begin < 5


def test_new_lines_are_copied_and_reported_while_the_agent_runs(start, tmp_path):
    process = start("trap 'exit 0' TERM; echo up; while :; do sleep 0.05; done")
    assert process.stdout.readline() == "up\n"
    copy, path = tmp_path / "files/w", tmp_path / "logs/worker-0.log"
    assert copy.read_text() == f"{path}\t2026 one\n"  # the last entry may get more lines
    with (tmp_path / "logs/worker-0.log").open("a") as file:
        file.write("2026 three\n")
    (tmp_path / "logs/worker-1.log").write_text("2026 other\n")
    end = time.monotonic() + 10
    while copy.read_text().count("\n") < 4 and time.monotonic() < end:
        time.sleep(0.05)
    expected = [
        *(f"{path}\t2026 {word}" for word in ("one", "two", "three")),
        f"{tmp_path}/logs/worker-1.log\t2026 other",
    ]
    assert sorted(copy.read_text().splitlines()) == sorted(expected)
    while not (tmp_path / "watch.json").exists() and time.monotonic() < end:
        time.sleep(0.05)
    assert set(json.loads((tmp_path / "watch.json").read_text())) == {
        "files", "count", "backlog", "refused", "left_out", "equal", "unsaved",
    }  # fmt: skip
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0
