# Copyright (c) SmolCluster contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Paths of an agent on a node, by the agent's name and the node's system: these paths are defined only here.

Roles get them from the module `agent_host_info`; the other modules use this file.
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
        data: folder for the state of the agent and the watcher.
        copies: folder of the copies that the watcher makes for the agent.
        report: the watcher's report of the log files.
        positions: file in which the agent saves how far it has read.
        health: log with the watcher's health lines; rotation adds `.1`.
        folders: folders that the service manager does not create.
        boot_file: file for tmpfiles.d(5) that creates folders of sources at boot; empty if the system has none.
        log_settings: settings for the rotation of the agent's log by the system; empty if the log needs no rotation.
        log_file: the agent's own log; empty if the service manager keeps it.
        default_user: account of the service if the user sets none.
        account: account that the roles create if it is missing.
        reads_all: account that may read every file.
        group: primary group of the created account; empty for the system's default.
        login_shell: login shell of the created account.
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
    health: str
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
        """Files with how far logs were read; without them everything is read again."""
        return [f"{self.data}/{name}" for name in STATE_FILES]

    def as_dict(self) -> dict[str, Any]:
        """The layout as results of a module."""
        return asdict(self) | {"folders": list(self.folders)}


# State files of the watcher (roles/agent/files/logfiles.py); a unit test compares the names.
STATE_FILES = ("files.json", "started.json")
# Program files of the watcher in the folder of versions; a unit test compares them with those that the role copies.
PROGRAM_FILES = (
    "watcher.py",
    "health.py",
    "logfiles.py",
    "records.py",
    "entries.py",
    "positions.py",
    "safe_open.py",
    "samples.py",
    "globs.py",
    "source_folders.py",
)


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
        health=f"/run/{agent}/health.log",
        folders=(),
        boot_file=f"/etc/tmpfiles.d/smolcluster-{agent}.conf",
        log_settings="",
        log_file="",
        default_user=agent,
        account=agent,
        reads_all=agent,
        group="",
        login_shell="/usr/sbin/nologin",
        # The program for arm needs ARMv7.
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
        health=f"{data}/health.log",
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
        raise DeploymentError(f"{agent} is not supported on {system}, only on {' and '.join(SYSTEMS)}")
    return SYSTEMS[system](agent)
