# Copyright (c) SmolCluster contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Format presets: how they are loaded, put together from one another, and checked.

A preset says what a line is, not how an agent parses it. docs/sources.md describes every key; a unit test compares
them. docs/formats.md has a table of the presets.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml
from ansible_collections.smolcluster.logging.plugins.module_utils import golayout
from ansible_collections.smolcluster.logging.plugins.plugin_utils import re2

# Keys of one shape of a line, and those of a preset, which can be one shape or have several as `alternatives`.
SHAPE_KEYS = frozenset({"pattern", "more", "parser", "fields", "time", "time_layouts", "level"})
GROUP_KEYS = frozenset({"starts", "alternatives"})
OWN_KEYS = frozenset(
    "alternatives also console entry_start examples labels levels path_pattern sample sample_time".split()
)
PRESET_KEYS = SHAPE_KEYS | OWN_KEYS
PARSERS = ("json", "logfmt")
# The same as yaml.safe_load, and many times as fast where PyYAML has its part in C.
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

# Parts that a pattern can contain as %{NAME}.
CLOCK = r"\d{2}:\d{2}:\d{2}(?:[.,]\d{1,9})?"
PARTS = {
    "CLOCK": CLOCK,
    "DATETIME": rf"\d{{4}}[-/]\d{{2}}[-/]\d{{2}}[ T]{CLOCK}(?: ?(?:Z|UTC|GMT|[+-]\d{{2}}:?\d{{2}})\b)?",
    "OTHER_DATE": "(?:"
    + "|".join(
        (
            rf"\d{{1,2}}/\d{{1,2}}(?:/\d{{4}}|/\d{{2}})? {CLOCK}",
            rf"\d{{2}}\.\d{{2}}\.\d{{4}} {CLOCK}",
            r"\d{2}-\d{2} \d{2}:\d{2}(?::\d{2}(?:[.,]\d{1,9})?)?",
            rf"\d{{2}}-[A-Z][a-z]{{2}}-\d{{4}} {CLOCK}",
            rf"(?:[A-Z][a-z]{{2}} )?[A-Z][a-z]{{2}} [ \d]\d {CLOCK}(?: \d{{4}})?",
        )
    )
    + ")",
    "GAP": r"(?:\s*[-|:,\[\]]+\s*|\s+)",
    "LEVEL": "(?:DEBUG|INFO|WARNING|WARN|ERROR|CRITICAL|FATAL|TRACE|SUCCESS|NOTICE|NOTSET)",
}
# Layouts of these parts, in Go's notation; a comma or point with digits may follow the seconds of each.
LAYOUTS = {
    "DATETIME": (
        "2006-01-02 15:04:05",
        "2006-01-02T15:04:05",
        "2006-01-02T15:04:05Z07:00",
        "2006-01-02 15:04:05Z07:00",
        "2006-01-02T15:04:05-0700",
        "2006-01-02 15:04:05-0700",
        "2006-01-02 15:04:05 -0700",
        "2006-01-02 15:04:05 Z07:00",
        "2006-01-02 15:04:05 MST",
        "2006-01-02T15:04:05 MST",
        "2006/01/02 15:04:05",
    ),
    "OTHER_DATE": (
        "1/2/2006 15:04:05",
        "1/2 15:04:05",
        "1/2/06 15:04:05",
        "02.01.2006 15:04:05",
        "01-02 15:04:05",
        "01-02 15:04",
        "02-Jan-2006 15:04:05",
        "Jan _2 15:04:05",
        "Mon Jan _2 15:04:05 2006",
    ),
}
# Levels by their other names: other spellings, letters of glog and PyTorch, further levels of loguru and NCCL.
LEVELS = {
    "WARN": "WARNING", "FATAL": "CRITICAL", "ERR": "ERROR", "CRIT": "CRITICAL", "TRACE": "DEBUG", "VERBOSE": "DEBUG",
    "NOTSET": "DEBUG", "SUCCESS": "INFO", "NOTICE": "INFO", "EXCEPTION": "ERROR", "ABORT": "CRITICAL",
    "EMERGENCY": "CRITICAL", "ALERT": "CRITICAL", "PANIC": "CRITICAL", "V": "DEBUG", "D": "DEBUG", "I": "INFO",
    "W": "WARNING", "E": "ERROR", "C": "CRITICAL", "F": "CRITICAL",
}  # fmt: skip

