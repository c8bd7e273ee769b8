"""How far the agent has read, in the form in which Promtail saves it, and how far that is set back."""

from __future__ import annotations

import os
import re

import positions
import pytest

START = [re.compile(r"^\d{4}-\d{2}-\d{2} ", re.ASCII)]


def back(path, position: int, starts=START, wanted: int = positions.REWIND) -> tuple[int, int]:
    """See `positions.rewound`, for a file's path."""
    handle = os.open(path, os.O_RDONLY)
    try:
        return positions.rewound(handle, position, starts, wanted)
    finally:
        os.close(handle)


@pytest.fixture
def log(tmp_path):
    """A log of 20,000 entries, every tenth with two further lines."""
    entries = [
        f"2026-11-23 10:00:00,000 | INFO | rank:0 | step:{number:06d}\n" + "  more\n  yet more\n" * (number % 10 == 0)
        for number in range(20_000)
    ]
    path = tmp_path / "worker.log"
    path.write_text("".join(entries))
    return path


def test_goes_back_to_the_beginning_of_an_entry(log):
    size = log.stat().st_size
    offset, seen = back(log, size)
    assert positions.REWIND <= seen == size - offset < positions.REWIND + 200
    assert log.read_bytes()[offset:].startswith(b"2026-11-23 ")


def test_without_expressions_each_line_is_an_entry(log):
    offset, _ = back(log, log.stat().st_size, [])
    assert log.read_bytes()[offset - 1 : offset] == b"\n"


def test_goes_no_farther_than_to_the_beginning_of_the_file(log):
    assert back(log, 1000)[0] == 0
    assert back(log, 0) == (0, 0)


def test_entry_without_a_beginning_within_reach_is_not_searched_for_without_end(log, monkeypatch):
    monkeypatch.setattr(positions, "FARTHEST", 64 << 10)
    offset, _ = back(log, log.stat().st_size, [re.compile("never")], 1000)
    assert 0 < offset < log.stat().st_size


def test_progress_bars_count_as_what_promtail_keeps_of_them(tmp_path):
    frame = "".join(f"\r{percent:3d}%|####    | {percent}/100" for percent in range(100))
    path = tmp_path / "bar.log"
    with path.open("w") as file:
        for number in range(9000):
            file.write(f"{frame}\r\x1b[2m2026-11-23 10:00:00,000\x1b[0m | INFO | rank:0 | {number} {'x' * 40}\n")
    offset, seen = back(path, path.stat().st_size)
    assert seen == pytest.approx(positions.REWIND, rel=0.01)
    assert (path.stat().st_size - offset) / (len(frame) + 90) * 90 == pytest.approx(positions.REWIND, rel=0.1)


def test_line_longer_than_all_that_is_gone_back_is_read_whole(tmp_path):
    path = tmp_path / "long.log"
    path.write_text("2026-11-23 10:00:00,000 | INFO | rank:0 | " + "x" * 3 * positions.REWIND + "\n")
    assert back(path, path.stat().st_size)[0] == 0


def test_large_entries_count_one_for_each_stage(tmp_path):
    path = tmp_path / "large.log"
    path.write_text(("2026-11-23 10:00:00,000 | INFO | rank:0 | " + "x" * 100_000 + "\n") * 50)
    offset, _ = back(path, path.stat().st_size)
    assert offset == path.stat().st_size * (50 - positions.STAGES) // 50


def test_line_that_is_no_utf_8_is_none_the_less_read(tmp_path):
    path = tmp_path / "latin.log"
    path.write_bytes(b"2026-11-23 caf\xe9\n\xe9\xe9\n" * 40_000)
    offset, _ = back(path, path.stat().st_size)
    assert path.read_bytes()[offset:].startswith(b"2026-11-23 caf\xe9\n")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("positions: {}\n", {}),
        (
            'positions:\n  /srv/a.log: "12"\n  /srv/with space.log: "3"\n',
            {"/srv/a.log": "12", "/srv/with space.log": "3"},
        ),
        ("positions:\n  '/srv/it''s: #1.log': \"12\"\n", {"/srv/it's: #1.log": "12"}),
        ('positions:\n  "/srv/caf\\u00e9.log": "12"\n', {"/srv/café.log": "12"}),
        (f'positions:\n  ? /srv/{"x" * 200}.log\n  : "12"\n', {f"/srv/{'x' * 200}.log": "12"}),
        ('{"positions": {"/srv/a.log": "12"}}', {"/srv/a.log": "12"}),
        ("positions:\n  cursor-journal: s=1;i=2\n", {"cursor-journal": "s=1;i=2"}),
    ],
)
def test_form_of_the_positions_file(text, expected):
    assert positions.parse(text) == expected


@pytest.mark.parametrize(
    ("written", "path"),
    [
        (r"/a/server-\U0001F600.log", "/a/server-\U0001f600.log"),
        (r"/a/b\x07\e\"c\\.log", '/a/b\x07\x1b"c\\.log'),
        (r"/a/\u00fc\_\N.log", "/a/\u00fc\xa0\x85.log"),
    ],
)
def test_escapes_of_yaml_are_understood(written, path):
    assert positions.parse(f'positions:\n  "{written}": "7"\n') == {path: "7"}


@pytest.mark.parametrize("text", ["", "positions: [", "\0" * 200, '{"positions": 7}'])
def test_damage_is_recognised(text):
    with pytest.raises(positions.DamagedError):
        positions.parse(text)


@pytest.mark.parametrize(
    "entry",
    [
        '"/a/\\q.log": "7"',
        "/srv/a.log: '12",
        '? |-\n    /srv/nl\n    x.log\n  : "6"',
        "? '/srv/ab\n\n    cd'\n  : \"6\"",
    ],
)
def test_entry_that_cannot_be_read_stops_no_other(entry):
    text = f'positions:\n  /a.log: "1"\n  {entry}\n  /z.log: "2"\n'
    assert positions.parse(text).items() >= {"/a.log": "1", "/z.log": "2"}.items()


@pytest.mark.parametrize(
    "key",
    [
        # As Promtail 3.6.11 writes keys of more than 128 characters: /srv, and 40 times "ab cd".
        "? /srv {0}\n    {1}",
        "? '/srv {0}\n    {1}'",
        '? "/srv {0}\n    {1}"',
    ],
)
def test_long_name_with_spaces_is_read_from_several_lines(key):
    half = " ".join(["ab cd"] * 20)
    text = f'positions:\n  /a.log: "1"\n  {key.format(half, half)}\n  : "6"\n  /z.log: "2"\n'
    assert positions.parse(text) == {"/a.log": "1", f"/srv {half} {half}": "6", "/z.log": "2"}


@pytest.mark.parametrize("data", [None, b"", b"\0" * 200, b"\xff\xfe", b"positions: ["])
def test_damaged_or_missing_file_says_nothing(tmp_path, data):
    path = tmp_path / "positions.yaml"
    if data is not None:
        path.write_bytes(data)
    assert positions.saved(path) == {}


def test_only_offsets_are_taken(tmp_path):
    path = tmp_path / "positions.yaml"
    path.write_text('positions:\n  cursor-journal: s=1;i=2\n  /srv/a.log: "12"\n')
    assert positions.saved(path) == {"/srv/a.log": 12}


def test_file_is_written_completely_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "files.json"
    positions.replace(path, "one")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        positions.replace(path, "two")
    assert path.read_text() == "one"
    assert list(tmp_path.iterdir()) == [path]
