# Copyright (c) SmolCluster contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Folders of log sources that several nodes can share: on a network file system, or from one machine below.

A folder has an identity that two nodes can compare. On a network file system it is the server's name for what is
mounted, and the inode there; otherwise the kernel's boot, the device and the inode, which containers of one machine
have in common.
"""

from __future__ import annotations

import json
import os
import re
import select
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from ansible_collections.smolcluster.logging.plugins.module_utils import accounts, globs, host

# Types as in /proc/self/mountinfo and in mount(8) of macOS.
NETWORK = frozenset(
    "9p afpfs afs beegfs ceph cifs fuse.ceph fuse.ceph-fuse fuse.glusterfs fuse.juicefs fuse.rclone fuse.s3fs "
    "fuse.sshfs fuse.vmhgfs-fuse gfs2 glusterfs gpfs lustre nfs nfs4 ocfs2 orangefs prl_fs smb3 smbfs vboxsf "
    "virtiofs webdav".split()
)
# There the server decides what an account may read; a capability of the node does not count.
NFS = ("nfs", "nfs4")
# Seconds in which a folder must answer. With a mount that waits for a server, it may never.
ANSWER = 5.0
PAGE = "docs/sources.md#folders-that-nodes-share"


def machine() -> str:
    """What is the same for two names of one node, and different for two nodes."""
    return f"{host.system.boot()} {os.uname().nodename}"


def look(sources: list[dict[str, Any]], user: str) -> list[dict[str, Any]]:
    """What is known of the folders of sources.

    Parameters:
        sources: log sources; of each `name`, `paths`, `exclude` and `shared` are used.
        user: account of the agent.

    Returns:
        For each path, and for each network file system below it: `source`, `path`, `answers` (whether the folder
        answered; without an answer, nothing more is known, and later paths are left out), `network` (type of the file
        system; empty for another one), `origin` (what is mounted), `identity` (equal on two nodes only if they share
        the files; empty if unknown), `said` (whether the source has the key `shared`), and `unreadable` (folder that
        the account cannot read on NFS; empty without one).
    """
    wanted = [
        (source, pattern) for source in sources for path in source.get("paths") or [] for pattern in patterns_of(path)
    ]
    found: list[dict[str, Any]] = []
    answered = 0
    for entries in _in_time(wanted, user):
        found += entries
        answered += 1
    if answered < len(wanted):
        source, pattern = wanted[answered]
        found.append(entry_of(source, pattern) | {"answers": False})
    return found


def patterns_of(path: Any) -> list[str]:
    """Patterns of a path without `{…}`; none if it is not valid, which other checks name."""
    try:
        globs.check(path)
        return globs.alternatives(path) if path.startswith("/") else []
    except (globs.PatternError, TypeError, AttributeError):
        return []


def entry_of(source: dict[str, Any], pattern: str, **known: Any) -> dict[str, Any]:
    """What is known of a folder; see `look`."""
    nothing = {"answers": True, "network": "", "origin": "", "identity": "", "unreadable": ""}
    said = {"source": str(source.get("name")), "path": pattern, "said": "shared" in source}
    return said | nothing | known


def _in_time(wanted: list[tuple[dict[str, Any], str]], user: str) -> Iterator[list[dict[str, Any]]]:
    """Entries of each pattern, as long as its folder answers in time; a child process, which can be killed, looks.

    Parameters:
        wanted: sources and patterns.
        user: account of the agent.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setsid()
            os.close(reader)
            with os.fdopen(writer, "w") as stream:
                for source, pattern in wanted:
                    stream.write(json.dumps(examine(source, pattern, user)) + "\n")
                    stream.flush()
        finally:
            # Nothing that belongs to the parent may run here: no clean-up, no output.
            os._exit(0)
    os.close(writer)
    try:
        with os.fdopen(reader, "rb", buffering=0) as stream:
            pending, end = b"", time.monotonic() + ANSWER
            while select.select([stream], [], [], max(0.0, end - time.monotonic()))[0]:
                block = stream.read(65536)
                if not block:
                    os.waitpid(child, 0)
                    child = 0
                    return
                *lines, pending = (pending + block).split(b"\n")
                for line in lines:
                    end = time.monotonic() + ANSWER
                    yield json.loads(line)
    finally:
        # A process that waits for a server may end later; the parent must not wait for it. One that has ended is not
        # killed: its ID may be that of another process now.
        if child:
            with suppress(ProcessLookupError, ChildProcessError):
                os.killpg(child, signal.SIGKILL)
                os.waitpid(child, os.WNOHANG)


