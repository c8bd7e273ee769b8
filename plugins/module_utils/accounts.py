# Copyright (c) SmolCluster contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the accounts of this host may do: tried as the account, or read from owners and modes."""

from __future__ import annotations

import os
import pwd
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

# User ID and group ID that a Mac does not use. Not those of `nobody`, which are -2 on macOS.
STRANGER = 499


def number(user: str) -> int | None:
    """User ID of an account; None when it does not exist."""
    try:
        return pwd.getpwnam(user).pw_uid
    except KeyError:
        return None


def rights(user: str) -> tuple[int, int, list[int]]:
    """User ID, group ID and all group IDs of an account; a missing account gets IDs that have no rights."""
    try:
        account = pwd.getpwnam(user)
    except KeyError:
        return STRANGER, STRANGER, []
    # On macOS a process can have 16 groups; an account often has more.
    groups = os.getgrouplist(user, account.pw_gid)[: os.sysconf("SC_NGROUPS_MAX")]
    return account.pw_uid, account.pw_gid, groups


def may(user: str, action: Callable[[], object]) -> bool:
    """Whether an account may do something: tried in a child process with the rights of that account only.

    Parameters:
        user: the account.
        action: what to try; an OSError means that the account may not do it.
    """
    uid, gid, groups = rights(user)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.setgroups(groups)
            os.setgid(gid)
            os.setuid(uid)
            action()
            code = 0
        finally:
            # Nothing that belongs to the parent may run here: no clean-up, no output.
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@contextmanager
def acting_as(uid: int, gid: int) -> Iterator[None]:
    """Open files with the rights of an account; files that are open already stay usable.

    Parameters:
        uid: user ID of the account; nothing changes when it is the current one.
        gid: group ID of the account.
    """
    if uid == os.geteuid():
        yield
        return
    groups, before = os.getgroups(), os.getegid()
    try:
        os.setgroups([gid])
        os.setegid(gid)
        os.seteuid(uid)
        yield
    finally:
        os.seteuid(0)
        os.setegid(before)
        # macOS lists more groups of an account than it allows for a process.
        os.setgroups(groups[: os.sysconf("SC_NGROUPS_MAX")])


def unreadable(pattern: str, user: str) -> str | None:
    """Find the folder that an account cannot read.

    Parameters:
        pattern: path of log files, with wildcards.
        user: the account; one that does not exist yet counts as an account without groups.

    Returns:
        The folder of the files, if the account cannot list it; if that folder is missing, the nearest existing folder
        above it, if the account cannot enter it. None without a problem.
    """
    folder = Path(re.split(r"[*?[{]", pattern)[0].rpartition("/")[0] or "/")
    there = next(path for path in (folder, *folder.parents) if path.exists())

    def enter() -> None:
        os.stat(f"{there}/.")

    def read() -> None:
        enter()
        os.listdir(there)

    return None if may(user, read if there == folder else enter) else str(there)


def may_run(program: str, user: str) -> bool:
    """Whether an account may start a program.

    Parameters:
        program: its path.
        user: the account.
    """

    def look() -> None:
        if not os.access(program, os.X_OK):
            raise PermissionError(program)

    return may(user, look)


def of_root(path: str) -> bool:
    """Whether only root can change a program: the file, every link on the way to it, and every folder above it.

    Parameters:
        path: path of the program; False when it is missing.
    """
    pending, seen = [os.path.abspath(path)], set()
    while pending:
        part = pending.pop()
        if part in seen:
            continue
        seen.add(part)
        try:
            status = os.lstat(part)
            if stat.S_ISLNK(status.st_mode):
                # The mode of a link has no effect.
                folder = os.path.realpath(os.path.dirname(part))
                pending.append(os.path.normpath(os.path.join(folder, os.readlink(part))))
                shared = False
            else:
                # Group 0 is root's group. In a sticky folder nobody else can replace files of root.
                sticky = stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX
                by_group = status.st_mode & stat.S_IWGRP and status.st_gid
                shared = not sticky and bool(by_group or status.st_mode & stat.S_IWOTH)
        except OSError:
            return False
        if status.st_uid or shared:
            return False
        pending.append(os.path.dirname(part))
    return True
