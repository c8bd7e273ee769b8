# Copyright (c) SmolCluster contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Settings for the trial of a format with the agent's program, before anything is deployed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ansible_collections.smolcluster.logging.plugins.module_utils.layout import SYSTEMS
from ansible_collections.smolcluster.logging.plugins.plugin_utils import presets, promtail_config, re2, sources


def settings(chosen: Any, folders: list[str], file: str, zone: str) -> dict[str, Any]:
    """What the module `agent_format_trial` needs, and what prevents a trial.

    Parameters:
        chosen: name of a preset, or a preset.
        folders: folders of format presets; an empty one is skipped.
        file: path of the log on the control node.
        zone: IANA name of the time zone of times without one; `Local` is that of the control node.

    Returns:
        `problems`, `platform` of the control node, and without problems `file` (absolute), `stages`, `entry_start` and
        `console`.
    """
    system = os.uname()
    layout = SYSTEMS[system.sysname]("promtail") if system.sysname in SYSTEMS else None
    found: dict[str, Any] = {"platform": layout.platforms.get(system.machine, "") if layout else ""}
    try:
        known = presets.load(*folders)
    except presets.PresetError as error:
        return found | {"problems": [str(error)]}
    problems = [] if isinstance(chosen, list) else sources.format_problems(chosen, known)
    if isinstance(chosen, list):
        problems.append("format is a list of Promtail's stages; a trial needs the name of a preset, or a preset")
    # Modules run in another folder.
    path = str(Path(file).expanduser().absolute()) if file else ""
    if not Path(path).is_file():
        problems.append(
            f"there is no file '{file}' on this machine; set -e file=PATH to a log that you have copied here"
        )
    if not sources.is_zone(zone):
        problems.append(f"unknown time zone '{zone}'; use Local or a name such as Asia/Kolkata")
    if not found["platform"]:
        problems.append(f"there is no program of the agent for this machine ({system.sysname} on {system.machine})")
    if problems:
        return found | {"problems": problems}
    preset = sources.preset_of({"format": chosen}, known)
    start = re2.to_python(preset.entry_start)
    if start is None:
        problems.append(f"entry_start {preset.entry_start} cannot be tried here: the watcher cannot read it either")
    return found | {
        "problems": problems,
        "file": path,
        "stages": [*promtail_config.path_stages(preset), *promtail_config.entry_stages(preset, zone, named=True)],
        "entry_start": start or "",
        "console": preset.console,
    }
