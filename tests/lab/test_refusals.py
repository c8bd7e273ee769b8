"""Bad input: refused with host, cause and way out, before anything is changed; the agent runs on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lab.config import ADDRESS, STATE, USER
from tests.lab.harness import CONTROLLER, MINIS, ROOT, Lab, Play

MINI = MINIS[0]
SOURCE = {"name": "train", "paths": ["/srv/train.log"], "labels": {"job": "train"}}

# What is given, and what the message has to name: the cause, and a word of the way out.
AGENT = {
    "no Loki address": ({"promtail_loki_url": ""}, "no usable Loki address", "smolcluster_address"),
    "no sources": ({"smolcluster_log_sources": []}, "smolcluster_log_sources is empty", "Add at least one"),
    "unknown format": ({"promtail_sources": [SOURCE | {"format": "glog"}]}, "unknown format glog", "presets are"),
    "unknown stage": (
        {"promtail_sources": [SOURCE | {"format": [{"regexp": {"expression": "x"}}]}]},
        "unknown stage",
        "Promtail has",
    ),
    "bad regex": (
        {"promtail_sources": [SOURCE | {"format": [{"regex": {"expression": "(unclosed"}}]}]},
        "Promtail refuses the source train",
        "missing closing )",
    ),
    "bad zone": ({"promtail_timezone": "Mars/Phobos"}, "unknown time zone 'Mars/Phobos'", "such as Asia/Kolkata"),
    "no such release": (
        {"promtail_version": "3.7.3", "promtail_base_url": "https://github.com/grafana/loki/releases/download"},
        "3.6.11 is the last release",
        "promtail_base_url",
    ),
    "wrong checksum": (
        {"promtail_checksums": {"linux-amd64": "0" * 64, "linux-arm64": "0" * 64}},
        "cannot be downloaded",
        "promtail_checksums",
    ),
    "unreachable download": (
        {"promtail_version": "3.6.10", "promtail_base_url": "http://127.0.0.1:9/releases"},
        "cannot be downloaded from http://127.0.0.1:9/releases",
        "promtail_base_url",
    ),
}
STORE = {
    "retention under a day": ({"docker_loki_grafana_retention": "23h"}, "the minimum is 24 hours", "30d"),
    "retention without a unit": ({"docker_loki_grafana_retention": "thirty"}, "'thirty'", "30d"),
    "default password on the network": (
        {
            "docker_loki_grafana_grafana_enabled": True,
            "docker_loki_grafana_grafana_listen_address": "192.0.2.10",
            "docker_loki_grafana_grafana_admin_password": "admin",
        },
        "with the default password",
        "grafana_admin_password",
    ),
    "password with a line feed": (
        {"docker_loki_grafana_grafana_admin_password": "secret\n"},
        "grafana_admin_password has a line feed",
        "without it",
    ),
    "contact without a URL": (
        {
            "docker_loki_grafana_grafana_enabled": True,
            "docker_loki_grafana_alert_contact_type": "webhook",
            "docker_loki_grafana_alert_contact_address": "192.0.2.7",
        },
        "docker_loki_grafana_alert_contact_address is not a URL",
        "http://",
    ),
    "unknown type of contact": (
        {"docker_loki_grafana_alert_contact_type": "pager"},
        "docker_loki_grafana_alert_contact_type",
        "webhook",
    ),
    "threshold that is no number": (
        {"docker_loki_grafana_alert_silence": "long"},
        "docker_loki_grafana_alert_silence",
        "int",
    ),
    "image file missing": (
        {"docker_loki_grafana_loki_image_file": "/nowhere/loki.tar"},
        "no image file /nowhere/loki.tar",
        "control node",
    ),
    "host name to listen on": (
        {"docker_loki_grafana_loki_listen_address": "controller"},
        "docker_loki_grafana_loki_listen_address is 'controller': that is not an IP address",
        "or one address of this host",
    ),
    "address of another host": (
        {"docker_loki_grafana_loki_listen_address": "192.0.2.10"},
        "docker_loki_grafana_loki_listen_address is '192.0.2.10', an address that this host does not have now",
        "0.0.0.0",  # noqa: S104
    ),
    "IPv6 address of another host": (
        {"docker_loki_grafana_loki_listen_address": "[2001:db8::9]"},
        "'[2001:db8::9]', an address that this host does not have now",
        "0.0.0.0",  # noqa: S104
    ),
    "port that is no number": (
        {"docker_loki_grafana_loki_port": "http"},
        "docker_loki_grafana_loki_port",
        "cannot be converted to an int",
    ),
    "port out of range": (
        {"docker_loki_grafana_loki_port": "70000"},
        "docker_loki_grafana_loki_port is '70000'",
        "a whole number from 1 to 65535",
    ),
    "one port for both": (
        {
            "docker_loki_grafana_grafana_enabled": True,
            "docker_loki_grafana_grafana_port": "3100",
        },
        "docker_loki_grafana_loki_port and docker_loki_grafana_grafana_port are both 3100",
        "Give each its own port",
    ),
    "no rights": ({"ansible_become": False}, "this role needs root on this host", "Remove ansible_become: false"),
}


def refused(play: Play, host: str, *words: str) -> None:
    """A play was refused on a host, with these words, and changed nothing."""
    text = " ".join(play.output.split())
    assert play.code != 0, play.output
    for word in (host, *words):
        assert word in text, f"{word!r} is not in:\n{play.output}"
    assert play.changed() == 0, play.output


@pytest.mark.parametrize(("variables", "cause", "way"), AGENT.values(), ids=AGENT)
def test_agent_is_refused_and_the_old_one_runs_on(lab: Lab, variables, cause, way):
    pid = lab.agent_pid(MINI)
    refused(lab.play("site.yml", "--tags", "promtail", "--limit", MINI.name, **variables), MINI.name, cause, way)
    assert lab.agent_pid(MINI) == pid != "0"


@pytest.mark.parametrize(("variables", "cause", "way"), STORE.values(), ids=STORE)
def test_store_is_refused(lab: Lab, variables, cause, way):
    refused(lab.play("site.yml", **variables), CONTROLLER.name, cause, way)


@pytest.mark.parametrize("group", ["minis", "controller"])
def test_missing_group_is_told(tmp_path: Path, group):
    groups = {name: {"hosts": {"somebody": {}}} for name in ("minis", "controller") if name != group}
    (tmp_path / "hosts.json").write_text(json.dumps({"all": {"children": groups}}))
    play = Play.of(["ansible-playbook", "-i", str(tmp_path / "hosts.json"), "site.yml"], ROOT)
    refused(play, f"The group {group} is missing or empty", "inventory/hosts.yml")


def test_port_of_the_agent_is_taken(lab: Lab):
    lab.on(MINI, "setsid python3 -m http.server 9099 --bind 127.0.0.1 >/dev/null 2>&1 & true")
    lab.on(MINI, "until ss -Hltn | grep -q :9099; do :; done")
    try:
        play = lab.play("site.yml", "--tags", "promtail", "--limit", MINI.name, promtail_http_port=9099)
        refused(play, MINI.name, "port 9099 is taken by python3 -m http.server", "promtail_http_port")
    finally:
        lab.on(MINI, "pkill -f '[h]ttp.server 9099'")


@pytest.mark.parametrize("port", ["docker_loki_grafana_loki_port", "docker_loki_grafana_grafana_port"])
def test_port_on_the_controller_is_taken(lab: Lab, port):
    lab.on(CONTROLLER, "setsid python3 -m http.server 3199 >/dev/null 2>&1 & true")
    lab.on(CONTROLLER, "until ss -Hltn | grep -q :3199; do :; done")
    try:
        play = lab.play("site.yml", **{"docker_loki_grafana_grafana_enabled": True, port: 3199})
        refused(play, CONTROLLER.name, "port 3199 is taken by python3", port)
    finally:
        lab.on(CONTROLLER, "pkill -f '[h]ttp.server 3199'")


@pytest.mark.usefixtures("lab")
def test_docker_missing_with_installation_off(tmp_path: Path):
    # A mini has no Docker; as the controller it is refused.
    bare = {
        "ansible_host": ADDRESS,
        "ansible_port": MINI.ssh_port,
        "ansible_user": USER,
        "ansible_ssh_private_key_file": str(STATE / "id_ed25519"),
        "ansible_ssh_common_args": f"-o UserKnownHostsFile={STATE / 'known_hosts'}",
    }
    groups = {"controller": {"hosts": {"bare": bare}}, "minis": {"hosts": {"bare": {}}}}
    (tmp_path / "hosts.json").write_text(json.dumps({"all": {"children": groups}}))
    command = ["ansible-playbook", "-i", str(tmp_path / "hosts.json"), "site.yml"]
    command += ["--tags", "docker_loki_grafana", "--extra-vars", "docker_loki_grafana_docker_source=present"]
    refused(Play.of(command, ROOT), "bare", "Docker is missing", "docker compose version")


def test_controller_by_its_own_loopback_address(lab: Lab):
    play = lab.play("site.yml", smolcluster_address="127.0.0.1")
    refused(play, CONTROLLER.name, "which means the host itself on mini1, mini2, mini3", "smolcluster_address")


def test_somebody_else_at_lokis_address(lab: Lab):
    lab.on(MINI, "setsid python3 -m http.server 3198 --bind 127.0.0.1 --directory /var/empty >/dev/null 2>&1 & true")
    lab.on(MINI, "until ss -Hltn | grep -q :3198; do :; done")
    before = lab.agent_pid(MINI)
    try:
        play = lab.play(
            "site.yml", "--tags", "promtail", "--limit", MINI.name, promtail_loki_url="http://127.0.0.1:3198"
        )
        assert play.code != 0
        text = " ".join(play.output.split())
        assert "is not Loki: it answers 501" in text
        assert "Set promtail_loki_url" in text
        assert lab.agent_pid(MINI) == before
    finally:
        lab.on(MINI, "pkill -f '[h]ttp.server 3198'")
