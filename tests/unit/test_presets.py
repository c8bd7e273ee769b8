"""Format presets: how they are put together, and which faults in them are found before a deployment."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from ansible_collections.smolcluster.logging.plugins.module_utils import entries, golayout
from ansible_collections.smolcluster.logging.plugins.plugin_utils import presets, re2

ROOT = Path(__file__).resolve().parents[2]
FOLDER = str(Path(__file__).resolve().parents[2] / "roles/agent/vars/formats")
KNOWN = presets.load(FOLDER)
PRESET = {
    "entry_start": r"^[IWEF]\d{8} ",
    "pattern": r"^(?P<level>[IWEF])(?P<time>\d{8} \d{2}:\d{2}:\d{2}\.\d{6}) ",
    "time_layouts": ["20060102 15:04:05.000000"],
    "levels": {"I": "INFO"},
    "path_pattern": r"rank(?P<rank>\d+)",
    "labels": ["level", "rank"],
    "sample": "I%(asctime)s %(message)s",
    "sample_time": "%Y%m%d %H:%M:%S.%f",
}


@pytest.mark.parametrize("name", sorted(KNOWN))
def test_preset_of_the_role_has_no_problem(name):
    assert presets.problems(KNOWN[name], KNOWN, (name,)) == []
    assert KNOWN[name]["examples"], "every preset shows what its lines are"


def test_preset_in_a_source_has_no_problem():
    assert presets.problems(PRESET, KNOWN) == []


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"patern": "x"}, "unknown key patern (did you mean pattern?); known are also, alternatives"),
        ({"sample": None}, "sample must be a text"),
        ({"labels": "level"}, "labels must be a list of texts"),
        ({"time_layouts": []}, "time_layouts must be a list of texts"),
        ({"labels": ["level", "step"]}, "labels has step, but no group of a pattern has this name"),
        ({"pattern": r"^(?P<level>\w+)"}, "pattern has no group (?P<time>…)"),
        ({"levels": {'a"b': "INFO"}}, "levels must be a mapping of other names to levels, without"),
        ({"levels": ["INFO"]}, "levels must be a mapping"),
        ({"pattern": "(?P<time>x"}, "pattern (?P<time>x: it is no valid expression: "),
        ({"pattern": "^(?!x)(?P<time>y)"}, "RE2 has no (?!…"),
        ({"pattern": r"^(x)\1(?P<time>y)"}, r"RE2 has no back references such as \1"),
        ({"pattern": "^%{DATE}(?P<time>y)"}, "unknown part %{DATE}; parts are %{CLOCK}, %{DATETIME}"),
        ({"entry_start": "^["}, "entry_start ^[: it is no valid expression"),
        ({"more": ["(?P<rank>"]}, "more (?P<rank>: it is no valid expression"),
        ({"sample": "%(asctime)s %(message)s"}, "which pattern does not match"),
        ({"sample": "%(asktime)s"}, "sample %(asktime)s: it may contain %(asctime)s"),
        ({"time_layouts": ["%Y%m%d %H:%M:%S"]}, "time_layouts: %Y%m%d %H:%M:%S: it looks like strftime"),
        ({"time_layouts": ["YYYYMMDD hh:mm:ss"]}, "Go reads 'YYYYMMDD hh:mm:ss' in it as plain text"),
        ({"time_layouts": ["20261128 12:34:56"]}, "time_layouts: 20261128 12:34:56: Go reads"),
        (
            {
                "time_layouts": ["20060102 15:05:04"],
                "sample_time": "%Y%m%d %H:%M:%S",
                "pattern": r"^(?P<level>[IWEF])(?P<time>\d{8} \d{2}:\d{2}:\d{2}) ",
            },
            "20060102 15:05:04 reads 20261128 13:45:56 with second 45",
        ),
        ({"time_layouts": ["2006-01-02 15:04:05"]}, "no layout reads 20261128 13:45:56.789000, the time of the sample"),
        ({"parser": "json"}, "parser and fields belong together"),
        ({"time": "{month}"}, "time has {month}, but no group of a pattern has this name"),
        ({"alternatives": ["python"]}, "must be in one of the alternatives"),
    ],
)
def test_preset_with_a_fault_is_refused_by_key(changed, problem):
    found = presets.problems(PRESET | changed, KNOWN)
    assert found, "it must be refused"
    assert found[0].startswith("format: ")
    assert problem in found[0]


@pytest.mark.parametrize("key", ["pattern", "sample"])
def test_missing_key_of_a_preset_is_named(key):
    preset = {name: value for name, value in PRESET.items() if name != key}
    assert f"format: {key} is missing" in presets.problems(preset, KNOWN)


def test_time_without_a_layout_is_refused():
    preset = {name: value for name, value in PRESET.items() if name != "time_layouts"}
    (found,) = presets.problems(preset, KNOWN)
    assert found.startswith("format: time_layouts is missing")


@pytest.mark.parametrize(
    ("alternatives", "problem"),
    [
        ([], "alternatives must be a list"),
        (["pyton"], "alternative 1: unknown format pyton; did you mean python"),
        ([{"pattern": "x", "sample": "y"}], "alternative 1: unknown key sample; a shape has fields, level"),
        ([{"level": "ERROR"}], "alternative 1: pattern is missing"),
        ([{"starts": "[", "alternatives": ["python"]}], "alternative 1: starts [: it is no valid expression"),
        ([3], "alternative 1: it must be the name of a preset, or a mapping"),
    ],
)
def test_fault_in_an_alternative_is_named(alternatives, problem):
    found = presets.problems({"alternatives": alternatives, "sample": "%(message)s", "console": True}, KNOWN)
    assert problem in "\n".join(found)


def test_preset_that_contains_itself_is_refused():
    known = KNOWN | {"mine": {"alternatives": ["mine"], "sample": "%(message)s"}}
    assert "contains itself" in "\n".join(presets.problems(known["mine"], known, ("mine",)))


def test_preset_of_the_user_replaces_one_of_the_role(tmp_path):
    (tmp_path / "loguru.yml").write_text("pattern: x\n")
    (tmp_path / "mine.yml").write_text("pattern: y\n")
    known = presets.load(FOLDER, str(tmp_path), "")
    assert (known["loguru"], known["mine"]) == ({"pattern": "x"}, {"pattern": "y"})


@pytest.mark.parametrize(("content", "words"), [("a: [", "is not valid YAML"), ("- a", "must contain one mapping")])
def test_file_that_is_no_preset_is_named(tmp_path, content, words):
    (tmp_path / "mine.yml").write_text(content)
    with pytest.raises(presets.PresetError, match=f"mine.yml {words}"):
        presets.load(str(tmp_path))


@pytest.mark.parametrize("name", sorted(KNOWN))
def test_watcher_can_read_every_expression_of_the_role(name):
    full = presets.resolved(name, KNOWN[name], KNOWN)
    assert re2.to_python(full.entry_start)
    for shape in full.shapes():
        assert all(re2.to_python(text) for text in (shape.pattern, *shape.more))


def test_prefixes_of_launchers_are_the_same_everywhere():
    def plain(text: str) -> str:
        return re.sub(r"\\ufeff|\\x00|\\?[\ufeff\x00]", "?", text)

    assert plain(re2.to_python(f"{presets.LEAD}(?:{presets.PREFIX})+")) == plain(entries.PREFIX.pattern)


@pytest.mark.parametrize(
    ("layout", "value", "parts"),
    [
        ("2006-01-02 15:04:05", "2026-11-28 13:45:56,789", (2026, 11, 28, 13, 45, 56)),
        ("0102 15:04:05", "1128 13:45:56.123456", (None, 11, 28, 13, 45, 56)),
        ("1 02 15:04:05", "3 21 17:04:05.090021614", (None, 3, 21, 17, 4, 5)),
        ("Jan _2 15:04:05", "Nov  8 13:45:56", (None, 11, 8, 13, 45, 56)),
        ("2006-01-02T15:04:05Z07:00", "2026-11-28T13:45:56.5Z", (2026, 11, 28, 13, 45, 56)),
        ("02/01/2006 15:04:05", "11/28/2026 13:45:56", None),
    ],
)
def test_layout_is_read_as_go_does(layout, value, parts):
    assert golayout.problem(layout) == ""
    found = golayout.read(layout, value)
    names = ("year", "month", "day", "hour", "minute", "second")
    assert (found and tuple(found.get(name) for name in names)) == parts


@pytest.mark.parametrize(
    "layout",
    ["2006-01-02 15:04:05", "RFC3339Nano", "Unix", "0102 15:04:05.000000", "01-02 15:04", "02-Jan-2006 15:04:05"],
)
def test_good_layout_has_no_problem(layout):
    assert golayout.problem(layout) == ""


@pytest.mark.parametrize(
    "layout", ["2026-04-06 12:34:56", "dd.mm.yyyy", "15:04:05", "2006-01-02", "%H:%M", "2006-01-02 15:04:05 02"]
)
def test_layout_that_go_reads_otherwise_is_told(layout):
    assert golayout.problem(layout)


def fineness(examples: list[dict]) -> str:
    """How fine the times of examples are."""
    times = [str(example["time"]) for example in examples if example.get("time")]
    if not times:
        return "none"
    seconds = ["." not in time for time in times]
    return "whole seconds" if all(seconds) else "both" if any(seconds) else "finer"


def test_page_says_which_presets_have_whole_seconds():
    page = (ROOT / "docs/delivery.md").read_text().partition("## Equal lines")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (whole seconds|both|finer|none)[^|]*\| (.*?) \|", page, re.MULTILINE)
    said = {name: kind for kind, names in rows for name in re.findall(r"`(\w+)`", names)}
    known = {name: fineness(preset["examples"]) for name, preset in presets.load(FOLDER).items()}
    assert said == known
