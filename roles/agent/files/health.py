# Copyright (c) SmolCluster contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""One JSON line a minute about the agent and its node, in a log file that is shipped like any other.

docs/health.md describes the fields. A value that cannot be known is null, and a minute without a line is itself a sign.
The line is made in a thread, so a request that hangs does not delay the lines of training.
"""

from __future__ import annotations

import email.utils
import http.client
import json
import os
import re
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path

from samples import Metrics

PERIOD = 60.0  # seconds between two lines
FIRST = 5.0  # seconds from the start of the agent until the first line
# Size in bytes at which the log is rotated, about 20 minutes. So all lines of the log and of the one before are less
# than an hour old, and Loki does not refuse them as too old when they are read again.
LARGEST = 6 << 10
TIMEOUT = 5.0  # seconds that an answer may take
TEXT = 300  # characters of the kernel's message
CGROUPS = Path("/sys/fs/cgroup")
# No proxy: the agent uses none either.
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def counters(port: int, metrics: dict[str, list[str]]) -> dict[str, object]:
    """Counters of the agent since its start; null when it does not answer.

    Parameters:
        port: TCP port of its metrics on 127.0.0.1.
        metrics: name of the metric and of its label, by field; see `METRICS` in module_utils/agents/.
    """
    try:
        with DIRECT.open(f"http://127.0.0.1:{port}/metrics", timeout=TIMEOUT) as answer:
            found = Metrics(answer.read().decode("utf-8", "replace"))
    except (OSError, http.client.HTTPException):  # for example, it is just starting
        return dict.fromkeys(metrics)
    fields: dict[str, object] = {}
    for field, (name, label) in metrics.items():
        values = {value: int(number) for value, number in found.by(name, label).items()} if label else {}
        fields[field] = next(iter(values), None) if field == "version" else values if label else int(found.total(name))
    return fields


def clock_offset(url: str) -> float | None:
    """By how many seconds this node's clock is certainly ahead of Loki's; null when Loki does not answer.

    The date of an answer has whole seconds, so it is 0.0 for a clock that differs by less than about a second.

    Parameters:
        url: any URL of Loki; every answer of a web server has a date, also a refusal.
    """
    before = time.time()
    try:
        with DIRECT.open(url, timeout=TIMEOUT) as answer:
            date = answer.headers["Date"]
    except urllib.error.HTTPError as error:
        date = error.headers["Date"]
        error.close()
    except (OSError, ValueError, http.client.HTTPException):
        return None
    after = time.time()
    try:
        clock = email.utils.parsedate_to_datetime(date).timestamp()
    except (TypeError, ValueError):
        return None
    least, most = before - (clock + 1), after - clock
    return round(least if least > 0 else most if most < 0 else 0.0, 1)


def oom_kills(cgroups: Path = CGROUPS) -> int | None:
    """How many processes the kernel has killed for lack of memory since boot; null where the kernel does not tell.

    A cgroup counts the kills in all cgroups below it (cgroup-v2.rst, `memory.events`). The root has no such file.

    Parameters:
        cgroups: folder of the cgroups, version 2.
    """
    try:
        texts = [path.read_text("ascii") for path in cgroups.glob("*/memory.events")]
    except OSError:  # one has just gone
        return None
    found = [int(number) for text in texts for number in re.findall(r"^oom_kill (\d+)$", text, re.MULTILINE)]
    return sum(found) if found else None


def oom_message(seconds: float) -> str | None:
    """The kernel's last message about a process that it killed for lack of memory; null when it cannot be read.

    Parameters:
        seconds: largest age of the message.
    """
    command = ["journalctl", "--quiet", "--no-pager", "--output=cat", "--lines=1", "--grep=killed process"]
    command += [f"--since=-{int(seconds)}s", "_TRANSPORT=kernel"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=TIMEOUT, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return " ".join(done.stdout.split())[:TEXT] or None


def fullest(folders: list[str]) -> tuple[int, int] | tuple[None, None]:
    """Free bytes and size of the disk with the smallest free share.

    Parameters:
        folders: folders on the disks; those that do not exist are left out.
    """
    disks = []
    for folder in folders:
        with suppress(OSError):
            status = os.statvfs(folder)
            if status.f_blocks:
                share = status.f_bavail / status.f_blocks
                disks.append((share, status.f_bavail * status.f_frsize, status.f_blocks * status.f_frsize))
    return min(disks)[1:] if disks else (None, None)


def append(path: Path, line: str) -> None:
    """Append a line to a log of ours, and rotate the log when it is large.

    Parameters:
        path: the log.
        line: the line.

    Raises:
        OSError: it cannot be written.
    """
    with suppress(FileNotFoundError):
        if path.stat().st_size > LARGEST:
            os.replace(path, f"{path}.1")
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(line + "\n")


class Health:
    """Writes the lines.

    Parameters:
        settings: `agent` (its name), `path` (of the log), `metrics` (see `counters`) and `loki_url`.
        port: TCP port of the agent's metrics on 127.0.0.1.
        folders: folders whose disks matter: those of the logs, and that of the state.
    """

    def __init__(self, settings: dict, port: int, folders: list[str]) -> None:
        self.settings, self.port, self.folders = settings, port, folders
        self.path = Path(settings["path"])
        self._due = time.monotonic() + FIRST
        self._thread: threading.Thread | None = None
        self._kills = oom_kills()

    def tick(self, files: int, lag: int) -> None:
        """Write a line if one is due and the last one is done.

        Parameters:
            files: number of log files that are followed.
            lag: bytes of them that the agent has not read yet.
        """
        now = time.monotonic()
        if now < self._due or (self._thread and self._thread.is_alive()):
            return
        self._due = max(self._due + PERIOD, now)
        self._thread = threading.Thread(target=self._write, args=(files, lag), daemon=True)
        self._thread.start()

    def _write(self, files: int, lag: int) -> None:
        try:
            append(self.path, json.dumps(self.fields(files, lag), ensure_ascii=False))
        except OSError as error:  # for example no space
            print(f"{self.path} cannot be written: {error}", file=sys.stderr)

    def fields(self, files: int, lag: int) -> dict[str, object]:
        """Fields of a line; see `tick`."""
        kills, before = oom_kills(), self._kills
        self._kills = kills
        free, size = fullest(self.folders)
        now = time.time()
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now))
        return {
            "time": f"{moment}.{int(now % 1 * 1e6):06d}Z",
            "agent": self.settings["agent"],
            **counters(self.port, self.settings["metrics"]),
            "lag_bytes": lag,
            "files": files,
            "disk_free_bytes": free,
            "disk_size_bytes": size,
            "clock_offset_seconds": clock_offset(self.settings["loki_url"]),
            "oom_kills": kills,
            "oom_last": oom_message(2 * PERIOD) if kills and kills > (before or 0) else None,
        }
