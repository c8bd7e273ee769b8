"""status.yml shows every node, for people and for programs."""

from __future__ import annotations

import json
import re

from tests.lab.harness import MINIS, Lab


def test_every_node_is_well(lab: Lab, tmp_path):
    play = lab.play("playbooks/status.yml", status_strict=True, status_file=str(tmp_path / "status.json"))
    assert play.code == 0, play.output
    nodes = json.loads((tmp_path / "status.json").read_text())
    assert [node["node"] for node in nodes] == [mini.name for mini in MINIS]
    for node in nodes:
        assert node["running"]
        assert node["problems"] == []
        assert abs(node["clock_skew"]) < 2
        assert re.search(rf"^\s+{node['node']} +{re.escape(node['version'])} ", play.output, re.M)


def test_stopped_agent_is_told_and_fails_only_a_strict_run(lab: Lab):
    mini = MINIS[0]
    lab.on(mini, "systemctl stop promtail")
    try:
        play = lab.play("playbooks/status.yml")
        assert play.code == 0, play.output
        assert "the agent does not run" in play.output
        strict = lab.play("playbooks/status.yml", status_strict=True)
        assert strict.code != 0
        assert f"{mini.name}: the agent does not run" in " ".join(strict.output.split())
    finally:
        lab.on(mini, "systemctl start promtail")


def test_limit_shows_only_these(lab: Lab):
    play = lab.play("playbooks/status.yml", "--limit", MINIS[1].name)
    assert play.code == 0, play.output
    assert re.search(rf"^\s+{MINIS[1].name} ", play.output, re.M)
    assert not re.search(rf"^\s+{MINIS[0].name} ", play.output, re.M)


def test_node_that_is_not_reached_is_in_the_table(lab: Lab):
    mini = MINIS[0]
    lab.on(mini, "systemctl stop ssh.socket ssh.service 2>/dev/null; pkill sshd; true")
    try:
        play = lab.play("playbooks/status.yml")
        assert play.code != 0
        assert f"{mini.name}: not reached" in play.output
        assert re.search(rf"^\s+{MINIS[1].name} +\d", play.output, re.M)
    finally:
        lab.on(mini, "systemctl start ssh.service")
