"""verify.yml proves every path, and root touches nothing on a node that is somebody else's."""

from __future__ import annotations

import json
import re
import shlex
import time
from collections.abc import Iterator

import pytest

from lab import hosts
from lab.shell import wait_for
from tests.lab.harness import LOGS, MINIS, Lab, Play

MINI = MINIS[0]
VICTIM = "/etc/planted-by-a-test"
HOME = "/home/smol/smolcluster"
BOOT = "/etc/tmpfiles.d/smolcluster-promtail.conf"
# Puts a link in place of a probe's file once that has two lines.
SWAP = f"""
import glob, os, time
end = time.monotonic() + 60
while time.monotonic() < end:
    for path in glob.glob("/srv/smol/worker-verify-*.log"):
        if not os.path.islink(path) and open(path).read().count("\\n") >= 2:
            os.rename(path, "/srv/smol/aside")
            os.symlink("{VICTIM}", path)
            raise SystemExit
    time.sleep(0.005)
"""
# Answers 200 to everything, as some web servers do.
ANSWER = """
import http.server
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"<html>It works!</html>")
    do_POST = do_GET
http.server.ThreadingHTTPServer(("127.0.0.1", 9999), Handler).serve_forever()
"""


def source(*paths: str, **more) -> dict:
    """Variables with one source."""
    source = {"name": "train", "paths": list(paths), "format": "smolcluster", "labels": {"job": "train"}} | more
    return {"promtail_sources": [source]}


def deploy(lab: Lab, **variables) -> Play:
    """Deploy the agent of the mini."""
    return lab.deploy("--tags", "promtail", "--limit", MINI.name, **variables)


def verify(lab: Lab, **variables) -> tuple[int, str]:
    """Exit code of verify.yml for the mini, and what it says on one line."""
    play = lab.play("playbooks/verify.yml", "--limit", MINI.name, **variables)
    return play.code, " ".join(play.output.split())


@pytest.fixture(scope="module", autouse=True)
def deployed_again(lab: Lab) -> Iterator[None]:
    """Each test deploys the sources that it needs; the tests of other files find the usual ones."""
    yield
    deploy(lab)


@pytest.fixture
def smol(lab: Lab) -> Iterator[Lab]:
    """A mini with a folder of an ordinary account."""
    lab.on(MINI, f"rm -rf /srv/smol {HOME} {VICTIM}; install -d -o smol -g smol /srv/smol")
    yield lab
    lab.on(MINI, f"rm -rf /srv/smol {HOME} {VICTIM}")


def test_planted_link_is_neither_followed_nor_filled(smol: Lab):
    links = {"train.log": VICTIM, "rank0.log": "/etc/shadow"}
    for name, target in links.items():
        smol.on(MINI, f"su smol -s /bin/sh -c 'ln -s {target} /srv/smol/{name}'")
    before = smol.on(MINI, "sha256sum /etc/shadow")
    wanted = source("/srv/smol/train.log", "/srv/smol/rank0.log", "/srv/smol/worker-*.log")
    deploy(smol, **wanted)
    _, text = verify(smol, **wanted)
    assert smol.on(MINI, f"ls {VICTIM}; true") == ""
    assert smol.on(MINI, "sha256sum /etc/shadow") == before
    for name, target in links.items():
        assert smol.on(MINI, f"readlink /srv/smol/{name}") == target
        assert not re.search(rf"\d+/\d+ [^/]*/srv/smol/{name}", text), text
    assert re.search(r"20/20 .*/srv/smol/worker-\*\.log by Loki", text), text
    assert smol.on(MINI, "ls /srv/smol").split() == sorted(links)


def test_link_put_in_place_after_the_second_line_gets_nothing(smol: Lab):
    wanted = source("/srv/smol/worker-*.log")
    deploy(smol, **wanted)
    smol.on(MINI, f"nohup su smol -s /bin/sh -c {shlex.quote(f'python3 -c {shlex.quote(SWAP)}')} >/dev/null 2>&1 &")
    verify(smol, **wanted)
    wait_for(lambda: smol.on(MINI, "find /srv/smol -type l") != "", "the link is in place", 60)
    assert smol.on(MINI, f"ls {VICTIM}; true") == ""
    assert smol.on(MINI, "find /srv/smol -type l -printf '%u %l'") == f"smol {VICTIM}"


def test_missing_parents_in_a_home_belong_to_its_owner(smol: Lab):
    folder = f"{HOME}/logging/cluster-logs"
    wanted = source(f"{folder}/worker-*.log")
    code, text = verify(smol, **wanted)
    assert (code, f"not probed: the folder {folder} is missing" in text) == (0, True), text
    assert smol.on(MINI, f"ls -d {HOME}; true") == ""

    shown = smol.deploy("--tags", "promtail", "--limit", MINI.name, "--check", "--diff", **wanted)
    assert f"{folder} 1000:1000 0755" in shown.output
    assert smol.on(MINI, f"ls -d {HOME}; true") == ""
    deploy(smol, **wanted)
    pid = smol.agent_pid(MINI)
    assert deploy(smol, **wanted).changed() == 0
    assert smol.agent_pid(MINI) == pid
    for path in (HOME, f"{HOME}/logging", folder):
        assert smol.on(MINI, f"stat -c '%U:%G %a' {path}") == "smol:smol 755"
    code, text = verify(smol, **wanted)
    assert code == 0, text
    assert "Paths: 1 proven, 0 not probed, 0 failed" in text
    assert smol.on(MINI, f"find {folder} -type f") == ""


