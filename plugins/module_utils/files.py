# Copyright (c) SmolCluster contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Changes of files that can be looked at, made, shown, undone and, once they have proved good, concluded."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from pathlib import Path
from typing import Protocol

ASIDE = ".before-smolcluster"


class ObstacleError(Exception):
    """Something of another kind is in the way; the text says what, and the way out."""

    def __init__(self, path: Path, wanted: str) -> None:
        super().__init__(
            f"{path} is there and is no {wanted}, which belongs there. Move it away; the agent was not touched"
        )


def aside(path: Path) -> Path:
    """A free name beside a file, under which it is kept."""
    name, number = Path(f"{path}{ASIDE}"), 1
    while name.exists():
        number += 1
        name = Path(f"{path}{ASIDE}.{number}")
    return name


class Change(Protocol):
    """Something that is to hold on the node."""

    name: str

    def needed(self) -> bool:
        """Whether it does not hold yet.

        Raises:
            ObstacleError: it cannot be made to.
        """

    def apply(self) -> None:
        """Make it hold, and remember what was there."""

    def undo(self) -> None:
        """Put back what `apply` found; nothing when it was not called."""

    def conclude(self) -> None:
        """Clear away what `undo` would have needed."""

    def diff(self) -> dict[str, str]:
        """Before and after, for Ansible's `--diff`."""


