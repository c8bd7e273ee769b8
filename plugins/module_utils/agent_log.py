# Copyright (c) SmolCluster contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""The line of a failing service's log that says why, among stacks and the service manager's own lines."""

from __future__ import annotations

import re

# Why a program ended: Go's panics and fatal errors (the `goroutine` lines that follow say where), the end of a
# traceback of Python, what the loader of programs says, and what a service manager could not do before the start
# (systemd.exec(5), exit codes of 200 and more) or did to the program.
CAUSES = re.compile(
    r"panic: |fatal error: |http: panic serving|runtime: out of memory|"
    r"([A-Za-z_][\w.]*\.)?[A-Z]\w*(Error|Exception|Interrupt|Exit)(: .*)?$|(\w+\.)+error: |"
    r".*error while loading shared libraries: |.*: version `\S+' not found|"
    r"\S+\.service: (Failed (?!with result)|.*status=2\d\d/|.*killed by the OOM killer)"
)
# What Promtail says of an error; what a stop cancels is none.
ERRORS = re.compile(r"(.*\blevel=(error|fatal)\b|error\b|Unable to |Failed to )(?!.*context canceled)", re.IGNORECASE)
# A program of the service has ended, by systemd or by launchd.
ENDED = re.compile(r"\S+\.service: (Main|Control) process exited, |launchd: last (exit code|terminating signal)")
# Of Promtail's lines those that are no errors.
HARMLESS = re.compile(r".*\blevel=(debug|info|warn)\b")


def telling(lines: list[str], manager: re.Pattern[str]) -> int | None:
    """Number of the line that says best why a service failed; the last one of the best kind.

    Parameters:
        lines: log of the service.
        manager: expression for lines that the service manager has written, not the service.

    Returns:
        None when no line says so.
    """
    own = [number for number, line in enumerate(lines) if line.strip() and not manager.match(line)]
    for numbers, kind in ((range(len(lines)), CAUSES), (own, ERRORS)):
        if found := [number for number in numbers if kind.match(lines[number])]:
            return found[-1]
    ends = [number for number, line in enumerate(lines) if ENDED.match(line)]
    if not ends:
        return None
    # What a program says just before it ends is the cause more often than not; its exit code says little.
    said = [number for number in own if number < ends[-1]]
    return said[-1] if said and not HARMLESS.match(lines[said[-1]]) else ends[-1]


def excerpt(log: str, manager: re.Pattern[str], length: int = 15) -> str:
    """End of a failing service's log, so that the line that says why is the last one.

    Parameters:
        log: its last lines; more than `length`, for a stack can be long.
        manager: see `telling`.
        length: how many lines at most.
    """
    lines = log.splitlines()
    found = telling(lines, manager)
    end = len(lines) if found is None else found + 1
    return "\n".join(lines[max(0, end - length) : end])
