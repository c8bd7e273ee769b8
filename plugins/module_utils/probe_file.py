# Copyright (c) SmolCluster contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""A new file that a pattern of paths matches: its name, and how it is written without touching anything else."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import islice

from ansible_collections.smolcluster.logging.plugins.module_utils import globs
from ansible_collections.smolcluster.logging.plugins.module_utils.source_folders import FolderError, Walk, acting_as

# Folders that are looked into; somebody else may nest more without end.
MOST_FOLDERS = 1000
# Characters that a wildcard takes and that training does not use in the name of a log.
UNUSUAL = "~=+@^"
ORDINARY = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_-."


class UnprovableError(Exception):
    """A path cannot be proven; the text says why."""


def example(name: str, marker: str) -> str | None:
    """A name that a pattern of names matches and that is no name of training's.

    Parameters:
        name: last part of a path's pattern, without `{…}`.
        marker: what stands for the first `*`.

    Returns:
        None when every name that fits may be one of training's: there is neither `*` nor `?` nor `[^…]`, and so no room
        for something unusual.
    """
    text, position, unusual, stars = "", 0, False, 0
    while position < len(name):
        character = name[position]
        if character == "\\":
            position += 1
            text += name[position]
        elif character == "*":
            text += "" if stars else marker
            stars += 1
        elif character == "?":
            text, unusual = text + UNUSUAL[0], True
        elif character == "[":
            end = globs.class_end(name, position)
            fits = globs.name_expression(name[position : end + 1]).fullmatch
            negated = name[position + 1] in "^!"
            # Its own characters and their neighbours, in case none of the usual ones fits.
            near = [
                chr(code) for one in name[position:end] for code in (ord(one), ord(one) + 1, ord(one) - 1) if code > 32
            ]
            found = next((one for one in [*(UNUSUAL if negated else ""), *ORDINARY, *near] if fits(one)), None)
            if found is None:
                return None
            text, unusual = text + found, unusual or (negated and found in UNUSUAL)
            position = end
        else:
            text += character
        position += 1
    return text if (stars or unusual) and text not in ("", ".", "..") else None


def candidates(pattern: str, exclude: str, marker: str) -> Iterator[tuple[str, str]]:
    """Folders that are there, each with the name of a file that is not, which a pattern matches.

    Parameters:
        pattern: path with wildcards that a source watches.
        exclude: pattern of paths that it leaves out; empty for none.
        marker: see `example`.

    Raises:
        PatternError: one of the patterns cannot be read.
    """
    for plain in globs.alternatives(pattern):
        last = plain.rpartition("/")[2]
        # `**` at the end matches names, too.
        name = example("*" if last == "**" else last, marker)
        if name is None:
            continue
        for folder in islice(globs.folders(plain), MOST_FOLDERS):
            path = os.path.join(folder, name)
            fits = globs.matches(pattern, path) and not (exclude and globs.matches(exclude, path))
            if fits and is_text(path) and os.path.isdir(folder) and not os.path.lexists(path):
                yield folder, name


def is_text(path: str) -> bool:
    """Whether a path is UTF-8: others the agent does not read."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def unprovable(pattern: str, exclude: str, marker: str) -> str:
    """Why no new file can be written for a pattern; see `candidates`."""
    plain = globs.alternatives(pattern)
    if all(example("*" if one.endswith("/**") else one.rpartition("/")[2], marker) is None for one in plain):
        if globs.plain(pattern) is not None:
            return "the path names one file, which is training's"
        return "each name that fits the path may be one of training's files"
    if not any(os.path.isdir(folder) for one in plain for folder in islice(globs.folders(one), MOST_FOLDERS)):
        folder = globs.fixed_part(plain[0])
        if not os.path.isdir(folder):
            return (
                f"the folder {folder} is not there: training makes it, or `ansible-playbook site.yml --tags promtail`"
            )
        return f"no folder below {folder} fits the path yet"
    return "exclude leaves out every new name that fits the path" if exclude else "no new name fits the path"


class OwnFile:
    """A new file that is written to and removed by the rights of whoever owns its folder.

    Parameters:
        folder: path of the folder; it is there.
        name: name of the file; nothing of that name is there.

    Raises:
        OSError: the file cannot be made, or something of its name is there after all.
        FolderError: the folder cannot be reached.
    """

    def __init__(self, folder: str, name: str) -> None:
        self.path, self.name = os.path.join(folder, name), name
        self._walk = Walk(folder)
        if self._walk.missing:
            self._walk.close()
            raise FolderError(f"{folder} is not there")
        try:
            with acting_as(*self._walk.account):
                self._handle = os.open(
                    name,
                    os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC,
                    0o644,
                    dir_fd=self._walk.handle,
                )
        except OSError:
            self._walk.close()
            raise
        os.fchmod(self._handle, 0o644)  # an agent that is not root reads it, too
        self._size = 0

    def _ours(self) -> bool:
        """Whether nobody else has written to the file."""
        return os.fstat(self._handle).st_size == self._size

    def append(self, line: str) -> None:
        """Add a line.

        Raises:
            UnprovableError: somebody else writes to the file, which from now on is his.
        """
        if not self._ours():
            raise UnprovableError(f"another program writes to {self.path}; it was left to it")
        data = line.encode() + b"\n"
        self._size += len(data)
        os.write(self._handle, data)

    def remove(self) -> None:
        """Remove the file, when it still is the one that was made and holds nothing of others."""
        try:
            with acting_as(*self._walk.account):
                there = os.stat(self.name, dir_fd=self._walk.handle, follow_symlinks=False)
                made = os.fstat(self._handle)
                if (there.st_dev, there.st_ino) == (made.st_dev, made.st_ino) and self._ours():
                    os.unlink(self.name, dir_fd=self._walk.handle)
        except FileNotFoundError:
            pass
        finally:
            os.close(self._handle)
            self._walk.close()
