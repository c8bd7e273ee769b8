# Copyright (c) SmolCluster contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Sets Promtail's positions back, before each start, to where everything is known to have been delivered.

Promtail saves how far it has read, not how far it has delivered (clients/pkg/promtail/positions at v3.6.15): what it
held when it was killed would never be sent. What it can hold is one batch (128 KiB by the role's configuration;
clients/pkg/promtail/client/client.go, run) and the entries in its stages. So after an unclean stop every file is read
again from 512 KiB before its position; Loki drops lines that it has already (same stream, time and text). Reading
starts at the first line of an entry, or the rest of an entry would show as a line of its own.

Never is more read again than since the agent's last start: what was read before that had been delivered, or was read
again then. A file that was replaced while the agent was away is read from its beginning.

systemd calls this before the start (`start`) and after every stop (`stop`, with its SERVICE_RESULT). launchd can do
neither: there this program runs the agent as its child (`run`) and does both itself.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REWIND = 512 << 10  # bytes
HEAD = 1024  # bytes by which a file is known again
FARTHEST = 64 << 20  # bytes that are searched for the beginning of an entry
ANSI = re.compile(rb"\x1b\[[0-9;]*m")
SCALAR = r"""(?:"(?:[^"\\]|\\.)*"|'(?:[^']|'')*'|[^\s"'?].*?)"""
ESCAPE = re.compile(r"\\(?P<code>x[0-9A-Fa-f]{2}|u[0-9A-Fa-f]{4}|U[0-9A-Fa-f]{8}|.)", re.DOTALL)
CHARACTERS = {"0": "\0", "a": "\a", "b": "\b", "t": "\t", "n": "\n", "v": "\v", "f": "\f", "r": "\r", "e": "\x1b"}
CHARACTERS |= {"N": "\x85", "_": "\xa0", "L": "\u2028", "P": "\u2029"} | {own: own for own in ' "/\\'}
NO_YAML = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")
POSITION = re.compile(rf"  (?P<path>{SCALAR}): (?P<value>{SCALAR})")


class DamagedError(Exception):
    """The positions file is not what Promtail writes."""


def unquoted(text: str) -> str:
    """A YAML scalar without its quotes.

    Raises:
        DamagedError: the quoted text is none.
    """
    if text.startswith("'"):
        return text[1:-1].replace("''", "'")
    if text.startswith('"'):
        return ESCAPE.sub(unescaped, text[1:-1])
    return text


def unescaped(escape: re.Match[str]) -> str:
    """The character that an escape stands for (YAML 1.1, 5.6).

    Raises:
        DamagedError: there is no such escape.
    """
    code = escape["code"]
    try:
        return chr(int(code[1:], 16)) if code[1:] else CHARACTERS[code]
    except (KeyError, ValueError) as error:
        raise DamagedError(escape[0]) from error


def parse(text: str) -> dict[str, str]:
    """Positions by path, from the form in which Promtail (gopkg.in/yaml.v2) or this program writes them.

    Raises:
        DamagedError: anything else, an empty file included.
    """
    if text.startswith("{"):
        try:
            return {str(path): str(value) for path, value in json.loads(text)["positions"].items()}
        except (ValueError, KeyError, AttributeError) as error:
            raise DamagedError(str(error)) from error
    # Keys of more than 128 characters are written as `? key` and `: value` on two lines.
    first, *lines = re.sub(r"\n  \? (.*)\n  : ", r"\n  \1: ", text).splitlines() or [""]
    if first == "positions: {}" and not lines:
        return {}
    if first != "positions:":
        raise DamagedError(first)
    positions = {}
    for line in lines:
        match = POSITION.fullmatch(line)
        if not match:
            raise DamagedError(line)
        positions[unquoted(match["path"])] = unquoted(match["value"])
    return positions


def head_of(path: str, size: int = HEAD) -> list | None:
    """Length in bytes and digest of a file's first bytes; none when it is not there or empty.

    Parameters:
        path: the file.
        size: how many bytes at most.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(size)
    except OSError:
        return None
    return [len(data), hashlib.sha256(data).hexdigest()] if data else None


def shown(line: bytes) -> bytes:
    """A line as Promtail's first stages leave it: without colours, and of a progress bar only the last frame."""
    return ANSI.sub(b"", line).rstrip(b"\r\n").rpartition(b"\r")[2]


