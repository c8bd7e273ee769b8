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
  systems:
    description:
      - What differs between systems, by the name of the kernel (C(Linux), C(Darwin)).
      - C(service) is the name of the service, C(unit_file) where its definition belongs, C(user) the service's user.
    type: dict
    required: true
  http_port: {description: TCP port that the agent is to listen on., type: int, required: true}
  paths:
    description: Paths of the log files, with wildcards. On a Mac it is tried whether the service's user may read there.
    type: list
    elements: str
    default: []
"""
EXAMPLES = r"""
- name: Look at the node
  smolcluster.logging.promtail_info:
    home: /opt/promtail
    version: 3.6.11
    systems:
      Linux: {service: promtail, unit_file: /etc/systemd/system/promtail.service, user: promtail}
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
managed:
  description: Whether systemd or launchd can be asked. If not, nothing is known of services, processes and ports.
  returned: always
  type: bool
macos:
  description:
    - What only a Mac has; null elsewhere. C(version) is that of macOS, C(sleep) the minutes after which it sleeps (0 is
      never), C(quarantined) the programs that Gatekeeper would keep from starting.
    - C(python) is the Python of the service, C(python_of_root) whether that is root's, C(unreadable) the folders of
      O(paths) that keep the service's user out.
    - C(homebrew) is null without Homebrew, else its program C(brew), the C(owner) who alone may run it, the folder of
      its C(promtail), and whether that is C(installed).
  returned: always
  type: dict
known_names: {description: Names in C(/etc/hosts)., returned: always, type: list, elements: str}
archive:
  description: SHA-256 of the archive that the version was unpacked from; null when it is not installed undamaged.
  returned: always
  type: str
user: {description: Whose the service's user is; C(ours), C(foreign) or C(absent)., returned: always, type: str}
pid: {description: Process of the running service; 0 when it does not run., returned: always, type: int}
port_holder:
  description: Process and command that listen on the port, unless it is the service; null when it is free.
  returned: always
  type: dict
strays:
  description: >-
    Promtails that are not the service, each with its pid and command; a service that starts one, with its name as the
    command and 0 as the pid where it does not run.
  returned: always
  type: list
  elements: dict
foreign_unit:
  description: File of a unit of this name that somebody else wrote; null when there is none.
  returned: always
  type: str
unsafe_folder:
  description: >-
    Folder on the way to O(home) or to the unit that another account than root can change; null when there is none.
  returned: when RV(managed)
  type: str
drop_ins:
  description:
    - Files of systemd that somebody has added to the service, or to all services, each with its C(path).
    - C(breaking) are the names of settings that the service cannot be deployed with, C(others) those of the rest.
  returned: when RV(managed)
  type: list
  elements: dict
  sample: [{path: /etc/systemd/system/promtail.service.d/override.conf, breaking: [User], others: [MemoryMax]}]
packages:
  description: Packages that own a unit or a configuration of this name, each with the command that removes it.
  returned: when RV(managed)
  type: dict
  sample: {promtail: apt-get remove promtail}
home: {description: Whose the folder of the versions is; C(ours), C(foreign) or C(absent)., returned: always, type: str}
leftovers: {description: Files of a hand-made set-up., returned: always, type: list, elements: str}
"""

import os
import time
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.smolcluster.logging.plugins.module_utils import darwin, host, packages, promtail
from ansible_collections.smolcluster.logging.plugins.module_utils.files import folder_of_others


def port_holder(service: Any, port: int) -> dict | None:
    """Who else listens on the agent's port, for at least 2 s: a service that is being restarted changes its process.

    Parameters:
        service: the agent's service.
        port: TCP port.

    Returns:
        See `listener` in linux.py or darwin.py; none when nobody or the service itself does.
    """
    end = time.monotonic() + 2
    while (holder := host.own.listener(port)) and holder["pid"] not in service.processes():
        if time.monotonic() > end:
            return holder
        time.sleep(0.1)
    return None


def macos(folder: Path, user: str, paths: list[str]) -> dict | None:
    """What only a Mac has; none elsewhere.

    Parameters:
        folder: folder of the version that is to run.
        user: the service's user.
        paths: paths of the log files.
    """
    if host.SYSTEM != "Darwin":
        return None
    facts = darwin.facts()
    keg = (facts["homebrew"] or {}).get("promtail")
    programs = [Path(place) / promtail.PROGRAM for place in (folder, keg) if place]
    refused = [] if user == "root" else [darwin.unreadable(path, user) for path in paths if path.startswith("/")]
    return {
        **facts,
        "quarantined": [str(program) for program in programs if darwin.quarantined(program)],
        "unreadable": sorted({folder for folder in refused if folder}),
    }


def unsafe_folder(*folders: Path) -> str | None:
    """First folder on the way to folders that another account than root can change; none when all are root's."""
    return next((str(found) for folder in folders if (found := folder_of_others(folder))), None)


def known_names() -> list[str]:
    """Names in /etc/hosts, where programs without the system's resolver look as well."""
    try:
        lines = Path("/etc/hosts").read_text().splitlines()
    except OSError:
        return []
    return [name for line in lines for name in line.partition("#")[0].split()[1:]]


def main() -> None:
    """Run the module; a service manager that cannot be asked fails it."""
    module = AnsibleModule(
        argument_spec={
            "home": {"type": "path", "required": True},
            "version": {"type": "str", "required": True},
            "systems": {"type": "dict", "required": True},
            "http_port": {"type": "int", "required": True},
            "paths": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    identity, home = os.uname(), Path(module.params["home"])
    known = {"system": identity.sysname, "architecture": identity.machine, "glibc": host.own.glibc()}
    if identity.sysname not in module.params["systems"]:
        module.exit_json(changed=False, managed=False, **known)
    ours = module.params["systems"][identity.sysname]
    service = host.manager(module.run_command, ours["service"])
    unit = Path(ours["unit_file"])
    known |= {"user": promtail.account(ours["user"]), "home": promtail.owner_of_home(home)}
    if not service.present():
        module.exit_json(changed=False, managed=False, foreign_unit=promtail.foreign_unit(unit, ""), **known)
    try:
        state = service.state()
        module.exit_json(
            changed=False,
            managed=True,
            macos=macos(home / module.params["version"], ours["user"], module.params["paths"]),
            known_names=known_names(),
            archive=promtail.archive_of(home, module.params["version"]),
            pid=state.pid,
            port_holder=port_holder(service, module.params["http_port"]),
            strays=[stray.shown() for stray in promtail.strays(module.run_command, service)],
            foreign_unit=promtail.foreign_unit(unit, state.definition),
            leftovers=promtail.leftovers(),
            unsafe_folder=unsafe_folder(home, unit.parent),
            drop_ins=service.drop_ins(),
            packages=packages.owners(module.run_command, [str(unit), state.definition, *promtail.PACKAGED]),
            **known,
        )
    except (RuntimeError, OSError) as error:
        module.fail_json(msg=str(error))


if __name__ == "__main__":
    main()
