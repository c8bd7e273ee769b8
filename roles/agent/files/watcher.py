# Copyright (c) SmolCluster contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Run the agent, and decide which files it reads.

The logs are in folders of other accounts, which can put anything there. So the agent never reads these folders: this
program opens each file, checks what it has opened, and copies its entries into its own files, which the agent reads. A
link that leads elsewhere, a name that is not UTF-8 or a line larger than the agent's memory stops one file, not all.

Usage: `watcher.py STATE_FOLDER SETTINGS COMMAND…`. Settings are JSON, see `main`.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import positions
import source_folders
from health import Health
from logfiles import LogFiles, Source

PERIOD = 1.0  # seconds between two scans of the folders
SHORT = 0.05  # seconds between two checks of logs that are being written
MACOS = os.uname().sysname == "Darwin"


class Agent:
    """The agent as a child process.

    Parameters:
        command: its command line.
        timeout: seconds from SIGTERM until it is killed.
    """

    def __init__(self, command: list[str], timeout: float) -> None:
        self._command, self._timeout = command, timeout
        self._process: subprocess.Popen[bytes] | None = None
        self._kill_at: float | None = None
        self.asked = False
        self._wake, wake = os.pipe()
        for end in (self._wake, wake):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_arguments: None)
        signal.signal(signal.SIGTERM, self._ask)

    def _ask(self, *_arguments: object) -> None:
        self.asked = True
        self.stop()

    def start(self) -> None:
        """Start the agent; if a stop was requested in the meantime, stop it."""
        self._kill_at = None
        self._process = subprocess.Popen(self._command)
        if self.asked:
            self.stop()

    def stop(self) -> None:
        """Send SIGTERM; the agent is killed when it takes longer than the timeout."""
        if self._process and self._kill_at is None:
            self._process.terminate()
            self._kill_at = time.monotonic() + self._timeout

    def wait(self, seconds: float) -> int | None:
        """Wait until the agent has ended, but not longer than some seconds.

        Returns:
            Its exit code, negative for a signal; None while it runs.
        """
        end = time.monotonic() + seconds
        while (code := self._process.poll()) is None:
            now = time.monotonic()
            if self._kill_at is not None and now >= self._kill_at:
                self._process.kill()
                self._kill_at = float("inf")
            left = min(end, self._kill_at if self._kill_at is not None else end) - now
            if end <= now:
                return None
            if select.select([self._wake], [], [], max(0.0, left))[0]:
                os.read(self._wake, 4096)
        return code


def end_orphan(command: list[str]) -> None:
    """Kill an agent whose watcher was killed: launchd only sends it a SIGTERM, after which it can run on in an outage.

    It would still use the port, so the next agent could not start.

    Parameters:
        command: the agent's command line.
    """
    listing = ["/bin/ps", "-axww", "-o", "pid=", "-o", "ppid=", "-o", "command="]
    end = time.monotonic() + 5
    while time.monotonic() < end:
        text = subprocess.check_output(listing, text=True, errors="replace")
        rows = [line.split(None, 2) for line in text.splitlines()]
        # A process with another parent than process 1 was started by somebody else, for example at a terminal.
        found = [int(row[0]) for row in rows if row[1:] == ["1", " ".join(command)]]
        if not found:
            return
        for pid in found:
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError as error:
                print(f"the old agent (pid {pid}) cannot be killed: {error}", file=sys.stderr)
        time.sleep(0.05)


def run(state: Path, settings: dict, command: list[str]) -> int:
    """Run the agent and keep its copies up to date, until the agent ends or this program gets SIGTERM.

    Parameters:
        state: folder of the agent's state; `watcher.pid` in it has this process ID while it runs, for newsyslog(8).
        settings: see `main`.
        command: the agent's command line.

    Returns:
        The agent's exit code; 128 plus the number of the signal that has ended it, as in a shell.
    """
    agent = Agent(command, float(settings["timeout"]))
    if MACOS:
        end_orphan(command)
        # Folders that the system has removed at boot; on Linux tmpfiles.d(5) creates them again.
        for problem in source_folders.make(settings["folders"])[1]:
            print(problem, file=sys.stderr)
    numbered = state / "watcher.pid"
    positions.remove(numbered)  # another process may now have the ID of the last run
    try:
        positions.replace(numbered, f"{os.getpid()}\n")
    except OSError as error:  # for example a full disk: the log is not rotated, but lines are still shipped
        print(f"{numbered} cannot be written: {error}", file=sys.stderr)
    files = LogFiles(
        state,
        Path(settings["folder"]),
        Path(settings["report"]),
        Path(settings["positions"]),
        [Source.of(source) for source in settings["sources"]],
        int(settings["port"]),
        settings["health"]["path"],
    )
    files.feed(all_logs=True)
    agent.start()
    health = Health(settings["health"], int(settings["port"]), [*files.folders(), str(state)])
    next_scan, lively = 0.0, True
    while (code := agent.wait(SHORT if lively else max(0.0, next_scan - time.monotonic()))) is None:
        if agent.asked:
            continue
        scan = time.monotonic() >= next_scan
        if scan:
            next_scan = time.monotonic() + PERIOD
            files.scan()
        lively = files.feed(all_logs=scan)
        if scan:
            files.retire()
            files.keep()
            health.tick(*files.totals())
    files.end(clean=code == 0)
    positions.remove(numbered)
    return code if code >= 0 else 128 - code


def main() -> int:
    """`watcher.py STATE_FOLDER SETTINGS COMMAND…`.

    Settings are JSON: `folder` (for the copies), `report` (for the status), `positions` (written by the agent), `port`
    (of its metrics), `timeout` (seconds that a stop may take), `folders` (see `source_folders.stated`), `health` (see
    `health.Health`) and `sources`, each with `name`, `paths`, and optionally `exclude`, `follow`, `entry_start`
    (expression for the first line of an entry), `join` (whether its lines become one record), `timed` (expression for
    the first line of an entry with a time), `unknown_start` (entries have several lines, but Python does not support
    the expression for the first) and `own` (name of the node: only files that carry it, or the host name, count).
    """
    return run(Path(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text("utf-8")), sys.argv[3:])


if __name__ == "__main__":
    sys.exit(main())
