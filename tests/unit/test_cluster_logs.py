"""The command cluster-logs without a Loki: options, LogQL, the terminal, silence, interruptions, downloads."""

from __future__ import annotations

import argparse
import io
import json
import os
import pty
import shutil
import subprocess
import sys
import time
from pathlib import Path

import cluster_logs
import pytest
from ansible_collections.smolcluster.logging.plugins.module_utils import health_lines, runs
from cluster_logs import (
    BAD,
    FAILED,
    GOOD,
    SECOND,
    USAGE,
    CommandError,
    Entry,
    LokiDownError,
    Screen,
    Seen,
    Source,
    Span,
)

PROGRAM = Path(cluster_logs.__file__)
NOW = 1_790_000_000 * SECOND


def options(*words: str) -> argparse.Namespace:
    """Options of a command line."""
    return cluster_logs.parser().parse_args(words)


def entry(text: str, rank: int | str = 0, at: float = 0, **labels: str) -> Entry:
    """A line of a rank, some seconds after NOW."""
    known = {"job": "smolcluster-worker", "rank": str(rank), "node": f"mini{rank}", "level": "INFO"}
    return Entry(NOW + int(at * SECOND), text, known | labels)


# --- what the user writes


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("15m", 900), ("2h", 7200), ("1h30m", 5400), ("7d", 604800)]
)
def test_durations(text, seconds):
    assert cluster_logs.duration(text) == seconds


@pytest.mark.parametrize("text", ["", "-5m", "1.5h", "5 m", "m", "10x", "yesterday", "٣m"])
def test_wrong_durations(text):
    with pytest.raises(argparse.ArgumentTypeError, match="is not a duration; write"):
        cluster_logs.duration(text)


