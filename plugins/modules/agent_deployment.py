# Copyright (c) SmolCluster contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module: deploy an agent on a node, or remove it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: agent_deployment
short_description: Switch the agent of a node to a version and a configuration, all or nothing; or remove it
description:
  - Unpacks the version if it is missing, checks the configuration with that version's own parser, and only then writes
    the files, switches the C(current) link and restarts the service.
  - If the agent does not start, it restores what ran before and fails with the agent's last log lines.
  - Compares what runs with what is installed, so that the next run completes an interrupted one.
  - With O(state=absent) it removes what this module and the agent have created, and nothing else. The account stays.
author: [SmolCluster contributors (@smolcluster)]
extends_documentation_fragment: [smolcluster.logging.agent]
attributes:
  check_mode: {support: full, description: The configuration is checked only if its version is already installed.}
  diff_mode: {support: full, description: Shows every file.}
options:
  state: {description: Whether to deploy or remove the agent., type: str, choices: [present, absent], default: present}
  version: {description: Version to run; needed unless O(state=absent)., type: str}
  archive:
    description: Release archive on the node; needed when O(version) is not installed. It is removed afterwards.
    type: path
  reinstall: {description: Unpack O(archive) even if the version is installed., type: bool, default: false}
  config: {description: "The configuration as data, for the check.", type: dict, default: {}}
  files:
    description:
      - Text of every file, by path, including the configuration and the definition of the service.
      - The definition of the service sets the environment variable C(SMOLCLUSTER_DEPLOYMENT) to C(digest). The module
        replaces this value by the digest of version and files, from which a later run knows what the service was
        started with.
    type: dict
    default: {}
  user: {description: Account of the service. Its group may read the configuration., type: str, default: root}
  source_folders:
    description:
      - Folders for log files; missing ones are created, existing ones are not changed.
      - Each has a C(path) and, optionally, C(owner) and C(mode) (octal, as text). Without them a folder gets the owner
        of the folder above it; below a folder of root, everybody may write to it.
    type: list
    elements: dict
    default: []
  sha256: {description: SHA-256 that O(archive) must have; empty when it is not known., type: str, default: ''}
  homebrew:
    description:
      - Use the program that Homebrew has installed, instead of O(archive); only on a Mac.
      - It is copied, because Homebrew's folder belongs to an ordinary account; when Homebrew changes it, it is copied
        again.
    type: bool
    default: false
  http_port: {description: TCP port on 127.0.0.1 at which the agent must answer., type: int, default: 9080}
  timeout: {description: Seconds until the agent must answer., type: int, default: 20}
  adopt:
    description:
      - Stop other running agents of this kind, disable their units, and remove the positions files of a manual setup.
      - A unit with the service's name from elsewhere is kept next to the new one, with C(.before-smolcluster) added to
        its name.
    type: bool
    default: false
  notes: {description: Notes from checks before; the result has them first., type: list, elements: str, default: []}
"""
EXAMPLES = r"""
- name: Agent runs this version with this configuration
  smolcluster.logging.agent_deployment:
    agent: promtail
    version: 3.6.11
    archive: /opt/promtail/promtail-linux-amd64.zip
    config: "{{ config }}"
    files:
      /etc/promtail/promtail.yml: "{{ config | to_nice_yaml }}"
      /etc/systemd/system/promtail.service: "{{ lookup('ansible.builtin.template', 'agent.service.j2') }}"
    user: promtail
    http_port: 9080

- name: Agent is gone
  smolcluster.logging.agent_deployment:
    agent: promtail
    state: absent
"""
RETURN = r"""
changes:
  description: What was changed, or would be changed in check mode.
  returned: always
  type: list
  elements: str
  sample: [/etc/promtail/promtail.yml]
restarted: {description: Whether the service was restarted., returned: always, type: bool}
retired:
  description: Agents of a manual setup that were stopped, as units or command lines.
  returned: always
  type: list
  elements: str
notes: {description: Notes that did not prevent the deployment., returned: always, type: list, elements: str}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.smolcluster.logging.plugins.module_utils.agents.registry import AGENTS
from ansible_collections.smolcluster.logging.plugins.module_utils.changes import PathConflictError
from ansible_collections.smolcluster.logging.plugins.module_utils.deployment import Deployment
from ansible_collections.smolcluster.logging.plugins.module_utils.errors import DeploymentError
from ansible_collections.smolcluster.logging.plugins.module_utils.loki import LokiError
from ansible_collections.smolcluster.logging.plugins.module_utils.removal import Removal
from ansible_collections.smolcluster.logging.plugins.module_utils.source_folders import FolderError

SPEC = {
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "agent": {"type": "str", "choices": list(AGENTS), "required": True},
    "version": {"type": "str"},
    "archive": {"type": "path"},
    "reinstall": {"type": "bool", "default": False},
    "config": {"type": "dict", "default": {}},
    "files": {"type": "dict", "default": {}},
    "user": {"type": "str", "default": "root"},
    "source_folders": {"type": "list", "elements": "dict", "default": []},
    "sha256": {"type": "str", "default": ""},
    "homebrew": {"type": "bool", "default": False},
    "http_port": {"type": "int", "default": 9080},
    "timeout": {"type": "int", "default": 20},
    "adopt": {"type": "bool", "default": False},
    "notes": {"type": "list", "elements": "str", "default": []},
}


def main() -> None:
    """Run the module; it fails with the cause after a refusal or a roll-back."""
    module = AnsibleModule(
        argument_spec=SPEC, required_if=[("state", "present", ("version", "config", "files"))], supports_check_mode=True
    )
    task = Deployment if module.params["state"] == "present" else Removal
    try:
        module.exit_json(**task(module).apply())
    except (DeploymentError, LokiError, FolderError, PathConflictError, RuntimeError, OSError) as error:
        module.fail_json(msg=str(error))


if __name__ == "__main__":
    main()
