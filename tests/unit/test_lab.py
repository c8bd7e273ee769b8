"""The lab's only promise that no other test uses: an image that somebody puts into the artifacts folder is deployed."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

from lab import artifacts


def save(path: Path, *names: str) -> None:
    """Make a file as `docker save` does, with only the part that names the images."""
    data = json.dumps([{"RepoTags": list(names)}]).encode()
    with tarfile.open(path, "w") as tar:
        entry = tarfile.TarInfo("manifest.json")
        entry.size = len(data)
        tar.addfile(entry, io.BytesIO(data))


def test_image_is_found_by_its_repository(tmp_path, monkeypatch):
    monkeypatch.setattr(artifacts, "ARTIFACTS", tmp_path)
    (tmp_path / "images").mkdir()
    save(tmp_path / "images" / "one.tar", "docker.io/grafana/loki:3.7.8")
    save(tmp_path / "images" / "two.tar", "somebody/else:1", "grafana/grafana:13.2.3")
    assert artifacts.image_file("grafana/grafana") == (tmp_path / "images" / "two.tar", "grafana/grafana:13.2.3")
    assert artifacts.image_file("grafana/loki")[1] == "docker.io/grafana/loki:3.7.8"
    assert artifacts.image_file("grafana/tempo") is None
