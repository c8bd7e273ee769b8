"""What accounts can put into a watched folder: it stops nothing else, and ships nothing that is not theirs."""

from __future__ import annotations

import json
import time

import pytest

from lab.shell import wait_for
from tests.faults.harness import ELSEWHERE, FOLDER
from tests.faults.test_files import arrived, lines, stamp
from tests.lab.harness import LOGS, MINIS

MINI = MINIS[0]
# What must never be in Loki has this in it.
MARKED = "of-somebody-else-7c1d"


def report(cluster) -> dict[str, str]:
    """Reasons of the files that are not shipped, by their path."""
    refused = json.loads(cluster.on(MINI, "cat /run/promtail/watch.json"))["refused"]
    return {one["path"]: one["reason"] for one in refused}


def left_out(cluster) -> list[str]:
    """Files of which a line was too long."""
    return [one["path"] for one in json.loads(cluster.on(MINI, "cat /run/promtail/watch.json"))["left_out"]]


def is_refused(cluster, path: str, why: str) -> None:
    """Wait until the watcher says why a file is not shipped."""
    wait_for(lambda: why in report(cluster).get(path, ""), f"{path} is refused: {why}", 20)


def nothing_secret(cluster) -> None:
    """Loki has no line with the secret, on any node."""
    assert cluster.entries(f'{{job=~".+"}} |= "{MARKED}"', 0) == []


@pytest.fixture
def of_others(cluster):
    """Files that nobody but their owners may read: root's, and another account's in /tmp."""
    cluster.on(
        MINI,
        f"mkdir -p -m 0700 /root/secret && echo {MARKED} > /root/secret/file.log; cp -r /root/secret /data-secret; "
        f"id other >/dev/null 2>&1 || useradd --create-home other; "
        f"umask 077; echo {MARKED} > /tmp/of-other.log; chown other /tmp/of-other.log; "
        f"mkdir -p -m 1777 {FOLDER} {LOGS}; cd {FOLDER}; "
        f"echo {MARKED} > private-of-other; chown other private-of-other",
    )
    yield
    cluster.on(MINI, f"rm -rf /root/secret /data-secret /tmp/of-other.log {FOLDER}/private-of-other; userdel -r other")


@pytest.mark.usefixtures("of_others")
@pytest.mark.parametrize(
    ("target", "why"),
    [
        ("/root/secret/file.log", "outside the folders of the sources"),
        ("/data-secret/file.log", "outside the folders of the sources"),
        ("/tmp/of-other.log", "outside the folders of the sources"),
        ("/proc/self/environ", "outside the folders of the sources"),
        ("private-of-other", "a file of another account"),
        ("/nowhere", "leads nowhere"),
    ],
)
def test_link_ships_nothing_of_others(cluster, training, target, why):
    """A link to another account's file in a watched folder: nothing is shipped, and the watcher says why"""
    path, mark = f"{FOLDER}/worker-rank0-{training.run}.log", training.run
    cluster.on(MINI, f"su smol -s /bin/sh -c 'ln -s {target} {path}'")
    is_refused(cluster, path, why)
    # Another file of the folder goes on meanwhile.
    other = f"{FOLDER}/worker-rank1-{training.run}.log"
    cluster.on(MINI, f"cat > {other}", data=lines(stamp(cluster), mark, 20))
    assert arrived(cluster, training, mark, 20) == list(range(20))
    nothing_secret(cluster)
    # The link becomes a file, and is one like any other.
    cluster.on(MINI, f"rm {path}; cat > {path}", data=lines(stamp(cluster), mark, 20, first=20))
    assert arrived(cluster, training, mark, 40) == list(range(40))


@pytest.mark.usefixtures("of_others")
def test_file_is_swapped_for_a_link_again_and_again(cluster, training):
    """A file that turns into a link and back 2,000 times while the watcher looks: only its own lines are shipped"""
    path, mark = f"{FOLDER}/worker-rank0-{training.run}.log", training.run
    swap = f"""
import os
path = "{path}"
for number in range(2000):
    os.symlink("/root/secret/file.log", path + ".link")
    os.replace(path + ".link", path)
    with open(path + ".file", "w") as file:
        file.write({lines(stamp(cluster), mark, 1)!r})
    os.replace(path + ".file", path)
    os.unlink(path)
    os.symlink("/root/secret/file.log", path + " (deleted)")
    os.unlink(path + " (deleted)")
with open(path, "w") as file:
    file.write({lines(stamp(cluster), mark, 20)!r})
"""
    cluster.on(MINI, "su smol -s /bin/sh -c 'python3 -'", data=swap)
    assert set(arrived(cluster, training, mark, 20)) == set(range(20))
    nothing_secret(cluster)


