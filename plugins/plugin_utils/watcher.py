# Copyright (c) SmolCluster contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Settings of the program that watches the log files (roles/agent/files/watcher.py), and the paths of its copies.

The agent does not read the paths of a source. It reads a copy in a folder of the watcher: `FOLDER/SOURCE`.
"""

from __future__ import annotations

import re
import urllib.parse
from typing import Any

from ansible_collections.smolcluster.logging.plugins.module_utils.agents.registry import AGENTS
from ansible_collections.smolcluster.logging.plugins.plugin_utils import re2
from ansible_collections.smolcluster.logging.plugins.plugin_utils.presets import Preset, timed_start

# Keys of a source that the watcher needs unchanged.
KEYS = ("name", "exclude", "follow")
# Value of `shared` with which each node ships the files that carry its name.
BY_NAME = "by_name"


def copy_path(source: dict[str, Any], folder: str) -> str:
    """Path of the copy of a source's files; it has no wildcards.

    Parameters:
        source: a log source.
        folder: the watcher's folder of copies.
    """
    return f"{folder}/{urllib.parse.quote(source['name'], safe='')}"


def entry_start(preset: Preset) -> str | None:
    """Expression with which the watcher joins the lines of an entry; None where the agent has to join them.

    Parameters:
        preset: a format preset.
    """
    return re2.to_python(preset.entry_start)


def first_lines(stages: list[dict[str, Any]]) -> list[str]:
    """Expressions for the first line of an entry, from the multiline stages of a pipeline, nested stages included."""
    found = []
    for stage in stages:
        for name, options in stage.items():
            if name == "multiline" and isinstance(options, dict) and options.get("firstline"):
                found.append(str(options["firstline"]))
            elif isinstance(options, dict):
                found += first_lines(options.get("stages") or [])
    return found


def settings(
    sources: list[dict[str, Any]],
    presets: list[Preset | None],
    layout: dict[str, Any],
    port: int,
    timeout: int,
    node: str,
    loki_url: str,
) -> dict[str, Any]:
    """Settings of the watcher.

    Parameters:
        sources: log sources.
        presets: preset of each source; None where the format is a list of an agent's own stages.
        layout: see module_utils/layout.py.
        port: TCP port of the agent's metrics on 127.0.0.1.
        timeout: seconds that a stop of the agent may take.
        node: name of the node.
        loki_url: URL of Loki.
    """
    known = []
    for source, preset in zip(sources, presets, strict=True):
        starts = {preset.entry_start} if preset else set(first_lines(source["format"]))
        start = re2.to_python(next(iter(starts))) if len(starts) == 1 else None
        known.append(
            {"paths": source["paths"]}
            | {key: source[key] for key in KEYS if source.get(key)}
            | ({"entry_start": start} if start else {})
            | ({"join": True} if start and preset else {})
            | ({"console": True} if start and preset and preset.console else {})
            | ({"timed": timed} if start and preset and (timed := re2.to_python(timed_start(preset))) else {})
            | ({"unknown_start": True} if starts and not start else {})
            | ({"own": node} if source.get("shared") == BY_NAME else {})
        )
    return {
        "folder": layout["copies"],
        "report": layout["report"],
        "positions": layout["positions"],
        "port": port,
        "timeout": timeout,
        "health": {
            "agent": layout["agent"],
            "path": layout["health"],
            "metrics": AGENTS[layout["agent"]].METRICS,
            # Only for the date of an answer, so no password is needed.
            "loki_url": re.sub(r"//[^/]*@", "//", loki_url),
        },
        "sources": known,
    }
