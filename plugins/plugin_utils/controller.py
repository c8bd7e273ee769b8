# Copyright (c) SmolCluster contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Find the problems that prevent a deployment of Loki and Grafana."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Any

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

HOURS = {"h": 1, "d": 24, "w": 24 * 7}
# docker_compose_v2 of community.docker needs it.
COMPOSE_FLOOR = (2, 18)
# Oldest release of each distribution whose packages bring the compose plugin.
PACKAGED_SINCE = {"debian": 13.0, "ubuntu": 22.04}


def retention_hours(text: str) -> int | None:
    """Hours of a retention such as `30d`; None when it does not have that form."""
    found = re.fullmatch(r"(\d+)([hdw])", text)
    return int(found[1]) * HOURS[found[2]] if found else None


def parse_address(text: str) -> Address:
    """Read an address to listen on.

    Parameters:
        text: an IPv4 or IPv6 address, the latter with or without brackets, or `localhost`, which is 127.0.0.1.

    Returns:
        The address; for an IPv4 address that is written as IPv6 (`::ffff:192.0.2.1`) the IPv4 one.

    Raises:
        ValueError: Docker cannot publish a port on it; the text says why. A host name is refused, too: in `host_ip`
            Compose treats it as "every address" (tried with 2.26), and in a short port it refuses the file.
    """
    plain = text[1:-1] if re.fullmatch(r"\[.*:.*\]", text := str(text)) else text
    try:
        address = ipaddress.ip_address("127.0.0.1" if plain == "localhost" else plain)
    except ValueError:
        raise ValueError("that is not an IP address, and Docker publishes ports on nothing else") from None
    if address.version == 6:
        if address.is_link_local or address.scope_id:
            raise ValueError("that address is valid on one network interface only")
        address = address.ipv4_mapped or address
    if address.is_multicast or str(address) == "255.255.255.255":
        raise ValueError("that is a multicast or broadcast address")
    return address


def listen_address(text: str) -> dict[str, Any]:
    """What Docker and URLs need of an address to listen on.

    Parameters:
        text: see `parse_address`.

    Returns:
        `bind`: addresses that Docker publishes a port on. `::` means every address, IPv4 and IPv6, as in other
        programs; Docker on its own reads it as IPv6 only (tried with 26.1). `url`: host part of a URL at which the
        host itself reaches the port. Both are empty when the address cannot be used; `problems` reports that first.
    """
    try:
        address = parse_address(text)
    except ValueError:
        return {"bind": [], "url": ""}
    if address.is_unspecified:
        return {"bind": ["0.0.0.0", "::"] if address.version == 6 else ["0.0.0.0"], "url": "127.0.0.1"}  # noqa: S104
    return {"bind": [str(address)], "url": f"[{address}]" if address.version == 6 else str(address)}


def is_loopback(text: str) -> bool:
    """Whether only this host can reach an address to listen on; False when it is not a valid address."""
    try:
        return parse_address(text).is_loopback
    except ValueError:
        return False


def address_problems(listen: dict[str, str], missing: list[str]) -> list[str]:
    """What is wrong with the addresses to listen on.

    Parameters:
        listen: address by the variable that sets it.
        missing: addresses, as `listen_address` names them, that the host does not have.
    """
    problems = []
    for variable, text in listen.items():
        try:
            parse_address(text)
        except ValueError as error:
            problems.append(
                f"{variable} is '{text}': {error}. Set it to 127.0.0.1 (this host only), 0.0.0.0 (every address) or "
                "one address of this host"
            )
            continue
        absent = [address for address in listen_address(text)["bind"] if address in missing]
        if "::" in absent:
            problems.append(f"{variable} is '{text}', and this host has no IPv6. Set it to 0.0.0.0")
        elif absent:
            problems.append(
                f"{variable} is '{text}', an address that this host does not have now. Bring its network interface "
                "up, or set the variable to 0.0.0.0 or to an address that this host has"
            )
    return problems


def port_problems(ports: dict[str, Any]) -> list[str]:
    """What is wrong with the values of the ports, whether or not they are in use.

    Parameters:
        ports: port by the variable that sets it, as the user wrote it.
    """
    problems = [
        f"{variable} is '{port}'; it must be a whole number from 1 to 65535"
        for variable, port in ports.items()
        if not re.fullmatch(r"[1-9][0-9]{0,4}", str(port)) or int(port) > 65535
    ]
    by_port: dict[str, list[str]] = {}
    for variable, port in ports.items():
        by_port.setdefault(str(port), []).append(variable)
    return problems + [
        f"{' and '.join(variables)} are both {port}. Give each its own port"
        for port, variables in by_port.items()
        if len(variables) > 1
    ]


