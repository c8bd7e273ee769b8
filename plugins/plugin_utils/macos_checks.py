# Copyright (c) SmolCluster contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Problems and notes that only Macs have."""

from __future__ import annotations

import os
import re
from typing import Any

from ansible_collections.smolcluster.logging.plugins.plugin_utils.versions import numbers


def protected(path: str) -> bool:
    """Whether macOS hides a path from services until they are given Full Disk Access."""
    folders = "Desktop|Documents|Downloads|Library/Mobile Documents"
    # The usual file system of a Mac does not distinguish upper and lower case.
    there = rf"(/System/Volumes/Data)?/Users/[^/]+/({folders})(/|$)"
    return bool(re.match(there, os.path.normpath(path), re.IGNORECASE))


def source_paths(settings: dict[str, Any]) -> list[str]:
    """Paths of all sources; entries with a wrong type are left out."""
    sources = settings["sources"] if isinstance(settings["sources"], list) else []
    lists = [source.get("paths") for source in sources if isinstance(source, dict)]
    return [str(path) for paths in lists if isinstance(paths, list) for path in paths]


def problems(settings: dict[str, Any], node: dict[str, Any]) -> list[str]:
    """Problems of a Mac that prevent a deployment; on other systems, settings that are only for Macs."""
    method, macos = settings["install_method"], node["macos"]
    if macos is None:
        if method == "archive":
            return []
        return ["promtail_install_method is homebrew, which works only on Macs. Set it to archive for this host"]
    problems = []
    paths = source_paths(settings)
    hidden = [path for path in paths if protected(path)]
    if hidden and not settings["full_disk_access"]:
        problems.append(
            f"macOS hides {', '.join(hidden)} from every service: no service, not even one of root, can read Desktop, "
            "Documents, Downloads and iCloud Drive. Move the checkout or its logs elsewhere, for example to "
            "~/smolcluster, or give the agent Full Disk Access and set promtail_full_disk_access: true (docs/macos.md)"
        )
    twice = [path for path in paths if path.startswith("/private/") and path.removeprefix("/private") in paths]
    if twice:
        problems.append(
            f"smolcluster_log_sources has the same files twice: {', '.join(twice)}, and the same without /private, "
            "which is a link to it. Remove one; otherwise every line is sent twice"
        )
    brew, tap = macos["homebrew"], str(settings["homebrew_tap"])
    if tap and not re.fullmatch(r"[\w.-]+/[\w.-]+", tap):
        problems.append(f"promtail_homebrew_tap is '{tap}'; write it as user/repository")
    if method == "homebrew" and not brew:
        problems.append(
            "promtail_install_method is homebrew, but this Mac has no Homebrew. Set it to archive, which does not "
            "need Homebrew"
        )
    elif method == "homebrew" and not brew["installed"] and not tap:
        problems.append(
            "Homebrew cannot install Promtail: its formula was disabled on 2026-03-02, and no Promtail is installed. "
            "Set promtail_install_method: archive, or promtail_homebrew_tap to a tap with your own formula"
        )
    problems += [
        f"Gatekeeper blocks {program} (attribute com.apple.quarantine). If you trust its origin, run "
        f"`sudo xattr -d com.apple.quarantine {program}` on this Mac"
        for program in macos["quarantined"]
    ]
    return problems


def notes(settings: dict[str, Any], node: dict[str, Any]) -> list[str]:
    """Notes about a Mac that do not prevent a deployment.

    Parameters:
        settings: the role's variables, see agent_checks.problems.
        node: results of the module `agent_host_info`.
    """
    found, macos = [], node["macos"]
    if macos["sleep"]:
        found.append(
            f"this Mac goes to sleep after {macos['sleep']} min, and then neither trains nor ships lines. Run "
            "`sudo pmset -a sleep 0` on it"
        )
    if settings["user"] != "root" and numbers(macos["version"] or "0.0") >= (15,):
        found.append(
            f"the agent runs as {settings['user']}. macOS 15 and newer may block programs from reaching other machines "
            "(Local Network Privacy). Apple exempts services, but this is certain only for services of root. If lines "
            "do not arrive and the agent logs `no route to host`, set promtail_user: root"
        )
    attached = [path for path in source_paths(settings) if path.startswith("/Volumes/")]
    if attached and not settings["full_disk_access"]:
        found.append(
            f"macOS may hide {', '.join(attached)} from services: external and network volumes need Full Disk Access "
            "(docs/macos.md). If no lines arrive from there, let training write to the Mac's own disk"
        )
    if temporary := [path for path in source_paths(settings) if re.match(r"(/private)?/tmp/", path)]:
        found.append(
            "macOS empties /tmp at each start, and removes files there that were not used for three days: "
            f"{', '.join(temporary)}. Lines in Loki stay. To keep the files as well, let training write to a folder "
            "such as /Users/Shared"
        )
    return found
