# Copyright (c) SmolCluster contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module: what the agent makes of the first entries of a log."""

from __future__ import annotations

DOCUMENTATION = r"""
module: agent_format_trial
short_description: Show what the agent makes of a log
description:
  - Lets the agent's own program read the first entries of a log with the stages of a format. Nothing is sent.
  - It runs on the control node, where the log and the release archive are.
author: [SmolCluster contributors (@smolcluster)]
attributes:
  check_mode: {support: full, description: It changes nothing.}
  diff_mode: {support: none, description: It changes nothing.}
options:
  archive: {description: Path of the agent's release archive for this machine., type: path, required: true}
  file: {description: Path of the log., type: path, required: true}
  stages: {description: Stages of the format., type: list, elements: dict, required: true}
  entry_start: {description: Expression for the first line of an entry., type: str, required: true}
  console: {description: Whether the log is a console., type: bool, required: true}
  entries: {description: Number of entries., type: int, default: 20}
"""
EXAMPLES = r"""
- name: First entries are read
  smolcluster.logging.agent_format_trial:
    archive: /srv/artifacts/releases/v3.6.11/promtail-linux-amd64.zip
    file: my.log
    stages: "{{ trial.stages }}"
    entry_start: "{{ trial.entry_start }}"
    console: "{{ trial.console }}"
  delegate_to: localhost
"""
RETURN = r"""
entries:
  description: >-
    The entries: C(time) in UTC (empty if the agent takes the time of reading), C(written) (the time as in the text),
    C(level), C(rank), C(preset) (the one that has matched) and C(text).
  returned: success
  type: list
  elements: dict
"""

import os
import tempfile

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.smolcluster.logging.plugins.module_utils import trial
from ansible_collections.smolcluster.logging.plugins.module_utils.errors import DeploymentError


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "archive": {"type": "path", "required": True},
            "file": {"type": "path", "required": True},
            "stages": {"type": "list", "elements": "dict", "required": True},
            "entry_start": {"type": "str", "required": True},
            "console": {"type": "bool", "required": True},
            "entries": {"type": "int", "default": 20},
        },
        supports_check_mode=True,
        # The stages are long.
        no_log=True,
    )
    settings = module.params
    try:
        with tempfile.TemporaryDirectory(dir=module.tmpdir) as folder:
            program = trial.unpacked(settings["archive"], folder)
            text = trial.beginning(settings["file"])
            entries = trial.entries_of(text, settings["entry_start"], settings["console"])[: settings["entries"]]
            labels = {"filename": os.path.abspath(settings["file"])}
            found = trial.run(program, settings["stages"], entries, "", labels)
    except (DeploymentError, OSError) as error:
        module.fail_json(msg=f"{settings['file']}: {error}")
    module.exit_json(changed=False, entries=[trial.row(entry) for entry in found])


if __name__ == "__main__":
    main()
