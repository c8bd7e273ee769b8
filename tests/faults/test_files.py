"""Files are rotated, truncated, replaced, removed or linked."""

from __future__ import annotations

import re
from contextlib import nullcontext

import pytest

from lab.shell import wait_for
from plugins.module_utils.metrics import Metrics
from tests.faults.harness import ELSEWHERE, FOLDER, Row, agent_ready, record, store_down
from tests.lab.harness import LOGS, MINIS

MINI = MINIS[0]


def stamp(cluster, seconds: int = 0) -> str:
    """Local time of the mini, some seconds ago, as logs have it."""
    return cluster.on(MINI, f"date -d '-{seconds} seconds' '+%Y-%m-%d %H:%M:%S'")


def lines(moment: str, mark: str, count: int, first: int = 0) -> str:
    """Lines of a run, in one second."""
    return "".join(f"{moment},{n % 1000:03d} | INFO | rank:0 | {mark} n={n:06d}\n" for n in range(first, first + count))


def arrived(cluster, training, mark: str, count: int) -> list[int]:
    """Numbers of a run's lines in Loki, once there are as many as expected; kept for the record."""
    query = f'{{node="{MINI.name}"}} |= "{mark} "'
    training.seen[mark] = numbers = sorted(int(line[-6:]) for _, line, _ in cluster.entries(query, count))
    return numbers


def test_rotation_by_rename(training):
    """Rotation by rename and create, as by Python's RotatingFileHandler, every 3 s"""
    training.start(MINIS, rate=200, rotate=60_000)
    training.wait_written(2400)
    training.prove()


def test_rotation_in_an_outage(cluster, training):
    """Rotations by rename and create while Loki is down, as by Python's RotatingFileHandler"""
    training.start(MINIS, rate=50, rotate=10_000)
    with store_down(cluster, training):
        training.wait_written(500)
    training.prove()


# Lines of a log that is rotated once a step, as a program on the node writes them, with times over some hours.
ROTATE = """
import os, sys, time
path, mark, generations, lines, hours, keep = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:6]), sys.argv[6]
number, start = 0, time.time() - hours * 3600
for generation in range(generations):
    if generation and keep == "dates":
        os.rename(path, path + time.strftime(".%Y-%m-%d_%H-%M-%S", time.localtime(moment)))
    elif generation:
        for old in range(generation, 0, -1):
            if os.path.exists(f"{path}.{old}"):
                os.rename(f"{path}.{old}", f"{path}.{old + 1}")
        os.rename(path, f"{path}.1")
    with open(path, "a") as file:
        for line in range(lines):
            moment = start + hours * 3600 * number / (generations * lines)
            stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(moment))
            file.write(f"{stamp},{number % 1000:03d} | INFO | rank:0 | {mark} n={number:06d}\\n")
            number += 1
    os.utime(path, (moment, moment))
"""


def rotate(cluster, path: str, mark: str, generations: int, hours: int, keep: str = "numbers") -> int:
    """Write a log and rotate it; returns how many lines it has in all."""
    cluster.on(MINI, f"mkdir -p -m 1777 {FOLDER}; python3 - {path} {mark} {generations} 60 {hours} {keep}", data=ROTATE)
    return generations * 60


def dropped(cluster) -> int:
    """Lines that Loki has refused since the agent's start."""
    text = cluster.on(MINI, "curl -fsS http://127.0.0.1:9080/metrics")
    return int(Metrics(text).total("promtail_dropped_entries_total"))


@pytest.mark.parametrize("keep", ["numbers", "dates"])
@pytest.mark.parametrize("generations", [3, 10])
def test_rotations_in_an_outage(cluster, training, generations, keep):
    """Three and ten rotations while Loki is down, lines over 5 h: all lines, once, under the name of the log"""
    path, mark = f"{FOLDER}/worker-rank0-{training.run}.log", training.run
    before = dropped(cluster)
    with store_down(cluster):
        count = rotate(cluster, path, mark, generations + 1, 5, keep)
    assert arrived(cluster, training, mark, count) == list(range(count))
    names = {labels["filename"] for _, _, labels in cluster.entries(f'{{node="{MINI.name}"}} |= "{mark} "', count)}
    assert names == {path}
    assert dropped(cluster) == before


def test_first_look_at_a_week_of_rotated_files(cluster, training):
    """An agent deployed to a folder with a week of rotated files: all lines, once, the oldest first"""
    path, mark = f"{FOLDER}/worker-rank0-{training.run}.log", training.run
    cluster.on(MINI, "systemctl stop promtail")
    count = rotate(cluster, path, mark, 8, 7 * 24, "dates")
    cluster.on(MINI, f"gzip {path}.*-01; true")
    cluster.on(MINI, "systemctl start promtail")
    agent_ready(cluster, MINI)
    found = cluster.entries(f'{{node="{MINI.name}"}} |= "{mark} "', count, hours=8 * 24, timeout=60)
    training.seen[mark] = numbers = [int(line[-6:]) for _, line, _ in found]
    assert numbers == list(range(count))
    assert dropped(cluster) == 0


