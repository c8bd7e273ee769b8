"""The command cluster-logs on the controller and on the desk, with lines of three ranks and a real Loki."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import engine
from lab.config import ARTIFACTS, LOKI
from lab.shell import wait_for
from tests.lab.harness import CONTROLLER, LOGS, MINIS, ROOT, Lab

PROGRAM = ROOT / "roles/docker_loki_grafana/files/cluster_logs.py"
# Ranks that no other test has, one per node.
RANKS = {70 + number: mini for number, mini in enumerate(MINIS)}
WHICH = ("--rank", "70-72")
# Shell that writes numbered lines of a rank, as training does, in the node's own time.
WRITE = """
    mkdir -p -m 1777 {logs}
    for number in $(seq {first} {last}); do
        echo "$(date '+%F %T,%3N') | INFO | rank:{rank} | step:$number | metric:loss | value:2.5"
        sleep {pause}
    done >> {logs}/worker-rank{rank}-{node}.log
"""
ERROR_TEXT = """ | ERROR | rank:71 | step:9 | training failed
Traceback (most recent call last):
  File "train.py", line 7, in step
ValueError: loss is not finite
"""
ERROR = """
    {{
        echo "$(date '+%F %T,%3N') | ERROR | rank:{rank} | step:9 | training failed"
        echo 'Traceback (most recent call last):'
        echo '  File "train.py", line 7, in step'
        printf 'ValueError: \\033[31mloss\\033[0m is not finite\\n'
        for number in 1 2 3; do echo "$(date '+%F %T,%3N') | INFO | rank:{rank} | step:10 | after"; done
    }} >> {logs}/worker-rank{rank}-{node}.log
"""


def write(lab: Lab, rank: int, first: int, last: int, pause: float, background: bool = False) -> None:
    """Write numbered lines of a rank on its node.

    Parameters:
        lab: the running lab.
        rank: the rank.
        first, last: numbers of the lines.
        pause: seconds between two lines.
        background: whether to return at once.
    """
    script = WRITE.format(logs=LOGS, rank=rank, node=RANKS[rank].name, first=first, last=last, pause=pause)
    lab.on(RANKS[rank], f"({script}) >/dev/null 2>&1 &" if background else script)


def numbers(text: str) -> dict[int, list[int]]:
    """Numbers of the lines of each rank in an output, in its order."""
    found: dict[int, list[int]] = {rank: [] for rank in RANKS}
    for rank, number in re.findall(r"\| INFO \| rank:(7[0-2]) \| step:(\d+) \|", text):
        found[int(rank)].append(int(number))
    return found


@pytest.fixture(scope="module")
def desk(tmp_path_factory) -> dict[str, str]:
    """Environment of a desk: logcli in the PATH and the address of Loki."""
    folder = tmp_path_factory.mktemp("desk")
    archive = ARTIFACTS / "releases/v3.7.8" / f"logcli-{engine.platform()}.zip"
    with zipfile.ZipFile(archive) as packed:
        program = Path(packed.extract(packed.namelist()[0], folder)).rename(folder / "logcli")
    program.chmod(0o755)
    return {"PATH": f"{folder}:{os.environ['PATH']}", "HOME": str(folder), "CLUSTER_LOGS_URL": LOKI, "TERM": "xterm"}


@pytest.fixture(scope="module")
def start() -> int:
    """When this module's lines begin, in seconds since 1970; a lab that was kept has older ones."""
    return int(time.time())


