"""From fresh hosts to lines in Loki, as a new user does it. The tests build on one another in this order."""

from __future__ import annotations

import os
import re
import subprocess
import tarfile
import time
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from tests.lab.harness import CONTROLLER, LOGS, MINIS, ROOT, Lab, Play

# A program that logs as SmolCluster's does; prints the true UTC time of its lines in milliseconds.
TRAINING = """
import logging, os, sys
os.makedirs("{folder}", exist_ok=True)
logger = logging.getLogger()
handler = logging.FileHandler("{folder}/worker-rank{rank}-{host}.log")
handler.setFormatter(logging.Formatter("%(asctime)s | %(levelname)s | rank:{rank} | %(message)s"))
handler.addFilter(lambda record: print(int(record.created * 1000 + 1e-6), record.getMessage()) or True)
logger.addHandler(handler)
logger.setLevel(logging.DEBUG)
logger.info("{mark} one")
logger.warning("{mark} two")
logger.debug("{mark} three")
try:
    1 / 0
except ZeroDivisionError:
    logger.exception("{mark} failed")
"""


def test_check_mode_on_fresh_hosts_shows_all_and_changes_nothing(fresh_lab: Lab):
    play = fresh_lab.play("site.yml", "--check", "--diff")
    assert play.code == 0, play.output
    assert "http://controller:3100/loki/api/v1/push" in play.output
    for mini in MINIS:
        assert fresh_lab.on(mini, "ls -d /opt/promtail /etc/promtail 2>/dev/null; id promtail 2>/dev/null; true") == ""
    assert fresh_lab.on(CONTROLLER, "docker ps -aq; ls -d /opt/smolcluster-logging 2>/dev/null; true") == ""


def test_first_deployment(lab: Lab):
    assert (
        "ready"
        in subprocess.run(["curl", "-fsS", f"{lab.loki_url}/ready"], capture_output=True, text=True, check=True).stdout
    )


def test_second_run_changes_nothing(lab: Lab):
    play = lab.deploy()
    assert play.changed() == 0, play.output
    play = lab.deploy("--check", "--diff")
    assert play.changed() == 0, play.output


def test_tag_promtail_leaves_the_controller_alone_and_takes_few_tasks(lab: Lab):
    pids = [lab.agent_pid(mini) for mini in MINIS]
    play = lab.deploy("--tags", "promtail")
    assert play.changed() == 0
    assert [lab.agent_pid(mini) for mini in MINIS] == pids
    assert "docker_loki_grafana : " not in play.output.replace("docker_loki_grafana : Validating", "")
    for mini in MINIS:
        assert play.recap[mini.name]["ok"] <= 10


def test_verify_shows_every_node(lab: Lab):
    play = lab.play("playbooks/verify.yml")
    assert play.code == 0, play.output
    for mini in MINIS:
        assert len(re.findall(rf"^\s+{mini.name} +smolcluster-(?:server|worker) +20/20", play.output, re.M)) == 2


@pytest.mark.parametrize("mini", MINIS, ids=lambda host: host.zone)
def test_lines_have_all_labels_and_the_right_time_to_the_millisecond(lab: Lab, mini):
    mark = f"mark-{time.time_ns()}"
    program = TRAINING.format(folder=LOGS, rank=7, host=mini.name, mark=mark)
    true_times = {}
    for line in lab.on(mini, "su smol -s /bin/sh -c 'umask 077; python3 -'", data=program).splitlines():
        moment, _, message = line.partition(" ")
        true_times[message] = int(moment)
    found = lab.entries(f'{{node="{mini.name}"}} |= "{mark}"', 4)
    assert len(found) == 4
    for moment, line, labels in found:
        message = line.splitlines()[0].split(" | ")[3]
        assert moment == true_times[message] * 1_000_000, line
        words = {key: labels[key] for key in ("job", "component", "host", "node", "rank", "filename")}
        assert words == {
            "job": "smolcluster-worker",
            "component": "worker",
            "host": f"worker-rank7-{mini.name}",
            "node": mini.name,
            "rank": "7",
            "filename": f"{LOGS}/worker-rank7-{mini.name}.log",
        }
    levels = [labels["level"] for _, _, labels in found]
    assert sorted(levels) == ["DEBUG", "ERROR", "INFO", "WARNING"]
    traceback = next(line for _, line, labels in found if labels["level"] == "ERROR")
    assert traceback.splitlines()[1] == "Traceback (most recent call last):"
    assert traceback.splitlines()[-1] == "ZeroDivisionError: division by zero"


def test_lines_older_than_the_deployment_are_accepted_up_to_the_retention(lab: Lab):
    mini, mark = MINIS[0], f"old-{time.time_ns()}"
    now = datetime.now(ZoneInfo(mini.zone))
    days = (29, 20, 8, 1)
    stamps = [f"{now - timedelta(days=day):%Y-%m-%d %H:%M:%S},000" for day in days]
    query = f'{{job="smolcluster-server"}} |= "{mark}"'
    # Asked for before it is there, as a dashboard does: no answer may be kept.
    assert not lab.entries(query, 0, hours=30 * 24)
    lab.write(mini, f"server-{mark}.log", "".join(f"{stamp} | INFO | rank:server | {mark}\n" for stamp in stamps))
    found = lab.entries(query, len(days), hours=30 * 24)
    assert [line.split(" | ")[0] for _, line, _ in found] == stamps
    # Read again by a later test they would be refused (too far behind the newest), unless Loki has flushed them since.
    lab.on(mini, f"rm {LOGS}/server-{mark}.log")


