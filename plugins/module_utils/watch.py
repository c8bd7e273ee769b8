# Copyright (c) SmolCluster contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the watcher on a node (roles/agent/files/watcher.py) reports of the log files."""

from __future__ import annotations

import json
import os
import stat
from dataclasses import dataclass, field

# Largest report in bytes; a report lists at most a few thousand files.
LARGEST = 8 << 20


@dataclass
class Report:
    """A report. The agent's account can write the file, so its content must not be trusted.

    Parameters:
        count: number of logs that are followed.
        backlog: bytes of these logs that the agent has not read yet.
        files: bytes that the agent has read, and size of the file, by path.
        refused: why a file is not shipped, by its path.
        left_out: bytes of lines that were too long, by path.
        equal: number of lines that were equal to one shortly before, with the same time, by path.
        unsaved: why the watcher cannot save how far the files were read; empty when it can.
    """

    count: int = 0
    backlog: int = 0
    files: dict[str, tuple[int, int]] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, int] = field(default_factory=dict)
    equal: dict[str, int] = field(default_factory=dict)
    unsaved: str = ""


def report(path: str) -> Report | None:
    """The report of this node's watcher.

    Parameters:
        path: path of the report.

    Returns:
        None when the file is missing or not a valid report.
    """
    try:
        # The agent's account may have put a FIFO or a link there: these flags neither wait nor follow.
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(handle, "rb") as file:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                return None
            data = json.loads(file.read(LARGEST))
        return Report(
            int(data["count"]),
            int(data["backlog"]),
            {str(one["path"]): (int(one["read"]), int(one["size"])) for one in data["files"]},
            {str(one["path"]): str(one["reason"]) for one in data["refused"]},
            {str(one["path"]): int(one["bytes"]) for one in data["left_out"]},
            {str(one["path"]): int(one["lines"]) for one in data["equal"]},
            str(data["unsaved"]),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def printable(text: str) -> str:
    """A text from an untrusted source, safe for a message: on one line, limited in length, no control characters."""
    return "".join(character if character.isprintable() else "?" for character in text[:1024])
