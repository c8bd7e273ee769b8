# Copyright (c) SmolCluster contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Problems that prevent a deployment of an agent, and notes that do not; found before anything is changed."""

from __future__ import annotations

import os
import re
from typing import Any

from ansible_collections.smolcluster.logging.plugins.module_utils import shared_folders
from ansible_collections.smolcluster.logging.plugins.plugin_utils import macos_checks, presets, shared, sources
from ansible_collections.smolcluster.logging.plugins.plugin_utils.versions import numbers

OFFICIAL = "https://github.com/grafana/loki/releases/download"
LAST_RELEASE = (3, 6, 11)
NEW_GLIBC, NEW_GLIBC_SINCE = (2, 34), (3, 5, 7)

# Ranges of numbers. For systemd a timeout of 0 means no limit.
RANGES = {"http_port": (1, 65535), "memory_max": (32, 1 << 20), "stop_timeout": (1, 3600)}


def setting_problems(settings: dict[str, Any], known: dict[str, dict[str, Any]]) -> list[str]:
    """What is wrong with the role's variables, whatever the node is."""
    problems = sources.source_problems(settings["sources"], known, settings["hosts"])
    url = str(settings["loki_url"])
    if not re.fullmatch(r"https?://(\[[0-9a-fA-F:.]+\]|[^\s/:@]+)(:\d+)?/?", url):
        problems.append(
            f"no usable Loki address: promtail_loki_url is '{re.sub('//[^/]*@', '//***@', url)}'. Set it to "
            "http://ADDRESS:PORT without a password, or set smolcluster_address of the controller to its address"
        )
    version, last = numbers(str(settings["version"])), ".".join(map(str, LAST_RELEASE))
    if not version:
        problems.append(f"promtail_version is '{settings['version']}'; it must be a version such as {last}")
    elif version > LAST_RELEASE and str(settings["base_url"]).startswith(OFFICIAL):
        problems.append(
            f"promtail_version {settings['version']} has no programs to download: {last} is the last release with "
            f"programs. Set promtail_version to {last}, or promtail_base_url to a server that has this version"
        )
    for name, (low, high) in RANGES.items():
        if not re.fullmatch(r"\d+", value := str(settings[name])) or not low <= int(value) <= high:
            problems.append(f"promtail_{name} is '{value}'; it must be a whole number from {low} to {high}")
    if not re.fullmatch(r"(\d+(\.\d+)?(ms|s|m))+", str(settings["batch_wait"])):
        problems.append(f"promtail_batch_wait is '{settings['batch_wait']}'; write it as 50ms or 1s")
    zone = str(settings["timezone"])
    if not sources.is_zone(zone):
        problems.append(f"unknown time zone '{zone}' in promtail_timezone; use Local or a name such as Asia/Kolkata")
    if not re.fullmatch(r"\d*|server", rank := str(settings["rank"])):
        problems.append(f"smolcluster_rank (or promtail_rank) is '{rank}'; it must be a whole number from 0, or server")
    return problems


