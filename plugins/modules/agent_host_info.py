# Copyright (c) SmolCluster contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module: facts of a node for the deployment of an agent."""

from __future__ import annotations

DOCUMENTATION = r"""
module: agent_host_info
short_description: Gather facts of a node for the deployment of an agent
description:
  - Reads the platform, the installed version, the port and the remains of a manual setup in one round trip.
  - It changes nothing.
author: [SmolCluster contributors (@smolcluster)]
extends_documentation_fragment: [smolcluster.logging.agent]
attributes:
  check_mode: {support: full, description: It never changes anything.}
  diff_mode: {support: none, description: It never changes anything.}
options:
  version: {description: Version to deploy., type: str, required: true}
  user: {description: Account of the service; empty is the default of the system., type: str, default: ''}
  http_port: {description: TCP port for the agent., type: int, required: true}
  loki_url: {description: Base URL of Loki; its host is looked up and connected to., type: str, default: ''}
  sources:
    description:
      - Log sources of this node. The module tries whether the service's account may read in the folders of their
        paths, and whether other nodes may have the same folders.
    type: list
    elements: dict
    default: []
"""
EXAMPLES = r"""
- name: Gather facts of the node
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
    - Machine type that the system's programs are built for, as C(uname -m) prints it.
    - It differs from that of the kernel if a 32-bit system runs on a 64-bit kernel.
  returned: always
  type: str
  sample: x86_64
python: {description: Python that starts the service., returned: always, type: str, sample: /usr/bin/python3}
python_of_root: {description: Whether only root can change that Python., returned: always, type: bool}
glibc:
  description: Version of the GNU C library; null with another C library.
  returned: always
  type: str
  sample: '2.36'
layout:
  description: >-
    Paths of the agent on this system; see plugins/module_utils/layout.py.
  returned: on a supported system
  type: dict
managed:
  description: Whether systemd or launchd runs here. If not, there are no facts about services, processes and ports.
  returned: always
  type: bool
macos:
  description:
    - Facts that only a Mac has; null on other systems. C(version) is that of macOS, C(sleep) the minutes after which it
      sleeps (0 is never), C(quarantined) the programs that Gatekeeper would block.
    - C(homebrew) is null without Homebrew; else it has the path of C(brew), its C(owner), who is the only account that
      may run it, the path of Promtail's C(program), and whether that is C(installed).
  returned: when RV(managed)
  type: dict
unreadable:
  description: Folders of O(sources) that the service's account cannot read.
  returned: when RV(managed)
  type: list
  elements: str
folders:
  description:
    - The paths of O(sources), each with its C(source) and C(path), and whether its folder C(answers).
    - C(network) is the type of a network file system and C(origin) what is mounted; both are empty for other ones.
    - C(identity) is equal on two nodes only if they share the files; empty if it is unknown.
    - C(said) is whether the source has the key C(shared).
    - C(unreadable) is a folder that the account cannot read on NFS; empty without one.
  returned: when RV(managed)
  type: list
  elements: dict
hostname: {description: Host name of the node., returned: always, type: str}
machine: {description: Identity of the node itself; two names of one node have the same., returned: always, type: str}
python_usable: {description: Whether the service's account may run that Python., returned: when RV(managed), type: bool}
loki:
  description:
    - Name resolution and connection for the host in O(loki_url); null without a host.
    - C(host) is its name, C(addresses) are its addresses from /etc/hosts or the DNS servers C(servers), which is all
      that Promtail uses, C(certain) says whether each DNS question was answered, and C(known_to_system) whether the
      system's own resolver, which may use more sources, knows the name.
    - C(refusal) says why no connection is possible; empty when it is possible.
  returned: when RV(managed)
  type: dict
archive:
  description: SHA-256 of the archive that the version was unpacked from; null if it is not installed or was damaged.
  returned: when RV(managed)
  type: str
archive_name: {description: Name of that archive., returned: when RV(managed), type: str}
user:
  description: Who created the service's account; C(ours), C(foreign) or C(absent).
  returned: always
  type: str
account:
  description: The same for the account that the roles create by default; C(ours), C(foreign) or C(absent).
  returned: on a supported system
  type: str
uid: {description: User ID of the service's account; null when it is absent., returned: always, type: int}
pid: {description: Process ID of the running service; 0 when it does not run., returned: always, type: int}
port_holder:
  description: Process ID and command of a process other than the service that listens on the port; null without one.
  returned: always
  type: dict
foreign_agents:
  description: >-
    Other agents on the node, each with its pid and command. A service that starts one has its name as the command, and
    0 as the pid when it does not run.
  returned: always
  type: list
  elements: dict
foreign_unit:
  description: File of a unit with this name that this collection did not write; null without one.
  returned: always
  type: str
unsafe_folder:
  description: >-
    Folder on the way to the versions or to the unit that an account other than root can change; null without one.
  returned: when RV(managed)
  type: str
drop_ins:
  description:
    - systemd drop-ins of the service, or of all services, each with its C(path).
    - C(breaking) are the names of settings that prevent a deployment, C(others) those of the other settings.
  returned: when RV(managed)
  type: list
  elements: dict
  sample: [{path: /etc/systemd/system/promtail.service.d/override.conf, breaking: [User], others: [MemoryMax]}]
packages:
  description: Packages that own a unit or a configuration with this name, each with the command that removes it.
  returned: when RV(managed)
  type: dict
  sample: {promtail: apt-get remove promtail}
home:
  description: Who created the folder of versions; C(ours), C(foreign) or C(absent).
  returned: always
  type: str
foreign_positions: {description: Positions files of a manual setup., returned: always, type: list, elements: str}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.smolcluster.logging.plugins.module_utils.agents.registry import AGENTS
from ansible_collections.smolcluster.logging.plugins.module_utils.host_facts import gather


def main() -> None:
    """Run the module; it fails if the service manager does not answer."""
    module = AnsibleModule(
        argument_spec={
            "agent": {"type": "str", "choices": list(AGENTS), "required": True},
            "version": {"type": "str", "required": True},
            "user": {"type": "str", "default": ""},
            "http_port": {"type": "int", "required": True},
            "loki_url": {"type": "str", "default": ""},
            "sources": {"type": "list", "elements": "dict", "default": []},
        },
        supports_check_mode=True,
    )
    try:
        module.exit_json(changed=False, **gather(module.params, module.run_command))
    except (RuntimeError, OSError) as error:
        module.fail_json(msg=str(error))


if __name__ == "__main__":
    main()
