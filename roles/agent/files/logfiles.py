# Copyright (c) SmolCluster contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Find and open the log files of all sources, and copy their entries into our own files, which the agent reads.

All logs of a source have one copy, so that a thousand old files cost the agent nothing; records.py has its format. The
logs are copied in turns, and only as far as `AHEAD` of the agent; further lines stay in the logs, so one with a large
backlog does not delay the others. A copy is replaced by a new one when the agent has read it.

The generations of a rotated log follow one another, the oldest first, because Loki refuses lines that are more than an
hour older than the newest line of their stream. An open log can still be read after it was renamed or removed.

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
from array import array
from bisect import bisect_right
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import accumulate
from pathlib import Path

import globs
import positions
import records
from entries import Entries, shown
from safe_open import RefusedError, open_log, printable, resolve, within

STATE, STARTED = "files.json", "started.json"
HEAD = 1024  # first bytes of a file that identify it
TURN = 64 << 10  # bytes of a log that are copied before it is the turn of the next log
CHUNK = (
    256 << 10
)  # bytes that are read at a time where an entry is larger than a turn; no joined entry is larger than this
NAMES = 1 << 20  # bytes that the names of the log may take in the records of one turn
AHEAD = 4 << 20  # bytes of a copy that the agent has not read yet, at most; it saves its position twice a second
LARGEST = 32 << 20  # largest size of a copy in bytes
HELD = 48 << 20  # largest size of all copies together
SPARE = 32  # file descriptors that logs and copies must leave free: without any, folders would look empty
ROLL = 1 << 20  # size in bytes at which a copy that was read completely is replaced by a new one
LONGEST_LINE = 8 << 20  # bytes; the agent needs several times a line's size to read it
SEARCHED = 64 << 20  # bytes of a file that are searched for the end of a line before other files are served
KEPT = 64 << 10  # bytes at the end of a longer line that are shipped
UNFINISHED = 5.0  # seconds after which the last line of a rotated log is shipped without a line feed
LIVELY = 10.0  # seconds after growth during which a log is checked more often than in each scan
SILENCE = 0.05  # seconds without a new line after which the last entry of a log counts as complete
LISTED = 30.0  # seconds after which a folder is listed again, even if its time of modification is the same
SETTLED = 2.0  # seconds after which a change of a folder changes its time of modification; that of FAT counts in these
SAVED = 10.0  # seconds between two writes of the state
REPORTED = 2.0  # seconds between two writes of the report
STALE = 5.0  # seconds after which a position is certainly that of a new copy; the agent saves it twice a second
ASKED = 15.0  # seconds between two requests to the agent
MANY = 1000  # number of files that the report lists
RECENT = 256  # number of entries of a log with which a new one is compared
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
        equal: number of entries that were equal to one shortly before, with the same time.
        handle: the open file; None while it is only remembered.
        current: whether the file has the name of the log now.
        fed: offset up to which the file is copied.
        searched: offset up to which no end of the line at `fed` was found.
        unfinished: time since which the last line has no line feed.
        waiting: offset after the last complete line, and the time since which it is the last one; None if its entry is
            copied.
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
    equal: int = 0
    handle: int | None = None
    current: bool = False
    fed: int = 0
    searched: int = 0
    unfinished: float | None = None
    waiting: tuple[int, float] | None = None
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
    """A log.

    Parameters:
        name: its printable path, as it is in the records.
        generations: its open files, the oldest first.
        grew: when it last got a line, by the monotonic clock.
        turn: when it was copied last, as a number that grows.
        begun: whether a line was seen that begins an entry.
        recent: hashes of its last records, the oldest first; and the same as a set.
    """

    name: bytes
    generations: list[Generation] = field(default_factory=list)
    grew: float = 0.0
    turn: int = 0
    begun: bool = False
    recent: tuple[deque[int], set[int]] = field(default_factory=lambda: (deque(), set()))