def iso(seconds: int) -> str:
    """A time as an option."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


@pytest.fixture(scope="module")
def trained(lab: Lab, start: int) -> Iterator[Lab]:
    """Lines of three ranks in Loki, the middle rank with an error."""
    for rank in RANKS:
        write(lab, rank, 1, 20, 0)
    lab.on(RANKS[71], ERROR.format(logs=LOGS, rank=71, node=RANKS[71].name))
    for rank in RANKS:
        write(lab, rank, 21, 40, 0)
    lab.entries('{rank=~"70|71|72"}', 3 * 40 + 4, hours=(time.time() - start + 60) / 3600)
    yield lab
    for mini in MINIS:
        lab.on(mini, f"rm -f {LOGS}/worker-rank7[0-2]-*.log")


def on_controller(*words: str) -> tuple[int, str]:
    """Exit code and output of the command on the controller, run by an account without rights."""
    command = ["docker", "exec", "--user", "nobody", CONTROLLER.container, "cluster-logs", *words]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    return done.returncode, done.stdout


def test_tail_through_an_outage_of_loki_has_no_gap_and_no_double_line(trained: Lab, desk, start, tmp_path):
    # In a pipe on the desk, and in a terminal on the controller.
    words = ["tail", *WHICH, "--since", f"{int(time.time()) - start + 10}s", "--silence", "2s"]
    with (tmp_path / "out").open("w") as out, (tmp_path / "err").open("w") as err:
        piped = subprocess.Popen([sys.executable, PROGRAM, *words], env=desk, stdout=out, stderr=err)
    leader, follower = pty.openpty()
    command = ["docker", "exec", "--interactive", "--tty", "--env", "TERM=xterm", CONTROLLER.container]
    seen = subprocess.Popen([*command, "cluster-logs", *words], stdin=follower, stdout=follower, stderr=follower)
    os.close(follower)
    shown = b""
    os.set_blocking(leader, False)

    def terminal() -> str:
        nonlocal shown
        try:
            while part := os.read(leader, 65536):
                shown += part
        except OSError:  # nothing now, or the other side is closed
            pass
        return shown.decode(errors="replace")

    def all_shown(last: int) -> bool:
        texts = ((tmp_path / "out").read_text(), re.sub("\x1b\\[[0-9;]*m", "", terminal()))
        return all(len(set(numbers(text)[rank])) >= last for text in texts for rank in RANKS)

    try:
        wait_for(lambda: all_shown(40), "both tails show what is there", 60)
        for rank in RANKS:
            write(trained, rank, 1001, 1060, 0.1, background=True)
        wait_for(lambda: "step:1010 " in (tmp_path / "out").read_text(), "lines arrive", 30)
        trained.on(CONTROLLER, "docker stop smolcluster-logging-loki-1")
        wait_for(lambda: "Loki does not answer" in (tmp_path / "err").read_text(), "the tail reports the outage", 30)
        trained.on(CONTROLLER, "docker start smolcluster-logging-loki-1")
        wait_for(lambda: all_shown(100), "all lines are shown", 120)
        silent = re.compile(r"rank 7[0-2] \(mini\d\) has been silent for 2 s|no rank has written for 2 s")
        wait_for(lambda: silent.search(terminal()), "the tail reports the silence", 30)
    finally:
        os.write(leader, b"\x03")
        code = seen.wait(30)
        piped.send_signal(signal.SIGTERM)  # a test run in the background ignores SIGINT, and so do its children
        piped.wait(30)
    text, notes = terminal(), (tmp_path / "err").read_text()
    for output in ((tmp_path / "out").read_text(), re.sub("\x1b\\[[0-9;]*m", "", text)):
        assert {
            rank: sorted(number for number in found if number > 1000) for rank, found in numbers(output).items()
        } == {rank: list(range(1001, 1061)) for rank in RANKS}
    assert "Loki answers again after" in notes
    assert (code, piped.returncode) == (130, 130)
    assert "\x1b[" not in (tmp_path / "out").read_text() + notes
    assert len(set(re.findall(r"(\x1b\[[0-9;]+m)7[0-2] mini\d \|", text))) == len(RANKS)
    assert "Traceback" not in notes


@pytest.mark.usefixtures("trained")
def test_first_error_with_its_traceback_and_the_other_ranks(start):
    code, text = on_controller("errors", "--from", iso(start), "--rank", "71")
    assert code == 1
    assert f"First error: rank 71 on {RANKS[71].name}, " in text
    assert re.search(r"71 mini2 \| Traceback \(most recent call last\):\n.*71 mini2 \|   File \"train.py\"", text)
    assert "71 mini2 | ValueError: loss is not finite" in text
    for rank in (70, 72):
        assert re.search(rf"\n  \S+ {rank} mini\d \| .*step:\d+ ", text), text
    assert "\x1b" not in text
    assert re.search(r"\n71 +mini2 +1\n", text)
    code, text = on_controller("errors", "--from", iso(start), "--rank", "70,72")
    assert code == 0
    assert "-- no error from " in text


@pytest.mark.usefixtures("trained")
def test_ranks_and_status():
    code, text = on_controller("ranks", *WHICH)
    assert code == 0
    rows = [line.split()[:3] for line in text.splitlines()]
    assert rows[0] == ["RANK", "NODE", "STEP"]
    assert [row[:2] for row in rows[1:]] == [[str(rank), mini.name] for rank, mini in RANKS.items()]
    assert all(row[2].isdigit() for row in rows[1:])
    code, text = on_controller("status", "--silence", "1h")
    assert code == 0
    assert text.startswith("Loki 3.")
    for mini in MINIS:
        assert re.search(rf"\n{mini.name} +sends ", text), text


def test_download_is_what_was_written(trained: Lab, desk, start, tmp_path):
    files = {rank: f"{LOGS}/worker-rank{rank}-{mini.name}.log" for rank, mini in RANKS.items()}
    # Many lines with one time: Python's logging has milliseconds.
    stamp = trained.on(RANKS[72], "date '+%F %T,%3N'")
    lines = "".join(f"{stamp} | INFO | rank:72 | equal {number}\n" for number in range(300))
    trained.write(RANKS[72], f"worker-rank72-{RANKS[72].name}.log", lines)
    trained.entries('{rank="72"} |= "equal"', 300, hours=1)
    command = [sys.executable, PROGRAM, "download", str(tmp_path / "lines"), "--from", iso(start), *WHICH]
    done = subprocess.run(command, env=desk, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert sorted(os.listdir(tmp_path / "lines")) == [f"rank-{rank}.log" for rank in RANKS]
    for rank in RANKS:
        written = trained.on(RANKS[rank], f"cat {files[rank]}")
        loaded = (tmp_path / f"lines/rank-{rank}.log").read_text()
        written = written.replace("\x1b[31m", "").replace("\x1b[0m", "")
        # Loki does not keep the order of lines with the same time.
        assert sorted(loaded.splitlines()) == sorted(written.splitlines())
        times = re.findall(r"^\d{4}-\S+ \S+", loaded, re.M)
        assert times == sorted(times)
    assert ERROR_TEXT in (tmp_path / "lines/rank-71.log").read_text()
    assert subprocess.run(command, env=desk, capture_output=True, check=False).returncode == 2


@pytest.mark.parametrize(
    "query", re.findall(r"^```logql\n(.*?)\n```$", (ROOT / "docs/using.md").read_text(), re.S | re.M)
)
@pytest.mark.usefixtures("trained")
def test_queries_of_the_docs_find_something(query):
    code, text = on_controller("query", query.replace('rank="0"', 'rank="71"'))
    assert code == 0, f"{query}: {text}"


def test_reader_that_goes_away_ends_the_tail(trained: Lab, desk):
    script = '"$0" "$1" tail --rank 71 --since 15m | head -n 1; echo "${PIPESTATUS[0]}"'
    done = subprocess.Popen(
        ["bash", "-c", script, sys.executable, PROGRAM],
        env=desk,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while done.poll() is None and time.monotonic() < deadline:
        write(trained, 71, 2000, 2000, 0.5)  # the end of a pipe is seen with the next line
    out, err = done.communicate(timeout=10)
    assert out.splitlines()[-1] == "141"
    assert "Traceback" not in err


def test_what_the_role_installs_belongs_to_root(trained: Lab):
    find = "find /opt/smolcluster-logging/bin /opt/smolcluster-logging/logcli /usr/local/bin/cluster-logs -printf"
    found = dict(line.split() for line in trained.on(CONTROLLER, f"{find} '%p %u:%g:%m\\n'").splitlines())
    assert found["/opt/smolcluster-logging/bin/cluster-logs"] == "root:root:755"
    assert found["/opt/smolcluster-logging/logcli/3.7.8/logcli"] == "root:root:755"
    assert {mode.rpartition(":")[0] for mode in found.values()} == {"root:root"}
    assert not [path for path, mode in found.items() if int(mode[-2:], 8) & 0o22 and "local/bin" not in path]
    code, text = on_controller("query", "--url", "http://127.0.0.1:9", "{}")
    assert code == 3
    assert "Loki does not answer at http://127.0.0.1:9: " in text