def test_times(monkeypatch):
    monkeypatch.setenv("TZ", "Asia/Kolkata")
    time.tzset()
    try:
        assert cluster_logs.moment("2026-11-28T02:10:15Z") == 1795831815 * SECOND
        assert cluster_logs.moment("2026-11-28 07:40:15") == 1795831815 * SECOND
        assert cluster_logs.moment("2026-11-28T02:10:15.25+00:00") == 1795831815 * SECOND + SECOND // 4
        today = time.localtime()
        assert time.localtime(cluster_logs.moment("9:05") // SECOND)[:6] == (*today[:3], 9, 5, 0)
        assert cluster_logs.clock(1795831815 * SECOND, True) == "2026-11-28 07:40:15"
    finally:
        monkeypatch.undo()
        time.tzset()
    for text in ("", "noon", "25:00", "2026-13-01", "28.11.2026"):
        with pytest.raises(argparse.ArgumentTypeError, match="is not a time; write"):
            cluster_logs.moment(text)


def test_range_the_wrong_way_round_or_in_the_future():
    with pytest.raises(CommandError, match="wrong way round") as error:
        cluster_logs.span_of(options("ranks", "--from", "2026-01-02 10:00", "--to", "2026-01-01 10:00"), NOW)
    assert error.value.code == USAGE
    with pytest.raises(CommandError, match="wrong way round"):
        cluster_logs.span_of(options("ranks", "--since", "0"), NOW)
    with pytest.raises(CommandError, match="starts in the future"):
        cluster_logs.span_of(options("ranks", "--from", "2900-01-01", "--to", "2900-01-02"), NOW)
    assert cluster_logs.span_of(options("ranks", "--since", "1h"), NOW) == Span(NOW - 3600 * SECOND, NOW)


def test_lists_of_ranks():
    found = cluster_logs.ranks("0-3,7, server")
    assert found.values() == ["0", "1", "2", "3", "7", "server"]
    assert found.missing(["0", "1", "server"]) == ["7"]
    assert cluster_logs.ranks("2-5").missing(["4"]) == []
    assert cluster_logs.ranks("worker-0").values() == ["worker-0"]


@pytest.mark.parametrize(
    ("text", "words"), [("3-0", "write 0-3"), ("0-9999", "more than 4096"), ("", "not a list"), ("1,,2", "not a list")]
)
def test_wrong_lists_of_ranks(text, words):
    with pytest.raises(argparse.ArgumentTypeError, match=words):
        cluster_logs.ranks(text)


@pytest.mark.parametrize(
    ("words", "query"),
    [
        ((), "{ALL}"),
        (("--rank", "7"), '{ALL, rank="7"}'),
        (("--rank", "0-1,se.rver"), '{ALL, rank=~"0|1|se\\\\.rver"}'),
        (("--node", "mini1"), '{ALL, node="mini1"}'),
        (("--node", 'a"b,b|c'), '{ALL, node=~"a\\"b|b\\\\|c"}'),
        (("--level", "error"), '{ALL, level=~"ERROR|ERR|CRITICAL|FATAL|PANIC"}'),
        (("--grep", r'a"b\d'), '{ALL} |~ "a\\"b\\\\d"'),
    ],
)
def test_logql_of_options(words, query):
    args = options("tail", *words)
    assert cluster_logs.selector(args) + cluster_logs.text_filter(args) == query.replace("ALL", cluster_logs.ALL)


def test_runs_have_the_name_of_their_stream_that_the_playbooks_use():
    assert runs.STREAM["job"] == cluster_logs.RUNS
    assert health_lines.JOB == cluster_logs.HEALTH


class Records:
    """A stand-in for logcli that has only records of runs: name, event, seconds after NOW, nodes."""

    def __init__(self, *records: tuple) -> None:
        self.lines = [
            Entry(NOW + at * SECOND, json.dumps({"run": run, "event": event, "nodes": nodes}), {})
            for run, event, at, *nodes in records
        ]

    def entries(self, query: str, span: Span) -> list[Entry]:
        assert query == '{job="smolcluster-runs"}'
        assert span.start < span.end
        return self.lines


def test_a_run_ends_with_its_record_or_the_next_run_on_its_nodes():
    records = Records(
        ("a", "start", 0, "mini1", "mini2"), ("b", "start", 5, "mini3"), ("a", "end", 10), ("a", "end", 20)
    )
    records.lines[2:2] = [Entry(NOW, text, {}) for text in ("no JSON", "[]", "1", '{"run": "x"}')]
    records.lines += Records(("c", "start", 30, "mini3", "mini1")).lines
    found = {run.name: run for run in cluster_logs.runs_of(records, NOW)}
    assert [(name, run.nodes, run.end and (run.end - NOW) // SECOND) for name, run in found.items()] == [
        ("a", ("mini1", "mini2"), 10),
        ("b", ("mini3",), 30),
        ("c", ("mini3", "mini1"), None),
    ]
    assert found["c"].span(NOW + 60 * SECOND) == Span(NOW + 30 * SECOND, NOW + 60 * SECOND)
    assert found["a"].span(NOW).end > found["a"].end


def test_option_run_sets_time_and_nodes_and_refuses_what_contradicts_it():
    records = Records(("gpt-1", "start", 0, "mini1"), ("gpt-1", "end", 60))
    args = options("errors", "--run", "gpt-1")
    cluster_logs.choose_run(args, records)
    assert (args.node, args.start) == (["mini1"], NOW)
    with pytest.raises(CommandError, match=r"no run gpt-2 in the last 30 days\. Similar names: gpt-1") as error:
        cluster_logs.choose_run(options("download", "x", "--run", "gpt-2"), records)
    assert error.value.code == BAD
    with pytest.raises(CommandError, match="cannot be used with"):
        cluster_logs.choose_run(options("ranks", "--run", "gpt-1", "--node", "mini2"), records)


def test_query_for_the_lines_of_a_source():
    assert Source.of({"rank": "3", "node": "mini3"}).matchers() == '{rank="3", node="mini3"}'
    plain = Source.of({"job": "x", "host": "notes", "node": "mini3"})
    assert (plain.title, plain.matchers()) == ("notes", '{host="notes", node="mini3", rank=""}')
    assert Source.of({"job": "x"}).title == "x"
    named = [Source("rank", name, "n") for name in ("10", "server", "2")] + [Source("host", "a", "n")]
    assert [source.name for source in sorted(named, key=Source.order)] == ["2", "10", "a", "server"]


def test_labels_and_times_as_logcli_writes_them():
    row = r'{filename="/tmp/a\"b\\c.log", host="caf\u00e9\t", rank="0"}'
    assert cluster_logs.labels_of(row) == {"filename": '/tmp/a"b\\c.log', "host": "café\t", "rank": "0"}
    assert cluster_logs.nanoseconds("2026-11-28T02:10:15.000000001Z") == 1795831815 * SECOND + 1
    assert cluster_logs.nanoseconds("2026-11-28T02:10:15Z") == 1795831815 * SECOND
    assert cluster_logs.rfc3339(1795831815 * SECOND + 1) == "2026-11-28T02:10:15.000000001Z"
    assert cluster_logs.nanoseconds(cluster_logs.rfc3339(NOW + 123)) == NOW + 123


@pytest.mark.parametrize(
    ("log", "cause"),
    [
        (
            '2026/11/28 02:10:15 error sending request Get "http://x:1/a": dial tcp 1.2.3.4:1: connect: refused\n'
            "2026/11/28 02:10:15 Query failed: run out of attempts while querying the server\n",
            ("refused", True),
        ),
        (
            "2026/11/28 02:10:15 error response from server: parse error at line 1 (<nil>) attempts remaining: 0\n",
            ("parse error at line 1", False),
        ),
        (
            "2026/11/28 02:10:15 error response from server: Ingester not ready: x (<nil>) attempts remaining: 0\n",
            ("Ingester not ready: x", True),
        ),
        ("panic: x\n", ("panic: x", False)),
        ("", ("no message", False)),
    ],
)
def test_cause_of_a_failure(log, cause):
    assert cluster_logs.cause_of(log) == cause


# --- the terminal


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain\ttext ümläut 漢字 🎉", "plain\ttext ümläut 漢字 🎉"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07\x1b[2J", "\\x1b]0;title\\x07\\x1b[2J"),
        ("10%\r20%\x08\x7f\x00", "10%\\r20%\\x08\\x7f\\x00"),
        ("\x9b31m\u202egpj.exe\u2066", "\\x9b31m\\u202egpj.exe\\u2066"),
        ("\ud800", "\\ud800"),
    ],
)
def test_lines_cannot_control_the_terminal(text, shown):
    assert cluster_logs.clean(text) == shown


