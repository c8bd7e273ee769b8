# Copyright (c) SmolCluster contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Facts of a node that a deployment of an agent needs."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ansible_collections.smolcluster.logging.plugins.module_utils import (
    accounts,
    archive,
    foreign_agents,
    host,
    ownership,
    packages,
    resolver,
    shared_folders,
)
from ansible_collections.smolcluster.logging.plugins.module_utils.agents.registry import AGENTS
from ansible_collections.smolcluster.logging.plugins.module_utils.changes import folder_of_others
from ansible_collections.smolcluster.logging.plugins.module_utils.layout import SYSTEMS, layout_of
from ansible_collections.smolcluster.logging.plugins.module_utils.services.base import Run
from ansible_collections.smolcluster.logging.plugins.module_utils.systems import darwin


def port_holder(service: Any, port: int) -> dict | None:
    """Another process that listens on the agent's port.

    It must do so for at least 2 s, because a restart of the service changes the process.

    Parameters:
        service: the agent's service.
        port: TCP port.

    Returns:
        See `listener` in linux.py or darwin.py; None when the port is free or the service itself listens.
    """
    end = time.monotonic() + 2
    while (holder := host.system.listener(port)) and holder["pid"] not in service.processes():
        if time.monotonic() > end:
            return holder
        time.sleep(0.1)
    return None


def macos(folder: Path, program: str) -> dict | None:
    """Facts that only a Mac has; None on other systems.

    Parameters:
        folder: folder of the version to deploy.
        program: name of the program in it.
    """
    if host.SYSTEM != "Darwin":
        return None
    file = folder / program
    return {**darwin.facts(), "quarantined": [str(file)] if darwin.quarantined(file) else []}


def unsafe_folder(*folders: Path) -> str | None:
    """First folder on the way to the given folders that an account other than root can change; None without one."""
    return next((str(found) for folder in folders if (found := folder_of_others(folder))), None)


def reach(user: str, paths: list[str], python: str) -> dict[str, object]:
    """What an account without additional rights may do here.

    Parameters:
        user: the service's user.
        paths: paths of the log files, in folders that answer.
        python: Python that starts the service.
    """
    refused = {accounts.unreadable(path, user) for path in paths}
    return {"unreadable": sorted(filter(None, refused)), "python_usable": accounts.may_run(python, user)}


def loki_of(url: str) -> dict[str, object] | None:
    """Name resolution and connection to Loki's host from this node; see `loki` in the results.

    Parameters:
        url: base URL of Loki.
    """
    try:
        parts = urlsplit(url)
        name, port = parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        return None
    if not name:
        return None
    answer = resolver.look_up(name)
    return {
        "host": name,
        "addresses": answer.addresses,
        "servers": answer.servers,
        "certain": answer.certain,
        "known_to_system": bool(answer.addresses) or resolver.known_to_system(name),
        "refusal": resolver.refusal(answer.addresses, port),
    }


def gather(params: dict[str, Any], run: Run) -> dict[str, Any]:
    """Gather all facts.

    Parameters:
        params: options of the module `agent_host_info`.
        run: function that runs a command.

    Returns:
        Results of the module.

    Raises:
        RuntimeError, OSError: the service manager does not answer.
    """
    identity, agent = os.uname(), AGENTS[params["agent"]]
    python = host.system.interpreter()
    known = {
        "system": identity.sysname,
        "architecture": host.system.architecture(),
        "glibc": host.system.glibc(),
        "python": python,
        "python_of_root": accounts.of_root(python),
        "managed": False,
        "hostname": identity.nodename,
        "machine": shared_folders.machine(),
    }
    if identity.sysname not in SYSTEMS:
        return known
    layout = layout_of(agent.NAME, identity.sysname)
    service, unit, home = host.Service(run, layout.service), Path(layout.unit_file), Path(layout.home)
    user = params["user"] or layout.default_user
    known |= {
        "layout": layout.as_dict(),
        "user": ownership.account(user),
        "account": ownership.account(layout.account),
        "uid": accounts.number(user),
        "home": ownership.owner_of_home(home),
    }
    if not service.present():
        return known | {"foreign_unit": ownership.foreign_unit(unit, "")}
    state = service.state()
    origin = archive.origin_of(home, params["version"], agent.NAME)
    limited = user != layout.reads_all
    folders = shared_folders.look(params["sources"], user)
    paths = [entry["path"] for entry in folders if entry["answers"]]
    return (
        known
        | (reach(user, paths, python) if limited else {"unreadable": [], "python_usable": True})
        | {
            "managed": True,
            "folders": folders,
            "macos": macos(home / params["version"], agent.NAME),
            "loki": loki_of(params["loki_url"]),
            "archive": origin.get("sha256"),
            "archive_name": origin.get("name"),
            "pid": state.pid,
            "port_holder": port_holder(service, params["http_port"]),
            "foreign_agents": [foreign.shown() for foreign in foreign_agents.running(agent, run, service)],
            "foreign_unit": ownership.foreign_unit(unit, state.definition),
            "foreign_positions": foreign_agents.positions_files(agent),
            "unsafe_folder": unsafe_folder(home, unit.parent),
            "drop_ins": service.drop_ins(),
            "packages": packages.owners(run, [str(unit), state.definition, *agent.PACKAGED]),
        }
    )
