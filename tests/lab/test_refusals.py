"""Bad input: refused with host, cause and way out, before anything is changed; the agent runs on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lab.config import Host
from tests.lab.harness import CONTROLLER, MINIS, ROOT, Lab, Play

MINI = MINIS[0]
SOURCE = {"name": "train", "paths": ["/srv/train.log"], "labels": {"job": "train"}}

# What is given, and what the message has to name: the cause, and a word of the way out.
AGENT = {
    "no-loki-address": ({"promtail_loki_url": ""}, "no usable Loki address", "smolcluster_address"),
    "no-sources": ({"smolcluster_log_sources": []}, "smolcluster_log_sources is empty", "Add at least one"),
    "unknown-format": (
        {"promtail_sources": [SOURCE | {"format": "glogg"}]},
        "unknown format glogg",
        "did you mean glog",
    ),
    "unknown-stage": (
        {"promtail_sources": [SOURCE | {"format": [{"regexp": {"expression": "x"}}]}]},
        "unknown stage",
        "Promtail has",
    ),
    "bad-regex": (
        {"promtail_sources": [SOURCE | {"format": [{"regex": {"expression": "(unclosed"}}]}]},
        "Promtail refuses the source train",
        "missing closing )",
    ),
    "bad-zone": ({"promtail_timezone": "Mars/Phobos"}, "unknown time zone 'Mars/Phobos'", "such as Asia/Kolkata"),
    "no-such-release": (
        {"promtail_version": "3.7.3", "promtail_base_url": "https://github.com/grafana/loki/releases/download"},
        "3.6.11 is the last release",
        "promtail_base_url",
    ),
    "port-is-taken": (
        {"promtail_http_port": 9099},
        "port 9099 is taken by python3 -m http.server",
        "promtail_http_port",
    ),
    "wrong-checksum": (
        {"promtail_checksums": {"linux-amd64": "0" * 64, "linux-arm64": "0" * 64}},
        "cannot be downloaded",
        "promtail_checksums",
    ),
    "unreachable-download": (
        {"promtail_version": "3.6.10", "promtail_base_url": "http://127.0.0.1:9/releases"},
        "cannot be downloaded from http://127.0.0.1:9/releases",
        "promtail_base_url",
    ),
}
STORE = {
    "retention-under-a-day": ({"docker_loki_grafana_retention": "23h"}, "the minimum is 24 hours", "30d"),
    "retention-without-a-unit": ({"docker_loki_grafana_retention": "thirty"}, "'thirty'", "30d"),
    "default-password-on-the-network": (
        {
            "docker_loki_grafana_grafana_enabled": True,
            "docker_loki_grafana_grafana_listen_address": "192.0.2.10",
            "docker_loki_grafana_grafana_admin_password": "admin",
        },
        "with the default password",
        "grafana_admin_password",
    ),
    # Both are found in one run.
    "contact-without-a-url-and-password-with-a-line-feed": (
        {
            "docker_loki_grafana_grafana_enabled": True,
            "docker_loki_grafana_dashboards": True,
            "docker_loki_grafana_grafana_admin_password": "secret\n",
            "docker_loki_grafana_alert_contact_type": "webhook",
            "docker_loki_grafana_alert_contact_address": "192.0.2.7",
        },
        "docker_loki_grafana_alert_contact_address is not a URL",
        "grafana_admin_password has a line feed",
    ),
    "image-file-missing": (
        {"docker_loki_grafana_loki_image_file": "/nowhere/loki.tar"},
        "no image file /nowhere/loki.tar",
        "control node",
    ),
    "host-name-to-listen-on": (
        {"docker_loki_grafana_loki_listen_address": "controller"},
        "docker_loki_grafana_loki_listen_address is 'controller': that is not an IP address",
        "or one address of this host",
    ),
    "address-of-another-host": (
        {"docker_loki_grafana_loki_listen_address": "192.0.2.10"},
        "docker_loki_grafana_loki_listen_address is '192.0.2.10', an address that this host does not have now",
        "0.0.0.0",  # noqa: S104
    ),
    "ipv6-address-of-another-host": (
        {"docker_loki_grafana_loki_listen_address": "[2001:db8::9]"},
        "'[2001:db8::9]', an address that this host does not have now",
        "0.0.0.0",  # noqa: S104
    ),
    "port-that-is-no-number": (
        {"docker_loki_grafana_loki_port": "http"},
        "docker_loki_grafana_loki_port",
        "cannot be converted to an int",
    ),
    "port-out-of-range": (
        {"docker_loki_grafana_loki_port": "70000"},
        "docker_loki_grafana_loki_port is '70000'",
        "a whole number from 1 to 65535",
    ),
    "one-port-for-both": (
        {
            "docker_loki_grafana_grafana_enabled": True,
            "docker_loki_grafana_grafana_port": "3100",
        },
        "docker_loki_grafana_loki_port and docker_loki_grafana_grafana_port are both 3100",
        "Give each its own port",
    ),
    "port-of-loki-is-taken": (
        {"docker_loki_grafana_loki_port": 3199},
        "port 3199 is taken by python3",
        "docker_loki_grafana_loki_port",
    ),
    "port-of-grafana-is-taken": (
        {"docker_loki_grafana_grafana_enabled": True, "docker_loki_grafana_grafana_port": 3199},
        "port 3199 is taken by python3",
        "docker_loki_grafana_grafana_port",
    ),
    # A node has no Docker; as the controller it is refused.
    "docker-is-missing": (
        {"ansible_port": MINI.ssh_port, "docker_loki_grafana_docker_source": "present"},
        "Docker is missing",
        "docker compose version",
    ),
    "no-rights": ({"ansible_become": False}, "this role needs root on this host", "Remove ansible_become: false"),
}


def refused(play: Play, host: str, *words: str) -> None:
    """A play was refused on a host, with these words, and changed nothing."""
    text = " ".join(play.output.split())
    assert play.code != 0, play.output
    for word in (host, *words):
        assert word in text, f"{word!r} is not in:\n{play.output}"
    assert play.changed() == 0, play.output


def variables(cases: dict[str, tuple[dict, str, str]]) -> dict[str, dict]:
    """What is given in each case."""
    return {name: case[0] for name, case in cases.items()}


@contextmanager
def server(lab: Lab, host: Host, port: int) -> Iterator[None]:
    """A host has a web server on a port of its loopback address meanwhile."""
    lab.on(host, f"setsid python3 -m http.server {port} --bind 127.0.0.1 --directory /var/empty >/dev/null 2>&1 & true")
    lab.on(host, f"timeout 20 sh -c 'until ss -Hltn | grep -q :{port}; do sleep 0.1; done'")
    try:
        yield
    finally:
        lab.on(host, f"pkill -f '[h]ttp.server {port}'")


@pytest.fixture(scope="module")
def agents(lab: Lab, tmp_path_factory) -> Play:
    """One run with all bad settings of an agent; the agent runs on."""
    pid = lab.agent_pid(MINI)
    with server(lab, MINI, 9099):
        play = lab.play_cases(tmp_path_factory.mktemp("agents"), MINI, variables(AGENT))
    assert lab.agent_pid(MINI) == pid != "0"
    return play


@pytest.fixture(scope="module")
def stores(lab: Lab, tmp_path_factory) -> Play:
    """One run with all bad settings of the controller."""
    with server(lab, CONTROLLER, 3199):
        return lab.play_cases(tmp_path_factory.mktemp("stores"), CONTROLLER, variables(STORE), "docker_loki_grafana")


@pytest.mark.parametrize("case", AGENT)
def test_agent_is_refused_and_the_old_one_runs_on(agents: Play, case):
    agents.refused(case, *AGENT[case][1:])


@pytest.mark.parametrize("case", STORE)
def test_store_is_refused(stores: Play, case):
    stores.refused(case, *STORE[case][1:])


@pytest.mark.parametrize("group", ["minis", "controller"])
def test_missing_group_is_told(tmp_path: Path, group):
    groups = {name: {"hosts": {"somebody": {}}} for name in ("minis", "controller") if name != group}
    (tmp_path / "hosts.json").write_text(json.dumps({"all": {"children": groups}}))
    play = Play.of(["ansible-playbook", "-i", str(tmp_path / "hosts.json"), "site.yml"], ROOT)
    refused(play, f"The group {group} is missing or empty", "inventory/hosts.yml")


def test_controller_by_its_own_loopback_address(lab: Lab):
    play = lab.play("site.yml", smolcluster_address="127.0.0.1")
    refused(play, CONTROLLER.name, "which means the host itself on mini1, mini2, mini3", "smolcluster_address")


def test_somebody_else_at_lokis_address(lab: Lab):
    before = lab.agent_pid(MINI)
    with server(lab, MINI, 3198):
        words = ("--tags", "promtail", "--limit", MINI.name)
        play = lab.play("site.yml", *words, promtail_loki_url="http://127.0.0.1:3198")
    assert play.code != 0
    text = " ".join(play.output.split())
    assert "is not Loki: it answers 501" in text
    assert "Set promtail_loki_url" in text
    assert lab.agent_pid(MINI) == before
