# Copyright (c) SmolCluster contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""A folder whose files are all generated. What somebody else changed in it is kept elsewhere before it is replaced.

A list in the folder has the SHA-256 of each file as it was written, so that an edited file differs from an old one.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

# Without an extension, so that no program reads it as one of the files.
LIST = ".written-by-smolcluster-logging"


def digest(data: bytes) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


@dataclass
class Plan:
    """What has to be done in a folder.

    Parameters:
        write: text by name of the files that are missing or different.
        remove: names of files that are no longer generated.
        edited: names of files that somebody else wrote or changed; they are kept.
        before: what the files were, by name; for a diff.
    """

    write: dict[str, str] = field(default_factory=dict)
    remove: list[str] = field(default_factory=list)
    edited: list[str] = field(default_factory=list)
    before: dict[str, str] = field(default_factory=dict)

    def __bool__(self) -> bool:
        """Whether anything has to be done."""
        return bool(self.write or self.remove)


def written(folder: Path) -> dict[str, str]:
    """Sums of the files as they were written last; empty without a readable list."""
    try:
        sums = json.loads((folder / LIST).read_text())
    except (OSError, ValueError):
        return {}
    return sums if isinstance(sums, dict) else {}


def plan(folder: Path, files: Mapping[str, str]) -> Plan:
    """Compare a folder with what it should hold.

    Parameters:
        folder: it may be missing.
        files: text by name. Other files in the folder are removed, folders are left alone.

    Raises:
        OSError: a file cannot be read.
    """
    sums, result = written(folder), Plan()
    found = sorted(path for path in folder.iterdir() if not path.is_dir()) if folder.is_dir() else []
    for path in found:
        if path.name == LIST:
            continue
        # A link is nothing that was generated; it is not followed.
        data = os.readlink(path).encode() if path.is_symlink() else path.read_bytes()
        if not path.is_symlink() and data == files.get(path.name, "").encode() and path.name in files:
            continue
        result.before[path.name] = data.decode(errors="replace")
        if path.is_symlink() or digest(data) != sums.get(path.name):
            result.edited.append(path.name)
        if path.name not in files:
            result.remove.append(path.name)
    present = {path.name for path in found}
    result.write = {name: text for name, text in files.items() if name in result.before or name not in present}
    return result


def apply(folder: Path, files: Mapping[str, str], todo: Plan, keep: Path, mode: int) -> None:
    """Make the folder hold the files.

    Parameters:
        folder: it must exist.
        files: text by name.
        todo: what `plan` said.
        keep: folder to create for the edited files; on the same file system.
        mode: permissions of the files.

    Raises:
        OSError: a file cannot be written or moved.
    """
    if todo.edited:
        keep.mkdir(parents=True, mode=0o700)
    for name in todo.edited:
        os.replace(folder / name, keep / name)
    for name in set(todo.remove) - set(todo.edited):
        (folder / name).unlink()
    for name, text in todo.write.items():
        write(folder / name, text, mode)
    write(folder / LIST, json.dumps({name: digest(text.encode()) for name, text in files.items()}, indent=1), mode)


def write(path: Path, text: str, mode: int) -> None:
    """Write a file completely or not at all."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".new-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(text.encode())
        os.chmod(name, mode)
        os.replace(name, path)
    except OSError:
        os.unlink(name)
        raise