# What a launcher or a progress bar writes in front of a line.
LEAD = r"[\s\x00\x{FEFF}]*"
# `[default0]:`, `[default0|rank4]: `, `[rank4]: `, mpirun's `[1,4]<stdout>:`, Ray's `(Worker pid=1, ip=10.0.0.2) `
PREFIX = (
    r"(?:\[[A-Za-z_-]+\d+(?:\|rank\d+)?\]: ?|\[\d+(?:,\d+)?\]<std(?:out|err)>: ?"
    r"|\((?:[^()\n]*(?:\([^()\n]*\))? ?pid=\d+(?:, ip=[^)\s]+)?|(?:raylet|autoscaler|gcs_server)[^)\n]*)\) ?)"
)
PREFIX_RANK = r"(?:\brank|\[\d+,|^\[)(?P<rank>\d+)\]"
BAR = r"[^\r\n|\[{]*\d{1,3}%\|[^|\r\n]*\|(?: *[\d.]+[kMGT]?/[\d.?]+[kMGT]? \[[^\]\r\n]*\])?"
# The rank in a message, by the ways in which libraries write it.
RANK = r"(?:\[(?:[Rr]ank|RANK)[ :=]{0,2}|\b(?:rank|RANK)[:=] ?|\bGLOBAL_RANK: )(?P<rank>\d+)\b"
# Where a preset has no `path_pattern`: the name of the file, else a folder, or torchrun's folder of the local rank.
PATH_PATTERN = r"^.*(?:[^A-Za-z][Rr]ank[-_=]?|/attempt_\d+/)(?P<rank>\d+)(?:[^\d].*)?$"


class PresetError(Exception):
    """A preset cannot be used; the text says why."""


@dataclass
class Shape:
    """One shape of a line, with everything filled in.

    Parameters:
        preset: name of the preset that it comes from.
        pattern: expression (RE2) for the entry; it decides whether the entry has this shape.
        more: further expressions for groups that only some entries have.
        parser: `json`, `logfmt` or empty.
        fields: keys of the parsed entry by group, the first that exists counts.
        time: how the time is put together from groups; empty if it is the group `time`.
        layouts: layouts of the time in Go's notation.
        level: level of all entries of this shape; empty if the entry has it.
        levels: levels by their other names.
    """

    preset: str
    pattern: str
    more: list[str] = field(default_factory=list)
    parser: str = ""
    fields: dict[str, list[str]] = field(default_factory=dict)
    time: str = ""
    layouts: list[str] = field(default_factory=list)
    level: str = ""
    levels: dict[str, str] = field(default_factory=dict)

    def groups(self) -> set[str]:
        """Names of the groups that entries of this shape can have."""
        found = set(self.fields)
        for expression in (self.pattern, *self.more):
            found |= groups(expression)
        return found | ({"time"} if self.time else set()) | ({"level"} if self.level else set())


@dataclass
class Group:
    """Shapes that are tried only for entries that begin in some way.

    Parameters:
        starts: expression (RE2) for the entry; empty for every entry.
        members: shapes and groups in their order.
    """

    starts: str
    members: list[Shape | Group]


@dataclass
class Preset:
    """A preset with everything filled in.

    Parameters:
        name: its name; `this source` for one that is written in a source.
        members: shapes and groups in their order.
        entry_start: expression (RE2) for the first line of an entry.
        console: whether other lines are among the entries; see docs/sources.md.
        path_pattern: expression for the path of the file.
        labels: groups that become labels.
        levels: levels by their other names.
        sample: format of a line for Python's logging.Formatter.
        sample_time: format of its time for strftime; empty for Python's default.
    """

    name: str
    members: list[Shape | Group]
    entry_start: str
    console: bool
    path_pattern: str
    labels: list[str]
    levels: dict[str, str]
    sample: str
    sample_time: str

    def shapes(self) -> list[Shape]:
        """All shapes in the order in which they are tried."""
        return shapes_of(self.members)


def shapes_of(members: list[Shape | Group]) -> list[Shape]:
    """All shapes of a list of shapes and groups."""
    found: list[Shape] = []
    for member in members:
        found += [member] if isinstance(member, Shape) else shapes_of(member.members)
    return found


