"""The agent dies, stops, is restarted, re-deployed or upgraded, with and without Loki."""

from __future__ import annotations

import time
import zipfile
from contextlib import nullcontext
from pathlib import Path

import pytest

from lab.shell import wait_for
from tests.faults.harness import agent_ready, store_down
from tests.lab.harness import MINIS, release


@pytest.mark.parametrize("loki", ["Loki up", "Loki down"])
def test_agent_killed(cluster, training, loki):
    """`kill -9` of the agent"""
    training.start(MINIS, rate=100)
    with store_down(cluster, training) if loki == "Loki down" else nullcontext():
        # Long enough for Promtail to save positions behind lines that it has not delivered.
        training.wait_written(1200)
        for mini in MINIS:
            cluster.on(mini, "pkill -9 -x promtail")
        training.wait_written(200)
    training.prove()


@pytest.mark.slow
def test_agent_killed_again_and_again(cluster, training):
    """`kill -9` of the agent five times while Loki is down"""
    training.start(MINIS, rate=50)
    with store_down(cluster, training):
        for _ in range(5):
            training.wait_written(100)
            for mini in MINIS:
                cluster.on(mini, "pkill -9 -x promtail")
    training.prove()


def test_agent_killed_by_a_launch_script(cluster, training):
    """`pkill -f promtail` by the account that trains, which is also the agent's account"""
    one = ("--tags", "promtail", "--limit", MINIS[0].name)
    cluster.deploy(*one, promtail_user="smol")
    try:
        training.start(MINIS[:1], rate=100)
        for _ in range(2):
            training.wait_written(200)
            before = cluster.agent_pid(MINIS[0])
            cluster.on(MINIS[0], "su smol -c 'pkill -f promtail'")
            wait_for(lambda old=before: cluster.agent_pid(MINIS[0]) not in ("0", old), "the agent runs again", 20)
        training.wait_written(200)
        training.prove()
    finally:
        cluster.deploy(*one)


@pytest.mark.parametrize("loki", ["Loki up", "Loki down"])
def test_agent_stopped_and_started(cluster, training, loki):
    """Stop of the agent, start 3 s later"""
    training.start(MINIS, rate=100)
    with store_down(cluster, training) if loki == "Loki down" else nullcontext():
        training.wait_written(1200)
        for mini in MINIS:
            begin = time.monotonic()
            cluster.on(mini, "systemctl stop promtail")
            # The role's stop timeout is 2 s, where Promtail alone hangs for 60 to 90 s.
            assert time.monotonic() - begin < 10
        training.wait_written(300)
        for mini in MINIS:
            cluster.on(mini, "systemctl start promtail")
    training.prove()


@pytest.mark.slow
def test_agents_restarted_often(cluster, training):
    """Ten restarts of the agent while Loki is up"""
    training.start(MINIS, rate=200)
    for _ in range(10):
        for mini in MINIS:
            cluster.on(mini, "systemctl restart promtail")
        training.wait_written(50)
    training.prove()


def test_redeployment_in_an_outage_does_not_hang(cluster, training):
    """Re-deployment with a changed configuration while Loki is down"""
    training.start(MINIS, rate=50)
    with store_down(cluster, training):
        training.wait_written(100)
        begin = time.monotonic()
        cluster.deploy("--tags", "promtail", promtail_batch_wait="60ms")
        assert time.monotonic() - begin < 60
    training.prove()
    cluster.deploy("--tags", "promtail")


@pytest.mark.slow
def test_version_change_in_an_outage(cluster, training, artifacts, tmp_path):
    """Change of the agent's version while Loki is down"""
    archive = Path(artifacts["promtail_base_url"].removeprefix("file://")) / f"v{artifacts['promtail_version']}"
    with zipfile.ZipFile(next(archive.glob("promtail-*.zip"))) as packed:
        program = packed.read(packed.namelist()[0])
    training.start(MINIS, rate=50)
    with store_down(cluster, training):
        training.wait_written(100)
        # The same program under another number: an upgrade but for the program's own features.
        cluster.deploy("--tags", "promtail", **release(tmp_path, "9.9.4", program))
    training.prove()
    cluster.deploy("--tags", "promtail")
    for mini in MINIS:
        cluster.on(mini, "rm -r /opt/promtail/9.9.4")


@pytest.mark.parametrize("how", ["reboot", "power cut"])
def test_mini_goes_down(cluster, training, how):
    """Node restarted, files on a disk, Loki up"""
    training.start(MINIS, rate=50)
    training.wait_written(600)
    mini = MINIS[0]
    cluster.restart(mini, cut=how == "power cut")
    agent_ready(cluster, mini)
    training.heal()
    training.prove()


def test_mini_goes_down_in_an_outage(cluster, training):
    """Node loses power while Loki is down, files on a disk"""
    training.start(MINIS, rate=50)
    with store_down(cluster, training):
        training.wait_written(600)
        cluster.restart(MINIS[0], cut=True)
        agent_ready(cluster, MINIS[0])
    training.prove()


def test_new_run_after_a_reboot_that_wiped_tmp(cluster, training):
    """Node restarted, `/tmp` wiped: the next run's file of the same name is read from its start"""
    mini = MINIS[0]
    training.start([mini], rate=50, folder="/tmp/smolcluster-logs")
    training.wait_written(300)
    training.prove()
    first = training.written(mini)
    cluster.restart(mini)
    agent_ready(cluster, mini)
    training.start([mini], rate=100, folder="/tmp/smolcluster-logs")
    training.wait_written(first + 200)
    training.stop()
    # Both runs count from 1, so every number up to the first run's last one is there twice.
    second = training.written(mini)
    assert training.settle(30, wanted={mini.name: first + second}) is not None
    assert training.arrived()[mini.name] == first + second
