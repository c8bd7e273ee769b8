# Copyright (c) SmolCluster contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module: facts of a host for a deployment of Loki and Grafana."""

from __future__ import annotations

DOCUMENTATION = r"""
module: log_store_info
short_description: Gather facts of a host for a deployment of Loki and Grafana
description:
  - Reads the system, Docker, the ports and the images in one round trip.
  - It changes nothing.
author: [SmolCluster contributors (@smolcluster)]
attributes:
  check_mode: {support: full, description: It never changes anything.}
  diff_mode: {support: none, description: It never changes anything.}
options:
  project: {description: Name of the compose project., type: str, required: true}
  project_dir: {description: Folder of the project., type: path, required: true}
  marker: {description: Name of the file that marks the folder as made by this collection., type: str, required: true}
  unit: {description: Path of the systemd unit that the role writes., type: path, required: true}
  unit_marker: {description: Text that marks the unit as written by this collection., type: str, required: true}
  ports: {description: TCP ports that the project publishes., type: list, elements: int, default: []}
  addresses: {description: IP addresses that the ports are published on., type: list, elements: str, default: []}
  images: {description: Names of images that the project needs., type: list, elements: str, default: []}
"""
EXAMPLES = r"""
- name: Read the facts of the host
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
uid: {description: User ID that the module ran with., returned: always, type: int}
gid: {description: Group ID that the module ran with., returned: always, type: int}
home: {description: Home folder of that account., returned: always, type: str}
environment:
  description: Variables that Docker's client needs to find the engine; empty where it needs none.
  returned: always
  type: dict
docker: {description: Whether a program C(docker) is installed., returned: always, type: bool}
podman: {description: Whether that program is Podman or talks to Podman., returned: always, type: bool}
snap: {description: Whether that program comes from the snap store., returned: always, type: bool}
engine:
  description: Version of the running engine; empty when none answers.
  returned: always
  type: str
  sample: 26.1.5
engine_unit:
  description: System unit of the running engine; empty when no engine runs or it runs outside a unit.
  returned: always
  type: str
  sample: docker.service
docker_service:
  description: State of the unit file of C(docker.service), such as C(enabled) or C(masked); empty without that unit.
  returned: always
  type: str
  sample: enabled
compose: {description: Version of the compose plugin; empty without it., returned: always, type: str, sample: 2.26.1}
deployed: {description: Whether the project has containers., returned: always, type: bool}
foreign_folder:
  description: Whether the folder exists without this collection's marker and is not empty, or is not a folder.
  returned: always
  type: bool
folder_error: {description: Why the account cannot read that folder; empty when it can., returned: always, type: str}
unit: {description: 'The role''s systemd unit: C(ours), C(foreign) or C(absent).', returned: always, type: str}
taken:
  description: Ports that a program outside the project listens on, each with its pid and command.
  returned: always
  type: dict
missing_addresses:
  description: Those of O(addresses) that the host does not have.
  returned: always
  type: list
  elements: str
images: {description: Those of O(images) that the engine has., returned: always, type: list, elements: str}
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
    """Standard output of a command; empty when it fails."""
    code, out, _err = module.run_command(list(argv))
    return "" if code else out.strip()


def text_of(path: Path) -> str:
    """Text of a regular file, invalid UTF-8 replaced; empty for a missing file or another type (a FIFO would block).

    Raises:
        OSError: the file cannot be read.
    """
    return path.read_text("utf-8", "replace") if path.is_file() else ""


def os_release() -> dict[str, str]:
    """Variables of os-release(5); empty where the file is missing. Python has a function for this since 3.10."""
    try:
        lines = text_of(OS_RELEASE).splitlines()
    except OSError:
        return {}
    return {name: value.strip("\"'") for name, _equals, value in (line.partition("=") for line in lines)}


def engine_of(module: AnsibleModule, docker: str) -> str:
    """Version of the engine that answers; empty when none does.

    On a Mac this sets `DOCKER_HOST` to the address of the engine. Where the account has chosen one (`docker context
    use`), only that one is tried, because another engine has other containers. Otherwise it is the first that answers.
    """
    version = (docker, "version", "--format", "{{.Server.Version}}")
    if host.SYSTEM != "Darwin":
        return output(module, *version)
    chosen = output(module, docker, "context", "inspect", "--format", "{{.Endpoints.docker.Host}}")
    for address in [chosen, *(darwin.docker_hosts() if chosen == darwin.DOCKER_DEFAULT else [])]:
        # The usual path is often a link to Colima's socket.
        os.environ["DOCKER_HOST"] = (
            "unix://" + os.path.realpath(address[7:]) if address.startswith("unix://") else address
        )
        if found := output(module, *version):
            return found
    del os.environ["DOCKER_HOST"]
    return ""


def is_podman(module: AnsibleModule, docker: str) -> bool:
    """Whether the program docker is Podman (package podman-docker), or Docker's client that talks to Podman's service.

    Source: containers/podman, pkg/api/handlers/compat/version.go (component `Podman Engine`).
    """
    components = output(module, docker, "version", "--format", "{{range .Server.Components}}{{.Name}} {{end}}")
    return "podman" in f"{output(module, docker, '--version')} {components}".lower()


def docker_service(module: AnsibleModule) -> dict[str, str]:
    """Properties of the unit docker.service, or of the unit with this alias; empty without systemd."""
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
    """Whether a folder holds files that this collection did not make, and the error when it cannot be read."""
    try:
        if not os.path.lexists(folder):
            return False, ""
        return not folder.is_dir() or (any(folder.iterdir()) and not (folder / marker).exists()), ""
    except OSError as error:
        return False, error.strerror


def owner_of(unit: Path, marker: str) -> str:
    """Owner of a unit file: `ours`, `foreign` or `absent`. A link or an unreadable file counts as foreign."""
    try:
        if not stat.S_ISREG(unit.lstat().st_mode):
            return "foreign"
        return "ours" if marker in text_of(unit) else "foreign"
    except FileNotFoundError:
        return "absent"
    except OSError:
        return "foreign"


def has_address(address: str) -> bool:
    """Whether this host has an IP address: whether a socket can be bound to it, on a port that the system chooses."""
    try:
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as probe:
            probe.bind((address, 0))
    except OSError:
        return False
    return True


def main() -> None:
    """Run the module; nothing makes it fail."""
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
    # Not every way to become root has the folder of snap in its PATH.
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