class Terminal(io.StringIO):
    """An output that says that it is a terminal."""

    def isatty(self) -> bool:
        """Always."""
        return True


def screen(colour: str = "auto", terminal: bool = False) -> Screen:
    """Output to text."""
    kind = Terminal if terminal else io.StringIO
    return Screen(colour, kind(), kind())


def test_lines_have_rank_and_node_and_no_colours_in_a_pipe(monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    shown = screen()
    shown.entry(entry("step:1 | loss: 2.5\r"))
    shown.entry(entry("Error\n  File x", rank="server", node="controller", level="ERROR"))
    assert shown.out.getvalue() == (
        "0 mini0 | step:1 | loss: 2.5\nserver controller | Error\nserver controller |   File x\n"
    )


def test_colours_are_for_terminals_only_and_differ_by_rank(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("COLUMNS", "200")
    shown = screen(terminal=True)
    for rank in range(3):
        shown.entry(entry("x", rank=rank))
    shown.entry(entry("bad", level="ERROR"))
    lines = shown.out.getvalue().splitlines()
    assert len({line.partition("m")[0] for line in lines[:3]}) == 3
    assert lines[3].endswith("\x1b[31mbad\x1b[0m")
    monkeypatch.setenv("NO_COLOR", "1")
    assert not screen(terminal=True).colour
    assert screen("always").colour
    monkeypatch.delenv("NO_COLOR")
    assert not screen("never", terminal=True).colour
    monkeypatch.setenv("TERM", "dumb")
    assert not screen(terminal=True).colour


def test_narrow_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("NO_COLOR", "1")
    shown = screen(terminal=True)
    shown.entry(entry("a line that is longer than the terminal stays whole"))
    assert shown.out.getvalue() == "0 | a line that is longer than the terminal stays whole\n"
    shown = screen(terminal=True)
    shown.table(["RANK", "LAST LINE"], [["0", "x" * 80]])
    assert max(map(len, shown.out.getvalue().splitlines())) == 40
    shown = screen()
    shown.table(["RANK", "LAST LINE"], [["0", "x" * 80]])
    assert "x" * 80 in shown.out.getvalue()


@pytest.mark.parametrize(
    ("seconds", "words"), [(-3, "0 s"), (59, "59 s"), (60, "1 min"), (7199, "120 min"), (7200, "2 h"), (200_000, "2 d")]
)
def test_ages(seconds, words):
    assert cluster_logs.age(seconds) == words


# --- tail


def test_what_was_shown_is_known_by_time_text_and_stream():
    seen = Seen(NOW)
    assert seen.is_new(entry("a"))
    assert not seen.is_new(entry("a"))
    # A query adds this label, the tail does not.
    assert not seen.is_new(entry("a", detected_level="info"))
    assert seen.is_new(entry("a", at=0.000000001))
    assert seen.is_new(entry("a", rank=1))
    assert not seen.is_new(entry("too old", at=-1))


def test_memory_of_what_was_shown_is_bounded_and_forgets_the_oldest_only():
    seen = Seen(NOW, limit=100)
    lines = [entry(str(number), at=number) for number in range(1000)]
    assert all(map(seen.is_new, lines))
    assert not any(map(seen.is_new, lines))
    assert max(map(len, seen.shown.values())) <= 101
    assert seen.is_new(entry("next", at=1000))


def test_silence_is_told_once_and_ends_with_the_next_line():
    silence = cluster_logs.Silence(60)
    first, second = entry("", 0).source, entry("", 1).source
    for source in (first, second):
        assert silence.heard(source, 100) == 0
    assert silence.fallen(159) == []
    assert silence.heard(first, 150) == 0
    assert silence.fallen(161) == [second]
    assert silence.fallen(165) == []
    assert silence.heard(second, 99) == 0  # an older line that comes late
    assert silence.heard(second, 190) == 90
    assert silence.fallen(195) == []
    silence.forgive(300)
    assert silence.fallen(310) == []
    assert silence.fallen(400) == [first, second]
    silence.recall(first, 500)
    assert silence.fallen(510) == []
    never = cluster_logs.Silence(0)
    never.heard(first, 0)
    assert never.fallen(1e9) == []


def row_of(line: Entry) -> str:
    """A line as logcli prints it."""
    return json.dumps({"timestamp": cluster_logs.rfc3339(line.time), "line": line.text, "labels": line.labels})


class StandIn(cluster_logs.Logcli):
    """Stand-in for logcli and Loki: a list of lines for queries, and what each connection of the tail prints.

    Parameters:
        tails: for each connection its rows and the rows of its error output; after them the connection ends.
    """

    def __init__(self, *tails: tuple[list[str], list[str]]) -> None:
        super().__init__("http://loki.invalid:3100", "logcli")
        self.tails, self.stored, self.refused = list(tails), [], 0

    def stream(self, query, span, limit=0, forward=True):  # noqa: ARG002 - the signature of the real one
        """The stored lines of a range of time."""
        return iter([line for line in self.stored if span.start <= line.time < span.end])

    def tail(self, query, start):  # noqa: ARG002
        """A process that prints what the next connection gives; after the last one the user presses Ctrl-C."""
        if not self.tails:
            raise KeyboardInterrupt
        rows, log = self.tails.pop(0)
        script = "import sys; sys.stdout.write(sys.argv[1]); sys.stdout.flush(); sys.stderr.write(sys.argv[2])"
        words = [sys.executable, "-c", script, "".join(f"{row}\n" for row in rows), "".join(f"{row}\n" for row in log)]
        return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def get(self, path):  # noqa: ARG002
        """Loki answers again after some refusals."""
        if self.refused:
            self.refused -= 1
            raise LokiDownError(self.url, "connection refused")
        return "ready"


def tail_of(stand_in: StandIn) -> tuple[list[str], list[str]]:
    """Lines and notes of a tail that runs until Ctrl-C."""
    shown = screen("never")
    tail = cluster_logs.Tail(stand_in, shown, '{job=~".+"}', NOW, 60)
    tail.caught_up = NOW
    with pytest.raises(KeyboardInterrupt):
        tail.run()
    return shown.out.getvalue().splitlines(), shown.err.getvalue().splitlines()


def test_tail_after_an_outage_has_no_gap_and_no_double_line():
    lines = [entry(f"line {number}", at=number) for number in range(6)]
    stand_in = StandIn(([row_of(line) for line in lines[1:3]], []), ([row_of(line) for line in lines[3:5]], []))
    # Line 3 is stored while nobody listens, and the new connection gives it as well.
    stand_in.stored, stand_in.refused = lines[:4], 1
    shown, notes = tail_of(stand_in)
    assert sorted(shown) == [f"0 mini0 | line {number}" for number in range(5)]
    assert notes[0] == "-- Loki does not answer (the connection was closed); trying again"
    assert notes[1].startswith("-- Loki answers again after ")


@pytest.mark.parametrize(
    "log",
    [
        "2026/11/28 02:10:15 Remote websocket connection closed unexpectedly (x). Connecting again.",
        "2026/11/28 02:10:15 Error reading stream: websocket: close 1011 (internal server error)",
    ],
)
def test_tail_connects_itself_whatever_logcli_does_after_a_closed_connection(log):
    stand_in = StandIn(([], [log]), ([row_of(entry("after"))], []))
    shown, notes = tail_of(stand_in)
    assert shown == ["0 mini0 | after"]
    assert "Loki answers again" in notes[1]


def test_refused_query_ends_the_tail():
    class Refusing(StandIn):
        """Stand-in for a Loki that refuses the query."""

        def stream(self, query, span, limit=0, forward=True):  # noqa: ARG002
            """Refuse."""
            raise CommandError("Loki refuses: parse error", FAILED)

    with pytest.raises(CommandError, match="parse error"):
        cluster_logs.Tail(Refusing(([], [])), screen(), "{", NOW, 60).run()


def test_all_silent_is_one_note():
    tail = cluster_logs.Tail(StandIn(), screen(), "{}", NOW, 60)
    for rank in range(3):
        tail.show(entry("x", rank))
    tail.clock = lambda: time.monotonic() + 61
    tail.tell_silence()
    tail.tell_silence()
    assert tail.screen.err.getvalue() == "-- no rank has written for 1 min\n"


# --- commands


def test_traceback_in_one_line_of_loki_or_in_several():
    whole = entry("Error\nTraceback (most recent call last):\n  File x\nValueError: y")
    assert cluster_logs.traceback_of([whole, entry("next")]) == [whole]
    texts = ["Error", "Traceback (most recent call last):", '  File "x"', "    y()", "ValueError: z", "next line"]
    single = [entry(text) for text in texts]
    assert [found.text for found in cluster_logs.traceback_of(single)] == texts[:5]
    assert [found.text for found in cluster_logs.traceback_of(single[1:])] == texts[1:5]
    assert cluster_logs.traceback_of([]) == []


@pytest.mark.parametrize(
    ("text", "step"),
    [("step:120 | loss: 2", "120"), ("Step 7/100", "7"), ("[step=3]", "3"), ("stepping 4", None), ("steps 5", None)],
)
def test_step_of_a_line(text, step):
    found = cluster_logs.STEP.search(text)
    assert (found and found[1]) == step


STAND_IN = """#!/bin/sh
# A stand-in for logcli that knows one stream, and whose connection fails on demand.
case "$*" in
    *series*) echo '{job="j", node="mini1", rank="0"}' ;;
    *instant-query*) echo '[{"metric": {"node": "mini1", "rank": "0"}, "value": [1, "2"]}]' ;;
    *--part-path-prefix=*)
        [ -e "$STATE/broken" ] && { echo "x error sending request: refused" >&2; exit 1; }
        for word in "$@"; do case "$word" in --part-path-prefix=*) prefix=${word#*=} ;; esac; done
        for hour in 02 03; do
            printf '{"line": "at %s", "timestamp": "2026-11-28T%s:10:15Z"}\\n' $hour $hour > "${prefix}_$hour.part"
        done ;;
    *) echo "2026/11/28 02:10:15 error response from server: bad query (<nil>) attempts remaining: 0" >&2; exit 1 ;;
esac
"""


@pytest.fixture
def command(tmp_path):
    """A function that runs the program with a stand-in for logcli; gives the finished process."""
    folder = tmp_path / "bin"
    folder.mkdir()
    shutil.copy(PROGRAM, folder / "cluster-logs")
    (folder / "logcli").write_text(STAND_IN)
    (folder / "logcli").chmod(0o755)

    def run(*words: str, path: str = f"{folder}:/usr/bin:/bin") -> subprocess.CompletedProcess:
        env = {"PATH": path, "HOME": str(tmp_path), "STATE": str(tmp_path), "TZ": "UTC"}
        program = [sys.executable, str(folder / "cluster-logs"), *words]
        return subprocess.run(program, env=env, cwd=tmp_path, capture_output=True, text=True, check=False)

    return run


def test_download_goes_on_after_an_interruption_and_refuses_other_folders(command, tmp_path):
    (tmp_path / "broken").touch()
    words = ("download", "lines", "--since", "1d")
    done = command(*words)
    assert (done.returncode, done.stdout) == (FAILED, "")
    assert "-- not finished; the same command goes on from here" in done.stderr
    (tmp_path / "broken").unlink()
    done = command(*words, "--rank", "0")
    assert done.returncode == USAGE
    assert "holds an unfinished download of other lines" in done.stderr
    done = command(*words)
    assert done.returncode == GOOD, done.stderr
    assert "-- going on with the download of " in done.stderr
    assert done.stdout.split() == ["FILE", "LINES", "IN", "LOKI", "rank-0.log", "2", "2"]
    assert (tmp_path / "lines/rank-0.log").read_text() == "at 02\nat 03\n"
    assert os.listdir(tmp_path / "lines") == ["rank-0.log"]
    done = command(*words)
    assert done.returncode == USAGE
    assert "is not empty. Name a folder that is empty or does not exist" in done.stderr
    (tmp_path / "file").touch()
    assert "cannot be used: Not a directory" in command("download", "file").stderr


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (("ranks", "--rank", "5"), BAD, "there is no line of rank 5 from "),
        (("ranks", "--rank", "rank0"), BAD, "Did you mean --rank 0?"),
        (("ranks", "--node", "mini9"), BAD, "There are lines of: mini1."),
        (("query", "{"), FAILED, "Loki refuses: bad query"),
        (("query", "--url", "controller:3100", "{}"), USAGE, "write http://CONTROLLER:3100"),
        (("status", "--url", "http://127.0.0.1:9"), FAILED, "Loki does not answer at http://127.0.0.1:9: "),
        (("tail", "--rank", "3-1"), USAGE, "argument --rank: the range 3-1 is the wrong way round; write 1-3"),
        (("tail", "--since", "soon"), USAGE, "'soon' is not a duration"),
        (("errors", "--lines", "0"), USAGE, "'0' is not a whole number from 1"),
        (("query", "--limit", "-1", "{}"), USAGE, "'-1' is not a whole number from 1"),
        (("tail", "--level", "loud"), USAGE, "invalid choice: 'LOUD'"),
        ((), USAGE, "usage: cluster-logs"),
    ],
)
def test_errors_name_the_way_out(command, words, code, text):
    done = command(*words)
    assert (done.returncode, done.stdout) == (code, "")
    assert text in done.stderr
    assert "Traceback" not in done.stderr


