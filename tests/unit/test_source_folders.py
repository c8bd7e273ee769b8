"""Folders of sources: what is made, under whose rights, and what is never made or followed."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from ansible_collections.smolcluster.logging.plugins.module_utils import source_folders
from ansible_collections.smolcluster.logging.plugins.module_utils.source_folders import FolderError, SourceFolders
from ansible_collections.smolcluster.logging.plugins.plugin_utils import presets, sources

ROOT = Path(__file__).resolve().parents[2]

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to act as another account")
SMOL, OTHER = 64001, 64002  # accounts without a name


@pytest.fixture
def place():
    """A folder that every account can reach, as those of pytest cannot be."""
    folder = Path(tempfile.mkdtemp(dir="/var/tmp")).resolve()
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def owned(path: Path, user: int, mode: int = 0o755) -> Path:
    """Make a folder of an account."""
    path.mkdir(parents=True)
    path.chmod(mode)
    os.chown(path, user, user)
    return path


def change(*paths: Path, **stated: str) -> SourceFolders:
    """The change that makes folders."""
    return SourceFolders([{"path": str(path)} | stated for path in paths])


def state(path: Path) -> tuple[int, str]:
    """Owner and permission bits of a folder."""
    status = path.lstat()
    assert stat.S_ISDIR(status.st_mode)
    return status.st_uid, f"{stat.S_IMODE(status.st_mode):04o}"


def test_own_folder_is_made_shown_and_removed_again(place):
    made = change(place / "a/b/c")
    assert made.needed()
    after = made.diff()["after"]
    assert [line.split()[0] for line in after.splitlines()] == [f"{place}/a", f"{place}/a/b", f"{place}/a/b/c"]
    assert list(place.iterdir()) == []  # check mode comes so far
    made.apply()
    assert (place / "a/b/c").is_dir()
    assert not change(place / "a/b/c").needed()
    made.rollback()
    assert list(place.iterdir()) == []


def test_undo_leaves_what_training_uses_and_what_was_there(place):
    (place / "a").mkdir()
    made = change(place / "a/b/c")
    made.apply()
    (place / "a/b/train.log").touch()
    made.rollback()
    assert [path.name for path in (place / "a/b").iterdir()] == ["train.log"]


@as_root
def test_below_root_the_last_folder_is_for_everybody(place):
    change(place / "a/b").apply()
    assert state(place / "a") == (0, "0755")
    assert state(place / "a/b") == (0, "1777")


@as_root
def test_in_a_home_folders_belong_to_its_owner(place):
    owned(place / "smol", SMOL)
    change(place / "smol/smolcluster/logging/cluster-logs").apply()
    for path in ("smolcluster", "smolcluster/logging", "smolcluster/logging/cluster-logs"):
        assert state(place / "smol" / path) == (SMOL, "0755")


@as_root
def test_private_home_stays_private(place):
    owned(place / "smol", SMOL, 0o700)
    change(place / "smol/logs").apply()
    assert state(place / "smol") == (SMOL, "0700")
    assert state(place / "smol/logs") == (SMOL, "0755")


@as_root
def test_folder_of_a_group_keeps_its_group(place):
    owned(place / "team", SMOL, 0o2775)
    os.chown(place / "team", SMOL, OTHER)
    (place / "team").chmod(0o2775)
    change(place / "team/logs").apply()
    assert ((place / "team/logs").stat().st_gid, state(place / "team/logs")) == (OTHER, (SMOL, "2755"))


@as_root
def test_stated_owner_and_mode_are_those_of_the_last_folder(place):
    nobody = pwd.getpwnam("nobody").pw_uid
    change(place / "a/b", owner="nobody", mode="0750").apply()
    assert state(place / "a") == (0, "0755")
    assert state(place / "a/b") == (nobody, "0750")
    owned(place / "smol", SMOL)
    change(place / "smol/logs", owner="nobody").apply()
    assert state(place / "smol/logs") == (nobody, "0755")


def test_owner_that_does_not_exist_is_refused_before_anything_is_made(place):
    (place / "there").mkdir()
    for path in (place / "a", place / "there"):
        with pytest.raises(FolderError, match="should belong to nosuchuser, but this node has no such account"):
            change(path, owner="nosuchuser")
    assert [path.name for path in place.iterdir()] == ["there"]


@as_root
def test_folder_that_is_there_is_left_as_it_is(place):
    owned(place / "logs", SMOL, 0o700)
    assert not change(place / "logs", owner="nobody", mode="1777").needed()
    assert state(place / "logs") == (SMOL, "0700")


@as_root
def test_folder_above_another_is_made_for_everybody_whatever_the_order(place):
    change(place / "a/b", place / "a").apply()
    assert state(place / "a") == state(place / "a/b") == (0, "1777")
    assert not change(place / "a/b", place / "a").needed()


def test_obstacle_is_an_error_that_names_it(place):
    (place / "a").write_text("a file")
    for path in (place / "a", place / "a/b"):
        with pytest.raises(FolderError, match=f"{place}/a exists but is not a folder, which .* Move it away"):
            change(path)


@as_root
@pytest.mark.parametrize("target", ["/etc", "elsewhere", "../elsewhere", "nowhere"])
def test_nothing_is_made_behind_a_link_of_an_ordinary_account(place, target):
    owned(place / "elsewhere", 0)
    owned(place / "smol/elsewhere", 0)
    os.chown(place / "smol", SMOL, SMOL)
    (place / "smol/logs").symlink_to(target)
    os.chown(place / "smol/logs", SMOL, SMOL, follow_symlinks=False)
    made = change(place / "smol/logs/planted/deep", place / "fine")
    if target == "nowhere":
        assert f"{place}/smol/logs is a link that {SMOL} can change" in made.plan.left[0]
    assert f"so {'nowhere' if target == 'nowhere' else 'planted'} is not created behind it" in made.plan.left[0]
    made.apply()
    assert state(place / "fine") == (0, "1777")
    for folder in (Path("/etc"), place / "elsewhere", place / "smol/elsewhere"):
        assert not (folder / "planted").exists()
    assert not (place / "smol/nowhere").exists()


@as_root
def test_link_of_root_in_a_folder_of_an_account_is_the_accounts(place):
    """It could have moved one there that leads where it likes."""
    owned(place / "smol", SMOL)
    owned(place / "private", 0)
    (place / "smol/logs").symlink_to(place / "private")
    assert change(place / "smol/logs/planted").plan.left
    assert not (place / "private/planted").exists()


@as_root
def test_links_of_root_are_followed(place):
    """As /tmp of a Mac is one."""
    owned(place / "private/tmp", 0, 0o1777)
    (place / "tmp").symlink_to("private/tmp")
    change(place / "tmp/logs").apply()
    assert state(place / "private/tmp/logs") == (0, "1777")


@as_root
def test_link_of_root_that_a_group_could_replace_is_not_followed(place):
    owned(place / "elsewhere", 0)
    owned(place / "team", 0, 0o775)
    (place / "team/logs").symlink_to(place / "elsewhere")
    assert "accounts other than root can write to" in change(place / "team/logs/planted").plan.left[0]


@as_root
def test_folder_behind_a_link_that_is_there_needs_nothing(place):
    owned(place / "disk/logs", SMOL)
    owned(place / "smol", SMOL)
    (place / "smol/logs").symlink_to(place / "disk/logs")
    made = change(place / "smol/logs")
    assert (made.needed(), made.plan.left) == (False, [])


def test_links_in_a_circle_end(place):
    (place / "a").symlink_to("b")
    (place / "b").symlink_to("a")
    with pytest.raises(FolderError, match="leads through more than 40 links"):
        change(place / "a/logs")


@as_root
def test_folder_that_its_owner_cannot_write_to_is_told(place):
    owned(place / "smol", SMOL, 0o555)
    with pytest.raises(FolderError, match=f"smol/logs cannot be created as {SMOL}, the owner of .*smol: Permission"):
        change(place / "smol/logs").apply()


@pytest.mark.parametrize("path", ["home/nosuchuser/logs", "media/disk/logs", "media/smol/disk/logs"])
def test_homes_and_disks_are_not_made(place, monkeypatch, path):
    monkeypatch.setattr(source_folders, "OTHERS", (f"{place}/home", f"{place}/media"))
    monkeypatch.setattr(source_folders, "PLUGGED", (f"{place}/media",))
    for folder in ("home", "media/smol"):
        (place / folder).mkdir(parents=True)
    made = change(place / path)
    assert not made.needed()
    assert "is not created, because it should come with an account or a disk" in made.plan.left[0]


def test_rights_come_back_after_an_error():
    before = os.geteuid(), os.getegid(), sorted(os.getgroups())
    with pytest.raises(ZeroDivisionError), source_folders.acting_as(SMOL, SMOL):
        assert os.geteuid() == (SMOL if before[0] == 0 else before[0])
        raise ZeroDivisionError
    assert (os.geteuid(), os.getegid(), sorted(os.getgroups())) == before


@as_root
def test_folder_made_by_training_meanwhile_is_left_to_it(place, monkeypatch):
    owned(place / "tmp", 0, 0o1777)
    made = change(place / "tmp/logs")
    mkdir = os.mkdir

    def late(name, mode=0o777, *, dir_fd=None):
        monkeypatch.setattr(os, "mkdir", mkdir)
        owned(place / "tmp/logs", SMOL, 0o700)
        mkdir(name, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "mkdir", late)
    made.apply()
    assert state(place / "tmp/logs") == (SMOL, "0700")
    made.rollback()
    assert state(place / "tmp/logs") == (SMOL, "0700")


@as_root
def test_link_put_in_place_of_a_new_folder_changes_nothing_elsewhere(place, monkeypatch):
    owned(place / "smol", SMOL)
    owned(place / "private", 0, 0o700)
    mkdir = os.mkdir

    def swapped(name, mode=0o777, *, dir_fd=None):
        mkdir(name, mode, dir_fd=dir_fd)
        if name == "logs":
            os.rmdir(name, dir_fd=dir_fd)
            os.symlink(place / "private", name, dir_fd=dir_fd)

    monkeypatch.setattr(os, "mkdir", swapped)
    with pytest.raises(FolderError):
        change(place / "smol/logs/deep").apply()
    assert state(place / "private") == (0, "0700")
    assert list((place / "private").iterdir()) == []


def test_lines_for_boot_state_what_is_there_and_what_will_be(place, monkeypatch):
    monkeypatch.setattr(source_folders, "EMPTIED", (str(place),))
    (place / "there").mkdir(mode=0o750)
    mine = f"{os.geteuid()} {os.getegid()}"
    wanted = [{"path": f"{place}/there/logs"}, {"path": f"{place}/new"}, {"path": "/srv"}]
    last = "1777" if os.geteuid() == 0 else "0755"
    before = source_folders.boot_lines(wanted)
    assert before.splitlines() == [
        f"d {place}/new {last} {mine} -",
        f"d {place}/there 0750 {mine} -",
        f"d {place}/there/logs {last} {mine} -",
    ]
    SourceFolders(wanted[:2]).apply()
    assert source_folders.boot_lines(wanted) == before


@as_root
def test_lines_for_boot_leave_out_what_others_can_lead_elsewhere(place, monkeypatch):
    monkeypatch.setattr(source_folders, "EMPTIED", (str(place),))
    owned(place / "smol", SMOL)
    owned(place / "smol/roots", 0)
    owned(place / "elsewhere", SMOL)
    (place / "link").symlink_to("elsewhere")
    os.chown(place / "link", SMOL, SMOL, follow_symlinks=False)
    lines = source_folders.boot_lines([{"path": f"{place}/smol/roots"}, {"path": f"{place}/link"}])
    assert lines == f"d {place}/smol 0755 {SMOL} {SMOL} -\n"


@as_root
@pytest.mark.skipif(not shutil.which("systemd-tmpfiles"), reason="needs systemd-tmpfiles")
@pytest.mark.parametrize("name", ["plain", "two words", "100%h", 'a"quote', "back\\slash", "ümlaut", "#x", "it's"])
def test_systemd_reads_the_lines_as_they_are_meant(place, monkeypatch, name):
    monkeypatch.setattr(source_folders, "EMPTIED", (str(place),))
    wanted = [{"path": f"{place}/{name}/logs"}]
    SourceFolders(wanted).apply()
    (place / "x.conf").write_text(source_folders.boot_lines(wanted))
    shutil.rmtree(place / name)
    for _ in range(2):
        subprocess.run(["systemd-tmpfiles", "--create", str(place / "x.conf")], check=True)
        assert state(place / name) == (0, "0755")
        assert state(place / name / "logs") == (0, "1777")


def test_program_of_the_standard_library_alone_can_use_it(place):
    """As the agent's own start on a Mac does."""
    copy = place / "copy"
    copy.mkdir()
    shutil.copy(source_folders.__file__, copy / "source_folders.py")
    program = "import json, source_folders, sys; print(len(source_folders.make(json.loads(sys.argv[1]))[0]))"
    words = [sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {str(copy)!r}); {program}"]
    wanted = json.dumps([{"path": f"{place}/a/b", "mode": "0700"}, {"path": f"{copy}/source_folders.py"}])
    for made in ("2", "0"):
        assert subprocess.run([*words, wanted], capture_output=True, text=True, check=True).stdout.strip() == made
    assert state(place / "a/b")[1] == "0700"


