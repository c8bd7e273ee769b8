# Copyright (c) SmolCluster contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Find and open the log files of all sources, and copy them line by line into our own files, which the agent reads.

A copy is replaced by a new one when the agent has read it, and is not larger than `LARGEST`; further lines stay in the
log until then. The generations of a rotated log follow one another in one copy, the oldest first, because Loki refuses
lines that are more than an hour older than the newest line of their stream. An open log can still be read after it was
renamed or removed.

A log file is recognised by its device, inode and first bytes.
"""

from __future__ import annotations

import errno
import hashlib
import http.client
import json
import os
import re
import resource
import sys
import time
import urllib.parse
import urllib.request
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import globs
import positions
from safe_open import RefusedError, open_log, printable, resolve, within

STATE, STARTED = "files.json", "started.json"
HEAD = 1024  # first bytes of a file that identify it
CHUNK = 256 << 10  # bytes that are copied at a time
LARGEST = 32 << 20  # largest size of a copy in bytes
WAITING = 48 << 20  # largest number of bytes in all copies that the agent has not read yet
SPARE = 32  # file descriptors that logs and copies must leave free: without any, folders would look empty
ROLL = 1 << 20  # size in bytes at which a copy that was read completely is replaced by a new one
LONGEST_LINE = 8 << 20  # bytes; the agent needs several times a line's size to read it
SEARCHED = 64 << 20  # bytes of a file that are searched for the end of a line before other files are served
KEPT = 64 << 10  # bytes at the end of a longer line that are shipped
UNFINISHED = 5.0  # seconds after which the last line of a rotated log is shipped without a line feed
LIVELY = 10.0  # seconds after growth during which a log is checked more often than in each scan
PARKED = 600.0  # seconds without a new line after which the agent need not follow a log
SAVED = 10.0  # seconds between two writes of the state
REPORTED = 2.0  # seconds between two writes of the report
STALE = 5.0  # seconds after which a position is certainly that of a new copy; the agent saves it twice a second
ASKED = 15.0  # seconds between two requests to the agent
MANY = 1000  # number of files that the report lists
# Seconds after which a line that the agent has read counts as delivered, if the agent repeated no request during that
# time. A failed request is repeated after 15 s at the latest (its timeout and backoff_config of the role).
QUIET = 60.0
# What rotation adds to a name: RotatingFileHandler and logrotate (`.1`), TimedRotatingFileHandler (`.2026-04-06_12`),
# logrotate's dateext (`-20260406`).
ROTATED = re.compile(r"(\.\d{1,4}|\.\d{4}-\d\d-\d\d(_\d\d(-\d\d){0,2})?|[.-]\d{8}([-_.T]?\d{2,6})?)$")
# loguru inserts the date before the extension: `train.2026-04-06_12-00-00_123456.log`.
ROTATED_INSIDE = re.compile(r"\.\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d_\d{6}(?=\.\w+$)")
PACKED = (".gz", ".bz2", ".xz", ".zst", ".zip", ".lz4", ".Z")
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@lru_cache(1 << 16)
def matches(pattern: str, path: str) -> bool:
    """See `globs.matches`."""
    return globs.matches(pattern, path)


def unrotated(name: str, pattern: re.Pattern[str], names: set[str]) -> str | None:
    """Name of the log that a file is or was; None when it is not watched.

    Parameters:
        name: the file's name.
        pattern: expression for the names that are watched.
        names: names of all files in the folder.
    """
    if name.endswith(PACKED):
        return None
    watched = bool(pattern.fullmatch(name))
    for base in (ROTATED.sub("", name), ROTATED_INSIDE.sub("", name)):
        # `train.1` may be a separate log; it counts as an older `train` only if `train` is in the folder, too.
        if base not in ("", name) and pattern.fullmatch(base) and (not watched or base in names):
            return base
    return name if watched else None


@dataclass(eq=False)
class Generation:
    """One file of a log; each rotation adds one.

    Parameters:
        log: path of the log, without the addition of the rotation.
        key: device and inode.
        head: length and SHA-256 of the first bytes.
        read: offset up to which the agent has read the file.
        done: whether the file is completely delivered and closed.
        size: size of the file when it was done.
        started: offset at which the agent started to read at its last start.
        left_out: bytes of lines that were too long.
        handle: the open file; None while it is only remembered.
        current: whether the file has the name of the log now.
        fed: offset up to which the file is copied.
        searched: offset up to which no end of the line at `fed` was found.
        unfinished: time since which the last line has no line feed.
        quiet: time since which the agent has read the whole file and it does not have the name of the log.
        tail: last bytes that were copied.
        before: `fed`, `head` and `tail` before the file was truncated.
    """

    log: str
    key: tuple[int, int]
    head: tuple[int, str]
    read: int = 0
    done: bool = False
    size: int = -1
    started: int = 0
    left_out: int = 0
    handle: int | None = None
    current: bool = False
    fed: int = 0
    searched: int = 0
    unfinished: float | None = None
    quiet: float | None = None
    tail: bytes = b""
    before: tuple[int, tuple[int, str], bytes] | None = None

    def grown(self, path: str) -> bool:
        """Whether a rotated file that was closed as delivered has grown since.

        Parameters:
            path: its path now.
        """
        try:
            return self.done and os.lstat(path).st_size != self.size
        except OSError:
            return True

    def length(self) -> int:
        """Size of the open file in bytes; the last known size if it is not available, as on a lost network drive."""
        try:
            return os.fstat(self.handle).st_size
        except OSError:
            return self.fed

    def replaced(self) -> bool:
        """Whether the first bytes of the open file have changed: it was rewritten."""
        return head_of(self.handle, self.head[0]) != self.head


@dataclass(eq=False)
class Log:
    """A log and its copy.

    Parameters:
        copy: path of the copy.
        partial: path at which a new copy is created.
        generations: open files of the log, the oldest first.
        handle: the open copy; None while there is nothing to read.
        written: size of the copy in bytes.
        consumed: bytes of the copy that the agent has read.
        pieces: content of the copy, in order: offset in the copy, file, offset in the file, length, and whether the
            bytes are the same as in the file.
        grew: when the log last got a line, by the monotonic clock.
        read_since: time since which the agent has read the whole copy.
        stale: position that the agent has saved for the copy before this one.
        begun: when the copy was created, in seconds since 1970.
    """

    copy: Path
    partial: Path
    generations: list[Generation] = field(default_factory=list)
    handle: int | None = None
    written: int = 0
    consumed: int = 0
    pieces: deque[tuple[int, Generation, int, int, bool]] = field(default_factory=deque)
    grew: float = 0.0
    read_since: float | None = None
    stale: int | None = None
    begun: float = 0.0

    def put(self, data: bytes, generation: Generation, offset: int, length: int) -> None:
        """Append lines to the copy.

        Parameters:
            data: the lines.
            generation: the file that contains them.
            offset: their offset in that file.
            length: their length in that file, in bytes.
        """
        if self.handle is None:
            self._open()
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self.handle, view) :]
        except OSError:
            # Remove a partial line: its rest would become a separate line.
            os.ftruncate(self.handle, self.written)
            raise
        same = len(data) == length
        last = self.pieces[-1] if self.pieces else None
        if last and same and last[4] and last[1] is generation and last[2] + last[3] == offset:
            self.pieces[-1] = (last[0], generation, last[2], last[3] + length, True)
        else:
            self.pieces.append((self.written, generation, offset, length, same))
        self.written += len(data)
        self.read_since = None
        generation.fed = generation.searched = offset + length
        generation.tail = data[-HEAD:] if same else b""

    def _open(self) -> None:
        """Create a new copy, in place of one that the agent has read completely."""
        self.copy.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Not in the folder of the copy, where the agent searches for files.
        handle = os.open(self.partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            if is_last(handle):
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            os.replace(self.partial, self.copy)
        except OSError:
            os.close(handle)
            positions.remove(self.partial)
            raise
        self._forget(handle)

    def _forget(self, handle: int | None) -> None:
        """Continue with another copy, or with none."""
        if self.handle is not None:
            os.close(self.handle)
        self.handle, self.stale = handle, self.consumed or self.stale
        self.written, self.consumed, self.begun = 0, 0, time.time()
        self.pieces.clear()

    def close(self) -> None:
        """Remove the copy."""
        if self.handle is not None:
            self.copy.unlink(missing_ok=True)
            self._forget(None)

    def begin_again(self, file: Generation) -> None:
        """Copy a file from its start again; what the copy contains of it is from before."""
        before = Generation(file.log, file.key, file.head)
        self.pieces = deque((piece[0], before if piece[1] is file else piece[1], *piece[2:]) for piece in self.pieces)
        file.before = (file.fed, file.head, file.tail)
        file.fed = file.searched = file.read = file.started = 0
        file.tail = b""
        file.head, file.unfinished = head_of(file.handle, HEAD), None

    def agent_read(self, position: int, saved: float, now: float) -> None:
        """Store how far the agent has read the copy.

        Parameters:
            position: offset in the copy.
            saved: when the agent has saved the position, in seconds since 1970.
            now: time by the monotonic clock.
        """
        if position == self.stale and saved < self.begun + STALE:
            return
        self.stale = None
        self.consumed = min(position, self.written)
        while self.pieces:
            start, generation, offset, length, same = self.pieces[0]
            over = self.consumed - start
            if over < length and same:
                generation.read = max(generation.read, offset + max(0, over))
                break
            end = self.pieces[1][0] if len(self.pieces) > 1 else self.written
            if self.consumed < end:
                break
            generation.read = max(generation.read, offset + length)
            self.pieces.popleft()
        if self.consumed < self.written:
            self.read_since = None
        elif self.read_since is None:
            self.read_since = now

    def roll(self, now: float, largest: int) -> None:
        """Replace a large copy by a new one, once the agent has waited at its end for a moment.

        The agent notices a new file with the same name only while it waits at the end of the old one (grafana/tail,
        polling.go).

        Parameters:
            now: time by the monotonic clock.
            largest: size in bytes up to which a copy is not replaced.
        """
        if (
            self.handle is not None
            and self.written > largest
            and self.read_since is not None
            and now - self.read_since > 0.2
        ):
            self._open()


@dataclass
class Source:
    """One source of the settings, and its logs.

    Parameters:
        name: its name.
        patterns: its paths, without `{…}`.
        exclude: pattern of paths to leave out; empty for none.
        follow: folders that links may lead into.
        starts: expressions for the first line of an entry; empty if each line is an entry, or if this is not known.
        unknown_start: whether entries have several lines and their first line cannot be recognised.
        files: all known files, by device and inode.
        restored: files that are known from the last run, by inode.
        logs: logs with open files, by path.
        seen: result of the last scan: inode and file, by path.
    """

    name: str
    patterns: list[str]
    exclude: str
    follow: list[str]
    starts: list[re.Pattern[str]]
    unknown_start: bool
    files: dict[tuple[int, int], Generation] = field(default_factory=dict)
    restored: dict[int, list[Generation]] = field(default_factory=dict)
    logs: dict[str, Log] = field(default_factory=dict)
    seen: dict[str, tuple[int, Generation]] = field(default_factory=dict)

    @classmethod
    def of(cls, settings: dict) -> Source:
        """Create a source from its settings."""
        starts, unknown = [], bool(settings.get("unknown_start"))
        if settings.get("entry_start"):
            try:
                starts = [re.compile(settings["entry_start"], re.ASCII)]
            except re.error:  # not valid in this version of Python
                unknown = True
        return cls(
            settings["name"],
            [found for path in settings["paths"] for found in globs.alternatives(path)],
            settings.get("exclude") or "",
            settings.get("follow") or [],
            starts,
            unknown,
        )

    def known_before(self, handle: int, log: str, key: tuple[int, int]) -> Generation | None:
        """The same file from the last run, if its device number has changed, as on btrfs and NFS after a boot.

        Parameters:
            handle: the open file.
            log: path of the log that it is or was.
            key: its device and inode now.
        """
        for file in self.restored.get(key[1], []):
            lost = file.handle is None and file.log == log and self.files.get(file.key) is file
            if lost and file.head[0] and head_of(handle, file.head[0]) == file.head:
                del self.files[file.key]
                file.key = key
                self.files[key] = file
                return file
        return None

    def forget(self, file: Generation) -> None:
        """Forget a file, if another one has not taken its inode yet."""
        if self.files.get(file.key) is file:
            del self.files[file.key]


class LogFiles:
    """The logs of all sources.

    Parameters:
        state: folder for how far the files were read.
        folder: folder of the copies; it is created again.
        report: file for the status.
        agent_positions: file in which the agent saves how far it has read the copies.
        sources: the sources.
        port: TCP port of the agent's metrics on 127.0.0.1.
    """

    def __init__(
        self, state: Path, folder: Path, report: Path, agent_positions: Path, sources: list[Source], port: int
    ) -> None:
        self.state, self.folder, self.report, self.agent_positions = state, folder, report, agent_positions
        self.sources, self.port = sources, port
        self.refused: dict[str, str] = {}
        self.unsaved = ""
        self._saved_text, self._saved_at = "", 0.0
        self._reported, self._reported_at = "", 0.0
        # Time of the last request to the agent, time since which it has repeated none of its own requests, and how many
        # it had repeated until then.
        self._asked: tuple[float, float, float | None] = (0.0, 0.0, None)
        self._positions: tuple[tuple[int, int], dict[str, int]] = ((0, 0), {})
        clean = self._restore()
        try:
            remove_tree(folder)
        except PermissionError:  # it belongs to the agent's previous account, under which the agent was killed
            folder.rename(f"{folder}.{time.time_ns()}")
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        positions.remove(agent_positions)
        self.scan()
        self._set_back(clean)
        self.save(clean=False)

    def _restore(self) -> bool:
        """Load the files of the last run; from the state at its start, if the newer state is damaged.

        Returns:
            Whether the agent ended by itself in that run, and so has delivered everything that it had read.
        """
        for path in (self.state / STATE, self.state / STARTED):
            try:
                known = json.loads(path.read_text("ascii"))
                for entry in known["files"]:
                    self._remember(entry)
                return bool(known["clean"])
            except FileNotFoundError:
                if path.name == STATE:  # it was removed, so that everything is read again
                    return True
            except (OSError, ArithmeticError, LookupError, TypeError, ValueError, AttributeError) as error:
                print(f"{path} is damaged ({str(error)[:80]})", file=sys.stderr)
                for source in self.sources:
                    source.files.clear()
                    source.restored.clear()
        return False

    def _remember(self, entry: dict) -> None:
        """Add a file of the last run, if its source still exists."""
        for source in self.sources:
            if source.name == entry["source"]:
                file = Generation(
                    str(entry["log"]),
                    (int(entry["key"][0]), int(entry["key"][1])),
                    (int(entry["head"][0]), str(entry["head"][1])),
                    int(entry["read"]),
                    bool(entry["done"]),
                    int(entry["size"]),
                    int(entry["started"]),
                    int(entry["left_out"]),
                )
                if file.read < 0 or not 0 <= file.head[0] <= HEAD:
                    raise ValueError(f"read {file.read}, head {file.head[0]}")
                source.files[file.key] = file
                source.restored.setdefault(file.key[1], []).append(file)

    def _set_back(self, clean: bool) -> None:
        """Set where copying starts in each file: at the agent's last position, or before it, if the agent was killed.

        Lines in its memory are lost when it is killed: at most a batch, and the entries in its stages. Lines from
        before its last start are not read again, because they were delivered, or read again at that start.

        Parameters:
            clean: whether the agent ended by itself.
        """
        again = 0
        for source in self.sources:
            for log in source.logs.values():
                left = positions.REWIND
                for file in reversed(log.generations):
                    begin = file.read = min(file.read, file.length()) if file.read <= file.length() else 0
                    if not clean and file.read and left > 0:
                        if source.unknown_start:
                            begin = min(file.started, file.read)
                        else:
                            found, seen = positions.rewound(file.handle, file.read, source.starts, left)
                            begin, left = max(found, min(file.started, file.read)), left - seen
                    again += file.read - begin
                    file.read = file.fed = file.searched = file.started = begin
        if again:
            print(f"{again} bytes are read again", file=sys.stderr)

    def scan(self) -> None:
        """Scan all folders."""
        self.refused = {}
        zones = {source.name: self._zones(source) for source in self.sources}
        common = [zone for found in zones.values() for zone in found.values()]
        for source in self.sources:
            self._scan(source, zones[source.name], common, self._followed(source))

    def _zones(self, source: Source) -> dict[str, str]:
        """Folder of each pattern that may be scanned, with links of root followed.

        A link in it that another account can change is followed only into a folder in `follow` of the source.
        """
        zones = {}
        for pattern in source.patterns:
            fixed = globs.fixed_part(pattern)
            try:
                zone, link = resolve(fixed)
            except OSError:  # it is being changed
                continue
            if link:
                target = os.path.realpath(fixed)
                if not within(target + "/", self._followed(source)):
                    self.refused[link] = (
                        f"a link to {printable(target)} in the path of the source {source.name}; `follow` allows it"
                    )
                    continue
                zone = target
            zones[pattern] = zone
        return zones

    def _followed(self, source: Source) -> list[str]:
        """Folders that links of a source may lead into, except those that another account can replace by a link."""
        found = []
        for folder in source.follow:
            with suppress(OSError):  # it is being changed
                path, link = resolve(folder)
                if link:
                    self.refused[link] = f"a link in `follow` of the source {source.name}; name the folder itself"
                else:
                    found.append(path)
        return found

    def _scan(self, source: Source, zones: dict[str, str], common: list[str], follow: list[str]) -> None:
        """Find the files of one source.

        Parameters:
            source: the source.
            zones: see `_zones`.
            common: folders of all sources.
            follow: folders that links of this source may lead into.
        """
        found: dict[str, tuple[int, Generation]] = {}
        fresh: list[tuple[tuple, str, str, int, int, os.stat_result]] = []
        for pattern, zone in zones.items():
            fixed = globs.fixed_part(pattern)
            for path, log, inode, is_link in listed(pattern):
                if path in found or (
                    source.exclude and (matches(source.exclude, path) or matches(source.exclude, log))
                ):
                    continue
                known = source.seen.get(path)
                if known and known[0] == inode and not is_link and not known[1].grown(path):
                    found[path] = known
                    continue
                try:
                    handle, status = open_log(path, fixed, zone, common, follow)
                except RefusedError as error:
                    if str(error):
                        self.refused[path] = str(error)
                    continue
                if is_last(handle):
                    os.close(handle)
                    self.refused[path] = os.strerror(errno.EMFILE).lower()
                    continue
                fresh.append(((is_link, path == log, status.st_mtime), path, log, inode, handle, status))
        self._name(source, found)
        # Links come last, because their targets may be watched as well. A log comes after its older generations.
        for _order, path, log, inode, handle, status in sorted(fresh):
            try:
                found[path] = (inode, self._take(source, path, log, handle, status))
            except OSError as error:
                os.close(handle)
                self.refused[path] = f"it cannot be read: {error.strerror}"
        present = {id(file) for _inode, file in found.values()}
        for _inode, file in source.seen.values():
            if file.done and id(file) not in present:
                source.forget(file)
        source.seen = found
        self._name(source, found)

    @staticmethod
    def _name(source: Source, found: dict[str, tuple[int, Generation]]) -> None:
        """Store which files have the name of their log now."""
        logs = {id(file) for path, (_inode, file) in found.items() if path == file.log}
        for file in source.files.values():
            file.current = id(file) in logs

    def _take(self, source: Source, path: str, log: str, handle: int, status: os.stat_result) -> Generation:
        """Register a file that was opened, and keep it open if it was not open before.

        Parameters:
            source: its source.
            path: its path now.
            log: path of the log that it is or was.
            handle: the open file; this function keeps or closes it.
            status: its status.
        """
        key = (status.st_dev, status.st_ino)
        file = source.files.get(key)
        if file and file.handle is None and (not file.head[0] or head_of(handle, file.head[0]) != file.head):
            # Another file has the inode now, or nothing was known of the old one.
            del source.files[key]
            file = None
        file = file or source.known_before(handle, log, key)
        if file and (file.handle is not None or (file.done and file.size == status.st_size)):
            os.close(handle)
            return file
        if not file:
            file = source.files[key] = Generation(log, key, head_of(handle, HEAD))
            if path != log and log in source.logs:
                file.read = copied_before(handle, source.logs[log].generations)
        file.handle, file.done = handle, False
        file.fed = file.searched = file.read
        owner = source.logs.get(file.log)
        if owner is None:
            copy = Path(f"{self.folder}/{urllib.parse.quote(source.name, safe='')}{copy_path(file.log)}")
            owner = source.logs[file.log] = Log(copy, self.folder / "%new")  # quoted names of sources cannot be this
        owner.grew = time.monotonic()
        # A file that was rotated before it was found comes before the log.
        late = path != log and owner.generations and owner.generations[-1].current
        owner.generations.insert(len(owner.generations) - bool(late), file)
        return file

    def feed(self, all_logs: bool) -> bool:
        """Copy new lines.

        Parameters:
            all_logs: whether to check all logs, or only those that have grown recently.

        Returns:
            Whether a log has grown recently.
        """
        now = time.monotonic()
        logs = [(path, log) for source in self.sources for path, log in source.logs.items()]
        read = self._read() if any(log.pieces for _path, log in logs) else {}
        waiting = held = 0
        for _path, log in logs:
            if log.pieces:
                log.agent_read(read.get(str(log.copy), log.consumed), self._positions[0][1] / 1e9, now)
            waiting += log.written - log.consumed
            held += log.written
        lively = False
        for path, log in logs:
            if not all_logs and now - log.grew > LIVELY:
                continue
            try:
                log.roll(now, ROLL if held < WAITING else 0)
                waiting += self._feed(log, WAITING - waiting, now)
            except OSError as error:  # no space for the copy, or its path is too long
                self.refused[path] = f"it cannot be copied: {error.strerror}"
            lively = lively or now - log.grew < LIVELY
        return lively

    def _read(self) -> dict[str, int]:
        """How far the agent has read the copies; read again only when the agent has saved it again."""
        try:
            status = os.stat(self.agent_positions)
        except OSError:
            return {}
        version = (status.st_ino, status.st_mtime_ns)
        if version != self._positions[0]:
            self._positions = (version, positions.saved(self.agent_positions))
        return self._positions[1]

    def _feed(self, log: Log, room: int, now: float) -> int:
        """Copy new lines of one log.

        Parameters:
            log: the log.
            room: bytes that may be copied.
            now: time by the monotonic clock.

        Returns:
            Bytes that were copied.
        """
        before = total = 0
        for number, file in enumerate(log.generations):
            length = file.length()
            if length < file.fed or (length > file.fed and file.replaced()):
                log.begin_again(file)
            while file.fed < length and total < room and log.written < LARGEST:
                before = log.written
                if not self._copy(log, file, length, rotated=number < len(log.generations) - 1 or not file.current):
                    break
                total += max(0, log.written - before)
                log.grew = now
            if file.fed < length and file.unfinished is None:
                break  # the rest of this file comes before the next file
        return total

    def _copy(self, log: Log, file: Generation, length: int, rotated: bool) -> bool:
        """Copy the next lines of a file.

        Parameters:
            log: its log.
            file: the file.
            length: its size.
            rotated: whether no more lines are expected in it.

        Returns:
            Whether anything was copied.
        """
        block = os.pread(file.handle, CHUNK, file.fed) if file.searched == file.fed else b""
        end = block.rfind(b"\n") + 1
        if end and block.startswith(b"\0"):
            self._long_line(log, file, file.fed + block.find(b"\n") + 1)
            return True
        if end:
            file.unfinished = None
            log.put(block[:end], file, file.fed, end)
            return True
        # A line that is longer than a block, or is not complete yet.
        offset = max(file.searched, file.fed + len(block))
        end = min(length, offset + SEARCHED)
        while offset < end:
            offset = data_after(file.handle, offset, length)
            block = os.pread(file.handle, CHUNK, offset)
            at = block.find(b"\n")
            if at >= 0:
                self._long_line(log, file, offset + at + 1)
                return True
            if not block:
                break
            offset += len(block)
        file.searched = min(offset, length)
        if file.searched < length:
            log.grew = time.monotonic()  # look again soon
            return False
        if not rotated:
            return False
        file.unfinished = file.unfinished or time.monotonic()
        if time.monotonic() - file.unfinished < UNFINISHED:
            return False
        self._long_line(log, file, length)
        return True

    def _long_line(self, log: Log, file: Generation, end: int) -> None:
        """Copy a line that is longer than a block, follows a hole or has no line feed; of a too long line only the end.

        Parameters:
            log: its log.
            file: the file.
            end: offset after the line.
        """
        file.unfinished = None
        begin = file.fed
        if end - begin > LONGEST_LINE:
            begin = end - KEPT
            file.left_out += begin - file.fed
        # A file that was truncated while its program kept writing has a hole before the text.
        data = os.pread(file.handle, end - begin, begin).lstrip(b"\0")
        if begin != file.fed:
            # Of a progress bar, only the last frame.
            data = data.rstrip(b"\r\n").rpartition(b"\r")[2] + b"\n"
            name = printable(file.log)
            print(f"{name}: {begin - file.fed} bytes at {file.fed} are left out: the line is too long", file=sys.stderr)
        elif not data.endswith(b"\n"):
            data += b"\n"
        log.put(data, file, file.fed, end - file.fed)

    def retire(self) -> None:
        """Close delivered files that were rotated or removed, and copies of logs without new lines."""
        now = time.monotonic()
        old, silent = [], []
        for source in self.sources:
            for path, log in source.logs.items():
                for file in log.generations:
                    if file.current or file.read < file.length():
                        file.quiet = None
                    elif file.quiet is None:
                        file.quiet = now
                    elif now - file.quiet >= QUIET:
                        old.append((source, path, file))
                if log.handle is not None and not log.pieces and now - log.grew >= PARKED:
                    silent.append(log)
        if not (old or silent) or not self._delivered(now):
            return
        for log in silent:
            log.close()
        for source, path, file in old:
            file.done, file.size = True, file.read  # the file may have grown since
            os.close(file.handle)
            file.handle = None
            log = source.logs[path]
            log.generations.remove(file)
            if not log.generations:
                log.close()
                del source.logs[path]
            if id(file) not in {id(known) for _inode, known in source.seen.values()}:
                source.forget(file)

    def _delivered(self, now: float) -> bool:
        """Whether the agent has repeated no request for `QUIET` seconds."""
        asked, since, before = self._asked
        if now - asked >= ASKED:
            repeated = self._repeated()
            if repeated is None or repeated != before:
                since = now
            self._asked = (now, since, repeated)
        return self._asked[2] is not None and now - self._asked[1] >= QUIET

    def _repeated(self) -> float | None:
        """How many requests the agent has repeated since its start; None when it does not answer."""
        try:
            with DIRECT.open(f"http://127.0.0.1:{self.port}/metrics", timeout=5) as answer:
                lines = answer.read().decode("utf-8", "replace").splitlines()
            counts = [line.rpartition(" ")[2] for line in lines if line.startswith("promtail_batch_retries_total")]
            return sum(float(count) for count in counts)
        except (OSError, ValueError, http.client.HTTPException):  # for example, it is just ending
            return None

    def save(self, clean: bool) -> None:
        """Save how far the files were read, for the next start.

        Parameters:
            clean: whether the agent has ended by itself, and so has delivered everything that it had read.
        """
        entries = []
        for source in self.sources:
            for file in source.files.values():
                if file.handle is not None and file.head[0] < min(HEAD, file.length()):
                    with suppress(OSError):
                        file.head = head_of(file.handle, HEAD)
                fields = ("log", "key", "head", "read", "done", "size", "started", "left_out")
                entries.append({"source": source.name} | {name: getattr(file, name) for name in fields})
        text = json.dumps({"clean": clean, "files": entries})
        if text == self._saved_text:
            return
        try:
            positions.replace(self.state / STATE, text)
            if not self._saved_text:
                positions.replace(self.state / STARTED, text)
            self._saved_text, self.unsaved = text, ""
        except OSError as error:
            self.unsaved = str(error)
            print(f"{self.state / STATE} cannot be written: {error}", file=sys.stderr)
        self._saved_at = time.monotonic()

    def keep(self) -> None:
        """Write state and report, if they are due."""
        if time.monotonic() - self._saved_at >= SAVED:
            self.save(clean=False)
        if time.monotonic() - self._reported_at < REPORTED:
            return
        self._reported_at = time.monotonic()
        files = [
            {"path": printable(path), "read": log.generations[-1].read, "size": log.generations[-1].length()}
            for source in self.sources
            for path, log in source.logs.items()
            if log.generations
        ]
        left_out = [file for source in self.sources for file in source.files.values() if file.left_out]
        text = json.dumps(
            {
                "files": files[:MANY],
                "count": len(files),
                "backlog": sum(
                    file.length() - file.read
                    for source in self.sources
                    for log in source.logs.values()
                    for file in log.generations
                ),
                "refused": [
                    {"path": printable(path), "reason": why} for path, why in sorted(self.refused.items())[:MANY]
                ],
                "left_out": [{"path": printable(file.log), "bytes": file.left_out} for file in left_out[:MANY]],
                "unsaved": self.unsaved,
            }
        )
        if text != self._reported:
            try:
                positions.replace(self.report, text, sync=False)
                self._reported = text
            except OSError as error:
                print(f"{self.report} cannot be written: {error}", file=sys.stderr)

    def end(self, clean: bool) -> None:
        """Save how far the agent had read when it ended.

        Parameters:
            clean: whether it ended by itself, and so has delivered everything that it had read.
        """
        read = self._read()
        for source in self.sources:
            for log in source.logs.values():
                position = read.get(str(log.copy), log.consumed)
                log.agent_read(position, self._positions[0][1] / 1e9, time.monotonic())
        self.save(clean)
        # The next agent may run as another account.
        with suppress(OSError):
            remove_tree(self.folder)


def copied_before(handle: int, generations: list[Generation]) -> int:
    """Offset up to which a new file is a copy of lines that were already shipped, as with logrotate's copytruncate.

    Parameters:
        handle: the new file.
        generations: the other files of its log.
    """
    for file in generations:
        for fed, head, tail in ((file.fed, file.head, file.tail), file.before or (0, (0, ""), b"")):
            if tail and head_of(handle, head[0]) == head and os.pread(handle, len(tail), fed - len(tail)) == tail:
                return fed
    return 0


def is_last(handle: int) -> bool:
    """Whether this process can open only a few more files after this one."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return limit != resource.RLIM_INFINITY and handle >= limit - SPARE


