"""Opening log files in folders of other accounts: what was opened counts, not what a path says."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
import time

import pytest
import safe_open

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can play several accounts")
SMOL, OTHER = 1234, 1235


@pytest.fixture
def place(shared_path):
    """A watched folder of an account in a folder of root, and files of others beside it."""
    logs = shared_path / "logs"
    logs.mkdir()
    os.chown(logs, SMOL, SMOL)
    for name, owner in (("own.log", SMOL), ("others.log", OTHER)):
        (logs / name).write_text(f"{name}\n")
        os.chown(logs / name, owner, owner)
    (shared_path / "secret").mkdir(0o700)
    (shared_path / "secret/key").write_text("key\n")
    return shared_path


def link(path, target, owner=SMOL):
    """Make a link of an account."""
    path.symlink_to(target)
    os.chown(path, owner, owner, follow_symlinks=False)
    return path


def opened(path, zone, common=None, follow=()) -> str:
    """First line of what is opened; why it is refused."""
    zone = str(zone)
    try:
        handle, _ = safe_open.open_log(str(path), zone, safe_open.resolve(zone)[0], common or [zone], list(follow))
    except safe_open.RefusedError as error:
        return str(error)
    with os.fdopen(handle) as file:
        return file.readline().strip()


def test_file_is_opened(place):
    assert opened(place / "logs/own.log", place / "logs") == "own.log"
    assert opened(place / "logs/others.log", place / "logs") == "others.log"  # training runs under any account


def test_links_of_an_account(place):
    logs = place / "logs"
    assert opened(link(logs / "a.log", "own.log"), logs) == "own.log"
    assert "another account" in opened(link(logs / "b.log", "others.log"), logs)
    assert "outside" in opened(link(logs / "c.log", place / "secret/key"), logs)
    assert opened(logs / "c.log", logs, follow=[str(place / "secret")]) == "key"
    assert "leads nowhere" in opened(link(logs / "d.log", "/nowhere"), logs)
    assert "itself" in opened(link(logs / "e.log", "e.log"), logs)
    assert opened(logs / "none.log", logs) == ""


def test_folder_that_became_a_link_between_look_and_open(place):
    zone = str(place / "logs")
    (place / "logs").rename(place / "away")
    link(place / "logs", "secret")
    with pytest.raises(safe_open.RefusedError):
        safe_open.open_log(f"{zone}/key", zone, zone, [zone], [])


def test_hard_link_to_a_file_of_another_account(place):
    os.link(place / "secret/key", place / "logs/key.log")
    assert "a hard link" in opened(place / "logs/key.log", place / "logs")
    os.link(place / "logs/own.log", place / "logs/again.log")
    assert opened(place / "logs/again.log", place / "logs") == "own.log"


def test_name_that_looks_like_a_removed_file(place):
    logs = place / "logs"
    assert "outside" in opened(link(logs / "own.log (deleted)", place / "secret/key"), logs)


def test_links_of_root_are_followed_and_those_of_others_are_not(place):
    (place / "disk").symlink_to("logs")
    assert safe_open.resolve(f"{place}/disk/x") == (f"{place}/logs/x", None)
    assert opened(place / "disk/own.log", place / "disk", [str(place / "logs")]) == "own.log"
    link(place / "logs/latest", "session")
    assert safe_open.resolve(f"{place}/logs/latest/x") == (f"{place}/logs", f"{place}/logs/latest")
    # In a folder where everybody may make files, root's links are its own.
    shared = place / "tmp"
    shared.mkdir()
    shared.chmod(0o1777)
    link(shared / "of-smol", place / "secret")
    (shared / "of-root").symlink_to(place / "logs")
    assert safe_open.resolve(str(shared / "of-smol"))[1] == str(shared / "of-smol")
    assert safe_open.resolve(str(shared / "of-root")) == (str(place / "logs"), None)
    # A folder that an account may change can have anybody's links.
    (place / "logs/of-root").symlink_to(place / "secret")
    assert safe_open.resolve(f"{place}/logs/of-root")[1] == f"{place}/logs/of-root"


def test_file_that_is_swapped_for_a_link_while_it_is_opened(place):
    logs, done = place / "logs", threading.Event()
    path = logs / "swap.log"

    def swap():
        while not done.is_set():
            link(logs / "swap.link", place / "secret/key")
            os.replace(logs / "swap.link", path)
            (logs / "swap.file").write_text("own\n")
            os.replace(logs / "swap.file", path)

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        found = {opened(path, logs) for _ in range(3000)}
    finally:
        done.set()
        thread.join()
    assert "key" not in found
    assert "own" in found


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (b"plain \xc3\xa9.log", "plain é.log"),
        (b"\xff.log", r"\xff.log"),
        (rb"\xff.log", r"\x5cxff.log"),
        (b"a\nb\x1b[31m.log", r"a\x0ab\x1b[31m.log"),
        ("\u2028\x85.log".encode(), r"\xe2\x80\xa8\xc2\x85.log"),
        (rb"back\slash.log", r"back\slash.log"),
    ],
)
def test_every_path_is_shown_as_one_line_of_its_own(name, shown):
    assert safe_open.printable(os.fsdecode(name)) == shown


LEASE = f"""
import fcntl, os, signal, sys
handle = os.open(sys.argv[1], os.O_RDWR)
os.setuid({SMOL})
signal.signal(signal.SIGIO, signal.SIG_IGN)
fcntl.fcntl(handle, fcntl.F_SETLEASE, fcntl.F_WRLCK)
print("held", flush=True)
sys.stdin.read()
"""


def test_lease_of_an_account_does_not_stop_the_program(place):
    path = place / "logs/own.log"
    process = subprocess.Popen(
        [sys.executable, "-c", LEASE, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        if process.stdout.readline() != "held\n":
            pytest.skip("this file system has no leases")
        before = time.monotonic()
        assert opened(path, place / "logs") == os.strerror(errno.EAGAIN).lower()
        assert time.monotonic() - before < 5
    finally:
        process.communicate("")


def test_path_in_the_mounts_of_another_process(place):
    path = place / "logs/x.log"
    (place / "secret").chmod(0o755)
    (place / "secret/key").chmod(0o600)
    # Ends at once where it may not mount, which closes its output.
    mounts = f"mount -t tmpfs none {place}/logs; touch {path}; mount --bind {place}/secret/key {path}"
    script = f"set -e; {mounts}; echo up; read _"
    process = subprocess.Popen(
        ["setpriv", f"--reuid={SMOL}", f"--regid={SMOL}", "--clear-groups", "unshare", "-Urm", "sh", "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        if process.stdout.readline() != "up\n":
            pytest.skip("accounts have no mounts of their own here")
        link(path, f"/proc/{process.pid}/root{path}")
        assert "no path on this machine" in opened(path, place / "logs")
    finally:
        process.communicate("\n")


def test_hard_link_where_everybody_may_make_one(place):
    (place / "logs").chmod(0o1777)
    os.chown(place / "logs", 0, 0)
    os.link(place / "secret/key", place / "logs/key.log")
    assert "a hard link" in opened(place / "logs/key.log", place / "logs")


def test_hard_link_in_a_folder_that_is_swapped_for_one_of_its_owner(place, monkeypatch):
    os.link(place / "secret/key", place / "logs/key.log")
    real_path = safe_open.real_path

    def swapped(handle):
        found = real_path(handle)
        (place / "logs").rename(place / "away")
        link(place / "logs", "secret")
        return found

    monkeypatch.setattr(safe_open, "real_path", swapped)
    assert opened(place / "logs/key.log", place / "logs") != "key"
