# Copyright (c) SmolCluster contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""What stands against a deployment of Loki and Grafana."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Any

HOURS = {"h": 1, "d": 24, "w": 24 * 7}
# docker_compose_v2 of community.docker needs it.
COMPOSE_FLOOR = (2, 18)
# Oldest release of each distribution whose packages bring the compose plugin.
PACKAGED_SINCE = {"debian": 13.0, "ubuntu": 22.04}


def retention_hours(text: str) -> int | None:
    """Hours of a retention such as `30d`; none when it is not of that form."""
    found = re.fullmatch(r"(\d+)([hdw])", text)
    return int(found[1]) * HOURS[found[2]] if found else None


def is_loopback(address: str) -> bool:
    """Whether only this host reaches the address."""
    try:
        return ipaddress.ip_address(address.strip("[]")).is_loopback
    except ValueError:
        return address == "localhost"


def setting_problems(settings: dict[str, Any]) -> list[str]:
    """What is wrong with the role's variables, before anybody looks at the host."""
    problems = []
    hours = retention_hours(str(settings["retention"]))
    if hours is None or hours < HOURS["d"]:
        problems.append(
            f"docker_loki_grafana_retention is '{settings['retention']}'; Loki keeps lines for 24 hours at least. "
            "Write it as 30d, 4w or 720h"
        )
    if settings["docker_source"] not in ("distribution", "docker", "present"):
        problems.append("docker_loki_grafana_docker_source must be distribution, docker or present")
    address = str(settings["grafana_listen_address"])
    if settings["grafana_enabled"] and settings["grafana_default_password"] and not is_loopback(address):
        problems.append(
            f"Grafana would listen on {address} with the password that everybody knows. Set "
            "docker_loki_grafana_grafana_admin_password (in a vault), or leave "
            "docker_loki_grafana_grafana_listen_address at 127.0.0.1"
        )
    for image in settings["images"]:
        if image["file"] and not Path(image["file"]).expanduser().is_file():
            problems.append(f"{image['name']}: there is no image file {image['file']} on the control node")
        if image["file"] and image["digest"]:
            problems.append(f"{image['name']}: a digest is for images that are pulled; remove it, or the image file")
    return problems


def macos_problems(settings: dict[str, Any], host: dict[str, Any]) -> list[str]:
    """What stands against Docker on a Mac, where it runs in a virtual machine of one account and is never installed."""
    if host["uid"] == 0:
        return [
            "Docker on a Mac belongs to the account that has started it, not to root. Set ansible_become: false for "
            "this host in the inventory, and ansible_user to that account"
        ]
    problems = []
    found = tuple(int(part) for part in re.findall(r"\d+", host["compose"])[:2])
    if not host["docker"]:
        problems.append(
            "there is no Docker on this Mac. `brew install --cask docker-desktop` installs Docker Desktop; open it "
            "once, or use OrbStack or Colima"
        )
    elif not host["engine"]:
        problems.append(
            "Docker does not answer on this Mac. Start Docker Desktop (`open -a Docker`), OrbStack (`orb start`) or "
            "Colima (`colima start`) as the account that Ansible connects as, and let it start at login"
        )
    elif found < COMPOSE_FLOOR:
        problems.append(
            f"Docker's compose plugin is {host['compose'] or 'missing'}, 2.18 or newer is needed. `brew install "
            "docker-compose` installs it; it says what to add to ~/.docker/config.json"
        )
    # What the engines share with their virtual machines unless told otherwise.
    shared = [host["home"]] if "colima" in host["environment"].get("DOCKER_HOST", "") else ["/Users", "/Volumes"]
    if not any(Path(settings["project_dir"]).is_relative_to(folder) for folder in shared):
        problems.append(
            f"containers on this Mac see folders below {' and '.join(shared)} only. Set "
            f"docker_loki_grafana_project_dir: {host['home']}/smolcluster-logging for this host"
        )
    return problems


def docker_problems(source: str, host: dict[str, Any]) -> list[str]:
    """What stands against Docker on this host: not there and not to be installed, or too old."""
    if host["docker"] and host["compose"]:
        found = tuple(int(part) for part in re.findall(r"\d+", host["compose"])[:2])
        if found < COMPOSE_FLOOR:
            return [f"the compose plugin is {host['compose']}, 2.18 or newer is needed. Upgrade it"]
        if not host["engine"] and not host["managed"]:
            return ["Docker is installed but does not answer. Start it (`docker info` must succeed)"]
        return []
    if host["docker"]:
        return [
            "Docker is there without its compose plugin, and this role does not change an installed Docker. Install "
            "the plugin's package: docker-compose-plugin (Docker's own), docker-compose-v2 (Ubuntu) or docker-compose "
            "(Debian 13)"
        ]
    name = f"{host['distribution']} {host['release']}"
    if source == "present":
        return [
            "Docker is missing and docker_loki_grafana_docker_source is present. Install it (`docker compose "
            "version` must succeed), or set that variable to distribution or docker"
        ]
    if host["distribution"] not in PACKAGED_SINCE:
        return [f"Docker is missing and this role cannot install it on {name}. Install Docker with its compose plugin"]
    if source == "distribution" and float(host["release"] or 0) < PACKAGED_SINCE[host["distribution"]]:
        return [
            f"Docker is missing and {name} has no package of the compose plugin. Set "
            "docker_loki_grafana_docker_source: docker, or install Docker with its compose plugin"
        ]
    return []


def problems(settings: dict[str, Any], host: dict[str, Any]) -> list[str]:
    """Everything that stands against a deployment, in words for the user; empty when nothing does.

    Parameters:
        settings: `project_dir`, `docker_source`, `retention`, `grafana_enabled`, `grafana_listen_address`,
            `grafana_default_password` (whether it is the well-known one), `ports` (number by the variable that sets
            it) and `images` (list of `name`, `digest`, `file`).
        host: results of the module `controller_info`.
    """
    found = setting_problems(settings)
    if host["system"] == "Darwin":
        found += macos_problems(settings, host)
    elif host["system"] == "Linux":
        found += docker_problems(settings["docker_source"], host)
    else:
        words = f"this role supports Linux and macOS, not {host['system']}. Take another host as the controller"
        return [*found, words]
    if host["foreign_folder"]:
        found.append(
            f"{settings['project_dir']} holds something that is not ours. Set docker_loki_grafana_project_dir to a "
            "folder that is empty or does not exist"
        )
    for variable, port in settings["ports"].items():
        if holder := host["taken"].get(str(port)):
            found.append(
                f"port {port} is taken by {holder['command'] or 'an unseen process'} (pid {holder['pid']}). "
                f"End that program, or set {variable} to a free port"
            )
    return found
