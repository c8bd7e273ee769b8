# Copyright (c) SmolCluster contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Where an agent's parts are on a node, by the agent's name and the node's system: the one home of these paths.

Roles get it from the module `agent_host_info`, the other modules look it up here.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from ansible_collections.smolcluster.logging.plugins.module_utils.errors import DeploymentError


@dataclass(frozen=True)
class Layout:
    """Paths, names and accounts of an agent on a system.

    Parameters:
        agent: name of the agent, and of its program.
        service: name of the service.
        unit_file: definition of the service.
        home: folder of the installed versions and of the watcher's program files.
        config_file: the agent's configuration.
        watcher_settings: settings of the watcher.
        data: folder of what the agent and the watcher keep over a restart.
        copies: folder of the copies that the watcher makes for the agent.
        report: the watcher's report of the log files.
        positions: file in which the agent saves how far it has read.
        folders: folders that the service manager does not make.
        boot_file: file of tmpfiles.d(5) that makes folders of sources again at boot; empty where the system has none.
        log_settings: settings of the system's own rotation of the agent's log; empty where its log needs none.
        log_file: the agent's own log; empty where the system keeps it.
        default_user: account of the service where the user names none.
        account: account that the roles make where it is missing.
        reads_all: account that may read every file.
        group: primary group of that account; empty is a group of its own.
        login_shell: its login shell.
        platforms: platform in the names of release archives, by the machine as `uname -m` gives it.
    """

    agent: str
    service: str
    unit_file: str
    home: str
    config_file: str
    watcher_settings: str
    data: str
    copies: str
    report: str
    positions: str
    folders: tuple[str, ...]
    boot_file: str
    log_settings: str
    log_file: str
    default_user: str
    account: str
    reads_all: str
    group: str
    login_shell: str
    platforms: dict[str, str]

    @property
    def current(self) -> str:
        """Link to the folder of the version that runs."""
        return f"{self.home}/current"

    @property
    def lock(self) -> str:
        """File that a deployment locks."""
        return f"{self.home}/.lock"

    def state_files(self) -> list[str]:
        """Files that hold how far logs were read; without them everything is read again."""
        return [f"{self.data}/{name}" for name in STATE_FILES]

    def as_dict(self) -> dict[str, Any]:
        """The same for the results of a module."""
        return asdict(self) | {"folders": list(self.folders)}


# Files that the watcher keeps, roles/agent/files/logfiles.py and positions.py; a unit test compares the names.
STATE_FILES = ("files.json", "started.json")
# Programs of the watcher in the folder of the versions; a unit test compares them with what the role copies.
PROGRAM_FILES = ("watcher.py", "logfiles.py", "positions.py", "safe_open.py", "globs.py", "source_folders.py")


def linux(agent: str) -> Layout:
    """Layout on Linux with systemd."""
    return Layout(
        agent=agent,
        service=agent,
        unit_file=f"/etc/systemd/system/{agent}.service",
        home=f"/opt/{agent}",
        config_file=f"/etc/{agent}/{agent}.yml",
        watcher_settings=f"/etc/{agent}/watcher.json",
        data=f"/var/lib/{agent}",
        copies=f"/run/{agent}/files",
        report=f"/run/{agent}/watch.json",
        positions=f"/run/{agent}/positions.yaml",
        folders=(),
        boot_file=f"/etc/tmpfiles.d/smolcluster-{agent}.conf",
        log_settings="",
        log_file="",
        default_user=agent,
        account=agent,
        reads_all=agent,
        group="",
        login_shell="/usr/sbin/nologin",
        # arm is built for ARMv7.
        platforms={"x86_64": "linux-amd64", "aarch64": "linux-arm64", "armv7l": "linux-arm"},
    )


def darwin(agent: str) -> Layout:
    """Layout on macOS with launchd."""
    data, service = f"/var/db/{agent}", f"smolcluster.logging.{agent}"
    return Layout(
        agent=agent,
        service=service,
        unit_file=f"/Library/LaunchDaemons/{service}.plist",
        home=f"/opt/{agent}",
        config_file=f"/etc/{agent}/{agent}.yml",
        watcher_settings=f"/etc/{agent}/watcher.json",
        data=data,
        copies=f"{data}/files",
        report=f"{data}/watch.json",
        positions=f"{data}/positions.yaml",
        folders=(data, "/var/log/smolcluster-logging"),
        boot_file="",
        log_settings=f"/etc/newsyslog.d/{service}.conf",
        log_file=f"/var/log/smolcluster-logging/{agent}.log",
        default_user="root",
        account=f"_{agent}",
        reads_all="root",
        group="daemon",
        login_shell="/usr/bin/false",
        platforms={"arm64": "darwin-arm64", "x86_64": "darwin-amd64"},
    )


SYSTEMS = {"Linux": linux, "Darwin": darwin}


def layout_of(agent: str, system: str) -> Layout:
    """Layout of an agent on a system.

    Parameters:
        agent: name of the agent.
        system: name of the kernel, as `uname -s` gives it.

    Raises:
        DeploymentError: this collection does not support the system.
    """
    if system not in SYSTEMS:
        raise DeploymentError(f"{agent} is not supported on {system}; it is on {' and '.join(SYSTEMS)}")
    return SYSTEMS[system](agent)
