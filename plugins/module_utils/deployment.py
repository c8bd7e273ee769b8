# Copyright (c) SmolCluster contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Switch the agent of a node to a version and a configuration, in one transaction: all or nothing."""

from __future__ import annotations

import fcntl
import hashlib
import os
import pwd
import re
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.smolcluster.logging.plugins.module_utils import (
    agent_log,
    archive,
    foreign_agents,
    host,
    host_facts,
    loki,
    ownership,
    source_folders,
)
from ansible_collections.smolcluster.logging.plugins.module_utils.agents.registry import AGENTS
from ansible_collections.smolcluster.logging.plugins.module_utils.changes import (
    Change,
    Directory,
    Folder,
    Link,
    TextFile,
)
from ansible_collections.smolcluster.logging.plugins.module_utils.errors import DeploymentError
from ansible_collections.smolcluster.logging.plugins.module_utils.foreign_agents import ForeignAgent
from ansible_collections.smolcluster.logging.plugins.module_utils.layout import layout_of
from ansible_collections.smolcluster.logging.plugins.module_utils.metrics import AgentError, fetch
from ansible_collections.smolcluster.logging.plugins.module_utils.services.base import (
    ABSENT,
    DEPLOYMENT,
    NO_DIGEST,
    RUNNING,
    ServiceState,
)
from ansible_collections.smolcluster.logging.plugins.module_utils.systems import darwin

# Seconds. An agent that fails at the first file that it finds fails after its first search of the folders (sync_period
# of the role promtail, 2 s); one that fails at once is restarted a second later.
STABLE = 5
STABLE_WITHIN = 20


