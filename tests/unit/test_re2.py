"""Expressions of Go for Python: the same meaning, or none."""

from __future__ import annotations

import re

import pytest
from ansible_collections.smolcluster.logging.plugins.plugin_utils import re2


@pytest.mark.parametrize(
    ("expression", "fits", "fails"),
    [
        (r"^\d{4}-\d{2} ", "2026-11 x", "x2026-11 "),
        (r"^[[:digit:]]{4}[[:space:]]", "2026 ", "year "),
        (r"^[^[:alpha:]]", "1", "a"),
        (r"^(?P<y>\d+)x", "1x", "x"),
        (r"^(?<y>\d+)x", "1x", "x"),
        (r"(?i)^info", "INFO", "WARN"),
        (r"^(?i:info)", "INFO", "WARN"),
        (r"^x\z", "x", "xy"),
        (r"^\x{200B}", "\u200bx", "x"),
        (r"^\x41", "A", "B"),
        (r"^[[]\]", "[]", "x"),
        (r"^[a&&b]", "&", "c"),
        (r"^\[\w+\]", "[rank]", "rank"),
        (r"^\d", "1", "\u0661"),
        (r"^a{2,3}?$", "aa", "a"),
    ],
)
def test_same_meaning(expression, fits, fails):
    found = re.compile(re2.to_python(expression), re.ASCII)
    assert found.search(fits)
    assert not found.search(fails)


@pytest.mark.parametrize(
    "expression",
    [
        r"^\pL", r"^\p{Greek}", r"^\Q.\E", r"a(?i)b", r"(?U)a+", r"(?-i)a", r"^\C", r"\1", r"^a{,2}", r"[[:nothing:]]",
        r"(?=a)", r"(?<=a)b", r"[a", r"(", r"\x{110000}", r"^\8", "\\",
    ],
)  # fmt: skip
def test_no_meaning(expression):
    assert re2.to_python(expression) is None
