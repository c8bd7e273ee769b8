# Copyright (c) SmolCluster contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module: list the training runs."""

from __future__ import annotations

DOCUMENTATION = r"""
module: training_run_info
short_description: List the training runs
description:
  - Lists the runs of the last 30 days that M(smolcluster.logging.training_run) has recorded.
  - It changes nothing.
author: [SmolCluster contributors (@smolcluster)]
attributes:
  check_mode: {support: full, description: It never changes anything.}
  diff_mode: {support: none, description: It never changes anything.}
options:
  name: {description: Name of one run; empty for all., type: str, default: ''}
  loki_url: {description: URL of Loki., type: str, required: true}
  silence:
    description: Minutes without a line after which a run without a recorded end has ended.
    type: int
    default: 10
"""
EXAMPLES = r"""
- name: List the runs
  smolcluster.logging.training_run_info:
    loki_url: http://127.0.0.1:3100
"""
RETURN = r"""
runs:
  description: The runs, the oldest first.
  returned: success
  type: list
  elements: dict
  contains:
    name: {description: Name of the run., type: str, sample: gpt-1}
    nodes: {description: Names of its nodes., type: list, elements: str}
    start: {description: Start in seconds since 1970., type: float}
    end:
      description: Recorded end, or the time of the last line before the silence that ended it; null while it runs.
      type: float
    end_recorded: {description: Whether the end was recorded., type: bool}
    last_line: {description: Time of its last line in seconds since 1970; null without lines., type: float}
    lines: {description: Number of its lines., type: int}
    errors: {description: Number of lines with the level ERROR or above., type: int}
    ranks: {description: Its ranks., type: list, elements: str}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.smolcluster.logging.plugins.module_utils.loki import LokiError
from ansible_collections.smolcluster.logging.plugins.module_utils.runs import RunError, Runs


def main() -> None:
    """Run the module; it fails when Loki does not answer, or there is no run with the name."""
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "default": ""},
            "loki_url": {"type": "str", "required": True},
            "silence": {"type": "int", "default": 10},
        },
        supports_check_mode=True,
    )
    params = module.params
    try:
        known = Runs(params["loki_url"], params["silence"] * 60)
        chosen = [known.named(params["name"])] if params["name"] else known.runs
        found = [known.complete(run).shown() for run in chosen]
    except (LokiError, RunError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=False, runs=found)


if __name__ == "__main__":
    main()
