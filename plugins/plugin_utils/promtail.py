# Copyright (c) SmolCluster contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""From what a user says about logs to what Promtail understands, and what stands against a deployment.

A format preset says what a line is, not how Promtail parses it. Its keys:

entry_start   regular expression (RE2) of a line that begins an entry; all other lines belong to the entry before
pattern       regular expression with named groups: `time`, `level` and further labels
time_layouts  layouts of `time` in Go's notation; the first is tried first
sample        such a line in the notation of Python's logging.Formatter, for lines that verify.yml writes
levels        words for levels that are written otherwise here; all levels become upper case
path_pattern  regular expression with named groups on the file's path, for what a line does not say
labels        names of groups that become labels
"""

from __future__ import annotations

import os
import re
import zoneinfo
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

# https://grafana.com/docs/loki/v3.6.x/send-data/promtail/stages/
STAGES = frozenset(
    "cri decolorize docker drop eventlogmessage geoip json labelallow labeldrop labels limit logfmt match metrics "
    "multiline non_indexed_labels output pack regex replace sampling static_labels structured_metadata template tenant "
    "timestamp".split()
)
SOURCE_KEYS = {"name", "paths", "format", "labels", "exclude"}
OFFICIAL = "https://github.com/grafana/loki/releases/download"
LAST_RELEASE = (3, 6, 11)
NEW_GLIBC, NEW_GLIBC_SINCE = (2, 34), (3, 5, 7)

# Bounds of numbers. To systemd a timeout of 0 is endless.
RANGES = {"http_port": (1, 65535), "memory_max": (32, 1 << 20), "stop_timeout": (1, 3600)}

# An entry is held back this long for the lines that belong to it. Every file with lines costs a timer of this period.
MULTILINE_WAIT = "50ms"
# Longest entry: a traceback through deep frameworks has some hundred lines.
MULTILINE_LINES = 1000


def numbers(version: str) -> tuple[int, ...]:
    """Version as numbers, for comparison; empty when it is none."""
    return tuple(int(part) for part in version.split(".")) if re.fullmatch(r"\d+(\.\d+)+", version) else ()


def load_formats(folder: str) -> dict[str, dict[str, Any]]:
    """Format presets of a folder, by the names of their files without `.yml`."""
    return {path.stem: yaml.safe_load(path.read_text()) for path in sorted(Path(folder).glob("*.yml"))}


def level_template(words: dict[str, str]) -> str:
    """Go template that makes a level upper case and replaces other words for it."""
    text = "{{ $level }}"
    for word, level in words.items():
        text = f'{{{{ if eq $level "{word}" }}}}{level}{{{{ else }}}}{text}{{{{ end }}}}'
    return "{{ $level := ToUpper .Value }}" + text


def preset_stages(preset: dict[str, Any], zone: str) -> list[dict[str, Any]]:
    """Pipeline stages of a format preset.

    Parameters:
        preset: see the head of this file.
        zone: IANA name of the time zone of lines without one, or `Local` for the node's own.
    """
    first, *others = preset["time_layouts"]
    timestamp = {"source": "time", "format": first, "location": zone}
    if others:
        timestamp["fallback_formats"] = others
    stages: list[dict[str, Any]] = [
        {"decolorize": None},
        # A progress bar is one line with many carriage returns; what the terminal showed last is kept.
        {"replace": {"expression": r"^(.*\r)[^\r]", "replace": ""}},
        {
            "multiline": {
                "firstline": preset["entry_start"],
                "max_wait_time": MULTILINE_WAIT,
                "max_lines": MULTILINE_LINES,
            }
        },
        {"regex": {"expression": r".*/(?P<host>[^/]+?)(\.log)?$", "source": "filename"}},
    ]
    if "path_pattern" in preset:
        stages.append({"regex": {"expression": preset["path_pattern"], "source": "filename"}})
    return [
        *stages,
        {"regex": {"expression": preset["pattern"]}},
        {"template": {"source": "level", "template": level_template(preset.get("levels", {}))}},
        {"timestamp": timestamp},
        {"labels": dict.fromkeys(["host", *preset["labels"]], "")},
    ]


def scrape_configs(sources: list[dict[str, Any]], folder: str, node: str, zone: str) -> list[dict[str, Any]]:
    """Turn log sources into Promtail's scrape configs, one a source.

    Parameters:
        sources: entries of `promtail_sources`.
        folder: folder of the format presets.
        node: value of the label `node`.
        zone: IANA name of the time zone of lines without one, or `Local`.
    """
    formats = load_formats(folder)
    configs = []
    for source in sources:
        chosen = source["format"]
        targets = [
            {
                "targets": ["localhost"],
                "labels": {
                    **source.get("labels", {}),
                    "node": node,
                    "__path__": path,
                    **({"__path_exclude__": source["exclude"]} if source.get("exclude") else {}),
                },
            }
            for path in source["paths"]
        ]
        stages = preset_stages(formats[chosen], zone) if isinstance(chosen, str) else chosen
        configs.append({"job_name": source["name"], "pipeline_stages": stages, "static_configs": targets})
    return configs


def source_problems(sources: Any, formats: list[str]) -> list[str]:
    """What is wrong with `promtail_sources`; each text names the entry and the way out."""
    if not isinstance(sources, list) or not sources:
        return ["promtail_sources is empty; name at least one source, or remove the variable to get SmolCluster's"]
    problems = []
    names = [source.get("name") for source in sources if isinstance(source, dict)]
    for number, source in enumerate(sources, 1):
        if not isinstance(source, dict) or not source.get("name"):
            problems.append(f"promtail_sources: entry {number} has no name")
            continue
        where = f"promtail_sources: {source['name']}"
        if names.count(source["name"]) > 1:
            problems.append(f"{where}: the name is used twice")
        if unknown := sorted(set(source) - SOURCE_KEYS):
            problems.append(f"{where}: unknown key {', '.join(unknown)}; known are {', '.join(sorted(SOURCE_KEYS))}")
        paths = source.get("paths")
        good = isinstance(paths, list) and all(str(path).startswith("/") and str(path).isprintable() for path in paths)
        if not good or not paths:
            problems.append(f"{where}: paths must be a list of absolute paths without unprintable characters")
        problems += [f"{where}: {text}" for text in format_problems(source.get("format"), formats)]
        labels = source.get("labels", {})
        if not isinstance(labels, dict) or not all(re.fullmatch(r"[a-zA-Z_][a-zA-Z0-9_]*", str(key)) for key in labels):
            problems.append(f"{where}: labels must be a mapping of label names to values")
    return problems


def format_problems(chosen: Any, formats: list[str]) -> list[str]:
    """What is wrong with the format of a source: the name of a preset, or a list of Promtail's stages."""
    if isinstance(chosen, str):
        return [] if chosen in formats else [f"unknown format {chosen}; presets are {', '.join(sorted(formats))}"]
    if not isinstance(chosen, list):
        return [f"format must be one of {', '.join(sorted(formats))}, or a list of Promtail's stages"]
    return [
        f"unknown stage {stage}; Promtail has {', '.join(sorted(STAGES))}"
        for stage in chosen
        if not isinstance(stage, dict) or len(stage) != 1 or next(iter(stage)) not in STAGES
    ]


