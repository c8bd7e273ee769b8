# Copyright (c) SmolCluster contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Log files whose times disagree with the clock, because training writes them in another zone than they are read in.

Evidence is a file that is being written: its newest line was written when the file was last modified. If the time in
that line, read in the zone of the source, differs from the time of modification by whole quarters of an hour, and still
does after the file has grown, then its times are of another zone. Nothing is said of a file at rest, of lines without a
time, and of times with a zone.
"""

from __future__ import annotations

import json
import os
import re
import stat
import time
import zoneinfo
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from itertools import islice
from typing import Any

from ansible_collections.smolcluster.logging.plugins.module_utils import globs, golayout
from ansible_collections.smolcluster.logging.plugins.module_utils.entries import PREFIX, shown
from ansible_collections.smolcluster.logging.plugins.module_utils.source_folders import (
    FolderError,
    Walk,
    acting_as,
    group_of,
)
from ansible_collections.smolcluster.logging.plugins.module_utils.watch import printable

READ = 64 << 10  # bytes at the end of a file
FILES = 50  # number of files of a source that are looked at
FRESH = 60.0  # seconds since its last modification in which a file counts as being written
GROWTH = 10.0  # seconds that a file with times of another zone gets to grow
# Seconds by which a line can be older than the modification of its file (a program writes its lines in blocks), and
# newer (the file system's clock is coarse, a server has another one).
OLDER, NEWER = 30.0, 2.0
QUARTER = 900  # all time zones differ by whole quarters of an hour
FARTHEST = 26 * 3600  # the largest difference of two zones, in seconds
SHOWN = 3  # number of files that a message lists


@dataclass
class Look:
    """What one look at a file has found.

    Parameters:
        size: its size in bytes.
        written: its time of modification, in seconds since 1970.
        text: the time in its newest line, without a zone.
        shift: seconds by which the clock was ahead of that time, as it is read; whole quarters of an hour.
    """

    size: int
    written: float
    text: datetime
    shift: int


def parsed(line: str, shape: dict[str, Any]) -> Any:
    """Value of the time in a line that a parser of JSON or logfmt reads; None without one.

    Parameters:
        line: the line.
        shape: a shape with a parser; see `readable`.
    """
    if shape["parser"] == "json":
        with suppress(ValueError, RecursionError):
            data = json.loads(line)
            for key in shape["keys"]:
                inner = data
                for part in key.split("."):
                    inner = inner.get(part) if isinstance(inner, dict) else None
                found = data.get(key) if inner is None and isinstance(data, dict) else inner
                if found is not None:
                    return found
        return None
    for key in shape["keys"]:
        if match := re.search(rf'(?:^|\s){re.escape(key)}=(?:"((?:[^"\\]|\\.)*)"|(\S+))', line):
            return match[1] or match[2]
    return None


def value_of(line: str, format_: dict[str, Any]) -> tuple[str, list[str]] | None:
    """Text of the time in a line, and the layouts in which it can be written; None without a time.

    Parameters:
        line: the first line of an entry, as a terminal shows it.
        format_: how lines are read; see plugin_utils/presets.py, `times_of`.
    """
    if format_["console"] and (found := PREFIX.match(line)):
        line = line[found.end() :]
    if format_["console"]:
        line = line.lstrip(" \t\x00\ufeff")
    for shape in format_["shapes"]:
        if not all(re.search(text, line, re.ASCII) for text in (*shape["starts"], shape["pattern"])):
            continue
        groups: dict[str, Any] = {}
        for text in (shape["pattern"], *shape["more"]):
            if match := re.search(text, line, re.ASCII):
                groups.update({name: part for name, part in match.groupdict().items() if part is not None})
        if shape["keys"]:
            groups["time"] = parsed(line, shape)
        if shape["time"]:
            groups["time"] = re.sub(r"\{(\w+)\}", lambda part: str(groups.get(part[1], "")), shape["time"])  # noqa: B023
        found = groups.get("time")
        return (found, shape["layouts"]) if isinstance(found, str) else None
    return None


def moment_of(line: str, format_: dict[str, Any], near: datetime) -> datetime | None:
    """Time in a line, without a zone; None if it has none, or has one with a zone.

    Parameters:
        line: see `value_of`.
        format_: see `value_of`.
        near: a time near to it, for a time without a year.
    """
    found = value_of(line, format_)
    if found is None:
        return None
    value, layouts = found
    for layout in layouts:
        parts = golayout.read(layout, value)
        if parts is None:
            continue
        if golayout.has_zone(layout) or not {"month", "day", "hour", "minute"} <= set(parts):
            return None
        moments = []
        for year in [parts["year"]] if "year" in parts else [near.year - 1, near.year, near.year + 1]:
            with suppress(ValueError):  # 29 February
                moments.append(
                    datetime(year, *(parts.get(key, 0) for key in ("month", "day", "hour", "minute", "second")))
                )
        return min(moments, key=lambda moment: abs(moment - near), default=None)
    return None


def shift_of(moment: datetime, zone: zoneinfo.ZoneInfo | None, written: float) -> int | None:
    """Seconds by which the clock was ahead of a time, in whole quarters of an hour; 0 if the time is right.

    Parameters:
        moment: the time in a line, without a zone.
        zone: the zone in which it is read; None for the node's own.
        written: when the line was written, in seconds since 1970.

    Returns:
        None if the difference is no whole quarter, so that it is no difference of two zones.
    """
    # Of the hour that occurs twice when summer time ends, either may be meant.
    readings = [written - moment.replace(tzinfo=zone, fold=fold).timestamp() for fold in (0, 1)]
    shifts = []
    for ahead in readings:
        quarters = round((ahead - (OLDER - NEWER) / 2) / QUARTER) * QUARTER
        if -NEWER <= ahead - quarters <= OLDER and abs(quarters) <= FARTHEST:
            shifts.append(quarters)
    return min(shifts, key=abs, default=None)


def tail_of(path: str) -> tuple[os.stat_result, bytes] | None:
    """Status and last bytes of a file, read with the rights of its owner; None if that is not possible.

    Parameters:
        path: its path. A link is not read, nor a file with several names.
    """
    folder, name = os.path.split(path)
    try:
        with Walk(folder) as walk:
            if walk.missing:
                return None
            owner = os.stat(name, dir_fd=walk.handle, follow_symlinks=False)
            user = owner.st_uid or walk.account[0]
            with acting_as(user, group_of(user, owner.st_gid)):
                flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
                handle = os.open(name, flags, dir_fd=walk.handle)
    except (OSError, FolderError):
        return None
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1 or status.st_uid != owner.st_uid:
            return None
        begin = max(0, status.st_size - READ)
        return status, os.pread(handle, status.st_size - begin, begin)
    except OSError:
        return None
    finally:
        os.close(handle)


def look(path: str, source: dict[str, Any]) -> Look | None:
    """Look at the newest line of a file that is being written; None if nothing is known of its times.

    Parameters:
        path: path of the file.
        source: its source, with `zone` and `times`.
    """
    found = tail_of(path)
    if found is None or abs(time.time() - found[0].st_mtime) > FRESH:
        return None
    status, data = found
    lines = data.split(b"\n")
    if len(lines) < 2 or lines[-1]:  # the last line is not complete
        return None
    try:
        zone = None if source["zone"] == "Local" else zoneinfo.ZoneInfo(source["zone"])
    except (zoneinfo.ZoneInfoNotFoundError, ValueError):
        return None
    text = shown(lines[-2]).decode("utf-8", "replace").rstrip("\r")
    near = datetime.fromtimestamp(status.st_mtime, zone).replace(tzinfo=None)
    moment = moment_of(text, source["times"], near)
    shift = None if moment is None else shift_of(moment, zone, status.st_mtime)
    return None if shift is None else Look(status.st_size, status.st_mtime, moment, shift)


def files_of(source: dict[str, Any], files: list[str]) -> Iterator[str]:
    """Files of a source that were modified just now.

    Parameters:
        source: the source.
        files: paths of all files that the agent follows.
    """
    exclude, now = source.get("exclude"), time.time()
    for path in files:
        with suppress(OSError, globs.PatternError):
            if (
                abs(now - os.lstat(path).st_mtime) <= FRESH
                and any(globs.matches(pattern, path) for pattern in source["paths"])
                and not (exclude and globs.matches(exclude, path))
            ):
                yield path


class Times:
    """The times in the files of sources; the first look is at the start.

    Parameters:
        sources: log sources, with `zone` and `times` (None where nothing is known of a format).
        files: paths of the files that the agent follows, those that grew last first.
    """

    def __init__(self, sources: list[dict[str, Any]], files: list[str]) -> None:
        self._first: list[tuple[dict[str, Any], str, Look]] = []
        for source in sources:
            if source["times"]:
                for path in islice(files_of(source, files), FILES):
                    found = look(path, source)
                    if found and found.shift:
                        self._first.append((source, path, found))

    def problems(self) -> list[str]:
        """Files whose times are shifted, one text for each source and shift; waits for files to grow, if it must."""
        end = time.monotonic() + GROWTH
        certain: dict[tuple[str, int], list[tuple[dict[str, Any], str, Look]]] = {}
        waiting = self._first
        while waiting:
            later = []
            for source, path, first in waiting:
                found = look(path, source)
                if found and found.size > first.size and found.shift == first.shift:
                    certain.setdefault((source["name"], found.shift), []).append((source, path, found))
                elif found is None or found.size == first.size:
                    later.append((source, path, first))
            waiting = later if time.monotonic() < end else []
            if waiting:
                time.sleep(0.5)
        return [message(found) for found in certain.values()]


def message(found: list[tuple[dict[str, Any], str, Look]]) -> str:
    """What is said of files of one source that are shifted by the same time.

    Parameters:
        found: source, path and last look of each file.
    """
    source, _path, seen = found[0]
    minutes = abs(seen.shift) // 60
    shift = f"{'+' if seen.shift > 0 else '-'}{minutes // 60}:{minutes % 60:02d}"
    names = ", ".join(printable(path) for _source, path, _seen in found[:SHOWN])
    more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    own = source["zone"] == "Local"
    zone = None if own else zoneinfo.ZoneInfo(source["zone"])
    clock = datetime.fromtimestamp(seen.written, timezone.utc).astimezone(zone)  # noqa: UP017 - Python 3.9
    # The zone that the times fit, if it is UTC, as in most containers.
    utc = clock.utcoffset() == timedelta(seconds=seen.shift)
    way = "UTC, which they fit" if utc else "the zone of the program that writes them, such as Asia/Kolkata"
    return (
        f"times of {names}{more} look shifted by {shift}: the newest line has {seen.text:%H:%M:%S}, but was written at "
        f"{clock:%H:%M:%S} {'of this node' if own else 'in ' + source['zone']} (UTC{clock:%z}), where the source "
        f"{source['name']} is read. Set timezone of the source to {way}, or let training write UTC or an offset"
    )
