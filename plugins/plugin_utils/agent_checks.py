# Copyright (c) SmolCluster contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Problems that prevent a deployment of an agent, and notes that do not; found before anything is changed."""

from __future__ import annotations

import os
import re
from typing import Any

from ansible_collections.smolcluster.logging.plugins.plugin_utils import macos_checks, sources
from ansible_collections.smolcluster.logging.plugins.plugin_utils.versions import numbers

OFFICIAL = "https://github.com/grafana/loki/releases/download"
LAST_RELEASE = (3, 6, 11)
NEW_GLIBC, NEW_GLIBC_SINCE = (2, 34), (3, 5, 7)

# Bounds of numbers. To systemd a timeout of 0 is endless.
RANGES = {"http_port": (1, 65535), "memory_max": (32, 1 << 20), "stop_timeout": (1, 3600)}


def setting_problems(settings: dict[str, Any], presets: list[str]) -> list[str]:
    """What is wrong with the role's variables, before anybody looks at the node."""
    problems = sources.source_problems(settings["sources"], presets)
    url = str(settings["loki_url"])
    if not re.fullmatch(r"https?://(\[[0-9a-fA-F:.]+\]|[^\s/:@]+)(:\d+)?/?", url):
        problems.append(
            f"no usable Loki address: promtail_loki_url is '{re.sub('//[^/]*@', '//***@', url)}'. Set it to "
            "http://ADDRESS:PORT, or smolcluster_address on the controller to its address; it takes no password"
        )
    version, last = numbers(str(settings["version"])), ".".join(map(str, LAST_RELEASE))
    if not version:
        problems.append(f"promtail_version '{settings['version']}' is no version such as {last}")
    elif version > LAST_RELEASE and str(settings["base_url"]).startswith(OFFICIAL):
        problems.append(
            f"promtail_version {settings['version']} has no programs to download: {last} is the last release with "
            f"them. Set promtail_version to {last}, or promtail_base_url to a place that has it"
        )
    for name, (low, high) in RANGES.items():
        if not re.fullmatch(r"\d+", value := str(settings[name])) or not low <= int(value) <= high:
            problems.append(f"promtail_{name} is '{value}'; it is a whole number from {low} to {high}")
    if not re.fullmatch(r"(\d+(\.\d+)?(ms|s|m))+", str(settings["batch_wait"])):
        problems.append(f"promtail_batch_wait is '{settings['batch_wait']}'; write it as 50ms or 1s")
    zone = str(settings["timezone"])
    if not sources.is_zone(zone):
        problems.append(f"unknown time zone '{zone}' in promtail_timezone; use Local or a name such as Asia/Kolkata")
    return problems


def node_problems(settings: dict[str, Any], node: dict[str, Any]) -> list[str]:
    """What of the node stands against the deployment.

    Parameters:
        settings: the role's variables.
        node: results of the module `agent_host_info`.
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
    if not str(settings["platform"]).startswith(f"{node['system'].lower()}-"):
        problems.append(
            f"promtail_platform is {settings['platform']}, and this host runs {node['system']}. Remove it, or set it "
            "only for the host that it is meant for"
        )
    problems += name_problems(settings, node) + account_problems(settings, node) + macos_checks.problems(settings, node)
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


def found_by_agent(settings: dict[str, Any], loki: dict[str, Any]) -> bool:
    """Whether the agent finds Loki's host; Homebrew's build asks the system's resolver, the release's does not."""
    return bool(loki["addresses"]) or (settings["install_method"] == "homebrew" and loki["known_to_system"])


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
    """Whether the agent can find Loki's address."""
    loki = node["loki"]
    if not loki or found_by_agent(settings, loki):
        return []
    name, servers = loki["host"], ", ".join(loki["servers"])
    way = (
        "Set smolcluster_address on the controller to its address (or promtail_loki_url), or add the name to "
        "/etc/hosts of this host"
    )
    if not loki["known_to_system"]:
        said = "do not know it" if loki["certain"] else "do not know it, or do not answer"
        return [
            f"this host cannot resolve {name}, the name of Loki's machine: it is not in /etc/hosts, and the DNS "
            f"servers ({servers}) {said}. A name that only SSH knows on the control node is none for the nodes. {way}"
        ]
    if loki["certain"]:
        return [
            f"Promtail cannot resolve {name}, the name of Loki's machine: this host knows it by another source, such "
            f"as mDNS. Promtail asks /etc/hosts and DNS servers ({servers}) only, and they do not have it. {way}"
        ]
    return []