@pytest.mark.usefixtures("of_others")
def test_hard_link_to_a_file_of_another_account(cluster, training):
    """A hard link to another account's file ships nothing"""
    path = f"{FOLDER}/worker-rank0-{training.run}.log"
    # By root, for the kernel of a real host may forbid it to others (fs.protected_hardlinks).
    cluster.on(MINI, f"ln {FOLDER}/private-of-other {path}")
    is_refused(cluster, path, "a hard link")
    nothing_secret(cluster)


@pytest.mark.usefixtures("of_others")
def test_folder_is_swapped_for_a_link(cluster, training):
    """The watched folder itself becomes a link to a folder of root, and back"""
    mark = training.run
    cluster.on(
        MINI,
        f"cp /root/secret/file.log /root/secret/worker-1.log; mv {LOGS} {LOGS}.away; "
        f"su smol -s /bin/sh -c 'ln -s /root/secret {LOGS}'",
    )
    is_refused(cluster, LOGS, "a link to /root/secret")
    cluster.on(MINI, f"rm {LOGS}; mv {LOGS}.away {LOGS}")
    path = f"{LOGS}/worker-rank0-{training.run}.log"
    cluster.on(MINI, f"cat > {path}", data=lines(stamp(cluster), mark, 20))
    assert arrived(cluster, training, mark, 20) == list(range(20))
    cluster.on(MINI, f"rm {path}")
    nothing_secret(cluster)


def test_session_link_is_set_anew(cluster, training):
    """A link in the fixed part of a path, as Ray's to its latest session, changes while the agent runs"""
    mark, top = training.run, f"{ELSEWHERE}/ray"
    made = "su smol -s /bin/sh -c 'mkdir -p {top}/session_{n}/logs; ln -sfn session_{n} {top}/session_latest'"
    cluster.on(MINI, f"mkdir -p -m 1777 {ELSEWHERE}")
    for number in range(2):
        cluster.on(MINI, made.format(top=top, n=number))
        log = f"{top}/session_latest/logs/worker-rank0-{training.run}.log"
        cluster.on(MINI, f"cat > {log}", data=lines(stamp(cluster), mark, 20, first=20 * number))
        assert arrived(cluster, training, mark, 20 * (number + 1)) == list(range(20 * (number + 1)))
    cluster.on(MINI, f"rm -rf {top}")


NAMES = {
    "no UTF-8": b"caf\xe9",
    "a line feed": b"a\nb",
    "wildcards": b"[a]*{b}?",
    "quotes and a backslash": b"\"'\\",
    "a colon and a space": b": #",
    "200 bytes that are no UTF-8": b"\xe9" * 200,
}


@pytest.mark.parametrize("name", NAMES)
def test_strange_name(cluster, training, name):
    """A file with an unusual name is shipped, and other files are, too"""
    mark, strange = training.run, f"{FOLDER}/worker-".encode() + NAMES[name] + f"-{training.run}.log".encode()
    other = f"{FOLDER}/worker-rank1-{training.run}.log"
    text = lines(stamp(cluster), mark, 20)
    cluster.on(MINI, f"mkdir -p -m 1777 {FOLDER}; python3 -", data=f"open({strange!r}, 'w').write({text!r})")
    cluster.on(MINI, f"cat > {other}", data=lines(stamp(cluster), mark, 20, first=20))
    assert arrived(cluster, training, mark, 40) == list(range(40))
    # A restart, too, keeps where it was.
    cluster.on(MINI, "systemctl restart promtail")
    cluster.on(MINI, f"cat >> {other}", data=lines(stamp(cluster), mark, 20, first=40))
    assert arrived(cluster, training, mark, 60) == list(range(60))


