# Copyright (c) SmolCluster contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
r"""The records of the copies that an agent reads: one copy for each source, one line for each record.

A record is the path of the log, a tab, an entry, and a line feed:

    /tmp/smolcluster-logs/worker-rank0-mini1.log<TAB>2026-04-06 12:34:56,789 | INFO | rank:0 | step:1

- The path is the printable one (`safe_open.printable`); it has no control characters, so it ends at the first tab.
- An entry is a line of the log or, where the watcher joins lines, all lines of an entry. Its bytes are those of the
  log, except that a line feed in it is `\x1e` and `n`, and a byte `\x1e` of the log is `\x1e` and `e`.
- A line feed ends the record. A record without one is still being written.

An agent takes the path off, and turns `\x1en` and `\x1ee` back in entries that have them; for Promtail these stages are
in `plugins/plugin_utils/promtail_config.py`. Nothing here depends on the agent.
"""

from __future__ import annotations

import re
from itertools import accumulate

from entries import Entries, shown

SEPARATOR = b"\t"
ESCAPE = b"\x1e"
LINE_FEED, ESCAPED = ESCAPE + b"n", ESCAPE + b"e"
# Largest number of lines of an entry: a traceback through deep frameworks has a few hundred lines.
MOST_LINES = 1000
UNUSUAL = re.compile(rb"[\x1b\x9b\r]")


def begins_entry(line: bytes, starts: list[re.Pattern[str]]) -> bool:
    """Whether a line is the first one of an entry."""
    text = line.decode("utf-8", "replace")
    return any(start.search(text) for start in starts)


def record(path: bytes, entry: bytes) -> bytes:
    """One record.

    Parameters:
        path: printable path of the log.
        entry: its lines, without the last line feed.
    """
    return b"".join((path, SEPARATOR, entry.replace(ESCAPE, ESCAPED).replace(b"\n", LINE_FEED), b"\n"))


def first_line(path: bytes, found: bytes) -> str:
    """First line of the entry of a record.

    Parameters:
        path: printable path of the log.
        found: the record.
    """
    entry = found[len(path) + 1 : -1]
    return entry.partition(LINE_FEED)[0].replace(ESCAPED, ESCAPE).decode("utf-8", "replace")


def of_lines(path: bytes, block: bytes) -> tuple[list[bytes], list[int]]:
    """Records of complete lines, one for each line.

    Parameters:
        path: printable path of the log.
        block: the lines; the last byte is a line feed.

    Returns:
        The records, and for each one the offset in the block at which its line ends.
    """
    lines = block[:-1].split(b"\n")
    ends = list(accumulate(len(line) + 1 for line in lines))
    head = path + SEPARATOR
    if ESCAPE in block:
        lines = [line.replace(ESCAPE, ESCAPED) for line in lines]
    return [b"%b%b\n" % (head, line) for line in lines], ends


def of_entries(
    path: bytes, block: bytes, start: re.Pattern[str] | Entries, begun: bool
) -> tuple[list[bytes], list[int], bool, bool]:
    """Records of complete lines, one for each entry.

    Lines before the first one that begins an entry have records of their own: the file may have another format.

    Parameters:
        path: printable path of the log.
        block: the lines; the last byte is a line feed.
        start: expression for the first line of an entry, or `entries.Entries`.
        begun: whether a line before the block began an entry.

    Returns:
        The records, for each one the offset in the block at which its entry ends, whether a line has begun an entry by
        now, and whether further lines can belong to the last one.
    """
    lines = block[:-1].split(b"\n")
    lengths = list(map(len, lines))
    if UNUSUAL.search(block):
        lines = [shown(line) for line in lines]
        texts = [line.decode("utf-8", "replace") for line in lines]
    else:
        texts = block[:-1].decode("utf-8", "replace").split("\n")
    if ESCAPE in block:
        lines = [line.replace(ESCAPE, ESCAPED) for line in lines]
    head, search = path + SEPARATOR, start.search
    entries: list[list[bytes]] = []
    ends: list[int] = []
    end, room = 0, 0  # how many lines the last entry may still get
    for line, text, length in zip(lines, texts, lengths):  # noqa: B905 - `strict` needs Python 3.10
        end += length + 1
        if search(text):
            begun, room = True, 0
        if room:
            entries[-1].append(line)
            ends[-1] = end
        else:
            entries.append([line])
            ends.append(end)
            room = MOST_LINES if begun else 1
        room -= 1
    return [b"%b%b\n" % (head, LINE_FEED.join(entry)) for entry in entries], ends, begun, room > 0
