# Copyright (c) SmolCluster contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Layouts of times in Go's notation, as far as a check before a deployment needs them.

Source: Go 1.26, src/time/format.go (nextStdChunk, parse); Promtail 3.6, clients/pkg/logentry/stages/util.go
(convertDateLayout) for the names.
"""

from __future__ import annotations

import re

# Layouts that Promtail knows by a name, and `Epoch`: a number since 1970 in seconds, milli-, micro- or nanoseconds.
NAMES = frozenset(
    "ANSIC UnixDate RubyDate RFC822 RFC822Z RFC850 RFC1123 RFC1123Z RFC3339 RFC3339Nano Unix UnixMs UnixUs UnixNs "
    "Epoch".split()
)
# Elements of a layout: what the element is, and what it reads.
ELEMENTS = {
    "January": ("month", r"[A-Z][a-z]+"), "Jan": ("month", r"[A-Z][a-z]{2}"), "Monday": ("", r"[A-Z][a-z]+"),
    "Mon": ("", r"[A-Z][a-z]{2}"), "MST": ("zone", r"[A-Z]{3,4}"), "2006": ("year", r"\d{4}"), "06": ("year", r"\d{2}"),
    "002": ("day of the year", r"\d{3}"), "01": ("month", r"\d{2}"), "02": ("day", r"\d{2}"), "03": ("hour", r"\d{2}"),
    "04": ("minute", r"\d{2}"), "05": ("second", r"\d{2}"), "15": ("hour", r"\d{1,2}"), "1": ("month", r"\d{1,2}"),
    "_2": ("day", r" ?\d{1,2}"), "2": ("day", r"\d{1,2}"), "3": ("hour", r"\d{1,2}"), "4": ("minute", r"\d{1,2}"),
    "5": ("second", r"\d{1,2}"), "PM": ("", "[AP]M"), "pm": ("", "[ap]m"), "Z07:00": ("zone", r"(?:Z|[+-]\d\d:\d\d)"),
    "Z0700": ("zone", r"(?:Z|[+-]\d{4})"), "-07:00": ("zone", r"[+-]\d\d:\d\d"), "-0700": ("zone", r"[+-]\d{4}"),
    "-07": ("zone", r"[+-]\d\d"),
}  # fmt: skip
TOKEN = re.compile(
    r"January|Jan|Monday|Mon|MST|Z07:00|Z0700|-07:00|-0700|-07|2006|_2(?!006)|002|0[1-6]|15|PM|pm|[1-5]"
    r"|(?P<fraction>[.,](?:0+|9+)(?!\d))"
)
MONTHS = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()


def elements(layout: str) -> list[tuple[str, str]]:
    """Parts of a layout in order: what the part is (empty for plain text) and its characters."""
    found, position = [], 0
    for token in TOKEN.finditer(layout):
        if token.start() > position:
            found.append(("", layout[position : token.start()]))
        found.append(("fraction" if token["fraction"] else "element", token[0]))
        position = token.end()
    if position < len(layout):
        found.append(("", layout[position:]))
    return found


def problem(layout: str) -> str:
    """What Go would read otherwise than it looks, in a layout; empty if there is nothing.

    Parameters:
        layout: a layout, or one of the names.
    """
    if layout in NAMES:
        return ""
    advice = "write the moment 2006-01-02 15:04:05 in the form of the time; see https://pkg.go.dev/time#Layout"
    parts = elements(layout)
    meanings = [ELEMENTS[text][0] for kind, text in parts if kind == "element" and ELEMENTS[text][0]]
    if "%" in layout:
        return f"it looks like strftime; {advice}"
    if twice := sorted({meaning for meaning in meanings if meanings.count(meaning) > 1}):
        return f"Go reads the {twice[0]} in two places of it; {advice}"
    for kind, text in parts:
        if not kind and re.search(r"\d|[A-SU-Za-z]{2}", text):
            return f"Go reads '{text.strip()}' in it as plain text; {advice}"
    if not {"hour", "minute"} <= set(meanings) or not {"month", "day"} <= set(meanings):
        return f"it has no month, day, hour and minute; {advice}"
    return ""


def read(layout: str, value: str) -> dict[str, int] | None:
    """Numbers that a layout reads from a time; None where it does not read the time.

    Parameters:
        layout: a layout without problem. For a name other than those of RFC3339 nothing is known.
        value: the time.

    Returns:
        Some of `year`, `month`, `day`, `hour`, `minute` and `second`.
    """
    if layout.startswith("RFC3339"):
        layout = "2006-01-02T15:04:05Z07:00"
    elif layout in NAMES:
        return {} if re.fullmatch(r"[\d.]+", value) or not layout.startswith(("Unix", "Epoch")) else None
    text, meanings = "", []
    parts = elements(layout)
    for number, (kind, part) in enumerate(parts):
        if kind == "element":
            meaning, expression = ELEMENTS[part]
            text += f"({expression})"
            meanings.append(meaning)
            following = parts[number + 1][0] if number + 1 < len(parts) else ""
            if meaning == "second" and following != "fraction":
                text += r"(?:[.,]\d+)?"
        elif kind == "fraction":
            text += rf"[.,]\d{{{len(part) - 1}}}"
        else:
            text += re.escape(part)
    match = re.fullmatch(text, value)
    if not match:
        return None
    found = {}
    for meaning, part in zip(meanings, match.groups()):  # noqa: B905 - Python 3.9
        if meaning in ("year", "month", "day", "hour", "minute", "second"):
            number = MONTHS.index(part[:3]) + 1 if part[:3] in MONTHS else int(part)
            found[meaning] = number + (2000 if meaning == "year" and number < 69 else 0)
    if ("03" in layout or "3" in [text for _kind, text in parts]) and found.get("hour", 0) > 12:
        return None
    limits = {"month": 12, "day": 31, "hour": 23, "minute": 59, "second": 59}
    return found if all(value <= limits.get(meaning, value) for meaning, value in found.items()) else None


def has_zone(layout: str) -> bool:
    """Whether a layout says of which zone a time is, or is a number since 1970."""
    return (layout in NAMES and layout != "ANSIC") or any(
        kind == "element" and ELEMENTS[text][0] == "zone" for kind, text in elements(layout)
    )
