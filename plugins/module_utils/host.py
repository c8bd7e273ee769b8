# Copyright (c) SmolCluster contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""This host: its system (processes and ports) and its service manager."""

from __future__ import annotations

import os
import re
from pathlib import Path

from ansible_collections.smolcluster.logging.plugins.module_utils.services.launchd import Launchd
from ansible_collections.smolcluster.logging.plugins.module_utils.services.systemd import Systemd
from ansible_collections.smolcluster.logging.plugins.module_utils.systems import darwin, linux

SYSTEM = os.uname().sysname
system = darwin if SYSTEM == "Darwin" else linux
Service = Launchd if SYSTEM == "Darwin" else Systemd


def processes_of(program: str) -> list[int]:
    """Process IDs of a program, by its name or the name in a release (`promtail-linux-amd64`)."""
    name = re.compile(rf"{re.escape(program)}(-(linux|darwin|freebsd)-\w+)?")
    return sorted(
        pid for pid, argv in system.command_lines().items() if argv and name.fullmatch(os.path.basename(argv[0]))
    )


def runs(pid: int, program: Path) -> bool:
    """Whether a process runs a program. On a Mac one file may have two paths, below / and /System/Volumes/Data.

    Parameters:
        pid: process ID.
        program: path of the program.
    """
    running = system.executable(pid)
    try:
        return running is not None and os.path.samefile(running, program)
    except OSError:  # the program was replaced, and its old path no longer exists
        return False
