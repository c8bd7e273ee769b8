"""What a record of a copy is, and what a terminal would have shown of a line."""

from __future__ import annotations

import random
import re

import pytest
import records

START = re.compile(r"^\d", re.ASCII)


def taken_apart(data: bytes) -> tuple[bytes, bytes]:
    """Path and entry of a record, as an agent reads it."""
    path, entry = data.removesuffix(b"\n").split(b"\t", 1)
    return path, entry.replace(b"\x1en", b"\n").replace(b"\x1ee", b"\x1e")


@pytest.mark.parametrize("seed", range(20))
def test_any_bytes_come_back(seed):
    chance = random.Random(seed)  # noqa: S311
    for _ in range(200):
        entry = bytes(chance.choice(b"\n\x1ene\t\x00\xff1") for _ in range(chance.randrange(12)))
        data = records.record(b"/a b.log", entry)
        assert data.count(b"\n") == 1
        assert taken_apart(data) == (b"/a b.log", entry)
        block = entry + b"\n"
        found, ends = records.of_lines(b"/x", block)
        assert b"\n".join(taken_apart(one)[1] for one in found) == entry
        assert [block[:end].count(b"\n") for end in ends] == list(range(1, len(found) + 1))
        found, ends, _begun, _open = records.of_entries(b"/x", block, START, False)
        assert b"\n".join(taken_apart(one)[1] for one in found) == entry
        assert ends[-1] == len(block)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"plain", b"plain"),
        (b"\x1b[1;31mred\x1b[0m", b"red"),
        (b"\xc2\x9b1mred", b"red"),
        (b"\x9b1mno UTF-8", b"\x9b1mno UTF-8"),
        (b"\x1b]0;title\x07text", b"text"),
        (b"\x1b[?25lhidden", b"hidden"),
        (b"\x1b[38;5;;1mx", b"x"),
        (b"\x1bM", b""),
        (b"\x1b\xff", b"\x1b\xff"),
        (b"1%\r2%\r3%", b"3%"),
        (b"1%\r2%\r", b"2%\r"),
        (b"text\r", b"text\r"),
        (b"\r\r", b"\r\r"),
        (b"\x1b[1m\r\x1b[0m", b"\r"),
        (b"a\x1b[2K\rb", b"b"),
        ("\u76db".encode(), "\u76db".encode()),
    ],
)
def test_line_as_a_terminal_shows_it(line, expected):
    assert records.shown(line) == expected


@pytest.mark.parametrize("text", [b";" * 200_000, b"[" * 200_000, b"1;" * 100_000, b"a" * 200_000, b"\x1b[" * 100_000])
def test_time_for_a_line_grows_with_its_length_only(text):
    """With its square it would take hours"""
    assert records.shown(b"\x1b" + text + b"\xff").endswith(b"\xff")