def test_missing_logcli_is_told(command):
    done = command("tail", path="/nonexistent")
    assert done.returncode == FAILED
    assert "logcli is missing. On the controller the role docker_loki_grafana installs it" in done.stderr


def test_help_has_examples_and_exit_codes(command):
    done = command("--help")
    assert done.returncode == GOOD
    for text in ("cluster-logs tail --rank 0-3,7", "ssh -t CONTROLLER cluster-logs tail", "exit codes:", "NO_COLOR"):
        assert text in done.stdout
    for name in ("tail", "errors", "ranks", "status", "download", "query"):
        assert "--url" in command(name, "--help").stdout


def test_completion_of_bash(command):
    script = command("completion", "bash").stdout
    ask = 'COMP_WORDS=({words}); COMP_CWORD={at}; _cluster_logs; echo "${{COMPREPLY[@]}}"'
    for words, at, found in (
        ("cluster-logs do", 1, "download"),
        ("cluster-logs tail --si", 2, "--since --silence"),
        ("cluster-logs tail --level WA", 3, "WARNING"),
        ("cluster-logs completion z", 2, "zsh"),
    ):
        done = subprocess.run(
            ["bash", "-c", f"{script}\n{ask.format(words=words, at=at)}"], capture_output=True, text=True, check=True
        )
        assert sorted(done.stdout.split()) == sorted(found.split()), (words, done.stderr)


def test_settings_beside_the_program(tmp_path):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/cluster-logs").touch()
    (tmp_path / "link").symlink_to("bin/cluster-logs")
    assert cluster_logs.settings_beside(tmp_path / "link") == {}
    (tmp_path / "bin/cluster-logs.json").write_text('{"url": "http://x:1"}')
    assert cluster_logs.settings_beside(tmp_path / "link") == {"url": "http://x:1"}


def test_progress_bar_is_drawn_in_a_terminal_only():
    bar = cluster_logs.Progress(io.StringIO())
    bar.show(1, 2, "x")
    bar.clear()
    assert bar.out.getvalue() == ""
    bar = cluster_logs.Progress(Terminal())
    bar.show(1, 2, "rank 0")
    assert " 50 % rank 0" in bar.out.getvalue()


def test_program_runs_in_a_terminal_of_its_own():
    """Help through a pty: the width and the colours of a real terminal are asked for."""
    leader, follower = pty.openpty()
    process = subprocess.Popen([sys.executable, PROGRAM, "tail", "--help"], stdout=follower, stderr=follower)
    os.close(follower)
    assert process.wait(30) == 0
    assert b"--silence" in os.read(leader, 65536)
    os.close(leader)
