# Copyright (c) SmolCluster contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""One JSON line a minute about Loki and its controller, pushed to Loki; and a limit for the size of Loki's store.

docs/health.md describes the fields. A value that cannot be known is null, and a minute without a line is itself a sign.

Loki removes lines by age only. So this program shortens the retention in Loki's runtime configuration, which Loki reads
again every 10 s, to the age of the oldest chunks for which there is room. It runs on Python's standard library of 3.9.

Usage: `loki-health SETTINGS`. It ends when its own file or its settings change; systemd then starts it again.
"""

from __future__ import annotations

import base64
import ctypes
import http.client
import json
import os
import re
import stat
import struct
import sys
import time
import urllib.request
from contextlib import suppress
from pathlib import Path

from samples import Metrics

PERIOD = 60.0  # seconds between two lines
TIMEOUT = 10.0  # seconds that an answer may take
REST = 100  # the store is measured again after this many times the seconds that it took
LEAST = 24  # hours that are always kept
# Share of the limit that is used, because Loki adds lines until it has removed others, which takes up to 40 minutes
# (its interval of compaction and the role's retention_delete_delay).
USED = 0.9
HOUR = 3600
SYNCHRONIZED = 16_000_000  # microseconds of error from which on a clock counts as not synchronized (timedatectl)
# Chunk of schema v13 in a file system: base64 of first time, last time (milliseconds since 1970) and checksum, in
# hexadecimal digits. Loki 3.7, pkg/storage/chunk/chunk.go and pkg/storage/chunk/client/object_client.go (FSEncoder).
CHUNK = re.compile(rb"[0-9a-f]+:([0-9a-f]+):[0-9a-f]+")
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def of_loki(found: Metrics) -> dict[str, object]:
    """Fields of a line that Loki's own metrics have; counters are totals since its start.

    Parameters:
        found: Loki's metrics.
    """
    rejected = found.by("loki_discarded_samples_total", "reason")
    return {
        "version": next(iter(found.by("loki_build_info", "version")), None),
        "received_lines": int(found.total("loki_distributor_lines_received_total")),
        "received_bytes": int(found.total("loki_distributor_bytes_received_total")),
        "rejected_lines": {reason: int(lines) for reason, lines in rejected.items()},
        "memory_bytes": int(found.total("process_resident_memory_bytes")),
        "cpu_seconds": round(found.total("process_cpu_seconds_total"), 1),
    }


def last_time(name: str) -> float | None:
    """Time of the last line of a chunk, in seconds since 1970, by the name of its file; None for another file."""
    with suppress(ValueError):
        if match := CHUNK.fullmatch(base64.b64decode(name, validate=True)):
            return int(match[1], 16) / 1000
    return None


def survey(folder: str, now: float) -> tuple[int, dict[int, int]]:
    """What Loki's files take on the disk. Links are not followed.

    Parameters:
        folder: folder of the files.
        now: seconds since 1970.

    Returns:
        Bytes of all files and folders, and those of the chunks, by the age of their last line in whole hours.
    """
    total = 0
    ages: dict[int, int] = {}
    left = [folder]
    while left:
        with suppress(OSError), os.scandir(left.pop()) as entries:  # Loki removes files at any time
            for entry in entries:
                with suppress(OSError):
                    status = entry.stat(follow_symlinks=False)
                    size = status.st_blocks * 512
                    total += size
                    if stat.S_ISDIR(status.st_mode):
                        left.append(entry.path)
                    elif (last := last_time(entry.name)) is not None:
                        age = max(0, int((now - last) // HOUR))
                        ages[age] = ages.get(age, 0) + size
    return total, ages


def fitting_hours(total: int, ages: dict[int, int], limit: int, retention: int) -> int:
    """For how many hours lines can be kept.

    Parameters:
        total: bytes of the whole store.
        ages: bytes of the chunks by their age in hours.
        limit: bytes that the store may take.
        retention: hours that the user wants.

    Returns:
        At most the user's retention, and at least `LEAST`, even if that is too much for the limit.
    """
    room = limit * USED - (total - sum(ages.values()))
    for age in sorted(ages):
        room -= ages[age]
        if room < 0:
            return max(LEAST, min(age, retention))
    return retention


def is_synchronized() -> bool | None:
    """Whether this host's clock is synchronized, as `timedatectl` tells it; null where the kernel does not tell."""
    if not sys.platform.startswith("linux"):
        return None
    values = ctypes.create_string_buffer(1024)  # struct timex, of 208 bytes; with `modes` 0 nothing is set
    if ctypes.CDLL(None, use_errno=True).adjtimex(values) < 0:
        return None
    _modes, _offset, _frequency, error = struct.unpack_from("@Illl", values)
    return error < SYNCHRONIZED


