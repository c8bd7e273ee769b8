# Copyright (c) SmolCluster contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module: what has to be known of a node before an agent is deployed on it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: agent_host_info
short_description: Gather what a deployment of an agent has to know of a node
description:
  - Looks at the platform, the installed version, the port and what a set-up by hand left, in one round trip.
  - Reads only.
author: [SmolCluster contributors (@smolcluster)]
extends_documentation_fragment: [smolcluster.logging.agent]
attributes:
  check_mode: {support: full, description: It never changes anything.}
  diff_mode: {support: none, description: It never changes anything.}
options:
  version: {description: Version that is to run., type: str, required: true}
  user: {description: The service's user; empty is the default of the system., type: str, default: ''}
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
  smolcluster.logging.agent_host_info:
    agent: promtail
    version: 3.6.11
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
layout:
  description: >-
    Where the agent's parts are on this system; see plugins/module_utils/layout.py.
  returned: on a supported system
  type: dict
managed:
  description: Whether systemd or launchd can be asked. If not, nothing is known of services, processes and ports.
  returned: always
  type: bool
macos:
  description:
    - What only a Mac has; null elsewhere. C(version) is that of macOS, C(sleep) the minutes after which it sleeps (0 is
      never), C(quarantined) the programs that Gatekeeper would keep from starting.
    - C(homebrew) is null without Homebrew, else its program C(brew), the C(owner) who alone may run it, the path of
      Promtail's C(program), and whether that is C(installed).
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
account:
  description: Whose the account is that the roles make; C(ours), C(foreign) or C(absent).
  returned: on a supported system
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
    Folder on the way to the versions or to the unit that another account than root can change; null without one.
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

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.smolcluster.logging.plugins.module_utils.agents.registry import AGENTS
from ansible_collections.smolcluster.logging.plugins.module_utils.host_facts import gather


def main() -> None:
    """Run the module; a service manager that cannot be asked fails it."""
    module = AnsibleModule(
        argument_spec={
            "agent": {"type": "str", "choices": list(AGENTS), "required": True},
            "version": {"type": "str", "required": True},
            "user": {"type": "str", "default": ""},
            "http_port": {"type": "int", "required": True},
            "loki_url": {"type": "str", "default": ""},
            "paths": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    try:
        module.exit_json(changed=False, **gather(module.params, module.run_command))
    except (RuntimeError, OSError) as error:
        module.fail_json(msg=str(error))


if __name__ == "__main__":
    main()
