"""Loki is away, dies or restarts; no line is lost, none shows twice."""

from __future__ import annotations

import pytest

from tests.faults.harness import store, store_down, store_ready
from tests.lab.harness import CONTROLLER, MINIS


def test_outage_of_two_minutes(cluster, training):
    """Loki stopped for 2 min, 100 lines/s per node"""
    training.start(MINIS, rate=100)
    with store_down(cluster, training):
        training.wait_written(12_000)
    assert training.prove().catch_up < 30


@pytest.mark.slow
def test_outage_longer_than_ten_retries_of_the_default(cluster, training):
    """Loki stopped for 10 min; ten retries as by default take at most 8.5 min"""
    training.start(MINIS, rate=20)
    with store_down(cluster, training):
        training.wait_written(12_000, timeout=700)
    training.prove()


def test_loki_killed(cluster, training):
    """`kill -9` of Loki while lines flow; it starts again by itself"""
    training.start(MINIS, rate=50)
    cluster.on(CONTROLLER, "pkill -9 -x loki")
    store_ready(cluster)
    training.wait_written(100)
    training.heal()
    training.prove()


def test_controller_restarted(cluster, training):
    """Restart of the whole controller"""
    training.start(MINIS, rate=20)
    cluster.restart(CONTROLLER)
    store_ready(cluster, 120)
    training.heal()
    training.prove()


@pytest.mark.slow
def test_loki_killed_in_the_middle_of_a_backlog(cluster, training):
    """`kill -9` of Loki while the backlog of an outage arrives"""
    training.start(MINIS, rate=200)
    with store_down(cluster):
        training.wait_written(2000)
    store(cluster, "kill")
    store(cluster, "start")
    store_ready(cluster)
    training.heal()
    training.prove()
