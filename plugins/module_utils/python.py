# Copyright (c) SmolCluster contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which Python starts the service."""

from __future__ import annotations

import os
import subprocess
import sys

from ansible_collections.smolcluster.logging.plugins.module_utils.accounts import of_root

# What the programs of this collection need.
OLDEST = (3, 9)


def version(path: str) -> tuple[int, ...]:
    """Version of a Python, for example `(3, 11)`; empty when it does not start within 20 s."""
    command = [path, "-I", "-c", "import sys; print(*sys.version_info[:2])"]
    try:
        # AnsibleModule.run_command ends the module where a program is missing, and has no limit of time.
        said = subprocess.run(  # pylint: disable=ansible-bad-function
            command, capture_output=True, text=True, timeout=20, check=True, stdin=subprocess.DEVNULL
        ).stdout
        return tuple(int(part) for part in said.split())
    except (OSError, ValueError, subprocess.SubprocessError):
        return ()


def for_service(system: str) -> str:
    """Python for the service: the one that runs this module, which the inventory may name.

    Where the system's own name leads to that very Python, this name is taken, for it outlives upgrades. The system's
    Python is taken as well where an account other than root can change the one of this run.

    Parameters:
        system: path of the system's own Python; it need not be there, nor new enough.
    """
    here = sys.executable or system
    # A virtual environment is a Python of its own, whatever its link leads to.
    if sys.prefix == sys.base_prefix and os.path.exists(system) and os.path.samefile(here, system):
        return system
    if not of_root(here) and of_root(system) and version(system) >= OLDEST:
        return system
    return here
