# Copyright (c) SmolCluster contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Turn log sources into Promtail's scrape configs: the only place that knows Promtail's stages."""

from __future__ import annotations

import json
import re
from typing import Any

from ansible_collections.smolcluster.logging.plugins.plugin_utils import watcher
from ansible_collections.smolcluster.logging.plugins.plugin_utils.presets import (
    BAR,
    LEAD,
    LEVELS,
    PREFIX,
    PREFIX_RANK,
    RANK,
    Group,
    Preset,
    Shape,
    groups,
)

# https://grafana.com/docs/loki/v3.6.x/send-data/promtail/stages/
STAGES = frozenset(
    "cri decolorize docker drop eventlogmessage geoip json labelallow labeldrop labels limit logfmt match metrics "
    "multiline non_indexed_labels output pack regex replace sampling static_labels structured_metadata template tenant "
    "timestamp".split()
)
# Where Promtail has to join lines: how long an entry waits for further lines, and the largest number of its lines.
# Every file with lines costs a timer with this period.
MULTILINE_WAIT = "50ms"
MULTILINE_LINES = 1000
# Take apart a record of the watcher (roles/agent/files/records.py). Each stage costs every line a few microseconds.
RECORD: list[dict[str, Any]] = [
    {
        "regex": {
            "expression": r"^(?P<filename>(?:[^\t/]*/)*(?P<host>[^\t/]+?)(?:\.log)?)\t(?P<entry>(?s:.*))$",
        }
    },
    {"output": {"source": "entry"}},
    {
        "replace": {
            "expression": r"(\x1e[ne])",
            "replace": r'{{ if eq .Value "\x1en" }}{{ "\n" }}{{ else }}{{ "\x1e" }}{{ end }}',
        }
    },
    {"labels": {"filename": ""}},
]
# What the watcher does with lines that it joins.
SHOWN: list[dict[str, Any]] = [
    {"decolorize": None},
    # A progress bar is one line with many carriage returns; only what the terminal showed last is kept.
    {"replace": {"expression": r"^(.*\r)[^\r]", "replace": ""}},
]
# Number of shapes that are tried one after the other.
TOGETHER = 4
# Labels that exist only while an entry is in the stages: which preset has matched, that a launcher's prefix or a
# progress bar is cut off for the moment, and that the rank is not searched for in the message.
FORMAT, CUT, RANKED = "smolcluster_format", "smolcluster_cut", "smolcluster_ranked"
TIME = "smolcluster_time"
TRACEBACK = "Traceback (most recent call last)"
WORDS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


def quoted(text: str) -> str:
    """A text in quotes, for LogQL and for Go templates."""
    return json.dumps(text, ensure_ascii=False)


def match(stages: list[dict[str, Any]], expression: str = "", contains: str = "", **labels: str) -> dict[str, Any]:
    """Stage that runs stages only for some entries.

    Parameters:
        stages: the stages.
        expression: expression that the entry must match; empty for any entry.
        contains: text that the entry must contain; empty for any entry.
        labels: what labels must be, with the operator in front: `level='=~".+"'`.
    """
    selector = "{" + ",".join(f"{name}{wanted}" for name, wanted in labels.items()) + "}"
    if contains:
        selector += f" |= {quoted(contains)}"
    if expression:
        selector += f" |~ {quoted(expression)}"
    return {"match": {"selector": selector, "stages": stages}}


def level_template(names: dict[str, str]) -> str:
    """Go template that converts a level to upper case and replaces other names of levels.

    Parameters:
        names: level by its other name.
    """
    text = "{{ $level }}"
    for name, level in names.items():
        text = f'{{{{ if eq $level "{name.upper()}" }}}}{level}{{{{ else }}}}{text}{{{{ end }}}}'
    return "{{ $level := ToUpper .Value }}" + text


def level_stages(levels: dict[str, str]) -> list[dict[str, Any]]:
    """Stages that replace other names of levels in the label `level`.

    Parameters:
        levels: further names of the preset.
    """
    template = level_template(LEVELS | levels)
    stages = [{"template": {"source": "level", "template": template}}, {"labels": {"level": ""}}]
    own = [word for word in WORDS if word not in levels]
    # Two matchers of one label
    return [{"match": {"selector": f'{{level!="",level!~"{"|".join(own)}"}}', "stages": stages}}]


def parser_stages(shape: Shape) -> list[dict[str, Any]]:
    """Stages that parse an entry as JSON or logfmt.

    Parameters:
        shape: a shape with a parser.
    """
    if shape.parser == "json":
        return [
            # What JSON does not have is lost, but a label stays.
            {"labels": dict.fromkeys(shape.fields, "")},
            {"json": {"expressions": {group: json_expression(keys) for group, keys in shape.fields.items()}}},
        ]
    names = {f"{group}_{number}": key for group, keys in shape.fields.items() for number, key in enumerate(keys)}
    stages: list[dict[str, Any]] = [{"logfmt": {"mapping": names}}]
    for group, keys in shape.fields.items():
        found = " ".join(f".{group}_{number}" for number, _key in enumerate(keys))
        stages.append(
            {"template": {"source": group, "template": f"{{{{ with or {found} .{group} }}}}{{{{ . }}}}{{{{ end }}}}"}}
        )
    return stages


