"""A rank that writes numbered lines as SmolCluster's logging does; runs alone on a mini, as the user who trains.

Arguments: path, rank, run, lines per second, seconds that its clock is ahead, and a size in bytes at which it rotates
its file (0: never). It writes until SIGTERM, and keeps the number of its last line in `<path>.<run>.written`.
"""

from __future__ import annotations

import logging
import logging.handlers
import os
import signal
import sys
import time

path, rank, run, rate, ahead, rotate = sys.argv[1:7]
stopped = False


def stop(*_) -> None:
    """End after the line that is being written."""
    global stopped
    stopped = True


class Formatter(logging.Formatter):
    """SmolCluster's format, by a clock that may be wrong."""

    def format(self, record: logging.LogRecord) -> str:
        """The line; `at` is its time in milliseconds since 1970."""
        moment = time.time() + float(ahead)
        stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(moment))
        milliseconds = int(moment * 1000)
        text = f"{stamp},{milliseconds % 1000:03d} | {record.levelname} | rank:{rank} | "
        return f"{text}{record.getMessage()} run={run} at={milliseconds}"


signal.signal(signal.SIGTERM, stop)
if int(rotate):
    handler = logging.handlers.RotatingFileHandler(path, maxBytes=int(rotate), backupCount=50)
else:
    handler = logging.FileHandler(path)
handler.setFormatter(Formatter())
log = logging.getLogger()
log.addHandler(handler)
log.setLevel(logging.INFO)
progress = os.open(f"{path}.{run}.written", os.O_WRONLY | os.O_CREAT, 0o644)
number, start = 0, time.monotonic()
while not stopped:
    number += 1
    log.info("seq=%06d", number)
    os.pwrite(progress, b"%012d" % number, 0)
    time.sleep(max(0.0, start + number / float(rate) - time.monotonic()))
