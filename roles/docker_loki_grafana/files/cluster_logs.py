# Copyright (c) SmolCluster contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Read the logs of all ranks in the terminal: a layer over logcli, Loki's own client.

The role installs this file on the controller as `cluster-logs`; a copy runs on any machine that has logcli. It uses
Python's standard library only and runs with Python 3.9.

Facts about logcli and Loki come from their source, github.com/grafana/loki at v3.7.8; comments name the file.
"""

from __future__ import annotations

import argparse
import ast
import datetime
import difflib
import heapq
import json
import os
import queue
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import unicodedata
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, TextIO

SECOND, MILLISECOND = 1_000_000_000, 1_000_000  # nanoseconds
DEFAULT_URL = "http://127.0.0.1:3100"
LOGCLI_DOWNLOADS = "https://github.com/grafana/loki/releases"
# Lines per request. Loki gives at most `max_entries_limit_per_query` of them, by default this number.
PAGE = 5000
# How far before an interruption lines are asked for again: lines reach Loki a little later than they are written.
OVERLAP = 60 * SECOND
# How far the clock of a node may be off: live lines that are that much older than the tail are shown, and lines with
# times so far in the future are asked for.
SKEW = 600 * SECOND
# Seconds after which a new connection has certainly been made; logcli does not say when.
SETTLED = 3.0
# Seconds between two looks at whether Loki answers, and the longest wait for an answer.
PROBE_PAUSE, PROBE_TIMEOUT = 5.0, 5.0

GOOD, BAD, USAGE, FAILED, INTERRUPTED, PIPE_CLOSED = 0, 1, 2, 3, 130, 141
EXIT_CODES = """\
exit codes:
  0    all is well
  1    the answer is not good: an error was found, a node is silent, no line matches, a count differs
  2    the command line is wrong
  3    Loki cannot be reached or refuses the query, or logcli is missing or fails
  130  interrupted with Ctrl-C
  141  the reader of the output has gone (as with `| head`)"""

# Levels from harmless to severe, each with the other names that programs use for it.
LEVELS = {
    "TRACE": (),
    "DEBUG": (),
    "INFO": ("NOTICE",),
    "WARNING": ("WARN",),
    "ERROR": ("ERR",),
    "CRITICAL": ("FATAL", "PANIC"),
}
RANK_COLOURS = (36, 32, 35, 34, 96, 92, 95, 94)  # neither red nor yellow, which are for levels
LEVEL_COLOURS = {"TRACE": "2", "DEBUG": "2", "WARNING": "33", "WARN": "33", "ERROR": "31", "ERR": "31"}
LEVEL_COLOURS.update(dict.fromkeys(("CRITICAL", *LEVELS["CRITICAL"]), "1;31"))
STYLE = re.compile("\x1b\\[[0-9;:]*m")
STEP = re.compile(r"\bstep\b\W{0,3}(\d+)", re.IGNORECASE)
TRACEBACK = "Traceback (most recent call last)"


# Selects the lines of training: neither records of runs nor health lines. The names are those of runs.py and
# health_lines.py in plugins/module_utils/; a unit test compares them.
RUNS, HEALTH = "smolcluster-runs", "smolcluster-health"
ALL = f'job=~".+", job!~"{RUNS}|{HEALTH}"'
KEPT = 30 * 86400 * SECOND  # how far back runs are looked for


class CommandError(Exception):
    """What went wrong, in words for the user.

    Parameters:
        text: sentences without the program's name.
        code: exit code.
    """

    def __init__(self, text: str, code: int = USAGE) -> None:
        super().__init__(text)
        self.code = code


class LokiDownError(CommandError):
    """Loki does not answer."""

    def __init__(self, url: str, cause: str) -> None:
        super().__init__(
            f"Loki does not answer at {url}: {cause}. Check that Loki runs (on the controller: docker ps) and that the "
            "address is right (--url or CLUSTER_LOGS_URL)",
            FAILED,
        )
        self.cause = cause


# --- what the user writes: times, ranks, levels


class Span(NamedTuple):
    """Range of time in nanoseconds since 1970; `end` does not belong to it.

    What the user asks for is in whole milliseconds, because LogQL has no smaller unit.
    """

    start: int
    end: int


def duration(text: str) -> int:
    """Seconds of a duration such as `90s`, `15m`, `2h`, `7d` or `1h30m`; a plain number is in seconds."""
    if re.fullmatch(r"[0-9]+", text):
        return int(text)
    if not re.fullmatch(r"([0-9]+[smhdw])+", text):
        raise argparse.ArgumentTypeError(f"'{text}' is not a duration; write 90s, 15m, 2h or 7d")
    units = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
    return sum(int(number) * units[unit] for number, unit in re.findall(r"([0-9]+)([smhdw])", text))


def moment(text: str) -> int:
    """Nanoseconds since 1970 of a time such as `2026-11-28 14:05`, `14:05` (today) or one with a zone; else local."""
    plain = text.strip().replace("Z", "+00:00")
    if today := re.fullmatch(r"(\d{1,2}):(\d{2})(?::(\d{2}))?", plain):
        plain = f"{datetime.date.today()} {int(today[1]):02}:{today[2]}:{today[3] or '00'}"
    try:
        found = datetime.datetime.fromisoformat(plain)
    except ValueError:
        message = f"'{text}' is not a time; write 14:05, '2026-11-28 14:05' or 2026-11-28T14:05:00Z"
        raise argparse.ArgumentTypeError(message) from None
    return round(found.timestamp() * 1_000_000) * 1000


def span_of(args: argparse.Namespace, now: int) -> Span:
    """Range of time that the options ask for.

    Raises:
        CommandError: it is the wrong way round or lies in the future.
    """
    end = now if args.to is None else args.to
    start = end - args.since * SECOND if args.start is None else args.start
    if start >= end:
        raise CommandError(
            f"the time range is the wrong way round: it starts at {clock(start, True)} and ends at {clock(end, True)}"
        )
    if start > now:
        raise CommandError(f"the time range starts in the future, at {clock(start, True)}")
    return Span(start // MILLISECOND * MILLISECOND, -(-end // MILLISECOND) * MILLISECOND)


class Ranks(NamedTuple):
    """Ranks that the user asks for: ranges of numbers (both ends belong to them) and names."""

    ranges: tuple[tuple[int, int], ...]
    names: tuple[str, ...]

    def values(self) -> list[str]:
        """Every value of the label `rank` that is meant."""
        numbers = {str(number) for first, last in self.ranges for number in range(first, last + 1)}
        return sorted(numbers, key=int) + list(self.names)

    def missing(self, known: Iterable[str]) -> list[str]:
        """Parts that no known rank fits."""
        known = set(known)
        absent = [name for name in self.names if name not in known]
        for first, last in self.ranges:
            if not any(str(number) in known for number in range(first, last + 1)):
                absent.append(str(first) if first == last else f"{first}-{last}")
        return absent


def ranks(text: str) -> Ranks:
    """Read a list of ranks such as `0-3,7` or `server`."""
    ranges, names = [], []
    for part in text.split(","):
        part = part.strip()
        found = re.fullmatch(r"([0-9]{1,6})(?:-([0-9]{1,6}))?", part)
        if not part:
            raise argparse.ArgumentTypeError(f"'{text}' is not a list of ranks; write 0-3,7")
        if not found:
            names.append(part)
            continue
        first, last = int(found[1]), int(found[2] or found[1])
        if first > last:
            raise argparse.ArgumentTypeError(f"the range {part} is the wrong way round; write {last}-{first}")
        if last - first >= 4096:
            raise argparse.ArgumentTypeError(f"the range {part} has more than 4096 ranks")
        ranges.append((first, last))
    return Ranks(tuple(ranges), tuple(names))


def levels_from(least: str) -> list[str]:
    """A level and all that are more severe, with their other names."""
    names = list(LEVELS)
    return [name for level in names[names.index(least) :] for name in (level, *LEVELS[level])]


def quoted(text: str) -> str:
    """Text as a string of LogQL. Go, in which LogQL is written, reads every escape that JSON writes."""
    return json.dumps(text, ensure_ascii=False)


def matcher(label: str, values: Sequence[str]) -> str:
    """Matcher of LogQL for a label that has one of some values."""
    if len(values) == 1:
        return f"{label}={quoted(values[0])}"
    # Not re.escape: Go's expressions refuse some of its escapes.
    plain = [re.sub(r"([\\.+*?()|\[\]{}^$])", r"\\\1", value) for value in values]
    return f"{label}=~{quoted('|'.join(plain))}"


def selector(args: argparse.Namespace, level: str | None = None) -> str:
    """LogQL of the streams that the options ask for, or of those with at least a level."""
    parts = [ALL]
    if args.rank:
        parts.append(matcher("rank", args.rank.values()))
    if args.node:
        parts.append(matcher("node", args.node))
    if level or args.level:
        parts.append(matcher("level", levels_from(level or args.level)))
    return f"{{{', '.join(parts)}}}"


def text_filter(args: argparse.Namespace) -> str:
    """LogQL that goes after the selector: the text that lines must match."""
    return f" |~ {quoted(args.grep)}" if args.grep else ""


# --- lines and where they come from


class Source(NamedTuple):
    """What writes lines: a rank on a node; without a rank the name of the file, the component or the job."""

    label: str
    name: str
    node: str

    @classmethod
    def of(cls, labels: dict[str, str]) -> Source:
        """Source of a line with these labels."""
        label = next((label for label in ("rank", "host", "component", "job") if labels.get(label)), "job")
        return cls(label, labels.get(label, "?"), labels.get("node", ""))

    @property
    def title(self) -> str:
        """Name for messages, for example `rank 3`."""
        return f"rank {self.name}" if self.label == "rank" else self.name

    def order(self) -> tuple:
        """Key for sorting: ranks by number, then all others by name."""
        is_number = self.label == "rank" and self.name.isdigit()
        return (not is_number, int(self.name) if is_number else 0, self.title, self.node)

    def matchers(self) -> str:
        """Selector of LogQL for its lines."""
        parts = [matcher(self.label, [self.name]), matcher("node", [self.node])]
        if self.label != "rank":
            parts.append('rank=""')
        return f"{{{', '.join(parts)}}}"


class Entry(NamedTuple):
    """One line in Loki, which may hold several lines of text: time in nanoseconds since 1970, text, labels."""

    time: int
    text: str
    labels: dict[str, str]

    @property
    def source(self) -> Source:
        """What has written it."""
        return Source.of(self.labels)


def nanoseconds(text: str) -> int:
    """Nanoseconds since 1970 of a time in UTC as logcli writes it, for example `2026-11-28T02:10:15.12Z`."""
    whole, _dot, fraction = text.rstrip("Z").partition(".")
    seconds = datetime.datetime.fromisoformat(f"{whole}+00:00").timestamp()
    return int(seconds) * SECOND + int(fraction.ljust(9, "0") or 0)


def rfc3339(time_ns: int) -> str:
    """Time in UTC in the form that logcli reads."""
    seconds, fraction = divmod(time_ns, SECOND)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{fraction:09}Z"


def entry_of(row: str) -> Entry:
    """Line of logcli's output `jsonl`."""
    found = json.loads(row)
    return Entry(nanoseconds(found["timestamp"]), found["line"], found.get("labels") or {})


