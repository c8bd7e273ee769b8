"""The demo's training as real processes on loopback, and how the demo reports a failed one."""

from __future__ import annotations

import importlib.util
import math
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lab.demo import __main__ as demo
from lab.demo import report
from lab.shell import LabError

PROGRAM = Path(demo.__file__).parent / "train.py"
ENTRY = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} \| (INFO|WARNING|ERROR) \| rank:(server|0|1) \| (.+)$")

needs_numpy = pytest.mark.skipif(
    importlib.util.find_spec("numpy") is None, reason="the training needs numpy; the lab's minis have it"
)


def start(folder: Path, port: int, *words: str) -> subprocess.Popen[str]:
    """Start a process of the training that logs to a folder."""
    command = [sys.executable, str(PROGRAM), *words, "--port", str(port), "--log-dir", str(folder), "--step-time", "0"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.fixture
def port() -> int:
    """A free TCP port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


@pytest.fixture
def processes():
    """Processes that a test started; ended with it."""
    started: list[subprocess.Popen] = []
    yield started
    for process in started:
        process.kill()
        process.communicate()


@needs_numpy
def test_training_learns_and_logs_in_the_format_of_smolcluster(tmp_path, port, processes):
    processes += [
        start(tmp_path, port, "server", "--host", "a", "--steps", "30"),
        start(tmp_path, port, "worker", "--rank", "0", "--host", "b"),
        start(tmp_path, port, "worker", "--rank", "1", "--host", "c"),
    ]
    said = [process.communicate(timeout=60)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], said
    logs = {path.name: path.read_text().splitlines() for path in tmp_path.iterdir()}
    assert sorted(logs) == ["server-a.log", "worker-rank0-b.log", "worker-rank1-c.log"]

    losses = [
        float(match[1])
        for line in logs["server-a.log"]
        if (match := re.search(r" \| step:\d+ \| metric:loss \| value:(\d+\.\d{6})$", line))
    ]
    assert len(losses) == 30
    assert losses[-1] < losses[0] / 100
    for name, rank in (("server-a.log", "server"), ("worker-rank0-b.log", "0")):
        ranks = [match[2] if (match := ENTRY.match(line)) else line for line in logs[name]]
        assert set(ranks) == {rank}
    assert [line for line in logs["server-a.log"] if " | WARNING | " in line]

    # Rank 1 has the damaged batch: one ERROR, whose traceback follows without a prefix.
    (first,) = [n for n, line in enumerate(logs["worker-rank1-c.log"]) if " | ERROR | rank:1 | step:20 | " in line]
    rest = logs["worker-rank1-c.log"][first + 1 :]
    last = next(n for n, line in enumerate(rest) if ENTRY.match(line))
    assert rest[0] == "Traceback (most recent call last):"
    assert rest[last - 1] == "ValueError: batch has 1 values that are not finite"
    assert all(ENTRY.match(line) for line in rest[last:])


@needs_numpy
def test_vanished_worker_ends_server_and_other_worker(tmp_path, port, processes):
    processes += [
        start(tmp_path, port, "server", "--host", "a", "--steps", "1000000"),
        start(tmp_path, port, "worker", "--rank", "0", "--host", "b"),
        start(tmp_path, port, "worker", "--rank", "1", "--host", "c"),
    ]
    log = tmp_path / "server-a.log"
    deadline = time.monotonic() + 30
    while not (log.exists() and "step:1 |" in log.read_text()):
        assert time.monotonic() < deadline, "the training has not begun"
        time.sleep(0.05)
    processes[2].kill()
    assert [process.wait(timeout=30) for process in processes[:2]] == [1, 1]
    assert " | ERROR | rank:server | Training stopped: " in log.read_text().splitlines()[-1]


@pytest.fixture
def local(monkeypatch, tmp_path):
    """The demo with a shell of this machine for every host: `local[host]` is the script that stands in for training."""
    scripts = dict.fromkeys(("mini1", "mini2", "mini3"), "exit 0")

    def shell(host: str, *_command: str, terminal: bool = False) -> list[str]:
        return ["sh", "-c", scripts[host] if terminal else f"cd {tmp_path}; cat > copied-{host}"]

    monkeypatch.setattr(demo, "ssh", shell)
    return scripts


@pytest.mark.usefixtures("local")
def test_training_that_ends_well_is_silent(tmp_path, capsys):
    demo.train(steps=1)
    assert capsys.readouterr() == ("", "")
    assert (tmp_path / "copied-mini3").read_text() == PROGRAM.read_text()


def test_failed_process_is_named_at_once_with_its_words(local):
    local |= {"mini1": "exec sleep 60", "mini2": "exec sleep 60", "mini3": "echo no numpy here >&2; exit 3"}
    start_time = time.monotonic()
    with pytest.raises(LabError, match=r"(?s)failed.*mini3, exit code 3: no numpy here$"):
        demo.train(steps=1)
    assert time.monotonic() - start_time < 20


def test_silent_failure_is_told_as_such(local):
    local["mini2"] = "exit 7"
    with pytest.raises(LabError, match="mini2, exit code 7: it printed nothing"):
        demo.train(steps=1)


def test_training_that_hangs_is_stopped(local):
    local["mini1"] = "exec sleep 60"
    with pytest.raises(LabError, match="not over after 1 s"):
        demo.train(steps=1, timeout=1)


def test_chart_has_first_and_last_step_and_tells_small_losses_apart(monkeypatch, capsys):
    rows = [
        (n, f"… | INFO | rank:server | step:{n} | metric:loss | value:{16 * math.exp(-n / 6):.6f}", {})
        for n in range(1, 61)
    ]
    monkeypatch.setattr(report, "entries", lambda *_: rows)
    report.loss(0)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  step")]
    assert [line.split()[1] for line in (lines[0], lines[-1])] == ["1", "60"]
    bars = [line.count("#") for line in lines]
    assert (bars[0], bars[-1]) == (60, 1)
    assert bars == sorted(set(bars), reverse=True)


@pytest.mark.parametrize(("part", "missing"), [(report.loss, "contains a loss"), (report.one_error, "no ERROR")])
def test_missing_lines_are_told_plainly(monkeypatch, part, missing):
    monkeypatch.setattr(report, "entries", lambda *_: [])
    with pytest.raises(LabError, match=missing):
        part(0)


def test_missing_entries_fail_the_report_after_a_bounded_wait(monkeypatch, capsys):
    monkeypatch.setattr(report, "entries", lambda *_: [(1, "line", {"host": "server-mini1"})])
    with pytest.raises(LabError, match="not those in the files"):
        report.wait_for_entries({"server-mini1": 2}, 0, timeout=0.5)
    assert "server-mini1                 1 of 2 entries" in capsys.readouterr().out


def test_cut_text_shows_that_it_is_cut():
    assert report.shortened("value:0.012993", 14) == "value:0.012993"
    assert report.shortened("value:0.012993", 13) == "value:0.0129…"
