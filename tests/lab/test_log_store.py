"""Loki on the controller: what its port allows, where it listens, who starts it, which engine runs it."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from lab.shell import wait_for
from tests.lab.harness import CONTROLLER, MINIS, Lab
from tests.lab.test_refusals import refused

ONE = ("--tags", "docker_loki_grafana")
LATE = "10.99.0.1"
UNIT = "smolcluster-logging.service"
STATE = "docker inspect smolcluster-logging-loki-1 --format '{{.State.Status}}'"

# Docker's own unit under another name: the smallest stand-in of an engine that is not docker.service.
OTHER_ENGINE = """
    systemctl stop docker.service docker.socket
    systemctl mask docker.service docker.socket
    sed 's/^Requires=.*//; s#-H fd://#-H unix:///run/docker.sock#; s/ docker.socket//' \
        /usr/lib/systemd/system/docker.service > /etc/systemd/system/engine.service
    cp -r /etc/systemd/system/docker.service.d /etc/systemd/system/engine.service.d
    systemctl enable --now engine.service
"""
USUAL_ENGINE = """
    systemctl disable --now engine.service
    rm -r /etc/systemd/system/engine.service /etc/systemd/system/engine.service.*
    systemctl unmask docker.service docker.socket
    systemctl enable --now docker.socket docker.service
"""

# What a registry answers for one image, out of the OCI layout that `docker save` makes. Stands in for a real one.
REGISTRY = """
import http.server, json, pathlib, sys
layout = pathlib.Path(sys.argv[1])
class Registry(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        name = self.path.rpartition("/")[2].removeprefix("sha256:")
        file = layout / "blobs/sha256" / name
        body = file.read_bytes() if file.is_file() else b"{}"
        self.send_response(200 if file.is_file() or self.path == "/v2/" else 404)
        if "/manifests/" in self.path and file.is_file():
            self.send_header("Content-Type", json.loads(body)["mediaType"])
            self.send_header("Docker-Content-Digest", "sha256:" + name)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)
    do_HEAD = do_GET
    def log_message(self, *_):
        pass
