"""Uninstall removes what was made, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.lab.harness import CONTROLLER, DUMMY, LOGS, MINIS, Lab, release

AGENT = """
    ls -d /opt/promtail /etc/promtail /var/lib/promtail /etc/systemd/system/promtail.service \
        /etc/systemd/system/multi-user.target.wants/promtail.service 2>/dev/null
    id promtail 2>/dev/null; getent group promtail; pgrep promtail; systemctl cat promtail 2>/dev/null; true
"""
STORE = """
    ls -d /opt/smolcluster-logging /usr/local/bin/cluster-logs /etc/systemd/system/smolcluster-logging.service \
        /etc/systemd/system/*/smolcluster-logging.service /etc/systemd/system/smolcluster-logging-health.service \
        /etc/systemd/system/*/smolcluster-logging-health.service 2>/dev/null; pgrep --full '[l]oki-health'
    docker ps --all --quiet; docker volume ls --quiet; docker network ls --quiet --filter type=custom
"""


@pytest.fixture(scope="module", autouse=True)
def deployed_again(lab: Lab) -> Iterator[None]:
    """The tests of other files find everything deployed."""
    yield
    lab.deploy()


def test_uninstall_leaves_nothing_of_ours_and_everything_else(lab: Lab):
    mini = MINIS[0]
    lab.write(mini, "worker-rank0-kept.log", "a line of training\n")
    lab.on(CONTROLLER, "docker volume create somebody-elses")
    for _ in range(2):  # it can be repeated
        play = lab.play("playbooks/uninstall.yml")
        assert play.code == 0, play.output
        for host in MINIS:
            assert lab.on(host, AGENT) == ""
        assert lab.on(CONTROLLER, STORE) == "somebody-elses"
    assert play.changed() == 0
    assert lab.on(mini, f"cat {LOGS}/worker-rank0-kept.log") == "a line of training"
    lab.on(CONTROLLER, "docker volume rm somebody-elses")


def test_first_deployment_of_a_program_that_dies_leaves_nothing_running(lab: Lab, tmp_path):
    mini = MINIS[1]
    assert lab.play("playbooks/uninstall.yml", "--tags", "promtail", "--limit", mini.name).code == 0
    variables = release(tmp_path, "9.9.3", DUMMY.encode())
    play = lab.play("site.yml", "--tags", "promtail", "--limit", mini.name, **variables)
    assert play.code != 0
    assert "no agent ran before, and none runs now" in " ".join(play.output.split())
    assert "dummy program: cannot go on" in play.output
    assert lab.on(mini, "systemctl is-active promtail", check=False) == "inactive"
    assert lab.on(mini, "ls /etc/systemd/system/promtail.service /etc/systemd/system/*/promtail.service; true") == ""
    assert lab.play("playbooks/uninstall.yml", "--tags", "promtail", "--limit", mini.name).code == 0
    assert lab.on(mini, AGENT) == ""


def test_unit_of_somebody_else_stays(lab: Lab):
    mini, unit = MINIS[0], "/etc/systemd/system/promtail.service"
    lab.on(mini, f"printf '[Service]\\nExecStart=/bin/true\\n' > {unit}")
    play = lab.play("site.yml", "--tags", "promtail", "--limit", mini.name)
    assert play.code != 0
    assert play.changed() == 0
    assert "Set promtail_adopt: true to replace it" in " ".join(play.output.split())
    play = lab.play("playbooks/uninstall.yml", "--tags", "promtail", "--limit", mini.name)
    assert play.code == 0, play.output
    assert "ExecStart=/bin/true" in lab.on(mini, f"cat {unit}")
    lab.on(mini, f"rm {unit}")
