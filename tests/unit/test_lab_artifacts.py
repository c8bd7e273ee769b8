"""The artifact builder: release-shaped archives, and images recognised by their content."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile

import pytest

from lab import artifacts
from lab.shell import LabError, run, wait_for


def save(path, *names: str) -> None:
    """Make a file as `docker save` does, with the part that names the images only."""
    data = json.dumps([{"RepoTags": list(names)}]).encode()
    with tarfile.open(path, "w") as tar:
        entry = tarfile.TarInfo("manifest.json")
        entry.size = len(data)
        tar.addfile(entry, io.BytesIO(data))


def test_archive_has_one_executable_named_like_it(tmp_path):
    (tmp_path / "program").write_bytes(b"dummy")
    artifacts.archive(tmp_path / "program", tmp_path / "promtail-linux-arm64.zip")
    with zipfile.ZipFile(tmp_path / "promtail-linux-arm64.zip") as packed:
        (entry,) = packed.infolist()
    assert entry.filename == "promtail-linux-arm64"
    assert entry.external_attr >> 16 & 0o777 == 0o755


def test_sums_are_in_the_releases_own_form(tmp_path):
    (tmp_path / "a.zip").write_bytes(b"a")
    artifacts.write_sums(tmp_path)
    name = "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"
    assert (tmp_path / "SHA256SUMS").read_text() == f"{name}  a.zip\n"


def test_image_is_found_by_its_repository(tmp_path, monkeypatch):
    monkeypatch.setattr(artifacts, "ARTIFACTS", tmp_path)
    (tmp_path / "images").mkdir()
    save(tmp_path / "images" / "one.tar", "docker.io/grafana/loki:3.7.8")
    save(tmp_path / "images" / "two.tar", "somebody/else:1", "grafana/grafana:13.2.3")
    assert artifacts.image_file("grafana/grafana") == (tmp_path / "images" / "two.tar", "grafana/grafana:13.2.3")
    assert artifacts.image_file("grafana/loki")[1] == "docker.io/grafana/loki:3.7.8"
    assert artifacts.image_file("grafana/tempo") is None


def test_failing_program_is_told_with_its_last_words():
    with pytest.raises(LabError, match="sorry"):
        run(["sh", "-c", "echo sorry >&2; exit 3"])
    with pytest.raises(LabError, match="is not installed"):
        run(["no-such-program"])


def test_waiting_ends():
    with pytest.raises(LabError, match="never: not within 0 s"):
        wait_for(lambda: False, "never", timeout=0, pause=0)