def rewound(path: str, position: int, starts: list[re.Pattern[bytes]]) -> int:
    """Offset of an entry's first line that lies at least `REWIND` bytes, as Promtail sees them, before a position.

    Parameters:
        path: the file.
        position: bytes from its beginning.
        starts: expressions for the first line of an entry; without any, each line is an entry.
    """
    with open(path, "rb") as file:
        reach = 2 * REWIND
        while True:
            low = max(0, position - reach)
            file.seek(low)
            data = file.read(position - low)
            end, seen = len(data), 0
            while end > 0:
                at = data.rfind(b"\n", 0, end - 1) + 1
                if at == 0 and low > 0:
                    break  # its beginning lies farther back
                text = shown(data[at:end])
                seen, end = seen + len(text) + 1, at
                if seen >= REWIND and (not starts or any(start.match(text) for start in starts)):
                    return low + at
            if low == 0:
                return 0
            if reach >= FARTHEST:
                return low + end
            reach *= 4


class Checkpoint:
    """What is remembered from one start or stop of the agent to the next.

    Parameters:
        path: its file, JSON.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            known = json.loads(path.read_text("utf-8"))
            self.clean = bool(known["clean"])
            self.started: dict[str, int] = {path: int(at) for path, at in known["started"].items()}
            self.heads: dict[str, list] = {path: [int(size), sha256] for path, (size, sha256) in known["heads"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            self.clean, self.started, self.heads = False, {}, {}

    def save(self) -> None:
        """Write it, or forget all of it on a full disk: then more is read again than needed."""
        try:
            write(self.path, {"clean": self.clean, "started": self.started, "heads": self.heads})
        except OSError as error:
            print(f"{self.path} cannot be written: {error}", file=sys.stderr)
            self.path.unlink(missing_ok=True)


def write(path: Path, data: dict) -> None:
    """Write JSON, which is YAML too, completely or not at all, and wait until the disk has it."""
    handle, partial = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8", errors="surrogateescape") as file:
            # Pairs of surrogates are JSON but no YAML for Promtail; neither are some characters as they are.
            text = json.dumps(data, ensure_ascii=False)
            file.write(NO_YAML.sub(lambda found: f"\\u{ord(found[0]):04x}", text))
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError:
        os.unlink(partial)
        raise


def replaced(path: str, known: list | None) -> bool:
    """Whether a file does not begin as it did; false when that is not known."""
    return bool(known) and head_of(path, known[0]) != known


def begin(path: str, position: int, checkpoint: Checkpoint, starts: list[re.Pattern[bytes]]) -> int:
    """Where the agent is to begin reading a file.

    Parameters:
        path: the file; it exists.
        position: bytes that it had read.
        checkpoint: what is remembered.
        starts: see `rewound`.
    """
    if position > os.path.getsize(path) or replaced(path, checkpoint.heads.get(path)):
        return 0
    if checkpoint.clean:
        return position
    started = min(checkpoint.started.get(path, 0), position)
    return max(started, rewound(path, position, starts))


def start(folder: Path, starts: list[re.Pattern[bytes]]) -> None:
    """Set the positions back as far as needed.

    Parameters:
        folder: the agent's state folder with `positions.yaml`.
        starts: see `rewound`.
    """
    file, checkpoint = folder / "positions.yaml", Checkpoint(folder / "checkpoint.json")
    try:
        positions = parse(file.read_text("utf-8"))
    except FileNotFoundError:
        # Somebody wants all to be read again.
        positions = {}
    except (DamagedError, UnicodeDecodeError) as error:
        print(f"{file} is damaged ({str(error)[:80]!r}); taking where the agent began the last time", file=sys.stderr)
        positions, checkpoint.clean = {path: str(at) for path, at in checkpoint.started.items()}, False
    begins: dict[str, int] = {}
    for path, value in positions.items():
        if value.isdigit() and os.path.isfile(path):
            try:
                begins[path] = begin(path, int(value), checkpoint, starts)
            except OSError as error:
                print(f"{path}: {error}; it is read from its beginning", file=sys.stderr)
                begins[path] = 0
    others = {path: value for path, value in positions.items() if not value.isdigit()}
    again = sum(int(positions[path]) - at for path, at in begins.items())
    if again > 0:
        print(f"{again} bytes of {len(begins)} files are read again", file=sys.stderr)
    try:
        write(file, {"positions": others | {path: str(at) for path, at in begins.items()}})
    except OSError as error:
        # A full disk. Without positions all is read again: more work, nothing lost.
        print(f"{file} cannot be written ({error}); everything is read again", file=sys.stderr)
        file.unlink(missing_ok=True)
    checkpoint.clean, checkpoint.started = False, begins
    checkpoint.heads = {path: head for path in begins if (head := head_of(path))}
    checkpoint.save()


def stop(folder: Path, result: str) -> None:
    """Remember whether the agent ended by itself, having delivered all, and how its files begin.

    Parameters:
        folder: the agent's state folder.
        result: systemd's `SERVICE_RESULT`; `success` is an exit by itself.
    """
    checkpoint = Checkpoint(folder / "checkpoint.json")
    checkpoint.clean = result == "success"
    try:
        paths = list(parse((folder / "positions.yaml").read_text("utf-8")))
    except (OSError, DamagedError, UnicodeDecodeError):
        paths = []
    for path in paths:
        known = checkpoint.heads.get(path)
        if known and known[0] == HEAD and not replaced(path, known):
            continue
        if not checkpoint.clean and replaced(path, known):
            # The position may be that of the file before: an agent without Loki reads on in a file that was moved away.
            continue
        if head := head_of(path):
            checkpoint.heads[path] = head
    checkpoint.save()


def end_orphan(command: list[str]) -> None:
    """Kill an agent whose own `run` was killed: launchd sends it a SIGTERM only, which in an outage it is slow to obey.

    It holds the port meanwhile, so that the next one could not start.

    Parameters:
        command: the agent's command line.
    """
    listed = ["/bin/ps", "-axww", "-o", "pid=", "-o", "ppid=", "-o", "command="]
    end = time.monotonic() + 5
    while time.monotonic() < end:
        rows = [
            line.split(None, 2) for line in subprocess.check_output(listed, text=True, errors="replace").splitlines()
        ]
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


def run(folder: Path, starts: list[re.Pattern[bytes]], timeout: float, command: list[str]) -> int:
    """Set the positions back, run the agent, and remember how it ended; a SIGTERM is passed on to it.

    Parameters:
        folder: the agent's state folder; has this process's number as `promtail.pid` meanwhile, for newsyslog(8).
        starts: see `rewound`.
        timeout: seconds after a SIGTERM until the agent is killed.
        command: the agent's command line.

    Returns:
        The agent's exit code; 128 and the signal's number when a signal has ended it, as a shell does.
    """
    agent, asked = None, False

    def pass_on(*_: object) -> None:
        nonlocal asked
        asked = True
        if agent:
            agent.terminate()
            signal.setitimer(signal.ITIMER_REAL, timeout)

    signal.signal(signal.SIGTERM, pass_on)
    signal.signal(signal.SIGALRM, lambda *_: agent.kill())
    numbered = folder / "promtail.pid"
    numbered.unlink(missing_ok=True)  # another process may have the number of the last run
    end_orphan(command)
    start(folder, starts)
    try:
        numbered.write_text(f"{os.getpid()}\n")
    except OSError as error:  # a full disk: the log is not rotated, but lines are shipped
        print(f"{numbered} cannot be written: {error}", file=sys.stderr)
    agent = subprocess.Popen(command)
    if asked:  # while there was no agent yet
        pass_on()
    code = agent.wait()
    signal.setitimer(signal.ITIMER_REAL, 0)
    numbered.unlink(missing_ok=True)
    stop(folder, "failure" if code else "success")
    return code if code >= 0 else 128 - code


def main() -> int:
    """`positions.py start|stop STATE_FOLDER SETTINGS`, or `run STATE_FOLDER SETTINGS SECONDS COMMAND…`.

    Settings are JSON with `entry_starts`.
    """
    action, folder, settings = sys.argv[1], Path(sys.argv[2]), json.loads(Path(sys.argv[3]).read_text())
    starts = [re.compile(text.encode()) for text in settings["entry_starts"]]
    if action == "run":
        return run(folder, starts, float(sys.argv[4]), sys.argv[5:])
    if action == "start":
        start(folder, starts)
    else:
        stop(folder, os.environ.get("SERVICE_RESULT", ""))
    return 0


if __name__ == "__main__":
    sys.exit(main())
