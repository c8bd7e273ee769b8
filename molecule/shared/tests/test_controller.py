"""What a user may rely on once the role docker_loki_grafana has run."""

import json

import pytest

testinfra_hosts = ["controller"]
PROJECT = "/opt/smolcluster-logging"


def test_engine_runs_now_and_after_a_reboot(host):
    engine = host.service("docker")
    assert engine.is_running, host.run("journalctl -u docker -n 30").stdout
    assert engine.is_enabled


def test_loki_answers(host):
    assert host.run("curl -fsS http://127.0.0.1:3100/ready").stdout.strip() == "ready"


def test_loki_starts_again_and_keeps_its_data_and_its_logs_small(host):
    (loki,) = json.loads(host.check_output("docker inspect smolcluster-logging-loki-1"))
    assert loki["HostConfig"]["RestartPolicy"]["Name"] == "unless-stopped"
    assert loki["HostConfig"]["LogConfig"]["Config"]["max-size"] == "10m"
    assert loki["HostConfig"]["ReadonlyRootfs"]
    assert [mount["Name"] for mount in loki["Mounts"] if mount["Type"] == "volume"] == ["smolcluster-logging_loki-data"]
    assert loki["Config"]["User"] == "10001:10001"


@pytest.mark.parametrize("name", ["loki/loki.yml", "compose.yml"])
def test_configuration_belongs_to_root(host, name):
    file = host.file(f"{PROJECT}/{name}")
    assert file.user == "root"
    assert not file.mode & 0o022


def test_password_of_grafana_is_not_readable(host):
    assert host.file(f"{PROJECT}/grafana/secrets").mode == 0o500
