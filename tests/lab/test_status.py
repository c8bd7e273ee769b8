"""status.yml shows every node, for people and for programs."""

from __future__ import annotations

import json
import re
import shlex

from tests.lab.harness import LOGS, MINIS, Lab


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


def test_times_of_another_zone_are_named_while_training_writes_them(lab: Lab):
    """The first mini is in Asia/Kolkata, the last one in UTC; each has a program in the zone of the other."""
    written = {MINIS[0]: ("UTC", "+5:30"), MINIS[-1]: ("Asia/Kolkata", "-5:30")}
    limit = ("--limit", ",".join(mini.name for mini in written))
    path = f"{LOGS}/worker-rank7-zone.log"
    line = "'%Y-%m-%d %H:%M:%S,000 | INFO | rank:7 | zone'"
    for mini, (zone, _shift) in written.items():
        # It writes until its file is removed.
        loop = f"while [ -e {path} ]; do TZ={zone} date +{line} >> {path}; sleep 0.2; done"
        lab.on(mini, f"mkdir -p -m 1777 {LOGS}; : > {path}; nohup sh -c {shlex.quote(loop)} > /dev/null 2>&1 &")
    try:
        for playbook in ("playbooks/status.yml", "playbooks/verify.yml"):
            play = lab.play(playbook, *limit)
            assert play.code == (2 if "verify" in playbook else 0), play.output
            said = " ".join(play.output.split())
            for _zone, shift in written.values():
                assert f"times of {path} look shifted by {shift}: the newest line has" in said
            assert "Set timezone of the source to UTC, which they fit" in said
    finally:
        for mini in written:
            # Loki has refused lines of the future; the counters begin again.
            lab.on(mini, f"rm -f {path}; sleep 1; rm -f {path}; systemctl restart promtail")
