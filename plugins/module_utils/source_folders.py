# Copyright (c) SmolCluster contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Folders that log files are to lie in: made where they are missing, with the rights of whoever owns the place.

Root never does here what another account could turn to its own ends. A path is walked name by name with open folders;
what is missing is made as the owner of the folder that it is missing in; behind a link that an ordinary account can
change nothing is made, and nothing done but by the rights of that account.

Standard library only: nodes have this file as it is, beside the program that looks for log files.
"""

from __future__ import annotations

import os
import pwd
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

# Folder for files of any account, as /tmp is: nobody can remove or rename what is another's.
SHARED = 0o1777
OWN = 0o755
# Emptied at boot, or by age (tmpfiles.d(5), hier(7)).
EMPTIED = ("/tmp", "/var/tmp", "/run", "/dev/shm")  # noqa: S108
# What lies in these comes with an account, or with a disk that is plugged in or mounted.
OTHERS = ("/home", "/Users", "/Volumes", "/media", "/run/media")
# In these it may lie one folder deeper, as in /media/ACCOUNT/DISK.
PLUGGED = ("/media", "/run/media")
# Links on one path, as Linux has it (path_resolution(7)).
MOST_LINKS = 40
# Linux opens a folder that may not be listed, too; macOS cannot from Python.
OPEN = os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC | getattr(os, "O_PATH", os.O_RDONLY)


class FolderError(Exception):
    """A folder cannot be made; the text says why, and the way out."""


class NotOursError(FolderError):
    """A folder that somebody else has to make."""


@contextmanager
def acting_as(user: int, group: int) -> Iterator[None]:
    """Have an account's rights for a while; who is not root keeps his own.

    Parameters:
        user: number of the account.
        group: number of its group; it has no others meanwhile.
    """
    if os.geteuid() or not user:
        yield
        return
    groups, own = os.getgroups(), os.getegid()
    try:
        os.setgroups([group])
        os.setegid(group)
        os.seteuid(user)
        yield
    finally:
        os.seteuid(0)
        os.setegid(own)
        # macOS names more groups than it takes; root needs none of them.
        with suppress(OSError):
            os.setgroups(groups)


def group_of(user: int, otherwise: int) -> int:
    """Number of an account's own group.

    Parameters:
        user: number of the account.
        otherwise: what an account without a name gets.
    """
    try:
        return pwd.getpwuid(user).pw_gid
    except KeyError:
        return otherwise


def name_of(user: int) -> str:
    """Name of an account, or its number where it has none."""
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return str(user)


class Walk:
    """The way along a path, as far as there is one; the folder that it ends in is open until `close`.

    Parameters:
        path: an absolute path. Names such as `..` and links are taken as the system takes them.

    Raises:
        FolderError: something that is no folder is in the way, or the way cannot be gone.
    """

    def __init__(self, path: str) -> None:
        self.asked = path
        self.path = "/"  # where the open folder is, without links
        self.missing: list[str] = []  # names that are not there
        self.by: tuple[int, int] | None = None  # account and group that could change a link on the way
        self.link = ""  # that link
        self.handle = os.open("/", OPEN)
        try:
            self._go(path)
        except OSError as error:
            self.close()
            raise FolderError(f"{path} cannot be reached: {error.strerror}") from error
        except FolderError:
            self.close()
            raise
        status = os.fstat(self.handle)
        self.owner = (status.st_uid, group_of(status.st_uid, status.st_gid))

    def __enter__(self) -> Walk:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the folder."""
        os.close(self.handle)

    @property
    def account(self) -> tuple[int, int]:
        """User and group by whose rights something may be done in the folder."""
        return self.by or self.owner

    def _go(self, path: str) -> None:
        names, links = path.split("/"), 0
        while names:
            name = names.pop(0)
            if name in ("", "."):
                continue
            with acting_as(*(self.by or (0, 0))):
                try:
                    status = os.stat(name, dir_fd=self.handle, follow_symlinks=False)
                except FileNotFoundError:
                    self.missing = [name, *(rest for rest in names if rest not in ("", "."))]
                    return
                if stat.S_ISLNK(status.st_mode):
                    links += 1
                    if links > MOST_LINKS:
                        raise FolderError(f"{path} leads round in links")
                    self._link(name, status)
                    target = os.readlink(name, dir_fd=self.handle)
                    names = [*target.split("/"), *names]
                    if target.startswith("/"):
                        self._enter("/", "/")
                elif stat.S_ISDIR(status.st_mode):
                    real = os.path.dirname(self.path) if name == ".." else os.path.join(self.path, name)
                    self._enter(name, real)
                else:
                    raise FolderError(
                        f"{os.path.join(self.path, name)} is there and is no folder, and {path} is to be one. "
                        "Move it away, or correct that path in smolcluster_log_sources"
                    )

    def _enter(self, name: str, real: str) -> None:
        handle = os.open(name, OPEN, dir_fd=self.handle)
        os.close(self.handle)
        self.handle, self.path = handle, real

    def _link(self, name: str, link: os.stat_result) -> None:
        """Note whose rights count behind a link: the first account's that can change one."""
        folder = os.fstat(self.handle)
        sticky = bool(folder.st_mode & stat.S_ISVTX)
        changers = [folder.st_uid, link.st_uid]
        if not sticky and folder.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not any(changers):
            raise NotOursError(
                f"{os.path.join(self.path, name)} is a link in a folder that others than root may write to, so it is "
                "not followed. Take these rights away, or name the folder that it leads to in smolcluster_log_sources"
            )
        user = next((user for user in changers if user), 0)
        if user and self.by is None:
            self.by, self.link = (user, group_of(user, folder.st_gid)), os.path.join(self.path, name)


