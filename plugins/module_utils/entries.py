# Copyright (c) SmolCluster contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Where an entry of a log begins, line by line.

In a log that only a logger writes, an entry begins with each line that has the logger's form. In a console, other
lines are among them: those of print() are entries of their own, and a traceback belongs to the error that was logged
before it, or is an entry of its own.

The watcher (roles/agent/files/) and the trial of a format use this file; it has the standard library only.
"""

from __future__ import annotations

import re

# What a launcher writes in front of a line; plugin_utils/presets.py has the same, and a unit test compares them.
PREFIX = re.compile(
    r"[\s\x00\ufeff]*(?:(?:\[[A-Za-z_-]+\d+(?:\|rank\d+)?\]: ?|\[\d+(?:,\d+)?\]<std(?:out|err)>: ?"
    r"|\((?:[^()\n]*(?:\([^()\n]*\))? ?pid=\d+(?:, ip=[^)\s]+)?|(?:raylet|autoscaler|gcs_server)[^)\n]*)\) ?))+",
    re.ASCII,
)
# Also in the frame of rich.
TRACEBACK = re.compile(r"\s*(?:\+ Exception Group |╭─+ )?Traceback \(most recent call last\)")
# The last line of a traceback; within one, any name counts.
EXCEPTION = re.compile(r"(?:[A-Za-z_]\w*\.)*[A-Z]\w*(?::|$)")
CHAIN = re.compile(r"The above exception was the direct cause|During handling of the above exception")
INSIDE = re.compile(r"\s|$|> File |[│╰]|[)\]}]+[,;]?$")
# torchrun's summary of failures, which is the message of an exception.
SUMMARY = re.compile(r"[=-]{5,}$|Failures:$|Root Cause \(|\[\d+\]:$|\S+ FAILED$")
# A line with which a program logs an error, whose traceback may follow.
FAILED = re.compile(r"\b(?i:error|critical|fatal|exception|warn|warning)\b|^\W*[WEF]\d{4} ")
# The loggers of PyTorch repeat the head in each line, so a traceback below is not theirs.
TORCH = re.compile(r"\W*[VDIWEFC]\d{4} \S+ +\d+ torch/")

# Control sequences of terminals, as Promtail's stage decolorize and Loki's `| decolorize` remove them (ansiPattern in
# pkg/logql/log/fmt.go of Loki 3.6). The lookahead keeps Python from trying every length of the first part.
COLOURS = re.compile(
    rb"(?:\x1b|\xc2\x9b)(?=([][()#;?]*))\1"
    rb"(?:[a-zA-Z0-9;]*\x07|(?:[0-9]{1,4}(?:;[0-9]{0,4})*)?[0-9A-PRZcf-ntqry=><~])"
)


def shown(line: bytes) -> bytes:
    """A line as a terminal shows it last: without colours, and of a progress bar only the last frame.

    Parameters:
        line: a line without its line feed. Carriage returns at its end stay.
    """
    if b"\x1b" in line or b"\x9b" in line:
        line = COLOURS.sub(b"", line)
    if b"\r" in line:
        text = line.rstrip(b"\r")
        line = text.rpartition(b"\r")[2] + line[len(text) :]
    return line


class Entries:
    """Finds the first lines of the entries of a console; the lines must come in order, from the first of an entry on.

    Parameters:
        start: expression for the first line of an entry.
    """

    def __init__(self, start: re.Pattern[str]) -> None:
        self._start = start
        self._prefix = ""
        # Of the open entry: whether its first line logs an error, whether a traceback is open, whether
        # that has ended, and whether another one belongs to it.
        self._failed = self._traceback = self._ended = self._chained = False

    def search(self, line: str) -> bool:
        """Whether a line begins an entry.

        Parameters:
            line: a line without colours, line feed and earlier frames of a progress bar.
        """
        if not line.strip():
            return False
        found = PREFIX.match(line)
        prefix = found[0].strip() if found else ""
        rest = line[found.end() :] if found else line
        if prefix != self._prefix:
            self._prefix = prefix
            return self._begin(line, bool(TRACEBACK.match(rest)))
        if TRACEBACK.match(rest):
            if not (self._failed or self._chained):
                return self._begin(line, True)
            self._traceback, self._ended, self._failed, self._chained = True, False, False, False
            return False
        if INSIDE.match(rest) and (self._traceback or not self._start.search(line)):
            return False
        if self._traceback:
            if CHAIN.match(rest):
                self._chained = True
                return False
            if self._ended and SUMMARY.match(rest):
                return False
            if not self._ended and (EXCEPTION.match(rest) or not self._start.search(line)):
                self._ended = True
                return False
        return self._begin(line, False)

    def _begin(self, line: str, traceback: bool) -> bool:
        self._traceback, self._ended, self._chained = traceback, False, False
        self._failed = not (traceback or TORCH.match(line)) and bool(FAILED.search(line[:200]))
        return True