@pytest.mark.parametrize("how", ["agent stopped", "agent killed", "Loki down"])
def test_renamed_while_the_agent_is_away(cluster, training, how):
    """A log with lines that were not read yet is rotated while the agent does not run"""
    path, mark = f"{FOLDER}/worker-rank0-{training.run}.log", training.run
    cluster.on(MINI, f"mkdir -p -m 1777 {FOLDER}; cat > {path}", data=lines(stamp(cluster, 3), mark, 100))
    assert arrived(cluster, training, mark, 100) == list(range(100))
    with store_down(cluster) if how == "Loki down" else nullcontext():
        if how != "agent stopped":
            cluster.on(MINI, "systemctl kill --signal=KILL promtail")
        cluster.on(MINI, "systemctl stop promtail")
        cluster.on(MINI, f"cat >> {path}", data=lines(stamp(cluster, 2), mark, 100, first=100))
        cluster.on(MINI, f"mv {path} {path}.1; cat > {path}", data=lines(stamp(cluster, 1), mark, 100, first=200))
        cluster.on(
            MINI, f"mv {path}.1 {path}.2; mv {path} {path}.1; cat > {path}", data=lines(stamp(cluster), mark, 50, 300)
        )
        cluster.on(MINI, "systemctl start promtail")
    assert arrived(cluster, training, mark, 350) == list(range(350))


def test_truncation_to_zero(cluster, training):
    """Truncation to zero after everything is delivered (copytruncate without its race)"""
    training.start(MINIS, rate=20).stop()
    assert training.settle(15) is not None
    for mini in MINIS:
        cluster.on(mini, f"cp {training.path(mini)} {training.path(mini)}.1 && : > {training.path(mini)}")
    text = {mini: f"{mini.name}-{training.run}" for mini in MINIS}
    for mini in MINIS:
        cluster.on(mini, "sleep 0.2")
        moment = cluster.on(mini, "date '+%Y-%m-%d %H:%M:%S'")
        cluster.on(mini, f"cat >> {training.path(mini)}", data=lines(moment, text[mini], 50))
    for mini in MINIS:
        assert len(cluster.entries(f'{{node="{mini.name}"}} |= "{text[mini]} "', 50)) == 50
    training.prove()


def test_copytruncate_while_lines_flow(cluster, training):
    """LIMIT: three times copytruncate while lines flow: lines between copy and truncation are in no file"""
    training.start([MINI], rate=100)
    wait_for(training.arrived, "the agent follows the file", 20)
    for number in range(3):
        training.wait_written(150)
        path = training.path(MINI)
        cluster.on(MINI, f"cp {path} {path}.{number} && : > {path}")
    training.stop()
    # What is in the copies and the file is in Loki.
    text = cluster.on(MINI, f"cat {training.path(MINI)} {training.path(MINI)}.?")
    kept = set(re.findall(r"seq=(\d{6})", text))
    row, (rank,) = training.outcome(timeout=5)
    assert {f"{number:06d}" for number in rank.missing}.isdisjoint(kept)
    assert row.duplicated == 0
    assert rank.faults == []


@pytest.mark.parametrize("longer", [True, False], ids=["longer", "shorter"])
@pytest.mark.parametrize("agent", ["agent up", "agent down", "agent killed"])
def test_new_run_in_a_file_of_the_same_name(cluster, training, agent, longer):
    """A new file with the same name replaces a delivered one"""
    path, mark = f"{FOLDER}/worker-rank0-{training.run}.log", training.run
    cluster.on(MINI, f"mkdir -p -m 1777 {FOLDER}; cat > {path}", data=lines(stamp(cluster, 2), f"{mark}-old", 300))
    assert arrived(cluster, training, f"{mark}-old", 300) == list(range(300))
    if agent == "agent down":
        cluster.on(MINI, "systemctl stop promtail")
    elif agent == "agent killed":
        cluster.on(MINI, "systemctl kill --signal=KILL promtail; systemctl stop promtail")
    count = 600 if longer else 100
    cluster.on(MINI, f"cat > {path}.new && mv {path}.new {path}", data=lines(stamp(cluster), f"{mark}-new", count))
    cluster.on(MINI, "systemctl start promtail")
    assert arrived(cluster, training, f"{mark}-new", count) == list(range(count))
    assert arrived(cluster, training, f"{mark}-old", 300) == list(range(300))


@pytest.mark.parametrize("agent", ["agent up", "agent down"])
def test_deleted_and_made_again(cluster, training, agent):
    """A delivered file is deleted and created again with the same inode"""
    path, mark = f"{FOLDER}/worker-rank0-{training.run}.log", training.run
    cluster.on(MINI, f"mkdir -p -m 1777 {FOLDER}; cat > {path}", data=lines(stamp(cluster, 2), f"{mark}-old", 200))
    assert arrived(cluster, training, f"{mark}-old", 200) == list(range(200))
    if agent == "agent down":
        cluster.on(MINI, "systemctl stop promtail")
    cluster.on(MINI, f"rm {path}; cat > {path}", data=lines(stamp(cluster), f"{mark}-new", 300))
    cluster.on(MINI, "systemctl start promtail")
    assert arrived(cluster, training, f"{mark}-new", 300) == list(range(300))
    assert arrived(cluster, training, f"{mark}-old", 200) == list(range(200))


