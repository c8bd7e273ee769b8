# Copyright (c) SmolCluster contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""A new file that matches a path pattern: choose its name, and write it without touching anything else."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import islice

from ansible_collections.smolcluster.logging.plugins.module_utils import globs
from ansible_collections.smolcluster.logging.plugins.module_utils.source_folders import FolderError, Walk, acting_as

# Folders that are tried at most; another account may create any number.
MOST_FOLDERS = 1000
# Characters that match a wildcard and that training does not use in the name of a log.
UNUSUAL = "~=+@^"
ORDINARY = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_-."


class UnprovableError(Exception):
    """The delivery from a path cannot be proven; the text says why."""


def example(name: str, marker: str) -> str | None:
    """A name that matches a pattern and that training does not use.

    Parameters:
        name: last part of a path pattern, without `{…}`.
        marker: text for the first `*`.

    Returns:
        None when every matching name may be one that training uses: the pattern has no `*`, `?` or `[^…]` that an
        unusual character could match.
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
            # The characters of the class and their neighbours, in case none of the usual ones matches.
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
    """Existing folders, each with the name of a file that does not exist and that matches a pattern.

    Parameters:
        pattern: path pattern of a source.
        exclude: pattern of paths that the source leaves out; empty for none.
        marker: see `example`.

    Raises:
        PatternError: one of the patterns is invalid.
    """
    for plain in globs.alternatives(pattern):
        last = plain.rpartition("/")[2]
        # `**` at the end also matches file names.
        name = example("*" if last == "**" else last, marker)
        if name is None:
            continue
        for folder in islice(globs.folders(plain), MOST_FOLDERS):
            path = os.path.join(folder, name)
            fits = globs.matches(pattern, path) and not (exclude and globs.matches(exclude, path))
            if fits and is_text(path) and os.path.isdir(folder) and not os.path.lexists(path):
                yield folder, name


def is_text(path: str) -> bool:
    """Whether a path is valid UTF-8; the agent does not read others."""
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
            return "the path names one file, and only training writes to it"
        return "every name that matches the path may be a file of training"
    if not any(os.path.isdir(folder) for one in plain for folder in islice(globs.folders(one), MOST_FOLDERS)):
        folder = globs.fixed_part(plain[0])
        if not os.path.isdir(folder):
            return f"the folder {folder} is missing; training or `ansible-playbook site.yml --tags promtail` creates it"
        return f"no folder below {folder} matches the path yet"
    return "exclude leaves out every new name that matches the path" if exclude else "no new name matches the path"


class OwnFile:
    """A new file that is created, written and removed with the rights of the owner of its folder.

    Parameters:
        folder: path of an existing folder.
        name: name of the file; it must not exist.

    Raises:
        OSError: the file cannot be created, or it exists after all.
        FolderError: the folder cannot be reached.
    """

    def __init__(self, folder: str, name: str) -> None:
        self.path, self.name = os.path.join(folder, name), name
        self._walk = Walk(folder)
        if self._walk.missing:
            self._walk.close()
            raise FolderError(f"{folder} is missing")
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
        os.fchmod(self._handle, 0o644)  # so that an agent that is not root can read it
        self._size = 0

    def _ours(self) -> bool:
        """Whether no other program has written to the file."""
        return os.fstat(self._handle).st_size == self._size

    def append(self, line: str) -> None:
        """Add a line.

        Raises:
            UnprovableError: another program writes to the file, which is then not removed.
        """
        if not self._ours():
            raise UnprovableError(f"another program writes to {self.path}; the file was left in place")
        data = line.encode() + b"\n"
        self._size += len(data)
        os.write(self._handle, data)

    def remove(self) -> None:
        """Remove the file, if it is still the same file and no other program has written to it."""
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