def account_problems(settings: dict[str, Any], node: dict[str, Any]) -> list[str]:
    """What keeps the agent's account from its work, where it is not the one that may read every file."""
    if settings["reads_all"]:
        return []
    user, linux = settings["user"], node["system"] == "Linux"
    if linux and node["uid"] == 0:
        return [
            f"promtail_user is {user}, and on Linux the agent never runs as root. Leave promtail_user empty: the "
            "account promtail is then made, which may read every file and write none"
        ]
    if node["user"] == "absent" and user != settings["account"]:
        return [
            f"there is no user '{user}' on this host; set promtail_user to one that exists, or leave it empty for "
            f"{'promtail, which is then made' if linux else 'root. _promtail is made where it is missing'}"
        ]
    problems = []
    if node["unreadable"]:
        problems.append(
            f"the account {user} cannot read {', '.join(node['unreadable'])}, where log files are to be. Set "
            f"promtail_user to the account that trains, leave it empty for {'one' if linux else 'root,'} that may read "
            "every file, or let training write to a folder that everybody may read"
        )
    if not node["python_usable"]:
        problems.append(
            f"the account {user} may not run {node['python']}, which starts the agent. Name a Python that every "
            "account may run by ansible_python_interpreter, or leave promtail_user empty"
        )
    return problems


def notes(settings: dict[str, Any], node: dict[str, Any]) -> list[str]:
    """What does not stand against a deployment but is worth knowing; each with the way out.

    Parameters:
        settings: the role's variables.
        node: results of the module `agent_host_info`.
    """
    found = []
    old = [stray["command"] for stray in node["strays"]] + node["leftovers"]
    if old and not settings["adopt"]:
        found.append(
            f"left over from a set-up by hand: {', '.join(old)}. Two agents on the same files send every line twice; "
            "set promtail_adopt: true to retire the old one"
        )
    found += loki_notes(settings, node)
    if settings["reads_all"] and not node["python_of_root"]:
        right = "may read every file of" if node["system"] == "Linux" else "acts as root on"
        found.append(
            f"the agent is started by {node['python']}, which accounts other than root can change: whoever does "
            f"{right} this host. Install a Python 3.9 or newer of the system"
            f"{' (`xcode-select --install`)' if node['macos'] else ''}, or name one of root's by "
            "ansible_python_interpreter"
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
    return found + (macos_checks.notes(settings, node) if node["macos"] else [])


def loki_notes(settings: dict[str, Any], node: dict[str, Any]) -> list[str]:
    """That Loki cannot be reached now; nothing in check mode, where it may still be to come."""
    loki = node["loki"]
    if not loki or settings["check_mode"]:
        return []
    later = "Lines stay in their files and are sent as soon as it can"
    if not found_by_agent(settings, loki):
        return [
            f"the DNS servers of this host ({', '.join(loki['servers'])}) do not answer, and Promtail finds "
            f"{loki['host']} by them alone. {later}; to do without them, set smolcluster_address on the controller to "
            "its address"
        ]
    return []


def problems(settings: dict[str, Any], folder: str, node: dict[str, Any]) -> list[str]:
    """Problems that prevent a deployment, each with its way out; empty when there is none.

    Parameters:
        settings: `sources`, `loki_url`, `version`, `base_url`, `timezone`, `http_port`, `memory_max`, `stop_timeout`,
            `batch_wait`, `adopt`, `platform`, `home`, `user`, `account` (the one that the role makes), `reads_all`
            (whether the user may read every file), `install_method`, `homebrew_tap`, `full_disk_access`, `check_mode`.
        folder: folder of the format presets.
        node: results of the module `agent_host_info`.
    """
    return setting_problems(settings, list(sources.load_presets(folder))) + node_problems(settings, node)