def setting_problems(settings: dict[str, Any], formats: list[str]) -> list[str]:
    """What is wrong with the role's variables, before anybody looks at the node."""
    problems = source_problems(settings["sources"], formats)
    url = str(settings["loki_url"])
    if not re.fullmatch(r"https?://(\[[0-9a-fA-F:.]+\]|[^\s/:@]+)(:\d+)?/?", url):
        problems.append(
            f"no usable Loki address: promtail_loki_url is '{re.sub('//[^/]*@', '//***@', url)}'. Set it to "
            "http://ADDRESS:PORT, or smolcluster_address on the controller to its address; it takes no password"
        )
    version = numbers(str(settings["version"]))
    if not version:
        problems.append(f"promtail_version '{settings['version']}' is no version such as 3.6.11")
    elif version > LAST_RELEASE and str(settings["base_url"]).startswith(OFFICIAL):
        problems.append(
            f"promtail_version {settings['version']} has no programs to download: 3.6.11 is the last release with "
            "them. Set promtail_version to 3.6.11, or promtail_base_url to a place that has it"
        )
    for name, (low, high) in RANGES.items():
        if not re.fullmatch(r"\d+", value := str(settings[name])) or not low <= int(value) <= high:
            problems.append(f"promtail_{name} is '{value}'; it is a whole number from {low} to {high}")
    if not re.fullmatch(r"(\d+(\.\d+)?(ms|s|m))+", str(settings["batch_wait"])):
        problems.append(f"promtail_batch_wait is '{settings['batch_wait']}'; write it as 50ms or 1s")
    zone = str(settings["timezone"])
    if zone != "Local" and zone not in (zoneinfo.available_timezones() or {zone}):  # without zone data Promtail checks
        problems.append(f"unknown time zone '{zone}' in promtail_timezone; use Local or a name such as Asia/Kolkata")
    return problems