def image_problems(images: list[dict[str, str]]) -> list[str]:
    """What is wrong with the images: see `problems`, `images`."""
    problems = []
    for image in images:
        if image["file"] and not Path(image["file"]).expanduser().is_file():
            problems.append(f"{image['name']}: there is no image file {image['file']} on the control node")
        if image["file"] and image["digest"]:
            problems.append(
                f"{image['name']}: a digest works only for an image that is pulled. Remove the digest or the image file"
            )
        if image["digest"] and not re.fullmatch(r"sha256:[0-9a-f]{64}", image["digest"]):
            problems.append(
                f"{image['name']}: '{image['digest']}' is not a digest. Write it as sha256: and 64 digits from 0 to f"
            )
    return problems


def setting_problems(settings: dict[str, Any]) -> list[str]:
    """What is wrong with the role's variables, whatever the host is."""
    problems = []
    hours = retention_hours(str(settings["retention"]))
    if hours is None or hours < HOURS["d"]:
        problems.append(
            f"docker_loki_grafana_retention is '{settings['retention']}'; the minimum is 24 hours. "
            "Write it as 30d, 4w or 720h"
        )
    if str(settings["max_disk"]) and not re.fullmatch(r"[1-9][0-9]*[GT]B", str(settings["max_disk"])):
        problems.append(
            f"docker_loki_grafana_max_disk is '{settings['max_disk']}'. Write it as 20GB or 1TB, or "
            "leave it empty for no limit"
        )
    if settings["docker_source"] not in ("distribution", "docker", "present"):
        problems.append("docker_loki_grafana_docker_source must be distribution, docker or present")
    address = settings["listen"].get("docker_loki_grafana_grafana_listen_address")
    if address is not None and settings["grafana_default_password"] and not is_loopback(address):
        problems.append(
            f"Grafana would listen on {address} with the default password. Set "
            "docker_loki_grafana_grafana_admin_password (in a vault), or leave "
            "docker_loki_grafana_grafana_listen_address at 127.0.0.1"
        )
    if not settings["grafana_password_is_one_line"]:
        problems.append(
            "docker_loki_grafana_grafana_admin_password has a line feed or another control character, which "
            "Grafana does not keep. Often a tool for vaults adds it at the end: write the password without it"
        )
    if not settings["grafana_password_is_long_enough"]:
        problems.append(
            "docker_loki_grafana_grafana_admin_password has less than five characters, which Grafana refuses. Set a "
            "longer one"
        )
    return problems + port_problems(settings["ports"]) + image_problems(settings["images"])


def client_problems(host: dict[str, Any]) -> list[str]:
    """Programs named docker that this role cannot use.

    Sources: docker_compose_v2 does not work with Podman (ansible-collections/community.docker#891); Docker from the
    snap store has no access to folders outside home folders (canonical/docker-snap#188).
    """
    if host["podman"]:
        return [
            "the command docker on this host runs Podman, which this role cannot use. Install Docker with its compose "
            "plugin instead (remove podman-docker first), or use another host as the controller"
        ]
    if host["snap"]:
        return [
            "Docker on this host comes from the snap store and has access to home folders only, so this role cannot "
            "use it. Remove it (`snap remove docker`) and run again, or use another host as the controller"
        ]
    return []


def macos_problems(settings: dict[str, Any], host: dict[str, Any]) -> list[str]:
    """What prevents a deployment on a Mac. Docker must run there already, in a virtual machine of one account."""
    if host["uid"] == 0:
        return [
            "Docker on a Mac belongs to the account that started it, not to root. Set ansible_become: false for this "
            "host in the inventory, and ansible_user to that account"
        ]
    problems = client_problems(host)
    found = tuple(int(part) for part in re.findall(r"\d+", host["compose"])[:2])
    if not host["docker"]:
        problems.append(
            "there is no Docker on this Mac. `brew install --cask docker-desktop` installs Docker Desktop; open it "
            "once, or use OrbStack or Colima"
        )
    elif not host["engine"]:
        problems.append(
            "Docker does not answer on this Mac. Start Docker Desktop (`open -a Docker`), OrbStack (`orb start`) or "
            "Colima (`colima start`) as the account that Ansible uses, and make it start at login"
        )
    elif found < COMPOSE_FLOOR:
        problems.append(
            f"Docker's compose plugin is {host['compose'] or 'missing'}, but 2.18 or newer is needed. `brew install "
            "docker-compose` installs it, and prints what to add to ~/.docker/config.json"
        )
    # What the engines share with their virtual machines by default.
    shared = [host["home"]] if "colima" in host["environment"].get("DOCKER_HOST", "") else ["/Users", "/Volumes"]
    if not any(Path(settings["project_dir"]).is_relative_to(folder) for folder in shared):
        problems.append(
            f"containers on this Mac have access only to folders below {' and '.join(shared)}. Set "
            f"docker_loki_grafana_project_dir: {host['home']}/smolcluster-logging for this host"
        )
    return problems


