# Copyright (c) SmolCluster contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module: facts of a host on which Loki and Grafana are to be deployed."""

from __future__ import annotations

DOCUMENTATION = r"""
module: log_store_info
short_description: Gather facts of a host for a deployment of Loki and Grafana
description:
  - Looks at the system, Docker, the ports and the images in one round trip.
  - Reads only.
author: [SmolCluster contributors (@smolcluster)]
attributes:
  check_mode: {support: full, description: It never changes anything.}
  diff_mode: {support: none, description: It never changes anything.}
options:
  project: {description: Name of the compose project., type: str, required: true}
  project_dir: {description: Folder that the project is to have., type: path, required: true}
  marker: {description: Name of the file that marks such a folder as ours., type: str, required: true}
  unit: {description: Path of the systemd unit that the role writes., type: path, required: true}
  unit_marker: {description: Text that marks such a unit as ours., type: str, required: true}
  ports: {description: TCP ports that the project is to publish., type: list, elements: int, default: []}
  addresses: {description: IP addresses that it is to publish them on., type: list, elements: str, default: []}
  images: {description: Names of images that the project needs., type: list, elements: str, default: []}
"""
EXAMPLES = r"""
- name: Look at the host
  smolcluster.logging.log_store_info:
    project: smolcluster-logging
    project_dir: /opt/smolcluster-logging
    marker: .managed-by-smolcluster-logging
    unit: /etc/systemd/system/smolcluster-logging.service
    unit_marker: Managed by smolcluster.logging
    ports: [3100]
    addresses: [0.0.0.0]
    images: ["grafana/loki:3.7.8"]
"""
RETURN = r"""
system: {description: Name of the operating system's kernel., returned: always, type: str, sample: Linux}
distribution: {description: C(ID) of os-release(5)., returned: always, type: str, sample: debian}
release: {description: C(VERSION_ID) of os-release(5)., returned: always, type: str, sample: '13'}
codename: {description: C(VERSION_CODENAME) of os-release(5)., returned: always, type: str, sample: trixie}
managed: {description: Whether systemd is the init system; always on a Mac., returned: always, type: bool}
uid: {description: Number of the account that was asked., returned: always, type: int}
gid: {description: Number of that account's group., returned: always, type: int}
home: {description: Home folder of the account that was asked., returned: always, type: str}
environment:
  description: Variables with which Docker's client finds the engine; empty where it finds it by itself.
  returned: always
  type: dict
docker: {description: Whether a program C(docker) is installed., returned: always, type: bool}
podman: {description: Whether that program or the engine behind it is Podman., returned: always, type: bool}
snap: {description: Whether that program comes from the snap store., returned: always, type: bool}
engine:
  description: Version of the running engine; empty when none answers.
  returned: always
  type: str
  sample: 26.1.5
engine_unit:
  description: System unit that the running engine belongs to; empty when none runs or it belongs to no unit.
  returned: always
  type: str
  sample: docker.service
docker_service:
  description: State of the unit file of C(docker.service), such as C(enabled) or C(masked); empty when there is none.
  returned: always
  type: str
  sample: enabled
compose: {description: Version of the compose plugin; empty without it., returned: always, type: str, sample: 2.26.1}
deployed: {description: Whether the project has containers., returned: always, type: bool}
foreign_folder:
  description: Whether the project's folder holds something, or is no folder, and is not marked as ours.
  returned: always
  type: bool
folder_error: {description: Why the account cannot look into that folder., returned: always, type: str}
unit: {description: 'The role''s systemd unit: C(ours), C(foreign) or C(absent).', returned: always, type: str}
taken:
  description: Ports that somebody else than the project listens on, each with its pid and command.
  returned: always
  type: dict
missing_addresses:
  description: Which of the addresses the host does not have.
  returned: always
  type: list
  elements: str
images: {description: Which of the images the engine has., returned: always, type: list, elements: str}
"""

import os
import socket
import stat
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.smolcluster.logging.plugins.module_utils import host
from ansible_collections.smolcluster.logging.plugins.module_utils.systems import darwin, linux

OS_RELEASE = Path("/etc/os-release")


def output(module: AnsibleModule, *argv: str) -> str:
    """What a command prints; empty when it fails."""
    code, out, _err = module.run_command(list(argv))
    return "" if code else out.strip()


def text_of(path: Path) -> str:
    """Text of a regular file, bytes that are no UTF-8 replaced; empty when it is none (a FIFO would block) or missing.

    Raises:
        OSError: the file cannot be read.
    """
    return path.read_text("utf-8", "replace") if path.is_file() else ""


def os_release() -> dict[str, str]:
    """Variables of os-release(5); empty where there is none. Python has this of its own since 3.10."""
    try:
        lines = text_of(OS_RELEASE).splitlines()
    except OSError:
        return {}
    return {name: value.strip("\"'") for name, _equals, value in (line.partition("=") for line in lines)}


