"""What is kept of how far logs were read is damaged while the agent is away, which it was by a crash in an outage."""

from __future__ import annotations

import pytest

from tests.faults.harness import agent_ready, store_down
from tests.lab.harness import MINIS

STATE = "/var/lib/promtail"
DAMAGE = {
    "corrupt": f"printf '{{\"files\": [1' > {STATE}/files.json",
    "empty": f": > {STATE}/files.json",
    "NUL-filled": f"head -c 400 /dev/zero > {STATE}/files.json",
    "missing": f"rm {STATE}/files.json",
    "all state missing": f"rm {STATE}/files.json {STATE}/started.json",
    "read-only": f"chown root {STATE}/files.json; chmod 0400 {STATE}/files.json",
}


@pytest.mark.parametrize("damages", [list(DAMAGE)[:3], list(DAMAGE)[3:]], ids=", ".join)
def test_state_is_damaged(cluster, training, damages):
    """Agent killed while Loki is down, then its state is damaged, in a different way on each node"""
    training.start(MINIS, rate=100)
    training.wait_written(100)
    with store_down(cluster, training):
        training.wait_written(1200)
        for mini, damage in zip(MINIS, damages, strict=True):
            cluster.on(mini, f"systemctl kill --signal=KILL promtail; systemctl stop promtail; {DAMAGE[damage]}")
            cluster.on(mini, "systemctl start promtail")
    training.prove()
    for mini in MINIS:
        agent_ready(cluster, mini)


def test_state_folder_that_cannot_be_written(cluster, training):
    """State folder read-only while lines flow and the agent restarts"""
    mini = MINIS[0]
    training.start([mini], rate=50)
    training.wait_written(200)
    cluster.on(mini, f"mount --bind {STATE} {STATE} && mount -o remount,bind,ro {STATE}")
    try:
        training.wait_written(100)
        cluster.on(mini, "systemctl restart promtail", check=False)
        training.wait_written(100)
    finally:
        cluster.on(mini, f"umount {STATE}; systemctl restart promtail")
    training.heal()
    training.prove()
