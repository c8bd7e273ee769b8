"""One folder that two nodes share: who ships its files is asked for, and then each line arrives once."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from lab import hosts, images
from lab.shell import run
from tests.lab.harness import MINIS, Lab

FOLDER = "/srv/shared"
FIRST, SECOND = MINIS[:2]
BOTH = ("--limit", f"{FIRST.name},{SECOND.name}")
# Mounts a copy of its own /shared in other containers, by their processes: open_tree(2), setns(2), move_mount(2).
SHARE = f"""
import ctypes, os, sys
system = ctypes.CDLL(None, use_errno=True)
def call(number, *words):
    found = system.syscall(number, *words)
    if found < 0:
        raise OSError(ctypes.get_errno(), f"system call {{number}}")
    return found
OPEN_TREE, MOVE_MOUNT, HERE = 428, 429, -100
own = os.open("/proc/self/ns/mnt", os.O_RDONLY)
for pid in sys.argv[1:]:
    tree = call(OPEN_TREE, HERE, b"/shared", 1)
    other = os.open(f"/proc/{{pid}}/ns/mnt", os.O_RDONLY)
    if system.setns(other, 0x20000):
        raise OSError(ctypes.get_errno(), "setns")
    os.makedirs("{FOLDER}", exist_ok=True)
    call(MOVE_MOUNT, tree, b"", HERE, b"{FOLDER}", 4)
    system.setns(own, 0x20000)
"""


@pytest.fixture(scope="module", autouse=True)
def folder(lab: Lab) -> Iterator[None]:
    """The folder is mounted in two minis; at the end, these have the usual sources again."""
    pids = [hosts.inspect(mini, ".State.Pid") for mini in (FIRST, SECOND)]
    helper = ["docker", "run", "--rm", "--pid=host", "--network=none", *hosts.RIGHTS, "--tmpfs=/shared:mode=1777"]
    run([*helper, "--entrypoint=python3", images.of_host(FIRST.role, FIRST.suite), "-c", SHARE, *pids])
    yield
    for mini in (FIRST, SECOND):
        lab.on(mini, f"umount --lazy {FOLDER} && rmdir {FOLDER}")
    lab.deploy("--tags", "promtail", *BOTH)


def source(name: str, **more) -> dict:
    """Variables with one source in the folder; the nodes have different zones, so training writes UTC."""
    paths = [f"{FOLDER}/{name}/worker-*.log"]
    return {
        "promtail_sources": [
            {"name": "shared", "paths": paths, "format": "smolcluster", "labels": {"job": "shared"}, "timezone": "UTC"}
            | more
        ]
    }


def write(lab: Lab, name: str) -> dict[str, str]:
    """Write one line per rank, each on its own node; node by text of the line."""
    found = {}
    for rank, mini in enumerate((FIRST, SECOND)):
        text = f"{name} of {mini.name} {time.time_ns()}"
        line = f"$(date -u '+%Y-%m-%d %H:%M:%S'),000 | INFO | rank:{rank} | {text}"
        path = f"{FOLDER}/{name}/worker-rank{rank}-{mini.name}.log"
        lab.on(mini, f'mkdir -p -m 1777 {FOLDER}/{name}; echo "{line}" >> {path}')
        found[text] = mini.name
    return found


def arrived(lab: Lab, name: str, count: int) -> dict[str, list[str]]:
    """Nodes by text of the line, once at least `count` lines have arrived."""
    found: dict[str, list[str]] = {}
    for _time, line, labels in lab.entries(f'{{job="shared"}} |= "| {name} of"', count):
        found.setdefault(line.rpartition(" | ")[2], []).append(labels["node"])
    return found


def test_nodes_that_would_ship_the_same_files_are_refused(lab: Lab):
    write(lab, "undecided")
    play = lab.play("site.yml", "--tags", "promtail", *BOTH, **source("undecided"))
    for mini, other in ((FIRST, SECOND), (SECOND, FIRST)):
        words = f"is in a folder that this node shares with {other.name}, so every line arrives once for each of them"
        play.refused(mini.name, words, "Set the key shared of the source", f"{{node: {mini.name}}}")
    status = lab.play("playbooks/status.yml", *BOTH, status_strict=True, **source("undecided"))
    assert status.code != 0
    assert f"is in a folder that this node shares with {SECOND.name}" in " ".join(status.output.split())


def test_each_node_ships_the_files_with_its_name(lab: Lab):
    lab.deploy("--tags", "promtail", *BOTH, **source("named", shared="by_name"))
    written = write(lab, "named")
    verify = lab.play("playbooks/verify.yml", *BOTH, **source("named", shared="by_name"))
    assert verify.code == 0, verify.output
    assert "Paths: 2 proven, 0 not probed, 0 failed" in verify.output
    assert arrived(lab, "named", len(written)) == {text: [node] for text, node in written.items()}
    status = lab.play("playbooks/status.yml", *BOTH, status_strict=True, **source("named", shared="by_name"))
    assert status.code == 0, status.output


def test_one_node_ships_all_files(lab: Lab):
    chosen = source("one", shared={"node": SECOND.name})
    lab.deploy("--tags", "promtail", *BOTH, **chosen)
    written = write(lab, "one")
    verify = lab.play("playbooks/verify.yml", *BOTH, **chosen)
    assert verify.code == 0, verify.output
    assert "Paths: 1 proven, 0 not probed, 0 failed" in verify.output
    assert arrived(lab, "one", len(written)) == {text: [SECOND.name] for text in written}
