# Copyright (c) SmolCluster contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module: let a node's Promtail read everything again, or take its service away."""

from __future__ import annotations

DOCUMENTATION = r"""
module: promtail_service
short_description: Let Promtail read everything again, or take its service away
description:
  - Works on systemd and launchd alike.
  - A service that somebody else made is never touched.
author: [SmolCluster contributors (@smolcluster)]
attributes:
  check_mode: {support: full, description: Tells what would be done.}
  diff_mode: {support: none, description: It shows no texts.}
options:
  state:
    description:
      - C(reset) stops the service, removes O(positions) and starts it; does nothing where there is none.
      - C(absent) stops it for good and removes its definition.
    type: str
    choices: [reset, absent]
    required: true
  systems:
    description:
      - What differs between systems, by the name of the kernel (C(Linux), C(Darwin)).
      - C(service) is the name of the service, C(unit_file) where its definition is.
    type: dict
    required: true
  positions:
    description: Names of files in the system's C(data) folder that hold how far the agent has read.
    type: list
    elements: str
    default: []
"""
EXAMPLES = r"""
- name: Service is gone
  smolcluster.logging.promtail_service:
    state: absent
    systems:
      Linux: {service: promtail, unit_file: /etc/systemd/system/promtail.service, data: /var/lib/promtail}
"""
RETURN = r"""
phase:
  description: How the service was, one of C(absent), C(stopped), C(failed), C(starting), C(running).
  returned: always
  type: str
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.smolcluster.logging.plugins.module_utils import host, promtail


def reset(service: host.manager, data: Path, positions: list[str]) -> None:
    """Let the agent read everything again.

    Parameters:
        service: the agent's service.
        data: folder of its state.
        positions: names of the files there that are to go.
    """
    service.stop(disable=False)
    try:
        for name in positions:
            (data / name).unlink(missing_ok=True)
    finally:
        service.start()


def main() -> None:
    """Run the module; a service manager that refuses fails it."""
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["reset", "absent"], "required": True},
            "systems": {"type": "dict", "required": True},
            "positions": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    system = module.params["systems"].get(host.SYSTEM)
    if not system:
        module.exit_json(changed=False, phase="absent")
    service, file = host.manager(module.run_command, system["service"]), Path(system["unit_file"])
    try:
        state = service.state()
        phase = state.phase
        # A service whose file somebody has removed may run on.
        ours = (file.exists() or state.definition == str(file)) and not promtail.foreign_unit(file, "")
        if not ours or (module.params["state"] == "reset" and not file.exists()):
            module.exit_json(changed=False, phase=phase)
        if not module.check_mode and module.params["state"] == "reset":
            reset(service, Path(system["data"]), module.params["positions"])
        elif not module.check_mode:
            service.remove(file)
    except (RuntimeError, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=True, phase=phase)


if __name__ == "__main__":
    main()
