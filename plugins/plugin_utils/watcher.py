# Copyright (c) SmolCluster contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Settings of the program that watches the log files (roles/agent/files/watcher.py), and the paths of its copies.

The agent does not read the paths of a source. It reads copies in a folder of the watcher: `FOLDER/SOURCE/PATH`.
"""

from __future__ import annotations

import re
import urllib.parse
from typing import Any

from ansible_collections.smolcluster.logging.plugins.module_utils import globs
from ansible_collections.smolcluster.logging.plugins.plugin_utils import re2

# Keys of a source that the watcher needs unchanged.
KEYS = ("name", "paths", "exclude", "follow")


def copy_patterns(source: dict[str, Any], folder: str) -> list[str]:
    """Patterns of the copies of a source's files.

    Parameters:
        source: a log source.
        folder: the watcher's folder of copies.
    """
    found = {}
    for path in source["paths"]:
        for pattern in globs.alternatives(path):
            folders = pattern.strip("/").split("/")[:-1]
            names = ["**" if name == "**" else escaped(name) for name in folders]
            found["/".join([folder, urllib.parse.quote(source["name"], safe=""), *names, "*"])] = None
    return list(found)


def escaped(name: str) -> str:
    """Pattern for a name in the path of a copy: the name itself where it has no wildcards, else `*`."""
    exact = globs.plain(name)
    return "*" if exact is None else re.sub(r"([\\*?\[\]{}])", r"\\\1", exact)


def path_expression(folder: str, rest: str = ".*") -> str:
    """Regular expression (RE2) for the path of a copy, with the path of the log itself as the group `filename`.

    Parameters:
        folder: the watcher's folder of copies.
        rest: expression for the log's path after its first slash.
    """
    return rf"^{re.escape(folder)}/[^/]+(?P<filename>/{rest})$"


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


def with_path(stages: list[dict[str, Any]], folder: str) -> list[dict[str, Any]]:
    """A user's pipeline stages, with stages added that set the label `filename` to the path of the log itself.

    A multiline stage keeps its state by labels, so the label is changed after the last multiline stage.
    """
    at = 1 + max((number for number, stage in enumerate(stages) if first_lines([stage])), default=-1)
    own = [
        {"regex": {"expression": path_expression(folder), "source": "filename"}},
        {"labels": {"filename": ""}},
    ]
    return [*stages[:at], *own, *stages[at:]]


def settings(
    sources: list[dict[str, Any]], stages: list[list[dict[str, Any]]], layout: dict[str, Any], port: int, timeout: int
) -> dict[str, Any]:
    """Settings of the watcher.

    Parameters:
        sources: log sources.
        stages: the pipeline stages of each.
        layout: see module_utils/layout.py.
        port: TCP port of the agent's metrics on 127.0.0.1.
        timeout: seconds that a stop of the agent may take.
    """
    known = []
    for source, pipeline in zip(sources, stages, strict=True):
        starts = sorted(set(first_lines(pipeline)))
        start = re2.to_python(starts[0]) if len(starts) == 1 else None
        known.append(
            {key: source[key] for key in KEYS if source.get(key)}
            | ({"entry_start": start} if start else {})
            | ({"unknown_start": True} if starts and not start else {})
        )
    return {
        "folder": layout["copies"],
        "report": layout["report"],
        "positions": layout["positions"],
        "port": port,
        "timeout": timeout,
        "sources": known,
    }