def test_progress_bar_shows_its_last_state(lab: Lab):
    mini, mark = MINIS[1], f"bar-{time.time_ns()}"
    lab.write(mini, "worker-rank3-bar.log", f"10% {mark}\r50% {mark}\r100% {mark}\n")
    ((_, line, labels),) = lab.entries(f'{{node="{mini.name}"}} |= "{mark}"', 1)
    assert line == f"100% {mark}"
    assert labels["rank"] == "3"


@pytest.mark.parametrize("mini", [MINIS[0], MINIS[2]], ids=lambda host: host.suite)
def test_unit_is_hardened(lab: Lab, mini):
    verdict = lab.on(mini, "systemd-analyze security promtail --no-pager | tail -n 1")
    assert float(re.search(r"([\d.]+) \w+", verdict)[1]) <= 2.0, verdict
    assert "running as root" not in verdict
    assert lab.on(mini, f"stat -c %U /proc/{lab.agent_pid(mini)}") == "promtail"


def test_metrics_listen_on_loopback_only(lab: Lab):
    listening = lab.on(MINIS[0], "ss -Hltn")
    assert "127.0.0.1:9080" in listening
    assert not re.search(r"(0\.0\.0\.0|\*|\[::\]):9080", listening)


def test_changed_configuration_restarts_the_agent(lab: Lab):
    mini = MINIS[0]
    before = lab.agent_pid(mini)
    play = lab.deploy("--tags", "promtail", "--limit", mini.name, "--diff", promtail_batch_wait="60ms")
    assert "batchwait: 60ms" in play.output
    assert lab.agent_pid(mini) != before
    lab.deploy("--tags", "promtail", "--limit", mini.name)


def test_drift_is_found_and_mended(lab: Lab):
    mini = MINIS[0]
    lab.on(mini, "echo '# by hand' >> /etc/promtail/promtail.yml; chmod 0644 /etc/promtail/promtail.yml")
    assert lab.deploy("--tags", "promtail", "--limit", mini.name).changed() == 1
    assert lab.on(mini, "stat -c '%a %U:%G' /etc/promtail/promtail.yml") == "640 root:promtail"
    lab.on(mini, "systemctl stop promtail")
    assert lab.deploy("--tags", "promtail", "--limit", mini.name).changed() == 1
    lab.on(mini, "cd /opt/promtail/current; cp promtail damaged; printf x >> damaged; mv damaged promtail")
    assert lab.deploy("--tags", "promtail", "--limit", mini.name).changed() >= 1
    assert lab.deploy("--tags", "promtail", "--limit", mini.name).changed() == 0


def test_run_that_was_cut_off_before_the_restart_is_completed(lab: Lab):
    mini, files = MINIS[1], "/etc/promtail/promtail.yml /etc/systemd/system/promtail.service"
    lab.on(mini, f"tar -cPf /root/deployed.tar {files}")
    lab.deploy("--tags", "promtail", "--limit", mini.name, promtail_batch_wait="60ms")
    # As a run leaves it that wrote its files and was killed then.
    lab.on(mini, "tar -xPf /root/deployed.tar; rm /root/deployed.tar; systemctl daemon-reload")
    before = lab.agent_pid(mini)
    play = lab.deploy("--tags", "promtail", "--limit", mini.name)
    assert play.changed() == 1
    assert lab.agent_pid(mini) != before


def test_changed_retention_restarts_loki_only(lab: Lab):
    def started(service: str) -> str:
        found = lab.on(
            CONTROLLER, f"docker ps -aqf label=com.docker.compose.service={service} | xargs -r docker inspect"
        )
        return "".join(re.findall(r'"StartedAt": "(.*)"', found))

    loki, grafana = started("loki"), started("grafana")
    lab.deploy("--tags", "docker_loki_grafana", docker_loki_grafana_retention="31d")
    assert started("loki") != loki
    assert started("grafana") == grafana
    lab.deploy("--tags", "docker_loki_grafana")


def test_installed_collection_deploys_the_same(lab: Lab, tmp_path):
    settings = tmp_path / "ansible.cfg"
    settings.write_text("[defaults]\ncollections_path = collections\n")
    env = os.environ | {"ANSIBLE_CONFIG": str(settings)}

    def run(*words: str) -> None:
        subprocess.run(words, cwd=tmp_path, env=env, check=True, capture_output=True, stdin=subprocess.DEVNULL)

    run("ansible-galaxy", "collection", "build", str(ROOT), "--output-path", str(tmp_path))
    (tarball,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(tarball) as tar:
        assert not [name for name in tar.getnames() if name.startswith(("inventory", "lab", "tests", "collections"))]
    run("ansible-galaxy", "collection", "install", str(tarball), "--no-deps", "-p", str(tmp_path / "collections"))
    command = ["ansible-playbook", "-i", str(ROOT / "inventory/lab"), "smolcluster.logging.site"]
    play = Play.of(command, tmp_path, ANSIBLE_CONFIG=str(settings))
    assert play.code == 0, play.output
    assert play.changed() == 0, play.output
    assert str(ROOT / "roles") not in play.output
    # Without the checkout's ansible.cfg there is no pipelining, and what runs on the node has a terminal as its input.
    change = ["--tags", "promtail", "--limit", "mini1", "--extra-vars", "promtail_batch_wait=60ms"]
    play = Play.of([*command, *change], tmp_path, ANSIBLE_CONFIG=str(settings))
    assert play.code == 0, play.output
    assert play.changed() == 1, play.output
    lab.deploy("--tags", "promtail", "--limit", "mini1")
