# Copyright (c) SmolCluster contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Facts of Docker and the controller that a deployment of Loki and Grafana needs."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.smolcluster.logging.plugins.module_utils import archive, host, layout, logcli
from ansible_collections.smolcluster.logging.plugins.module_utils.systems import linux
from ansible_collections.smolcluster.logging.plugins.module_utils.systems.darwin import PREFIXES

# In an account's home: where Docker Desktop, OrbStack and Colima put the client and the sockets of their engines.
# Sources: the manuals of Docker Desktop (advanced settings), OrbStack (docs.orbstack.dev/docker) and Colima (FAQ).
DOCKER_PROGRAMS = (".orbstack/bin", ".docker/bin")
DOCKER_DEFAULT = "unix:///var/run/docker.sock"
DOCKER_SOCKETS = (".docker/run", ".orbstack/run", ".colima/default", ".config/colima/default")
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
    for address in [chosen, *(docker_hosts() if chosen == DOCKER_DEFAULT else [])]:
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


def owner_of_command(command: Path, project: Path, marker: str) -> str:
    """Owner of the command cluster-logs: `ours`, `foreign` or `absent`.

    Parameters:
        command: the link to it in a folder of the PATH.
        project: folder of the project.
        marker: name of the file that marks a folder of the project as made by this collection.
    """
    if not os.path.lexists(command):
        return "absent"
    if not command.is_symlink():
        return "foreign"
    target = Path(os.readlink(command))
    ours = target == project / "bin" / command.name or (target.parent.parent / marker).exists()
    return "ours" if ours else "foreign"


def platform_of(system: str) -> str:
    """Platform in the names of release archives; empty when there is none for this host.

    Parameters:
        system: name of the kernel.
    """
    known = layout.layout_of(logcli.NAME, system).platforms if system in layout.SYSTEMS else {}
    return known.get(host.system.architecture(), "")


def has_address(address: str) -> bool:
    """Whether this host has an IP address: whether a socket can be bound to it, on a port that the system chooses."""
    try:
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as probe:
            probe.bind((address, 0))
    except OSError:
        return False
    return True


def docker_path() -> str:
    """`PATH` with every folder where this account may have Docker's client."""
    programs = [f"{prefix}/bin" for prefix in PREFIXES] + [str(Path.home() / place) for place in DOCKER_PROGRAMS]
    return ":".join([*programs, "/usr/bin", "/bin", "/usr/sbin", "/sbin"])


def docker_hosts() -> list[str]:
    """Addresses of engines that this account may have started; a stopped engine may have left its socket."""
    sockets = [Path.home() / place / "docker.sock" for place in DOCKER_SOCKETS]
    return [f"unix://{path}" for path in sockets if path.is_socket()]


def as_composed(module: AnsibleModule, docker: str, own: str) -> bool:
    """Whether every service of the compose file runs, is healthy, and has the settings of the file.

    Compose stores a digest of a service's settings in a label of its container, and replaces the container when they
    differ (docker/compose, pkg/compose/convergence.go); `config --hash` prints those of the file.

    Parameters:
        module: the module `log_store_info`.
        docker: path of Docker's client.
        own: filter for the containers of the project.
    """
    project = ("--project-directory", module.params["project_dir"])
    wanted = output(module, docker, "compose", *project, "config", "--hash=*")
    labels = ("com.docker.compose.service", "com.docker.compose.config-hash")
    columns = " ".join(f'{{{{.Label "{label}"}}}}' for label in labels) + " {{.State}} {{.Status}}"
    running = {}
    for line in output(module, docker, "ps", "--all", "--filter", own, "--format", columns).splitlines():
        service, digest, state, status = [*line.split(maxsplit=3), "", "", ""][:4]
        running[service] = digest if state == "running" and "(healthy)" in status else ""
    return bool(wanted) and running == dict(line.split() for line in wanted.splitlines())


def gather(module: AnsibleModule) -> dict[str, Any]:
    """Facts of the controller.

    Parameters:
        module: the module `log_store_info`; gives parameters and commands.

    Returns:
        Results of the module.
    """
    release = os_release()
    if host.SYSTEM == "Darwin":
        os.environ["PATH"] = docker_path()
    # Not every way to become root has the folder of snap in its PATH.
    docker = module.get_bin_path("docker") or module.get_bin_path("docker", opt_dirs=["/snap/bin"])
    engine = engine_of(module, docker) if docker else ""
    service = docker_service(module)
    wanted = ("PATH", "DOCKER_HOST") if host.SYSTEM == "Darwin" else ()
    own = f"label=com.docker.compose.project={module.params['project']}"
    # `127.0.0.1:3000->3000/tcp, …`, one line per container
    published = output(module, docker, "ps", "--filter", own, "--format", "{{.Ports}}") if engine else ""
    holders = {port: host.system.listener(port) for port in module.params["ports"] if f":{port}->" not in published}
    project, marker = Path(module.params["project_dir"]), module.params["marker"]
    foreign, error = look_into(project, marker)
    return {
        "system": os.uname().sysname,
        "platform": platform_of(os.uname().sysname),
        "distribution": release.get("ID", ""),
        "release": release.get("VERSION_ID", ""),
        "codename": release.get("VERSION_CODENAME", ""),
        "managed": host.Service.present(),
        "uid": os.geteuid(),
        "gid": os.getegid(),
        "home": str(Path.home()),
        "environment": {name: os.environ[name] for name in wanted if name in os.environ},
        "docker": bool(docker),
        "podman": bool(docker) and is_podman(module, docker),
        "snap": bool(docker) and docker.startswith("/snap/"),
        "engine": engine,
        "engine_unit": engine_unit(service),
        "docker_service": service.get("UnitFileState", ""),
        "compose": output(module, docker, "compose", "version", "--short") if docker else "",
        "deployed": bool(engine and output(module, docker, "ps", "--all", "--quiet", "--filter", own)),
        "as_composed": bool(engine) and not foreign and as_composed(module, docker, own),
        "files": archive.digests(module.params["files"]),
        "foreign_folder": foreign,
        "folder_error": error,
        "units": {unit: owner_of(Path(unit), module.params["unit_marker"]) for unit in module.params["units"]},
        "command": owner_of_command(Path(module.params["command"]), project, marker),
        "logcli": archive.origin_of(project / logcli.NAME, module.params["logcli_version"], logcli.NAME),
        "taken": {str(port): holder for port, holder in holders.items() if holder},
        "missing_addresses": [address for address in module.params["addresses"] if not has_address(address)],
        "images": [
            image for image in module.params["images"] if engine and output(module, docker, "image", "inspect", image)
        ],
    }
