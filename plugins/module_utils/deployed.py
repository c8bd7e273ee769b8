# Copyright (c) SmolCluster contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a node has of a deployment: the control node compares it with what a deployment would make, in one look."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from ansible_collections.smolcluster.logging.plugins.module_utils import archive, foreign_agents, host
from ansible_collections.smolcluster.logging.plugins.module_utils.agents.base import Agent
from ansible_collections.smolcluster.logging.plugins.module_utils.changes import read_regular
from ansible_collections.smolcluster.logging.plugins.module_utils.layout import PROGRAM_FILES, Layout
from ansible_collections.smolcluster.logging.plugins.module_utils.services.base import DEPLOYMENT, NO_DIGEST, Run


def definition_of(layout: Layout, program: Path, service: Any) -> dict[str, str]:
    """SHA-256 of the definition of the service by its path, without the digest that the service was started with.

    So it is that of the definition as the role has it, if the service runs with this definition. Empty if the service
    runs another program, does not run, or does not start at boot.

    Parameters:
        layout: paths on this node.
        program: path of the program that the service has to run.
        service: the agent's service.
    """
    state = service.state()
    if not (state.pid and state.enabled and host.runs(state.pid, program)):
        return {}
    digest = service.environment().get(DEPLOYMENT)
    with suppress(OSError, UnicodeDecodeError):
        text = read_regular(layout.unit_file, follow=False).decode()
        if digest and digest in text:
            return {layout.unit_file: hashlib.sha256(text.replace(digest, NO_DIGEST).encode()).hexdigest()}
    return {}


def look(agent: Agent, layout: Layout, version: str, run: Run, service: Any) -> dict[str, Any]:
    """What this node has of a deployment.

    Parameters:
        agent: the agent.
        layout: paths on this node.
        version: name of the version's folder.
        run: function that runs a command.
        service: the agent's service.

    Returns:
        `node`, the facts that the files of a deployment depend on, named as the module `agent_host_info` names them;
        `files`, the SHA-256 of its files by path, see `definition_of`; `foreign`, whether there are remains of a manual
        setup.
    """
    files = filter(None, (layout.config_file, layout.watcher_settings, layout.log_settings))
    home = Path(layout.home)
    origin = archive.origin_of(home, version, agent.NAME)
    return {
        "node": {
            "system": os.uname().sysname,
            "architecture": host.system.architecture(),
            "python": host.system.interpreter(),
            "layout": layout.as_dict(),
            "archive": origin.get("sha256"),
            "archive_name": origin.get("name"),
        },
        "files": archive.digests([*files, *(f"{layout.home}/{name}" for name in PROGRAM_FILES)])
        | definition_of(layout, home / version / agent.NAME, service),
        "foreign": bool(foreign_agents.positions_files(agent) or foreign_agents.running(agent, run, service)),
    }
