# Copyright (c) SmolCluster contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Changes to files that can be checked, applied, shown as a diff, rolled back, and committed once the service works.

Root applies them, so another account must not be able to redirect them:

- A change is refused when an account other than root can replace a folder on the way to its path.
- What was there before is kept unchanged next to the new file, a link as a link; a roll-back moves it back. So mode,
  owner and other attributes are not lost, and permissions never become wider than before.
- In a folder that another account owns, every file is opened without following links and checked after opening.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import tempfile
from pathlib import Path
from typing import BinaryIO, Protocol

KEPT = ".before-smolcluster"
# Largest file that is read as a whole, in bytes: units, property lists and configurations have a few KiB.
READ_LIMIT = 1 << 20
# Links that are followed on the way to a file, as on Linux (path_resolution(7)).
LINK_LIMIT = 40
# Group of root. On macOS also admin, because its members may become root anyway (Apple, dscl group 80).
ROOT_GROUPS = (0, 80) if os.uname().sysname == "Darwin" else (0,)


class PathConflictError(Exception):
    """A path cannot be used; the text says why, and the way out."""


class NotRegularError(OSError):
    """The path is not a regular file, or the file is larger than allowed."""


def open_regular(path: Path | str, follow: bool = True, folder: int | None = None) -> BinaryIO:
    """Open a regular file for reading. Nothing else is opened: a FIFO would block, and a device may react.

    Parameters:
        path: the file.
        follow: whether to follow a link to it.
        folder: descriptor of the folder that a relative path starts from.

    Raises:
        NotRegularError: it is not a regular file, or it is a link that must not be followed.
        OSError: it is missing, or cannot be opened.
    """
    if not stat.S_ISREG(os.stat(path, dir_fd=folder, follow_symlinks=follow).st_mode):
        raise NotRegularError(errno.EINVAL, "is not a regular file", str(path))
    # In case it was replaced since: these flags neither wait for a FIFO nor follow a link.
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
    handle = os.open(path, flags, dir_fd=folder)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise NotRegularError(errno.EINVAL, "is not a regular file", str(path))
    return os.fdopen(handle, "rb")


def read_regular(path: Path | str, follow: bool = True, limit: int = READ_LIMIT) -> bytes:
    """Content of a regular file.

    Parameters:
        path: see `open_regular`.
        follow: see `open_regular`.
        limit: largest size in bytes.

    Raises:
        NotRegularError: see `open_regular`; also for a larger file.
        OSError: see `open_regular`.
    """
    with open_regular(path, follow) as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise NotRegularError(errno.EFBIG, f"is larger than {limit} bytes", str(path))
    return content


def open_to_others(status: os.stat_result) -> bool:
    """Whether an account other than root (or the one that runs this) can replace files in a folder.

    In a sticky folder, such as /tmp, each account can replace only its own files.
    """
    if status.st_uid not in (0, os.geteuid()):
        return True
    writable = status.st_mode & stat.S_IWOTH or (status.st_mode & stat.S_IWGRP and status.st_gid not in ROOT_GROUPS)
    return bool(writable) and not status.st_mode & stat.S_ISVTX


def folder_of_others(folder: Path) -> Path | None:
    """The first folder or link on the way to a folder that an account other than root controls.

    Parameters:
        folder: absolute path; it need not exist. Links are followed one by one.

    Returns:
        None when only root controls the way.

    Raises:
        OSError: the links form a loop.
    """
    place, ahead, links = Path("/"), list(folder.parts[1:]), 0
    while True:
        try:
            status = place.lstat()
        except FileNotFoundError:  # root creates it, in a folder that root controls
            return None
        if stat.S_ISLNK(status.st_mode):
            links += 1
            if links > LINK_LIMIT:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(folder))
            if status.st_uid not in (0, os.geteuid()):
                return place
            target = Path(os.readlink(place))
            ahead = [*(target.parts[1:] if target.is_absolute() else target.parts), *ahead]
            place = Path("/") if target.is_absolute() else place.parent
        elif open_to_others(status):
            return place
        if not ahead:
            return None
        part = ahead.pop(0)
        place = place.parent if part == ".." else place / part