def load(*folders: str) -> dict[str, dict[str, Any]]:
    """Format presets in folders, by file name without `.yml`; a later folder wins.

    Parameters:
        folders: paths; an empty one is skipped.

    Raises:
        PresetError: a file is no mapping.
    """
    found: dict[str, dict[str, Any]] = {}
    for folder in filter(None, folders):
        if not Path(folder).is_dir():
            raise PresetError(f"the folder of presets {folder} does not exist")
        for path in sorted(Path(folder).glob("*.yml")):
            try:
                content = yaml.load(path.read_text("utf-8"), Loader=LOADER)  # noqa: S506 - it is a safe loader
            except (yaml.YAMLError, UnicodeDecodeError) as error:
                raise PresetError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
            if not isinstance(content, dict):
                raise PresetError(f"{path} must contain one mapping, a preset")
            found[path.stem] = content
    return found


def groups(pattern: Any) -> set[str]:
    """Names of the groups of a regular expression (RE2)."""
    return set(re.findall(r"\(\?P?<(\w+)>", str(pattern or "")))


def unnamed(pattern: str) -> str:
    """An expression without the names of its groups."""
    return re.sub(r"\(\?P?<\w+>", "(?:", pattern)


def expanded(pattern: str) -> str:
    """An expression with its parts %{NAME} filled in."""
    return re.sub(r"%\{(\w+)\}", lambda part: PARTS[part[1]], pattern)


def layouts_of(shape: dict[str, Any]) -> list[str]:
    """Layouts of the time of a shape: its own, and those of the parts in its patterns."""
    texts = [str(shape.get("pattern", "")), *shape.get("more", [])]
    known = [
        layout
        for name, layouts in LAYOUTS.items()
        if any(f"(?P<time>%{{{name}}}" in text for text in texts) or (name == "DATETIME" and shape.get("parser"))
        for layout in layouts
    ]
    return [*known, *shape.get("time_layouts", [])]


def shape_of(name: str, shape: dict[str, Any], levels: dict[str, str]) -> Shape:
    """One shape with everything filled in."""
    return Shape(
        name,
        expanded(shape["pattern"]),
        [expanded(text) for text in shape.get("more", [])],
        shape.get("parser", ""),
        {key: list(value) for key, value in shape.get("fields", {}).items()},
        shape.get("time", ""),
        layouts_of(shape),
        shape.get("level", ""),
        levels,
    )


def members_of(name: str, preset: dict[str, Any], presets: dict[str, dict[str, Any]]) -> list[Shape | Group]:
    """Shapes and groups of a preset.

    Parameters:
        name: name of the preset.
        preset: the preset, or a group in one.
        presets: all presets by name.
    """
    levels = preset.get("levels", {})
    if "alternatives" not in preset:
        return [shape_of(name, preset, levels)]
    found: list[Shape | Group] = []
    for entry in preset["alternatives"]:
        if isinstance(entry, str):
            found += members_of(entry, presets[entry], presets)
        elif "alternatives" in entry:
            found.append(Group(expanded(entry.get("starts", "")), members_of(name, entry, presets)))
        else:
            found.append(shape_of(name, entry, levels))
    return distinct(found)


def distinct(members: list[Shape | Group]) -> list[Shape | Group]:
    """The members without shapes that are there before."""
    kept: list[Shape | Group] = []
    for member in members:
        if isinstance(member, Group) or not any(
            isinstance(other, Shape) and other.pattern == member.pattern for other in kept
        ):
            kept.append(member)
    return kept


def starts_of(members: list[Shape | Group]) -> list[str]:
    """Expressions for the first line of entries of these shapes, without `^`; those for any place are left out."""
    heads = dict.fromkeys(unnamed(shape.pattern) for shape in shapes_of(members))
    return [head[1:] for head in heads if head.startswith("^")]


def start_of(members: list[Shape | Group], console: bool) -> str:
    """Expression for the first line of entries of these shapes.

    Parameters:
        members: the shapes.
        console: whether a prefix or a progress bar can be in front.
    """
    heads = "|".join(starts_of(members))
    return f"^{LEAD}(?:{BAR}|{PREFIX}){{0,3}}(?:{heads})" if console else f"^(?:{heads})"


def timed_start(preset: Preset) -> str:
    """Expression for the first line of entries that certainly have a time; of JSON and logfmt that is not known."""
    shapes = [one for one in preset.shapes() if not one.parser and ("time" in groups(one.pattern) or one.time)]
    return start_of(shapes, preset.console) if starts_of(shapes) else ""


