# Copyright (c) SmolCluster contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""State of a service, the same for all service managers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

# Runs a command (list of arguments); returns its exit code, standard output and standard error.
Run = Callable[[list[str]], tuple[int, str, str]]

# Environment variable of the service: a digest of what it was started with. The unit templates of role agent set it to
# this value, which the digest replaces.
DEPLOYMENT, NO_DIGEST = "SMOLCLUSTER_DEPLOYMENT", "digest"

ABSENT, STOPPED, FAILED, STARTING, RUNNING = "absent", "stopped", "failed", "starting", "running"


@dataclass(frozen=True)
class ServiceState:
    """State of a service.

    Parameters:
        active_state: `absent` (unknown to the manager), `stopped` (on request), `failed` (and not restarted),
            `starting` (or waiting for a restart) or `running`.
        pid: process ID of the service's program; 0 when it does not run.
        enabled: whether it starts at boot.
        restarts: number of restarts by the manager itself.
        definition: file that defines the service; empty when the manager does not know the service.
    """

    active_state: str = ABSENT
    pid: int = 0
    enabled: bool = False
    restarts: int = 0
    definition: str = ""