def require_safe(path: Path) -> None:
    """Make sure that only root controls a path.

    Raises:
        PathConflictError: another account controls a folder on the way to it.
    """
    if found := folder_of_others(path.parent):
        raise PathConflictError(
            f"an account other than root can change {found}, so {path} is not safe to use. Make root its owner "
            f"(`chown root {found}`, `chmod go-w {found}`) and run this again. Nothing was changed"
        )


def conflict(path: Path, wanted: str) -> PathConflictError:
    """Error for a path that exists but has another type.

    Parameters:
        path: the path.
        wanted: the expected type: `file`, `folder` or `link`.
    """
    return PathConflictError(f"{path} exists but is not a {wanted}. Move it away and run this again")


def kind(path: Path) -> str:
    """Type of a path: `absent`, `link`, `file`, `folder` or `other`. Links are not followed."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return "absent"
    kinds = {stat.S_IFLNK: "link", stat.S_IFREG: "file", stat.S_IFDIR: "folder"}
    return kinds.get(stat.S_IFMT(mode), "other")


def backup_path(path: Path) -> Path:
    """A free path next to a file for its backup."""
    name, number = Path(f"{path}{KEPT}"), 1
    while os.path.lexists(name):
        number += 1
        name = Path(f"{path}{KEPT}.{number}")
    return name


def rename_to_backup(path: Path, owner: int) -> Path:
    """Rename a file to its backup path.

    Parameters:
        path: the file.
        owner: user ID of the account that must own its folder, so that root is not redirected into another folder.

    Returns:
        Its new path.

    Raises:
        OSError: another account owns the folder, or the file cannot be renamed.
    """
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if os.fstat(folder).st_uid != owner:
            raise OSError(errno.EPERM, f"does not belong to the account {owner}", str(path.parent))
        kept = backup_path(path)
        os.rename(path.name, kept.name, src_dir_fd=folder, dst_dir_fd=folder)
    finally:
        os.close(folder)
    return kept


def make_folders(folder: Path) -> None:
    """Create a folder and missing folders above it, with mode 0755 whatever the umask."""
    missing = [place for place in (folder, *folder.parents) if not os.path.lexists(place)]
    for place in reversed(missing):
        place.mkdir()
        place.chmod(0o755)


def remove(path: Path) -> None:
    """Remove a file, a link or a folder with its content, if it exists."""
    if kind(path) == "folder":
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


class Change(Protocol):
    """One change on the node."""

    name: str

    def needed(self) -> bool:
        """Whether the node is not yet in the wanted state.

        Raises:
            PathConflictError: the change is not possible.
        """

    def apply(self) -> None:
        """Make the change, and keep what was there before."""

    def rollback(self) -> None:
        """Restore what was there before `apply`; does nothing when it was not called."""

    def commit(self) -> None:
        """Remove what `rollback` would have needed."""

    def diff(self) -> dict[str, str]:
        """Before and after, for Ansible's `--diff`."""


