# Copyright (c) SmolCluster contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module: record the start or the end of a training run."""

from __future__ import annotations

DOCUMENTATION = r"""
module: training_run
short_description: Record the start or the end of a training run
description:
  - Stores one line in Loki, in a stream of its own. Lines of training and agents are not touched.
  - A line belongs to a run by its node and its time.
author: [SmolCluster contributors (@smolcluster)]
attributes:
  check_mode: {support: full, description: Says what it would record.}
  diff_mode: {support: none, description: There is nothing to compare.}
options:
  name:
    description: Name of the run, of letters, digits, C(.), C(_) and C(-).
    type: str
    required: true
  state:
    description: >-
      C(started) records the start, and refuses a name that is used, and nodes on which another run still runs. C(ended)
      records the end.
    type: str
    choices: [started, ended]
    default: started
  nodes: {description: Names of the run's nodes. Needed for C(started)., type: list, elements: str, default: []}
  loki_url: {description: URL of Loki., type: str, required: true}
  silence:
    description: Minutes without a line after which a run without a recorded end has ended.
    type: int
    default: 10
"""
EXAMPLES = r"""
- name: Record the start of a run
  smolcluster.logging.training_run:
    name: gpt-1
    nodes: [mini1, mini2]
    loki_url: http://127.0.0.1:3100

- name: Record its end
  smolcluster.logging.training_run:
    name: gpt-1
    state: ended
    loki_url: http://127.0.0.1:3100
"""
RETURN = r"""
run:
  description: The run; for its keys see M(smolcluster.logging.training_run_info).
  returned: success
  type: dict
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.smolcluster.logging.plugins.module_utils.loki import LokiError
from ansible_collections.smolcluster.logging.plugins.module_utils.runs import RunError, Runs


def main() -> None:
    """Run the module; it fails when Loki does not answer, or the run cannot be recorded."""
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["started", "ended"], "default": "started"},
            "nodes": {"type": "list", "elements": "str", "default": []},
            "loki_url": {"type": "str", "required": True},
            "silence": {"type": "int", "default": 10},
        },
        required_if=[("state", "started", ("nodes",))],
        supports_check_mode=True,
    )
    params = module.params
    try:
        runs = Runs(params["loki_url"], params["silence"] * 60)
        if params["state"] == "started":
            run, changed = runs.start(params["name"], params["nodes"], module.check_mode)
        else:
            run, changed = runs.finish(params["name"], module.check_mode)
    except (LokiError, RunError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=changed, run=run.shown())


if __name__ == "__main__":
    main()
