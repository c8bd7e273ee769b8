# Copyright (c) SmolCluster contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Opens log files that lie in folders of other accounts.

What was opened is checked, not what a path says: nobody can change an open file.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import stat

KINDS = {stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}


# What a name may have and a line of text may not, and what would look like the form that it is given here.
UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\udc80-\udcff]|\\(?=x[0-9a-f]{2})")


class RefusedError(Exception):
    """A file that the agent is not given; the text says why."""


def real_path(handle: int) -> str:
    """Path of an open file as the system knows it, without links."""
    if hasattr(fcntl, "F_GETPATH"):  # macOS
        return os.fsdecode(fcntl.fcntl(handle, fcntl.F_GETPATH, bytes(1024)).rstrip(b"\0"))
    return os.readlink(f"/proc/self/fd/{handle}")


def within(path: str, folders: list[str]) -> bool:
    """Whether a path lies below one of some folders."""
    return any(path.startswith(folder.rstrip("/") + "/") for folder in folders)


def resolve(folder: str) -> tuple[str, str | None]:
    """Path of a folder with those links followed that only root can change.

    Parameters:
        folder: absolute path; it need not exist.

    Returns:
        The path, and the first link in it that another account can change; none when there is no such link.
    """
    path, names, left, safe = "/", folder.strip("/").split("/"), 40, True
    while names:
        name, *names = names
        there = os.path.join(path, name)
        try:
            found, parent = os.lstat(there), os.stat(path)
        except OSError:
            return os.path.join(there, *names), None
        sticky = bool(parent.st_mode & stat.S_ISVTX)
        safe = safe and parent.st_uid == 0 and (sticky or not parent.st_mode & 0o022)
        if not stat.S_ISLNK(found.st_mode):
            path = there
            continue
        left -= 1
        if not left or not safe or (sticky and found.st_uid):
            return path, there
        # Only root's links come here, so `..` in them leads where root means.
        target = os.path.normpath(os.path.join(path, os.readlink(there)))
        path, names = "/", [*target.strip("/").split("/"), *names]
    return path, None


def link_owner(folder: str, path: str) -> int | None:
    """User whose link is the first one on the way from a folder to a path below it; none without a link."""
    for name in os.path.relpath(path, folder).split("/"):
        folder = os.path.join(folder, name)
        found = os.lstat(folder)
        if stat.S_ISLNK(found.st_mode):
            return found.st_uid
    return None


def printable(path: str) -> str:
    """A path as one line of UTF-8; other bytes and control characters become `\\xNN`. No two paths become the same."""
    text = os.fsencode(path).decode("utf-8", "surrogateescape")
    return UNPRINTABLE.sub(
        lambda found: "".join(f"\\x{byte:02x}" for byte in found[0].encode("utf-8", "surrogateescape")), text
    )


def explained(path: str, error: OSError) -> str:
    """Why a file could not be opened; empty when it has just gone."""
    if error.errno == errno.ENOENT:
        return "a link that leads nowhere" if os.path.islink(path) else ""
    if error.errno == errno.ELOOP:
        return "a link that leads to itself"
    return (error.strerror or str(error)).lower()


def folder_of(real: str, status: os.stat_result) -> os.stat_result:
    """Status of the folder in which an open file lies.

    Parameters:
        real: the file's path as the system knows it.
        status: the file's status.

    Raises:
        RefusedError: something else lies there. A process with mounts of its own (mount_namespaces(7)) chooses which
            path its files have, and lends them to others by links to `/proc/PID/root`.
        OSError: there is no such folder, or a link is on the way.
    """
    folder, name = os.path.split(real)
    if not hasattr(os, "O_PATH"):  # macOS has one tree of files only, and its folders need not be readable
        return os.lstat(folder)
    flags = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    here = os.open("/", flags)
    try:
        for part in folder.strip("/").split("/"):
            there = os.open(part or ".", flags, dir_fd=here)
            os.close(here)
            here = there
        if not os.path.samestat(os.stat(name, dir_fd=here, follow_symlinks=False), status):
            raise RefusedError("a link to a file that has no path on this machine")
        return os.fstat(here)
    finally:
        os.close(here)


def open_log(path: str, fixed: str, zone: str, common: list[str], follow: list[str]) -> tuple[int, os.stat_result]:
    """Open a file and check what was opened: nobody can change that any more.

    Parameters:
        path: its path as the pattern gives it.
        fixed: the pattern's folder, as it is written.
        zone: the same, links of root followed.
        common: folders in which files may lie.
        follow: further folders, which the user has named.

    Returns:
        The open file, and its status.

    Raises:
        RefusedError: it is not to be shipped; without a text it is nothing to speak of.
    """
    try:
        # Opening a FIFO or a device for reading may have effects; O_PATH opens nothing.
        probe = os.open(path, os.O_CLOEXEC | getattr(os, "O_PATH", os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY))
    except OSError as error:
        raise RefusedError(explained(path, error)) from error
    try:
        status, real = os.fstat(probe), real_path(probe)
        if stat.S_ISDIR(status.st_mode):
            raise RefusedError
        if not stat.S_ISREG(status.st_mode):
            raise RefusedError(f"{KINDS.get(stat.S_IFMT(status.st_mode), 'no file')}, not a regular file")
        straight = os.path.join(zone, os.path.relpath(path, fixed))
        if real != straight and not within(real, follow):
            if not within(real, common):
                raise RefusedError(
                    f"a link to {printable(real)}, outside the folders of the sources; `follow` allows it"
                )
            if link_owner(zone, straight) != status.st_uid:
                raise RefusedError(f"a link to {printable(real)}, a file of another account")
        folder = folder_of(real, status)
        if status.st_nlink > 1 and (status.st_uid != folder.st_uid or folder.st_mode & 0o002):
            raise RefusedError("a hard link to a file of another account")
        if hasattr(os, "O_PATH"):
            # The file's owner may hold a lease (fcntl(2)), for which an open would wait 45 seconds.
            handle = os.open(f"/proc/self/fd/{probe}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        else:  # open for reading already
            handle = os.dup(probe)
    except OSError as error:
        raise RefusedError(explained(path, error)) from error
    finally:
        os.close(probe)
    return handle, status