def labels_of(row: str) -> dict[str, str]:
    """Labels as logcli prints them, `{node="a", rank="0"}`. Python reads every escape that Go writes."""
    return {name: ast.literal_eval(value) for name, value in re.findall(r'(\w+)=("(?:[^"\\]|\\.)*")', row)}


class Seen:
    """Tells new lines from those that were shown already.

    Loki's tail also sends lines that Loki has already and drops, for example when an agent sends a batch twice
    (pkg/ingester/stream.go, storeEntries), and after an interruption lines are asked for again.

    Parameters:
        start: earliest time that is shown, nanoseconds since 1970.
        limit: lines to remember per stream; of a stream with more, lines older than the remembered ones count as shown.
    """

    # The labels by which streams differ. A query adds others that the tail does not have (detected_level).
    LABELS = ("job", "component", "host", "node", "rank", "level", "filename")

    def __init__(self, start: int, limit: int = 20_000) -> None:
        self.start, self.limit = start, limit
        self.floors: dict[tuple, int] = {}
        self.shown: dict[tuple, dict[int, int]] = {}

    def is_new(self, entry: Entry) -> bool:
        """Whether a line was not shown yet; from now on it counts as shown."""
        stream = tuple(entry.labels.get(label) for label in self.LABELS)
        shown = self.shown.setdefault(stream, {})
        key = hash((entry.time, entry.text))
        if entry.time < self.floors.get(stream, self.start) or key in shown:
            return False
        shown[key] = entry.time
        if len(shown) > self.limit:
            times = sorted(shown.values())
            self.floors[stream] = times[len(times) // 2] + 1
            self.shown[stream] = {key: when for key, when in shown.items() if when >= self.floors[stream]}
        return True


class Silence:
    """Tells which ranks have stopped writing.

    Parameters:
        limit: seconds without a line after which a rank is silent; 0 turns it off.
    """

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self.last: dict[Source, float] = {}
        self.silent: set[Source] = set()

    def heard(self, source: Source, when: float) -> float:
        """Note a line of a rank.

        Parameters:
            source: the rank.
            when: time of its line in seconds; only differences matter.

        Returns:
            Seconds of the silence that this line ends; 0 when the rank was not silent.
        """
        before = self.last.get(source, when)
        self.last[source] = max(before, when)
        if source in self.silent and when > before:
            self.silent.remove(source)
            return when - before
        return 0

    def recall(self, source: Source, when: float) -> None:
        """Note a line of the past; see `heard`."""
        self.last[source] = max(self.last.get(source, when), when)

    def fallen(self, now: float) -> list[Source]:
        """Ranks that have become silent since the last call."""
        if not self.limit:
            return []
        found = [source for source, when in self.last.items() if now - when >= self.limit and source not in self.silent]
        self.silent.update(found)
        return sorted(found, key=Source.order)

    def forgive(self, now: float) -> None:
        """Start again after an interruption, in which nobody could be heard."""
        for source in self.last:
            if source not in self.silent:
                self.last[source] = now


# --- logcli


def settings_beside(program: Path) -> dict[str, str]:
    """Settings that the role has put next to this program: `url` of Loki and path of `logcli`; empty without them."""
    try:
        return json.loads(program.resolve().with_name("cluster-logs.json").read_text())
    except (OSError, ValueError):
        return {}


def cause_of(log: str) -> tuple[str, bool]:
    """Cause of a failure of logcli.

    Parameters:
        log: what logcli wrote to its error output.

    Returns:
        The cause, and whether it is that Loki does not answer (pkg/logcli/client/client.go, doRequest).
    """
    lines = [re.sub(r"^\d{4}/\d\d/\d\d \d\d:\d\d:\d\d ", "", line) for line in log.splitlines() if line.strip()]
    for line in lines:
        if line.startswith("error sending request"):
            return line.rpartition(": ")[2], True
        if found := re.match(r"error response from server: (.*) \(<nil>\)", line):
            text = found[1].strip()
            return text, bool(re.search(r"not ready|no healthy|empty ring|shutting down|unavailable", text, re.I))
    return (lines[-1] if lines else "no message"), False


class Logcli:
    """Loki's client.

    Parameters:
        url: base address of Loki.
        program: path of logcli.
    """

    def __init__(self, url: str, program: str) -> None:
        self.url, self.program = url, program

    @classmethod
    def find(cls, url: str | None) -> Logcli:
        """Logcli of the role's settings, else that of the PATH.

        Parameters:
            url: address that the user gives; empty for that of the environment, of the settings, or the default.

        Raises:
            CommandError: there is none, or the address has no usable form.
        """
        settings = settings_beside(Path(__file__))
        program = settings.get("logcli", "")
        if not os.access(program, os.X_OK):
            program = shutil.which("logcli") or ""
        if not program:
            raise CommandError(
                "logcli is missing. On the controller the role docker_loki_grafana installs it: run site.yml again. "
                f"On another machine put it into a folder of your PATH; it is a single file of {LOGCLI_DOWNLOADS}",
                FAILED,
            )
        address = (url or os.environ.get("CLUSTER_LOGS_URL") or settings.get("url") or DEFAULT_URL).rstrip("/")
        if not re.fullmatch(r"https?://[^/\s]+(/\S*)?", address):
            raise CommandError(f"'{address}' is not an address of Loki; write http://CONTROLLER:3100")
        return cls(address, program)

    def command(self, *words: str) -> list[str]:
        """Command line; the query is its last word."""
        return [self.program, f"--addr={self.url}", "--quiet", "--timezone=UTC", "--output=jsonl", *words]

    def run(self, *words: str) -> Iterator[str]:
        """Run logcli and give its output line by line.

        Raises:
            CommandError: it fails; LokiDownError when Loki does not answer.
        """
        try:
            process = subprocess.Popen(
                self.command(*words),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                encoding="utf-8",
                errors="replace",
            )
        except OSError as error:
            raise CommandError(f"{self.program} does not start: {error.strerror}", FAILED) from error
        with process:
            log: list[str] = []
            reader = threading.Thread(target=lambda: log.extend(process.stderr), daemon=True)
            reader.start()
            try:
                yield from process.stdout
            except GeneratorExit:
                process.kill()
                raise
            process.wait()
            reader.join()
        if process.returncode:
            cause, down = cause_of("".join(log))
            if down:
                raise LokiDownError(self.url, cause)
            raise CommandError(f"Loki refuses: {clean(cause)}", FAILED)

    def stream(self, query: str, span: Span, limit: int = 0, forward: bool = True) -> Iterator[Entry]:
        """Lines of a log query as they come.

        Parameters:
            query: LogQL.
            span: range of time.
            limit: number of lines; 0 for all.
            forward: whether to begin with the oldest line, else with the newest.
        """
        words = ["query", f"--limit={limit}", f"--batch={PAGE}", f"--from={rfc3339(span.start)}"]
        words += [f"--to={rfc3339(span.end)}", "--include-common-labels", *(["--forward"] if forward else []), query]
        return map(entry_of, self.run(*words))

    def entries(self, query: str, span: Span, limit: int = 0, forward: bool = True) -> list[Entry]:
        """Lines of a log query, oldest first; see `stream`."""
        found = list(self.stream(query, span, limit, forward))
        return sorted(found if forward else reversed(found), key=lambda entry: entry.time)

    def last(self, query: str, span: Span) -> Entry | None:
        """Newest line of a log query."""
        return next(iter(self.entries(query, span, limit=1, forward=False)), None)

    def first(self, query: str, span: Span) -> Entry | None:
        """Oldest line of a log query."""
        return next(iter(self.entries(query, span, limit=1)), None)

    def series(self, query: str, span: Span) -> list[dict[str, str]]:
        """Labels of all streams that a selector matches."""
        words = ["series", f"--from={rfc3339(span.start)}", f"--to={rfc3339(span.end)}", query]
        return [labels_of(row) for row in self.run(*words)]

    def count(self, query: str, span: Span) -> dict[Source, int]:
        """Number of lines of a log query, by source."""
        # A metric query counts what is newer than its start, and what is as new as its end: 1 ns later than a span.
        expression = f"count_over_time({query} [{(span.end - span.start) // MILLISECOND}ms])"
        found: dict[Source, int] = {}
        for labels, number in self.values(f"sum by (rank, host, component, job, node) ({expression})", span.end - 1):
            found[Source.of(labels)] = found.get(Source.of(labels), 0) + int(number)
        return found

    def values(self, query: str, at: int) -> list[tuple[dict[str, str], float]]:
        """Values of a metric query at a time: labels and number."""
        found = json.loads("".join(self.run("instant-query", f"--now={rfc3339(at)}", query)) or "[]")
        if isinstance(found, list) and found and not isinstance(found[0], dict):
            return [({}, float(found[1]))]  # a number without labels, as of `1 + 1`
        return [(row["metric"], float(row["value"][1])) for row in found]

    def tail(self, query: str, start: int) -> subprocess.Popen:
        """Start logcli's live tail.

        Its group of processes is its own, so that Ctrl-C reaches this program alone, which then stops it.
        """
        words = ["query", "--tail", f"--limit={PAGE}", f"--from={rfc3339(start)}", query]
        return subprocess.Popen(
            self.command(*words),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
        )

    def get(self, path: str) -> str:
        """Answer of Loki to a question that logcli does not have: whether it is ready, which version it is.

        Raises:
            LokiDownError: no answer, or an error.
        """
        # Like logcli, past any proxy of the environment.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(f"{self.url}{path}", timeout=PROBE_TIMEOUT) as answer:
                return answer.read(10_000).decode("utf-8", "replace")
        except urllib.error.HTTPError as error:
            raise LokiDownError(self.url, error.read(200).decode("utf-8", "replace").strip() or str(error)) from error
        except (OSError, ValueError) as error:
            raise LokiDownError(self.url, str(getattr(error, "reason", error))) from error


def together(work: Callable[[Any], Any], items: Sequence[Any]) -> list[tuple[Any, Any]]:
    """Several items, each with the result of a function, which is called for four at a time."""
    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(lambda item: (item, work(item)), items))