@dataclass(eq=False)
class Piece:
    """Records of one file that follow one another in a copy.

    Parameters:
        generation: the file.
        copied: for each record, the offset in the copy at which it ends.
        ends: for each record, the offset in the file at which its last line ends.
    """

    generation: Generation
    copied: array
    ends: array


@dataclass(eq=False)
class Copy:
    """The copy of a source.

    Parameters:
        path: its path.
        partial: path at which a new copy is created.
        handle: the open copy; None while there is none.
        written: its size in bytes.
        consumed: bytes of it that the agent has read.
        pieces: its records that the agent has not read yet.
        read_since: time since which the agent has read the whole copy.
        stale: position that the agent has saved for the copy before this one.
        begun: when it was created, in seconds since 1970.
    """

    path: Path
    partial: Path
    handle: int | None = None
    written: int = 0
    consumed: int = 0
    pieces: deque[Piece] = field(default_factory=deque)
    read_since: float | None = None
    stale: int | None = None
    begun: float = 0.0

    def put(self, found: list[bytes], generation: Generation, ends: list[int]) -> None:
        """Append records.

        Parameters:
            found: the records.
            generation: the file that contains their lines.
            ends: for each record, the offset in that file at which its last line ends.
        """
        if self.handle is None:
            self.open()
        view = memoryview(b"".join(found))
        try:
            while view:
                view = view[os.write(self.handle, view) :]
        except OSError:
            # Remove a partial record: its rest would become a separate one.
            os.ftruncate(self.handle, self.written)
            raise
        copied = list(accumulate(map(len, found), initial=self.written))
        if self.pieces and self.pieces[-1].generation is generation:
            self.pieces[-1].copied.extend(copied[1:])
            self.pieces[-1].ends.extend(ends)
        else:
            self.pieces.append(Piece(generation, array("Q", copied[1:]), array("Q", ends)))
        self.written = copied[-1]
        self.read_since = None
        generation.fed = generation.searched = ends[-1]
        generation.waiting = generation.unfinished = None

    def open(self) -> None:
        """Create a new copy, in place of one that the agent has read completely."""
        handle = os.open(self.partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            os.replace(self.partial, self.path)
        except OSError:
            os.close(handle)
            positions.remove(self.partial)
            raise
        if self.handle is not None:
            os.close(self.handle)
        self.handle, self.stale = handle, self.consumed or self.stale
        self.written, self.consumed, self.begun = 0, 0, time.time()
        self.pieces.clear()

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
            piece = self.pieces[0]
            if number := bisect_right(piece.copied, self.consumed):
                piece.generation.read = max(piece.generation.read, piece.ends[number - 1])
                del piece.copied[:number], piece.ends[:number]
            if piece.copied:
                break
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
            self.open()


@dataclass
class Listing:
    """What a folder contains.

    Parameters:
        version: device, inode and time of modification of the folder.
        since: time since which it has this version.
        listed: when it was listed.
        files: see `listed`.
    """

    version: tuple[int, int, int]
    since: float
    listed: float
    files: list[tuple[str, str, int, bool]]


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
        join: whether all lines of an entry become one record, as a terminal shows them.
        console: whether the logs are consoles, see `entries.Entries`.
        timed: expression for the first line of an entry with a time; None where that is not known.
        own: names of which the path of a file must have one below the fixed folder; empty for all files.
        files: all known files, by device and inode.
        restored: files that are known from the last run, by inode.
        logs: logs with open files, by path.
        lively: logs that grew in the last seconds.
        seen: result of the last scan: inode and file, by path.
        listings: what `_listed` knows of folders, by folder and expression for names.
        copy: the copy of the logs.
    """

    name: str
    patterns: list[str]
    exclude: str
    follow: list[str]
    starts: list[re.Pattern[str]]
    unknown_start: bool
    join: bool
    console: bool
    timed: re.Pattern[str] | None
    own: list[str]
    files: dict[tuple[int, int], Generation] = field(default_factory=dict)
    restored: dict[int, list[Generation]] = field(default_factory=dict)
    logs: dict[str, Log] = field(default_factory=dict)
    lively: list[Log] = field(default_factory=list)
    seen: dict[str, tuple[int, Generation]] = field(default_factory=dict)
    listings: dict[tuple[str, str], Listing] = field(default_factory=dict)
    copy: Copy = field(init=False)

    @classmethod
    def of(cls, settings: dict) -> Source:
        """Create a source from its settings."""
        starts, unknown, timed = [], bool(settings.get("unknown_start")), None
        if settings.get("entry_start"):
            try:
                starts = [re.compile(settings["entry_start"], re.ASCII)]
                timed = re.compile(settings["timed"], re.ASCII) if settings.get("timed") else None
            except re.error:  # not valid in this version of Python
                unknown = True
        return cls(
            settings["name"],
            [found for path in settings["paths"] for found in globs.alternatives(path)],
            settings.get("exclude") or "",
            settings.get("follow") or [],
            starts,
            unknown,
            bool(starts and settings.get("join")),
            bool(settings.get("console")),
            timed,
            globs.own_names(settings["own"], os.uname().nodename) if settings.get("own") else [],
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
        health: path of our own log (health.py), which is not a log of training: the report leaves it out.
    """

    def __init__(
        self,
        state: Path,
        folder: Path,
        report: Path,
        agent_positions: Path,
        sources: list[Source],
        port: int,
        health: str,
    ) -> None:
        self.state, self.folder, self.report, self.agent_positions = state, folder, report, agent_positions
        self.sources, self.port, self.health = sources, port, health
        self.refused: dict[str, str] = {}
        self.unsaved = ""
        self._saved_text, self._saved_at = "", 0.0
        self._reported, self._reported_at = "", 0.0
        self._refused_before: dict[str, str] = {}
        self._changed = True  # whether the report is out of date
        self._turns = 0
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
        for source in sources:
            # The quoted name of a source cannot be %new. The agent has a file to follow from its start.
            source.copy = Copy(folder / urllib.parse.quote(source.name, safe=""), folder / "%new")
            with suppress(OSError):  # for example no space: it is created with the first record
                source.copy.open()
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
        listings: dict[tuple[str, str], Listing] = {}
        fresh: list[tuple[tuple, str, str, int, int, os.stat_result]] = []
        for pattern, zone in zones.items():
            fixed = globs.fixed_part(pattern)
            for path, log, inode, is_link in self._listed(source, pattern, listings):
                if path in found or (
                    source.exclude and (matches(source.exclude, path) or matches(source.exclude, log))
                ):
                    continue
                if source.own and not globs.carries(log[len(fixed) :], source.own):
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
        self._changed = self._changed or found.keys() != source.seen.keys()
        source.seen, source.listings = found, listings
        self._name(source, found)

    @staticmethod
    def _listed(
        source: Source, pattern: str, listings: dict[tuple[str, str], Listing]
    ) -> Iterator[tuple[str, str, int, bool]]:
        """Files that match a pattern; a folder is listed again only if it has changed, and from time to time.

        Parameters:
            source: the source.
            pattern: the pattern, without `{…}`.
            listings: this function adds what it knows of the folders.

        Returns:
            See `listed`.
        """
        last = pattern.rstrip("/").rpartition("/")[2]
        now = time.monotonic()
        for folder in globs.folders(pattern):
            try:
                status = os.stat(folder)
                version = (status.st_dev, status.st_ino, status.st_mtime_ns)
                known = source.listings.get((folder, last))
                same = known is not None and known.version == version
                if not (same and known.listed - known.since >= SETTLED and now - known.listed < LISTED):
                    known = Listing(version, known.since if same else now, now, listed(folder, last))
            except OSError:
                continue
            listings[folder, last] = known
            yield from known.files

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
            owner = source.logs[file.log] = Log(printable(file.log).encode())
        owner.grew = time.monotonic()
        self._changed = True
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
        copies = [source.copy for source in self.sources]
        if any(copy.pieces for copy in copies):
            read = self._read()
            for copy in copies:
                if copy.pieces:
                    before = copy.consumed
                    copy.agent_read(read.get(str(copy.path), before), self._positions[0][1] / 1e9, now)
                    self._changed = self._changed or copy.consumed != before
        lively = False
        for source in self.sources:
            logs = list(source.logs.values()) if all_logs else source.lively
            held = sum(copy.written for copy in copies)
            try:
                source.copy.roll(now, ROLL if held < HELD else 0)
                self._feed_in_turns(source, logs, HELD - held, now)
            except OSError as error:  # no space for a new copy
                self.refused[str(source.copy.path)] = f"it cannot be written: {error.strerror}"
            source.lively = [log for log in logs if now - log.grew < LIVELY]
            lively = lively or bool(source.lively)
        return lively

    def _feed_in_turns(self, source: Source, logs: list[Log], room: int, now: float) -> None:
        """Copy new lines of the logs of a source, those first that were not copied for the longest time.

        Parameters:
            source: the source.
            logs: its logs that are checked.
            room: bytes that may be copied.
            now: time by the monotonic clock.
        """
        copy = source.copy
        end = min(copy.written + room, LARGEST, copy.consumed + AHEAD)
        queue = deque(sorted(logs, key=lambda log: log.turn) if copy.written < end else [])
        while queue:
            if copy.written >= end:
                for log in queue:
                    log.grew = now  # look again soon
                return
            log = queue.popleft()
            try:
                if self._feed(source, log, now):
                    queue.append(log)
            except OSError as error:  # no space for the copy
                self.refused[log.generations[0].log] = f"it cannot be copied: {error.strerror}"

    def _feed(self, source: Source, log: Log, now: float) -> bool:
        """Copy new lines of one log, at most a turn.

        Parameters:
            source: its source.
            log: the log.
            now: time by the monotonic clock.

        Returns:
            Whether it has more lines that can be copied.
        """
        for number, file in enumerate(log.generations):
            length = file.length()
            if length < file.fed or length > file.searched:
                self._changed = True
            if length < file.fed or (length > file.searched and file.replaced()):
                begin_again(file, source.copy)
            if file.fed < length:
                before = file.fed
                rotated = number < len(log.generations) - 1 or not file.current
                self._copy(source, log, file, length, rotated, now)
                if file.fed != before:
                    log.grew = now
                    self._turns += 1
                    log.turn = self._turns
                    if file.fed < length:
                        return True
                if file.fed < length and file.unfinished is None:
                    return False  # the rest of this file comes before the next file
        return False

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

    def _copy(self, source: Source, log: Log, file: Generation, length: int, rotated: bool, now: float) -> None:
        """Copy the next lines of a file.

        Parameters:
            source: its source.
            log: its log.
            file: the file.
            length: its size.
            rotated: whether no more lines are expected in it.
            now: time by the monotonic clock.
        """
        block = b""
        if file.searched == file.fed:
            for size in (TURN, CHUNK):
                block = os.pread(file.handle, size, file.fed)
                end = block.rfind(b"\n") + 1
                if end and block.startswith(b"\0"):
                    self._long_line(source, log, file, file.fed + block.find(b"\n") + 1)
                    return
                more = file.fed + len(block) < length
                if end and self._put(source, log, file, block[:end], more, size == CHUNK, now):
                    return
                if len(block) < size:
                    break
            if end:
                return  # the last entry may not be complete
        # A line that is longer than a block, or is not complete yet.
        offset = max(file.searched, file.fed + len(block))
        end = min(length, offset + SEARCHED)
        while offset < end:
            offset = data_after(file.handle, offset, length)
            block = os.pread(file.handle, CHUNK, offset)
            at = block.find(b"\n")
            if at >= 0:
                self._long_line(source, log, file, offset + at + 1)
                return
            if not block:
                break
            offset += len(block)
        file.searched = min(offset, length)
        if file.searched < length:
            log.grew = now  # look again soon
            return
        if not rotated:
            return
        file.unfinished = file.unfinished or now
        if now - file.unfinished >= UNFINISHED:
            self._long_line(source, log, file, length)

    def _put(
        self, source: Source, log: Log, file: Generation, block: bytes, more: bool, full: bool, now: float
    ) -> bool:
        """Copy the lines of a block, except those of an entry that may get further lines.

        Parameters:
            source: the source.
            log: the log.
            file: the file.
            block: complete lines that follow what was copied.
            more: whether the file has further bytes, of which the first ones may be in the block that was read.
            full: whether the block is as large as an entry may be, if there are further bytes.
            now: time by the monotonic clock.

        Returns:
            Whether anything was copied.
        """
        most = NAMES // len(log.name)
        if rest := b"".join(block.split(b"\n", most)[most:]):
            block, more, full = block[: -len(rest)], True, True
        if not source.join:
            found, ends = records.of_lines(log.name, block)
        else:
            # What was copied ends with an entry, so nothing of the lines before counts.
            start = Entries(source.starts[0]) if source.console else source.starts[0]
            found, ends, log.begun, is_open = records.of_entries(log.name, block, start, log.begun)
            if is_open and more:
                if len(found) > 1 or not full:
                    del found[-1], ends[-1]
            elif is_open:
                lines_end = file.fed + len(block)
                if file.waiting is None or file.waiting[0] != lines_end:
                    file.waiting = (lines_end, now)
                    log.grew = now  # look again soon
                if now - file.waiting[1] < SILENCE:
                    del found[-1], ends[-1]
        if not found:
            return False
        if source.timed:
            self._count_equal(source.timed, log, file, found)
        file.tail = block[max(0, ends[-1] - HEAD) : ends[-1]]
        source.copy.put(found, file, [file.fed + end for end in ends])
        return True

    def _count_equal(self, timed: re.Pattern[str], log: Log, file: Generation, found: list[bytes]) -> None:
        """Count records that are equal to one shortly before: Loki keeps one entry of those with equal text and time.

        Parameters:
            timed: expression for the first line of an entry with a time.
            log: the log.
            file: the file.
            found: new records.
        """
        order, known = log.recent
        for record in found:
            mark = hash(record)
            if mark not in known:
                known.add(mark)
                order.append(mark)
                if len(order) > RECENT:
                    known.discard(order.popleft())
            elif timed.search(records.first_line(log.name, record)):
                file.equal += 1
                self._changed = True

    def _long_line(self, source: Source, log: Log, file: Generation, end: int) -> None:
        """Copy a line that is longer than a block, follows a hole or has no line feed; of a too long line only the end.

        Parameters:
            source: the source.
            log: its log.
            file: the file.
            end: offset after the line.
        """
        begin = file.fed
        if end - begin > LONGEST_LINE:
            begin = end - KEPT
            file.left_out += begin - file.fed
            name = printable(file.log)
            print(f"{name}: {begin - file.fed} bytes at {file.fed} are left out: the line is too long", file=sys.stderr)
        data = os.pread(file.handle, end - begin, begin)
        # A file that was truncated while its program kept writing has a hole before the text.
        line = data.lstrip(b"\0").removesuffix(b"\n")
        if begin != file.fed:
            # Of a progress bar, only the last frame.
            line = line.rstrip(b"\r").rpartition(b"\r")[2]
        elif source.join:
            line = shown(line)
            log.begun = log.begun or records.begins_entry(line, source.starts)
        file.tail = data[-HEAD:]
        source.copy.put([records.record(log.name, line)], file, [end])

    def retire(self) -> None:
        """Close delivered files that were rotated or removed."""
        now = time.monotonic()
        old = []
        for source in self.sources:
            for path, log in source.logs.items():
                for file in log.generations:
                    if file.current or file.read < file.length():
                        file.quiet = None
                    elif file.quiet is None:
                        file.quiet = now
                    elif now - file.quiet >= QUIET:
                        old.append((source, path, file))
        if not old or not self._delivered(now):
            return
        for source, path, file in old:
            file.done, file.size = True, file.read  # the file may have grown since
            os.close(file.handle)
            file.handle = None
            log = source.logs[path]
            log.generations.remove(file)
            self._changed = True
            if not log.generations:
                del source.logs[path]
                source.lively = [other for other in source.lively if other is not log]
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
        if not self._changed and self.refused == self._refused_before:
            return
        self._changed, self._refused_before = False, self.refused
        files = [
            {"path": printable(path), "read": log.generations[-1].read, "size": log.generations[-1].length()}
            for path, log in sorted(self._followed_logs(), key=lambda named: -named[1].grew)
        ]
        known = [file for source in self.sources for file in source.files.values()]
        count, backlog = self.totals()
        text = json.dumps(
            {
                "files": files[:MANY],
                "count": count,
                "backlog": backlog,
                "refused": [
                    {"path": printable(path), "reason": why} for path, why in sorted(self.refused.items())[:MANY]
                ],
                "left_out": [{"path": printable(file.log), "bytes": file.left_out} for file in known if file.left_out][
                    :MANY
                ],
                "equal": [{"path": printable(file.log), "lines": file.equal} for file in known if file.equal][:MANY],
                "unsaved": self.unsaved,
            }
        )
        if text != self._reported:
            try:
                positions.replace(self.report, text, sync=False)
                self._reported = text
            except OSError as error:
                print(f"{self.report} cannot be written: {error}", file=sys.stderr)

    def _followed_logs(self) -> list[tuple[str, Log]]:
        """Logs with open files and their paths, without our own log."""
        return [
            (path, log)
            for source in self.sources
            for path, log in source.logs.items()
            if log.generations and path != self.health
        ]

    def totals(self) -> tuple[int, int]:
        """Number of logs that are followed, and bytes of them that the agent has not read yet."""
        logs = [log for _path, log in self._followed_logs()]
        return len(logs), sum(file.length() - file.read for log in logs for file in log.generations)

    def folders(self) -> list[str]:
        """Folders of the logs: the part of each pattern before the first wildcard."""
        patterns = {pattern for source in self.sources for pattern in source.patterns} - {self.health}
        return sorted({globs.fixed_part(pattern) for pattern in patterns})

    def end(self, clean: bool) -> None:
        """Save how far the agent had read when it ended.

        Parameters:
            clean: whether it ended by itself, and so has delivered everything that it had read.
        """
        read = self._read()
        for source in self.sources:
            position = read.get(str(source.copy.path), source.copy.consumed)
            source.copy.agent_read(position, self._positions[0][1] / 1e9, time.monotonic())
        self.save(clean)
        # The next agent may run as another account.
        with suppress(OSError):
            remove_tree(self.folder)


def begin_again(file: Generation, copy: Copy) -> None:
    """Copy a file from its start again; what the copy contains of it is from before."""
    before = Generation(file.log, file.key, file.head)
    for piece in copy.pieces:
        if piece.generation is file:
            piece.generation = before
    file.before = (file.fed, file.head, file.tail)
    file.fed = file.searched = file.read = file.started = 0
    file.tail = b""
    file.head, file.unfinished, file.waiting = head_of(file.handle, HEAD), None, None


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


def listed(folder: str, last: str) -> list[tuple[str, str, int, bool]]:
    """Files of a folder whose names match, including older generations.

    Parameters:
        folder: the folder.
        last: pattern for names.

    Returns:
        Path, path of the log that the file is or was, inode of the folder entry, and whether it is a link.

    Raises:
        OSError: the folder cannot be listed.
    """
    name = globs.name_expression(last)
    with os.scandir(folder) as entries:
        found = {entry.name: entry for entry in entries}
    names = {entry.name for entry in found.values() if not entry.is_dir(follow_symlinks=False)}
    return [
        (os.path.join(folder, entry.name), os.path.join(folder, base), entry.inode(), entry.is_symlink())
        for entry in found.values()
        if (base := unrotated(entry.name, name, names)) is not None
    ]


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
