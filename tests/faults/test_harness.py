"""The harness finds loss where there is some: Promtail without what the role puts around it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from lab.config import Host
from tests.faults.harness import agent_ready, store_down
from tests.lab.harness import MINIS

NO_REWIND = "sed -i 's/^REWIND = .*/REWIND = 0/' /opt/promtail/positions.py"
# As many retries as by default, at a tenth of their length.
TEN_RETRIES = """
    sed -i 's/max_retries: 0/max_retries: 10/; s/min_period: .*/min_period: 50ms/' /etc/promtail/promtail.yml
    sed -i 's/max_period: .*/max_period: 500ms/' /etc/promtail/promtail.yml
"""
CONTROLS = {"ten retries, Promtail's default but shorter": TEN_RETRIES, "kill -9 of the agent, no rewind": NO_REWIND}


@contextmanager
def lossy_agent(cluster, mini: Host, script: str) -> Iterator[None]:
    """A mini's agent is made lossy by a script meanwhile."""
    cluster.on(mini, f"{script}\nsystemctl restart promtail")
    agent_ready(cluster, mini)
    try:
        yield
    finally:
        cluster.deploy("--tags", "promtail", "--limit", mini.name)


@pytest.mark.parametrize("control", CONTROLS)
def test_lossy_agent_loses_lines_and_the_harness_says_so(cluster, training, control):
    """CONTROL, must lose: Loki stopped for 15 s"""
    mini = MINIS[0]
    with lossy_agent(cluster, mini, CONTROLS[control]):
        training.start([mini], rate=50)
        with store_down(cluster, training):
            # How far was read is saved every 10 s; from then on it is behind lines that were not delivered.
            training.wait_written(700)
            if control.startswith("kill"):
                cluster.on(mini, "pkill -9 -x promtail")
        row, (rank,) = training.outcome(timeout=10)
    assert row.lost > 0
    assert "lines lost" in rank.words()[0]
