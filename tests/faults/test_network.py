"""The network between agent and Loki breaks, or leads elsewhere."""

from __future__ import annotations

import pytest

from tests.faults.harness import agent_ready, store_ready
from tests.lab.harness import CONTROLLER, MINIS

MINI = MINIS[0]
TABLE = "inet fault"


def address(cluster) -> str:
    """Address of the controller, as the mini has it by name."""
    return cluster.on(MINI, "getent ahostsv4 controller | head -n 1 | cut -d' ' -f1")


def test_network_is_cut(cluster, training):
    """Network between node and controller cut for 10 s"""
    training.start([MINI], rate=50)
    cluster.on(MINI, f"ip route add blackhole {address(cluster)}")
    training.wait_written(500)
    cluster.on(MINI, "ip route del blackhole $(ip route show type blackhole | cut -d' ' -f2)")
    training.heal()
    training.prove()


@pytest.mark.slow
def test_answers_are_lost(cluster, training):
    """One-way drop: lines reach Loki, its answers are lost for 30 s"""
    training.start([MINI], rate=50)
    rule = f"nft add table {TABLE}; nft add chain {TABLE} in '{{ type filter hook input priority 0; }}'"
    cluster.on(MINI, f"{rule}; nft add rule {TABLE} in ip saddr {address(cluster)} tcp sport 3100 drop")
    training.wait_written(1500)
    cluster.on(MINI, f"nft delete table {TABLE}")
    training.heal()
    training.prove()


@pytest.mark.slow
def test_lossy_link(cluster, training):
    """Link that loses a quarter of all packets for 20 s"""
    training.start([MINI], rate=50)
    rule = f"nft add table {TABLE}; nft add chain {TABLE} in '{{ type filter hook input priority 0; }}'"
    cluster.on(MINI, f"{rule}; nft add rule {TABLE} in ip saddr {address(cluster)} numgen random mod 4 0 drop")
    training.wait_written(1000)
    cluster.on(MINI, f"nft delete table {TABLE}")
    training.heal()
    training.prove()


def test_name_does_not_resolve(cluster, training):
    """Name of the controller does not resolve for 10 s"""
    training.start([MINI], rate=50)
    cluster.on(MINI, "cp /etc/resolv.conf /root/resolv.conf && echo 'nameserver 127.0.0.1' > /etc/resolv.conf")
    # Kept-alive connections do not ask for the name.
    cluster.on(MINI, "systemctl restart promtail")
    training.wait_written(500)
    cluster.on(MINI, "cat /root/resolv.conf > /etc/resolv.conf")
    training.heal()
    training.prove()


def test_controller_gets_another_address(cluster, training):
    """Address of the controller changes, its name stays"""
    training.start(MINIS, rate=20)
    before = address(cluster)
    cluster.swap_addresses(CONTROLLER, MINIS[2])
    store_ready(cluster)
    assert address(cluster) != before
    training.wait_written(60)
    training.heal()
    training.prove()
    for mini in MINIS:
        agent_ready(cluster, mini)