http.server.ThreadingHTTPServer(("127.0.0.1", 5000), Registry).serve_forever()
"""


@pytest.fixture(scope="module")
def changed(lab: Lab) -> Iterator[Lab]:
    """The lab for tests that change the controller; each deploys what it needs, the last is followed by a clean-up."""
    yield lab
    lab.deploy(*ONE)
    assert lab.deploy(*ONE).changed() == 0


def test_lines_cannot_be_deleted_from_a_node(lab: Lab):
    url = 'http://controller:3100/loki/api/v1/delete?query={job="smolcluster-worker"}&start=1700000000'
    for method in ("POST", "PUT", "GET", "DELETE"):
        answer = lab.on(MINIS[0], f"curl -s -g -w ' %{{http_code}}' -X {method} '{url}'")
        assert answer.split() == ["deletion", "is", "not", "available", "for", "this", "tenant", "403"]
    assert "retention_enabled: true" in lab.on(MINIS[0], "curl -s http://controller:3100/config")


@pytest.mark.parametrize(
    ("address", "listens"), [("::", ["0.0.0.0:3100", "[::]:3100"]), ("localhost", ["127.0.0.1:3100"])]
)
def test_addresses_that_docker_would_take_for_others(changed: Lab, address, listens):
    changed.deploy(*ONE, docker_loki_grafana_loki_listen_address=address)
    assert changed.on(CONTROLLER, "ss -Hltn | awk '/:3100 /{print $4}' | sort").split() == listens
    assert changed.deploy(*ONE, docker_loki_grafana_loki_listen_address=address).changed() == 0


def test_loki_comes_back_when_its_address_comes_up_after_docker(changed: Lab):
    up = f"ip link add late type bridge && ip address add {LATE}/32 dev late && ip link set late up"
    changed.on(CONTROLLER, up)
    try:
        changed.deploy(*ONE, docker_loki_grafana_loki_listen_address=LATE)
        # As at a boot: Docker comes up before the address.
        changed.on(CONTROLLER, "systemctl stop docker.service docker.socket; ip link del late; systemctl start docker")
        assert changed.on(CONTROLLER, STATE) == "exited"
        tries = f"systemctl show {UNIT} --property=ActiveState --value"
        wait_for(lambda: changed.on(CONTROLLER, tries) == "activating", "the unit tries again", 30)
        changed.on(CONTROLLER, up)
        ready = f"curl -s http://{LATE}:3100/ready"
        wait_for(lambda: changed.on(CONTROLLER, ready, check=False) == "ready", "Loki is back", 60)
        # What was stopped on purpose stays so.
        changed.on(CONTROLLER, "docker compose --project-name smolcluster-logging stop; systemctl restart docker")
        wait_for(
            lambda: changed.on(CONTROLLER, f"systemctl is-active {UNIT}", check=False) == "inactive",
            "the unit ends",
            30,
        )
        assert changed.on(CONTROLLER, STATE) == "exited"
    finally:
        changed.on(CONTROLLER, "ip link del late", check=False)


def test_engine_of_another_unit_is_used_and_docker_service_left_alone(changed: Lab):
    changed.on(CONTROLLER, OTHER_ENGINE)
    try:
        changed.deploy(*ONE)
        assert changed.deploy(*ONE).changed() == 0
        assert changed.on(
            CONTROLLER, "systemctl is-active docker; systemctl is-enabled docker", check=False
        ).split() == [
            "inactive",
            "masked",
        ]
        assert changed.on(CONTROLLER, "ls /etc/systemd/system/engine.service.wants") == UNIT
        changed.on(CONTROLLER, "systemctl stop engine")
        play = changed.play("site.yml", *ONE)
        refused(play, CONTROLLER.name, "its unit docker.service is masked", "`docker info` must succeed")
    finally:
        changed.on(CONTROLLER, USUAL_ENGINE)


def test_podman_under_the_name_of_docker(lab: Lab):
    # The first words of podman-docker, a stand-in.
    script = '#!/bin/sh\nif [ "$1" = --version ]; then echo podman version 5.4.2; else exit 125; fi\n'
    lab.on(CONTROLLER, "cat > /usr/local/bin/docker; chmod 0755 /usr/local/bin/docker", data=script)
    try:
        refused(lab.play("site.yml", *ONE), CONTROLLER.name, "runs Podman", "Install Docker with its compose plugin")
    finally:
        lab.on(CONTROLLER, "rm /usr/local/bin/docker")


def test_unit_of_somebody_else_stays(changed: Lab):
    unit = f"/etc/systemd/system/{UNIT}"
    changed.on(CONTROLLER, f"printf '[Service]\\nExecStart=/bin/true\\n' > {unit}")
    try:
        play = changed.play("site.yml", *ONE)
        refused(play, CONTROLLER.name, f"{unit} exists and was not created by this collection", "Move it away")
    finally:
        changed.on(CONTROLLER, f"rm {unit}")


def test_image_by_its_digest(changed: Lab, artifacts):
    folder, registry = "/root/registry", "/root/registry.py"
    image = artifacts["docker_loki_grafana_loki_image"]
    changed.on(CONTROLLER, f"mkdir {folder} && docker save {image} | tar -x -C {folder}")
    changed.on(CONTROLLER, f"cat > {registry}", data=REGISTRY)
    changed.on(CONTROLLER, f"setsid python3 {registry} {folder} >/dev/null 2>&1 & echo $! > /root/registry.pid")
    index = json.loads(changed.on(CONTROLLER, f"cat {folder}/index.json"))
    variables = {
        "docker_loki_grafana_loki_image": "127.0.0.1:5000/loki:1.0",
        "docker_loki_grafana_loki_digest": index["manifests"][0]["digest"],
        "docker_loki_grafana_loki_image_file": "",
    }
    try:
        changed.on(CONTROLLER, "until curl -s http://127.0.0.1:5000/v2/; do :; done")
        changed.deploy(*ONE, **variables)
        assert changed.deploy(*ONE, **variables).changed() == 0
        used = changed.on(CONTROLLER, "docker inspect smolcluster-logging-loki-1 --format '{{.Config.Image}}'")
        assert used == f"127.0.0.1:5000/loki:1.0@{variables['docker_loki_grafana_loki_digest']}"
        other = variables | {"docker_loki_grafana_loki_digest": "sha256:" + "0" * 64}
        assert "cannot be pulled" in changed.play("site.yml", *ONE, **other).output
    finally:
        changed.on(CONTROLLER, f"kill $(cat /root/registry.pid); rm -r {folder} {registry} /root/registry.pid")
