# Copyright (c) SmolCluster contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module: fill a folder with generated files, and keep what somebody else changed there."""

from __future__ import annotations

DOCUMENTATION = r"""
module: generated_folder
short_description: Fill a folder with generated files, and keep what somebody else changed there
description:
  - Writes files, and removes those that it wrote earlier and that are no longer wanted.
  - A file that it did not write, or that was changed since, is moved to another folder first.
author: [SmolCluster contributors (@smolcluster)]
attributes:
  check_mode: {support: full, description: It says what it would change.}
  diff_mode: {support: full, description: It shows the files before and after.}
options:
  path: {description: The folder. In check mode it may be missing., type: path, required: true}
  files: {description: Text of each file by its name., type: dict, required: true}
  keep_in:
    description: Folder that gets a folder with what was changed, named after the time.
    type: path
    required: true
  file_mode: {description: 'Permissions of the files, in octal.', type: str, required: true}
"""
EXAMPLES = r"""
- name: Dashboards are in place
  smolcluster.logging.generated_folder:
    path: /opt/smolcluster-logging/grafana/provisioning/dashboards
    files: {training.json: "{}"}
    keep_in: /opt/smolcluster-logging/grafana/edited
    file_mode: "0644"
"""
RETURN = r"""
edited: {description: Names of files that somebody else wrote or changed., returned: always, type: list, elements: str}
kept: {description: Folder that they are in now; empty without such files., returned: always, type: str}
"""

import time
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.smolcluster.logging.plugins.module_utils import generated_folder


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "files": {"type": "dict", "required": True},
            "keep_in": {"type": "path", "required": True},
            "file_mode": {"type": "str", "required": True},
        },
        supports_check_mode=True,
    )
    folder, files = Path(module.params["path"]), module.params["files"]
    keep = Path(module.params["keep_in"]) / f"{folder.name}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"
    try:
        todo = generated_folder.plan(folder, files)
        if todo and not module.check_mode:
            generated_folder.apply(folder, files, todo, keep, int(module.params["file_mode"], 8))
    except OSError as error:
        module.fail_json(msg=f"{folder}: {error}")
    names = sorted(set(todo.write) | set(todo.remove))
    diff = [
        {"before_header": name, "before": todo.before.get(name, ""), "after_header": name, "after": files.get(name, "")}
        for name in names
    ]
    # Without the option the files stay out of the result, because they may hold secrets.
    shown = {"diff": diff} if module._diff else {}
    module.exit_json(changed=bool(todo), edited=todo.edited, kept=str(keep) if todo.edited else "", **shown)


if __name__ == "__main__":
    main()
