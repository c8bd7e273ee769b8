"""Lines that are hard to carry, clocks that are wrong, disks that are full, plays that are cut off."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from contextlib import suppress

import pytest

from lab.shell import run, wait_for
from tests.faults.harness import FOLDER, agent_ready, store_ready
from tests.lab.harness import CONTROLLER, MINIS, ROOT

MINI = MINIS[0]
STORE = "/var/lib/docker/volumes/smolcluster-logging_loki-data/_data"


def put(cluster, name: str, data: str) -> None:
    """Append text to a log file on the mini; `{now}` is its local time in seconds."""
    moment = cluster.on(MINI, "date '+%Y-%m-%d %H:%M:%S'")
    cluster.on(MINI, f"mkdir -p -m 1777 {FOLDER}; cat >> {FOLDER}/{name}", data=data.replace("{now}", moment))


def found(cluster, mark: str, count: int) -> list[str]:
    """Lines with a mark."""
    return [line for _, line, _ in cluster.entries(f'{{node="{MINI.name}"}} |= "{mark}"', count)]


def test_long_line(cluster, training):
    """A line of 300 KB: cut at 256 KB and counted; the lines around it arrive"""
    mark = training.run
    before, long, after = (f"{{now}},00{n} | INFO | rank:0 | {mark} {text}\n" for n, text in enumerate("axb"))
    put(cluster, f"worker-rank0-{mark}.log", before + long.replace("x\n", "x" * 300_000 + "\n") + after)
    arrived = found(cluster, mark, 3)
    assert [len(line) for line in arrived] == [len(arrived[0]), 256 * 1024, len(arrived[0])]
    metrics = cluster.on(MINI, "curl -s http://127.0.0.1:9080/metrics")
    assert re.search(r'^promtail_mutated_entries_total\{.*reason="line_too_long".*\} [1-9]', metrics, re.MULTILINE)


def test_bytes_that_are_no_text(cluster, training):
    """NUL bytes and invalid UTF-8 within lines"""
    mark = training.run
    moment = cluster.on(MINI, "date '+%Y-%m-%d %H:%M:%S'")
    text = "".join(
        f"printf '{moment},00{n} | INFO | rank:0 | {mark} n{n} {data}\\n' >> {FOLDER}/worker-rank0-{mark}.log\n"
        for n, data in enumerate(("before", "a\\000b", "a\\377\\376b", "after"))
    )
    cluster.on(MINI, f"mkdir -p -m 1777 {FOLDER}\n{text}")
    arrived = found(cluster, mark, 4)
    assert [line.split(mark)[1][:4] for line in arrived] == [" n0 ", " n1 ", " n2 ", " n3 "]


def test_progress_bar(cluster, training):
    """Progress output with carriage returns only: shown once its line ends, with its last frame"""
    mark = training.run
    frames = "".join(f"\r{percent}%|###| {mark}" for percent in range(101))
    put(cluster, f"worker-rank0-{mark}.log", f"{{now}},000 | INFO | rank:0 | {mark} begin\n{frames}")
    assert len(found(cluster, mark, 1)) == 1
    put(cluster, f"worker-rank0-{mark}.log", f"\n{{now}},001 | INFO | rank:0 | {mark} end\n")
    arrived = "\n".join(found(cluster, mark, 2))
    assert f"100%|###| {mark}" in arrived
    assert " 99%" not in arrived
    assert f"{mark} end" in arrived


def test_empty_file(cluster, training):
    """An empty file that gets its first line later"""
    mark = training.run
    cluster.on(MINI, f"mkdir -p -m 1777 {FOLDER}; : > {FOLDER}/worker-rank0-{mark}.log; sleep 3")
    put(cluster, f"worker-rank0-{mark}.log", f"{{now}},000 | INFO | rank:0 | {mark} first\n")
    assert len(found(cluster, mark, 1)) == 1


@pytest.mark.parametrize("ahead", [600, -600], ids=["10 min ahead", "10 min behind"])
def test_clock_is_wrong(training, ahead):
    """Clock of the ranks is wrong (simulated: the times in the lines)"""
    training.start(MINIS, rate=20, ahead=ahead)
    training.wait_written(60)
    training.prove()


def test_clock_is_set_right(training):
    """Clock 10 min ahead is set right in the same file (simulated: the times in the lines)"""
    training.start([MINI], rate=20, ahead=600)
    training.wait_written(60)
    training.prove()
    first = training.written(MINI)
    training.start([MINI], rate=20)
    training.wait_written(60)
    training.stop()
    total = first + training.written(MINI)
    assert training.settle(20, wanted={MINI.name: total}) is not None
    assert training.arrived()[MINI.name] == total


def test_two_agents_on_the_same_files(cluster, training):
    """A second Promtail, started manually, on the same files: no line appears twice, and the role reports it"""
    by_hand = "/opt/promtail/current/promtail -config.file=/tmp/by-hand.yml"
    cluster.on(
        MINI,
        "sed 's/9080/9081/; s#/run/promtail/positions.yaml#/tmp/positions.yaml#' /etc/promtail/promtail.yml "
        f"> /tmp/by-hand.yml; setsid {by_hand} >/dev/null 2>&1 &",
    )
    try:
        training.start([MINI], rate=50)
        training.wait_written(200)
        training.prove()
        assert by_hand in " ".join(cluster.deploy("--tags", "promtail", "--limit", MINI.name).output.split())
    finally:
        cluster.on(MINI, "pkill -f '[b]y-hand.yml'; rm -f /tmp/positions.yaml")


def test_disk_of_the_mini_is_full(cluster, training):
    """State disk of the node full while lines flow and the agent is killed, then free again"""
    training.start([MINI], rate=50)
    training.wait_written(100)
    state = "/var/lib/promtail"
    cluster.on(
        MINI,
        f"""systemctl stop promtail
        cp -a {state} /tmp/state
        size=$(du -sk {state} | cut -f1)
        mount -t tmpfs -o size=$((size + 64))k,mode=0750,uid=$(id -u promtail),gid=$(id -g promtail) tmpfs {state}
        cp -a /tmp/state/. {state}/ && rm -r /tmp/state || exit 1
        systemctl start promtail
        dd if=/dev/zero of={state}/full bs=1k 2>/dev/null; true""",
    )
    training.wait_written(100)
    cluster.on(MINI, "pkill -9 -x promtail")
    training.wait_written(100)
    cluster.on(MINI, f"rm -f {state}/full; systemctl stop promtail; umount {state}; systemctl start promtail")
    training.heal()
    training.prove()
    agent_ready(cluster, MINI)


@pytest.mark.slow
def test_disk_of_loki_is_full(cluster, training):
    """Loki's disk full for 20 s, then free again"""
    # On a small file system of its own; what was stored before is not to be seen meanwhile.
    cluster.on(
        CONTROLLER,
        f"""docker stop smolcluster-logging-loki-1
        mount -t tmpfs -o size=24m,uid=10001,gid=10001 tmpfs {STORE}
        docker start smolcluster-logging-loki-1""",
    )
    try:
        store_ready(cluster)
        training.start(MINIS, rate=50)
        cluster.on(CONTROLLER, f"dd if=/dev/zero of={STORE}/full bs=64k 2>/dev/null; true")
        training.wait_written(1000)
        cluster.on(CONTROLLER, f"rm {STORE}/full")
        training.wait_written(50)
        cluster.on(CONTROLLER, "docker restart smolcluster-logging-loki-1")
        store_ready(cluster)
        training.heal()
        training.prove()
    finally:
        cluster.on(
            CONTROLLER,
            f"docker stop smolcluster-logging-loki-1; umount {STORE}; docker start smolcluster-logging-loki-1",
        )
        store_ready(cluster)