def copy_path(path: str) -> str:
    """Path of the copy of a log below the folder of its source; a name that is too long is shortened."""
    names = printable(path).split("/")
    for number, name in enumerate(names):
        if len(name.encode()) > 255:
            digest = hashlib.sha256(name.encode()).hexdigest()[:16]
            names[number] = name.encode()[:200].decode("utf-8", "ignore") + f"~{digest}"
    return "/".join(names)


def data_after(handle: int, offset: int, length: int) -> int:
    """First offset, from a given one on, that is not in a hole of a sparse file; the file's length if there is none."""
    try:
        return os.lseek(handle, offset, os.SEEK_DATA)
    except (OSError, AttributeError) as error:
        # With another error, the file system does not support this.
        return length if getattr(error, "errno", None) == errno.ENXIO else offset


def head_of(handle: int, size: int) -> tuple[int, str]:
    """Length in bytes and SHA-256 of a file's first bytes.

    Parameters:
        handle: the open file.
        size: how many bytes at most.
    """
    data = os.pread(handle, size, 0)
    return len(data), hashlib.sha256(data).hexdigest()


def listed(pattern: str) -> Iterator[tuple[str, str, int, bool]]:
    """Files that match a pattern without `{…}`, including older generations.

    Returns:
        Path, path of the log that the file is or was, inode of the folder entry, and whether it is a link.
    """
    last = pattern.rstrip("/").rpartition("/")[2]
    name = globs.name_expression(last)
    for folder in globs.folders(pattern):
        try:
            with os.scandir(folder) as entries:
                found = {entry.name: entry for entry in entries}
        except OSError:
            continue
        names = {entry.name for entry in found.values() if not entry.is_dir(follow_symlinks=False)}
        for entry in found.values():
            if (base := unrotated(entry.name, name, names)) is not None:
                path = os.path.join(folder, entry.name)
                yield path, os.path.join(folder, base), entry.inode(), entry.is_symlink()


def remove_tree(folder: Path) -> None:
    """Remove a folder with its content; links are not followed."""
    if folder.is_dir() and not folder.is_symlink():
        for entry in os.scandir(folder):
            remove_tree(Path(entry.path)) if entry.is_dir(follow_symlinks=False) else os.unlink(entry.path)
        if os.listdir(folder):
            return
        try:
            folder.rmdir()
        except OSError:  # the service manager has created it
            return
