# Copyright (c) SmolCluster contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the engine needs to know about an agent; each other module in this folder describes one agent."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from ansible_collections.smolcluster.logging.plugins.module_utils.metrics import Metrics
from ansible_collections.smolcluster.logging.plugins.module_utils.services.base import Run


@dataclass
class Counters:
    """Counters of an agent since its start.

    Parameters:
        version: version of the agent; None when it does not report it.
        sent: lines that were delivered.
        retried: repeated requests, one batch each.
        dropped: lines that were dropped, by the agent's name of the reason.
        truncated: lines that were truncated because they were too long.
    """

    version: str | None = None
    sent: int = 0
    retried: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    truncated: int = 0


class Agent(Protocol):
    """An agent, as a module of this package.

    Attributes:
        NAME: its name, which is also that of its program, its role and its tag.
        VERSION_OPTION: options with which the program prints its version.
        START_HINT: sentence with what to try when the program does not start on a node.
        PACKAGED: files of packages that have a service with the same name.
        FOREIGN_POSITIONS: positions files of a manual setup.
        METRICS: name of a metric and of its label (empty for the sum), by field of a health line
            (roles/agent/files/health.py). Without such a metric the field is 0 or null.
        RETRIED, REFUSED: texts in its log when it repeats a request, and when it drops a batch.
        DROP_REASONS: what to do about dropped lines, by the agent's name of the reason.
    """

    NAME: str
    VERSION_OPTION: tuple[str, ...]
    START_HINT: str
    PACKAGED: tuple[str, ...]
    FOREIGN_POSITIONS: tuple[str, ...]
    METRICS: dict[str, tuple[str, str]]
    RETRIED: str
    REFUSED: str
    DROP_REASONS: dict[str, str]

    def check_config(self, program: Path, config: dict[str, Any], run: Run) -> None:
        """Check a configuration with the program's own parser.

        Parameters:
            program: the agent's program.
            config: the configuration.
            run: function that runs a command.

        Raises:
            DeploymentError: the program refuses it.
        """

    def push_addresses(self, config: dict[str, Any]) -> list[str]:
        """URLs that a configuration sends lines to."""

    def is_complete(self, metrics: Metrics, config: dict[str, Any]) -> bool:
        """Whether an agent has started all targets of its configuration."""

    def counters(self, metrics: Metrics) -> Counters:
        """Counters of the agent since its start."""