def test_play_is_cut_off_and_a_second_one_completes_it(cluster, training):
    """A play is killed half way through, a second one starts at once"""
    training.start(MINIS, rate=20)
    command = ["ansible-playbook", "-i", "inventory/lab", "site.yml", "--tags", "promtail"]
    output = open("/tmp/cut-off.log", "w+")  # noqa: SIM115
    with (
        output,
        subprocess.Popen(
            [*command, "-e", '{"promtail_batch_wait": "70ms"}'], cwd=ROOT, stdout=output, stdin=subprocess.DEVNULL
        ) as play,
    ):
        wait_for(lambda: "agent : Switch" in open("/tmp/cut-off.log").read(), "the play deploys", 60)  # noqa: SIM115
        workers = run(["pgrep", "--parent", str(play.pid)], check=False).stdout.split()
        play.send_signal(signal.SIGKILL)
    try:
        cluster.deploy("--tags", "promtail")
        assert cluster.deploy("--tags", "promtail").changed() == 0
        training.heal()
        training.prove()
    finally:
        for worker in workers:  # they would wait for it for ever
            with suppress(ProcessLookupError):
                os.kill(int(worker), signal.SIGKILL)


# A zone of our own, east of Greenwich, whose summer time ends in a moment.
ZONE = """
Rule Lab 2000 max - Jan 1 0:00 1:00 S
Rule Lab 2000 max - {end} 0 -
Zone Lab 1:00 Lab L%sT
"""


def test_summer_time_ends(cluster, training):
    """LIMIT: summer time ends: nothing is lost, but one of the two equal hours is stored 1 h off"""
    mini = MINIS[2]
    end = cluster.on(mini, "date -u -d '+15 seconds' '+%b %-d %H:%M:%Su'")
    cluster.on(mini, "cat > /tmp/lab.zic && zic -d /usr/share/zoneinfo /tmp/lab.zic", data=ZONE.format(end=end))
    cluster.on(mini, "ln -sfn /usr/share/zoneinfo/Lab /etc/localtime && systemctl restart promtail")
    try:
        training.start([mini], rate=20)
        training.wait_written(500)
        row, (rank,) = training.outcome()
    finally:
        cluster.on(mini, f"ln -sfn /usr/share/zoneinfo/{mini.zone} /etc/localtime && systemctl restart promtail")
    assert (row.lost, row.duplicated) == (0, 0)
    assert "times are off by up to 3600.0 s" in rank.faults
