# Copyright (c) SmolCluster contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""How a service is, whatever service manager runs it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

# Runs a command (list of words); returns its exit code, output and errors.
Run = Callable[[list[str]], tuple[int, str, str]]

ABSENT, STOPPED, FAILED, STARTING, RUNNING = "absent", "stopped", "failed", "starting", "running"


@dataclass(frozen=True)
class ServiceState:
    """A service as its manager sees it.

    Parameters:
        active_state: `absent` (not known), `stopped` (on request), `failed` (and not started again), `starting` (or
            between two tries) or `running`.
        pid: process of the service's program; 0 when it does not run.
        enabled: whether it is started at boot.
        restarts: how often the manager has started it again by itself.
        definition: file that the manager has it from; empty when it is not known.
    """

    active_state: str = ABSENT
    pid: int = 0
    enabled: bool = False
    restarts: int = 0
    definition: str = ""
