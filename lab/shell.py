"""Running programs, and telling the user how far a long step is."""

from __future__ import annotations

import fcntl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from lab.config import CACHE


class LabError(Exception):
    """Something that the user has to know or to do; the text says what."""


def run(
    command: Sequence[str | Path], *, data: str | None = None, timeout: float = 600, check: bool = True, **options
) -> subprocess.CompletedProcess[str]:
    """Run a program and return what it printed.

    Parameters:
        command: program and arguments.
        data: text for its standard input; none means an empty one.
        timeout: seconds after which the program is killed.
        check: raise when it fails.
        options: passed to `subprocess.run` (`cwd`, `env`).

    Raises:
        LabError: the program is missing, failed or took too long; holds its last lines.
    """
    words = [str(word) for word in command]
    try:
        done = subprocess.run(
            words, input=data or "", capture_output=True, text=True, timeout=timeout, check=False, **options
        )
    except FileNotFoundError as error:
        raise LabError(f"{words[0]} is not installed") from error
    except subprocess.TimeoutExpired as error:
        raise LabError(f"{' '.join(words[:4])} … took more than {timeout:.0f} s") from error
    if check and done.returncode:
        tail = "\n".join((done.stdout + done.stderr).strip().splitlines()[-15:])
        raise LabError(f"{' '.join(words[:6])} … failed ({done.returncode}):\n{tail}")
    return done


@contextmanager
def lock(name: str) -> Iterator[None]:
    """Let one process at a time make what all labs of this user share.

    Parameters:
        name: what that is: `engine`, `images` or `artifacts`. A process must not ask for the same lock twice.
    """
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f"{name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def step(text: str) -> Iterator[None]:
    """Announce a step that takes a while, report every 30 s that it still runs, and at the end how long it took."""
    print(f"{text} …", flush=True)
    start = time.monotonic()
    over = threading.Event()

    def beat() -> None:
        while not over.wait(30):
            print(f"  … {time.monotonic() - start:.0f} s", flush=True)

    threading.Thread(target=beat, daemon=True).start()
    try:
        yield
    finally:
        over.set()
    print(f"  done in {time.monotonic() - start:.0f} s", flush=True)


def wait_for(condition, what: str, timeout: float, pause: float = 0.2) -> None:
    """Ask until `condition()` is true.

    Parameters:
        condition: function without arguments.
        what: the state waited for, for the message.
        timeout: seconds to wait at most.
        pause: seconds between two questions.

    Raises:
        LabError: the time is over.
    """
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise LabError(f"{what}: not within {timeout:.0f} s")
        time.sleep(pause)


def warn(text: str) -> None:
    """Print a message that is not an error."""
    print(text, file=sys.stderr, flush=True)
