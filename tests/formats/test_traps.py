"""What goes wrong with lines of training: dates, zones, bars, colours, tracebacks, strange bytes, several ranks."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta

import pytest
from ansible_collections.smolcluster.logging.plugins.module_utils.trial import utc

HEAD = "2026-11-25 10:00:00,123 | ERROR | rank:0 | boom"


def times(reader, lines: list[str], chosen: str = "auto", zone: str = "Asia/Kolkata") -> list[str]:
    """Times in UTC of lines, each of which is an entry."""
    found = reader.log("".join(f"{line}\n" for line in lines), chosen, zone)
    assert [entry.text for entry in found] == lines
    return [utc(entry.time) for entry in found]


@pytest.mark.parametrize(
    ("written", "known"),
    [
        ("2026-11-23 10:39:17", "2026-11-23T05:09:17Z"),
        ("2026-11-23 10:39:17,5", "2026-11-23T05:09:17.5Z"),
        ("2026-11-23 10:39:17.123456", "2026-11-23T05:09:17.123456Z"),
        ("2026-11-23T10:39:17.123456789", "2026-11-23T05:09:17.123456789Z"),
        ("2026-11-23T10:39:17Z", "2026-11-23T10:39:17Z"),
        ("2026-11-23T10:39:17.1Z", "2026-11-23T10:39:17.1Z"),
        ("2026-11-23T10:39:17+02:00", "2026-11-23T08:39:17Z"),
        ("2026-11-23T10:39:17,250-0330", "2026-11-23T14:09:17.25Z"),
        ("2026-11-23 10:39:17 +0200", "2026-11-23T08:39:17Z"),
        ("2026-11-23 10:39:17.5+05:30", "2026-11-23T05:09:17.5Z"),
        ("2026-11-23 10:39:17 UTC", "2026-11-23T10:39:17Z"),
        ("2026-11-23 10:39:17 GMT", "2026-11-23T10:39:17Z"),
        ("2026/11/23 10:39:17", "2026-11-23T05:09:17Z"),
        ("11/23/2026 10:39:17", "2026-11-23T05:09:17Z"),
        ("1/2/2026 10:39:17", "2026-01-02T05:09:17Z"),
        ("23.11.2026 10:39:17", "2026-11-23T05:09:17Z"),
        ("23-Nov-2026 10:39:17", "2026-11-23T05:09:17Z"),
        ("Mon Nov 23 10:39:17 2026", "2026-11-23T05:09:17Z"),
        ("1795430357", "2026-11-23T10:39:17Z"),
        ("1795430357.25", "2026-11-23T10:39:17.25Z"),
        ("1795430357524", "2026-11-23T10:39:17.524Z"),
    ],
)
def test_form_of_a_time(reader, written, known):
    for line in (f"{written} INFO hello", f"[{written}] [INFO] hello", f"{written} - train - INFO - hello"):
        (found,) = reader.log(f"{line}\n", "auto")
        assert (utc(found.time), found.level, found.text) == (known, "INFO", line)


def test_zone_of_the_node_counts_on_both_sides_of_summer_time(reader):
    lines = ["2026-07-01 12:00:00 INFO a", "2026-12-01 12:00:00 INFO b"]
    assert times(reader, lines, zone="America/New_York") == ["2026-07-01T16:00:00Z", "2026-12-01T17:00:00Z"]


def test_year_that_is_missing_is_this_year_or_that_before(reader):
    now = datetime.now(UTC)
    day = now - timedelta(days=20)
    (found,) = times(reader, [f"I{day:%m%d %H:%M:%S.%f} 1 a.py:1] x"], zone="UTC")
    assert found[:19] == f"{day:%Y-%m-%dT%H:%M:%S}"


@pytest.mark.parametrize("month", range(1, 13))
def test_month_of_pytorch_may_lack_its_zero(reader, month):
    (found,) = times(reader, [f"[I{month}07 01:02:03.000000004 socket.cpp:1] x"], zone="UTC")
    assert found[5:] == f"{month:02d}-07T01:02:03.000000004Z"


def test_time_in_the_message_is_not_the_time_of_the_entry(reader):
    before = time.time()
    (found,) = reader.log("INFO:train:resumed from 2020-01-01 00:00:00\n", "auto")
    assert utc(found.time)[:10] >= f"{datetime.fromtimestamp(before, UTC):%Y-%m-%d}"


@pytest.mark.parametrize("chosen", ["auto", "smolcluster_console", "tqdm"])
@pytest.mark.parametrize(
    "bar",
    [
        " 20%|##   |",
        "100%|##########| 5/5 [00:01<00:00,  4.9it/s]",
        "Epoch 0:  40%|####      | 2/5 [00:01<00:02,  1.2it/s, loss=2.3]",
        "  0%|          | 0/30 [00:00<?, ?it/s]",
    ],
)
def test_line_behind_a_progress_bar(reader, bar, chosen):
    log = f"before\n\r  0%|     |\r{bar}{HEAD}\nafter\n"
    found = reader.log(log, chosen)
    assert [entry.text for entry in found] == ["before", f"{bar}{HEAD}", "after"]
    assert (found[1].level, found[1].rank, utc(found[1].time)) == ("ERROR", "0", "2026-11-25T04:30:00.123Z")
    assert (found[0].level, found[2].level) == ("", "")


@pytest.mark.parametrize(
    "before", ["\x1b[31m", "\ufeff", "  ", "\x00\x00\x00", "\n", "[default0]:", "\x1b[36m(W pid=3)\x1b[0m "]
)
def test_what_is_in_front_of_a_line(reader, before):
    (*_empty, found) = reader.log(f"{before}{HEAD}\n", "auto")
    assert (found.level, found.rank, utc(found.time)) == ("ERROR", "0", "2026-11-25T04:30:00.123Z")
    assert found.text.endswith(HEAD)


def test_ends_of_lines_of_windows(reader):
    found = reader.log(f"{HEAD}\r\nINFO:a:b\r\n", "auto")
    assert [(entry.text.rstrip("\r"), entry.level) for entry in found] == [(HEAD, "ERROR"), ("INFO:a:b", "INFO")]


def test_large_json(reader):
    line = json.dumps({"payload": "x" * 100_000, "level": "error", "ts": 1795430357.5, "rank": 2, "emoji": "🔥"})
    (found,) = reader.log(line + "\n", "auto")
    assert (found.level, found.rank, utc(found.time), found.text) == ("ERROR", "2", "2026-11-23T10:39:17.5Z", line)


def test_json_without_a_rank_keeps_that_of_the_source(reader):
    (found,) = reader.entries(['{"level": "info", "msg": "x"}'], "json", rank="7")
    assert (found.level, found.rank) == ("INFO", "7")


@pytest.mark.parametrize("line", ["{not json", '{"a": ', "level=", "[", "{}", "(", '"', "\\", "`${x}`", "{{ .Value }}"])
def test_line_that_only_looks_like_a_format_is_kept(reader, line):
    assert [(entry.text, entry.level) for entry in reader.log(f"{line}\n", "auto")] == [(line, "")]


def test_ranks_that_alternate_in_one_console(reader):
    log = (
        "[rank0]: Traceback (most recent call last):\n"
        '[rank0]:   File "a.py", line 1, in <module>\n'
        "[rank1]:[W1125 10:00:00.000000001 socket.cpp:1] slow\n"
        "[rank0]: ValueError: x\n"
        "[default1]:2026-11-25 10:00:00,123 - a - INFO - one\n"
        "[default0]:2026-11-25 10:00:00,124 - a - INFO - two\n"
    )
    found = reader.log(log, "auto")
    assert [entry.text.split("\n")[0] for entry in found] == [
        line for line in log.splitlines() if not line.startswith("[rank0]:   File")
    ]
    assert [(entry.level, entry.rank) for entry in found] == [
        ("ERROR", "0"), ("WARNING", "1"), ("ERROR", "0"), ("INFO", ""), ("INFO", ""),
    ]  # fmt: skip


def test_traceback_belongs_to_an_error_that_was_logged_but_not_to_another_line(reader):
    traceback = 'Traceback (most recent call last):\n  File "a.py", line 1, in <module>\nBoom: x'
    lines = [
        f"2026-11-25 10:00:00,123 - a - ERROR - failed\n{traceback}",
        "2026-11-25 10:00:01,123 - a - INFO - next",
        traceback,
        "print",
        f"{traceback}\n\nDuring handling of the above exception, another exception occurred:\n\n{traceback}",
    ]
    found = reader.log("".join(f"{line}\n" for line in lines), "auto")
    assert [entry.text for entry in found] == lines
    assert [entry.level for entry in found] == ["ERROR", "INFO", "ERROR", "", "ERROR"]


def test_rank_of_the_path_gives_way_to_that_of_the_line(reader):
    lines = ["INFO:a:none", "INFO:a:[rank: 3] own"]
    assert [entry.rank for entry in reader.entries(lines, "auto", rank="1")] == ["1", "3"]


def test_every_family_in_one_log(reader):
    """Nothing is lost or glued where families are mixed."""
    from tests.formats.test_presets import FAMILIES, check

    log = "".join(line + "\n" for family in FAMILIES for line in family["lines"])
    wanted = [entry for family in FAMILIES for entry in family["entries"]]
    started = time.time()
    check(reader.log(log, "auto"), wanted, started)
