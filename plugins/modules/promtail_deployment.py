# Copyright (c) SmolCluster contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module: switch a node's Promtail to a version and a configuration, or leave it as it was."""

from __future__ import annotations

DOCUMENTATION = r"""
module: promtail_deployment
short_description: Switch Promtail on a node to a version and a configuration, all or nothing
description:
  - Unpacks the version where it is missing, holds the configuration against that version's own parser, and only then
    writes the files, switches the C(current) link and restarts the service.
  - When the agent does not come up, what ran before is restored, and the module fails with the agent's last log lines.
  - Compares what runs with what is installed, so an interrupted run is completed by the next one.
author: [SmolCluster contributors (@smolcluster)]
attributes:
  check_mode: {support: full, description: A configuration is checked when its version is installed already.}
  diff_mode: {support: full, description: Shows every file.}
options:
  version: {description: Version to run., type: str, required: true}
  archive:
    description: Release archive on the node; needed when O(version) is not installed. Removed afterwards.
    type: path
  reinstall: {description: Unpack O(archive) though the version is installed., type: bool, default: false}
  config: {description: "The configuration as data, for the check.", type: dict, required: true}
  config_file: {description: Where the configuration belongs., type: path, required: true}
  unit_file: {description: Where the unit belongs., type: path, required: true}
  files:
    description:
      - Text of every file, by path; O(config_file) and O(unit_file) are among them.
      - C(@deployment@) is replaced by a digest of version and files, by which a later run knows what the service was
        started with, and C(@python@) by a Python interpreter of the node.
    type: dict
    required: true
  service: {description: Name of the service., type: str, default: promtail}
  user: {description: The service's user. Its group may read the configuration., type: str, required: true}
  folders:
    description: Folders that the service's user owns, where the service manager does not make them.
    type: list
    elements: path
    default: []
  source_folders:
    description:
      - Folders that log files are to lie in; missing ones are made, those that are there are left as they are.
      - Each is a C(path) with, optionally, C(owner) and C(mode) (octal, as text). Without them a folder gets the owner
        of the folder that it is made in; below one of root, everybody may write to it.
    type: list
    elements: dict
    default: []
  boot_file:
    description: File of tmpfiles.d(5) that makes these folders again at boot, where the system empties the place.
    type: path
  sha256: {description: SHA-256 that O(archive) must have; empty where none is known., type: str, default: ''}
  homebrew:
    description:
      - Take the program that Homebrew has installed, instead of O(archive); only on a Mac.
      - It is copied, for Homebrew's folder belongs to an ordinary account, and again when Homebrew has another one.
    type: bool
    default: false
  home: {description: Folder of the versions and of the C(current) link., type: path, required: true}
  http_port: {description: TCP port on 127.0.0.1 at which the agent must answer., type: int, required: true}
  timeout: {description: Seconds that the agent may take to answer., type: int, default: 20}
  adopt:
    description:
      - Stop other running Promtails, disable their units, and remove the positions files of a hand-made set-up.
      - A unit of the service's name that somebody else wrote is kept beside ours, a link as a link, with
        C(.before-smolcluster) added.
    type: bool
    default: false
"""
EXAMPLES = r"""
- name: Agent runs this version with this configuration
  smolcluster.logging.promtail_deployment:
    version: 3.6.11
    archive: /opt/promtail/promtail-linux-amd64.zip
    config: "{{ config }}"
    config_file: /etc/promtail/promtail.yml
    unit_file: /etc/systemd/system/promtail.service
    files:
      /etc/promtail/promtail.yml: "{{ config | to_nice_yaml }}"
      /etc/systemd/system/promtail.service: "{{ lookup('ansible.builtin.template', 'promtail.service.j2') }}"
    user: promtail
    home: /opt/promtail
    http_port: 9080
"""
RETURN = r"""
changes:
  description: What was changed, or would be
  returned: always
  type: list
  elements: str
  sample: [/etc/promtail/promtail.yml]
restarted: {description: Whether the service was started anew., returned: always, type: bool}
retired:
  description: Promtails of a hand-made set-up that were stopped, as units or command lines.
  returned: always
  type: list
  elements: str
"""