def test_what_is_no_file_does_not_fill_the_journal(cluster, training):
    """Links that lead nowhere, FIFOs and folders under watched names: no error every two seconds"""
    run = training.run
    cluster.on(
        MINI,
        f"mkdir -p -m 1777 {FOLDER}; cd {FOLDER}; ln -s /nowhere worker-1-{run}.log; mkfifo worker-2-{run}.log; "
        f"mkdir worker-3-{run}.log; ln -s worker-4-{run}.log worker-4-{run}.log",
    )
    is_refused(cluster, f"{FOLDER}/worker-1-{run}.log", "leads nowhere")
    is_refused(cluster, f"{FOLDER}/worker-2-{run}.log", "a FIFO")
    is_refused(cluster, f"{FOLDER}/worker-4-{run}.log", "itself")
    begin = int(time.time())
    cluster.on(MINI, f"cat > {FOLDER}/worker-5-{run}.log", data=lines(stamp(cluster), run, 20))
    assert arrived(cluster, training, run, 20) == list(range(20))
    said = cluster.on(MINI, f"journalctl -u promtail --since @{begin} --output=cat | grep -v level=info; true")
    assert said == ""


@pytest.mark.parametrize("kind", ["hole", "progress bar", "no end yet"])
def test_line_that_is_larger_than_the_memory(cluster, training, kind):
    """A line of 400 MB, as a hole of a sparse file, a progress bar or without an end: other files are still shipped"""
    mark, path = training.run, f"{FOLDER}/worker-rank0-{training.run}.log"
    cluster.on(MINI, f"mkdir -p -m 1777 {FOLDER}")
    before = cluster.agent_pid(MINI)
    if kind == "hole":
        cluster.on(MINI, f"truncate -s 400M {path}; cat >> {path}", data=lines(stamp(cluster), mark, 20))
    else:
        end = lines(stamp(cluster), mark, 20) if kind == "progress bar" else ""
        cluster.on(MINI, rf"yes '{'x' * 98}' | tr '\n' '\r' | head -c 400000000 > {path}")
        cluster.on(MINI, f"printf '\\r' >> {path}; cat >> {path}", data=end)
    other = f"{FOLDER}/worker-rank1-{training.run}.log"
    cluster.on(MINI, f"cat > {other}", data=lines(stamp(cluster), f"{mark}-other", 20))
    assert arrived(cluster, training, f"{mark}-other", 20) == list(range(20))
    if kind != "no end yet":
        assert arrived(cluster, training, mark, 20) == list(range(20))
        wait_for(lambda: path in left_out(cluster), "the watcher reports the line", 20)
    assert cluster.agent_pid(MINI) == before


# Expressions of RE2 that Python does not know, or reads in another way; all match the lines of these tests.
FIRST_LINES = [
    r"^\d{4}-",
    r"^[[:digit:]]{4}-",
    r"^\pN",
    r"^(?P<year>\d{4})-",
    r"^(?<year>\d{4})-",
    r"\d(?i)-\d",
    r"^\x{32}",
    r"^2.*n=\d+\z",
    r"^\Q2\E",
]


def test_any_first_line_of_re2(cluster, training):
    """`firstline` in any syntax of RE2: the agent starts, and loses nothing when it is killed"""
    others = [
        {"regex": {"expression": r"^(?P<time>\S+ \S+) "}},
        {"timestamp": {"source": "time", "format": "2006-01-02 15:04:05,000", "location": "Local"}},
    ]
    sources = [
        {
            "name": f"own-{number}",
            "paths": [f"{FOLDER}/own-{number}-*.log"],
            "format": [{"multiline": {"firstline": expression, "max_wait_time": "50ms"}}, *others],
            "labels": {"job": f"own-{number}"},
        }
        for number, expression in enumerate(FIRST_LINES)
    ]
    marks = [f"{training.run}-{number}" for number in range(len(sources))]
    try:
        cluster.deploy("--tags", "promtail", "--limit", MINI.name, promtail_sources=sources)
        for first in (0, 50):
            for number, mark in enumerate(marks):
                log = f"{FOLDER}/own-{number}-{training.run}.log"
                text = lines(stamp(cluster), mark, 50, first=first)
                cluster.on(MINI, f"mkdir -p -m 1777 {FOLDER}; cat >> {log}", data=text)
            for mark in marks:
                assert arrived(cluster, training, mark, first + 50) == list(range(first + 50))
            cluster.on(MINI, "pkill -9 -x promtail")
    finally:
        cluster.deploy("--tags", "promtail", "--limit", MINI.name)