# --- the terminal


def clean(text: str, keep: str = "\t") -> str:
    """Text that cannot control a terminal: without colours, other control characters are shown as escapes.

    A line is data of another account. Of Unicode, characters that change the direction of writing are escaped, too.
    """
    text = STYLE.sub("", text)
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        character if character in keep or unicodedata.category(character)[0] != "C" else ascii(character)[1:-1]
        for character in text
    )


def clock(time_ns: int, with_date: bool = False) -> str:
    """Time of day in the local zone, with milliseconds, or with the date and without them."""
    found = datetime.datetime.fromtimestamp(time_ns // SECOND)
    return f"{found:%Y-%m-%d %H:%M:%S}" if with_date else f"{found:%H:%M:%S}.{time_ns % SECOND // 1_000_000:03}"


def age(seconds: float) -> str:
    """Length of time in words, for example `3 min`."""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size * (1 if unit == "min" else 2):
            return f"{seconds / size:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


class Screen:
    """Output: lines on standard output, notes on the error output.

    Parameters:
        colour: `auto`, `always` or `never`.
        out, err: the two outputs.
    """

    def __init__(self, colour: str, out: TextIO, err: TextIO) -> None:
        self.out, self.err = out, err
        plain = bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb"
        self.colour = colour == "always" or (colour == "auto" and out.isatty() and not plain)
        self.colours: dict[str, str] = {}
        self.widths = [0, 0]

    @property
    def width(self) -> int:
        """Columns of the terminal; 0 when the output is none."""
        return shutil.get_terminal_size().columns if self.out.isatty() else 0

    def paint(self, text: str, style: str) -> str:
        """Text in a colour, where colours are used."""
        return f"\x1b[{style}m{text}\x1b[0m" if self.colour and style else text

    def style(self, source: Source) -> str:
        """Colour of a rank: by its number, others in the order in which they appear."""
        if source.label == "rank" and source.name.isdigit():
            return str(RANK_COLOURS[int(source.name) % len(RANK_COLOURS)])
        number = len(self.colours)
        return self.colours.setdefault(source.name, f"1;{RANK_COLOURS[number % len(RANK_COLOURS)]}")

    def entry(self, entry: Entry, with_time: bool = False, mark: str = "") -> None:
        """Print a line with its rank and node in front of each of its lines of text."""
        source = entry.source
        parts = [clean(source.name), clean(source.node)]
        if 0 < self.width < 60:
            parts = parts[:1]  # a narrow terminal
        for place, part in enumerate(parts):
            self.widths[place] = max(self.widths[place], len(part))
        prefix = " ".join(part.ljust(self.widths[place]) for place, part in enumerate(parts))
        when = f"{clock(entry.time)} " if with_time else ""
        style = LEVEL_COLOURS.get(entry.labels.get("level", ""), "")
        front = f"{mark}{when}{self.paint(prefix + ' |', self.style(source))}"
        for text in entry.text.split("\n"):
            self.out.write(f"{front} {self.paint(clean(text.rstrip()), style)}".rstrip() + "\n")

    def note(self, text: str) -> None:
        """Print a note."""
        self.out.flush()
        text = clean(text)
        self.err.write(f"\x1b[2m-- {text}\x1b[0m\n" if self.colour and self.err.isatty() else f"-- {text}\n")
        self.err.flush()

    def table(self, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Print a table; in a terminal its last column is cut at the edge."""
        rows = [heads, *([clean(cell, "") for cell in row] for row in rows)]
        widths = [max(len(row[column]) for row in rows) for column in range(len(heads) - 1)]
        for row in rows:
            text = "  ".join([row[column].ljust(width) for column, width in enumerate(widths)] + [row[-1]]).rstrip()
            if self.width and len(text) > self.width:
                text = text[: max(self.width - 1, 1)] + "…"
            self.out.write(text + "\n")


# --- tail


class Tail:
    """The live tail of all ranks, without a gap and without a double line.

    logcli's own tail is not enough: it replays at most `--limit` lines, it tries again for about half a minute and then
    ends, a new connection starts at the last line and so skips or repeats lines (pkg/logcli/query/tail.go), and a
    connection that dies without a word is never noticed. So the tail gives the lines of this moment, queries give
    what is missing, and `Seen` drops what comes twice.

    Parameters:
        logcli: Loki's client.
        screen: the output.
        query: LogQL of the lines.
        start: earliest time to show, nanoseconds since 1970.
        silence: see `Silence`.
        with_time: whether to print the time of each line.
    """

    def __init__(
        self, logcli: Logcli, screen: Screen, query: str, start: int, silence: float, with_time: bool = False
    ) -> None:
        self.logcli, self.screen, self.query, self.with_time = logcli, screen, query, with_time
        self.start, self.seen, self.silence = start, Seen(start - SKEW), Silence(silence)
        self.missing_from = start  # lines from this time on may be missing
        self.caught_up = start  # when everything that had arrived was shown
        self.process: subprocess.Popen | None = None
        # Bounded: a reader that is too slow makes Loki drop lines, which it reports, and queries give them later.
        self.events: queue.Queue = queue.Queue(10_000)
        self.clock = time.monotonic
        self.stop_probe = threading.Event()

    def run(self) -> None:
        """Show lines until interrupted.

        Raises:
            CommandError: Loki refuses the query.
        """
        try:
            self.connect()
            self.silence.fallen(self.clock())  # what was silent before is no news
            threading.Thread(target=self.probe, daemon=True).start()
            while True:
                try:
                    self.follow()
                except LokiDownError as error:
                    self.wait_for_loki(error.cause)
        finally:
            self.stop_probe.set()
            self.disconnect()

    def connect(self) -> None:
        """Start the tail, then ask for what may be missing: in this order no line is between the two."""
        self.disconnect()
        self.events = queue.Queue(10_000)
        self.process = self.logcli.tail(self.query, time.time_ns())
        for kind, stream in (("line", self.process.stdout), ("log", self.process.stderr)):
            threading.Thread(target=self.read, args=(kind, stream, self.events), daemon=True).start()
        self.fill()
        self.settled = self.clock() + SETTLED

    def disconnect(self) -> None:
        """Stop the tail."""
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process = None

    @staticmethod
    def read(kind: str, stream: TextIO, events: queue.Queue) -> None:
        """Pass on what logcli prints."""
        for row in stream:
            events.put((kind, row))
        events.put(("end", kind))

    def probe(self) -> None:
        """Report when Loki does not answer twice in a row: a dead connection alone would look like silence."""
        failures = 0
        while not self.stop_probe.wait(PROBE_PAUSE):
            try:
                self.logcli.get("/ready")
                failures = 0
            except LokiDownError as error:
                failures += 1
                if failures == 2:
                    self.events.put(("down", error.cause))

    def fill(self) -> None:
        """Show what is missing so far."""
        now = time.time_ns()
        for entry in self.logcli.stream(self.query, Span(self.missing_from, now + SKEW)):
            self.show(entry, max(1, now - entry.time) / SECOND)
        self.screen.out.flush()
        self.missing_from = max(self.missing_from, now - OVERLAP)

    def show(self, entry: Entry, old: float = 0) -> None:
        """Print a line, unless it was printed already.

        Parameters:
            entry: the line.
            old: age of the line in seconds; 0 for a line that has just arrived, whatever its node's clock says.
        """
        if not self.seen.is_new(entry):
            return
        source = entry.source
        if old:
            self.silence.recall(source, self.clock() - old)
        elif pause := self.silence.heard(source, self.clock()):
            self.screen.note(f"{source.title} ({source.node}) writes again after {age(pause)}")
        self.screen.entry(entry, self.with_time)

    def follow(self) -> None:
        """Show lines as they come.

        Raises:
            LokiDownError: the connection has ended.
        """
        dropped = False
        while True:
            try:
                kind, text = self.events.get(timeout=0 if self.events.qsize() else 0.5)
            except queue.Empty:
                kind, text = "", ""
            if kind == "line":
                self.show(entry_of(text))
            elif kind == "log" and "Server dropped" in text:
                dropped = True
                self.missing_from = max(self.start, min(self.missing_from, self.caught_up - OVERLAP))
            elif kind == "log" and "Connecting again" in text:
                raise LokiDownError(self.logcli.url, "the connection was closed")
            elif kind in ("end", "down"):
                raise LokiDownError(self.logcli.url, text if kind == "down" else "the connection was closed")
            if self.events.empty():
                self.screen.out.flush()
                self.caught_up = time.time_ns()
                if dropped or (self.settled and self.clock() > self.settled):
                    dropped, self.settled = False, 0.0
                    self.fill()
                self.tell_silence()

    def tell_silence(self) -> None:
        """Say which ranks have fallen silent; once for all when it is every rank."""
        fallen = self.silence.fallen(self.clock())
        if len(fallen) > 1 and len(self.silence.silent) == len(self.silence.last):
            self.screen.note(f"no rank has written for {age(self.silence.limit)}")
            return
        for source in fallen:
            self.screen.note(f"{source.title} ({source.node}) has been silent for {age(self.silence.limit)}")

    def wait_for_loki(self, cause: str) -> None:
        """Wait until Loki answers again, and show what came meanwhile."""
        self.disconnect()
        lost = self.clock()
        self.missing_from = max(self.start, min(self.missing_from, self.caught_up - OVERLAP))
        self.screen.note(f"Loki does not answer ({clean(cause)}); trying again")
        while True:
            try:
                self.logcli.get("/ready")
                self.connect()
                break
            except CommandError:
                self.stop_probe.wait(1)
        self.silence.forgive(self.clock())
        self.screen.note(f"Loki answers again after {age(self.clock() - lost)}; lines that came meanwhile are shown")


# --- commands


def checked(logcli: Logcli, args: argparse.Namespace, span: Span) -> list[dict[str, str]]:
    """Labels of all streams of a range of time.

    Raises:
        CommandError: there is none, or none of a rank or node that the user names.
    """
    found = logcli.series(f"{{{ALL}}}", span)
    when = f"from {clock(span.start, True)} to {clock(span.end, True)}"
    if not found:
        raise CommandError(
            f"Loki has no line {when}. Ask for a longer time (--since 7d), or check that lines arrive: "
            "ansible-playbook playbooks/verify.yml",
            BAD,
        )
    known = {label: {labels[label] for labels in found if labels.get(label)} for label in ("rank", "node")}
    missing = {
        "rank": args.rank.missing(known["rank"]) if args.rank else [],
        "node": [name for name in args.node or () if name not in known["node"]],
    }
    for label, names in missing.items():
        if not names:
            continue
        shown = ", ".join(sorted(map(clean, known[label]), key=lambda name: (not name.isdigit(), name.zfill(8))))
        number = re.search(r"\d+$", names[0])
        hint = f" Did you mean --rank {number[0]}?" if label == "rank" and number and number[0] in known[label] else ""
        raise CommandError(
            f"there is no line of {label} {', '.join(names)} {when}. There are lines of: {shown or 'none'}.{hint}", BAD
        )
    return found


def sources_of(streams: Iterable[dict[str, str]]) -> list[Source]:
    """Sources of some streams, in order."""
    return sorted({Source.of(labels) for labels in streams}, key=Source.order)


def wanted(streams: Iterable[dict[str, str]], args: argparse.Namespace) -> list[dict[str, str]]:
    """Those of some streams whose rank and node the options ask for."""
    names = set(args.rank.values()) if args.rank else None
    return [
        labels
        for labels in streams
        if (names is None or labels.get("rank") in names) and (not args.node or labels.get("node") in args.node)
    ]


def do_tail(args: argparse.Namespace, logcli: Logcli, screen: Screen) -> int:
    """Show the lines of all ranks live."""
    now = time.time_ns()
    try:
        checked(logcli, args, Span(now - 86400 * SECOND, now))
    except LokiDownError:
        raise
    except CommandError as error:
        if error.code != BAD:
            raise
        # A rank that has written nothing yet is what one waits for before a training starts.
        screen.note(f"waiting: {error}")
    query = selector(args) + text_filter(args)
    Tail(logcli, screen, query, now - args.since * SECOND, args.silence, args.time).run()
    return GOOD


def traceback_of(entries: Sequence[Entry]) -> list[Entry]:
    """The error at the beginning of some lines of one file, with its traceback where that is in further lines.

    Some formats keep a traceback as one line of Loki, others have one line of Loki for each line of text.
    """
    found = list(entries[:1])
    inside = bool(found) and TRACEBACK in found[0].text.rpartition("\n")[2]
    for entry in entries[1:]:
        if entry.text.startswith(TRACEBACK):
            inside = True
        elif not inside:
            break
        elif entry.text[:1] not in (" ", "\t", ""):
            found.append(entry)  # the exception itself, which ends a traceback
            break
        found.append(entry)
    return found


def around(logcli: Logcli, source: Source, error: Entry, args: argparse.Namespace) -> list[Entry]:
    """The nearest lines of a rank before and after an error."""
    half = max(args.around * SECOND // 2, 1)
    before = logcli.entries(source.matchers(), Span(error.time - half, error.time), args.lines, forward=False)
    return before + logcli.entries(source.matchers(), Span(error.time, error.time + half), args.lines)


def do_errors(args: argparse.Namespace, logcli: Logcli, screen: Screen) -> int:
    """Show the first error of all ranks, its traceback, and what the other ranks wrote then."""
    span = span_of(args, time.time_ns())
    checked(logcli, args, span)
    by_level = selector(args, "ERROR")
    queries = [by_level, f"{selector(args)} |= {quoted(TRACEBACK)}"]
    found = [entry for _query, entry in together(lambda query: logcli.first(query, span), queries) if entry]
    if not found:
        screen.note(f"no error from {clock(span.start, True)} to {clock(span.end, True)}")
        return GOOD
    first = min(found, key=lambda entry: entry.time)
    counts = logcli.count(by_level, span)
    own = {label: first.labels[label] for label in ("filename", "node") if first.labels.get(label)}
    file = (
        f"{{{', '.join(matcher(label, [value]) for label, value in own.items())}}}" if own else first.source.matchers()
    )
    after = logcli.entries(file, Span(first.time, first.time + 10 * SECOND), 200)
    start = next((number for number, entry in enumerate(after) if entry[:2] == first[:2]), None)
    trace = [first] if start is None else traceback_of(after[start:])
    screen.out.write(f"First error: {first.source.title} on {clean(first.source.node)}, {clock(first.time, True)}\n\n")
    for entry in trace:
        screen.entry(entry, with_time=True)
    # Those that wrote something at about that time; others belong to another training.
    near = Span(first.time - 600 * SECOND, first.time + 600 * SECOND)
    others = [source for source in sources_of(logcli.series(f"{{{ALL}}}", near)) if source != first.source]
    said = together(lambda source: around(logcli, source, first, args), others)
    screen.out.write(f"\nThe others in the {args.around} s around it, at most {args.lines} lines before and after:\n\n")
    marked = [(entry, "  ") for _source, rows in said for entry in rows]
    marked.append((first._replace(text=first.text.partition("\n")[0]), "> "))
    for entry, mark in sorted(marked, key=lambda row: row[0].time):
        screen.entry(entry, with_time=True, mark=mark)
    for source, rows in said:
        if not rows:
            screen.out.write(f"  {clean(source.title)} ({clean(source.node)}) wrote nothing\n")
    if counts:
        screen.out.write("\nErrors in the whole time:\n\n")
        rows = [[source.name, source.node, str(counts[source])] for source in sorted(counts, key=Source.order)]
        screen.table(["RANK", "NODE", "ERRORS"], rows)
    return BAD


def step_of(logcli: Logcli, source: Source, last: Entry, span: Span) -> str:
    """Step in the newest line of a rank that names one; `-` without any."""
    found = STEP.search(last.text)
    if not found:
        named = logcli.last(f"{source.matchers()} |~ {quoted(f'(?i){STEP.pattern}')}", span)
        found = STEP.search(named.text) if named else None
    return found[1] if found else "-"


def do_ranks(args: argparse.Namespace, logcli: Logcli, screen: Screen) -> int:
    """Show the last line, step and age of each rank."""
    now = time.time_ns()
    span = span_of(args, now)
    sources = sources_of(wanted(checked(logcli, args, span), args))

    def row(source: Source) -> list[str] | None:
        last = logcli.last(source.matchers(), span)
        if not last:
            return None
        step = step_of(logcli, source, last, span)
        return [source.name, source.node, step, age((now - last.time) / SECOND), last.text.partition("\n")[0]]

    screen.table(
        ["RANK", "NODE", "STEP", "AGE", "LAST LINE"], [found for _source, found in together(row, sources) if found]
    )
    return GOOD


def do_status(args: argparse.Namespace, logcli: Logcli, screen: Screen) -> int:
    """Show whether Loki is ready and when each node has sent its last line."""
    logcli.get("/ready")
    version = json.loads(logcli.get("/loki/api/v1/status/buildinfo")).get("version", "?")
    screen.out.write(f"Loki {clean(version)} is ready at {logcli.url}\n\n")
    now = time.time_ns()
    span = span_of(args, now)
    streams = checked(logcli, args, span)
    nodes = sorted({labels["node"] for labels in streams if labels.get("node")})
    rows, silent = [], 0
    for node, last in together(lambda node: logcli.last(f"{{{ALL}, {matcher('node', [node])}}}", span), nodes):
        if last:
            seconds = (now - last.time) / SECOND
            silent += seconds >= args.silence
            state = "silent" if seconds >= args.silence else "sends"
            rows.append([node, state, age(seconds), last.source.title, last.text.partition("\n")[0]])
    screen.table(["NODE", "STATE", "AGE", "FROM", "LAST LINE"], rows)
    return BAD if silent else GOOD


# --- runs


class Run(NamedTuple):
    """A run that playbooks/start.yml has recorded; times in nanoseconds since 1970.

    `end` is the recorded end, or the start of the next run on one of its nodes; None without both.
    """

    name: str
    nodes: tuple[str, ...]
    start: int
    end: int | None

    def span(self, now: int) -> Span:
        """Range of time of its lines."""
        end = now if self.end is None else self.end + 1
        return Span(self.start // MILLISECOND * MILLISECOND, -(-end // MILLISECOND) * MILLISECOND)


def runs_of(logcli: Logcli, now: int) -> list[Run]:
    """Recorded runs, the oldest first."""
    known: dict[str, Run] = {}
    for entry in logcli.entries(f"{{job={quoted(RUNS)}}}", Span(now - KEPT, now)):
        try:
            record = json.loads(entry.text)
            name, event = str(record["run"]), record["event"]
            if event == "start":
                known.setdefault(name, Run(name, tuple(map(str, record["nodes"])), entry.time, None))
            elif event == "end" and name in known and known[name].end is None:
                known[name] = known[name]._replace(end=entry.time)
        except (ValueError, LookupError, TypeError):  # somebody else has sent this line
            continue
    found = list(known.values())
    return [
        run._replace(
            end=min(
                [
                    *([] if run.end is None else [run.end]),
                    *(other.start for other in found if other.start > run.start and set(other.nodes) & set(run.nodes)),
                ],
                default=None,
            )
        )
        for run in found
    ]


def choose_run(args: argparse.Namespace, logcli: Logcli) -> None:
    """Limit the options to the time and the nodes of the run that they name.

    Raises:
        CommandError: there is no run with this name, or the options name a time or nodes as well.
    """
    if args.start is not None or args.to is not None or args.node:
        raise CommandError("--run cannot be used with --from, --to or --node: a run has its own time and nodes")
    now = time.time_ns()
    found = {run.name: run for run in runs_of(logcli, now)}
    if args.run not in found:
        near = ", ".join(difflib.get_close_matches(args.run, found, 3))
        hint = f"Similar names: {near}" if near else "cluster-logs runs lists all runs"
        raise CommandError(f"there is no run {args.run} in the last 30 days. {hint}", BAD)
    run = found[args.run]
    args.node, (args.start, args.to) = list(run.nodes), run.span(now)


def do_runs(_args: argparse.Namespace, logcli: Logcli, screen: Screen) -> int:
    """List the runs of the last 30 days."""
    now = time.time_ns()
    found = runs_of(logcli, now)

    def row(run: Run) -> list[str]:
        nodes = f"{{{ALL}, {matcher('node', run.nodes)}}}"
        errors = f"{{{ALL}, {matcher('node', run.nodes)}, {matcher('level', levels_from('ERROR'))}}}"
        lines, bad = (sum(logcli.count(query, run.span(now)).values()) for query in (nodes, errors))
        end = "no end" if run.end is None else clock(run.end, True)
        return [run.name, clock(run.start, True), end, str(lines), str(bad), ",".join(run.nodes)]

    if not found:
        screen.note("no run in the last 30 days; ansible-playbook playbooks/start.yml -e run=NAME records one")
        return BAD
    rows = [found for _run, found in together(row, found)]
    screen.table(["RUN", "START", "END", "LINES", "ERRORS", "NODES"], rows)
    return GOOD


def do_query(args: argparse.Namespace, logcli: Logcli, screen: Screen) -> int:
    """Show the result of a query: lines, or the values of a metric query."""
    span = span_of(args, time.time_ns())
    if args.logql.lstrip("( ").startswith("{"):
        found = logcli.entries(args.logql, span, args.limit, forward=False)
        for entry in found:
            screen.entry(entry, with_time=args.time)
        if len(found) == args.limit:
            screen.note(f"only the newest {args.limit} lines; --limit 0 gives all")
    else:
        found = logcli.values(args.logql, span.end)
        rows = [
            [f"{number:g}", ", ".join(f"{name}={value}" for name, value in sorted(labels.items()))]
            for labels, number in found
        ]
        screen.table(["VALUE", "LABELS"], rows)
    if not found:
        screen.note(f"nothing from {clock(span.start, True)} to {clock(span.end, True)}")
    return GOOD if found else BAD


# --- download


class Progress:
    """Progress bar on the error output; silent where that is no terminal."""

    def __init__(self, out: TextIO) -> None:
        self.out, self.visible = out, out.isatty()

    def show(self, done: int, total: int, text: str) -> None:
        """Draw the bar.

        Parameters:
            done, total: parts.
            text: what is being done.
        """
        if not self.visible:
            return
        width = max(shutil.get_terminal_size().columns - 1, 10)
        size = max(min(width - 35, 40), 0)
        drawn = f"[{'#' * (size * done // max(total, 1)):.<{size}}] " if size else ""
        self.out.write("\r" + f"{drawn}{100 * done // max(total, 1):3} % {clean(text)}"[:width].ljust(width))
        self.out.flush()

    def clear(self) -> None:
        """Remove the bar."""
        if self.visible:
            self.out.write("\r" + " " * (max(shutil.get_terminal_size().columns - 1, 10)) + "\r")
            self.out.flush()


class Download:
    """All lines of a range of time as files, one per rank, in the order of time.

    logcli loads each stream by itself, in slices of time that it keeps as files (`--part-path-prefix`); slices that are
    complete are not loaded again. By itself, because at the border of two requests logcli drops a line when another
    stream has the same text at the same time (printStream in pkg/logcli/print/print.go). `keep job` removes the labels
    that Loki adds to single lines (detected_level), which would make several streams of one. Loki does not keep the
    order of lines with the same time (tried with 3.7.8).

    Parameters:
        folder: where the files go.
        logcli: Loki's client.
        progress: the progress bar.
    """

    STATE, PARTS, SLICES = ".cluster-logs.json", ".cluster-logs-parts", 24

    def __init__(self, folder: Path, logcli: Logcli, progress: Progress) -> None:
        self.folder, self.logcli, self.progress = folder, logcli, progress
        self.span, self.query, self.filter, self.streams = Span(0, 0), "", "", []

    def unfinished(self, query: str, text: str) -> bool:
        """Whether the folder holds an unfinished download, which is then continued.

        Parameters:
            query: LogQL of the streams.
            text: LogQL that goes after it.

        Raises:
            CommandError: it holds anything else, or a download of other lines.
        """
        try:
            names = {path.name for path in self.folder.iterdir()}
        except FileNotFoundError:
            return False
        except OSError as error:
            raise CommandError(f"{self.folder} cannot be used: {error.strerror}") from error
        if not names:
            return False
        try:
            state = json.loads((self.folder / self.STATE).read_text())
            self.span, self.streams = Span(*state["span"]), state["streams"]
            self.query, self.filter = state["query"], state["filter"]
        except (OSError, ValueError, KeyError, TypeError):
            raise CommandError(f"{self.folder} is not empty. Name a folder that is empty or does not exist") from None
        if (self.query, self.filter) != (query, text):
            raise CommandError(
                f"{self.folder} holds an unfinished download of other lines: {self.query}{self.filter}. Use the same "
                "options, or another folder"
            )
        return True

    def begin(self, query: str, text: str, span: Span) -> None:
        """Note what is to be loaded; see `unfinished`.

        Raises:
            CommandError: there is nothing to load, or the folder cannot be written.
        """
        self.span, self.query, self.filter, self.streams = span, query, text, self.logcli.series(query, span)
        if not self.streams:
            raise CommandError(f"no line matches {query}{text}", BAD)
        state = json.dumps({"span": span, "query": query, "filter": text, "streams": self.streams})
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / self.STATE).write_text(state)
        except OSError as error:
            raise CommandError(f"{self.folder} cannot be written: {error.strerror}") from error

    def slice(self) -> int:
        """Seconds per slice: whole ones, because logcli names a slice by its second."""
        return max(-(-(self.span.end - self.span.start) // SECOND // self.SLICES), 60)

    def parts(self, number: int) -> Path:
        """Folder with the slices of a stream."""
        return self.folder / self.PARTS / str(number)

    def load(self) -> None:
        """Load what is not there yet.

        Raises:
            CommandError: logcli fails.
        """
        total = -(-(self.span.end - self.span.start) // (self.slice() * SECOND))
        for number, labels in enumerate(self.streams):
            self.parts(number).mkdir(parents=True, exist_ok=True)
            exact = ", ".join(matcher(name, [value]) for name, value in sorted(labels.items()))
            words = ["query", "--forward", "--no-labels", "--limit=0", f"--batch={PAGE}"]
            words += [f"--from={rfc3339(self.span.start)}", f"--to={rfc3339(self.span.end)}"]
            words += [f"--parallel-duration={self.slice()}s", "--parallel-max-workers=4"]
            words += [f"--part-path-prefix={self.parts(number)}/part", f"{{{exact}}}{self.filter} | keep job"]
            command = self.logcli.command("--retries=5", "--min-backoff=1", "--max-backoff=10", *words)
            with open(self.parts(number) / "log", "w+") as log:
                process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log)
                try:
                    while process.poll() is None:
                        done = len(list(self.parts(number).glob("*.part")))
                        title = f"{number + 1} of {len(self.streams)} streams, {Source.of(labels).title}"
                        self.progress.show(number * total + done, len(self.streams) * total, title)
                        try:
                            process.wait(0.2)
                        except subprocess.TimeoutExpired:
                            continue
                finally:
                    process.kill()
                    process.wait()
                if process.returncode:
                    log.seek(0)
                    cause, down = cause_of(log.read())
                    raise LokiDownError(self.logcli.url, cause) if down else CommandError(clean(cause), FAILED)

    def rows(self, number: int) -> Iterator[Entry]:
        """Lines of a stream in the order of time."""
        for path in sorted(self.parts(number).glob("*.part")):
            with path.open(encoding="utf-8") as part:
                yield from map(entry_of, part)

    def write(self) -> dict[tuple[str, str], tuple[str, int]]:
        """Write one file per rank.

        Returns:
            Name of the file and number of Loki's lines in it, by label and name of the source.
        """
        by_name: dict[tuple[str, str], list[int]] = {}
        for number, labels in enumerate(self.streams):
            source = Source.of(labels)
            by_name.setdefault((source.label, source.name), []).append(number)
        written: dict[tuple[str, str], tuple[str, int]] = {}
        names: set[str] = set()
        for (label, name), numbers in sorted(by_name.items()):
            # A label is data of another account: no folder, no hidden file.
            plain = re.sub(r"[^\w.-]", "_", f"rank-{name}" if label == "rank" else name).lstrip(".") or "_"
            while plain.lower() in names:
                plain += "_"
            names.add(plain.lower())
            count = 0
            with open(self.folder / f"{plain}.log", "w", encoding="utf-8", errors="replace", newline="") as file:
                for entry in heapq.merge(*map(self.rows, numbers), key=lambda entry: entry.time):
                    file.write(entry.text + "\n")
                    count += 1
            written[label, name] = f"{plain}.log", count
        return written

    def finish(self) -> None:
        """Remove what was needed only to continue."""
        shutil.rmtree(self.folder / self.PARTS, ignore_errors=True)
        (self.folder / self.STATE).unlink()


def do_download(args: argparse.Namespace, logcli: Logcli, screen: Screen) -> int:
    """Write all lines of a range of time to files, one per rank."""
    query, text = selector(args), text_filter(args)
    download = Download(Path(args.folder), logcli, Progress(screen.err))
    if download.unfinished(query, text):
        start, end = (clock(when, True) for when in download.span)
        screen.note(f"going on with the download of {start} to {end}")
    else:
        span = span_of(args, time.time_ns())
        checked(logcli, args, span)
        download.begin(query, text, span)
    try:
        download.load()
    except (CommandError, KeyboardInterrupt):
        download.progress.clear()
        screen.note("not finished; the same command goes on from here")
        raise
    download.progress.clear()
    counts: dict[tuple[str, str], int] = {}
    for source, number in logcli.count(query + text, download.span).items():
        counts[source.label, source.name] = counts.get((source.label, source.name), 0) + number
    written = download.write()
    screen.table(
        ["FILE", "LINES", "IN LOKI"],
        [[name, str(number), str(counts.get(key, 0))] for key, (name, number) in written.items()],
    )
    different = [key for key in {*written, *counts} if written.get(key, ("", 0))[1] != counts.get(key, 0)]
    if different:
        screen.note(
            "the counts differ: lines of this time arrived while it was loaded. Wait until all lines have arrived, and "
            "download into another folder"
        )
    download.finish()
    return BAD if different or not counts else GOOD


# --- the command line


EXAMPLES = """\
examples:
  cluster-logs tail                               all ranks, live
  cluster-logs tail --rank 0-3,7 --level WARNING  some ranks, warnings and worse
  cluster-logs tail --grep 'loss|nan' --since 10m
  cluster-logs errors --since 6h                  what broke first, and what the others did then
  cluster-logs ranks                              last line, step and age of each rank
  cluster-logs status                             is Loki ready, does every node send
  cluster-logs download logs --from 09:00 --to 12:30
  cluster-logs runs                               what was recorded with start.yml -e run=NAME
  cluster-logs download logs --run gpt-1          all lines of a run; errors and ranks have --run, too
  cluster-logs query '{rank="0"} |= "loss"'
  cluster-logs query 'sum by (rank) (count_over_time({level="ERROR"}[1h]))'
  ssh -t CONTROLLER cluster-logs tail             from your desk

On another machine than the controller set CLUSTER_LOGS_URL=http://CONTROLLER:3100 and have logcli in your PATH.
NO_COLOR=1 turns colours off; they are also off when the output is no terminal.
"""


def names(text: str) -> list[str]:
    """Read a list of names with commas between them."""
    return [name.strip() for name in text.split(",") if name.strip()]


def positive(text: str) -> int:
    """Read a whole number from 1."""
    if not re.fullmatch(r"[0-9]*[1-9][0-9]*", text):
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number from 1")
    return int(text)


def not_negative(text: str) -> int:
    """Read a whole number from 0."""
    return 0 if re.fullmatch(r"0+", text) else positive(text)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    main_parser = argparse.ArgumentParser(
        prog="cluster-logs",
        description="Read the logs of all ranks of a training cluster.",
        epilog=f"{EXAMPLES}\n{EXIT_CODES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--url", help="address of Loki (CLUSTER_LOGS_URL); on the controller it is known")
    shared.add_argument("--color", choices=("auto", "always", "never"), default="auto", help="use colours")
    which = argparse.ArgumentParser(add_help=False)
    which.add_argument("--rank", type=ranks, help="ranks, for example 0-3,7")
    which.add_argument("--node", type=names, default=[], help="nodes, for example mini1,mini2")
    what = argparse.ArgumentParser(add_help=False)
    what.add_argument("--level", type=str.upper, choices=tuple(LEVELS), help="this level and worse")
    what.add_argument("--grep", help="lines that match a regular expression (RE2; (?i) at its start ignores case)")
    commands = main_parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    def command(
        name: str, work: Callable, about: str, parents: Sequence = (), since: str = ""
    ) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=about, description=about, parents=[*parents, shared])
        added.set_defaults(work=work, rank=None, node=[], level=None, grep=None, start=None, to=None, run=None)
        if since:
            added.add_argument(
                "--since", type=duration, default=since, help="how far to look back (default: %(default)s)"
            )
        return added

    def between(added: argparse.ArgumentParser) -> None:
        added.add_argument("--from", dest="start", type=moment, help="start of the time, for example 14:05")
        added.add_argument("--to", type=moment, help="end of the time (default: now)")

    tail = command("tail", do_tail, "Show the lines of all ranks live.", (which, what), "1m")
    tail.add_argument(
        "--silence",
        type=duration,
        default="60s",
        help="say when a rank is silent that long; 0 for never (default: %(default)s)",
    )
    tail.add_argument("--time", action="store_true", help="print the time of each line, in this machine's zone")

    def of_run(added: argparse.ArgumentParser) -> None:
        added.add_argument("--run", help="lines of a run: its nodes, from its start to its end")

    errors = command(
        "errors", do_errors, "Show the first error of all ranks and what the others wrote then.", (which,), "24h"
    )
    errors.add_argument("--around", type=duration, default="30s", help="time around the error (default: %(default)s)")
    errors.add_argument(
        "--lines", type=positive, default=3, help="lines of each rank before and after (default: %(default)s)"
    )
    between(errors)
    of_run(errors)
    of_ranks = command("ranks", do_ranks, "Show the last line, step and age of each rank.", (which,), "24h")
    between(of_ranks)
    of_run(of_ranks)
    command("runs", do_runs, "List the runs that playbooks/start.yml has recorded.")
    status = command("status", do_status, "Show whether Loki is ready and each node sends.", (), "24h")
    status.add_argument(
        "--silence",
        type=duration,
        default="5m",
        help="a node without a line for that long is silent (default: %(default)s)",
    )
    download = command("download", do_download, "Write all lines to files, one per rank.", (which, what), "24h")
    between(download)
    of_run(download)
    download.add_argument(
        "folder", metavar="DIR", help="folder for the files: empty, missing, or of an unfinished download"
    )
    query = command("query", do_query, "Show the result of a query in LogQL, Loki's language.", (), "1h")
    between(query)
    query.add_argument(
        "--limit",
        type=not_negative,
        default=100,
        help="number of lines, the newest ones; 0 for all (default: %(default)s)",
    )
    query.add_argument("--time", action="store_true", help="print the time of each line, in this machine's zone")
    query.add_argument("logql", metavar="LOGQL", help='for example \'{rank="0"} |= "loss"\'')
    completion = commands.add_parser("completion", help="Print a completion script for a shell.")
    completion.add_argument("shell", choices=("bash", "zsh"))
    return main_parser


def completion(shell: str) -> str:
    """Completion of commands and options, as a script for bash or zsh."""
    (commands,) = (action for action in parser()._actions if isinstance(action, argparse._SubParsersAction))
    cases = []
    for name, sub in commands.choices.items():
        options = [option for action in sub._actions for option in action.option_strings if option.startswith("--")]
        choices = [choice for action in sub._actions if not action.option_strings for choice in action.choices or ()]
        cases.append(f"        {name}) list='{' '.join(options + choices)}' ;;")
    body = "\n".join(
        [
            "    case $command in",
            f"        '') list='{' '.join(commands.choices)} --help' ;;",
            *cases,
            "    esac",
            "    case $before in",
            f"        --level) list='{' '.join(LEVELS)}' ;;",
            "        --color) list='auto always never' ;;",
            "    esac",
        ]
    )
    if shell == "bash":
        return f"""\
# eval "$(cluster-logs completion bash)"
_cluster_logs() {{
    local list='' command='' before=${{COMP_WORDS[COMP_CWORD-1]}} typed=${{COMP_WORDS[COMP_CWORD]}}
    [ "$COMP_CWORD" -gt 1 ] && command=${{COMP_WORDS[1]}}
{body}
    COMPREPLY=($(compgen -W "$list" -- "$typed"))
    [ "$command" = download ] && COMPREPLY+=($(compgen -d -- "$typed"))
    return 0
}}
complete -F _cluster_logs cluster-logs
"""
    return f"""\
# autoload -U compinit && compinit; eval "$(cluster-logs completion zsh)"
_cluster_logs() {{
    local list='' command='' before=${{words[CURRENT-1]}}
    (( CURRENT > 2 )) && command=${{words[2]}}
{body}
    compadd -- ${{=list}}
    [[ $command = download ]] && _files -/
    return 0
}}
compdef _cluster_logs cluster-logs
"""


def stop(number: int, _frame: Any) -> None:
    """End as after Ctrl-C, so that logcli is ended as well."""
    raise KeyboardInterrupt(number)


def main(words: Sequence[str] | None = None) -> int:
    """Run a command.

    Parameters:
        words: command line without the program's name; that of the process by default.

    Returns:
        Exit code, see `EXIT_CODES`.
    """
    args = parser().parse_args(words)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")
    try:
        if args.command == "completion":
            sys.stdout.write(completion(args.shell))
            code = GOOD
        else:
            screen = Screen(args.color, sys.stdout, sys.stderr)
            logcli = Logcli.find(args.url)
            if args.run is not None:
                choose_run(args, logcli)
            code = args.work(args, logcli, screen)
        sys.stdout.flush()
    except CommandError as error:
        sys.stdout.flush()
        print(f"cluster-logs: {clean(str(error))}", file=sys.stderr)
        return error.code
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Python would complain when it flushes at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED
    return code


if __name__ == "__main__":
    sys.exit(main())
