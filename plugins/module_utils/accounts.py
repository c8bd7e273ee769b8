# Copyright (c) SmolCluster contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""What accounts of this host may do: tried as the account, or read from owners and modes."""

from __future__ import annotations

import os
import pwd
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

# Number of an account and a group that a Mac does not have. Not those of nobody, which macOS keeps as -2.
STRANGER = 499


def number(user: str) -> int | None:
    """Number of an account; none when it does not exist."""
    try:
        return pwd.getpwnam(user).pw_uid
    except KeyError:
        return None


def rights(user: str) -> tuple[int, int, list[int]]:
    """Numbers of an account, its group and all its groups; one that does not exist counts as one in no group."""
    try:
        account = pwd.getpwnam(user)
    except KeyError:
        return STRANGER, STRANGER, []
    # A process of macOS has 16 groups at most, an account often more.
    groups = os.getgrouplist(user, account.pw_gid)[: os.sysconf("SC_NGROUPS_MAX")]
    return account.pw_uid, account.pw_gid, groups


def may(user: str, action: Callable[[], object]) -> bool:
    """Whether an account may do something: done in a process of that account, without any right of root.

    Parameters:
        user: the account.
        action: what it does; an OSError means that it may not.
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
            # Nothing of the parent's may run here: no clean-up, no output.
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@contextmanager
def acting_as(uid: int, gid: int) -> Iterator[None]:
    """Open files with the rights of an account; what is open already keeps the rights it was opened with.

    Parameters:
        uid: number of the account; nothing changes for root.
        gid: number of its group.
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
        # macOS names more groups of an account than it lets a process have.
        os.setgroups(groups[: os.sysconf("SC_NGROUPS_MAX")])


def unreadable(pattern: str, user: str) -> str | None:
    """What keeps an account from reading log files.

    Parameters:
        pattern: path of the files, with wildcards.
        user: the account; one that is still to be made counts as one that is in no group.

    Returns:
        The folder that the account cannot list, or, where the files' own is missing, enter; none when all is well.
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
    """Whether root alone can change a program: the file, every link to it, and every folder above.

    Parameters:
        path: path of the program; one that is missing is nobody's.
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
                # The mode of a link means nothing.
                folder = os.path.realpath(os.path.dirname(part))
                pending.append(os.path.normpath(os.path.join(folder, os.readlink(part))))
                shared = False
            else:
                # Group 0 is root's. In a sticky folder nobody replaces what is root's.
                sticky = stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX
                by_group = status.st_mode & stat.S_IWGRP and status.st_gid
                shared = not sticky and bool(by_group or status.st_mode & stat.S_IWOTH)
        except OSError:
            return False
        if status.st_uid or shared:
            return False
        pending.append(os.path.dirname(part))
    return True