import fcntl
import os
import pwd
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.smolcluster.logging.plugins.module_utils import (
    agent_log,
    darwin,
    host,
    loki,
    promtail,
    source_folders,
)
from ansible_collections.smolcluster.logging.plugins.module_utils.files import (
    Change,
    Directory,
    Folder,
    Link,
    PathConflictError,
    TextFile,
)
from ansible_collections.smolcluster.logging.plugins.module_utils.metrics import AgentError, fetch
from ansible_collections.smolcluster.logging.plugins.module_utils.service import ABSENT, RUNNING, State

DEPLOYMENT = "PROMTAIL_DEPLOYMENT"
# Seconds. An agent that dies at the first file that it finds dies later than that of its folders' first search
# (sync_period of the role promtail, 2 s); one that dies at once is started again a second later.
STABLE = 5
STABLE_WITHIN = 20
SPEC = {
    "version": {"type": "str", "required": True},
    "archive": {"type": "path"},
    "reinstall": {"type": "bool", "default": False},
    "config": {"type": "dict", "required": True},
    "config_file": {"type": "path", "required": True},
    "unit_file": {"type": "path", "required": True},
    "files": {"type": "dict", "required": True},
    "service": {"type": "str", "default": "promtail"},
    "user": {"type": "str", "required": True},
    "folders": {"type": "list", "elements": "path", "default": []},
    "source_folders": {"type": "list", "elements": "dict", "default": []},
    "boot_file": {"type": "path"},
    "sha256": {"type": "str", "default": ""},
    "homebrew": {"type": "bool", "default": False},
    "home": {"type": "path", "required": True},
    "http_port": {"type": "int", "required": True},
    "timeout": {"type": "int", "default": 20},
    "adopt": {"type": "bool", "default": False},
}