def node_problems(settings: dict[str, Any], node: dict[str, Any]) -> list[str]:
    """What of the node stands against the deployment.

    Parameters:
        settings: the role's variables.
        node: results of the module `promtail_info`.
    """
    problems = []
    if not settings["platform"]:
        return [
            f"Promtail has no program for {node['system']} on {node['architecture']}; this role supports Linux on "
            "x86_64, aarch64 and armv7l, and macOS on arm64 and x86_64. Take this host out of the group"
        ]
    if not node["managed"]:
        if node["system"] == "Darwin":
            return ["/bin/launchctl is not there or does not run; this role needs it. Take this host out of the group"]
        return ["systemd is not the init system of this host; this role needs it. Take this host out of the group"]
    problems += name_problems(settings, node) + macos_problems(settings, node)
    version = numbers(str(settings["version"]))
    if node["system"] == "Linux" and version >= NEW_GLIBC_SINCE and not node["archive"]:
        found = node["glibc"]
        if not found or numbers(found) < NEW_GLIBC:
            problems.append(
                f"Promtail {settings['version']} needs glibc 2.34 or newer, this host has {found or 'another one'}. "
                "Set promtail_version: 3.5.6 for this host, or upgrade its system"
            )
    if unsafe := node.get("unsafe_folder"):
        problems.append(
            f"{unsafe} can be changed by another account than root, which could replace what root installs and starts. "
            f"`chown root {unsafe}` and `chmod go-w {unsafe}` on this host"
        )
    problems += drop_in_problems(node)
    if node["foreign_unit"] and not settings["adopt"]:
        package = "".join(f" (package {name})" for name in node.get("packages", {}))
        problems.append(
            f"{node['foreign_unit']} exists already and was not made by this collection{package}; set promtail_adopt: "
            "true to replace it, or take this host out of the group"
        )
    if node["home"] == "foreign" and not unsafe:
        problems.append(
            f"{settings['home']} exists already and was not made by this collection; move it away, or take this host "
            "out of the group"
        )
    holder = node["port_holder"]
    strays = [stray["pid"] for stray in node["strays"]]
    if holder and not (settings["adopt"] and holder["pid"] in strays):
        way = (
            "set promtail_adopt: true to retire it"
            if holder["pid"] in strays
            else "set promtail_http_port to a free one"
        )
        problems.append(
            f"port {settings['http_port']} is taken by {holder['command'] or 'an unseen process'} "
            f"(pid {holder['pid']}); end that program, or {way}"
        )
    return problems