def test_folder_of_an_obstacle_is_refused_and_the_agent_runs_on(smol: Lab):
    deploy(smol)
    smol.on(MINI, "touch /srv/smol/file")
    pid = smol.agent_pid(MINI)
    for wanted, words in (
        (source("/srv/smol/file/*.log"), "/srv/smol/file exists but is not a folder"),
        (source("/srv/smol/new/*.log", owner="nosuchuser"), "but this node has no such account"),
    ):
        play = smol.play("site.yml", "--tags", "promtail", "--limit", MINI.name, **wanted)
        assert play.code != 0
        assert words in " ".join(play.output.split())
        assert play.changed() == 0
        assert smol.agent_pid(MINI) == pid
    assert smol.on(MINI, "ls /srv/smol") == "file"


def test_fresh_deployment_and_a_reboot_with_tmp_wiped_can_be_proven(lab: Lab):
    lab.on(MINI, f"rm -rf {LOGS}")
    deploy(lab)
    assert f"d {LOGS} 1777 0 0 -" in lab.on(MINI, f"cat {BOOT}")
    for _ in range(2):
        assert lab.on(MINI, f"stat -c '%U:%G %a' {LOGS}") == "root:root 1777"
        code, text = verify(lab)
        assert code == 0, text
        assert "Paths: 2 proven, 0 not probed, 0 failed" in text
        assert lab.on(MINI, f"ls {LOGS}") == ""
        hosts.restart(MINI)
    mark = f"after-the-reboot-{time.time_ns()}"
    lab.on(MINI, f"su smol -s /bin/sh -c 'echo {mark} > {LOGS}/worker-rank0-boot.log'")
    assert len(lab.entries(f'{{node="{MINI.name}"}} |= "{mark}"', 1)) == 1
    # The folder is training's now, and stays as training has made it.
    lab.on(MINI, f"rm -rf {LOGS}; su smol -s /bin/sh -c 'mkdir -m 750 {LOGS}'")
    deploy(lab)
    lab.on(MINI, "systemd-tmpfiles --create")
    assert lab.on(MINI, f"stat -c '%U:%G %a' {LOGS}") == "smol:smol 750"
    lab.on(MINI, f"rm -rf {LOGS}")


def test_file_in_a_format_of_its_own_is_proven_without_a_line_of_ours(smol: Lab):
    stages = [{"json": {"expressions": {"level": "level"}}}, {"labels": {"level": ""}}]
    wanted = source("/srv/smol/metrics.jsonl", format=stages)
    lines = "".join(json.dumps({"level": "INFO", "step": step}) + "\n" for step in range(5))
    smol.on(MINI, "cat > /srv/smol/metrics.jsonl", data=lines)
    deploy(smol, **wanted)
    smol.entries(f'{{node="{MINI.name}", filename="/srv/smol/metrics.jsonl"}}', 5)
    code, text = verify(smol, **wanted)
    assert code == 0, text
    assert "/srv/smol/metrics.jsonl by the agent's counters" in text
    assert smol.on(MINI, "cat /srv/smol/metrics.jsonl") == lines.strip()
    smol.on(MINI, "rm /srv/smol/metrics.jsonl")
    code, text = verify(smol, **wanted)
    assert code == 0, text
    assert "not probed: the path names one file, and only training writes to it" in text
    assert "Paths: 0 proven, 1 not probed, 0 failed" in text


def test_path_that_the_agent_does_not_watch_fails_without_a_false_cause(smol: Lab):
    deploy(smol)
    code, text = verify(smol, **source(f"{LOGS}/worker-*.log", "/srv/smol/worker-*.log"))
    assert code != 0
    assert "20/20" in text
    assert "the agent does not follow /srv/smol/worker-verify-" in text
    assert "shipped say nothing about that file" in text
    assert "watchConfig" not in text
    assert smol.on(MINI, "ls /srv/smol") == ""


def test_web_server_that_answers_everything_is_not_taken_for_loki(lab: Lab):
    lab.on(MINI, f"systemd-run --unit=somebody-else python3 -c {shlex.quote(ANSWER)}")
    url = {"promtail_loki_url": "http://127.0.0.1:9999"}
    try:
        wait_for(lambda: "It works" in lab.on(MINI, "curl -s http://127.0.0.1:9999", check=False), "it answers", 10)
        pid = lab.agent_pid(MINI)
        play = lab.play("site.yml", "--tags", "promtail", "--limit", MINI.name, **url)
        assert play.code != 0
        assert "is not Loki: it answers 200: <html>It works!</html>" in " ".join(play.output.split())
        assert lab.agent_pid(MINI) == pid
        code, text = verify(lab, **url)
        assert code != 0
        assert "http://127.0.0.1:9999 is not Loki: /ready answers 200: <html>It works!</html>" in text
    finally:
        lab.on(MINI, "systemctl stop somebody-else")