def examine(source: dict[str, Any], pattern: str, user: str) -> list[dict[str, Any]]:
    """What is known of one path; see `look`. It may wait for a server without end.

    Parameters:
        source: the source.
        pattern: a path of it without `{…}`.
        user: account of the agent.
    """
    fixed = globs.fixed_part(pattern)
    names_below = pattern.strip("/").split("/")[len(fixed.strip("/").split("/")) if fixed != "/" else 0 :]
    folder, missing = os.path.realpath(fixed), []
    while True:
        try:
            status = os.stat(folder)
            break
        except OSError:  # missing, or not to be seen even for root
            folder, name = os.path.split(folder)
            missing.insert(0, name)
    # Looked up after the folder, because that can mount it.
    mounts = host.system.mounts()
    above = [mount for mount in mounts if within(folder, mount[0])]
    _path, kind, origin = max(above, key=lambda mount: len(mount[0]), default=("/", "", ""))
    rest = "/".join([*missing, *names_below, str(source.get("exclude") or "")])
    if kind in NETWORK:
        unreadable = accounts.unreadable(pattern, user) if kind in NFS else None
        known = {"network": kind, "origin": origin, "unreadable": unreadable or ""}
        return [entry_of(source, pattern, identity=remote(origin, status.st_ino, rest), **known)]
    boot = host.system.boot()
    identity = f"{boot} {status.st_dev} {status.st_ino} {rest}" if boot else ""
    found = [entry_of(source, pattern, identity=identity)]
    for path, kind, origin in mounts:
        below = os.path.relpath(path, folder).split("/") if within(path, folder) and path != folder else []
        if kind in NETWORK and below and globs.reaches([*missing, *names_below], below):
            identity = remote(origin, "/".join(below), rest)
            found.append(entry_of(source, pattern, network=kind, origin=origin, identity=identity))
    return found


def remote(origin: str, *parts: object) -> str:
    """Identity of a folder on a server; empty if no server is named that others know, too.

    Parameters:
        origin: what is mounted: `nas:/export`, `//smol@nas/share`, or a name that only one machine knows.
        parts: which folder and which files it is.
    """
    origin = re.sub(r"^//[^/@]*@", "//", origin)
    if not re.match(r"//|[^/]+:", origin) or re.match(r"(?://)?\[?(?:localhost|127\.|::1)", origin):
        return ""
    return " ".join(map(str, (origin, *parts)))


def within(path: str, folder: str) -> bool:
    """Whether a path is a folder itself or below it."""
    return (path + "/").startswith(folder.rstrip("/") + "/")


def mounted(entry: dict[str, Any]) -> str:
    """What is mounted, in brackets; empty for a local file system."""
    return f" ({entry['network']}, {entry['origin']})" if entry["network"] else ""


def notes(folders: list[dict[str, Any]], user: str) -> list[str]:
    """Notes on folders that other nodes may have, too, or that cannot be read.

    Parameters:
        folders: see `look`.
        user: account of the agent.
    """
    found = []
    for entry in folders:
        where = f"log source {entry['source']}: {entry['path']}"
        if not entry["answers"]:
            found.append(
                f"{where} did not answer within {ANSWER:.0f} s: its file system may wait for a server. The agent waits "
                "as well, also with the files of other sources. Check the mount and its server"
            )
        if entry["network"] and not entry["said"]:
            found.append(
                f"{where} is on a network file system{mounted(entry)}. If other nodes have the same files, every line "
                f"arrives once for each of them: set the key shared of the source, or shared: false if not ({PAGE})"
            )
        if entry["unreadable"]:
            found.append(
                f"{where}: the account {user} cannot read {entry['unreadable']}. On NFS the server decides that, "
                "whatever rights the agent has on this node. Set promtail_user to the account that trains"
            )
    return found