def removal(path: str) -> str:
    """How to get rid of a drop-in of systemd, in a sentence's second half."""
    hidden = f"/etc/systemd/system/promtail.service.d/{os.path.basename(path)}"
    way = f"Remove it, or hide it from this service by a link {hidden} to /dev/null" if "/service.d/" in path else ""
    return f"{way or 'Remove it'}; then `systemctl daemon-reload` and `systemctl try-restart promtail`"


def drop_in_problems(node: dict[str, Any]) -> list[str]:
    """Settings that somebody has added to the service, and with which it is not what this collection deploys."""
    return [
        f"{file['path']} sets {', '.join(file['breaking'])} for the agent's service, which this collection must set "
        f"itself. {removal(file['path'])}"
        for file in node.get("drop_ins", [])
        if file["breaking"]
    ]


def name_problems(settings: dict[str, Any], node: dict[str, Any]) -> list[str]:
    """Whether the agent can find Loki's address: the release's programs ask no mDNS (they are built with netgo)."""
    name = urlsplit(str(settings["loki_url"])).hostname or ""
    if not name.endswith(".local") or name in node["known_names"]:
        return []
    return [
        f"Promtail does not resolve {name}, names in .local being answered by mDNS alone. Set smolcluster_address on "
        f"the controller to its address (or promtail_loki_url), or add {name} to /etc/hosts of this host"
    ]


def protected(path: str) -> bool:
    """Whether macOS hides a path from services until they are given Full Disk Access."""
    folders = "Desktop|Documents|Downloads|Library/Mobile Documents"
    # The usual file system of a Mac takes upper and lower case for the same.
    there = rf"(/System/Volumes/Data)?/Users/[^/]+/({folders})(/|$)"
    return bool(re.match(there, os.path.normpath(path), re.IGNORECASE))


def source_paths(settings: dict[str, Any]) -> list[str]:
    """Paths of all sources that are written as they should be."""
    sources = settings["sources"] if isinstance(settings["sources"], list) else []
    lists = [source.get("paths") for source in sources if isinstance(source, dict)]
    return [str(path) for paths in lists if isinstance(paths, list) for path in paths]


def macos_problems(settings: dict[str, Any], node: dict[str, Any]) -> list[str]:
    """What of a Mac stands against the deployment; on other systems, settings that are for Macs only."""
    method, macos = settings["install_method"], node["macos"]
    if macos is None:
        if method == "archive":
            return []
        return ["promtail_install_method is homebrew, which is for Macs only. Set it to archive for this host"]
    problems = []
    paths = source_paths(settings)
    hidden = [path for path in paths if protected(path)]
    if hidden and not settings["full_disk_access"]:
        problems.append(
            f"macOS hides {', '.join(hidden)} from every service: nothing in Desktop, Documents, Downloads and iCloud "
            "Drive can be read by one, root's included. Move the checkout or its logs elsewhere, ~/smolcluster for "
            "example, or give the agent Full Disk Access and set promtail_full_disk_access: true (docs/macos.md)"
        )
    twice = [path for path in paths if path.startswith("/private/") and path.removeprefix("/private") in paths]
    if twice:
        problems.append(
            f"promtail_sources names the same files twice: {', '.join(twice)} and without /private, to which it is a "
            "link. Remove one; every line would be sent twice"
        )
    brew, tap = macos["homebrew"], str(settings["homebrew_tap"])
    if tap and not re.fullmatch(r"[\w.-]+/[\w.-]+", tap):
        problems.append(f"promtail_homebrew_tap is '{tap}'; write it as user/repository")
    if method == "homebrew" and not brew:
        problems.append(
            "promtail_install_method is homebrew, and Homebrew is not on this Mac. Set it to archive, which needs none"
        )
    elif method == "homebrew" and not brew["installed"] and not tap:
        problems.append(
            "Homebrew cannot install Promtail: its formula was disabled on 2026-03-02, and none is installed. Set "
            "promtail_install_method: archive, or promtail_homebrew_tap to a tap with a formula of your own"
        )
    problems += [
        f"Gatekeeper keeps {program} from starting (attribute com.apple.quarantine). If you trust where it is from: "
        f"`sudo xattr -d com.apple.quarantine {program}` on this Mac"
        for program in macos["quarantined"]
    ]
    if settings["user"] not in ("root", "_promtail") and node["user"] == "absent":
        problems.append(
            f"there is no user '{settings['user']}' on this Mac; set promtail_macos_user to one that exists, to root, "
            "or to _promtail, which is then made"
        )
    if macos["unreadable"]:
        problems.append(
            f"the account {settings['user']} cannot read {', '.join(macos['unreadable'])}, where log files are to be. "
            "Set promtail_macos_user to root or to the account that trains, or let training write to a folder that "
            "everybody may read, such as one in /Users/Shared"
        )
    return problems


