# Copyright (c) SmolCluster contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Agents on a node that this collection did not deploy."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible_collections.smolcluster.logging.plugins.module_utils import host
from ansible_collections.smolcluster.logging.plugins.module_utils.agents.base import Agent
from ansible_collections.smolcluster.logging.plugins.module_utils.changes import kind
from ansible_collections.smolcluster.logging.plugins.module_utils.masking import masked
from ansible_collections.smolcluster.logging.plugins.module_utils.services.base import Run


@dataclass
class ForeignAgent:
    """An agent that this collection did not deploy.

    Parameters:
        pid: its process ID; 0 when it does not run.
        command: its command line without secrets, or the name of its service.
        service: the service that starts it; None when it was started manually.
    """

    pid: int
    command: str
    service: Any = None

    def shown(self) -> dict[str, object]:
        """For the results of a module."""
        return {"pid": self.pid, "command": self.command}


def running(agent: Agent, run: Run, service: Any) -> list[ForeignAgent]:
    """Agents that run outside our service, and other services that start one.

    Parameters:
        agent: the agent to look for.
        run: function that runs a command.
        service: our own service.
    """
    own = set(service.processes())
    pids = [pid for pid in host.processes_of(agent.NAME) if pid not in own]
    found, covered = [], set()
    for other in host.Service.services_of(run, agent.NAME, pids):
        if other.name != service.name:
            processes = set(other.processes())
            covered |= processes
            found.append(ForeignAgent(next((pid for pid in pids if pid in processes), 0), masked([other.name]), other))
    return found + [ForeignAgent(pid, masked(host.system.command_line(pid))) for pid in pids if pid not in covered]


def positions_files(agent: Agent) -> list[str]:
    """Existing positions files of a manual setup; regular files only, because any account can use these names."""
    return [path for path in agent.FOREIGN_POSITIONS if kind(Path(path)) == "file"]
