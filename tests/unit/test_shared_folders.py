"""Folders that several nodes share: how they are recognised, what is said of them, and which node ships a file."""

from __future__ import annotations

import time

import pytest
from ansible_collections.smolcluster.logging.plugins.module_utils import globs, host, shared_folders
from ansible_collections.smolcluster.logging.plugins.module_utils.systems import darwin, linux
from ansible_collections.smolcluster.logging.plugins.plugin_utils import shared

SOURCE = {"name": "train", "paths": ["/srv/logs/worker-*.log"]}
# Lines of a node with NFS; the second mount of /home hides the first, which automounts it.
MOUNTINFO = """\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:40 / /home rw,relatime shared:20 - autofs /etc/auto.home rw,fd=6
31 30 0:50 / /home rw,relatime shared:21 - nfs4 nas:/export/home rw,vers=4.2
32 22 0:60 / /mnt/my\\040disk rw - cifs //nas/my\\040share rw
"""
MOUNT = """\
/dev/disk3s1s1 on / (apfs, sealed, local, read-only, journaled)
devfs on /dev (devfs, local, nobrowse)
map auto_home on /System/Volumes/Data/home (autofs, automounted, nobrowse)
nas:/export/home on /Users/shared (nfs, nodev, nosuid, mounted by root)
//smol@nas/my share on /Volumes/my share (smbfs, nodev, nosuid, mounted by smol)
"""


def test_mounts_of_linux(tmp_path, monkeypatch):
    (tmp_path / "self").mkdir()
    (tmp_path / "self/mountinfo").write_text(MOUNTINFO)
    monkeypatch.setattr(linux, "PROC", tmp_path)
    assert linux.mounts() == [
        ("/", "ext4", "/dev/sda1"),
        ("/home", "nfs4", "nas:/export/home"),
        ("/mnt/my disk", "cifs", "//nas/my share"),
    ]


def test_mounts_of_this_machine_have_one_of_the_root():
    assert [folder for folder, _kind, _origin in linux.mounts()].count("/") == 1


def test_mounts_of_macos(monkeypatch):
    monkeypatch.setattr(darwin, "output", lambda *argv: MOUNT if argv == ("/sbin/mount",) else "")
    assert [found for found in darwin.mounts() if found[1] in shared_folders.NETWORK] == [
        ("/Users/shared", "nfs", "nas:/export/home"),
        ("/Volumes/my share", "smbfs", "//smol@nas/my share"),
    ]


@pytest.fixture
def node(tmp_path, monkeypatch):
    """Looks at the folders of sources, with further mounts below a folder for tests."""
    mounts = [("/", "ext4", "/dev/sda1")]
    monkeypatch.setattr(host.system, "mounts", lambda: mounts)

    def look(*paths: str, **more) -> list[dict]:
        source = {"name": "train", "paths": [f"{tmp_path}/{path}" for path in paths]} | more
        return shared_folders.look([source], "root")

    look.mounts = mounts
    look.folder = tmp_path
    return look


def test_network_file_system_is_named(node):
    (node.folder / "home/logs").mkdir(parents=True)
    node.mounts.append((f"{node.folder}/home", "nfs4", "nas:/export"))
    inside, missing, outside = node("home/logs/*.log", "home/later/*.log", "logs/*.log")
    assert [inside["network"], missing["network"], outside["network"]] == ["nfs4", "nfs4", ""]
    (note, other) = shared_folders.notes([inside, missing, outside], "promtail")
    assert "home/logs/*.log is on a network file system (nfs4, nas:/export). If other nodes" in note
    assert "home/later/*.log" in other
    assert shared_folders.notes(node("home/logs/*.log", shared=False), "promtail") == []


def test_network_file_system_below_a_wildcard_is_named(node):
    for name in ("alice", "bob"):
        (node.folder / "home" / name / "logs").mkdir(parents=True)
    node.mounts.append((f"{node.folder}/home/alice", "nfs4", "nas:/export/alice"))
    assert [one["network"] for one in node("home/*/logs/*.log")] == ["", "nfs4"]
    assert [one["network"] for one in node("home/**/*.log")] == ["", "nfs4"]
    assert [one["network"] for one in node("home/b*/logs/*.log")] == [""]


def test_identity_is_that_of_folder_and_pattern(node, monkeypatch):
    def identity(*paths: str, **more) -> str:
        (found,) = node(*paths, **more)
        return found["identity"]

    for name in ("a", "b"):
        (node.folder / name).mkdir()
    assert identity("a/*.log") == identity("a/*.log")
    different = [identity("a/*.log"), identity("b/*.log"), identity("a/x-*.log"), identity("a/*.log", exclude="/a/b*")]
    (node.folder / "link").symlink_to("a")
    assert identity("link/*.log") == identity("a/*.log")
    node.mounts.append((str(node.folder / "a"), "nfs", "nas:/one"))
    different.append(identity("a/*.log"))
    node.mounts[-1] = (str(node.folder / "a"), "nfs", "nas:/two")
    different.append(identity("a/*.log"))
    assert len(set(different)) == len(different)
    # A Mac has no folder in common with another one but by a network.
    node.mounts.pop()
    monkeypatch.setattr(host.system, "boot", lambda: "")
    assert identity("a/*.log") == ""


