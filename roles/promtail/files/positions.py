# Copyright (c) SmolCluster contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Read how far the agent has read its files, and go back some distance after it was killed.

Promtail saves how far it has read, not how far it has delivered (clients/pkg/promtail/positions at v3.6.15). Lines in
its memory when it was killed would never be sent: at most one batch (128 KiB with the role's configuration;
clients/pkg/promtail/client/client.go, run) and the entries in its stages. All may be of one log. So after an unclean
stop every log is read again from 512 KiB, and at least 20 entries, before its position; Loki drops lines that it
already has (same stream, time and text). Reading starts at the first line of an entry; otherwise the rest of an entry
would appear as a separate line.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from contextlib import suppress
from pathlib import Path

import records

REWIND = 512 << 10  # bytes
STAGES = 20  # largest number of entries that are in the agent's stages, one in each, if they are too large for REWIND
FARTHEST = 64 << 20  # bytes to search for the beginning of an entry
SCALAR = r"""(?:"(?:[^"\\]|\\.)*"|'(?:[^']|'')*'|[^\s"'?].*?)"""
ESCAPE = re.compile(r"\\(?P<code>x[0-9A-Fa-f]{2}|u[0-9A-Fa-f]{4}|U[0-9A-Fa-f]{8}|.)", re.DOTALL)
CHARACTERS = {"0": "\0", "a": "\a", "b": "\b", "t": "\t", "n": "\n", "v": "\v", "f": "\f", "r": "\r", "e": "\x1b"}
CHARACTERS |= {"N": "\x85", "_": "\xa0", "L": "\u2028", "P": "\u2029"} | {own: own for own in ' "/\\'}
POSITION = re.compile(rf"  (?P<path>{SCALAR}): (?P<value>{SCALAR})")


class DamagedError(Exception):
    """The positions file is not what Promtail writes."""


def unquoted(text: str) -> str:
    """A YAML scalar without its quotes.

    Raises:
        DamagedError: the quoted text is not valid.
    """
    if text.startswith("'"):
        return text[1:-1].replace("''", "'")
    if text.startswith('"'):
        return ESCAPE.sub(unescaped, text[1:-1])
    return text


def unescaped(escape: re.Match[str]) -> str:
    """The character that an escape stands for (YAML 1.1, 5.6).

    Raises:
        DamagedError: the escape is not valid.
    """
    code = escape["code"]
    try:
        return chr(int(code[1:], 16)) if code[1:] else CHARACTERS[code]
    except (KeyError, ValueError) as error:
        raise DamagedError(escape[0]) from error


def parse(text: str) -> dict[str, str]:
    """Positions by path, from the form in which Promtail (gopkg.in/yaml.v2) or this program writes them.

    An entry that cannot be parsed is left out, because anybody can choose the name of a file.

    Raises:
        DamagedError: the text is anything else, or empty.
    """
    if text.startswith("{"):
        try:
            return {str(path): str(value) for path, value in json.loads(text)["positions"].items()}
        except (ValueError, KeyError, AttributeError) as error:
            raise DamagedError(str(error)) from error
    # Keys of more than 128 characters are written as `? key` and `: value`, and have line breaks in place of spaces.
    text = re.sub(r"\n  \? (.*)\n  : ", r"\n  \1: ", text.replace("\n    ", " "))
    first, *lines = text.removesuffix("\n").split("\n")
    if first == "positions: {}" and not lines:
        return {}
    if first != "positions:":
        raise DamagedError(first)
    positions = {}
    for line in lines:
        if match := POSITION.fullmatch(line):
            with suppress(DamagedError):
                positions[unquoted(match["path"])] = unquoted(match["value"])
    return positions


def saved(path: Path) -> dict[str, int]:
    """Positions in bytes by path, as the agent has saved them; empty when the file is missing or damaged."""
    try:
        found = parse(path.read_text("utf-8"))
    except (OSError, DamagedError, UnicodeDecodeError):
        return {}
    return {path: int(value) for path, value in found.items() if value.isdigit()}


def rewound(handle: int, position: int, starts: list[re.Pattern[str]], back: int = REWIND) -> tuple[int, int]:
    """Offset of an entry's first line some bytes, as they are shipped, and `STAGES` entries before a position.

    Parameters:
        handle: the open file.
        position: offset in bytes.
        starts: expressions for the first line of an entry; without any, each line is an entry.
        back: how many bytes at least.

    Returns:
        The offset, and the number of bytes between it and the position; less than wanted near the start of the file.
    """
    reach = 2 * back
    while True:
        low = max(0, position - reach)
        data = os.pread(handle, position - low, low)
        end, seen, entries = len(data), 0, 0
        while end > 0:
            at = data.rfind(b"\n", 0, end - 1) + 1
            if at == 0 and low > 0:
                break  # the line begins farther back
            text = records.shown(data[at:end].removesuffix(b"\n"))
            seen, end = seen + len(text) + 1, at
            if not starts or records.begins_entry(text, starts):
                entries += 1
                if seen >= back and entries >= STAGES:
                    return low + at, seen
        if low == 0:
            return 0, seen
        if reach >= FARTHEST:
            return low + end, seen
        reach *= 4


def replace(path: Path, text: str, sync: bool = True) -> None:
    """Write a file completely or not at all.

    Parameters:
        path: the file.
        text: its content.
        sync: whether to wait until it is on the disk.
    """
    handle, partial = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            if sync:
                os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError:
        os.unlink(partial)
        raise


def remove(path: Path) -> None:
    """Remove a file if possible; errors, for example of a read-only disk, are ignored."""
    with suppress(OSError):
        path.unlink(missing_ok=True)