def test_symbolic_link(cluster, training):
    """The watched name is a link to a file in a folder that the source names"""
    mark, target = training.run, f"{ELSEWHERE}/{training.run}-1.log"
    cluster.on(
        MINI, f"mkdir -p -m 1777 {FOLDER} {ELSEWHERE}; cat > {target}", data=lines(stamp(cluster), f"{mark}-one", 50)
    )
    cluster.on(MINI, f"ln -s {target} {FOLDER}/worker-rank0-{mark}.log")
    assert arrived(cluster, training, f"{mark}-one", 50) == list(range(50))
    cluster.on(MINI, f"cat >> {target}", data=lines(stamp(cluster), f"{mark}-one", 50, first=50))
    assert arrived(cluster, training, f"{mark}-one", 100) == list(range(100))
    other = f"{ELSEWHERE}/{training.run}-2.log"
    cluster.on(MINI, f"cat > {other}", data=lines(stamp(cluster), f"{mark}-two", 80))
    cluster.on(MINI, f"ln -sfn {other} {FOLDER}/worker-rank0-{mark}.log")
    assert arrived(cluster, training, f"{mark}-two", 80) == list(range(80))
    cluster.on(MINI, f"rm {target} {other}")


def test_many_files(cluster, training):
    """5,000 files in the folder, one line each"""
    mark = training.run
    script = f"""
        mkdir -p -m 1777 {FOLDER}
        python3 - <<'END'
import time
for n in range(5000):
    with open(f"{FOLDER}/worker-rank0-{mark}-{{n}}.log", "w") as file:
        file.write(time.strftime("%Y-%m-%d %H:%M:%S") + f",000 | INFO | rank:0 | {mark} n={{n:06d}}\\n")
END
    """
    cluster.on(MINI, script)
    query = f'sum(count_over_time({{node="{MINI.name}"}} |= "{mark} " [1h]))'
    found = cluster.wait_count(query, 5000, timeout=240)
    record(Row(training.fault, 5000, max(0, 5000 - found), max(0, found - 5000), None))
    assert found == 5000
    cluster.on(MINI, f"find {FOLDER} -name '*{mark}*' -delete")
    # Streams of files that are gone must not be in the way of later tests.
    cluster.on(MINI, "systemctl restart promtail")
    agent_ready(cluster, MINI)


def test_file_in_a_folder_that_comes_later(cluster, training):
    """Folder removed and created again while the agent runs"""
    mark, folder = training.run, LOGS
    cluster.on(
        MINI, f"mkdir -p -m 1777 {folder}; cat > {folder}/worker-rank0-{mark}.log", data=lines(stamp(cluster), mark, 20)
    )
    assert arrived(cluster, training, mark, 20) == list(range(20))
    cluster.on(MINI, f"mv {folder} {folder}.gone")
    cluster.on(MINI, "sleep 3")
    cluster.on(MINI, f"rm -rf {folder}; mv {folder}.gone {folder}")
    cluster.on(MINI, f"cat >> {folder}/worker-rank0-{mark}.log", data=lines(stamp(cluster), mark, 20, first=20))
    assert arrived(cluster, training, mark, 40) == list(range(40))


def test_rename_within_the_glob(cluster, training):
    """A file renamed to another watched name: its lines once, under the first name"""
    path, mark = f"{FOLDER}/worker-rank0-{training.run}.log", training.run
    cluster.on(MINI, f"mkdir -p -m 1777 {FOLDER}; cat > {path}", data=lines(stamp(cluster), mark, 100))
    assert arrived(cluster, training, mark, 100) == list(range(100))
    cluster.on(MINI, f"mv {path} {path.replace('.log', '-old.log')}")
    # What is written on goes on under the first name; a new file under the same name is another log of it.
    cluster.on(MINI, f"cat >> {path.replace('.log', '-old.log')}", data=lines(stamp(cluster), mark, 50, first=100))
    assert arrived(cluster, training, mark, 150) == list(range(150))
    cluster.on(MINI, f"cat > {path}", data=lines(stamp(cluster), mark, 50, first=150))
    assert arrived(cluster, training, mark, 200) == list(range(200))


@pytest.mark.parametrize("loki", ["Loki up", "Loki down"])
def test_cut_and_refilled(cluster, training, loki):
    """A file truncated to zero and refilled beyond its old length at once"""
    path, mark = f"{FOLDER}/worker-rank0-{training.run}.log", training.run
    cluster.on(MINI, f"mkdir -p -m 1777 {FOLDER}; cat > {path}", data=lines(stamp(cluster, 2), f"{mark}-a", 300))
    assert arrived(cluster, training, f"{mark}-a", 300) == list(range(300))
    with store_down(cluster) if loki == "Loki down" else nullcontext():
        cluster.on(MINI, f": > {path}; cat >> {path}", data=lines(stamp(cluster), f"{mark}-b", 900))
    assert arrived(cluster, training, f"{mark}-b", 900) == list(range(900))
