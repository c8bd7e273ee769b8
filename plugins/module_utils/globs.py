# Copyright (c) SmolCluster contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Path patterns as Promtail and the OpenTelemetry Collector read them (github.com/bmatcuk/doublestar, v4).

`*` and `?` match within a name, `[…]` and `[^…]` match one character, `{a,b}` matches alternatives (they can be
nested), `**` as a whole name matches any number of folders, and a backslash makes the next character literal. Standard
library only: this file is also copied to nodes unchanged, next to the program that looks for log files.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

WILD = re.compile(r"[*?\[{]")
# Depth of folders that `**` looks into; another account may nest thousands.
DEEPEST = 50


class PatternError(ValueError):
    """An invalid pattern; the text says why."""


def alternatives(pattern: str) -> list[str]:
    """Patterns without `{…}` that together match the same paths as a pattern.

    Parameters:
        pattern: a path with wildcards.

    Raises:
        PatternError: a brace or bracket is not closed, or a backslash ends the pattern.
    """
    depth, start, parts, position = 0, 0, [], 0
    begin = -1
    while position < len(pattern):
        character = pattern[position]
        if character == "\\":
            position += 1
            if position == len(pattern):
                raise PatternError("it ends with a backslash")
        elif character == "[":
            position = class_end(pattern, position)
        elif character == "{":
            if depth == 0:
                begin, start, parts = position, position + 1, []
            depth += 1
        elif character == "," and depth == 1:
            parts.append(pattern[start:position])
            start = position + 1
        elif character == "}" and depth:
            depth -= 1
            if depth == 0:
                parts.append(pattern[start:position])
                head, tail = pattern[:begin], pattern[position + 1 :]
                return [found for part in parts for found in alternatives(head + part + tail)]
        position += 1
    if depth:
        raise PatternError("a { is not closed")
    return [pattern]


def class_end(pattern: str, start: int) -> int:
    """Index of the bracket that closes the character class which begins at `start`.

    Raises:
        PatternError: the class is not closed, or it is empty.
    """
    position = start + 1
    if pattern[position : position + 1] in ("^", "!"):
        position += 1
    first = position
    while position < len(pattern):
        if pattern[position] == "\\":
            position += 1
        elif pattern[position] == "]":
            if position == first:
                raise PatternError("a character class [] is empty")
            return position
        position += 1
    raise PatternError("a [ is not closed")


def name_expression(name: str) -> re.Pattern[str]:
    """Regular expression for one name in a path pattern, without `{…}`.

    Raises:
        PatternError: see `alternatives`.
    """
    text, position = "", 0
    while position < len(name):
        character = name[position]
        if character == "\\":
            position += 1
            text += re.escape(name[position])
        elif character == "*":
            text += "[^/]*"
        elif character == "?":
            text += "[^/]"
        elif character == "[":
            end = class_end(name, position)
            text += class_expression(name[position + 1 : end])
            position = end
        else:
            text += re.escape(character)
        position += 1
    return re.compile(text, re.DOTALL)


def class_expression(inside: str) -> str:
    """Regular expression for a character class, given the text between its brackets."""
    negated = inside[0] in "^!"
    members, position = [], int(negated)
    while position < len(inside):
        low, position = member(inside, position)
        high = low
        if inside[position : position + 1] == "-" and position + 1 < len(inside):
            high, position = member(inside, position + 1)
        if low <= high:
            members.append(f"{re.escape(low)}-{re.escape(high)}")
    if not members:
        return "[^/]" if negated else "(?!)"
    return f"[^/{''.join(members)}]" if negated else f"(?!/)[{''.join(members)}]"


def member(inside: str, position: int) -> tuple[str, int]:
    """One character of a class, and the index after it; a backslash makes the next character literal."""
    position += inside[position] == "\\"
    return inside[position], position + 1


def plain(name: str) -> str | None:
    """A name without its backslashes; None when it has wildcards."""
    bare = re.sub(r"\\.", "", name, flags=re.DOTALL)
    return None if WILD.search(bare) else re.sub(r"\\(.)", r"\1", name, flags=re.DOTALL)


def fixed_part(pattern: str) -> str:
    """Folder of a pattern without `{…}` before its first wildcard; without wildcards, the folder of the file."""
    folder = "/"
    for name in pattern.strip("/").split("/")[:-1]:
        exact = plain(name)
        if exact is None:
            break
        folder = os.path.join(folder, exact)
    return folder


def check(pattern: str) -> None:
    """Make sure that a pattern is valid.

    Raises:
        PatternError: it is invalid, or it contains the name `.` or `..`, which never match.
    """
    for found in alternatives(pattern):
        for name in found.strip("/").split("/"):
            if name in (".", ".."):
                raise PatternError(f"it contains the name {name}; write the path without it")
            name_expression(name)


def matches(pattern: str, path: str) -> bool:
    """Whether a pattern matches an absolute path.

    Raises:
        PatternError: see `alternatives`.
    """
    names = path.strip("/").split("/")
    return any(match_names(found.strip("/").split("/"), names) for found in alternatives(pattern))


def match_names(patterns: list[str], names: list[str]) -> bool:
    """Whether patterns match the names of a path: one pattern for each name, except `**`."""
    if not patterns:
        return not names
    if patterns[0] == "**":
        return any(match_names(patterns[1:], names[count:]) for count in range(len(names) + 1))
    return (
        bool(names) and bool(name_expression(patterns[0]).fullmatch(names[0])) and match_names(patterns[1:], names[1:])
    )


def reaches(patterns: list[str], names: list[str]) -> bool:
    """Whether patterns can match a path below some folders, given by their names."""
    if not names or not patterns:
        return bool(patterns)
    if patterns[0] == "**":
        return True
    return bool(name_expression(patterns[0]).fullmatch(names[0])) and reaches(patterns[1:], names[1:])


def own_names(node: str, hostname: str) -> list[str]:
    """Names that the files of a node can carry: that in the inventory, its host name, and that without the domain."""
    return list(dict.fromkeys(name.lower() for name in (node, hostname, hostname.partition(".")[0])))


def carries(path: str, names: list[str]) -> bool:
    """Whether a path contains one of some names as a word: `worker-rank0-mini2.log` has mini2, but not mini.

    Parameters:
        path: the path; upper and lower case are the same.
        names: the names.
    """
    words = "|".join(re.escape(name.lower()) for name in names if name)
    return bool(words) and bool(re.search(rf"(?<![a-z0-9])(?:{words})(?![a-z0-9])", path.lower()))


def folders(pattern: str) -> Iterator[str]:
    """Existing folders that can contain matches of a pattern without `{…}`; links are followed, except by `**`.

    Parameters:
        pattern: an absolute path with wildcards.
    """
    yield from below("/", pattern.strip("/").split("/")[:-1])


def below(folder: str, names: list[str], depth: int = 0) -> Iterator[str]:
    """Matching folders below a folder; `depth` levels above it are matched by `**` already."""
    if not names:
        yield folder
        return
    first, rest = names[0], names[1:]
    if first == "**":
        yield from below(folder, rest)
        for name in listed(folder):
            path = os.path.join(folder, name)
            if depth < DEEPEST and not os.path.islink(path) and os.path.isdir(path):
                yield from below(path, names, depth + 1)
        return
    exact = plain(first)
    found = (
        [exact] if exact is not None else [name for name in listed(folder) if name_expression(first).fullmatch(name)]
    )
    for name in found:
        path = os.path.join(folder, name)
        if os.path.isdir(path):
            yield from below(path, rest)


def listed(folder: str) -> list[str]:
    """Names in a folder; empty when it cannot be listed."""
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []
