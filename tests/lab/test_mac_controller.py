"""Loki and Grafana on a simulated Mac. Its engine is a real one, where Colima has its own; the rest as in test_mac.py.

Colima's virtual machine, and how it shares files, are not played: containers see the files as they are.
"""

from __future__ import annotations

import json
import plistlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from lab import artifacts, hosts, images
from lab.config import ADDRESS, STATE, USER, VARIABLES, Host
from lab.shell import wait_for
from tests.lab.harness import ROOT, Lab, Play
from tests.lab.test_refusals import refused

MAC = Host("mac2", "mac-controller", "trixie", "America/Los_Angeles", 42225)
PROJECT = "/Users/smol/smolcluster-logging"
SOCKET = "/Users/smol/.colima/default/docker.sock"
ENGINE = {
    "Label": "stand-in.colima",
    "ProgramArguments": ["/usr/sbin/dockerd", f"--host=unix://{SOCKET}", "--group=staff"],
    "EnvironmentVariables": {"DOCKER_ALLOW_IPV6_ON_IPV4_INTERFACE": "1"},
    "KeepAlive": True,
}


class Controller:
    """The Mac as the controller of an inventory of its own.

    Parameters:
        folder: where the inventory is written.
    """

    def __init__(self, folder: Path) -> None:
        self.inventory = folder / "hosts.json"
        known = folder / "known_hosts"
        known.write_text(hosts.prepare(MAC, (STATE / "id_ed25519.pub").read_text()) + "\n")
        self.variables = (
            yaml.safe_load(VARIABLES.read_text())
            | artifacts.mac()
            | {
                "ansible_host": ADDRESS,
                "ansible_port": MAC.ssh_port,
                "ansible_user": USER,
                "ansible_ssh_private_key_file": str(STATE / "id_ed25519"),
                "ansible_ssh_common_args": f"-o UserKnownHostsFile={known} -o IdentitiesOnly=yes",
                "ansible_become": False,
                "docker_loki_grafana_project_dir": PROJECT,
                "smolcluster_address": "mac2",
            }
        )

    def play(self, playbook: str, *words: str, **variables) -> Play:
        """Run a playbook for the controller alone."""
        groups = {"controller": {"hosts": {"mac2": self.variables | variables}}, "minis": {"hosts": {"mac2": {}}}}
        self.inventory.write_text(json.dumps({"all": {"children": groups}}))
        command = ["ansible-playbook", "-i", str(self.inventory), playbook, "--tags", "docker_loki_grafana", *words]
        return Play.of(command, ROOT)

    @staticmethod
    def sh(script: str, check: bool = True) -> str:
        """Run a shell script as root on the Mac; returns what it printed."""
        return Lab.on(MAC, script, check=check)


@pytest.fixture(scope="module")
def mac(lab: Lab, tmp_path_factory) -> Iterator[Controller]:  # noqa: ARG001
    """A Mac with Docker's client, on which no engine runs yet."""
    images.of_host(MAC.role, MAC.suite)
    hosts.start(MAC)
    yield Controller(tmp_path_factory.mktemp("mac2"))
    hosts.remove(MAC)


@pytest.fixture(scope="module")
def engine(mac: Controller) -> Controller:
    """The same with a running engine."""
    mac.sh("install -d -o smol -g staff /Users/smol/.colima /Users/smol/.colima/default")
    job = "/Library/LaunchDaemons/stand-in.colima.plist"
    Lab.on(MAC, f"cat > {job}", data=plistlib.dumps(ENGINE).decode())
    mac.sh(f"launchctl bootstrap system {job}")
    wait_for(
        lambda: "Server Version" in mac.sh(f"docker -H unix://{SOCKET} info", check=False), "the engine answers", 60
    )
    return mac


def test_missing_engine_wrong_account_and_wrong_folder_are_told(mac: Controller):
    refused(mac.play("site.yml"), "mac2", "Docker does not answer on this Mac", "colima start")
    refused(mac.play("site.yml", ansible_become=True), "mac2", "not to root", "ansible_become: false")
    play = mac.play("site.yml", docker_loki_grafana_project_dir="/opt/smolcluster-logging")
    refused(play, "mac2", f"docker_loki_grafana_project_dir: {PROJECT}")


def test_images_are_pulled_without_the_keychain(engine: Controller):
    """It is locked in an SSH session. No registry answers here, so what is seen is who is asked for a password."""
    engine.sh("""
        install -d -o smol -g staff /Users/smol/.docker
        echo '{"credsStore": "desktop"}' > /Users/smol/.docker/config.json
        printf '#!/bin/sh\\ntouch /private/tmp/asked; exit 1\\n' > /opt/homebrew/bin/docker-credential-desktop
        chmod a+rx /opt/homebrew/bin/docker-credential-desktop
    """)
    image = "registry.invalid/loki:1.0"
    environment = f"HOME=/Users/smol PATH=/opt/homebrew/bin:$PATH DOCKER_HOST=unix://{SOCKET}"
    engine.sh(f"sudo -u smol env {environment} docker pull {image}", check=False)
    engine.sh("rm /private/tmp/asked")
    play = engine.play("site.yml", docker_loki_grafana_loki_image=image, docker_loki_grafana_loki_image_file="")
    words = " ".join(play.output.split())
    assert play.code != 0
    assert f"mac2: {image} cannot be pulled: " in words
    assert "Check that this host can reach the registry of the image" in words
    assert engine.sh("ls /private/tmp") == ""
    engine.sh("rm -r /opt/homebrew/bin/docker-credential-desktop /Users/smol/.docker")


def test_deployment_second_run_and_removal(engine: Controller):
    play = engine.play("site.yml", "--check", "--diff")
    assert play.code == 0, play.output
    assert engine.sh(f"ls {PROJECT}", check=False) == ""
    play = engine.play("site.yml")
    assert play.code == 0, play.output
    assert play.changed() > 0
    assert engine.sh("curl -s http://127.0.0.1:3100/ready") == "ready"
    assert engine.sh(f"stat -c '%U %a' {PROJECT}") == "smol 700"
    assert engine.sh(f"find {PROJECT} ! -user smol") == ""
    assert engine.sh(f"su smol -c '{PROJECT}/bin/cluster-logs status'", check=False).startswith("Loki ")
    play = engine.play("site.yml")
    assert play.code == 0, play.output
    assert play.changed() == 0
    play = engine.play("playbooks/uninstall.yml")
    assert play.code == 0, play.output
    assert engine.sh(f"ls -d {PROJECT}; docker -H unix://{SOCKET} ps --all --quiet", check=False) == ""