def resolved(name: str, preset: dict[str, Any], presets: dict[str, dict[str, Any]]) -> Preset:
    """A preset with everything filled in.

    Parameters:
        name: its name.
        preset: its keys, without a problem (`problems`).
        presets: all presets by name.
    """
    members = members_of(name, preset, presets)
    for other in preset.get("also", []):
        members = distinct([*members, *members_of(other, presets[other], presets)])
    console = bool(preset.get("console"))
    start = expanded(preset.get("entry_start", "")) or start_of(members, console)
    levels: dict[str, str] = {}
    for shape in shapes_of(members):
        levels |= shape.levels
    return Preset(
        name,
        members,
        start,
        console,
        expanded(preset.get("path_pattern", PATH_PATTERN)),
        list(preset.get("labels", ["level", "rank"])),
        levels | preset.get("levels", {}),
        preset["sample"],
        preset.get("sample_time", ""),
    )


def times_of(preset: Preset) -> dict[str, Any] | None:
    """What module_utils/shifted_times.py needs to find the times in lines.

    Parameters:
        preset: the preset.

    Returns:
        `console`, and `shapes` in their order, each with expressions of Python (`starts`, `pattern`, `more`), `parser`,
        `keys` of the time, `time` and `layouts`. None where the meaning of an expression in Python is not certain.
    """
    found = []
    for starts, shape in _started(preset.members, []):
        texts = [re2.to_python(text) for text in (*starts, shape.pattern, *shape.more)]
        if None in texts:
            return None
        found.append(
            {
                "starts": texts[: len(starts)],
                "pattern": texts[len(starts)],
                "more": texts[len(starts) + 1 :],
                "parser": shape.parser,
                "keys": shape.fields.get("time", []),
                "time": shape.time,
                "layouts": shape.layouts,
            }
        )
    return {"console": preset.console, "shapes": found}


def _started(members: list[Shape | Group], starts: list[str]) -> Iterator[tuple[list[str], Shape]]:
    """All shapes, each with the expressions for the beginning of entries of the groups that it is in."""
    for member in members:
        if isinstance(member, Shape):
            yield starts, member
        else:
            yield from _started(member.members, [*starts, *([member.starts] if member.starts else [])])


# Checks


def unknown_name(name: Any, presets: dict[str, dict[str, Any]]) -> str:
    """Text for a name that no preset has, with the nearest names."""
    near = difflib.get_close_matches(str(name), presets, 3, 0.5)
    if near:
        return f"unknown format {name}; did you mean {' or '.join(near)}? All presets: {', '.join(sorted(presets))}"
    return f"unknown format {name}; presets are {', '.join(sorted(presets))}"


def expression_problem(text: str) -> str:
    """Why an expression is not valid in RE2, as far as that is known here; empty if it may be valid.

    RE2's own parser, in the agent, checks the rest.
    """
    if unknown := sorted(set(re.findall(r"%\{(\w+)\}", text)) - set(PARTS)):
        return f"unknown part %{{{unknown[0]}}}; parts are {', '.join(f'%{{{name}}}' for name in PARTS)}"
    text = expanded(text)
    if re2.to_python(text) is not None:
        return ""
    bare = re.sub(r"\\.|\[\^?\]?(?:\\.|\[:\w+:\]|[^\]\\])*\]", "x", text)
    if found := re.search(r"\(\?(?:=|!|<=|<!|P=|>|\()", bare):
        return f"RE2 has no {found[0]}…: look-around, back references and conditions do not exist there"
    if re.search(r"(?<!\\)(?:\\\\)*\\[1-9]", text):
        return "RE2 has no back references such as \\1"
    try:
        re.compile(re.sub(r"\\(?:p\{\^?\w+\}|[pPCQEz]\w?)", "x", text).replace("(?P<", "(?P<").replace("(?U", "(?i"))
    except (re.error, RecursionError, OverflowError) as error:
        # Names of groups without P are valid in RE2 only.
        try:
            re.compile(re.sub(r"\(\?<(?=\w)", "(?P<", re.sub(r"\\(?:p\{\^?\w+\}|[pPCQEz]\w?)", "x", text)))
        except (re.error, RecursionError, OverflowError):
            return f"it is no valid expression: {error}"
    return ""