def node_problems(settings: dict[str, Any], node: dict[str, Any]) -> list[str]:
    """Problems of the node that prevent a deployment.

    Parameters:
        settings: the role's variables.
        node: results of the module `agent_host_info`.
    """
    problems = []
    if not settings["platform"]:
        return [
            f"Promtail has no program for {node['system']} on {node['architecture']}; this role supports Linux on "
            "x86_64, aarch64 and armv7l, and macOS on arm64 and x86_64. Remove this host from the group"
        ]
    if not node["managed"]:
        if node["system"] == "Darwin":
            return ["/bin/launchctl is missing or does not run; this role needs it. Remove this host from the group"]
        return ["systemd is not the init system of this host; this role needs it. Remove this host from the group"]
    if not str(settings["platform"]).startswith(f"{node['system'].lower()}-"):
        problems.append(
            f"promtail_platform is {settings['platform']}, but this host runs {node['system']}. Remove the variable, "
            "or set it only for the host that needs it"
        )
    problems += name_problems(settings, node) + account_problems(settings, node) + macos_checks.problems(settings, node)
    version = numbers(str(settings["version"]))
    if node["system"] == "Linux" and version >= NEW_GLIBC_SINCE and not node["archive"]:
        found = node["glibc"]
        if not found or numbers(found) < NEW_GLIBC:
            problems.append(
                f"Promtail {settings['version']} needs glibc 2.34 or newer, but this host has "
                f"{found or 'another C library'}. Set promtail_version: 3.5.6 for this host, or upgrade its system"
            )
    if unsafe := node.get("unsafe_folder"):
        problems.append(
            f"an account other than root can change {unsafe}, and so replace what root installs and starts. Run "
            f"`chown root {unsafe}` and `chmod go-w {unsafe}` on this host"
        )
    problems += drop_in_problems(node)
    if node["foreign_unit"] and not settings["adopt"]:
        package = "".join(f" (package {name})" for name in node.get("packages", {}))
        problems.append(
            f"{node['foreign_unit']} exists already and was not created by this collection{package}. Set "
            "promtail_adopt: true to replace it, or remove this host from the group"
        )
    if node["home"] == "foreign" and not unsafe:
        problems.append(
            f"{settings['home']} exists already and was not created by this collection. Move it away, or remove this "
            "host from the group"
        )
    holder = node["port_holder"]
    foreign = [agent["pid"] for agent in node["foreign_agents"]]
    if holder and not (settings["adopt"] and holder["pid"] in foreign):
        way = (
            "set promtail_adopt: true to retire it"
            if holder["pid"] in foreign
            else "set promtail_http_port to a free port"
        )
        problems.append(
            f"port {settings['http_port']} is taken by {holder['command'] or 'a process that is not visible'} "
            f"(pid {holder['pid']}). Stop that program, or {way}"
        )
    return problems


def shared_problems(settings: dict[str, Any]) -> list[str]:
    """Files that several nodes would ship."""
    name, nodes = settings["name"], settings["nodes"]
    return shared.name_problems(settings["sources"], name, nodes) + shared.double(name, nodes)


def found_by_agent(settings: dict[str, Any], loki: dict[str, Any]) -> bool:
    """Whether the agent can resolve Loki's host; only Homebrew's build uses the resolver of the system."""
    return bool(loki["addresses"]) or (settings["install_method"] == "homebrew" and loki["known_to_system"])


def removal(path: str) -> str:
    """How to remove a systemd drop-in, as the end of a message."""
    hidden = f"/etc/systemd/system/promtail.service.d/{os.path.basename(path)}"
    way = (
        f"Remove it, or disable it for this service with a link {hidden} to /dev/null" if "/service.d/" in path else ""
    )
    return f"{way or 'Remove it'}; then run `systemctl daemon-reload` and `systemctl try-restart promtail`"


def drop_in_problems(node: dict[str, Any]) -> list[str]:
    """Drop-ins whose settings conflict with what this collection deploys."""
    return [
        f"{file['path']} sets {', '.join(file['breaking'])} for the agent's service, but only this collection may set "
        f"that. {removal(file['path'])}"
        for file in node.get("drop_ins", [])
        if file["breaking"]
    ]


def name_problems(settings: dict[str, Any], node: dict[str, Any]) -> list[str]:
    """Problems with the name of Loki's host, if the agent cannot resolve it."""
    loki = node["loki"]
    if not loki or found_by_agent(settings, loki):
        return []
    name, servers = loki["host"], ", ".join(loki["servers"])
    way = (
        "Set smolcluster_address of the controller (or promtail_loki_url) to its IP address, or add the name to "
        "/etc/hosts of this host"
    )
    if not loki["known_to_system"]:
        said = "do not know it" if loki["certain"] else "do not know it or do not answer"
        return [
            f"this host cannot resolve {name}, the name of Loki's machine: it is not in /etc/hosts, and the DNS "
            f"servers ({servers}) {said}. Nodes do not know names from the SSH configuration of the control node. {way}"
        ]
    if loki["certain"]:
        return [
            f"Promtail cannot resolve {name}, the name of Loki's machine: this host knows it from another source, such "
            f"as mDNS. Promtail uses only /etc/hosts and the DNS servers ({servers}), which do not have it. {way}"
        ]
    return []