class Deployment:
    """One deployment on one node.

    Parameters:
        module: the module that runs; gives parameters and commands.
    """

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.params = module.params
        self.service = host.manager(self.run, self.params["service"])
        self.home = Path(self.params["home"])
        self.folder = self.home / self.params["version"]
        self.keg = darwin.homebrew() if self.params["homebrew"] else None
        files = {path: text.replace("@python@", host.own.interpreter()) for path, text in self.params["files"].items()}
        texts = [part for file in files.items() for part in file]
        self.deployment = promtail.digest_of_texts(self.params["version"], *texts)
        scrapes = self.params["config"]["scrape_configs"]
        self.targets = sum(len(scrape.get("static_configs", [])) for scrape in scrapes)
        user, group = self.account()
        self.changes: list[Change] = [Directory(Path(path), 0o750, user, group) for path in self.params["folders"]]
        self.changes.append(Link(self.home / "current", self.params["version"]))
        for path, text in files.items():
            private = path == self.params["config_file"]
            text = text.replace("@deployment@", self.deployment)
            self.changes.append(TextFile(Path(path), text, *((0o640, group) if private else (0o644, 0))))
        # What the service is not started anew for.
        wanted = self.params["source_folders"]
        self.folders = source_folders.SourceFolders(wanted)
        self.places: list[Change] = [self.folders]
        if self.params["boot_file"]:
            lines = (
                f"# {promtail.MARK}\n# Folders of log sources, made again at boot.\n{source_folders.boot_lines(wanted)}"
            )
            self.places.append(TextFile(Path(self.params["boot_file"]), lines, 0o644, 0))

    def run(self, words: list[str]) -> tuple[int, str, str]:
        """Run a command with an empty input: over SSH without pipelining our own is a terminal that never ends.

        Not by run_command's `data`, which fails where the command ends before it has read them.
        """
        return self.module.run_command(["/bin/sh", "-c", 'exec "$@" </dev/null', "sh", *words], handle_exceptions=False)

    def account(self) -> tuple[int, int]:
        """Numbers of the service's user and of its group; root's while check mode has not made the user."""
        try:
            user = pwd.getpwnam(self.params["user"])
        except KeyError:
            if self.module.check_mode:
                return 0, 0
            raise promtail.PromtailError(f"the user {self.params['user']} does not exist") from None
        return user.pw_uid, user.pw_gid

    def missing(self) -> bool:
        """Whether the version has to be unpacked."""
        origin = promtail.origin_of(self.home, self.params["version"])
        if not self.params["homebrew"]:
            return self.params["reinstall"] or not origin
        if not self.keg or not self.keg["installed"]:
            return True
        with promtail.opened_as(self.keg["promtail"], darwin.owner_of(self.keg["brew"])) as program:
            return origin.get("sha256") != promtail.digest_of(program)

    def stale(self) -> str | None:
        """Why the service has to be started anew though the files are right; none when it need not."""
        state = self.service.state()
        if state.phase != RUNNING:
            return "the service does not run"
        if not state.enabled:
            return "the service is not enabled"
        if self.service.environment().get(DEPLOYMENT) != self.deployment:
            return "the service was started with something else"
        if not same_file(host.own.executable(state.pid), self.folder / promtail.PROGRAM):
            return "the service runs another program"
        return None

    def apply(self) -> dict:
        """Do what is to be done.

        Returns:
            Results of the module.

        Raises:
            PromtailError: refused, and nothing was touched; or rolled back.
        """
        with nullcontext() if self.module.check_mode else self.alone():
            try:
                return self.deploy()
            finally:
                if self.params["archive"] and not self.module.check_mode:
                    Path(self.params["archive"]).unlink(missing_ok=True)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other deployments away from this node: one that was cut off where it was started still runs here.

        Raises:
            PromtailError: another one takes longer than 60 s, or the folder is somebody else's.
        """
        if promtail.owner_of_home(self.home) == "foreign":
            raise promtail.PromtailError(f"{self.home} was not made by this collection; move it away")
        self.home.mkdir(mode=0o755, parents=True, exist_ok=True)
        (self.home / promtail.MARKER).touch()
        with (self.home / ".lock").open("w") as lock:
            end = time.monotonic() + 60
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > end:
                        raise promtail.PromtailError("another deployment runs on this node; try again later") from None
                    time.sleep(0.2)
            yield

    def deploy(self) -> dict:
        """Do what is to be done, alone; see `apply`."""
        unpack = self.missing()
        pending = [change for change in self.changes if change.needed()]
        places = [change for change in self.places if change.needed()]
        for text in self.folders.plan.left:
            self.module.warn(text)
        strays = promtail.strays(self.run, self.service)
        adopt = self.params["adopt"] and bool(strays or promtail.leftovers())
        reason = self.stale()
        result = {
            "changes": [f"version {self.params['version']} unpacked"] * unpack
            + [change.name for change in [*places, *pending]]
            + ["hand-made set-up retired"] * adopt
            + ([reason] if reason and not pending else []),
            "restarted": bool(unpack or pending or reason),
            "diff": [change.diff() for change in [*places, *pending]],
            "retired": [],
        }
        result["changed"] = bool(result["changes"])
        if self.module.check_mode:
            if pending and not unpack:
                promtail.check_config(self.folder / promtail.PROGRAM, self.params["config"], self.run)
            return result
        if unpack:
            pending.insert(0, Folder(self.folder, self.unpacked()))
        try:
            if result["restarted"]:
                made = pending[0].made if unpack else self.folder
                promtail.check_config(made / promtail.PROGRAM, self.params["config"], self.run)
                for client in self.params["config"]["clients"]:
                    loki.check_client(client["url"])
            for place in places:
                place.apply()
            if adopt:
                result["retired"] = self.retire(strays)
        except (promtail.PromtailError, loki.LokiError, source_folders.FolderError, RuntimeError, OSError):
            self.take_back(places)
            if unpack:
                shutil.rmtree(pending[0].made)
            raise
        if result["restarted"]:
            try:
                self.switch(pending, result["retired"])
            except promtail.PromtailError:
                self.take_back(places)
                raise
        if adopt:
            for path in promtail.leftovers():
                Path(path).unlink(missing_ok=True)
        return result

    @staticmethod
    def take_back(places: list[Change]) -> None:
        """Undo changes that the service is not started anew for; what cannot be undone stays."""
        for place in reversed(places):
            with suppress(OSError):
                place.rollback()

    def unpacked(self) -> Path:
        """Folder with the version from the archive, beside its place.

        Raises:
            PromtailError: there is no archive or no program of Homebrew, or its program does not start here.
        """
        if self.params["homebrew"]:
            if not self.keg:
                raise promtail.PromtailError("Homebrew is not on this host; set promtail_install_method: archive")
            return promtail.copy_of(self.keg["promtail"], darwin.owner_of(self.keg["brew"]), self.folder, self.run)
        if not self.params["archive"]:
            raise promtail.PromtailError(f"version {self.params['version']} is not installed and no archive given")
        return promtail.unpack(Path(self.params["archive"]), self.folder, self.run, self.params["sha256"])

    def retire(self, strays: list[promtail.Stray]) -> list[str]:
        """Stop other Promtails for good; a process that does not stop within 10 s is killed.

        Returns:
            What they were, as names of services or command lines without secrets.

        Raises:
            PromtailError: one is started again, by something that is not known.
        """
        pids = [stray.pid for stray in strays if stray.pid]
        for stray in strays:
            if stray.service:
                stray.service.retire()
            else:
                with suppress(ProcessLookupError):
                    os.kill(stray.pid, signal.SIGTERM)
        deadline = time.monotonic() + 10
        # A number that another program has got meanwhile is not theirs any more.
        while (alive := [pid for pid in pids if pid in host.processes_of(promtail.PROGRAM)]) and (
            time.monotonic() < deadline
        ):
            time.sleep(0.1)
        for pid in alive:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        end = time.monotonic() + 2
        while strays and time.monotonic() < end:
            time.sleep(0.1)
            found = promtail.strays(self.run, self.service)
            # Our own may have been started in between.
            known = {*pids, *self.service.processes()}
            if again := [stray for stray in found if stray.pid and stray.pid not in known]:
                raise promtail.PromtailError(
                    f"a Promtail was ended and is started again: {again[0].words} (pid {again[0].pid}). Find what "
                    "starts it (a job of launchd or cron, a script in a loop), end that, and run this again; the "
                    "collection's own agent was not touched"
                )
        return [stray.words for stray in strays]

    def switch(self, pending: list[Change], retired: list[str]) -> None:
        """Make what is pending and start the service; roll everything back when the agent does not come up.

        Parameters:
            pending: changes to make.
            retired: Promtails of a hand-made set-up that were stopped before, for the message.

        Raises:
            PromtailError: it did not come up; says whether the old agent runs again, and ends with the line of the
                log that says why.
        """
        before, begun = self.service.state(), time.monotonic()
        unit = Path(self.params["unit_file"])
        for change in pending:
            if isinstance(change, TextFile) and change.path == unit:
                change.keep = self.params["adopt"] and bool(promtail.foreign_unit(unit, ""))
        try:
            if before.phase != ABSENT and any(isinstance(change, Directory) for change in pending):
                # An agent of another account must not write its positions once more.
                self.service.stop(disable=False)
            for change in pending:
                change.apply()
            self.service.restart()
            self.observe()
        except (RuntimeError, OSError, ValueError, promtail.PromtailError) as error:
            # A stack can be long, and what it is of stands before it.
            log = self.service.journal(500, int(time.monotonic() - begun) + 1)
            outcome = self.roll_back(pending, before)
            if retired:
                outcome += f"; stopped before, start it again yourself: {', '.join(retired)}"
            last = agent_log.excerpt(log, self.service.own_words) or f"none; see `{self.service.words_command}`"
            raise promtail.PromtailError(f"{error}; {outcome}. Last log lines:\n{last}") from error
        for change in (*pending, *self.changes):
            change.commit()

    def roll_back(self, pending: list[Change], before: State) -> str:
        """Restore the files, and what ran before.

        Parameters:
            pending: changes that were or were to be made.
            before: state of the service before them.

        Returns:
            What holds now, for the message.
        """
        steps = [change.rollback for change in reversed(pending)]
        failures = []
        for step in (lambda: self.stop_for_rollback(before), *steps, self.service.reload):
            # What cannot be restored must not keep the rest, and the old agent, from coming back.
            try:
                step()
            except (RuntimeError, OSError) as error:
                failures.append(str(error))
        failed = f"; restoring it failed in part: {', '.join(failures)}" if failures else ""
        if before.phase != RUNNING:
            return f"nothing ran before and nothing was left running{failed}"
        try:
            self.service.start()
            outcome = self.wait_until_running()
        except RuntimeError as error:
            return f"the agent that ran before was restored but does not start: {error}{failed}"
        return f"{'an agent' if failures else 'the agent that ran before'} {outcome}{failed}"

    def stop_for_rollback(self, before: State) -> None:
        """Stop the service, where there is one; one that was not started at boot before is not from now on.

        Parameters:
            before: state of the service before the deployment.
        """
        if self.service.state().phase != ABSENT:
            self.service.stop(disable=not before.enabled)

    def wait_until_running(self) -> str:
        """Look until one process of the service has run for `STABLE` seconds, or `STABLE_WITHIN` are over.

        Returns:
            What the agent does, for the message: one that dies on must not be said to run.
        """
        end = time.monotonic() + STABLE_WITHIN
        pids: list[int] = []
        since = 0.0
        while time.monotonic() < end:
            state = self.service.state()
            pid = state.pid if state.phase == RUNNING else 0
            if pid and pid not in pids:
                pids.append(pid)
                since = time.monotonic()
            if pid and time.monotonic() - since >= STABLE:
                return "runs again"
            time.sleep(0.1)
        if not pids:
            return "was restored but does not run"
        return f"was restored but dies again: `{self.service.words_command}` says why"

    def observe(self) -> None:
        """Wait until the new agent answers, has all its targets and is still the process that was started.

        Not `/ready`: that is an error until a file is followed (Promtail 3.6, server.go).

        Raises:
            PromtailError: it does not, within the time given.
        """
        url = f"http://127.0.0.1:{self.params['http_port']}/metrics"
        deadline, restarts = time.monotonic() + self.params["timeout"], self.service.state().restarts
        while time.monotonic() < deadline:
            pid = self.service.state().pid
            try:
                targets = fetch(self.params["http_port"]).total("promtail_targets_active_total")
                if targets >= self.targets and pid and self.service.state().pid == pid and self.stale() is None:
                    return
            except (AgentError, OSError):
                pass
            if self.service.state().restarts > restarts + 1:
                raise promtail.PromtailError("the agent dies right after its start")
            time.sleep(0.1)
        raise promtail.PromtailError(
            f"the agent does not answer at {url}, or not with {self.targets} targets, within {self.params['timeout']} s"
        )


def same_file(running: str | None, wanted: Path) -> bool:
    """Whether a process runs a program; a Mac may name one file by two paths, below / and /System/Volumes/Data.

    Parameters:
        running: path that the system gives for the process; none when it does not tell.
        wanted: path of the program.
    """
    try:
        return running is not None and os.path.samefile(running, wanted)
    except OSError:  # a program that was replaced has the path of none
        return False


def main() -> None:
    """Run the module; a refusal or a roll-back fails it with the cause."""
    module = AnsibleModule(argument_spec=SPEC, supports_check_mode=True)
    try:
        module.exit_json(**Deployment(module).apply())
    except (
        promtail.PromtailError, loki.LokiError, source_folders.FolderError, PathConflictError, RuntimeError, OSError
    ) as error:  # fmt: skip
        module.fail_json(msg=str(error))


if __name__ == "__main__":
    main()
