# Copyright (c) SmolCluster contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Log sources and format presets as users write them: checks, and values derived from them.

docs/sources.md describes every key with examples; a unit test compares the keys.
"""

from __future__ import annotations

import re
import urllib.parse
import zoneinfo
from typing import Any

from ansible_collections.smolcluster.logging.plugins.module_utils import globs, health_lines
from ansible_collections.smolcluster.logging.plugins.plugin_utils import presets, promtail_config, shared

SOURCE_KEYS = {"name", "paths", "format", "labels", "exclude", "follow", "owner", "mode", "timezone", "shared"}
LABEL = r"[a-zA-Z_][a-zA-Z0-9_]*"


def preset_of(source: dict[str, Any], known: dict[str, dict[str, Any]]) -> presets.Preset | None:
    """Preset of a source, by name or written in the source; None where the format is a list of an agent's own stages.

    Parameters:
        source: a log source.
        known: all presets by name, see `presets.load`.
    """
    chosen = source["format"]
    if isinstance(chosen, str):
        return presets.resolved(chosen, known[chosen], known)
    return presets.resolved("this source", chosen, known) if isinstance(chosen, dict) else None


def timed(sources: list[dict[str, Any]], known: dict[str, dict[str, Any]], zone: str) -> list[dict[str, Any]]:
    """Sources as the modules need them that look at the times in files; see module_utils/shifted_times.py.

    Parameters:
        sources: log sources.
        known: all presets by name.
        zone: zone of times without one, where the source has none.

    Returns:
        Of each source `name`, `paths`, `exclude`, `shared`, `zone` and `times`, which is None where nothing is known of
        the format.
    """
    found = []
    for source in sources:
        chosen = source.get("format")
        usable = isinstance(chosen, (str, dict)) and not format_problems(chosen, known)
        preset = preset_of(source, known) if usable else None
        times = presets.times_of(preset) if preset else None
        kept = {key: source[key] for key in ("name", "paths", "exclude", "shared") if key in source}
        found.append(kept | {"zone": source.get("timezone", zone), "times": times})
    return found


def is_zone(name: Any) -> bool:
    """Whether a text is `Local` or the name of a time zone. True without zone data here: the agent checks it then."""
    return name == "Local" or name in (zoneinfo.available_timezones() or {name})


def source_problems(sources: Any, known: dict[str, dict[str, Any]], hosts: list[str]) -> list[str]:
    """Problems of `smolcluster_log_sources`; each text names the entry and the way out.

    Parameters:
        sources: the variable.
        known: all presets by name.
        hosts: names of all hosts of the inventory.
    """
    if not isinstance(sources, list) or not sources:
        return [
            "smolcluster_log_sources is empty. Add at least one source, or remove the variable to use SmolCluster's"
        ]
    problems = []
    names = [source.get("name") for source in sources if isinstance(source, dict)]
    for number, source in enumerate(sources, 1):
        if not isinstance(source, dict) or not source.get("name"):
            problems.append(f"smolcluster_log_sources: entry {number} has no name")
            continue
        where = f"log source {source['name']}"
        if names.count(source["name"]) > 1:
            problems.append(f"{where}: the name is used twice")
        if unknown := sorted(set(source) - SOURCE_KEYS):
            problems.append(f"{where}: unknown key {', '.join(unknown)}; known are {', '.join(sorted(SOURCE_KEYS))}")
        paths = source.get("paths")
        good = isinstance(paths, list) and all(str(path).startswith("/") and str(path).isprintable() for path in paths)
        if not good or not paths:
            problems.append(f"{where}: paths must be a list of absolute paths without unprintable characters")
        problems += [f"{where}: {text}" for text in [*name_of_source_problems(source), *pattern_problems(source)]]
        problems += [f"{where}: {text}" for text in format_problems(source.get("format"), known)]
        problems += [f"{where}: {text}" for text in [*folder_problems(source), *shared.key_problems(source, hosts)]]
        if not is_zone(zone := source.get("timezone", "Local")):
            problems.append(f"{where}: unknown time zone '{zone}'; use Local or a name such as Asia/Kolkata")
        labels = source.get("labels", {})
        if not isinstance(labels, dict) or not all(re.fullmatch(LABEL, str(key)) for key in labels):
            problems.append(f"{where}: labels must be a mapping of label names to values")
    return problems


def name_of_source_problems(source: dict[str, Any]) -> list[str]:
    """Problems of the name of a source, which is also the name of a folder on the node."""
    name = source["name"]
    if name == health_lines.JOB:
        return ["this name is used for the agents' own health lines. Use another one"]
    if not isinstance(name, str) or name in (".", "..") or len(urllib.parse.quote(name, safe="")) > 200:
        return ["the name must be a text of at most 200 characters (non-ASCII characters count more), and not . or .."]
    return []


def pattern_problems(source: dict[str, Any]) -> list[str]:
    """Problems of the patterns of a source."""
    problems = []
    paths = source.get("paths")
    patterns = [path for path in paths if isinstance(path, str)] if isinstance(paths, list) else []
    exclude = source.get("exclude")
    if exclude is not None and not isinstance(exclude, str):
        problems.append("exclude must be one pattern of paths")
    for pattern in [*patterns, *([exclude] if isinstance(exclude, str) else [])]:
        try:
            globs.check(pattern)
        except globs.PatternError as error:
            problems.append(f"the pattern {pattern} is not valid: {error}")
    follow = source.get("follow", [])
    if not isinstance(follow, list) or not all(str(folder).startswith("/") for folder in follow):
        problems.append("follow must be a list of absolute paths of folders")
    return problems


def folder_problems(source: dict[str, Any]) -> list[str]:
    """Problems of the owner and mode that a source sets for missing folders."""
    problems = []
    owner, mode = source.get("owner"), source.get("mode")
    if owner is not None and not (isinstance(owner, str) and re.fullmatch(r"[^\s:/]+", owner)):
        problems.append("owner must be the name of an account")
    if mode is not None and not (isinstance(mode, str) and re.fullmatch(r"[0-3]?[0-7]{3}", mode)):
        problems.append("mode must be permission bits in octal, in quotes, such as '1777'")
    return problems


def source_folders(sources: list[dict[str, Any]]) -> list[dict[str, str]]:
    """Folders of sources: the part of each path before the first wildcard; see module_utils/source_folders.py.

    Below a folder of `follow`, training may have created links, so nothing is created there.

    Parameters:
        sources: log sources.

    Returns:
        `path` and, if the source sets them, `owner` and `mode`; for a folder of several sources, the first one counts.
    """
    found: dict[str, dict[str, str]] = {}
    for source in sources:
        stated = {key: source[key] for key in ("owner", "mode") if source.get(key)}
        for pattern in (pattern for path in source["paths"] for pattern in globs.alternatives(path)):
            folder = globs.fixed_part(pattern)
            ends = [end.rstrip("/") for end in source.get("follow") or []]
            folder = next((end for end in ends if folder.startswith(f"{end}/")), folder)
            found[folder] = {"path": folder} | stated | found.get(folder, {})
    return list(found.values())


def format_problems(chosen: Any, known: dict[str, dict[str, Any]]) -> list[str]:
    """Problems of a source's format: the name of a preset, a preset, or a list of Promtail's stages.

    Parameters:
        chosen: the value of `format`.
        known: all presets by name.
    """
    if isinstance(chosen, str):
        if chosen not in known:
            return [presets.unknown_name(chosen, known)]
        return presets.problems(known[chosen], known, (chosen,), f"format {chosen}: ")
    if isinstance(chosen, dict):
        return presets.problems(chosen, known)
    if isinstance(chosen, list):
        return promtail_config.stage_problems(chosen)
    return [f"format must be one of {', '.join(sorted(known))}, a preset as a mapping, or a list of Promtail's stages"]
