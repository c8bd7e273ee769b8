# Copyright (c) SmolCluster contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Turn log sources into Promtail's scrape configs: the only place that knows Promtail's stages."""

from __future__ import annotations

from typing import Any

from ansible_collections.smolcluster.logging.plugins.plugin_utils import watcher

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
# Levels as the label has them. Only for other words a template is run, because that costs as much as parsing the line.
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
# What the watcher does with lines that it joins.
SHOWN: list[dict[str, Any]] = [
    {"decolorize": None},
    # A progress bar is one line with many carriage returns; only what the terminal showed last is kept.
    {"replace": {"expression": r"^(.*\r)[^\r]", "replace": ""}},
]


def level_template(names: dict[str, str]) -> str:
    """Go template that converts a level to upper case and replaces other names of levels.

    Parameters:
        names: level by its other name.
    """
    text = "{{ $level }}"
    for name, level in names.items():
        text = f'{{{{ if eq $level "{name}" }}}}{level}{{{{ else }}}}{text}{{{{ end }}}}'
    return "{{ $level := ToUpper .Value }}" + text


def preset_stages(preset: dict[str, Any], zone: str) -> list[dict[str, Any]]:
    """Pipeline stages of a format preset, for lines that have the label `filename`.

    Parameters:
        preset: see docs/sources.md.
        zone: IANA name of the time zone of lines without one, or `Local` for the node's own.
    """
    first, *others = preset["time_layouts"]
    timestamp = {"source": "time", "format": first, "location": zone}
    if others:
        timestamp["fallback_formats"] = others
    levels = preset.get("levels", {})
    right = [level for level in LEVELS if level not in levels]
    stages: list[dict[str, Any]] = []
    if watcher.entry_start(preset) is None:
        join = {
            "firstline": preset["entry_start"],
            "max_wait_time": MULTILINE_WAIT,
            "max_lines": MULTILINE_LINES,
        }
        stages += [*SHOWN, {"multiline": join}]
    if "path_pattern" in preset:
        stages.append({"regex": {"expression": preset["path_pattern"], "source": "filename"}})
    return [
        *stages,
        {"regex": {"expression": preset["pattern"]}},
        # A line without a time gets that of the line before it with the same labels, so others are set later.
        {"timestamp": timestamp},
        {"labels": dict.fromkeys(["host", *preset["labels"]], "")},
        {
            "match": {
                "selector": f'{{level!~"{"|".join((*right, ""))}"}}',
                "stages": [
                    {"template": {"source": "level", "template": level_template(levels)}},
                    {"labels": {"level": ""}},
                ],
            }
        },
    ]


def scrape_configs(
    sources: list[dict[str, Any]], presets: list[dict[str, Any] | None], node: str, zone: str, copies: str
) -> list[dict[str, Any]]:
    """Turn log sources into Promtail's scrape configs, one per source.

    Parameters:
        sources: log sources.
        presets: preset of each source; None where the format is a list of Promtail's stages.
        node: value of the label `node`.
        zone: IANA name of the time zone of lines without one, or `Local`.
        copies: folder of the watcher's copies, which the agent reads instead of the paths themselves.
    """
    configs = []
    for source, preset in zip(sources, presets, strict=True):
        labels = {**source.get("labels", {}), "node": node, "__path__": watcher.copy_path(source, copies)}
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
