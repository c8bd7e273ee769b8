# Copyright (c) SmolCluster contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Find the line in a failing service's log that says why, among stack traces and lines of the service manager."""

from __future__ import annotations

import re

# Why a program ended: panics and fatal errors of Go (the `goroutine` lines after them say where), the last line of a
# Python traceback, errors of the dynamic loader, and what the service manager could not do before the start
# (systemd.exec(5), exit codes from 200) or did to the program.
CAUSES = re.compile(
    r"panic: |fatal error: |http: panic serving|runtime: out of memory|"
    r"([A-Za-z_][\w.]*\.)?[A-Z]\w*(Error|Exception|Interrupt|Exit)(: .*)?$|(\w+\.)+error: |"
    r".*error while loading shared libraries: |.*: version `\S+' not found|"
    r"\S+\.service: (Failed (?!with result)|.*status=2\d\d/|.*killed by the OOM killer)"
)
# How Promtail reports an error; what a stop cancels is not an error.
ERRORS = re.compile(r"(.*\blevel=(error|fatal)\b|error\b|Unable to |Failed to )(?!.*context canceled)", re.IGNORECASE)
# How systemd and launchd report that a process of the service has ended.
ENDED = re.compile(r"\S+\.service: (Main|Control) process exited, |launchd: last (exit code|terminating signal)")
# Lines of Promtail that are not errors.
HARMLESS = re.compile(r".*\blevel=(debug|info|warn)\b")


def telling(lines: list[str], manager: re.Pattern[str]) -> int | None:
    """Index of the line that best explains why a service failed; the last one of the best kind.

    Parameters:
        lines: log of the service.
        manager: expression for lines written by the service manager, not by the service.

    Returns:
        None when no line explains it.
    """
    own = [number for number, line in enumerate(lines) if line.strip() and not manager.match(line)]
    for numbers, kind in ((range(len(lines)), CAUSES), (own, ERRORS)):
        if found := [number for number in numbers if kind.match(lines[number])]:
            return found[-1]
    ends = [number for number, line in enumerate(lines) if ENDED.match(line)]
    if not ends:
        return None
    # The last line of a program before it ends is usually the cause; the exit code says little.
    said = [number for number in own if number < ends[-1]]
    return said[-1] if said and not HARMLESS.match(lines[said[-1]]) else ends[-1]


def excerpt(log: str, manager: re.Pattern[str], length: int = 15) -> str:
    """Part of a failing service's log that ends with the line that explains the failure.

    Parameters:
        log: its last lines; more than `length`, because a stack trace can be long.
        manager: see `telling`.
        length: how many lines at most.
    """
    lines = log.splitlines()
    found = telling(lines, manager)
    end = len(lines) if found is None else found + 1
    return "\n".join(lines[max(0, end - length) : end])
