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
  units: {description: Paths of the systemd units that the role writes., type: list, elements: path, required: true}
  unit_marker: {description: Text that marks a unit as written by this collection., type: str, required: true}
  command: {description: Path of the command cluster-logs., type: path, required: true}
  logcli_version: {description: Version of logcli that the project needs., type: str, default: ''}
  ports: {description: TCP ports that the project publishes., type: list, elements: int, default: []}
  addresses: {description: IP addresses that the ports are published on., type: list, elements: str, default: []}
  images: {description: Names of images that the project needs., type: list, elements: str, default: []}
  files: {description: Files to compare with what a deployment would write., type: list, elements: path, default: []}
"""
EXAMPLES = r"""
- name: Read the facts of the host
  smolcluster.logging.log_store_info:
    project: smolcluster-logging
    project_dir: /opt/smolcluster-logging
    marker: .managed-by-smolcluster-logging
    units: [/etc/systemd/system/smolcluster-logging.service]
    unit_marker: Managed by smolcluster.logging
    command: /usr/local/bin/cluster-logs
    logcli_version: 3.7.8
    ports: [3100]
    addresses: [0.0.0.0]
    images: ["grafana/loki:3.7.8"]
"""
RETURN = r"""
system: {description: Name of the operating system's kernel., returned: always, type: str, sample: Linux}
platform:
  description: Platform in the names of release archives; empty when there is none for this host.
  returned: always
  type: str
  sample: linux-amd64
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
as_composed:
  description: Whether every service of the compose file runs, is healthy, and has the settings of that file.
  returned: always
  type: bool
files: {description: 'SHA-256 of each of O(files) that exists, by path.', returned: always, type: dict}
foreign_folder:
  description: Whether the folder exists without this collection's marker and is not empty, or is not a folder.
  returned: always
  type: bool
folder_error: {description: Why the account cannot read that folder; empty when it can., returned: always, type: str}
units: {description: 'For each of O(units): C(ours), C(foreign) or C(absent).', returned: always, type: dict}
command: {description: 'The command cluster-logs: C(ours), C(foreign) or C(absent).', returned: always, type: str}
logcli:
  description:
    - C(name) and C(sha256) of the archive that O(logcli_version) was unpacked from; empty when it is not installed.
  returned: always
  type: dict
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

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.smolcluster.logging.plugins.module_utils import docker


def main() -> None:
    """Run the module; nothing makes it fail."""
    module = AnsibleModule(
        argument_spec={
            "project": {"type": "str", "required": True},
            "project_dir": {"type": "path", "required": True},
            "marker": {"type": "str", "required": True},
            "units": {"type": "list", "elements": "path", "required": True},
            "unit_marker": {"type": "str", "required": True},
            "command": {"type": "path", "required": True},
            "logcli_version": {"type": "str", "default": ""},
            "ports": {"type": "list", "elements": "int", "default": []},
            "addresses": {"type": "list", "elements": "str", "default": []},
            "images": {"type": "list", "elements": "str", "default": []},
            "files": {"type": "list", "elements": "path", "default": []},
        },
        supports_check_mode=True,
    )
    module.exit_json(changed=False, **docker.gather(module))


if __name__ == "__main__":
    main()
