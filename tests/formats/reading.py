"""Reads logs as a node does: the watcher's rule for entries, then the agent's own program and stages."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible_collections.smolcluster.logging.plugins.module_utils import trial
from ansible_collections.smolcluster.logging.plugins.plugin_utils import presets, promtail_config, re2

from lab import artifacts, engine

FOLDER = str(Path(__file__).resolve().parents[2] / "roles/agent/vars/formats")
KNOWN = presets.load(FOLDER)
ZONE = "Asia/Kolkata"


def promtail(folder: str) -> str:
    """Path of Promtail, unpacked in a folder; built if the artifacts folder does not have it."""
    versions = {"official": artifacts.PROMTAIL_OFFICIAL, "module": artifacts.PROMTAIL_MODULE}
    platform = engine.platform()
    version, _origin = artifacts.release("promtail", "clients/cmd/promtail", versions, platform)
    archive = Path(artifacts.ARTIFACTS, "releases", f"v{version}", f"promtail-{platform}.zip")
    return trial.unpacked(str(archive), folder)


@dataclass
class Entry:
    """One entry as it is in Loki.

    Parameters:
        text: its text.
        time: its time in UTC, as RFC 3339; without the year where the log has none. Empty for the time of reading.
        level: its level, or empty.
        rank: its rank, or empty.
        preset: name of the preset that has matched, or empty.
    """

    text: str
    time: str = ""
    level: str = ""
    rank: str = ""
    preset: str = ""


class Reader:
    """Reads logs with the agent's program.

    Parameters:
        program: path of Promtail.
    """

    def __init__(self, program: str) -> None:
        self.program = program

    def entries(self, entries: list[str], chosen: str | dict[str, Any], zone: str = ZONE, **labels: str) -> list[Entry]:
        """What the agent makes of entries.

        Parameters:
            entries: texts.
            chosen: name of a preset, or a preset.
            zone: IANA name of the node's zone.
            labels: labels of the source.
        """
        preset = presets.resolved(str(chosen), KNOWN[chosen] if isinstance(chosen, str) else chosen, KNOWN)
        stages = promtail_config.entry_stages(preset, "Local", named=True)
        return [self._entry(found) for found in trial.run(self.program, stages, entries, zone, labels)]

    def log(self, text: str, chosen: str | dict[str, Any], zone: str = ZONE, **labels: str) -> list[Entry]:
        """What a node makes of a log; see `entries`."""
        preset = presets.resolved(str(chosen), KNOWN[chosen] if isinstance(chosen, str) else chosen, KNOWN)
        start = re2.to_python(preset.entry_start)
        return self.entries(trial.entries_of(text, start, preset.console), chosen, zone, **labels)

    @staticmethod
    def _entry(found: dict[str, Any]) -> Entry:
        labels = found["labels"]
        return Entry(
            found["text"],
            found["time"],
            labels.get("level", ""),
            labels.get("rank", ""),
            labels.get(promtail_config.FORMAT, ""),
        )
