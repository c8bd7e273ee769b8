"""A folder of generated files: written, cleaned, and what somebody edited is kept."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.smolcluster.logging.plugins.module_utils import generated_folder

FILES = {"a.json": "1\n", "b.yml": "2\n"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder as an earlier run left it."""
    path = tmp_path / "dashboards"
    path.mkdir()
    fill(path, FILES)
    return path


def fill(folder: Path, files: dict[str, str]) -> generated_folder.Plan:
    """Do what is to be done; returns what that was."""
    todo = generated_folder.plan(folder, files)
    if todo:
        generated_folder.apply(folder, files, todo, folder.parent / "kept", 0o640)
    return todo


def content(folder: Path) -> dict[str, str]:
    """Texts by name, without the list."""
    return {path.name: path.read_text() for path in folder.iterdir() if path.name != generated_folder.LIST}


def test_files_are_written_with_their_mode(folder):
    assert content(folder) == FILES
    assert (folder / "a.json").stat().st_mode & 0o777 == 0o640


def test_a_second_run_does_nothing(folder):
    assert not generated_folder.plan(folder, FILES)


def test_a_missing_folder_is_like_an_empty_one(tmp_path):
    assert generated_folder.plan(tmp_path / "none", FILES).write == FILES


def test_a_new_version_replaces_and_removes_its_own_files_without_keeping_them(folder):
    todo = fill(folder, {"a.json": "3\n"})
    assert todo.edited == []
    assert content(folder) == {"a.json": "3\n"}
    assert not (folder.parent / "kept").exists()


def test_what_somebody_edited_or_added_is_kept(folder):
    (folder / "a.json").write_text("mine\n")
    (folder / "own.json").write_text("also mine\n")
    todo = fill(folder, FILES)
    assert todo.edited == ["a.json", "own.json"]
    assert content(folder) == FILES
    assert content(folder.parent / "kept") == {"a.json": "mine\n", "own.json": "also mine\n"}
    assert not generated_folder.plan(folder, FILES)


def test_a_deleted_file_comes_back(folder):
    (folder / "b.yml").unlink()
    assert fill(folder, FILES).write == {"b.yml": "2\n"}
    assert content(folder) == FILES


def test_a_link_is_moved_away_and_not_followed(folder, tmp_path):
    target = tmp_path / "elsewhere"
    target.write_text("1\n")
    (folder / "a.json").unlink()
    (folder / "a.json").symlink_to(target)
    assert fill(folder, FILES).edited == ["a.json"]
    assert not (folder / "a.json").is_symlink()
    assert (tmp_path / "kept/a.json").is_symlink()
    assert target.read_text() == "1\n"


@pytest.mark.parametrize("text", ["", "[]", "nonsense"])
def test_a_damaged_list_means_that_every_different_file_is_kept(folder, text):
    (folder / generated_folder.LIST).write_text(text)
    assert not generated_folder.plan(folder, FILES)
    assert fill(folder, FILES | {"a.json": "new\n"}).edited == ["a.json"]
