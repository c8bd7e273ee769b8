# Copyright (c) SmolCluster contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Create missing folders for log files, with the rights of the owner of the folder above.

Another account must not be able to misuse what root does here. A path is walked name by name with open folders. A
missing folder is created as the owner of the folder above it. Behind a link that an ordinary account can change,
nothing is created, and everything is done with the rights of that account.

Standard library only: this file is also copied to nodes unchanged, next to the program that looks for log files.
"""

from __future__ import annotations

import os
import pwd
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

# Mode of a folder for files of all accounts, as of /tmp: no account can remove or rename files of another one.
SHARED = 0o1777
OWN = 0o755
# Folders that the system empties at boot, or where it removes old files (tmpfiles.d(5), hier(7)).
EMPTIED = ("/tmp", "/var/tmp", "/run", "/dev/shm")  # noqa: S108
# Folders in here come with an account, or with a disk that is plugged in or mounted.
OTHERS = ("/home", "/Users", "/Volumes", "/media", "/run/media")
# In these the disk may be one folder deeper, as in /media/ACCOUNT/DISK.
PLUGGED = ("/media", "/run/media")
# Links that are followed on one path, as on Linux (path_resolution(7)).
MOST_LINKS = 40
# Linux can also open a folder that may not be listed; on macOS Python cannot.
OPEN = os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC | getattr(os, "O_PATH", os.O_RDONLY)


class FolderError(Exception):
    """A folder cannot be created; the text says why, and the way out."""


class NotOursError(FolderError):
    """A folder that this program does not create, because somebody else should."""


@contextmanager
def acting_as(user: int, group: int) -> Iterator[None]:
    """Act with the rights of an account; nothing changes if this process is not root.

    Parameters:
        user: user ID of the account.
        group: group ID of the account; other groups are dropped in the meantime.
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
        # macOS lists more groups than it allows to set; root needs none of them.
        with suppress(OSError):
            os.setgroups(groups)


def group_of(user: int, otherwise: int) -> int:
    """Group ID of an account's own group.

    Parameters:
        user: user ID of the account.
        otherwise: returned for a user ID without an account.
    """
    try:
        return pwd.getpwuid(user).pw_gid
    except KeyError:
        return otherwise


def name_of(user: int) -> str:
    """Name of an account, or the user ID where no account has it."""
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return str(user)


class Walk:
    """Walk along a path as far as it exists; the last existing folder stays open until `close`.

    Parameters:
        path: an absolute path. `..` and links are resolved as the system does it.

    Raises:
        FolderError: something on the path is not a folder, or a folder cannot be entered.
    """

    def __init__(self, path: str) -> None:
        self.asked = path
        self.path = "/"  # path of the open folder, without links
        self.missing: list[str] = []  # names after it that do not exist
        self.by: tuple[int, int] | None = None  # user and group ID of an account that can change a link on the way
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
        """User and group ID with whose rights something may be done in the folder."""
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
                        raise FolderError(f"{path} leads through more than {MOST_LINKS} links")
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
                        f"{os.path.join(self.path, name)} exists but is not a folder, which {path} needs. Move it "
                        "away, or correct that path in smolcluster_log_sources"
                    )

    def _enter(self, name: str, real: str) -> None:
        handle = os.open(name, OPEN, dir_fd=self.handle)
        os.close(self.handle)
        self.handle, self.path = handle, real

    def _link(self, name: str, link: os.stat_result) -> None:
        """Remember whose rights apply after a link: those of the first account that can change one."""
        folder = os.fstat(self.handle)
        sticky = bool(folder.st_mode & stat.S_ISVTX)
        changers = [folder.st_uid, link.st_uid]
        if not sticky and folder.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not any(changers):
            raise NotOursError(
                f"{os.path.join(self.path, name)} is a link in a folder that accounts other than root can write to, so "
                "it is not followed. Remove these permissions, or name the link's target in smolcluster_log_sources"
            )
        user = next((user for user in changers if user), 0)
        if user and self.by is None:
            self.by, self.link = (user, group_of(user, folder.st_gid)), os.path.join(self.path, name)


@dataclass(frozen=True)
class Level:
    """A folder that exists or will be created.

    Parameters:
        path: its path, without links.
        user: user ID of its owner.
        group: its group ID.
        mode: permission bits.
    """

    path: str
    user: int
    group: int
    mode: int

    def shown(self) -> str:
        """Path, owner and mode in readable form."""
        return f"{self.path} {self.user}:{self.group} {self.mode:04o}"


def stated(folder: dict) -> tuple[int, int] | None:
    """User and group ID that the settings give for a folder; None when they give none.

    Parameters:
        folder: `path`, and optionally `owner` and `mode` (octal, as text).

    Raises:
        FolderError: the account does not exist.
    """
    if not folder.get("owner"):
        return None
    try:
        account = pwd.getpwnam(folder["owner"])
    except KeyError:
        raise FolderError(
            f"{folder['path']} should belong to {folder['owner']}, but this node has no such account. Correct `owner` "
            "in smolcluster_log_sources, or create the account first"
        ) from None
    return account.pw_uid, account.pw_gid