class Deployment:
    """One deployment on one node.

    Parameters:
        module: the module that runs; gives parameters and commands.
    """

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.params = module.params
        self.agent = AGENTS[self.params["agent"]]
        self.layout = layout = layout_of(self.agent.NAME, host.SYSTEM)
        self.service = host.Service(self.run, layout.service)
        self.home = Path(layout.home)
        self.folder = self.home / self.params["version"]
        self.keg = darwin.homebrew() if self.params["homebrew"] else None
        user, group = self.account()
        self.changes: list[Change] = [Directory(Path(path), 0o750, user, group) for path in layout.folders]
        self.changes.append(Link(Path(layout.current), self.params["version"]))
        files = self.params["files"]
        self.digest = digest_of(self.params["version"], files)
        for path, text in (
            files | {layout.unit_file: with_digest(files.get(layout.unit_file, ""), self.digest)}
        ).items():
            private = path == layout.config_file
            self.changes.append(TextFile(Path(path), text, *((0o640, group) if private else (0o644, 0))))
        # Changes that need no restart of the service.
        wanted = self.params["source_folders"]
        self.folders = source_folders.SourceFolders(wanted)
        self.places: list[Change] = [self.folders]
        if layout.boot_file:
            head = f"# {ownership.MARK}\n# Folders of log sources, created again at boot.\n"
            lines = head + source_folders.boot_lines(wanted)
            self.places.append(TextFile(Path(layout.boot_file), lines, 0o644, 0))

    def run(self, command: list[str]) -> tuple[int, str, str]:
        """Run a command with empty input: over SSH without pipelining, the module's own input is a terminal.

        Not with run_command's `data`, which fails if the command ends before it has read the data.
        """
        return self.module.run_command(
            ["/bin/sh", "-c", 'exec "$@" </dev/null', "sh", *command], handle_exceptions=False
        )

    def account(self) -> tuple[int, int]:
        """User and group ID of the service's account; root's if check mode has not created the account."""
        try:
            user = pwd.getpwnam(self.params["user"])
        except KeyError:
            if self.module.check_mode:
                return 0, 0
            raise DeploymentError(f"the user {self.params['user']} does not exist") from None
        return user.pw_uid, user.pw_gid

    def needs_unpacking(self) -> bool:
        """Whether the version has to be unpacked."""
        if not self.params["homebrew"]:
            # Whether the program was changed is known from the preflight, which reads all of it.
            return self.params["reinstall"] or not archive.is_installed(self.folder, self.agent.NAME)
        origin = archive.origin_of(self.home, self.params["version"], self.agent.NAME)
        if not self.keg or not self.keg["installed"]:
            return True
        with archive.opened_as(self.keg["program"], darwin.owner_of(self.keg["brew"])) as program:
            return origin.get("sha256") != archive.digest_of(program)

    def restart_reason(self) -> str | None:
        """Why the service has to be restarted although its files are right; None when a restart is not needed."""
        state = self.service.state()
        if state.active_state != RUNNING:
            return "the service does not run"
        if not state.enabled:
            return "the service is not enabled"
        if self.service.environment().get(DEPLOYMENT) != self.digest:
            return "the service was started with another version or configuration"
        if not host.runs(state.pid, self.folder / self.agent.NAME):
            return "the service runs another program"
        return None

    def apply(self) -> dict:
        """Deploy what differs.

        Returns:
            Results of the module.

        Raises:
            DeploymentError: refused before any change; or rolled back.
        """
        with nullcontext() if self.module.check_mode else self.locked():
            try:
                return self.deploy()
            finally:
                if self.params["archive"] and not self.module.check_mode:
                    Path(self.params["archive"]).unlink(missing_ok=True)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Allow one deployment at a time on this node; an interrupted run may still be active here.

        Raises:
            DeploymentError: another deployment holds the lock for more than 60 s, or the folder is not ours.
        """
        if ownership.owner_of_home(self.home) == "foreign":
            raise DeploymentError(f"{self.home} was not created by this collection. Move it away")
        self.home.mkdir(mode=0o755, parents=True, exist_ok=True)
        (self.home / ownership.MARKER).touch()
        with Path(self.layout.lock).open("w") as lock:
            end = time.monotonic() + 60
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > end:
                        raise DeploymentError("another deployment runs on this node. Try again later") from None
                    time.sleep(0.2)
            yield

    def deploy(self) -> dict:
        """Deploy what differs, while holding the lock; see `apply`."""
        unpack = self.needs_unpacking()
        pending = [change for change in self.changes if change.needed()]
        places = [change for change in self.places if change.needed()]
        for text in self.folders.plan.left:
            self.module.warn(text)
        foreign_running = foreign_agents.running(self.agent, self.run, self.service)
        adopt = self.params["adopt"] and bool(foreign_running or foreign_agents.positions_files(self.agent))
        reason = self.restart_reason()
        result = {
            "changes": [f"version {self.params['version']} unpacked"] * unpack
            + [change.name for change in [*places, *pending]]
            + ["manual setup retired"] * adopt
            + ([reason] if reason and not pending else []),
            "restarted": bool(unpack or pending or reason),
            "diff": [change.diff() for change in [*places, *pending]],
            "retired": [],
            "notes": self.params["notes"],
        }
        result["changed"] = bool(result["changes"])
        if self.module.check_mode:
            if pending and not unpack:
                self.agent.check_config(self.folder / self.agent.NAME, self.params["config"], self.run)
            return result
        if unpack:
            pending.insert(0, Folder(self.folder, self.unpacked()))
        try:
            if result["restarted"]:
                made = pending[0].made if unpack else self.folder
                self.agent.check_config(made / self.agent.NAME, self.params["config"], self.run)
                for address in self.agent.push_addresses(self.params["config"]):
                    loki.check_client(address)
            for place in places:
                place.apply()
            if adopt:
                result["retired"] = self.retire(foreign_running)
        except (DeploymentError, loki.LokiError, source_folders.FolderError, RuntimeError, OSError):
            self.undo(places)
            if unpack:
                shutil.rmtree(pending[0].made)
            raise
        if result["restarted"]:
            try:
                self.switch(pending, result["retired"])
            except DeploymentError:
                self.undo(places)
                raise
        if adopt:
            for path in foreign_agents.positions_files(self.agent):
                Path(path).unlink(missing_ok=True)
        result["notes"] += self.loki_notes()
        return result

    def loki_notes(self) -> list[str]:
        """Notes on each Loki that this node cannot connect to now."""
        notes = []
        for address in self.agent.push_addresses(self.params["config"]):
            found = host_facts.loki_of(address)
            if found and found["addresses"] and found["refusal"]:
                base = address.removesuffix("/loki/api/v1/push")
                notes.append(
                    f"this host cannot connect to Loki at {base} now ({found['refusal']}). Lines stay in their files "
                    "and are sent later. Check that Loki runs, that this is its address, and that no firewall blocks it"
                )
        return notes

    @staticmethod
    def undo(places: list[Change]) -> None:
        """Roll back changes that need no restart of the service; errors are ignored."""
        for place in reversed(places):
            with suppress(OSError):
                place.rollback()

    def unpacked(self) -> Path:
        """Temporary folder with the version from the archive or from Homebrew.

        Raises:
            DeploymentError: there is no archive, or no program from Homebrew, or the program does not start here.
        """
        if self.params["homebrew"]:
            if not self.keg:
                raise DeploymentError("this host has no Homebrew. Set promtail_install_method: archive")
            return archive.copy_of(
                self.keg["program"], darwin.owner_of(self.keg["brew"]), self.folder, self.agent, self.run
            )
        if not self.params["archive"]:
            raise DeploymentError(f"version {self.params['version']} is not installed, and no archive was given")
        return archive.unpack(Path(self.params["archive"]), self.folder, self.agent, self.run, self.params["sha256"])

    def retire(self, foreign_running: list[ForeignAgent]) -> list[str]:
        """Stop other agents permanently; a process that does not stop within 10 s is killed.

        Returns:
            The stopped agents, as names of services or command lines without secrets.

        Raises:
            DeploymentError: something unknown starts an agent again.
        """
        pids = [foreign.pid for foreign in foreign_running if foreign.pid]
        for foreign in foreign_running:
            if foreign.service:
                foreign.service.retire()
            else:
                with suppress(ProcessLookupError):
                    os.kill(foreign.pid, signal.SIGTERM)
        deadline = time.monotonic() + 10
        # Another program may have got the same process ID in the meantime.
        while (alive := [pid for pid in pids if pid in host.processes_of(self.agent.NAME)]) and (
            time.monotonic() < deadline
        ):
            time.sleep(0.1)
        for pid in alive:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        end = time.monotonic() + 2
        while foreign_running and time.monotonic() < end:
            time.sleep(0.1)
            found = foreign_agents.running(self.agent, self.run, self.service)
            # Our own service may have been started in the meantime.
            known = {*pids, *self.service.processes()}
            if again := [foreign for foreign in found if foreign.pid and foreign.pid not in known]:
                raise DeploymentError(
                    f"an agent was stopped, but something started it again: {again[0].command} (pid {again[0].pid}). "
                    "Find what starts it (a job of launchd or cron, a script in a loop), stop that, and run this "
                    "again. The collection's own agent was not changed"
                )
        return [foreign.command for foreign in foreign_running]

    def switch(self, pending: list[Change], retired: list[str]) -> None:
        """Apply the changes and restart the service; roll everything back when the agent does not start.

        Parameters:
            pending: changes to apply.
            retired: agents of a manual setup that were stopped before, for the message.

        Raises:
            DeploymentError: the agent did not start; the text says whether the old agent runs again, and ends with the
                log line that says why.
        """
        before, begun = self.service.state(), time.monotonic()
        unit = Path(self.layout.unit_file)
        for change in pending:
            if isinstance(change, TextFile) and change.path == unit:
                change.keep = self.params["adopt"] and bool(ownership.foreign_unit(unit, ""))
        try:
            if before.active_state != ABSENT and any(isinstance(change, Directory) for change in pending):
                # An agent that runs as another account must not save its positions again.
                self.service.stop(disable=False)
            for change in pending:
                change.apply()
            self.service.restart()
            self.wait_until_healthy()
        except (RuntimeError, OSError, ValueError, DeploymentError) as error:
            # A stack trace can be long, and its cause is above it.
            log = self.service.journal(500, int(time.monotonic() - begun) + 1)
            outcome = self.roll_back(pending, before)
            if retired:
                outcome += f". These agents were stopped before; start them again yourself: {', '.join(retired)}"
            last = agent_log.excerpt(log, self.service.MANAGER_LINE) or f"none; see `{self.service.log_command}`"
            raise DeploymentError(f"{error}; {outcome}. Last log lines:\n{last}") from error
        for change in (*pending, *self.changes):
            change.commit()

    def roll_back(self, pending: list[Change], before: ServiceState) -> str:
        """Restore the files and the agent that ran before.

        Parameters:
            pending: changes, applied or not.
            before: state of the service before them.

        Returns:
            The state after the roll-back, for the message.
        """
        steps = [change.rollback for change in reversed(pending)]
        failures = []
        for step in (lambda: self.stop_for_rollback(before), *steps, self.service.reload):
            # If one part cannot be restored, the rest and the old agent still are.
            try:
                step()
            except (RuntimeError, OSError) as error:
                failures.append(str(error))
        failed = f"; the roll-back failed in part: {', '.join(failures)}" if failures else ""
        if before.active_state != RUNNING:
            return f"no agent ran before, and none runs now{failed}"
        try:
            self.service.start()
            outcome = self.wait_until_running()
        except RuntimeError as error:
            return f"the agent that ran before was restored but does not start: {error}{failed}"
        return f"{'an agent' if failures else 'the agent that ran before'} {outcome}{failed}"

    def stop_for_rollback(self, before: ServiceState) -> None:
        """Stop the service if it exists; disable it at boot if it was disabled before.

        Parameters:
            before: state of the service before the deployment.
        """
        if self.service.state().active_state != ABSENT:
            self.service.stop(disable=not before.enabled)

    def wait_until_running(self) -> str:
        """Wait until one process of the service has run for `STABLE` seconds, but not longer than `STABLE_WITHIN`.

        Returns:
            The state of the agent, for the message; an agent that keeps failing must not be reported as running.
        """
        end = time.monotonic() + STABLE_WITHIN
        pids: list[int] = []
        since = 0.0
        while time.monotonic() < end:
            state = self.service.state()
            pid = state.pid if state.active_state == RUNNING else 0
            if pid and pid not in pids:
                pids.append(pid)
                since = time.monotonic()
            if pid and time.monotonic() - since >= STABLE:
                return "runs again"
            time.sleep(0.1)
        if not pids:
            return "was restored but does not run"
        return f"was restored but fails again; `{self.service.log_command}` shows its log"

    def wait_until_healthy(self) -> None:
        """Wait until the new agent answers, has all its targets and is still the process that was started.

        Raises:
            DeploymentError: this takes longer than the timeout, or the agent fails.
        """
        url = f"http://127.0.0.1:{self.params['http_port']}/metrics"
        deadline, restarts = time.monotonic() + self.params["timeout"], self.service.state().restarts
        while time.monotonic() < deadline:
            pid = self.service.state().pid
            try:
                complete = self.agent.is_complete(fetch(self.params["http_port"]), self.params["config"])
                if complete and pid and self.service.state().pid == pid and self.restart_reason() is None:
                    return
            except (AgentError, OSError):
                pass
            if self.service.state().restarts > restarts + 1:
                raise DeploymentError("the agent fails right after its start")
            time.sleep(0.1)
        raise DeploymentError(
            f"within {self.params['timeout']} s the agent does not answer at {url}, or does not have all its targets"
        )


def digest_of(version: str, files: dict[str, str]) -> str:
    """Digest of what a service is started with, as 16 hexadecimal digits.

    Parameters:
        version: version of the agent, or the name of its folder.
        files: text of every file, by path.
    """
    parts = [version, *(part for item in sorted(files.items()) for part in item)]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def with_digest(definition: str, digest: str) -> str:
    """Definition of a service, with the digest as the value of its environment variable.

    Parameters:
        definition: text of a systemd unit or of a launchd job.
        digest: the digest.

    Raises:
        DeploymentError: the definition does not set the variable.
    """
    text, count = re.subn(
        rf"(\b{DEPLOYMENT}(?:=|</key>\s*<string>)){NO_DIGEST}\b", rf"\g<1>{digest}", definition, count=1
    )
    if not count:
        raise DeploymentError(f"the definition of the service does not set {DEPLOYMENT} to {NO_DIGEST}")
    return text
