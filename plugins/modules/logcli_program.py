# Copyright (c) SmolCluster contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module: install logcli from a release archive."""

from __future__ import annotations

DOCUMENTATION = r"""
module: logcli_program
short_description: Install logcli from a release archive
description:
  - Unpacks the program into a folder of its version, checks that it starts, and removes other versions.
  - The archive is removed.
author: [SmolCluster contributors (@smolcluster)]
attributes:
  check_mode: {support: full, description: It then only reports that it would unpack the archive.}
  diff_mode: {support: none, description: A program has no readable difference.}
options:
  archive: {description: Release archive on the host., type: path, required: true}
  sha256: {description: SHA-256 that O(archive) must have; empty when it is not known., type: str, default: ''}
  home: {description: Folder with one folder per version., type: path, required: true}
  version: {description: Version in the archive., type: str, required: true}
"""
EXAMPLES = r"""
- name: Program is unpacked
  smolcluster.logging.logcli_program:
    archive: /opt/smolcluster-logging/logcli/logcli-linux-amd64.zip
    home: /opt/smolcluster-logging/logcli
    version: 3.7.8
"""
RETURN = r"""
program:
  description: Path of the program.
  returned: always
  type: str
  sample: /opt/smolcluster-logging/logcli/3.7.8/logcli
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.smolcluster.logging.plugins.module_utils import archive, logcli
from ansible_collections.smolcluster.logging.plugins.module_utils.errors import DeploymentError


def main() -> None:
    """Run the module; it fails when the archive is not the verified one or its program does not start here."""
    module = AnsibleModule(
        argument_spec={
            "archive": {"type": "path", "required": True},
            "sha256": {"type": "str", "default": ""},
            "home": {"type": "path", "required": True},
            "version": {"type": "str", "required": True},
        },
        supports_check_mode=True,
    )
    folder = Path(module.params["home"]) / module.params["version"]
    try:
        if not module.check_mode:
            packed = Path(module.params["archive"])
            archive.install(packed, folder, logcli, module.run_command, module.params["sha256"])
    except (DeploymentError, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=True, program=str(folder / logcli.NAME))


if __name__ == "__main__":
    main()