def source(*paths: str, **more) -> dict:
    """A source."""
    return {"name": "train", "paths": list(paths), "format": "smolcluster"} | more


@pytest.mark.parametrize(
    ("paths", "folders"),
    [
        (["/tmp/logs/worker-*.log"], ["/tmp/logs"]),
        (["/srv/train.log"], ["/srv"]),
        (["/srv/*/logs/x.log", "/srv/run?/x.log"], ["/srv"]),
        (["/srv/{a,b/c}/x.log"], ["/srv/a", "/srv/b/c"]),
        (["/srv/a\\*b/x.log"], ["/srv/a*b"]),
        (["/srv/**/x.log"], ["/srv"]),
        (["/x.log"], ["/"]),
    ],
)
def test_folder_of_a_path_ends_before_its_first_wildcard(paths, folders):
    assert [one["path"] for one in sources.source_folders([source(*paths)])] == folders


def test_source_states_owner_and_mode_and_what_lies_below_a_followed_folder_is_trainings():
    found = sources.source_folders(
        [
            source("/srv/a/*.log", owner="smol", mode="2775"),
            source("/srv/a/*.txt", owner="other"),
            source("/tmp/ray/session_latest/logs/*.out", follow=["/tmp/ray/"]),
        ]
    )
    assert found == [{"path": "/srv/a", "owner": "smol", "mode": "2775"}, {"path": "/tmp/ray"}]


@pytest.mark.parametrize(
    ("stated", "words"),
    [
        ({"mode": "1777", "owner": "smol"}, ""),
        ({"mode": 493}, "mode must be permission bits in octal, in quotes"),
        ({"mode": "0999"}, "mode must be"),
        ({"mode": "7777"}, "mode must be"),
        ({"owner": ""}, "owner must be the name of an account"),
        ({"owner": 0}, "owner must be"),
        ({"owner": "a b"}, "owner must be"),
    ],
)
def test_what_a_source_states_is_checked(stated, words):
    problems = "\n".join(
        sources.source_problems(
            [source("/srv/*.log", **stated)], presets.load(str(ROOT / "roles/agent/vars/formats"), ""), []
        )
    )
    assert (words in problems) if words else problems == ""
