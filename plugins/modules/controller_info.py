# Copyright (c) SmolCluster contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module: what a host says of itself before Loki and Grafana are deployed on it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: controller_info
short_description: Gather what a deployment of Loki and Grafana has to know of a host
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
  ports: {description: TCP ports that the project is to publish., type: list, elements: int, required: true}
  images: {description: Names of images that the project needs., type: list, elements: str, required: true}
"""
EXAMPLES = r"""
- name: Look at the host
  smolcluster.logging.controller_info:
    project: smolcluster-logging
    project_dir: /opt/smolcluster-logging
    marker: .managed-by-smolcluster-logging
    ports: [3100]
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
docker: {description: Whether Docker is installed., returned: always, type: bool}
engine:
  description: Version of the running engine; empty when none answers.
  returned: always
  type: str
  sample: 26.1.5
compose: {description: Version of the compose plugin; empty without it., returned: always, type: str, sample: 2.26.1}
deployed: {description: Whether the project has containers., returned: always, type: bool}
foreign_folder:
  description: Whether the project's folder holds something and is not marked as ours.
  returned: always
  type: bool
taken:
  description: Ports that somebody else than the project listens on, each with its pid and command.
  returned: always
  type: dict
images: {description: Which of the images the engine has., returned: always, type: list, elements: str}
"""

import os
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.smolcluster.logging.plugins.module_utils import darwin, host


def output(module: AnsibleModule, *words: str) -> str:
    """What a command prints; empty when it fails."""
    code, out, _err = module.run_command(list(words))
    return "" if code else out.strip()


def os_release() -> dict[str, str]:
    """Variables of os-release(5); empty where there is none. Python has this of its own since 3.10."""
    try:
        lines = Path("/etc/os-release").read_text().splitlines()
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


def main() -> None:
    """Run the module; it has nothing to fail on."""
    module = AnsibleModule(
        argument_spec={
            "project": {"type": "str", "required": True},
            "project_dir": {"type": "path", "required": True},
            "marker": {"type": "str", "required": True},
            "ports": {"type": "list", "elements": "int", "required": True},
            "images": {"type": "list", "elements": "str", "required": True},
        },
        supports_check_mode=True,
    )
    release = os_release()
    folder = Path(module.params["project_dir"])
    if host.SYSTEM == "Darwin":
        os.environ["PATH"] = darwin.docker_path()
    docker = module.get_bin_path("docker")
    engine = engine_of(module, docker) if docker else ""
    wanted = ("PATH", "DOCKER_HOST") if host.SYSTEM == "Darwin" else ()
    own = f"label=com.docker.compose.project={module.params['project']}"
    # `127.0.0.1:3000->3000/tcp, …`, one line a container
    published = output(module, docker, "ps", "--filter", own, "--format", "{{.Ports}}") if engine else ""
    holders = {port: host.own.listener(port) for port in module.params["ports"] if f":{port}->" not in published}
    module.exit_json(
        changed=False,
        system=os.uname().sysname,
        distribution=release.get("ID", ""),
        release=release.get("VERSION_ID", ""),
        codename=release.get("VERSION_CODENAME", ""),
        managed=host.manager.present(),
        uid=os.geteuid(),
        gid=os.getegid(),
        home=str(Path.home()),
        environment={name: os.environ[name] for name in wanted if name in os.environ},
        docker=bool(docker),
        engine=engine,
        compose=output(module, docker, "compose", "version", "--short") if docker else "",
        deployed=bool(engine and output(module, docker, "ps", "--all", "--quiet", "--filter", own)),
        foreign_folder=folder.is_dir() and any(folder.iterdir()) and not (folder / module.params["marker"]).exists(),
        taken={str(port): holder for port, holder in holders.items() if holder},
        images=[
            image for image in module.params["images"] if engine and output(module, docker, "image", "inspect", image)
        ],
    )


if __name__ == "__main__":
    main()
