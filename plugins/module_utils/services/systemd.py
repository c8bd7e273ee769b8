# Copyright (c) SmolCluster contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""A systemd service: its state, and the few changes that a deployment needs."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path

from ansible_collections.smolcluster.logging.plugins.module_utils.changes import read_regular
from ansible_collections.smolcluster.logging.plugins.module_utils.services.base import (
    ABSENT,
    DEPLOYMENT,
    FAILED,
    RUNNING,
    STARTING,
    STOPPED,
    Run,
    ServiceState,
)
from ansible_collections.smolcluster.logging.plugins.module_utils.systems import linux

# Folders of units and their drop-ins, in order of precedence; systemd.unit(5).
UNIT_FOLDERS = (
    "/etc/systemd/system.control",
    "/run/systemd/system.control",
    "/run/systemd/transient",
    "/run/systemd/generator.early",
    "/etc/systemd/system",
    "/etc/systemd/system.attached",
    "/run/systemd/system",
    "/run/systemd/system.attached",
    "/run/systemd/generator",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
    "/run/systemd/generator.late",
)
# Settings that decide what runs, with which account, where it keeps its state and whether it restarts.
BREAKING = re.compile(r"Exec\w+|User|Group|DynamicUser|Root\w+|StateDirectory|Type|RemainAfterExit|Restart")
# Settings for all services that are reported, because they can cause missing lines.
NOTABLE = re.compile(
    r"(Memory|CPU|Tasks|IO|IPAddress)\w+|Limit\w+|Slice|Nice|Environment\w*|Private(Tmp|Network|Users)|ProtectHome|"
    r"(Inaccessible|NoExec|Bind)\w*Paths|TemporaryFileSystem|RestrictAddressFamilies|RuntimeMaxSec|Kill\w+|Condition\w+|"
    r"Assert\w+"
)
OFF = ("", "0", "no", "n", "false", "f", "off")

PHASES = {"active": RUNNING, "inactive": STOPPED, "deactivating": STOPPED, "failed": FAILED}


def settings_of(text: str) -> list[tuple[str, str]]:
    """Settings of a unit file or drop-in, in order; systemd.syntax(7)."""
    found, section = [], ""
    lines = (line.strip() for line in re.sub(r"\\\n(\s*[#;].*\n)*", " ", text).splitlines())
    for line in lines:
        if line.startswith("["):
            section = line
        elif section and "=" in line and not line.startswith(("#", ";")):
            name, _equals, value = line.partition("=")
            found.append((name.strip(), value.strip()))
    return found


def breaks(name: str, value: str) -> bool:
    """Whether a setting must not be added to the service of this collection.

    An empty `Environment` clears all variables, including the one by which a deployment recognises the service
    (`DEPLOYMENT`).
    """
    if name == "Environment":
        return not value or DEPLOYMENT in value
    return bool(BREAKING.fullmatch(name))


