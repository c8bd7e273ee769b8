"""Files that root changes: shown, rolled back as they were, and led astray by nothing that another account controls."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
from collections import namedtuple
from pathlib import Path

import pytest
from ansible_collections.smolcluster.logging.plugins.module_utils import changes, foreign_agents, ownership
from ansible_collections.smolcluster.logging.plugins.module_utils.agents import promtail as promtail_agent
from ansible_collections.smolcluster.logging.plugins.module_utils.changes import (
    Directory,
    Folder,
    Link,
    NotRegularError,
    PathConflictError,
    TextFile,
    backup_path,
    folder_of_others,
    open_regular,
    read_regular,
    rename_to_backup,
)

UNIT = "promtail.service"
# The account that a folder of the tests is given to; only root can do that.
OTHER = 4711
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


def mode(path: Path) -> int:
    """Permission bits of a file; a link is not followed."""
    return stat.S_IMODE(path.lstat().st_mode)


def test_text_file_is_written_and_rolled_back(tmp_path):
    path = tmp_path / "deep" / "file"
    file = TextFile(path, "new\n", 0o640, os.getegid())
    assert file.needed()
    assert file.diff()["after"] == "new\n"
    file.apply()
    assert (path.read_text(), path.stat().st_mode & 0o777) == ("new\n", 0o640)
    assert not TextFile(path, "new\n", 0o640, os.getegid()).needed()
    file.rollback()
    assert not path.exists()
    assert list(path.parent.iterdir()) == []


def test_rollback_restores_old_text_and_mode(tmp_path):
    path = tmp_path / "file"
    path.write_text("old\n")
    path.chmod(0o600)
    file = TextFile(path, "new\n", 0o644, os.getegid())
    file.apply()
    file.rollback()
    assert (path.read_text(), path.stat().st_mode & 0o777) == ("old\n", 0o600)


def test_wrong_mode_alone_is_needed_and_shown(tmp_path):
    path = tmp_path / "file"
    path.write_text("same\n")
    path.chmod(0o666)
    file = TextFile(path, "same\n", 0o640, os.getegid())
    assert file.needed()
    assert "0666" in file.diff()["before"]
    assert "0640" in file.diff()["after"]


def test_rollback_without_apply_does_nothing(tmp_path):
    path = tmp_path / "file"
    path.write_text("old\n")
    TextFile(path, "new\n", 0o644, os.getegid()).rollback()
    Link(tmp_path / "link", "3.6.11").rollback()
    assert path.read_text() == "old\n"


def test_link_is_switched_and_rolled_back(tmp_path):
    link = Link(tmp_path / "current", "3.6.11")
    link.apply()
    assert not link.needed()
    newer = Link(tmp_path / "current", "3.6.12")
    assert newer.diff()["before"] == "3.6.11\n"
    newer.apply()
    assert os.readlink(tmp_path / "current") == "3.6.12"
    newer.rollback()
    assert os.readlink(tmp_path / "current") == "3.6.11"
    link.rollback()
    assert not (tmp_path / "current").is_symlink()


def test_something_of_another_kind_in_the_way_is_named_before_any_change(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    wrong = (
        TextFile(tmp_path / "folder", "new\n", 0o644, os.getegid()),
        Link(tmp_path / "folder", "3.6.11"),
        Directory(tmp_path / "file", 0o750, os.geteuid(), os.getegid()),
    )
    for change in wrong:
        with pytest.raises(PathConflictError, match=r"/f\w+ exists but is not a (file|link|folder). Move it away"):
            change.needed()


def test_file_that_is_no_text_is_replaced_shown_and_restored(tmp_path):
    path = tmp_path / "promtail.yml"
    path.write_bytes(b"\xff\xfex")
    file = TextFile(path, "new\n", 0o644, os.getegid())
    assert file.diff()["before"] == "\ufffd\ufffdx"
    file.apply()
    assert path.read_text() == "new\n"
    file.rollback()
    assert path.read_bytes() == b"\xff\xfex"


def test_no_file_that_was_kept_is_overwritten(tmp_path):
    unit = tmp_path / "promtail.service"
    names = []
    for _ in range(3):
        names.append(backup_path(unit).name)
        backup_path(unit).touch()
    kept = "promtail.service.before-smolcluster"
    assert names == [kept, f"{kept}.2", f"{kept}.3"]


@pytest.mark.parametrize("keep", [False, True])
def test_masked_unit_comes_back_as_the_link_that_it_was(tmp_path, keep):
    unit = tmp_path / UNIT
    unit.symlink_to("/dev/null")
    file = TextFile(unit, "[Service]\n", 0o644, os.getegid(), keep=keep)
    assert file.needed()
    assert file.diff()["before"] == "link to /dev/null\n"
    file.apply()
    assert (unit.is_symlink(), mode(unit)) == (False, 0o644)
    file.rollback()
    assert os.readlink(unit) == "/dev/null"
    assert list(tmp_path.iterdir()) == [unit]


def test_copy_of_a_masked_unit_is_a_link_too(tmp_path):
    unit = tmp_path / UNIT
    unit.symlink_to("/dev/null")
    file = TextFile(unit, "[Service]\n", 0o644, os.getegid(), keep=True)
    file.apply()
    file.commit()
    assert os.readlink(f"{unit}.before-smolcluster") == "/dev/null"
    assert sorted(path.name for path in tmp_path.iterdir()) == [UNIT, f"{UNIT}.before-smolcluster"]


@as_root
def test_copy_has_mode_and_owner_of_its_original(tmp_path):
    unit = tmp_path / UNIT
    unit.write_text("theirs\n")
    unit.chmod(0o600)
    os.chown(unit, OTHER, OTHER)
    file = TextFile(unit, "ours\n", 0o644, 0, keep=True)
    file.apply()
    file.commit()
    kept = Path(f"{unit}.before-smolcluster")
    assert (kept.read_text(), mode(kept), kept.stat().st_uid, kept.stat().st_gid) == ("theirs\n", 0o600, OTHER, OTHER)
    assert (unit.read_text(), mode(unit), unit.stat().st_uid) == ("ours\n", 0o644, 0)


@as_root
def test_configuration_behind_a_link_comes_back_as_that_link(tmp_path):
    theirs, config = tmp_path / "managed.yml", tmp_path / "promtail.yml"
    theirs.write_text("theirs\n")
    theirs.chmod(0o600)
    config.symlink_to("managed.yml")
    os.lchown(config, OTHER, OTHER)
    file = TextFile(config, "theirs\n", 0o600, 0)
    assert file.needed()
    file.apply()
    assert not config.is_symlink()
    file.rollback()
    assert (os.readlink(config), config.lstat().st_uid, theirs.read_text(), mode(theirs)) == (
        "managed.yml",
        OTHER,
        "theirs\n",
        0o600,
    )


def test_rollback_brings_back_the_same_file_and_a_cut_off_run_leaves_nothing_for_long(tmp_path):
    path = tmp_path / "promtail.yml"
    path.write_text("old\n")
    number = path.stat().st_ino
    file = TextFile(path, "new\n", 0o644, os.getegid())
    file.apply()
    again = TextFile(path, "newer\n", 0o644, os.getegid())  # the first one was cut off
    again.apply()
    again.commit()
    assert list(tmp_path.iterdir()) == [path]
    path.write_text("old\n")
    number = path.stat().st_ino
    file = TextFile(path, "new\n", 0o644, os.getegid())
    file.apply()
    file.rollback()
    assert (path.stat().st_ino, path.stat().st_nlink, path.read_text()) == (number, 1, "old\n")


def test_rollback_of_a_write_that_failed_leaves_the_old_file_alone(tmp_path, monkeypatch):
    path = tmp_path / "promtail.yml"
    path.write_text("old\n")
    file = TextFile(path, "new\n", 0o644, os.getegid())
    with monkeypatch.context() as patch:
        patch.setattr(changes.tempfile, "mkstemp", lambda **_: (_ for _ in ()).throw(OSError("disk full")))
        with pytest.raises(OSError, match="disk full"):
            file.apply()
    file.rollback()
    assert (path.read_text(), path.stat().st_nlink, list(tmp_path.iterdir())) == ("old\n", 1, [path])


def test_dangling_copy_counts_as_taken(tmp_path):
    Path(tmp_path / f"{UNIT}.before-smolcluster").symlink_to("/nowhere")
    assert backup_path(tmp_path / UNIT).name == f"{UNIT}.before-smolcluster.2"


def test_folders_are_for_all_whatever_the_umask(tmp_path):
    umask = os.umask(0o077)
    try:
        TextFile(tmp_path / "etc/promtail/promtail.yml", "new\n", 0o640, os.getegid()).apply()
    finally:
        os.umask(umask)
    assert (mode(tmp_path / "etc"), mode(tmp_path / "etc/promtail")) == (0o755, 0o755)


def test_version_that_is_a_link_is_moved_aside_and_restored(tmp_path):
    version, made, elsewhere = (tmp_path / name for name in ("3.6.11", "made", "elsewhere"))
    made.mkdir()
    elsewhere.mkdir()
    version.symlink_to("elsewhere")
    for _ in range(2):
        folder = Folder(version, made)
        folder.apply()
        assert not version.is_symlink()
        folder.rollback()
        assert os.readlink(version) == "elsewhere"
        made.mkdir()


# Folders of the agent's account


def test_folder_gets_its_owner_with_all_files_and_is_rolled_back(tmp_path, monkeypatch):
    owners: dict[int, tuple[int, int]] = {}
    monkeypatch.setattr(
        os, "fchown", lambda handle, owner, group: owners.__setitem__(os.fstat(handle).st_ino, (owner, group))
    )
    folder, positions = tmp_path / "deep/state", tmp_path / "deep/state/positions.yaml"
    made = Directory(folder, 0o750, os.getuid(), os.getgid())
    assert made.needed()
    made.apply()
    assert mode(folder) == 0o750
    assert not made.needed()
    positions.touch()
    given = Directory(folder, 0o750, OTHER, OTHER + 1)
    assert given.needed()
    assert given.diff()["after"] == f"{OTHER}:{OTHER + 1} 0750\n"
    given.apply()
    numbers = [path.stat().st_ino for path in (folder, positions)]
    assert [owners[number] for number in numbers] == [(OTHER, OTHER + 1)] * 2
    given.rollback()
    assert [owners[number] for number in numbers] == [(os.getuid(), os.getgid())] * 2
    made.rollback()
    assert not folder.exists()


@as_root
def test_only_the_accounts_own_files_change_hands(tmp_path):
    state, outside = tmp_path / "state", tmp_path / "shadow"
    outside.write_text("root's\n")
    outside.chmod(0o600)
    state.mkdir()
    (state / "positions.yaml").touch()
    (state / "link").symlink_to(outside)
    os.link(outside, state / "hard-link")
    os.mkfifo(state / "fifo")
    os.mknod(state / "device", 0o600 | stat.S_IFCHR, os.makedev(1, 3))
    (state / "folder").mkdir()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(state / "socket"))
    (state / "roots").touch()
    for name in ("", "positions.yaml", "fifo", "device", "folder", "socket"):
        os.chown(state / name, OTHER, OTHER)
    os.lchown(state / "link", OTHER, OTHER)
    change = Directory(state, 0o750, OTHER + 1, OTHER + 1)
    change.apply()
    owners = {path.name: path.lstat().st_uid for path in state.iterdir()}
    assert owners == dict.fromkeys(("fifo", "device", "folder", "socket", "link"), OTHER) | {
        "positions.yaml": OTHER + 1,
        "hard-link": 0,
        "roots": 0,
    }
    assert (outside.stat().st_uid, mode(outside), state.stat().st_uid) == (0, 0o600, OTHER + 1)
    change.rollback()
    assert {(state / name).stat().st_uid for name in ("", "positions.yaml")} == {OTHER}


@as_root
def test_file_that_becomes_a_link_while_root_walks_leads_nowhere(tmp_path, monkeypatch):
    state, outside = tmp_path / "state", tmp_path / "shadow"
    state.mkdir()
    outside.touch()
    (state / "positions.yaml").touch()
    really = os.stat

    def swap(path, *words, **more):
        found = really(path, *words, **more)
        if path == "positions.yaml":
            (state / "positions.yaml").unlink()
            (state / "positions.yaml").symlink_to(outside)
        return found

    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", swap)
        Directory(state, 0o750, OTHER, OTHER).apply()
    assert outside.lstat().st_uid == 0


@as_root
def test_folder_that_is_swapped_for_a_link_is_not_given_away(tmp_path, monkeypatch):
    state, outside = tmp_path / "state", tmp_path / "etc"
    outside.mkdir()
    change = Directory(state, 0o750, OTHER, OTHER)
    monkeypatch.setattr(change, "_place", lambda: state)
    state.symlink_to(outside)
    with pytest.raises(OSError, match=r"Not a directory|Too many levels"):
        change._set(0o750, OTHER, OTHER)
    assert outside.stat().st_uid == 0


def test_folder_behind_a_link_of_root_is_used_where_it_is(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "state").symlink_to("disk")
    change = Directory(tmp_path / "state", 0o700, os.getuid(), os.getgid())
    assert change.needed()
    change.apply()
    assert mode(tmp_path / "disk") == 0o700
    assert (tmp_path / "state").is_symlink()


# Ways to a file


@as_root
@pytest.mark.parametrize("way", ["owner", "group", "everybody", "link", "link on the way"])
def test_path_that_another_account_controls_is_refused(tmp_path, way):
    tmp_path.chmod(0o755)
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    target = theirs / "etc" / "promtail.yml"
    (theirs / "etc").mkdir()
    if way == "owner":
        os.chown(theirs, OTHER, 0)
    elif way == "group":
        os.chown(theirs, 0, OTHER)
        theirs.chmod(0o775)
    elif way == "everybody":
        theirs.chmod(0o777)
    else:
        os.chown(theirs, OTHER, OTHER)
        (tmp_path / "root").mkdir()
        (theirs / "back").symlink_to(tmp_path / "root")
        (tmp_path / "first").symlink_to("theirs/etc" if way == "link" else "theirs/back")
        target = tmp_path / "first" / "promtail.yml"
    for change in (
        TextFile(target, "new\n", 0o644, 0),
        Link(target, "3.6.11"),
        Directory(target, 0o750, 0, 0),
        Folder(target, tmp_path),
    ):
        with pytest.raises(PathConflictError, match=f"other than root can change {theirs},.*chown root {theirs}"):
            change.needed()
    assert ownership.owner_of_home(target) == "foreign"


@as_root
def test_sticky_folder_and_links_of_root_are_fine(tmp_path):
    (tmp_path / "tmp").mkdir()
    (tmp_path / "tmp").chmod(0o1777)
    (tmp_path / "var").symlink_to("private/../tmp")
    (tmp_path / "private").mkdir()
    assert folder_of_others(tmp_path / "var" / "missing") is None
    (tmp_path / "tmp" / "link").symlink_to(tmp_path)
    assert folder_of_others(tmp_path / "tmp" / "link") is None
    os.lchown(tmp_path / "tmp" / "link", OTHER, OTHER)
    assert folder_of_others(tmp_path / "tmp" / "link" / "x") == tmp_path / "tmp" / "link"


def test_links_in_a_circle_are_an_error(tmp_path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(OSError, match="Too many levels"):
        folder_of_others(tmp_path / "a" / "x")


@as_root
def test_file_is_renamed_only_in_a_folder_of_its_account(tmp_path):
    theirs, roots = tmp_path / "LaunchAgents", tmp_path / "LaunchDaemons"
    for folder in (theirs, roots):
        folder.mkdir()
        (folder / "promtail.plist").touch()
    os.chown(theirs, OTHER, OTHER)
    assert rename_to_backup(theirs / "promtail.plist", OTHER).name == "promtail.plist.before-smolcluster"
    assert [path.name for path in theirs.iterdir()] == ["promtail.plist.before-smolcluster"]
    theirs.rename(tmp_path / "aside")
    theirs.symlink_to(roots)
    with pytest.raises(OSError, match="does not belong to the account"):
        rename_to_backup(theirs / "promtail.plist", OTHER)
    assert (roots / "promtail.plist").exists()


# Reading


Strange = namedtuple("Strange", "name make")
STRANGE = [
    Strange("fifo", os.mkfifo),
    Strange("folder", os.mkdir),
    Strange("device", lambda path: Path(path).symlink_to("/dev/zero")),
    Strange("terminal", lambda path: Path(path).symlink_to("/dev/tty")),
    Strange("huge", lambda path: subprocess.run(["truncate", "--size=3G", path], check=True)),
    Strange("fifo behind a link", lambda path: (os.mkfifo(f"{path}.fifo"), Path(path).symlink_to(f"{path}.fifo"))),
]


@pytest.mark.parametrize("strange", STRANGE, ids=[strange.name for strange in STRANGE])
def test_what_is_no_small_regular_file_blocks_nothing(tmp_path, strange):
    path = tmp_path / UNIT
    strange.make(path)
    with pytest.raises(NotRegularError):
        read_regular(path)
    assert ownership.foreign_unit(path, "") == str(path)
    assert TextFile(path, "new\n", 0o644, os.getegid())._found() != (b"new\n", 0o644, os.geteuid(), os.getegid())


def test_fifo_that_takes_the_place_of_a_file_blocks_nothing(tmp_path, monkeypatch):
    regular, path = tmp_path / "regular", tmp_path / "fifo"
    regular.touch()
    os.mkfifo(path)
    status = regular.stat()
    with monkeypatch.context() as patch, pytest.raises(NotRegularError):
        patch.setattr(changes.os, "stat", lambda *_, **__: status)
        open_regular(path)


def test_missing_and_vanishing_files_are_missing(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError):
        read_regular(tmp_path / "none")
    (tmp_path / "file").touch()
    status = (tmp_path / "file").stat()
    with monkeypatch.context() as patch, pytest.raises(FileNotFoundError):
        patch.setattr(changes.os, "stat", lambda *_, **__: status)
        read_regular(tmp_path / "gone")


def test_links_are_followed_on_request_only(tmp_path):
    (tmp_path / "file").write_bytes(b"caf\xe9")
    (tmp_path / "link").symlink_to("file")
    assert read_regular(tmp_path / "link") == b"caf\xe9"
    with pytest.raises(NotRegularError):
        read_regular(tmp_path / "link", follow=False)


def test_leftovers_are_regular_files(tmp_path, monkeypatch):
    names = [tmp_path / name for name in ("positions.yaml", "folder", "fifo", "link", "none")]
    monkeypatch.setattr(promtail_agent, "FOREIGN_POSITIONS", tuple(map(str, names)))
    names[0].touch()
    names[1].mkdir()
    os.mkfifo(names[2])
    names[3].symlink_to(names[0])
    assert foreign_agents.positions_files(promtail_agent) == [str(names[0])]