@dataclass(frozen=True)
class Level:
    """A folder as it is, or is to be made.

    Parameters:
        path: where, without links.
        user: number of its owner.
        group: number of its group.
        mode: permission bits.
    """

    path: str
    user: int
    group: int
    mode: int

    def shown(self) -> str:
        """For people."""
        return f"{self.path} {self.user}:{self.group} {self.mode:04o}"


def stated(folder: dict) -> tuple[int, int] | None:
    """User and group that a folder is to have; none when nobody says so.

    Parameters:
        folder: `path`, and optionally `owner` and `mode` (octal, as text).

    Raises:
        FolderError: there is no such account.
    """
    if not folder.get("owner"):
        return None
    try:
        account = pwd.getpwnam(folder["owner"])
    except KeyError:
        raise FolderError(
            f"{folder['path']} is to belong to {folder['owner']}, and there is no such account here. Correct `owner` "
            "in smolcluster_log_sources, or make the account first"
        ) from None
    return account.pw_uid, account.pw_gid


def missing(folder: dict, planned: dict[str, Level]) -> list[Level]:
    """What is to be made for a folder, the outermost first; nothing when it is there.

    Parameters:
        folder: see `stated`.
        planned: what is to be made before, by path; what is found is added.

    Raises:
        NotOursError: somebody else has to make it.
        FolderError: it cannot be made.
    """
    owner = stated(folder)
    with Walk(folder["path"]) as walk:
        found = []
        user, group = walk.owner
        path = walk.path
        for number, name in enumerate(walk.missing, 1):
            if walk.by:
                raise NotOursError(
                    f"{walk.link} is a link that {name_of(walk.by[0])} can change, so {name} is not made behind it. "
                    f"Make {folder['path']} yourself, or let training make it"
                )
            if name == ".." or somebody_elses(path):
                raise NotOursError(
                    f"{os.path.join(path, name)} is not there, and it is not made: it comes with an account or a disk. "
                    "Correct that path in smolcluster_log_sources if it is wrong for this node"
                )
            path = os.path.join(path, name)
            if path not in planned:
                last = number == len(walk.missing)
                level = Level(path, user, group, SHARED if last and not user else OWN)
                if last and owner:
                    level = Level(path, *owner, OWN)
                if last and folder.get("mode"):
                    level = Level(path, level.user, level.group, int(folder["mode"], 8))
                planned[path] = level
                found.append(level)
            user, group = planned[path].user, planned[path].group
        return found


def somebody_elses(path: str) -> bool:
    """Whether what lies in a folder comes with an account or a disk."""
    return path in OTHERS or (os.path.dirname(path) in PLUGGED and not os.path.ismount(path))


@dataclass
class Plan:
    """What is to be made for some folders.

    Parameters:
        levels: folders to make, in this order.
        left: why others are left to somebody else.
    """

    levels: list[Level] = field(default_factory=list)
    left: list[str] = field(default_factory=list)


def in_order(folders: list[dict]) -> list[dict]:
    """Folders, what is above before what is below: its own owner and mode count then."""
    return sorted(folders, key=lambda folder: folder["path"].rstrip("/").split("/"))


def plan(folders: list[dict]) -> Plan:
    """What is to be made.

    Parameters:
        folders: see `stated`.

    Raises:
        FolderError: one of them cannot be made.
    """
    found, planned = Plan(), {}
    for folder in in_order(folders):
        try:
            found.levels += missing(folder, planned)
        except NotOursError as error:
            found.left.append(str(error))
    return found


@dataclass(frozen=True)
class Made:
    """A folder that was made.

    Parameters:
        level: which.
        inode: device and number, by which it is known again.
    """

    level: Level
    inode: tuple[int, int]


def make(folders: list[dict]) -> tuple[list[Made], list[str]]:
    """Make what is missing; one that cannot be made does not keep the others from being made.

    Parameters:
        folders: see `stated`.

    Returns:
        What was made, in this order, and why others were not.
    """
    made, problems = [], []
    for folder in in_order(folders):
        try:
            # Looked at anew after each, for others may make folders at the same time.
            for _name in folder["path"].split("/"):
                for level in missing(folder, {})[:1]:
                    if created := create(level):
                        made.append(created)
        except FolderError as error:
            problems.append(str(error))
    return made, problems