def engine_of(module: AnsibleModule, docker: str) -> str:
    """Version of the engine that answers; empty when none does.

    On a Mac `DOCKER_HOST` becomes its address. What the account has chosen (`docker context use`) is kept to: another
    engine has other containers. Without a choice it is the first one that answers.
    """
    version = (docker, "version", "--format", "{{.Server.Version}}")
    if host.SYSTEM != "Darwin":
        return output(module, *version)
    chosen = output(module, docker, "context", "inspect", "--format", "{{.Endpoints.docker.Host}}")
    for address in [chosen, *(darwin.docker_hosts() if chosen == darwin.DOCKER_DEFAULT else [])]:
        # Colima's is often behind a link of the usual name.
        os.environ["DOCKER_HOST"] = (
            "unix://" + os.path.realpath(address[7:]) if address.startswith("unix://") else address
        )
        if found := output(module, *version):
            return found
    del os.environ["DOCKER_HOST"]
    return ""


def is_podman(module: AnsibleModule, docker: str) -> bool:
    """Whether a program called docker is Podman's (package podman-docker), or Docker's and talks to Podman's service.

    Source: containers/podman, pkg/api/handlers/compat/version.go (component `Podman Engine`).
    """
    components = output(module, docker, "version", "--format", "{{range .Server.Components}}{{.Name}} {{end}}")
    return "podman" in f"{output(module, docker, '--version')} {components}".lower()


def docker_service(module: AnsibleModule) -> dict[str, str]:
    """Properties of the unit docker.service, or of the one that has this name as an alias; empty without systemd."""
    if host.SYSTEM == "Darwin" or not host.Service.present():
        return {}
    shown = output(module, "systemctl", "show", "docker.service", "--property=Id,ActiveState,UnitFileState")
    return dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)


def engine_unit(service: dict[str, str]) -> str:
    """System unit of the running engine; see RETURN.

    Parameters:
        service: see `docker_service`.
    """
    if host.SYSTEM == "Darwin":
        return ""
    if service.get("ActiveState") == "active":
        return service["Id"]
    return next((unit for pid in host.processes_of("dockerd") if (unit := linux.unit_of(pid))), "")


def look_into(folder: Path, marker: str) -> tuple[bool, str]:
    """Whether a folder holds something that is not ours, and why that cannot be seen."""
    try:
        if not os.path.lexists(folder):
            return False, ""
        return not folder.is_dir() or (any(folder.iterdir()) and not (folder / marker).exists()), ""
    except OSError as error:
        return False, error.strerror


def owner_of(unit: Path, marker: str) -> str:
    """Whose a unit file is: `ours`, `foreign` or `absent`. A link, and a file that cannot be read, is foreign."""
    try:
        if not stat.S_ISREG(unit.lstat().st_mode):
            return "foreign"
        return "ours" if marker in text_of(unit) else "foreign"
    except FileNotFoundError:
        return "absent"
    except OSError:
        return "foreign"


def has_address(address: str) -> bool:
    """Whether this host has an IP address: a socket can be bound to it, on a port that the system chooses."""
    try:
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as probe:
            probe.bind((address, 0))
    except OSError:
        return False
    return True


def main() -> None:
    """Run the module; it has nothing to fail on."""
    module = AnsibleModule(
        argument_spec={
            "project": {"type": "str", "required": True},
            "project_dir": {"type": "path", "required": True},
            "marker": {"type": "str", "required": True},
            "unit": {"type": "path", "required": True},
            "unit_marker": {"type": "str", "required": True},
            "ports": {"type": "list", "elements": "int", "default": []},
            "addresses": {"type": "list", "elements": "str", "default": []},
            "images": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    release = os_release()
    if host.SYSTEM == "Darwin":
        os.environ["PATH"] = darwin.docker_path()
    # The snap's folder is not in the PATH of every way to become root.
    docker = module.get_bin_path("docker") or module.get_bin_path("docker", opt_dirs=["/snap/bin"])
    engine = engine_of(module, docker) if docker else ""
    service = docker_service(module)
    wanted = ("PATH", "DOCKER_HOST") if host.SYSTEM == "Darwin" else ()
    own = f"label=com.docker.compose.project={module.params['project']}"
    # `127.0.0.1:3000->3000/tcp, …`, one line a container
    published = output(module, docker, "ps", "--filter", own, "--format", "{{.Ports}}") if engine else ""
    holders = {port: host.system.listener(port) for port in module.params["ports"] if f":{port}->" not in published}
    foreign, error = look_into(Path(module.params["project_dir"]), module.params["marker"])
    module.exit_json(
        changed=False,
        system=os.uname().sysname,
        distribution=release.get("ID", ""),
        release=release.get("VERSION_ID", ""),
        codename=release.get("VERSION_CODENAME", ""),
        managed=host.Service.present(),
        uid=os.geteuid(),
        gid=os.getegid(),
        home=str(Path.home()),
        environment={name: os.environ[name] for name in wanted if name in os.environ},
        docker=bool(docker),
        podman=bool(docker) and is_podman(module, docker),
        snap=bool(docker) and docker.startswith("/snap/"),
        engine=engine,
        engine_unit=engine_unit(service),
        docker_service=service.get("UnitFileState", ""),
        compose=output(module, docker, "compose", "version", "--short") if docker else "",
        deployed=bool(engine and output(module, docker, "ps", "--all", "--quiet", "--filter", own)),
        foreign_folder=foreign,
        folder_error=error,
        unit=owner_of(Path(module.params["unit"]), module.params["unit_marker"]),
        taken={str(port): holder for port, holder in holders.items() if holder},
        missing_addresses=[address for address in module.params["addresses"] if not has_address(address)],
        images=[
            image for image in module.params["images"] if engine and output(module, docker, "image", "inspect", image)
        ],
    )


if __name__ == "__main__":
    main()
