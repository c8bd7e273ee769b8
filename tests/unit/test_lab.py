"""The lab: what nothing else uses, and what molecule's scenarios say again because they start their own containers."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest
import yaml

from lab import artifacts, hosts
from lab.config import HOSTS
from lab.demo.__main__ import OVERVIEW

ROOT = Path(__file__).resolve().parents[2]
PLATFORMS = yaml.safe_load((ROOT / ".config/molecule/config.yml").read_text())["platforms"]


def save(path: Path, *names: str) -> None:
    """Make a file as `docker save` does, with only the part that names the images."""
    data = json.dumps([{"RepoTags": list(names)}]).encode()
    with tarfile.open(path, "w") as tar:
        entry = tarfile.TarInfo("manifest.json")
        entry.size = len(data)
        tar.addfile(entry, io.BytesIO(data))


def test_image_in_the_artifacts_folder_is_found_by_its_repository(tmp_path, monkeypatch):
    monkeypatch.setattr(artifacts, "ARTIFACTS", tmp_path)
    (tmp_path / "images").mkdir()
    save(tmp_path / "images" / "one.tar", "docker.io/grafana/loki:3.7.8")
    save(tmp_path / "images" / "two.tar", "somebody/else:1", "grafana/grafana:13.2.3")
    assert artifacts.image_file("grafana/grafana") == (tmp_path / "images" / "two.tar", "grafana/grafana:13.2.3")
    assert artifacts.image_file("grafana/loki")[1] == "docker.io/grafana/loki:3.7.8"
    assert artifacts.image_file("grafana/tempo") is None


@pytest.mark.parametrize("platform", PLATFORMS, ids=lambda platform: platform["name"])
def test_containers_of_molecule_are_those_of_the_lab(platform):
    options = [
        *(f"--cap-add={name}" for name in platform["capabilities"]),
        *(f"--security-opt={name}" for name in platform["security_opts"]),
        f"--cgroupns={platform['cgroupns_mode']}",
        # A volume without a source is what lab/hosts.py makes for the controller's engine.
        *(f"--volume={volume}" for volume in platform["volumes"] if ":" in volume),
        *(f"--tmpfs={path}" for path in platform["tmpfs"]),
    ]
    assert options == hosts.CONTAINERS["mini"]


def test_molecule_has_the_suites_of_the_lab():
    images = {f"smolcluster-lab/mini:{host.suite}" for host in HOSTS}
    assert {platform["image"] for platform in PLATFORMS} == images


def test_engine_in_a_container_is_started_in_the_same_way():
    (play,) = yaml.safe_load((ROOT / "molecule/shared/prepare.yml").read_text())
    setting = play["tasks"][1]["ansible.builtin.copy"]["content"]
    assert repr(setting)[1:-1] in (ROOT / "lab/image/Dockerfile").read_text()


def test_demo_names_the_overview_of_the_role():
    path = ROOT / "roles/docker_loki_grafana/files/dashboards/training-overview.json"
    assert json.loads(path.read_text())["uid"] == OVERVIEW
