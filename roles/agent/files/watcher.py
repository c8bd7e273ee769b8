# Copyright (c) SmolCluster contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Runs the agent, and decides which files it reads.

The logs lie in folders of other accounts, who can put anything there. So the agent never looks into them: this program
does, opens each file, checks what it has opened, and copies its lines into files of its own, which the agent reads. A
link that leads elsewhere, a name that is no UTF-8 or a line larger than the agent's memory stops one file, not all.

Calls: `watcher.py STATE_FOLDER SETTINGS COMMAND…`. Settings are JSON, see `main`.
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
from logfiles import LogFiles, Source

PERIOD = 1.0  # seconds between two looks into the folders
SHORT = 0.05  # seconds between two looks at logs that are being written
MACOS = os.uname().sysname == "Darwin"


class Agent:
    """The agent as a child of this program.

    Parameters:
        command: its command line.
        timeout: seconds after a SIGTERM until it is killed.
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
        """Start it; a stop that was asked for meanwhile is passed on."""
        self._kill_at = None
        self._process = subprocess.Popen(self._command)
        if self.asked:
            self.stop()

    def stop(self) -> None:
        """Ask it to end; it is killed when it takes longer than the timeout."""
        if self._process and self._kill_at is None:
            self._process.terminate()
            self._kill_at = time.monotonic() + self._timeout

    def wait(self, seconds: float) -> int | None:
        """Wait until the agent has ended, but not longer than some seconds.

        Returns:
            Its exit code, negative for a signal; none while it runs.
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
    """Kill an agent whose watcher was killed: launchd sends it a SIGTERM only, which in an outage it is slow to obey.

    It holds the port meanwhile, so that the next one could not start.

    Parameters:
        command: the agent's command line.
    """
    listing = ["/bin/ps", "-axww", "-o", "pid=", "-o", "ppid=", "-o", "command="]
    end = time.monotonic() + 5
    while time.monotonic() < end:
        text = subprocess.check_output(listing, text=True, errors="replace")
        rows = [line.split(None, 2) for line in text.splitlines()]
        # One that runs under anything else than process 1 is somebody's at a terminal.
        found = [int(row[0]) for row in rows if row[1:] == ["1", " ".join(command)]]
        if not found:
            return
        for pid in found:
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError as error:
                print(f"{pid}, an agent of before, cannot be killed: {error}", file=sys.stderr)
        time.sleep(0.05)


def run(state: Path, settings: dict, command: list[str]) -> int:
    """Run the agent and keep its files up to date, until it ends or this program is asked to end.

    Parameters:
        state: folder of the agent's state; has this process's number as `watcher.pid` meanwhile, for newsyslog(8).
        settings: see `main`.
        command: the agent's command line.

    Returns:
        The agent's exit code; 128 and the signal's number when a signal has ended it, as a shell does.
    """
    agent = Agent(command, float(settings["timeout"]))
    if MACOS:
        end_orphan(command)
        # What the system has emptied at boot; on Linux tmpfiles.d(5) makes it again.
        for problem in source_folders.make(settings["folders"])[1]:
            print(problem, file=sys.stderr)
    numbered = state / "watcher.pid"
    positions.remove(numbered)  # another process may have the number of the last run
    try:
        positions.replace(numbered, f"{os.getpid()}\n")
    except OSError as error:  # a full disk: the log is not rotated, but lines are shipped
        print(f"{numbered} cannot be written: {error}", file=sys.stderr)
    files = LogFiles(
        state,
        Path(settings["folder"]),
        Path(settings["report"]),
        Path(settings["positions"]),
        [Source.of(source) for source in settings["sources"]],
        int(settings["port"]),
    )
    files.feed(all_logs=True)
    agent.start()
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
    files.end(clean=code == 0)
    positions.remove(numbered)
    return code if code >= 0 else 128 - code


def main() -> int:
    """`watcher.py STATE_FOLDER SETTINGS COMMAND…`.

    Settings are JSON: `folder` (for the copies), `report` (for the status), `positions` (that the agent saves), `port`
    (of its metrics), `timeout` (seconds that a stop may take), `folders` (see `source_folders.stated`) and `sources`,
    each with `name`, `paths`, and where they are set `exclude`, `follow`, `entry_start` (expression of a line that
    begins an entry) and `unknown_start` (entries have several lines, and Python cannot read the expression of their
    first one).
    """
    return run(Path(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text("utf-8")), sys.argv[3:])


if __name__ == "__main__":
    sys.exit(main())