@pytest.mark.parametrize(
    ("origin", "same"),
    [
        ("nas:/export", "nas:/export 7 *.log"),
        ("[fd00::9]:/export", "[fd00::9]:/export 7 *.log"),
        ("//nas/share", "//nas/share 7 *.log"),
        ("//smol@nas/share", "//nas/share 7 *.log"),
        ("share", ""),
        ("/srv/share", ""),
        ("localhost:/export", ""),
        ("127.0.0.1:/export", ""),
        ("[::1]:/export", ""),
        ("//localhost/share", ""),
    ],
)
def test_only_a_server_that_all_know_by_its_name_is_the_same_for_two_nodes(origin, same):
    assert shared_folders.remote(origin, 7, "*.log") == same


def test_folder_that_does_not_answer_is_named_and_does_not_delay_the_others(node, monkeypatch):
    monkeypatch.setattr(shared_folders, "ANSWER", 2.0)
    real = shared_folders.examine

    def examine(source, pattern, user):
        if "/dead/" in pattern:
            time.sleep(3600)
        return real(source, pattern, user)

    monkeypatch.setattr(shared_folders, "examine", examine)
    found = node("a/*.log", "dead/*.log", "b/*.log")
    assert [one["answers"] for one in found] == [True, False]
    (note,) = shared_folders.notes(found, "promtail")
    assert "dead/*.log did not answer within 2 s: its file system may wait for a server" in note


def test_folder_that_a_server_hides_from_the_account_is_named(node, monkeypatch):
    node.mounts.append((str(node.folder), "nfs4", "nas:/export"))
    monkeypatch.setattr(shared_folders.accounts, "unreadable", lambda _path, _user: "/home/logs")
    (note,) = shared_folders.notes(node("*.log", shared="by_name"), "promtail")
    assert "the account promtail cannot read /home/logs. On NFS the server decides that" in note


def facts(machine: str, identity: str = "x", said: bool = False) -> dict:
    """Facts of a node with one folder."""
    entry = shared_folders.entry_of({"name": "train"}, "/srv/*.log", identity=identity) | {"said": said}
    return {"machine": machine, "hostname": machine, "folders": [entry]}


def test_same_folder_on_two_nodes_is_named_with_the_way_out():
    nodes = {"mini1": facts("a"), "mini2": facts("b"), "mini3": facts("c", "other"), "mini4": {}}
    (problem,) = shared.double("mini1", nodes)
    assert problem.startswith(
        "log source train: /srv/*.log is in a folder that this node shares with mini2, so every line arrives once for "
        "each of them. Set the key shared of the source: by_name"
    )
    assert "{node: mini1}" in problem
    assert shared.double("mini3", nodes) == shared.double("mini4", nodes) == []


@pytest.mark.parametrize(
    "nodes",
    [
        {"mini1": facts("a"), "mini2": facts("b", said=True)},
        {"mini1": facts("a", said=True), "mini2": facts("b", said=True)},
        {"mini1": facts("a", ""), "mini2": facts("b", "")},
        {"mini1": facts("a"), "other-name": facts("a")},
        {"mini1": facts("a")},
        {"mini1": facts("a"), "mini2": {"machine": "b"}},
    ],
)
def test_nothing_is_told_where_it_is_decided_unknown_or_one_machine(nodes):
    assert shared.double("mini1", nodes) == []


def test_only_the_named_node_watches_the_files():
    one = SOURCE | {"shared": {"node": "mini1"}}
    assert shared.watched([one, SOURCE], "mini1") == [one, SOURCE]
    assert shared.watched([one, SOURCE], "mini2") == [one | {"paths": []}, SOURCE]
    assert shared.watched([one, "no source"], "mini1") == [one]
    assert shared.watched(None, "mini1") == []


@pytest.mark.parametrize(
    ("path", "names", "carried"),
    [
        ("/worker-rank0-mini2.log", ["mini2"], True),
        ("/worker-rank0-Mini2.log.1", ["mini2"], True),
        ("/mini2/train.log", ["mini2"], True),
        ("/worker-rank0-mini20.log", ["mini2"], False),
        ("/worker-rank0-gemini2.log", ["mini2"], False),
        ("/worker-rank0-mini2.lan.log", ["mini2.lan"], True),
        ("/worker-rank0-mini2xlan.log", ["mini2.lan"], False),
        ("/worker.log", [], False),
        ("/worker.log", [""], False),
    ],
)
def test_name_in_a_path(path, names, carried):
    assert globs.carries(path, names) is carried


@pytest.mark.parametrize(
    ("other", "hostname", "words"),
    [
        ("mini2", "b", ""),
        ("mini1-b", "b", "the names mini1 and mini1-b cannot be distinguished"),
        ("mini2", "A", "the names a and a cannot be distinguished"),
    ],
)
def test_names_that_cannot_be_told_apart_are_refused(other, hostname, words):
    nodes = {"mini1": facts("a"), other: facts("b") | {"hostname": hostname}}
    problems = shared.name_problems([SOURCE | {"shared": "by_name"}], "mini1", nodes)
    assert [words in problem for problem in problems] == ([True] if words else [])
    assert shared.name_problems([SOURCE], "mini1", nodes) == []
