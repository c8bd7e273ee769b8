# Copyright (c) SmolCluster contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Open log files in folders of other accounts.

The open file is checked, not its path: another account can replace a path, but not a file that is already open.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import stat

KINDS = {stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}


# Characters that a file name can have and a line of text must not, and backslashes that would look like an escape.
UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\udc80-\udcff]|\\(?=x[0-9a-f]{2})")


class RefusedError(Exception):
    """A file that is not shipped; the text says why."""


def real_path(handle: int) -> str:
    """Path of an open file as the system reports it, without links."""
    if hasattr(fcntl, "F_GETPATH"):  # macOS
        return os.fsdecode(fcntl.fcntl(handle, fcntl.F_GETPATH, bytes(1024)).rstrip(b"\0"))
    return os.readlink(f"/proc/self/fd/{handle}")


def within(path: str, folders: list[str]) -> bool:
    """Whether a path is below one of some folders."""
    return any(path.startswith(folder.rstrip("/") + "/") for folder in folders)


def resolve(folder: str) -> tuple[str, str | None]:
    """Path of a folder, following only links that only root can change.

    Parameters:
        folder: absolute path; it need not exist.

    Returns:
        The path, and the first link in it that another account can change; None without such a link.
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
        # Only links of root get here, so `..` in them can be resolved without checks.
        target = os.path.normpath(os.path.join(path, os.readlink(there)))
        path, names = "/", [*target.strip("/").split("/"), *names]
    return path, None


def link_owner(folder: str, path: str) -> int | None:
    """Owner of the first link on the way from a folder to a path below it; None without a link."""
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
    """Why a file could not be opened; empty when it was just removed."""
    if error.errno == errno.ENOENT:
        return "a link that leads nowhere" if os.path.islink(path) else ""
    if error.errno == errno.ELOOP:
        return "a link that leads to itself"
    return (error.strerror or str(error)).lower()


def folder_of(real: str, status: os.stat_result) -> os.stat_result:
    """Status of the folder of an open file.

    Parameters:
        real: the file's path as the system reports it.
        status: the file's status.

    Raises:
        RefusedError: another file has this path. A process with its own mounts (mount_namespaces(7)) decides which
            paths its files have, and others can reach them by links to `/proc/PID/root`.
        OSError: the folder is missing, or there is a link on the way.
    """
    folder, name = os.path.split(real)
    if not hasattr(os, "O_PATH"):  # macOS has a single file tree, and its folders may not be readable
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
    """Open a file, then check the open file, which nobody can replace.

    Parameters:
        path: path of the file, as found with the pattern.
        fixed: folder of the pattern, as written.
        zone: the same folder, with links of root followed.
        common: folders that may contain log files.
        follow: more folders, from the settings.

    Returns:
        The open file, and its status.

    Raises:
        RefusedError: it must not be shipped; without a text this is not worth a report.
    """
    try:
        # Opening a FIFO or a device for reading may have side effects; O_PATH has none.
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
            # Without O_NONBLOCK, an open would wait up to 45 seconds for a lease of the owner (fcntl(2)).
            handle = os.open(f"/proc/self/fd/{probe}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        else:  # already open for reading
            handle = os.dup(probe)
    except OSError as error:
        raise RefusedError(explained(path, error)) from error
    finally:
        os.close(probe)
    return handle, status
