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
      - C(service) is the name of the service, C(unit_file) where its definition belongs, C(user) the service's user,
        C(reads_all) the account that may read every file.
    type: dict
    required: true
  http_port: {description: TCP port that the agent is to listen on., type: int, required: true}
  loki_url: {description: Base address of Loki; its host is looked up and connected to., type: str, default: ''}
  paths:
    description: Paths of the log files, with wildcards. It is tried whether the service's user may read there.
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
      Linux:
        service: promtail
        unit_file: /etc/systemd/system/promtail.service
        user: promtail
        reads_all: promtail
    http_port: 9080
    loki_url: http://192.0.2.10:3100
"""
RETURN = r"""
system: {description: Name of the operating system's kernel., returned: always, type: str, sample: Linux}
architecture:
  description:
    - Machine that the system's programs are built for, in the words of C(uname -m).
    - It differs from the kernel's where a system of 32 bits runs on a kernel of 64.
  returned: always
  type: str
  sample: x86_64
python: {description: Python that starts the service., returned: always, type: str, sample: /usr/bin/python3}
python_of_root: {description: Whether root alone can change that Python., returned: always, type: bool}
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
    - C(homebrew) is null without Homebrew, else its program C(brew), the C(owner) who alone may run it, the path of
      its C(promtail), and whether that is C(installed).
  returned: when RV(managed)
  type: dict
unreadable:
  description: Folders of O(paths) that keep the service's user out.
  returned: when RV(managed)
  type: list
  elements: str
python_usable: {description: Whether the service's user may start the Python., returned: when RV(managed), type: bool}
loki:
  description:
    - What the node finds of the host in O(loki_url); null without one.
    - C(host) is its name, C(addresses) what /etc/hosts or the DNS servers C(servers) have for it, which is all that
      Promtail asks, C(certain) whether each question was answered, C(known_to_system) whether the system's own
      resolver, which may ask more, knows the name.
    - C(refusal) says why no connection comes about; it is empty where one does.
  returned: when RV(managed)
  type: dict
archive:
  description: SHA-256 of the archive that the version was unpacked from; null when it is not installed undamaged.
  returned: when RV(managed)
  type: str
archive_name: {description: Name of that archive., returned: when RV(managed), type: str}
user:
  description: Whose the service's user is; C(ours), C(foreign) or C(absent).
  returned: always
  type: str
uid: {description: Number of the service's user; null when it is absent., returned: always, type: int}
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
home:
  description: Whose the folder of the versions is; C(ours), C(foreign) or C(absent).
  returned: always
  type: str
leftovers: {description: Files of a hand-made set-up., returned: always, type: list, elements: str}
"""

import os
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.smolcluster.logging.plugins.module_utils import (
    accounts,
    darwin,
    host,
    packages,
    promtail,
    resolver,
)
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


def macos(folder: Path) -> dict | None:
    """What only a Mac has; none elsewhere.

    Parameters:
        folder: folder of the version that is to run.
    """
    if host.SYSTEM != "Darwin":
        return None
    program = folder / promtail.PROGRAM
    return {**darwin.facts(), "quarantined": [str(program)] if darwin.quarantined(program) else []}


def unsafe_folder(*folders: Path) -> str | None:
    """First folder on the way to folders that another account than root can change; none when all are root's."""
    return next((str(found) for folder in folders if (found := folder_of_others(folder))), None)


def reach(user: str, paths: list[str], python: str) -> dict[str, object]:
    """What an account without further rights may do here.

    Parameters:
        user: the service's user.
        paths: paths of the log files.
        python: Python that starts the service.
    """
    refused = {accounts.unreadable(path, user) for path in paths if path.startswith("/")}
    return {"unreadable": sorted(filter(None, refused)), "python_usable": accounts.may_run(python, user)}


def loki_of(url: str) -> dict[str, object] | None:
    """What this node finds of Loki's host; see `loki` in the results.

    Parameters:
        url: base address of Loki.
    """
    try:
        parts = urlsplit(url)
        name, port = parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        return None
    if not name:
        return None
    answer = resolver.look_up(name)
    return {
        "host": name,
        "addresses": answer.addresses,
        "servers": answer.servers,
        "certain": answer.certain,
        "known_to_system": bool(answer.addresses) or resolver.known_to_system(name),
        "refusal": resolver.refusal(answer.addresses, port),
    }


def main() -> None:
    """Run the module; a service manager that cannot be asked fails it."""
    module = AnsibleModule(
        argument_spec={
            "home": {"type": "path", "required": True},
            "version": {"type": "str", "required": True},
            "systems": {"type": "dict", "required": True},
            "http_port": {"type": "int", "required": True},
            "loki_url": {"type": "str", "default": ""},
            "paths": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    identity, home = os.uname(), Path(module.params["home"])
    python = host.own.interpreter()
    known = {"system": identity.sysname, "architecture": host.own.architecture(), "glibc": host.own.glibc()}
    known |= {"python": python, "python_of_root": accounts.of_root(python)}
    if identity.sysname not in module.params["systems"]:
        module.exit_json(changed=False, managed=False, **known)
    ours = module.params["systems"][identity.sysname]
    service = host.manager(module.run_command, ours["service"])
    unit = Path(ours["unit_file"])
    user = ours["user"]
    known |= {"user": promtail.account(user), "uid": accounts.number(user), "home": promtail.owner_of_home(home)}
    if not service.present():
        module.exit_json(changed=False, managed=False, foreign_unit=promtail.foreign_unit(unit, ""), **known)
    try:
        state = service.state()
        origin = promtail.origin_of(home, module.params["version"])
        limited = user != ours["reads_all"]
        module.exit_json(
            changed=False,
            managed=True,
            macos=macos(home / module.params["version"]),
            loki=loki_of(module.params["loki_url"]),
            **(reach(user, module.params["paths"], python) if limited else {"unreadable": [], "python_usable": True}),
            archive=origin.get("sha256"),
            archive_name=origin.get("name"),
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