def json_expression(keys: list[str]) -> str:
    """JMESPath expression for the first of some keys that exists; a key with dots may also be a path."""
    found = []
    for key in keys:
        if "." in key:
            found.append(".".join(f'"{part}"' for part in key.split(".")))
        found.append(f'"{key}"')
    return " || ".join(found)


# A number as Promtail reads it: seconds, a point, and the digits of the fraction.
EPOCH = (
    '{{ with .time }}{{ if or (contains ":" .) (contains "-" .) (contains "." .) (le (len .) 10) }}{{ . }}'
    "{{ else }}{{ substr 0 10 . }}.{{ substr 10 -1 . }}{{ end }}{{ end }}"
)


def shape_stages(shape: Shape, zone: str, alone: bool) -> list[dict[str, Any]]:
    """Stages that read an entry of one shape: its time, and the groups that become labels.

    Parameters:
        shape: the shape.
        zone: IANA name of the time zone of times without one, or `Local`.
        alone: whether it is the only shape of the preset; then an entry whose time cannot be read gets the time of the
            entry before.
    """
    stages = parser_stages(shape) if shape.parser else []
    expressions = [shape.pattern, *shape.more]
    stages += [{"regex": {"expression": expression}} for expression in expressions if "(?P<" in expression]
    if shape.time:
        template = re.sub(r"\{(\w+)\}", r"{{ .\1 }}", shape.time)
        stages.append({"template": {"source": "time", "template": template}})
    if "Epoch" in shape.layouts:
        stages.append({"template": {"source": "time", "template": EPOCH}})
    if "time" in shape.groups():
        first, *others = ["Unix" if layout == "Epoch" else layout for layout in shape.layouts]
        timestamp: dict[str, Any] = {"source": "time", "format": first, "location": zone}
        if others:
            timestamp["fallback_formats"] = others
        if not alone:
            timestamp["action_on_failure"] = "skip"
        stages.append({"timestamp": timestamp})
    return stages


def member_stages(members: list[Shape | Group], zone: str, named: bool) -> list[dict[str, Any]]:
    """Stages that try shapes in their order, until one matches.

    Parameters:
        members: shapes and groups of shapes.
        zone: see `shape_stages`.
        named: whether shapes count that add nothing to an entry; they are tried only to tell their name.
    """
    if len(members) > TOGETHER:  # an entry that one of the first has matched skips the others in one step
        first, others = members[:TOGETHER], members[TOGETHER:]
        rest = match(member_stages(others, zone, named), **{FORMAT: '=""'})
        return [*member_stages(first, zone, named), *([rest] if rest["match"]["stages"] else [])]
    stages = []
    for member in members:
        free = {FORMAT: '=""'}
        if isinstance(member, Group):
            inner = member_stages(member.members, zone, named)
            stages += [match(inner, member.starts, **free)] if member.starts and inner else inner
        elif named or member.groups():
            labels = {FORMAT: member.preset} | ({"level": member.level} if member.level else {})
            if "rank" in groups(member.pattern) | set(member.fields):
                labels[RANKED] = "1"
            own = [*shape_stages(member, zone, alone=False), {"static_labels": labels}]
            stages.append(match(own, member.pattern, **free))
    return stages


def console_stages(preset: Preset, zone: str, named: bool) -> list[dict[str, Any]]:
    """Stages for the entries of a console: a prefix or progress bar is cut off while the shapes are tried.

    Parameters:
        preset: a preset with `console`.
        zone: see `shape_stages`.
        named: see `member_stages`.
    """
    free, cut = {FORMAT: '=""'}, {"static_labels": {CUT: "1"}}
    behind_bar = rf"(?s)^(?P<whole>{LEAD}{BAR}(?P<rest>.+))$"
    prefix = rf"(?s)^(?P<inner_whole>{LEAD}(?P<prefix>{PREFIX}{{0,2}}){LEAD}(?P<rest>.*))$"
    first = [member for member in preset.members[:2] if isinstance(member, Shape)]
    others = [
        match(
            [{"regex": {"expression": behind_bar}}, {"output": {"source": "rest"}}, cut], f"^{LEAD}{BAR}", "%|", **free
        ),
        match(
            [
                {"regex": {"expression": prefix}},
                {"regex": {"expression": PREFIX_RANK, "source": "prefix"}},
                {"output": {"source": "rest"}},
                cut,
            ],
            rf"^(?:[\s\x00\x{{FEFF}}]|{PREFIX})",
            **free,
        ),
        *member_stages(preset.members, zone, named),
        match(
            [
                {
                    "template": {
                        "source": "whole",
                        "template": "{{ if .whole }}{{ .whole }}{{ else }}{{ .inner_whole }}{{ end }}",
                    }
                },
                {"output": {"source": "whole"}},
            ],
            **{CUT: '!=""'},
        ),
    ]
    rank = [match([{"regex": {"expression": RANK}}], contains=word, **{RANKED: '=""'}) for word in ("ank", "RANK")]
    # Most lines have no prefix, so the first shapes are tried before one is looked for.
    return [*member_stages(first, zone, named), match(others, **free), match(rank, **{RANKED: '=""'})]