def shape_problems(shape: dict[str, Any], where: str) -> list[str]:
    """Problems of the keys of one shape.

    Parameters:
        shape: the shape, or a preset that is one.
        where: text before each problem.
    """
    problems = []
    for key in ("pattern", "time", "level"):
        if key in shape and not (isinstance(shape[key], str) and shape[key]):
            problems.append(f"{where}{key} must be a text")
    for key in ("time_layouts", "more"):
        value = shape.get(key, [""])
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value) or not value:
            problems.append(f"{where}{key} must be a list of texts")
    if "parser" in shape and shape["parser"] not in PARSERS:
        problems.append(f"{where}parser must be one of {', '.join(PARSERS)}")
    if ("parser" in shape) != ("fields" in shape):
        problems.append(f"{where}parser and fields belong together; one of them is missing")
    fields = shape.get("fields", {})
    if not isinstance(fields, dict) or not all(
        isinstance(value, list) and value and all(isinstance(item, str) and '"' not in item for item in value)
        for value in fields.values()
    ):
        problems.append(f"{where}fields must be a mapping of groups to lists of keys, without quotes")
    if problems:
        return problems
    for key, text in [("pattern", shape.get("pattern", "")), *(("more", text) for text in shape.get("more", []))]:
        if problem := expression_problem(text):
            problems.append(f"{where}{key} {text}: {problem}")
    for layout in shape.get("time_layouts", []):
        if problem := golayout.problem(layout):
            problems.append(f"{where}time_layouts: {layout}: {problem}")
    named = groups(shape.get("pattern")).union(*(groups(text) for text in shape.get("more", [])))
    parts = re.findall(r"\{(\w+)\}", shape.get("time", ""))
    if absent := sorted(set(parts) - named):
        problems.append(f"{where}time has {{{absent[0]}}}, but no group of a pattern has this name")
    if ("time" in named | set(fields) or parts) and not problems and not layouts_of(shape):
        problems.append(f"{where}time_layouts is missing: without one, the time in the group time cannot be read")
    return problems


def problems(
    preset: dict[str, Any],
    presets: dict[str, dict[str, Any]],
    inside: tuple[str, ...] = (),
    where: str = "format: ",
    checked: set[str] | None = None,
) -> list[str]:
    """Problems of a preset.

    Parameters:
        preset: its keys.
        presets: all presets by name.
        inside: names of the presets that contain it.
        where: text before each problem.
        checked: names of presets that were checked before; it grows.
    """
    checked = set() if checked is None else checked
    found = []
    if unknown := sorted(set(preset) - PRESET_KEYS):
        near = difflib.get_close_matches(unknown[0], PRESET_KEYS, 1)
        meant = f" (did you mean {near[0]}?)" if near else ""
        found.append(f"{where}unknown key {', '.join(unknown)}{meant}; known are {', '.join(sorted(PRESET_KEYS))}")
    if "alternatives" in preset and (shape := sorted(SHAPE_KEYS & set(preset))):
        found.append(f"{where}{shape[0]} must be in one of the alternatives")
    elif "alternatives" not in preset and "pattern" not in preset:
        found.append(f"{where}pattern is missing")
    if "sample" not in preset:
        found.append(f"{where}sample is missing")
    for key in ("entry_start", "sample", "sample_time", "path_pattern"):
        if key in preset and not (isinstance(preset[key], str) and preset[key]):
            found.append(f"{where}{key} must be a text")
        elif key in ("entry_start", "path_pattern") and key in preset and (bad := expression_problem(preset[key])):
            found.append(f"{where}{key} {preset[key]}: {bad}")
    if not isinstance(preset.get("console", False), bool):
        found.append(f"{where}console must be true or false")
    labels = preset.get("labels", ["level"])
    if not isinstance(labels, list) or not all(isinstance(item, str) for item in labels) or not labels:
        found.append(f"{where}labels must be a list of texts")
    levels = preset.get("levels", {})
    if not isinstance(levels, dict) or not all(
        re.fullmatch(r"[^\"{}\\]+", f"{key}{value}") for key, value in levels.items()
    ):
        found.append(f"{where}levels must be a mapping of other names to levels, without quotes and braces")
    if not isinstance(preset.get("examples", []), list):
        found.append(f"{where}examples must be a list")
    if "also" in preset:
        if isinstance(preset["also"], list) and all(isinstance(name, str) for name in preset["also"]):
            found += alternative_problems(preset["also"], presets, inside, f"{where}also: ", checked)
        else:
            found.append(f"{where}also must be a list of names of presets")
    if "alternatives" in preset:
        found += alternative_problems(preset["alternatives"], presets, inside, where, checked)
    else:
        found += shape_problems(preset, where)
    return found or meaning_problems(preset, presets, where)


