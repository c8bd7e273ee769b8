"""The demo, as a newcomer sees it, and Grafana behind it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.lab.harness import CONTROLLER, ROOT, Lab


def test_demo_shows_every_rank_from_loki_whatever_its_format(lab: Lab):
    only = ("--tags", "promtail", "--limit", "mini3")
    lab.deploy("-i", "lab/demo/inventory.yml", *only)
    done = subprocess.run(
        [sys.executable, "-m", "lab.demo"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        timeout=300,
    )
    lab.deploy(*only)
    assert done.returncode == 0, done.stdout + done.stderr
    for line in (
        " UTC, level=INFO, rank=1",
        "server-mini1                65 of 65 entries",
        "worker-rank0-mini2          62 of 62 entries",
        "worker-rank1-mini3          62 of 62 entries",
        "  ValueError: batch has 1 values that are not finite",
        '{level="ERROR"}                        1 entries',
        '{component="server"} |= "loss"        60 entries',
        "  node mini3             1",
    ):
        assert line in done.stdout, done.stdout
    live = done.stdout.partition("cluster-logs tail` ==")[2].partition("The lab is still up")[0]
    assert "metric:loss" in live, done.stdout


def login(lab: Lab, password: str) -> str:
    """Status with which Grafana answers a login of its administrator, asked on the controller itself."""
    return lab.on(
        CONTROLLER,
        "curl -s -o /dev/null -w '%{http_code}' -K - http://127.0.0.1:3000/api/org",
        data=f'user = "admin:{password}"',
    )


def test_changed_password_of_grafana_is_applied_and_never_shown(lab: Lab, artifacts):
    if not artifacts["docker_loki_grafana_grafana_enabled"]:
        pytest.skip("no image of Grafana can be had here")
    secret = "another-lab-password"  # noqa: S105 - a password of the lab
    play = lab.deploy(
        "--tags", "docker_loki_grafana", "--diff", "-vvv", docker_loki_grafana_grafana_admin_password=secret
    )
    shown = play.output.replace("--extra-vars", "").splitlines()
    assert not [line for line in shown if secret in line and "ansible-playbook" not in line]
    assert login(lab, secret) == "200"
    assert login(lab, "only-for-the-lab") == "401"
    assert lab.on(CONTROLLER, "curl -s -o /dev/null -w '%{http_code}' http://127.0.0.1:3000/api/org") == "401"
    lab.deploy("--tags", "docker_loki_grafana")
    assert login(lab, "only-for-the-lab") == "200"
