# Copyright (c) SmolCluster contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module: what a node says of itself before Promtail is deployed on it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: promtail_info
short_description: Gather what a deployment of Promtail has to know of a node
description:
  - Looks at the platform, the installed versions, the port and what a hand-made set-up left, in one round trip.
  - Reads only.
author: [SmolCluster contributors (@smolcluster)]
attributes:
  check_mode: {support: full, description: It never changes anything.}
  diff_mode: {support: none, description: It never changes anything.}
options:
  home: {description: Folder with one folder per installed version., type: path, required: true}
  unit_file: {description: Where the service's unit belongs., type: path, required: true}
  service: {description: Name of the service., type: str, default: promtail}
  http_port: {description: TCP port that the agent is to listen on., type: int, required: true}
"""
EXAMPLES = r"""
- name: Look at the node
  smolcluster.logging.promtail_info:
    home: /opt/promtail
    unit_file: /etc/systemd/system/promtail.service
    http_port: 9080
"""
RETURN = r"""
system: {description: Name of the operating system's kernel., returned: always, type: str, sample: Linux}
architecture: {description: Machine name as C(uname -m) gives it., returned: always, type: str, sample: x86_64}
glibc:
  description: Version of the GNU C library; null on other C libraries.
  returned: always
  type: str
  sample: '2.36'
systemd: {description: Whether systemd is the init system., returned: always, type: bool}
installed: {description: SHA-256 of the archive of each undamaged installed version., returned: always, type: dict}
pid: {description: Process of the running service; 0 when it does not run., returned: always, type: int}
port_holder:
  description: Process and command that listen on the port, unless it is the service; null when it is free.
  returned: always
  type: dict
strays:
  description: Processes of Promtail that are not the service, each with its pid and command.
  returned: always
  type: list
  elements: dict
foreign_unit: {description: Whether the unit there was written by somebody else., returned: always, type: bool}
leftovers: {description: Files of a hand-made set-up., returned: always, type: list, elements: str}
"""

import os
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.smolcluster.logging.plugins.module_utils import linux, promtail
from ansible_collections.smolcluster.logging.plugins.module_utils.systemd import Systemd


def main() -> None:
    """Run the module; it has nothing to fail on."""
    module = AnsibleModule(
        argument_spec={
            "home": {"type": "path", "required": True},
            "unit_file": {"type": "path", "required": True},
            "service": {"type": "str", "default": "promtail"},
            "http_port": {"type": "int", "required": True},
        },
        supports_check_mode=True,
    )
    identity = os.uname()
    systemd = Systemd.present()
    pid = Systemd(module.run_command, module.params["service"]).pid() if systemd else 0
    holder = linux.listener(module.params["http_port"])
    module.exit_json(
        changed=False,
        system=identity.sysname,
        architecture=identity.machine,
        glibc=linux.glibc(),
        systemd=systemd,
        installed=promtail.installed(Path(module.params["home"])),
        pid=pid,
        port_holder=None if holder and pid and holder["pid"] == pid else holder,
        strays=[
            {"pid": stray, "command": " ".join(linux.command_line(stray))}
            for stray in linux.processes_of(promtail.PROGRAM)
            if stray != pid
        ],
        foreign_unit=promtail.foreign_unit(Path(module.params["unit_file"])),
        leftovers=promtail.leftovers(),
    )


if __name__ == "__main__":
    main()
