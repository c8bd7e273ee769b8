# Copyright (c) SmolCluster contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module: what a node says of itself before Promtail is deployed on it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: promtail_info
short_description: Gather what a deployment of Promtail has to know of a node
description:
  - Looks at the platform, the installed version, the port and what a hand-made set-up left, in one round trip.
  - Reads only.
author: [SmolCluster contributors (@smolcluster)]
attributes:
  check_mode: {support: full, description: It never changes anything.}
  diff_mode: {support: none, description: It never changes anything.}
options:
  home: {description: Folder with one folder per installed version., type: path, required: true}
  version: {description: Version that is to run., type: str, required: true}
  user: {description: Name of the service's user., type: str, default: promtail}
  unit_file: {description: Where the service's unit belongs., type: path, required: true}
  service: {description: Name of the service., type: str, default: promtail}
  http_port: {description: TCP port that the agent is to listen on., type: int, required: true}
"""
EXAMPLES = r"""
- name: Look at the node
  smolcluster.logging.promtail_info:
    home: /opt/promtail
    version: 3.6.11
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
archive:
  description: SHA-256 of the archive that the version was unpacked from; null when it is not installed undamaged.
  returned: always
  type: str
user: {description: Whose the user is; C(ours), C(foreign) or C(absent)., returned: always, type: str}
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
foreign_unit:
  description: File of a unit of this name that somebody else wrote; null when there is none.
  returned: always
  type: str
home: {description: Whose the folder of the versions is; C(ours), C(foreign) or C(absent)., returned: always, type: str}
leftovers: {description: Files of a hand-made set-up., returned: always, type: list, elements: str}
"""

import os
import time
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.smolcluster.logging.plugins.module_utils import linux, promtail
from ansible_collections.smolcluster.logging.plugins.module_utils.systemd import Systemd


def port_holder(service: Systemd, port: int) -> dict | None:
    """Who else listens on the agent's port, for at least 2 s: a service that is being restarted changes its process.

    Parameters:
        service: the agent's service.
        port: TCP port.

    Returns:
        See `linux.listener`; none when nobody or the service itself does.
    """
    end = time.monotonic() + 2
    while (holder := linux.listener(port)) and holder["pid"] != service.pid():
        if time.monotonic() > end:
            return holder
        time.sleep(0.1)
    return None


def main() -> None:
    """Run the module; it has nothing to fail on."""
    module = AnsibleModule(
        argument_spec={
            "home": {"type": "path", "required": True},
            "version": {"type": "str", "required": True},
            "user": {"type": "str", "default": "promtail"},
            "unit_file": {"type": "path", "required": True},
            "service": {"type": "str", "default": "promtail"},
            "http_port": {"type": "int", "required": True},
        },
        supports_check_mode=True,
    )
    identity = os.uname()
    systemd = Systemd.present()
    service = Systemd(module.run_command, module.params["service"])
    state = service.state() if systemd else {}
    pid, home = int(state.get("MainPID") or 0), Path(module.params["home"])
    holder = port_holder(service, module.params["http_port"]) if systemd else None
    module.exit_json(
        changed=False,
        system=identity.sysname,
        architecture=identity.machine,
        glibc=linux.glibc(),
        systemd=systemd,
        archive=promtail.archive_of(home, module.params["version"]),
        user=promtail.account(module.params["user"]),
        pid=pid,
        port_holder=holder,
        strays=[
            {"pid": stray, "command": " ".join(linux.command_line(stray))}
            for stray in linux.processes_of(promtail.PROGRAM)
            if stray != pid
        ],
        foreign_unit=promtail.foreign_unit(Path(module.params["unit_file"]), state.get("FragmentPath") or ""),
        home=promtail.owner_of_home(home),
        leftovers=promtail.leftovers(),
    )


if __name__ == "__main__":
    main()