class Health:
    """Makes the lines, and keeps the store below its limit.

    Parameters:
        settings: `loki_url`, `labels` (of the lines), `data` (folder with Loki's files), `retention_hours`,
            `max_disk_bytes` (0 for no limit) and `runtime_config` (path of Loki's runtime configuration).
    """

    def __init__(self, settings: dict) -> None:
        self.settings = settings
        self.url, self.data = settings["loki_url"].rstrip("/"), settings["data"]
        self.wanted, self.limit = int(settings["retention_hours"]), int(settings["max_disk_bytes"])
        self.hours, self.store, self._survey_at, self._too_small = self.wanted, None, 0.0, False

    def line(self) -> dict[str, object]:
        """Fields of a line.

        Raises:
            OSError: Loki does not answer.
        """
        self.measure()
        with DIRECT.open(f"{self.url}/metrics", timeout=TIMEOUT) as answer:
            found = Metrics(answer.read().decode("utf-8", "replace"))
        free, size = disk(self.data)
        now = time.time()
        return {
            "time": f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(now))}.{int(now % 1 * 1e6):06d}Z",
            **of_loki(found),
            "store_bytes": self.store,
            "max_disk_bytes": self.limit or None,
            "retention_hours": self.hours,
            "disk_free_bytes": free,
            "disk_size_bytes": size,
            "clock_synchronized": is_synchronized(),
        }

    def measure(self) -> None:
        """Measure the store, unless that was done just now, and adapt the retention."""
        begin = time.monotonic()
        if begin < self._survey_at:
            return
        self.store, ages = survey(self.data, time.time())
        self._survey_at = time.monotonic() + REST * (time.monotonic() - begin)
        self.hours = fitting_hours(self.store, ages, self.limit, self.wanted) if self.limit else self.wanted
        limits = {"overrides": {"fake": {"retention_period": f"{self.hours}h"}} if self.hours < self.wanted else {}}
        replace(Path(self.settings["runtime_config"]), json.dumps(limits) + "\n")
        too_small = bool(self.limit) and self.store > self.limit and self.hours == LEAST
        if too_small and not self._too_small:
            print(
                f"the lines of the last {LEAST} hours take more than max_disk: {self.store} of {self.limit} bytes",
                file=sys.stderr,
            )
        self._too_small = too_small

    def push(self, line: dict[str, object]) -> None:
        """Store a line in Loki.

        Raises:
            OSError: Loki does not answer, or refuses the line.
        """
        stream = {"stream": self.settings["labels"], "values": [[str(time.time_ns()), json.dumps(line)]]}
        body = json.dumps({"streams": [stream]}).encode()
        request = urllib.request.Request(
            f"{self.url}/loki/api/v1/push", body, {"Content-Type": "application/json"}, method="POST"
        )
        DIRECT.open(request, timeout=TIMEOUT).close()


def disk(folder: str) -> tuple[int, int] | tuple[None, None]:
    """Free bytes and size of the disk that a folder is on."""
    try:
        status = os.statvfs(folder)
    except OSError:
        return None, None
    return status.f_bavail * status.f_frsize, status.f_blocks * status.f_frsize


def replace(path: Path, text: str) -> None:
    """Write a file completely or not at all, unless it has this text.

    Raises:
        OSError: it cannot be written.
    """
    with suppress(FileNotFoundError):
        if path.read_text("utf-8") == text:
            return
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, "utf-8")
    partial.chmod(0o644)
    os.replace(partial, path)


def main() -> int:
    """`loki-health SETTINGS`: run until the settings or this file change."""
    watched = [Path(__file__), Path(sys.argv[1])]
    versions = [path.stat().st_mtime_ns for path in watched]
    health = Health(json.loads(watched[1].read_text("utf-8")))
    problem, due = "", time.monotonic()
    while [path.stat().st_mtime_ns for path in watched] == versions:
        if time.monotonic() >= due:
            due = max(due + PERIOD, time.monotonic())
            before, problem = problem, ""
            try:
                health.push(health.line())
            except (OSError, http.client.HTTPException) as error:  # Loki is down, or the disk is full
                problem = str(error)
                if problem != before:
                    print(f"no health line: {problem}", file=sys.stderr)
        time.sleep(2)
    return 0


if __name__ == "__main__":
    sys.exit(main())