def simple(preset: Preset) -> bool:
    """Whether a preset has one shape that needs no `match`."""
    shapes = preset.shapes()
    return len(shapes) == 1 and not preset.console and not shapes[0].parser


def entry_stages(preset: Preset, zone: str, named: bool = False) -> list[dict[str, Any]]:
    """Stages for whole entries: they set the time and the labels of the preset, and leave the text as it is.

    Labels that come from elsewhere, such as the path, must be set before.

    Parameters:
        preset: the preset.
        zone: IANA name of the time zone of times without one, or `Local`.
        named: whether the labels `FORMAT` and `TIME` stay: the preset that has matched, and the time as in the text.
    """
    labels = {"labels": dict.fromkeys(["host", *preset.labels], "") | ({TIME: "time"} if named else {})}
    if simple(preset) and not named:
        return [*shape_stages(preset.shapes()[0], zone, alone=True), labels, *level_stages(preset.levels)]
    reading = (console_stages if preset.console else _plain_stages)(preset, zone, named)
    raised = match([{"static_labels": {"level": "ERROR"}}], contains=TRACEBACK, level='!~"WARNING|ERROR|CRITICAL"')
    dropped = [CUT, RANKED] if named else [CUT, RANKED, FORMAT]
    return [
        *reading,
        labels,
        *level_stages(preset.levels),
        *([raised] if preset.console else []),
        {"labeldrop": dropped},
    ]


def _plain_stages(preset: Preset, zone: str, named: bool) -> list[dict[str, Any]]:
    return member_stages(preset.members, zone, named)


def path_stages(preset: Preset) -> list[dict[str, Any]]:
    """Stages that set labels of a preset from the path of the log, which must be in the label `filename`."""
    found = sorted(groups(preset.path_pattern) & set(preset.labels))
    if not found:
        return []
    return [
        {"regex": {"expression": preset.path_pattern, "source": "filename"}},
        {"labels": dict.fromkeys(found, "")},
    ]


def preset_stages(preset: Preset, zone: str) -> list[dict[str, Any]]:
    """Pipeline stages of a format preset, for records that were taken apart.

    Parameters:
        preset: the preset.
        zone: IANA name of the time zone of lines without one, or `Local` for the node's own.
    """
    stages: list[dict[str, Any]] = []
    if watcher.entry_start(preset) is None:
        join = {"firstline": preset.entry_start, "max_wait_time": MULTILINE_WAIT, "max_lines": MULTILINE_LINES}
        stages += [*SHOWN, {"multiline": join}]
    if simple(preset):
        stages += path_stages(preset)[:1]
    else:  # stages in a `match` see the labels only
        stages += [{"labels": {"host": ""}}, *path_stages(preset)]
    return [*stages, *entry_stages(preset, zone)]


def scrape_configs(
    sources: list[dict[str, Any]], presets: list[Preset | None], node: str, zone: str, copies: str, rank: str = ""
) -> list[dict[str, Any]]:
    """Turn log sources into Promtail's scrape configs, one per source.

    Parameters:
        sources: log sources.
        presets: preset of each source; None where the format is a list of Promtail's stages.
        node: value of the label `node`.
        zone: IANA name of the time zone of lines without one, or `Local`.
        copies: folder of the watcher's copies, which the agent reads instead of the paths themselves.
        rank: rank of entries where neither the line, its path nor the labels of the source have one; empty for none.
    """
    configs = []
    for source, preset in zip(sources, presets, strict=True):
        own = {"node": node, "__path__": watcher.copy_path(source, copies)}
        # Labels that stages find in the path or in the line replace these. Files of several nodes are not of this rank.
        known = {"rank": rank} if rank and not isinstance(source.get("shared"), dict) else {}
        labels = known | source.get("labels", {}) | own
        stages = preset_stages(preset, source.get("timezone", zone)) if preset else source["format"]
        configs.append(
            {
                "job_name": source["name"],
                "pipeline_stages": [*RECORD, *stages],
                "static_configs": [{"targets": ["localhost"], "labels": labels}],
            }
        )
    return configs


def stage_problems(stages: list[Any]) -> list[str]:
    """Problems of a list of Promtail's stages that a user has written."""
    return [
        f"unknown stage {stage}; Promtail has {', '.join(sorted(STAGES))}"
        for stage in stages
        if not isinstance(stage, dict) or len(stage) != 1 or next(iter(stage)) not in STAGES
    ]