class TextFile:
    """A text file owned by root. A link at its path, as for a masked unit, is replaced.

    Parameters:
        path: its path; a missing folder is created, mode 0755.
        text: its content.
        mode: permission bits.
        group: its group ID.
        keep: whether the old file stays next to it permanently, with `.before-smolcluster` added to its name.
    """

    def __init__(self, path: Path, text: str, mode: int, group: int, keep: bool = False) -> None:
        self.path, self.mode, self.group, self.keep = path, mode, group, keep
        self.name = str(path)
        self._content = text.encode()
        self._hidden = path.with_name(f".{path.name}.before")
        self._kept: Path | None = None
        self._applied = False

    def _found(self) -> tuple[bytes, int, int, int] | None:
        """Content, mode, owner and group of the file at the path; None for a link or a missing file.

        Of a larger file only as much is read as shows that it differs.
        """
        try:
            with open_regular(self.path, follow=False) as file:
                status = os.fstat(file.fileno())
                content = file.read(max(READ_LIMIT, len(self._content) + 1))
        except (FileNotFoundError, NotRegularError):
            return None
        return content, stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid

    def needed(self) -> bool:
        """Whether content, mode or owner differ; see `Change`."""
        require_safe(self.path)
        if kind(self.path) not in ("absent", "link", "file"):
            raise conflict(self.path, "file")
        return self._found() != (self._content, self.mode, os.geteuid(), self.group)

    def apply(self) -> None:
        """Write the file, completely or not at all."""
        make_folders(self.path.parent)
        self._kept = self._keep()
        self._applied = True
        handle, partial = tempfile.mkstemp(prefix=f".{self.path.name}.", dir=self.path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(self._content)
                os.fchown(file.fileno(), os.geteuid(), self.group)
                os.fchmod(file.fileno(), self.mode)
            os.replace(partial, self.path)
        except OSError:
            Path(partial).unlink(missing_ok=True)
            raise

    def _keep(self) -> Path | None:
        """Give the file or link at the path a second name, and return that; None when there is nothing."""
        found = kind(self.path)
        if found == "absent":
            return None
        kept = backup_path(self.path) if self.keep else self._hidden
        kept.unlink(missing_ok=True)  # from an interrupted run
        if found == "link":
            status = self.path.lstat()
            kept.symlink_to(os.readlink(self.path))
            os.lchown(kept, status.st_uid, status.st_gid)
        else:
            os.link(self.path, kept)
        return kept

    def rollback(self) -> None:
        """Restore the old file or link, or remove the new file."""
        if self._kept:
            os.replace(self._kept, self.path)
            # If both are names of the same file, the rename does nothing and the backup name is still there.
            self._kept.unlink(missing_ok=True)
        elif self._applied:
            self.path.unlink(missing_ok=True)

    def commit(self) -> None:
        """Remove the old file, unless it is kept permanently; also one that an interrupted run has left."""
        self._hidden.unlink(missing_ok=True)

    def diff(self) -> dict[str, str]:
        """Content before and after, or the permissions where only they differ."""
        content, mode, owner, group = self._found() or (b"", 0, 0, 0)
        before, after = content.decode(errors="replace"), self._content.decode()
        if kind(self.path) == "link":
            before = f"link to {os.readlink(self.path)}\n"
        elif before == after:
            before, after = f"{owner}:{group} {mode:04o}\n", f"{os.geteuid()}:{self.group} {self.mode:04o}\n"
        return {"before_header": self.name, "after_header": self.name, "before": before, "after": after}


class Directory:
    """A folder for the data of a program. With a new owner, the files in it get that owner, too.

    Only files of the previous owner do. A file with a second name (a hard link), a link, and a file of another account
    are not changed.

    Parameters:
        path: its path; missing folders above it are created, mode 0755. A link to a folder is followed.
        mode: permission bits.
        owner: user ID of its owner.
        group: its group ID.
    """

    def __init__(self, path: Path, mode: int, owner: int, group: int) -> None:
        self.path, self.mode, self.owner, self.group = path, mode, owner, group
        self.name = str(path)
        self._before: tuple[int, int, int] | None = None
        self._made = False

    def _place(self) -> Path:
        """Real path of the folder; only root controls it, see `needed`."""
        return Path(os.path.realpath(self.path))

    def _found(self) -> tuple[int, int, int] | None:
        """Mode, owner and group; None when it is missing."""
        try:
            status = self._place().stat()
        except FileNotFoundError:
            return None
        return stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid

    def needed(self) -> bool:
        """Whether it is missing or has another mode or owner; see `Change`."""
        for path in (self.path, self._place()):
            require_safe(path)
        if kind(self._place()) not in ("absent", "folder"):
            raise conflict(self.path, "folder")
        return self._found() != (self.mode, self.owner, self.group)

    def apply(self) -> None:
        """Create it, or set its mode and owner."""
        self._before, place = self._found(), self._place()
        make_folders(place.parent)
        if self._before is None:
            place.mkdir(mode=0o700)
            self._made = True
        self._set(self.mode, self.owner, self.group)

    def rollback(self) -> None:
        """Restore mode and owner; remove a new folder, with what the program has written to it."""
        if self._made:
            shutil.rmtree(self._place())
        elif self._before:
            self._set(*self._before)

    def _set(self, mode: int, owner: int, group: int) -> None:
        """Change the owner of folder and files; with descriptors only, as the previous owner may still write there."""
        folder = os.open(self._place(), os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            before = os.fstat(folder).st_uid
            for name in os.listdir(folder):
                try:
                    with open_regular(name, follow=False, folder=folder) as file:
                        status = os.fstat(file.fileno())
                        if status.st_nlink == 1 and status.st_uid == before:
                            os.fchown(file.fileno(), owner, group)
                except (FileNotFoundError, NotRegularError):  # removed since, or not a file of the program
                    continue
                except OSError as error:
                    if error.errno != errno.ELOOP:  # replaced by a link since the check
                        raise
            os.fchown(folder, owner, group)
            os.fchmod(folder, mode)
        finally:
            os.close(folder)

    def commit(self) -> None:
        """Nothing was kept on the disk."""

    def diff(self) -> dict[str, str]:
        """Permissions before and after."""

        def shown(mode: int, owner: int, group: int) -> str:
            return f"{owner}:{group} {mode:04o}\n"

        before = self._found()
        return {
            "before_header": self.name,
            "after_header": self.name,
            "before": shown(*before) if before else "",
            "after": shown(self.mode, self.owner, self.group),
        }


class Link:
    """A symbolic link.

    Parameters:
        path: its path.
        target: its target, relative to its folder.
    """

    def __init__(self, path: Path, target: str) -> None:
        self.path, self.target = path, target
        self.name = str(path)
        self._before: str | None = None
        self._applied = False

    def _found(self) -> str | None:
        return os.readlink(self.path) if kind(self.path) == "link" else None

    def needed(self) -> bool:
        """Whether it is missing or has another target; see `Change`."""
        require_safe(self.path)
        if kind(self.path) not in ("absent", "link"):
            raise conflict(self.path, "link")
        return self._found() != self.target

    def apply(self) -> None:
        """Set the target in one step, so that the link is never missing."""
        self._before = self._found()
        self._point(self.target)
        self._applied = True

    def rollback(self) -> None:
        """Restore the previous target, or remove the link."""
        if self._applied and self._before is None:
            self.path.unlink(missing_ok=True)
        elif self._applied:
            self._point(self._before)

    def _point(self, target: str) -> None:
        partial = self.path.with_name(f".{self.path.name}.partial")
        partial.unlink(missing_ok=True)
        partial.symlink_to(target)
        os.replace(partial, self.path)

    def commit(self) -> None:
        """Nothing was kept on the disk."""

    def diff(self) -> dict[str, str]:
        """Target before and after."""
        before = self._found()
        return {
            "before_header": self.name,
            "after_header": self.name,
            "before": f"{before}\n" if before else "",
            "after": f"{self.target}\n",
        }


class Folder:
    """A folder that was created elsewhere on the same file system and is moved to its path.

    Parameters:
        path: its path; what is there is moved aside.
        made: where the new folder is now.
    """

    def __init__(self, path: Path, made: Path) -> None:
        self.path, self.made = path, made
        self.name = str(path)
        self._kept = path.with_name(f".{path.name}.before")

    def needed(self) -> bool:
        """Whether it was not moved yet; see `Change`."""
        require_safe(self.path)
        return os.path.lexists(self.made)

    def apply(self) -> None:
        """Move it to its path, and what was there aside."""
        remove(self._kept)
        if os.path.lexists(self.path):
            self.path.rename(self._kept)
        self.made.rename(self.path)

    def rollback(self) -> None:
        """Restore what was there; the new folder is lost."""
        if os.path.lexists(self.made):
            remove(self.made)
        else:
            remove(self.path)
        if os.path.lexists(self._kept):
            self._kept.rename(self.path)

    def commit(self) -> None:
        """Remove what was there before."""
        remove(self._kept)

    def diff(self) -> dict[str, str]:
        """The new folder."""
        return {"before_header": self.name, "after_header": self.name, "before": "", "after": "newly unpacked\n"}