def account_problems(settings: dict[str, Any], node: dict[str, Any]) -> list[str]:
    """Problems with the agent's account, if that is not the account that may read every file."""
    if settings["reads_all"]:
        return []
    user, linux = settings["user"], node["system"] == "Linux"
    if linux and node["uid"] == 0:
        return [
            f"promtail_user is {user}, but on Linux the agent never runs as root. Leave promtail_user empty: the role "
            "then creates the account promtail, which may read every file but write none"
        ]
    if node["user"] == "absent" and user != settings["account"]:
        return [
            f"there is no user '{user}' on this host. Set promtail_user to an existing user, or leave it empty for "
            f"{'promtail, which the role creates' if linux else 'root. The role creates _promtail if it is missing'}"
        ]
    problems = []
    if node["unreadable"]:
        problems.append(
            f"the account {user} cannot read {', '.join(node['unreadable'])}, a folder for log files. Set "
            "promtail_user to the account that trains, or leave it empty for "
            f"{'an account that' if linux else 'root, which'} may read every file, or let training write to a folder "
            "that everybody may read"
        )
    if not node["python_usable"]:
        problems.append(
            f"the account {user} may not run {node['python']}, which starts the agent. Set ansible_python_interpreter "
            "to a Python that every account may run, or leave promtail_user empty"
        )
    return problems


def notes(settings: dict[str, Any], node: dict[str, Any]) -> list[str]:
    """Notes on a deployment, which do not prevent it; each with the way out.

    Parameters:
        settings: the role's variables.
        node: results of the module `agent_host_info`.
    """
    found = []
    old = [agent["command"] for agent in node["foreign_agents"]] + node["foreign_positions"]
    if old and not settings["adopt"]:
        found.append(
            f"left over from a manual setup: {', '.join(old)}. Two agents on the same files send every line twice. "
            "Set promtail_adopt: true to retire the old one"
        )
    found += loki_notes(settings, node) + shared_folders.notes(node["folders"], settings["user"])
    if settings["reads_all"] and not node["python_of_root"]:
        right = "may read every file of" if node["system"] == "Linux" else "acts as root on"
        found.append(
            f"the agent is started by {node['python']}, which accounts other than root can change. An account that "
            f"changes it {right} this host. Install Python 3.9 or newer from the system's packages"
            f"{' (`xcode-select --install`)' if node['macos'] else ''}, or set ansible_python_interpreter to a Python "
            "that only root can change"
        )
    found += [
        f"{file['path']} sets {', '.join(file['others'])} for the agent's service; this is not changed. If you do not "
        f"want it: {removal(file['path'])}"
        for file in node.get("drop_ins", [])
        if file["others"]
    ]
    found += [
        f"the package {name} has a service with the same name: an upgrade or removal of the package can replace, stop "
        f"or remove this collection's service. Run `{command}` on this host, then run this again"
        for name, command in node.get("packages", {}).items()
    ]
    return found + (macos_checks.notes(settings, node) if node["macos"] else [])


def loki_notes(settings: dict[str, Any], node: dict[str, Any]) -> list[str]:
    """Note that Loki's host cannot be resolved now; none in check mode, where Loki may not be deployed yet."""
    loki = node["loki"]
    if not loki or settings["check_mode"]:
        return []
    if not found_by_agent(settings, loki):
        return [
            f"the DNS servers of this host ({', '.join(loki['servers'])}) do not answer, and Promtail can resolve "
            f"{loki['host']} only with them. Lines stay in their files and are sent when DNS works again. To work "
            "without DNS, set smolcluster_address of the controller to its IP address"
        ]
    return []


def problems(settings: dict[str, Any], folders: list[str], node: dict[str, Any]) -> list[str]:
    """Problems that prevent a deployment, each with its way out; empty without problems.

    Parameters:
        settings: `name` (of the node), `nodes` (see shared.py), `hosts` (all of the inventory), `sources`, `loki_url`,
            `version`, `base_url`, `timezone`, `rank`, `http_port`, `memory_max`,
            `stop_timeout`, `batch_wait`, `adopt`, `platform`, `home`, `user`, `account` (that the role creates),
            `reads_all` (whether the user may read every file), `install_method`, `homebrew_tap`, `full_disk_access`,
            `check_mode`.
        folders: folders of format presets; an empty one is skipped.
        node: results of the module `agent_host_info`.
    """
    try:
        known = presets.load(*folders)
    except presets.PresetError as error:
        return [str(error)]
    own = settings | {"sources": shared.watched(settings["sources"], settings["name"])}
    found = setting_problems(settings, known) + node_problems(own, node)
    return found or shared_problems(settings)
