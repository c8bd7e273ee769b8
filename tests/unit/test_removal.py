"""A removal takes what a deployment has made, and leaves everything else."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from ansible_collections.smolcluster.logging.plugins.module_utils import host, ownership, removal
from ansible_collections.smolcluster.logging.plugins.module_utils.errors import DeploymentError
from ansible_collections.smolcluster.logging.plugins.module_utils.layout import PROGRAM_FILES, STATE_FILES, layout_of


@pytest.fixture
def node(tmp_path, monkeypatch):
    """A node below a folder, with an agent on it as a deployment leaves it."""
    fields = dataclasses.asdict(layout_of("promtail", "Darwin")) | {
        "boot_file": "/etc/tmpfiles.d/smolcluster-promtail.conf"
    }
    moved = {
        key: f"{tmp_path}{value}" if isinstance(value, str) and value.startswith("/") else value
        for key, value in fields.items()
    }
    layout = dataclasses.replace(
        layout_of("promtail", "Darwin"),
        **(moved | {"folders": tuple(f"{tmp_path}{path}" for path in fields["folders"])}),
    )
    made = [
        *(f"{layout.home}/{name}" for name in (*PROGRAM_FILES, ".lock", ownership.MARKER, "promtail-linux-amd64.zip")),
        f"{layout.home}/3.6.11/promtail",
        f"{layout.home}/3.6.11/manifest.json",
        f"{layout.home}/.3.6.11.abcd/promtail",
        f"{layout.home}/.watcher.py.x1",
        layout.config_file,
        layout.watcher_settings,
        *(
            f"{layout.data}/{name}"
            for name in (*STATE_FILES, "watcher.pid", "positions.yaml", "health.log", "health.log.1")
        ),
        f"{layout.data}/files/train/worker.log",
        layout.log_file,
        f"{layout.log_file}.0.gz",
        layout.boot_file,
        layout.log_settings,
    ]
    for name in made:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    (Path(layout.home) / "current").symlink_to("3.6.11")
    unit = Path(layout.unit_file)
    unit.parent.mkdir(parents=True)
    unit.write_text(f"# {ownership.MARK}\n")
    removed = []

    class Service:
        def __init__(self, *_):
            pass

        def remove(self, file):
            removed.append(str(file))
            file.unlink()

        def state(self):
            return SimpleNamespace(definition="")

    monkeypatch.setattr(host, "Service", Service)
    monkeypatch.setattr(removal, "layout_of", lambda *_: layout)

    def remove(check: bool = False) -> dict:
        module = SimpleNamespace(params={"agent": "promtail"}, check_mode=check, run_command=None)
        return removal.Removal(module).apply()

    return SimpleNamespace(layout=layout, remove=remove, unit=unit, removed=removed, root=tmp_path)


def files(folder: Path) -> list[str]:
    """Everything below a folder but folders."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_symlink() or path.is_file())


def test_everything_of_ours_goes_and_a_second_run_changes_nothing(node):
    before = files(node.root)
    assert node.remove(check=True)["changed"]
    assert files(node.root) == before
    result = node.remove()
    assert result["changed"]
    assert files(node.root) == []
    assert not Path(node.layout.home).exists()
    assert not Path(node.layout.data).exists()
    assert node.remove()["changes"] == []


def test_what_is_not_ours_stays(node):
    kept = [
        f"{node.layout.home}/2.0/mine",
        f"{Path(node.layout.config_file).parent}/mine.yml",
        f"{node.layout.data}/mine",
    ]
    for name in kept:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(json.dumps({}))
    node.remove()
    assert files(node.root) == sorted(str(Path(name).relative_to(node.root)) for name in kept)


def test_interrupted_removal_is_completed(node, monkeypatch):
    unlink = Path.unlink

    def interrupted(path, *arguments, **more):
        if path.name == "watcher.json":
            raise OSError("interrupted")
        unlink(path, *arguments, **more)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", interrupted)
        with pytest.raises(OSError, match="interrupted"):
            node.remove()
    node.remove()
    assert files(node.root) == []


def test_service_of_somebody_else_is_refused_and_nothing_changes(node):
    node.unit.write_text("[Service]\n")
    before = files(node.root)
    with pytest.raises(DeploymentError, match="was changed or replaced by somebody else"):
        node.remove()
    assert files(node.root) == before
    (Path(node.layout.home) / ownership.MARKER).unlink()
    node.remove()
    assert node.removed == []
    assert node.unit.exists()