class TextFile:
    """A file of text owned by root.

    Parameters:
        path: where it belongs; a missing folder is made, mode 0755.
        text: its content.
        mode: permission bits.
        group: number of its group.
    """

    def __init__(self, path: Path, text: str, mode: int, group: int) -> None:
        self.path, self.mode, self.group = path, mode, group
        self.name = str(path)
        self._content = text.encode()
        self._before: tuple[bytes | None, int, int, int] | None = None

    def _found(self) -> tuple[bytes | None, int, int, int]:
        """Content, mode, owner and group of what is there; no content when nothing is."""
        try:
            status = self.path.stat()
            return self.path.read_bytes(), stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid
        except FileNotFoundError:
            return None, 0, 0, 0

    def needed(self) -> bool:
        """Whether content, mode or owner differ; see `Change`."""
        # A link, as of a unit that is masked, is replaced.
        if self.path.exists() and not self.path.is_file() and not self.path.is_symlink():
            raise ObstacleError(self.path, "file")
        return self._found() != (self._content, self.mode, os.geteuid(), self.group)

    def apply(self) -> None:
        """Write it, completely or not at all."""
        self._before = self._found()
        self._write(self._content, self.mode, os.geteuid(), self.group)

    def undo(self) -> None:
        """Put the old file back, or remove the new one."""
        if self._before is None:
            return
        content, mode, owner, group = self._before
        if content is None:
            self.path.unlink(missing_ok=True)
        else:
            self._write(content, mode, owner, group)

    def _write(self, content: bytes, mode: int, owner: int, group: int) -> None:
        self.path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        handle, partial = tempfile.mkstemp(prefix=f".{self.path.name}.", dir=self.path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                os.fchown(file.fileno(), owner, group)
                os.fchmod(file.fileno(), mode)
            os.replace(partial, self.path)
        except OSError:
            Path(partial).unlink(missing_ok=True)
            raise

    def conclude(self) -> None:
        """Nothing was kept on the disk."""

    def diff(self) -> dict[str, str]:
        """Content before and after, or the permissions where only they differ."""
        content, mode, owner, group = self._found()
        before, after = (content or b"").decode(errors="replace"), self._content.decode()
        if before == after:
            before, after = f"{owner}:{group} {mode:04o}\n", f"{os.geteuid()}:{self.group} {self.mode:04o}\n"
        return {"before_header": self.name, "after_header": self.name, "before": before, "after": after}


class Directory:
    """A folder for what a program keeps. With a new owner the files in it change hands, too.

    Parameters:
        path: where it belongs; missing folders above it are made, mode 0755.
        mode: permission bits.
        owner: number of its user.
        group: number of its group.
    """

    def __init__(self, path: Path, mode: int, owner: int, group: int) -> None:
        self.path, self.mode, self.owner, self.group = path, mode, owner, group
        self.name = str(path)
        self._before: tuple[int, int, int] | None = None
        self._made = False

    def _found(self) -> tuple[int, int, int] | None:
        """Mode, owner and group; none when it is not there."""
        try:
            status = self.path.stat()
        except FileNotFoundError:
            return None
        return stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid

    def needed(self) -> bool:
        """Whether it is missing, or mode or owner differ; see `Change`."""
        if self.path.exists() and not self.path.is_dir():
            raise ObstacleError(self.path, "folder")
        return self._found() != (self.mode, self.owner, self.group)

    def apply(self) -> None:
        """Make it, or give it mode and owner."""
        self._before = self._found()
        self.path.mkdir(mode=0o755, parents=True, exist_ok=True)
        self._made = self._before is None
        self._set(self.mode, self.owner, self.group)

    def undo(self) -> None:
        """Give it back what it had; a new one goes, with what the program has left in it."""
        if self._made:
            shutil.rmtree(self.path)
        elif self._before:
            self._set(*self._before)

    def _set(self, mode: int, owner: int, group: int) -> None:
        for path in (self.path, *self.path.iterdir()):
            os.chown(path, owner, group, follow_symlinks=False)
        self.path.chmod(mode)

    def conclude(self) -> None:
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
        path: where it belongs.
        target: what it points at, relative to its folder.
    """

    def __init__(self, path: Path, target: str) -> None:
        self.path, self.target = path, target
        self.name = str(path)
        self._before: str | None = None
        self._applied = False

    def _found(self) -> str | None:
        return os.readlink(self.path) if self.path.is_symlink() else None

    def needed(self) -> bool:
        """Whether it is missing or points elsewhere; see `Change`."""
        if self.path.exists() and not self.path.is_symlink():
            raise ObstacleError(self.path, "link")
        return self._found() != self.target

    def apply(self) -> None:
        """Point it at the target in one step, so that it never is missing."""
        self._before = self._found()
        self._point(self.target)
        self._applied = True

    def undo(self) -> None:
        """Point it back, or remove it."""
        if self._applied and self._before is None:
            self.path.unlink(missing_ok=True)
        elif self._applied:
            self._point(self._before)

    def _point(self, target: str) -> None:
        partial = self.path.with_name(f".{self.path.name}.partial")
        partial.unlink(missing_ok=True)
        partial.symlink_to(target)
        os.replace(partial, self.path)

    def conclude(self) -> None:
        """Nothing was kept on the disk."""

    def diff(self) -> dict[str, str]:
        """Where it points before and after."""
        before = self._found()
        return {
            "before_header": self.name,
            "after_header": self.name,
            "before": f"{before}\n" if before else "",
            "after": f"{self.target}\n",
        }


class Folder:
    """A folder that was made elsewhere on the same file system and is moved to its place.

    Parameters:
        path: where it belongs.
        made: where it is now.
    """

    def __init__(self, path: Path, made: Path) -> None:
        self.path, self.made = path, made
        self.name = str(path)
        self._aside = path.with_name(f".{path.name}.before")

    def needed(self) -> bool:
        """Whether it still is where it was made."""
        return self.made.exists()

    def apply(self) -> None:
        """Move it to its place, and what was there aside."""
        shutil.rmtree(self._aside, ignore_errors=True)
        if self.path.exists():
            self.path.rename(self._aside)
        self.made.rename(self.path)

    def undo(self) -> None:
        """Put what was there back; the new folder is lost."""
        if self.made.exists():
            shutil.rmtree(self.made)
        else:
            shutil.rmtree(self.path)
        if self._aside.exists():
            self._aside.rename(self.path)

    def conclude(self) -> None:
        """Remove what was there before."""
        shutil.rmtree(self._aside, ignore_errors=True)

    def diff(self) -> dict[str, str]:
        """That it is new."""
        return {"before_header": self.name, "after_header": self.name, "before": "", "after": "unpacked anew\n"}