def alternative_problems(
    entries: Any, presets: dict[str, dict[str, Any]], inside: tuple[str, ...], where: str, checked: set[str]
) -> list[str]:
    """Problems of a list of alternatives; see `problems`."""
    if not isinstance(entries, list) or not entries:
        return [f"{where}alternatives must be a list of names of presets and of shapes"]
    found = []
    for number, entry in enumerate(entries, 1):
        here = f"{where}alternative {number}: "
        if isinstance(entry, str):
            if entry not in presets:
                found.append(here + unknown_name(entry, presets))
            elif entry in inside:
                found.append(f"{here}{entry} contains itself")
            elif entry not in checked:
                checked.add(entry)
                found += problems(presets[entry], presets, (*inside, entry), f"{here}{entry}: ", checked)
        elif not isinstance(entry, dict):
            found.append(f"{here}it must be the name of a preset, or a mapping")
        elif "alternatives" in entry:
            if unknown := sorted(set(entry) - GROUP_KEYS):
                found.append(f"{here}unknown key {', '.join(unknown)}; a group has {', '.join(sorted(GROUP_KEYS))}")
            if bad := expression_problem(str(entry.get("starts", ""))):
                found.append(f"{here}starts {entry['starts']}: {bad}")
            found += alternative_problems(entry["alternatives"], presets, inside, here, checked)
        else:
            if unknown := sorted(set(entry) - SHAPE_KEYS):
                found.append(f"{here}unknown key {', '.join(unknown)}; a shape has {', '.join(sorted(SHAPE_KEYS))}")
            if "pattern" not in entry:
                found.append(f"{here}pattern is missing")
            found += shape_problems(entry, here)
    return found


def meaning_problems(preset: dict[str, Any], presets: dict[str, dict[str, Any]], where: str) -> list[str]:
    """Problems of a preset whose keys are right: groups that are missing, and a sample that does not match."""
    full = resolved("this source", preset, presets)
    named = groups(full.path_pattern).union(*(shape.groups() for shape in full.shapes()))
    found = []
    if absent := sorted(
        set(full.labels) - named - {"level", "rank"} if "labels" not in preset else set(full.labels) - named
    ):
        found.append(f"{where}labels has {', '.join(absent)}, but no group of a pattern has this name")
    if not preset.get("alternatives") and "time" not in named and not full.console:
        found.append(f"{where}pattern has no group (?P<time>…)")
    return found or sample_problems(full, where)


# A moment whose parts all differ, so that a wrong order of them shows.
MOMENT = datetime(2026, 11, 28, 13, 45, 56, 789000)


def sample_line(preset: Preset) -> tuple[str, str]:
    """A line by the sample of a preset, and its time.

    Raises:
        ValueError: the sample is no format of Python's logging.
    """
    moment = MOMENT.strftime(preset.sample_time) if preset.sample_time else f"{MOMENT:%Y-%m-%d %H:%M:%S},789"
    words = {"asctime": moment, "levelname": "INFO", "levelno": 20, "name": "verify", "message": "hello"}
    try:
        return preset.sample % words, moment
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"it may contain %(asctime)s, %(levelname)s, %(name)s and %(message)s only ({error})"
        ) from error


def sample_problems(preset: Preset, where: str) -> list[str]:
    """Problems of the sample of a preset: it does not match, or its time cannot be read."""
    try:
        line, moment = sample_line(preset)
    except ValueError as error:
        return [f"{where}sample {preset.sample}: {error}"]
    if preset.sample == "%(message)s":  # verify.yml writes lines of no format
        return []
    if preset.console:
        line = line.lstrip()
    unknown = False
    for shape in preset.shapes():
        text = re2.to_python(shape.pattern)
        if text is None:
            unknown = True
        elif match := re.search(text, line, re.ASCII):
            if match.groupdict().get("time") == moment and shape.layouts:
                return layout_problems(shape.layouts, moment, where)
            return []
    if unknown or preset.console:
        return []
    return [f"{where}sample {preset.sample} gives the line '{line}', which pattern does not match"]


def layout_problems(layouts: list[str], moment: str, where: str) -> list[str]:
    """Problem of layouts none of which reads a time as it is meant.

    Parameters:
        layouts: layouts in Go's notation.
        moment: `MOMENT` as the sample writes it.
        where: text before the problem.
    """
    read = [golayout.read(layout, moment) for layout in layouts]
    for parts in read:
        if parts is not None:
            wrong = {key: value for key, value in parts.items() if value != getattr(MOMENT, key)}
            if not wrong:
                return []
            key, value = next(iter(wrong.items()))
            return [f"{where}time_layouts: {layouts[read.index(parts)]} reads {moment} with {key} {value}"]
    return [f"{where}time_layouts: no layout reads {moment}, the time of the sample"]