def missing(folder: dict, planned: dict[str, Level]) -> list[Level]:
    """Folders to create so that a folder exists, the outermost first; empty when it exists.

    Parameters:
        folder: see `stated`.
        planned: folders that will be created before, by path; the result is added to it.

    Raises:
        NotOursError: somebody else has to create it.
        FolderError: it cannot be created.
    """
    owner = stated(folder)
    with Walk(folder["path"]) as walk:
        found = []
        user, group = walk.owner
        path = walk.path
        for number, name in enumerate(walk.missing, 1):
            if walk.by:
                raise NotOursError(
                    f"{walk.link} is a link that {name_of(walk.by[0])} can change, so {name} is not created behind it. "
                    f"Create {folder['path']} yourself, or let training create it"
                )
            if name == ".." or somebody_elses(path):
                raise NotOursError(
                    f"{os.path.join(path, name)} is missing and is not created, because it should come with an account "
                    "or a disk. Correct that path in smolcluster_log_sources if it is wrong for this node"
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
    """Whether the folders in a folder come with an account or a disk."""
    return path in OTHERS or (os.path.dirname(path) in PLUGGED and not os.path.ismount(path))


@dataclass
class Plan:
    """What to create for some folders.

    Parameters:
        levels: folders to create, in this order.
        left: why other folders are not created.
    """

    levels: list[Level] = field(default_factory=list)
    left: list[str] = field(default_factory=list)


def in_order(folders: list[dict]) -> list[dict]:
    """Folders sorted so that a folder comes before those in it; its own owner and mode then apply to it."""
    return sorted(folders, key=lambda folder: folder["path"].rstrip("/").split("/"))


def plan(folders: list[dict]) -> Plan:
    """What to create for some folders.

    Parameters:
        folders: see `stated`.

    Raises:
        FolderError: one of them cannot be created.
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
    """A folder that was created.

    Parameters:
        level: the folder.
        inode: its device and inode number, to recognise it later.
    """

    level: Level
    inode: tuple[int, int]


def make(folders: list[dict]) -> tuple[list[Made], list[str]]:
    """Create missing folders; if one cannot be created, the others still are.

    Parameters:
        folders: see `stated`.

    Returns:
        The folders that were created, in this order, and why others were not.
    """
    made, problems = [], []
    for folder in in_order(folders):
        try:
            # Checked again after each one, because others may create folders at the same time.
            for _name in folder["path"].split("/"):
                for level in missing(folder, {})[:1]:
                    if created := create(level):
                        made.append(created)
        except FolderError as error:
            problems.append(str(error))
    return made, problems


def create(level: Level) -> Made | None:
    """Create one folder, as the owner of the folder above it.

    Returns:
        None when somebody else has created it in the meantime; that one is not changed.

    Raises:
        FolderError: it cannot be created.
    """
    above, name = os.path.split(level.path)
    with Walk(above) as walk:
        if walk.missing or walk.by:
            raise FolderError(f"{above} was changed during this run. Run it again")
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
                        raise FolderError(f"{level.path} was changed during this run. Run it again")
                    # In a folder with this bit, new files and folders get the folder's group.
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
                f"{level.path} cannot be created as {name_of(walk.owner[0])}, the owner of {above}: {error.strerror}. "
                "Create it yourself, or correct that path in smolcluster_log_sources"
            ) from error
    return Made(level, (status.st_dev, status.st_ino))


def remove(made: Made) -> None:
    """Remove a folder that was created, if it is still the same folder and is empty."""
    above, name = os.path.split(made.level.path)
    with suppress(OSError, FolderError), Walk(above) as walk, acting_as(*walk.account):
        status = os.stat(name, dir_fd=walk.handle, follow_symlinks=False)
        if (status.st_dev, status.st_ino) == made.inode:
            os.rmdir(name, dir_fd=walk.handle)


class SourceFolders:
    """The folders of all sources as a change; see `Change` in files.py.

    Parameters:
        folders: see `stated`.
    """

    name = "folders of sources"

    def __init__(self, folders: list[dict]) -> None:
        self.folders = folders
        self.plan = plan(folders)
        self._made: list[Made] = []

    def needed(self) -> bool:
        """Whether a folder is missing."""
        return bool(self.plan.levels)

    def apply(self) -> None:
        """Create the missing folders.

        Raises:
            FolderError: one cannot be created.
        """
        self._made, problems = make(self.folders)
        if unknown := [problem for problem in problems if problem not in self.plan.left]:
            self.rollback()
            raise FolderError("; ".join(unknown))

    def rollback(self) -> None:
        """Remove the folders that were created and are empty."""
        for made in reversed(self._made):
            remove(made)
        self._made = []

    def commit(self) -> None:
        """Nothing was kept on the disk."""

    def diff(self) -> dict[str, str]:
        """The folders to create."""
        after = "".join(f"{level.shown()}\n" for level in self.plan.levels)
        return {"before_header": self.name, "after_header": self.name, "before": "", "after": after}


def emptied(path: str) -> str | None:
    """The folder above a path that the system empties; None when there is no such folder."""
    return next((folder for folder in EMPTIED if path.startswith(f"{folder}/")), None)


def levels(path: str, planned: dict[str, Level]) -> list[Level]:
    """Folders on the way to a path, below the one that the system empties; existing ones and planned ones.

    Left out are paths that another account can redirect by a link, and folders that systemd-tmpfiles refuses to create:
    a folder of one account below a folder of another account that is not root.

    Parameters:
        path: an absolute path.
        planned: folders that will be created, by path.
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
    """Lines for tmpfiles.d(5) that create the folders again at boot, where the system empties the folder above.

    Owner and mode in them are those that the folders have now, or will have after their creation: systemd-tmpfiles may
    apply the lines at any time, and must not change a folder that training has created itself.

    Parameters:
        folders: see `stated`.
    """
    planned = {level.path: level for level in plan(folders).levels}
    wanted = {level.path: level for folder in in_order(folders) for level in levels(folder["path"], planned)}
    return "".join(
        f"d {quoted(level.path)} {level.mode:04o} {level.user} {level.group} -\n" for level in wanted.values()
    )


def quoted(path: str) -> str:
    """A path in the syntax of tmpfiles.d(5): quoted where needed, with C escapes and escaped percent signs."""
    text = path.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{text}"' if any(character in text for character in " \\\"'%#") else text
