# Copyright (c) SmolCluster contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which Python starts the service."""

from __future__ import annotations

import os
import subprocess
import sys

from ansible_collections.smolcluster.logging.plugins.module_utils.accounts import of_root

# Oldest version that the programs of this collection support.
OLDEST = (3, 9)


def version(path: str) -> tuple[int, ...]:
    """Version of a Python interpreter, for example `(3, 11)`; empty when it does not answer within 20 s."""
    command = [path, "-I", "-c", "import sys; print(*sys.version_info[:2])"]
    try:
        # AnsibleModule.run_command ends the module when the program is missing, and has no timeout.
        said = subprocess.run(  # pylint: disable=ansible-bad-function
            command, capture_output=True, text=True, timeout=20, check=True, stdin=subprocess.DEVNULL
        ).stdout
        return tuple(int(part) for part in said.split())
    except (OSError, ValueError, subprocess.SubprocessError):
        return ()


def for_service(system: str) -> str:
    """Path of the Python for the service: the Python that runs this module, which the inventory can set.

    Where the system's path is the same Python, the system's path is returned, because it stays valid after upgrades.
    The system's Python is also returned where an account other than root can change the one that runs this module.

    Parameters:
        system: path of the system's own Python; it need not exist, and may be too old.
    """
    here = sys.executable or system
    # The Python of a virtual environment counts as another one, even if it is a link to the system's Python.
    if sys.prefix == sys.base_prefix and os.path.exists(system) and os.path.samefile(here, system):
        return system
    if not of_root(here) and of_root(system) and version(system) >= OLDEST:
        return system
    return here