class Systemd:
    """One service.

    Parameters:
        run: function that runs a command (list of arguments); returns exit code, standard output and standard error.
        name: name of the unit without `.service`.
    """

    # Lines in the service's journal that systemd writes, not the service.
    MANAGER_LINE = re.compile(r"\S+\.service: |(Start|Stopp)(ed|ing) |Failed to start ")

    def __init__(self, run: Run, name: str) -> None:
        self._run = run
        self.name = name
        # For messages: what a user types on the node.
        self.start_command = f"systemctl start {name}"
        self.restart_command = f"systemctl restart {name}"
        self.log_command = f"journalctl -u {name}"

    @staticmethod
    def present() -> bool:
        """Whether systemd is the init system of this host (sd_booted(3))."""
        return os.path.isdir("/run/systemd/system")

    @classmethod
    def services_of(cls, run: Run, program: str, pids: list[int]) -> list[Systemd]:  # noqa: ARG003
        """Services of a program: those whose main process is among `pids`, its running processes."""
        found = [(pid, cls(run, unit.removesuffix(".service"))) for pid in pids if (unit := linux.unit_of(pid))]
        return [service for pid, service in found if service.state().pid == pid]

    def state(self) -> ServiceState:
        """State of the service; `absent` where systemd is not the init system."""
        if not self.present():
            return ServiceState()
        wanted = "LoadState,ActiveState,MainPID,UnitFileState,NRestarts,FragmentPath"
        out = self._run(["systemctl", "show", self.name, f"--property={wanted}"])[1]
        known = dict(line.split("=", 1) for line in out.splitlines() if "=" in line)
        pid = main = int(known.get("MainPID") or 0)
        if os.path.basename(linux.executable(main) or "").startswith("python"):
            # Our own watcher, which runs the program as its child.
            pid = next(iter(linux.children(main)), 0)
        phase = PHASES.get(known.get("ActiveState", ""), STARTING)
        if known.get("LoadState", "not-found") == "not-found" and not main:
            phase = ABSENT
        return ServiceState(
            active_state=STARTING if phase == RUNNING and not pid else phase,
            pid=pid,
            enabled=known.get("UnitFileState") == "enabled",
            restarts=int(known.get("NRestarts") or 0),
            definition=known.get("FragmentPath", ""),
        )

    def drop_ins(self) -> list[dict[str, object]]:
        """Drop-ins of the service and of all services; this collection adds none.

        Files on the disk are read, because `DropInPaths` is empty until the service exists.

        Returns:
            For each file its `path` and the names of its settings: `breaking` ones, which prevent a deployment, and
            `others`. Of settings for all services only those that matter are listed.
        """
        own, everybody = f"{self.name}.service.d", "service.d"
        paths = [
            path
            for kind in (own, everybody)
            for folder in UNIT_FOLDERS
            for path in sorted(Path(folder, kind).glob("*.conf"))
        ]
        out = self._run(["systemctl", "show", self.name, "--property=DropInPaths"])[1]
        loaded = out.strip().partition("=")[2]
        try:
            paths += map(Path, shlex.split(loaded))
        except ValueError:  # a quote in a name, which older systems print unescaped
            paths += map(Path, loaded.split())
        found, seen = [], set()
        for path in paths:
            # A file, or a link to /dev/null, hides files with the same name in later folders.
            if path.name in seen:
                continue
            seen.add(path.name)
            try:
                settings = settings_of(read_regular(path).decode(errors="replace"))
            except OSError:
                continue
            breaking = {name for name, value in settings if breaks(name, value)}
            others = {
                name
                for name, value in settings
                if path.parent.name != everybody or (NOTABLE.fullmatch(name) and value.lower() not in OFF)
            }
            if breaking or others:
                found.append({"path": str(path), "breaking": sorted(breaking), "others": sorted(others - breaking)})
        return found

    def processes(self) -> list[int]:
        """All processes of the service, including child processes."""
        return [pid for pid in linux.command_lines() if linux.unit_of(pid) == f"{self.name}.service"]

    def environment(self) -> dict[str, str]:
        """Environment that the service was started with; empty when it does not run."""
        return linux.environment(self.state().pid)

    def restart(self) -> None:
        """Restart the service with the present content of its file, and enable it at boot.

        Raises:
            RuntimeError: it failed; the text has the message of systemctl.
        """
        self._do("daemon-reload")
        self._do("enable", self.name)
        self._do("restart", self.name)

    def start(self) -> None:
        """Start the service.

        Raises:
            RuntimeError: see `restart`.
        """
        self._do("start", self.name)

    def stop(self, disable: bool) -> None:
        """Stop the service; systemd kills it if it does not stop.

        Parameters:
            disable: whether to disable it at boot, too.
        """
        self._run(["systemctl", "stop", self.name])
        if disable:
            self._run(["systemctl", "disable", self.name])

    def reload(self) -> None:
        """Let systemd read a file that was changed or removed, and forget an earlier failure.

        Raises:
            RuntimeError: see `restart`.
        """
        self._do("daemon-reload")
        self._run(["systemctl", "reset-failed", self.name])

    def retire(self) -> None:
        """Stop the service permanently; its file stays.

        Raises:
            RuntimeError: see `restart`.
        """
        self._do("disable", "--now", self.name)

    def remove(self, file: Path) -> None:
        """Stop the service permanently and remove its definition.

        Raises:
            RuntimeError: see `restart`.
        """
        self.stop(disable=True)
        file.unlink(missing_ok=True)
        self._do("daemon-reload")

    def _do(self, *argv: str) -> None:
        code, out, err = self._run(["systemctl", *argv])
        if code:
            raise RuntimeError(f"systemctl {' '.join(argv)}: {(err or out).strip()}")

    def journal(self, lines: int = 15, seconds: int | None = None) -> str:
        """Last lines of the service's journal.

        Parameters:
            lines: how many at most.
            seconds: largest age; None for any age.
        """
        argv = ["journalctl", "--unit", self.name, f"--lines={lines}", "--no-pager", "--output=cat"]
        out = self._run([*argv, *([f"--since=-{seconds}s"] if seconds else [])])[1]
        return out.strip()
