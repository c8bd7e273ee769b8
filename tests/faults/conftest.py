"""A deployed lab in which ranks write while something breaks."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lab import hosts
from lab.config import NETWORK, Host
from lab.shell import run, wait_for
from plugins.module_utils import loki
from tests.faults.harness import FOLDER, SOURCES, Training
from tests.lab.harness import MINIS, Lab


class Cluster(Lab):
    """The lab with a further source: a folder that a reboot leaves alone."""

    def play(self, playbook: str = "site.yml", *words: str, **variables):
        """As `Lab.play`, always with the sources of these tests."""
        return super().play(playbook, *words, **({"promtail_sources": SOURCES} | variables))

    restart = staticmethod(hosts.restart)

    def swap_addresses(self, one: Host, two: Host) -> None:
        """Give two hosts, the first of the lower address, each other's; their names stay."""
        for host in (one, two):
            run(["docker", "network", "disconnect", NETWORK, host.container])
        # Docker gives the lowest free address to whoever comes first; `one` had the lower one.
        for host in (two, one):
            run(["docker", "network", "connect", f"--alias={host.name}", NETWORK, host.container])

    def wait_count(self, query: str, count: int, timeout: float) -> int:
        """Wait until a metric query with one result gives at least a number; returns what it gives."""

        def value() -> int:
            return sum(int(one["value"][1]) for one in loki.instant(self.loki_url, query))

        wait_for(lambda: value() >= count, f"{query} is {count}", timeout, pause=1)
        return value()


@pytest.fixture(scope="session")
def cluster(any_lab: Lab) -> Cluster:  # noqa: ARG001
    """Hosts with everything deployed."""
    cluster = Cluster()
    cluster.deploy()
    return cluster


@pytest.fixture
def training(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[Training]:
    """Ranks that are started and held against the invariant by the test; its docstring names the fault."""
    training = Training(cluster, (request.function.__doc__ or request.node.name).strip().splitlines()[0].rstrip("."))
    if hasattr(request.node, "callspec"):
        training.fault += f" ({request.node.callspec.id})"
    yield training
    training.record_seen()
    training.stop()
    for host in MINIS:
        cluster.on(host, f"rm -rf {FOLDER}/*{training.run}*")