def notes(settings: dict[str, Any], node: dict[str, Any]) -> list[str]:
    """What does not stand against a deployment but is worth knowing; each with the way out.

    Parameters:
        settings: the role's variables.
        node: results of the module `promtail_info`.
    """
    found = []
    old = [stray["command"] for stray in node["strays"]] + node["leftovers"]
    if old and not settings["adopt"]:
        found.append(
            f"left over from a set-up by hand: {', '.join(old)}. Two agents on the same files send every line twice; "
            "set promtail_adopt: true to retire the old one"
        )
    found += [
        f"{file['path']} sets {', '.join(file['others'])} for the agent's service, and that stays so. If it is not "
        f"meant: {removal(file['path'])}"
        for file in node.get("drop_ins", [])
        if file["others"]
    ]
    found += [
        f"the package {name} has a service of this name: when it is upgraded or removed, it can replace, stop or "
        f"remove this collection's. `{command}` on this host, and run this again"
        for name, command in node.get("packages", {}).items()
    ]
    macos = node["macos"]
    if macos is None:
        return found
    if macos["sleep"]:
        found.append(
            f"this Mac goes to sleep after {macos['sleep']} min, and then neither trains nor ships lines: "
            "`sudo pmset -a sleep 0` on it"
        )
    if settings["user"] != "root" and numbers(macos["version"] or "0.0") >= (15,):
        found.append(
            f"the agent runs as {settings['user']}. macOS 15 and newer may keep programs from other machines (Local "
            "Network Privacy); services are said to be exempt, root's surely are. If lines do not arrive and the agent "
            "says `no route to host`, set promtail_macos_user: root"
        )
    if settings["user"] == "root" and not macos["python_of_root"]:
        found.append(
            f"the agent is started by {macos['python']}, which is not root's: whoever can change it acts as root on "
            "this Mac. Apple's developer tools (`xcode-select --install`) bring one that is"
        )
    attached = [path for path in source_paths(settings) if path.startswith("/Volumes/")]
    if attached and not settings["full_disk_access"]:
        found.append(
            f"macOS may hide {', '.join(attached)} from services: external and network volumes need Full Disk Access "
            "(docs/macos.md). If no line of them arrives, let training write to the Mac's own disk"
        )
    if temporary := [path for path in source_paths(settings) if re.match(r"(/private)?/tmp/", path)]:
        found.append(
            f"macOS empties /tmp at each start, and of files that nobody has touched for three days: "
            f"{', '.join(temporary)}. Lines that Loki has stay; to keep the files as well, let training write to a "
            "folder such as /Users/Shared"
        )
    return found


def problems(settings: dict[str, Any], folder: str, node: dict[str, Any]) -> list[str]:
    """Everything that stands against a deployment, in words for the user; empty when nothing does.

    Parameters:
        settings: `sources`, `loki_url`, `version`, `base_url`, `timezone`, `http_port`, `memory_max`, `stop_timeout`,
            `batch_wait`, `adopt`, `platform`, `home`, `user`, `install_method`, `homebrew_tap`, `full_disk_access`.
        folder: folder of the format presets.
        node: results of the module `promtail_info`.
    """
    return setting_problems(settings, list(load_formats(folder))) + node_problems(settings, node)
