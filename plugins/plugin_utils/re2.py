# Copyright (c) SmolCluster contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Convert regular expressions of Go (RE2) to Python's `re`, where both mean the same.

Source: https://github.com/google/re2/wiki/Syntax; Python's `re`.
"""

from __future__ import annotations

import re
from functools import lru_cache

# Both know these with the same meaning, on text and with Python's flag ASCII.
ESCAPES = frozenset("dDwWsSbBAtnrfva")
POSIX = {
    "alnum": "0-9A-Za-z",
    "alpha": "A-Za-z",
    "ascii": "\\x00-\\x7f",
    "blank": "\\t ",
    "cntrl": "\\x00-\\x1f\\x7f",
    "digit": "0-9",
    "graph": "!-~",
    "lower": "a-z",
    "print": " -~",
    "punct": "!-/:-@\\[-`{-~",
    "space": "\\t\\n\\v\\f\\r ",
    "upper": "A-Z",
    "word": "0-9A-Za-z_",
    "xdigit": "0-9A-Fa-f",
}


class _UnknownError(Exception):
    """Something that Python's `re` does not have, or reads differently."""


@lru_cache(1024)
def to_python(expression: str) -> str | None:
    """The same expression for Python's `re` with its flag ASCII.

    Parameters:
        expression: an expression of Go's package regexp.

    Returns:
        None where the meaning in Python is not certain; the expression may still be valid for Go.
    """
    try:
        text = _translated(expression)
        re.compile(text, re.ASCII)
    except (_UnknownError, re.error, RecursionError, OverflowError):
        return None
    return text


def _translated(expression: str) -> str:
    text, position = "", 0
    while position < len(expression):
        character = expression[position]
        if character == "\\":
            found, position = _escape(expression, position, in_class=False)
            text += found
            continue
        if character == "[":
            found, position = _class(expression, position)
            text += found
            continue
        if group := re.match(r"\(\?([^:<>=!PimsU-]|<[=!]|[=!])", expression[position:]):
            raise _UnknownError(group[0])
        if named := re.match(r"\(\?P?<(\w+)>", expression[position:]):
            text += f"(?P<{named[1]}>"
            position += named.end()
            continue
        if flags := re.match(r"\(\?([a-zA-Z-]*)([:)])", expression[position:]):
            # Python allows flags without a group only at the beginning, and cannot turn a flag off there.
            if "U" in flags[1] or (flags[2] == ")" and (position or "-" in flags[1])):
                raise _UnknownError(flags[0])
            text += flags[0]
            position += flags.end()
            continue
        if expression.startswith("{,", position):
            raise _UnknownError("{,")
        text += character
        position += 1
    return text


def _escape(expression: str, position: int, in_class: bool) -> tuple[str, int]:
    """What a backslash and the characters after it mean, and the position after them."""
    letter = expression[position + 1 : position + 2]
    if letter in ESCAPES and letter and not (in_class and letter in "bBA"):
        return f"\\{letter}", position + 2
    if letter == "z" and not in_class:
        return "\\Z", position + 2
    if found := re.match(r"\\x(?:\{([0-9A-Fa-f]{1,6})\}|([0-9A-Fa-f]{2}))", expression[position:]):
        number = int(found[1] or found[2], 16)
        if number > 0x10FFFF:
            raise _UnknownError(found[0])
        # Control characters stay escaped, because system logs and arguments of programs cannot have them all.
        text = f"\\x{number:02x}" if number < 0x20 or number == 0x7F else re.escape(chr(number))
        return text, position + found.end()
    if letter and not letter.isalnum() and letter.isascii():
        return f"\\{letter}", position + 2
    raise _UnknownError(expression[position : position + 2])


def _class(expression: str, position: int) -> tuple[str, int]:
    """A class of characters that begins at a position, and the position after it."""
    text, position = "[", position + 1
    if expression.startswith("^", position):
        text, position = "[^", position + 1
    first = True
    while position < len(expression):
        character = expression[position]
        if character == "]" and not first:
            return text + "]", position + 1
        if character == "\\":
            found, position = _escape(expression, position, in_class=True)
            text += found
        elif posix := re.match(r"\[:(\w+):\]", expression[position:]):
            if posix[1] not in POSIX:
                raise _UnknownError(posix[0])
            text += POSIX[posix[1]]
            position += posix.end()
        else:
            # In Python a bracket, or two of the other characters, may get another meaning in a later version.
            text += f"\\{character}" if character in "[]&~|" else character
            position += 1
        first = False
    raise _UnknownError("[")