def missing_docker_problems(source: str, host: dict[str, Any]) -> list[str]:
    """Why the role cannot install Docker on a Linux host that has none."""
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
    if not host["managed"]:
        return [
            "Docker is missing, and this role cannot start it after an installation because this host has no systemd. "
            "Install Docker with its compose plugin and start it (`docker info` must succeed)"
        ]
    return []


def docker_problems(source: str, host: dict[str, Any]) -> list[str]:
    """What is wrong with Docker on a Linux host: not Docker, too old, stopped, or missing and not installable."""
    if problems := client_problems(host):
        return problems
    if not host["docker"]:
        return missing_docker_problems(source, host)
    if not host["compose"]:
        return [
            "Docker is installed without its compose plugin, and this role does not change an installed Docker. "
            "Install the plugin's package: docker-compose-plugin (from Docker), docker-compose-v2 (Ubuntu) or "
            "docker-compose (Debian 13)"
        ]
    if tuple(int(part) for part in re.findall(r"\d+", host["compose"])[:2]) < COMPOSE_FLOOR:
        return [f"the compose plugin is {host['compose']}, but 2.18 or newer is needed. Upgrade it"]
    if host["engine"] or (host["managed"] and host["docker_service"] == "enabled"):
        return []
    if host["docker_service"]:
        return [
            f"Docker does not answer and its unit docker.service is {host['docker_service']} on this host, so this "
            "role does not start it. Enable and start it (`systemctl enable --now docker`), or start the engine that "
            "this host uses (`docker info` must succeed)"
        ]
    return [
        "Docker is installed but does not answer, and this host has no unit docker.service. Start the engine as usual "
        "on this host (`docker info` must succeed)"
    ]


def problems(settings: dict[str, Any], host: dict[str, Any]) -> list[str]:
    """All problems that prevent a deployment, as sentences for the user; empty when there is none.

    Parameters:
        settings: `project_dir`, `docker_source`, `retention`, `grafana_default_password` (whether it is `admin` or
            empty), `grafana_password_is_one_line` (whether it has no control character),
            `grafana_password_is_long_enough`, `listen` (address by the variable that sets it; without Grafana's when
            that is off), `ports` (port by the variable that sets it), `images` (list of `name`, `digest`, `file`),
            `max_disk` (text, empty for none) and `command` (path of cluster-logs).
        host: results of the module `log_store_info`.
    """
    found = setting_problems(settings) + address_problems(settings["listen"], host["missing_addresses"])
    if host["system"] == "Darwin":
        found += macos_problems(settings, host)
    elif host["system"] != "Linux":
        message = f"this role supports Linux and macOS, not {host['system']}. Use another host as the controller"
        return [*found, message]
    elif host["uid"] != 0:
        # An account other than root sees too little of the host for any further check.
        message = (
            f"this role needs root on this host, but Ansible runs there with user ID {host['uid']}. Remove "
            "ansible_become: false and ansible_become_user for this host (add --ask-become-pass if sudo asks for a "
            "password)"
        )
        return [*found, message]
    else:
        found += docker_problems(settings["docker_source"], host)
    if settings["max_disk"] and not (host["system"] == "Linux" and host["managed"]):
        found.append(
            "docker_loki_grafana_max_disk needs Linux with systemd on the controller. Remove it, and set "
            "docker_loki_grafana_retention to what the disk can hold"
        )
    if host["foreign_folder"]:
        found.append(
            f"{settings['project_dir']} holds files that this collection did not create. Set "
            "docker_loki_grafana_project_dir to a folder that is empty or does not exist"
        )
    if host["folder_error"]:
        found.append(
            f"{settings['project_dir']} cannot be used: {host['folder_error']}. Set docker_loki_grafana_project_dir "
            "to a folder of the account that Ansible uses"
        )
    if not host["platform"]:
        found.append(
            f"there is no logcli, Loki's client, for {host['system']} on this host's processor. Use a host with a "
            "processor of x86_64, arm64 or ARMv7 as the controller"
        )
    if host["command"] == "foreign":
        found.append(f"{settings['command']} exists and was not created by this collection. Move it away")
    for unit in (unit for unit, owner in host["units"].items() if owner == "foreign"):
        found.append(f"{unit} exists and was not created by this collection. Move it away")
    for variable, port in settings["ports"].items():
        if holder := host["taken"].get(str(port)):
            unseen = "a program that this account cannot see"
            who = f"{holder['command']} (pid {holder['pid']})" if holder["pid"] else unseen
            found.append(f"port {port} is taken by {who}. Stop that program, or set {variable} to a free port")
    return found
