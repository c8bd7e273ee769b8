"""What stands against a deployment of Loki and Grafana."""

from __future__ import annotations

import pytest
from ansible_collections.smolcluster.logging.plugins.plugin_utils import controller

SETTINGS = {
    "project_dir": "/opt/smolcluster-logging",
    "docker_source": "distribution",
    "retention": "30d",
    "grafana_enabled": True,
    "grafana_listen_address": "127.0.0.1",
    "grafana_default_password": True,
    "ports": {"docker_loki_grafana_loki_port": 3100},
    "images": [{"name": "grafana/loki:3.7.8", "digest": "", "file": ""}],
}
HOST = {
    "system": "Linux",
    "distribution": "debian",
    "release": "13",
    "codename": "trixie",
    "managed": True,
    "docker": True,
    "engine": "26.1.5",
    "compose": "2.26.1-4",
    "taken": {},
    "foreign_folder": False,
    "uid": 0,
    "home": "/root",
    "environment": {},
}
MAC = {"system": "Darwin", "distribution": "", "release": "", "uid": 501, "home": "/Users/smol", "compose": "2.40.1"}


def problems(host: dict | None = None, **settings) -> list[str]:
    """Problems of the good settings and host above with some of them changed."""
    return controller.problems(SETTINGS | settings, HOST | (host or {}))


def test_good_settings_have_no_problem():
    assert problems() == []


def test_mac_needs_a_running_engine_its_own_account_and_a_folder_at_home():
    home = "/Users/smol/smolcluster-logging"
    assert problems(MAC, project_dir=home) == []
    assert "docker_loki_grafana_project_dir: /Users/smol/smolcluster-logging" in problems(MAC)[0]
    assert "Set ansible_become: false" in problems(MAC | {"uid": 0}, project_dir=home)[0]
    none = MAC | {"docker": False, "engine": "", "compose": ""}
    assert "brew install --cask docker-desktop" in problems(none, project_dir=home)[0]
    assert "colima start" in problems(MAC | {"engine": ""}, project_dir=home)[0]
    assert problems(MAC, project_dir="/Volumes/ssd/logging") == []
    colima = MAC | {"environment": {"DOCKER_HOST": "unix:///Users/smol/.colima/default/docker.sock"}}
    assert problems(colima, project_dir=home) == []
    assert "see folders below /Users/smol only" in problems(colima, project_dir="/Volumes/ssd/logging")[0]
    for compose in ("", "2.17.3"):
        assert "brew install docker-compose" in problems(MAC | {"compose": compose}, project_dir=home)[0]


@pytest.mark.parametrize(("text", "hours"), [("30d", 720), ("24h", 24), ("2w", 336), ("30", None), ("1.5d", None)])
def test_retention_in_hours(text, hours):
    assert controller.retention_hours(text) == hours


@pytest.mark.parametrize("retention", ["23h", "0d", "30", "a month", ""])
def test_short_or_unreadable_retention_is_told(retention):
    assert "24 hours at least" in problems(retention=retention)[0]


@pytest.mark.parametrize("address", ["0.0.0.0", "192.0.2.10", "::", "controller"])  # noqa: S104
def test_known_password_is_for_loopback_only(address):
    assert "password that everybody knows" in problems(grafana_listen_address=address)[0]
    assert problems(grafana_listen_address=address, grafana_default_password=False) == []
    assert problems(grafana_listen_address=address, grafana_enabled=False) == []


@pytest.mark.parametrize("address", ["127.0.0.1", "127.8.8.8", "::1", "[::1]", "localhost"])
def test_known_password_may_stay_on_loopback(address):
    assert problems(grafana_listen_address=address) == []


@pytest.mark.parametrize(
    ("host", "source", "words"),
    [
        (
            {"docker": False, "compose": ""},
            "present",
            "Docker is missing and docker_loki_grafana_docker_source is present",
        ),
        ({"compose": ""}, "present", "Docker is there without its compose plugin"),
        ({"docker": False, "compose": "", "release": "12"}, "distribution", "debian 12 has no package"),
        (
            {"docker": False, "compose": "", "distribution": "fedora", "release": "42"},
            "docker",
            "cannot install it on fedora",
        ),
        ({"compose": "2.17.3"}, "distribution", "2.18 or newer is needed"),
        ({"engine": "", "managed": False}, "distribution", "does not answer"),
    ],
)
def test_docker_that_is_not_to_be_had_is_told(host, source, words):
    assert words in problems(host, docker_source=source)[0]


@pytest.mark.parametrize(
    "host",
    [
        {"docker": False, "compose": ""},
        {"docker": False, "compose": "", "distribution": "ubuntu", "release": "22.04"},
        {"compose": "5.0.1"},
        {"engine": ""},
    ],
)
def test_docker_that_is_there_or_to_be_had(host):
    assert problems(host) == []


def test_taken_port_names_its_holder_and_the_variable():
    found = problems({"taken": {"3100": {"pid": 5, "command": "nginx"}}})
    assert "port 3100 is taken by nginx (pid 5)" in found[0]
    assert "docker_loki_grafana_loki_port" in found[0]


def test_image_file_must_exist_and_excludes_a_digest(tmp_path):
    image = {"name": "grafana/loki:3.7.8", "digest": "", "file": str(tmp_path / "loki.tar")}
    assert "there is no image file" in problems(images=[image])[0]
    (tmp_path / "loki.tar").touch()
    assert problems(images=[image]) == []
    assert "digest is for images that are pulled" in problems(images=[image | {"digest": "sha256:1"}])[0]


def test_folder_of_somebody_else_is_told():
    assert "holds something that is not ours" in problems({"foreign_folder": True})[0]


def test_other_systems_are_told():
    assert "supports Linux and macOS, not FreeBSD" in problems({"system": "FreeBSD"})[0]