def create(level: Level) -> Made | None:
    """Make one folder, as the owner of the folder above it.

    Returns:
        None when somebody else has made it meanwhile; that one is left as it is.

    Raises:
        FolderError: it cannot be made.
    """
    above, name = os.path.split(level.path)
    with Walk(above) as walk:
        if walk.missing or walk.by:
            raise FolderError(f"{above} has been changed meanwhile. Run this again")
        try:
            with acting_as(*walk.owner):
                try:
                    os.mkdir(name, 0o700, dir_fd=walk.handle)
                except FileExistsError:
                    return None
                handle = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=walk.handle)
                try:
                    status = os.fstat(handle)
                    if status.st_uid != os.geteuid():
                        raise FolderError(f"{level.path} has been changed meanwhile. Run this again")
                    # A folder of a group passes the group on to what is made in it.
                    mode = level.mode | (status.st_mode & stat.S_ISGID)
                    if level.user == status.st_uid:
                        os.fchmod(handle, mode)
                except BaseException:
                    os.close(handle)
                    raise
            try:
                if level.user != status.st_uid:
                    os.fchown(handle, level.user, level.group)
                    os.fchmod(handle, mode)
            finally:
                os.close(handle)
        except OSError as error:
            raise FolderError(
                f"{level.path} cannot be made as {name_of(walk.owner[0])}, to whom {above} belongs: {error.strerror}. "
                "Make it yourself, or correct that path in smolcluster_log_sources"
            ) from error
    return Made(level, (status.st_dev, status.st_ino))


def remove(made: Made) -> None:
    """Remove a folder that was made, when it still is that one and nothing is in it."""
    above, name = os.path.split(made.level.path)
    with suppress(OSError, FolderError), Walk(above) as walk, acting_as(*walk.account):
        status = os.stat(name, dir_fd=walk.handle, follow_symlinks=False)
        if (status.st_dev, status.st_ino) == made.inode:
            os.rmdir(name, dir_fd=walk.handle)


class SourceFolders:
    """The folders of all sources, as a change; see `Change` in files.py.

    Parameters:
        folders: see `stated`.
    """

    name = "folders of sources"

    def __init__(self, folders: list[dict]) -> None:
        self.folders = folders
        self.plan = plan(folders)
        self._made: list[Made] = []

    def needed(self) -> bool:
        """Whether one is missing."""
        return bool(self.plan.levels)

    def apply(self) -> None:
        """Make what is missing.

        Raises:
            FolderError: one cannot be made.
        """
        self._made, problems = make(self.folders)
        if unknown := [problem for problem in problems if problem not in self.plan.left]:
            self.rollback()
            raise FolderError("; ".join(unknown))

    def rollback(self) -> None:
        """Remove what was made and is empty."""
        for made in reversed(self._made):
            remove(made)
        self._made = []

    def commit(self) -> None:
        """Nothing was kept on the disk."""

    def diff(self) -> dict[str, str]:
        """What is to be made."""
        after = "".join(f"{level.shown()}\n" for level in self.plan.levels)
        return {"before_header": self.name, "after_header": self.name, "before": "", "after": after}


def emptied(path: str) -> str | None:
    """The folder which a path lies in and which the system empties; none when it lies in no such."""
    return next((folder for folder in EMPTIED if path.startswith(f"{folder}/")), None)


def levels(path: str, planned: dict[str, Level]) -> list[Level]:
    """Folders on the way to a path, below the one that the system empties, as they are or are to be.

    Those that another account could lead elsewhere are left out, and so is what systemd-tmpfiles refuses to make: a
    folder of one account below that of another which is not root.

    Parameters:
        path: an absolute path.
        planned: folders that are to be made, by path.
    """
    found: list[Level] = []
    try:
        with Walk(path) as walk:
            real = os.path.join(walk.path, *walk.missing)
            start = emptied(real)
            if walk.by or not start:
                return []
    except FolderError:
        return []
    place = start
    for name in real[len(start) + 1 :].split("/"):
        place = os.path.join(place, name)
        level = planned.get(place)
        if not level:
            try:
                status = os.lstat(place)
            except OSError:
                break
            level = Level(place, status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode))
        if found and found[-1].user not in (0, level.user):
            break
        found.append(level)
    return found


def boot_lines(folders: list[dict]) -> str:
    """Lines for tmpfiles.d(5) that make folders again at boot, where the system has emptied what they lie in.

    They state what the folders have now, or will have once they are made: the same program sets that at any time, and
    is not to change a folder that training has made itself.

    Parameters:
        folders: see `stated`.
    """
    planned = {level.path: level for level in plan(folders).levels}
    wanted = {level.path: level for folder in in_order(folders) for level in levels(folder["path"], planned)}
    return "".join(
        f"d {quoted(level.path)} {level.mode:04o} {level.user} {level.group} -\n" for level in wanted.values()
    )


def quoted(path: str) -> str:
    """A path as tmpfiles.d(5) reads it: in quotes with C's escapes, and a percent sign that begins no specifier."""
    text = path.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{text}"' if any(character in text for character in " \\\"'%#") else text
