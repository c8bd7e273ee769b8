# Copyright (c) SmolCluster contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""This host's own ways: what it says of processes and ports, and its service manager."""

from __future__ import annotations

import os
import re

from ansible_collections.smolcluster.logging.plugins.module_utils import darwin, linux
from ansible_collections.smolcluster.logging.plugins.module_utils.launchd import Launchd
from ansible_collections.smolcluster.logging.plugins.module_utils.systemd import Systemd

SYSTEM = os.uname().sysname
own = darwin if SYSTEM == "Darwin" else linux
manager = Launchd if SYSTEM == "Darwin" else Systemd


def processes_of(program: str) -> list[int]:
    """Processes whose program is called `program`, or as in a release (`promtail-linux-amd64`)."""
    name = re.compile(rf"{re.escape(program)}(-(linux|darwin|freebsd)-\w+)?")
    return sorted(
        pid for pid, words in own.command_lines().items() if words and name.fullmatch(os.path.basename(words[0]))
    )
