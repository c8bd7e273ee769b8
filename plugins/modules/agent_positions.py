# Copyright (c) SmolCluster contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module: remove the saved positions of an agent, so that it reads everything again."""

from __future__ import annotations

DOCUMENTATION = r"""
module: agent_positions
short_description: Let an agent read everything again
description:
  - Stops the service, removes the files with how far logs were read, and starts the service.
  - Does nothing if the agent is not installed, or if this collection did not create the service.
author: [SmolCluster contributors (@smolcluster)]
extends_documentation_fragment: [smolcluster.logging.agent]
attributes:
  check_mode: {support: full, description: Reports what would be done.}
  diff_mode: {support: none, description: It shows no content of files.}
options:
  state: {description: The positions are removed., type: str, choices: [absent], default: absent}
"""
EXAMPLES = r"""
- name: Agent reads everything again
  smolcluster.logging.agent_positions:
    agent: promtail
"""
RETURN = r"""
removed: {description: Files that were removed., returned: always, type: list, elements: str}
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.smolcluster.logging.plugins.module_utils import host
from ansible_collections.smolcluster.logging.plugins.module_utils.agents.registry import AGENTS
from ansible_collections.smolcluster.logging.plugins.module_utils.errors import DeploymentError
from ansible_collections.smolcluster.logging.plugins.module_utils.layout import layout_of
from ansible_collections.smolcluster.logging.plugins.module_utils.ownership import foreign_unit


def main() -> None:
    """Run the module; it fails if the service manager reports an error."""
    module = AnsibleModule(
        argument_spec={
            "agent": {"type": "str", "choices": list(AGENTS), "required": True},
            "state": {"type": "str", "choices": ["absent"], "default": "absent"},
        },
        supports_check_mode=True,
    )
    try:
        layout = layout_of(module.params["agent"], host.SYSTEM)
        unit, service = Path(layout.unit_file), host.Service(module.run_command, layout.service)
        if not unit.exists() or foreign_unit(unit, ""):
            module.exit_json(changed=False, removed=[])
        files = [path for path in layout.state_files() if Path(path).exists()]
        if not module.check_mode:
            service.stop(disable=False)
            try:
                for path in files:
                    Path(path).unlink(missing_ok=True)
            finally:
                service.start()
    except (DeploymentError, RuntimeError, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=True, removed=files)


if __name__ == "__main__":
    main()
