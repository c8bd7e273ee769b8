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
  - An agent that does not come up is put back to what ran before, and the module fails with the agent's own words.
  - Compares what runs with what is installed, so an interrupted run is completed by the next one.
author: [SmolCluster contributors (@smolcluster)]
attributes:
  check_mode: {support: full, description: A configuration is checked when its version is installed already.}
  diff_mode: {support: full, description: Shows every file.}
options:
  version: {description: Version to run., type: str, required: true}
  archive:
    description: Release archive on the node; needed when O(version) is not installed. Removed once it is unpacked.
    type: path
  reinstall: {description: Unpack O(archive) though the version is installed., type: bool, default: false}
  config: {description: The configuration as data, for the check., type: dict, required: true}
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
  group: {description: Group that may read the configuration., type: str, required: true}
  home: {description: Folder of the versions and of the C(current) link., type: path, required: true}
  http_port: {description: TCP port on 127.0.0.1 at which the agent must answer., type: int, required: true}
  timeout: {description: Seconds that the agent may take to answer., type: int, default: 20}
  adopt:
    description:
      - Stop other running Promtails, disable their units, and remove the positions files of a hand-made set-up.
      - A unit of the service's name that somebody else wrote is kept beside ours, with C(.before-smolcluster) added.
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
    group: promtail
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
import grp
import http.client
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.smolcluster.logging.plugins.module_utils import linux, loki, promtail
from ansible_collections.smolcluster.logging.plugins.module_utils.files import Change, Folder, Link, TextFile
from ansible_collections.smolcluster.logging.plugins.module_utils.metrics import Metrics
from ansible_collections.smolcluster.logging.plugins.module_utils.systemd import Systemd

DEPLOYMENT = "PROMTAIL_DEPLOYMENT"
SPEC = {
    "version": {"type": "str", "required": True},
    "archive": {"type": "path"},
    "reinstall": {"type": "bool", "default": False},
    "config": {"type": "dict", "required": True},
    "config_file": {"type": "path", "required": True},
    "unit_file": {"type": "path", "required": True},
    "files": {"type": "dict", "required": True},
    "service": {"type": "str", "default": "promtail"},
    "group": {"type": "str", "required": True},
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
        self.service = Systemd(self.run, self.params["service"])
        self.home = Path(self.params["home"])
        self.folder = self.home / self.params["version"]
        files = {path: text.replace("@python@", interpreter()) for path, text in self.params["files"].items()}
        texts = [part for file in files.items() for part in file]
        self.deployment = promtail.digest_of_texts(self.params["version"], *texts)
        scrapes = self.params["config"]["scrape_configs"]
        self.targets = sum(len(scrape.get("static_configs", [])) for scrape in scrapes)
        self.changes: list[Change] = [Link(self.home / "current", self.params["version"])]
        for path, text in files.items():
            private = path == self.params["config_file"]
            mode, group = (0o640, self.group()) if private else (0o644, 0)
            self.changes.append(TextFile(Path(path), text.replace("@deployment@", self.deployment), mode, group))

    def run(self, words: list[str]) -> tuple[int, str, str]:
        """Run a command with an empty input: over SSH without pipelining our own is a terminal that never ends.

        Not by run_command's `data`, which fails where the command ends before it has read them.
        """
        return self.module.run_command(["/bin/sh", "-c", 'exec "$@" </dev/null', "sh", *words], handle_exceptions=False)

    def group(self) -> int:
        """Number of the group that may read the configuration; root's while check mode has not made the group."""
        try:
            return grp.getgrnam(self.params["group"]).gr_gid
        except KeyError:
            if self.module.check_mode:
                return 0
            raise promtail.PromtailError(f"the group {self.params['group']} does not exist") from None

    def missing(self) -> bool:
        """Whether the version has to be unpacked."""
        return self.params["reinstall"] or not promtail.archive_of(self.home, self.params["version"])

    def stale(self) -> str | None:
        """Why the service has to be started anew though the files are right; none when it need not."""
        state = self.service.state()
        if state.get("ActiveState") != "active" or state.get("MainPID") in (None, "0"):
            return "the service does not run"
        if state.get("UnitFileState") != "enabled":
            return "the service is not enabled"
        if linux.environment(int(state["MainPID"])).get(DEPLOYMENT) != self.deployment:
            return "the service was started with something else"
        if linux.executable(int(state["MainPID"])) != os.path.realpath(self.folder / promtail.PROGRAM):
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
            return self.deploy()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other deployments away from this node: one that was cut off where it was started still runs here.

        Raises:
            PromtailError: another one takes longer than 60 s.
        """
        self.home.mkdir(mode=0o755, parents=True, exist_ok=True)
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
        strays = [pid for pid in linux.processes_of(promtail.PROGRAM) if pid != self.service.pid()]
        adopt = self.params["adopt"] and bool(strays or promtail.leftovers())
        reason = self.stale()
        result = {
            "changes": [f"version {self.params['version']} unpacked"] * unpack
            + [change.name for change in pending]
            + ["hand-made set-up retired"] * adopt
            + ([reason] if reason and not pending else []),
            "restarted": bool(unpack or pending or reason),
            "diff": [change.diff() for change in pending],
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
                    promtail.check_client(client["url"])
            if adopt:
                result["retired"] = self.retire(strays)
        except (promtail.PromtailError, RuntimeError, OSError):
            if unpack:
                shutil.rmtree(pending[0].made)
            raise
        if result["restarted"]:
            self.switch(pending, result["retired"])
        if adopt:
            for path in promtail.leftovers():
                Path(path).unlink(missing_ok=True)
        return result

    def unpacked(self) -> Path:
        """Folder with the version from the archive, beside its place; the archive is cleared away in any case.

        Raises:
            PromtailError: there is no archive, or its program does not start here.
        """
        if not self.params["archive"]:
            raise promtail.PromtailError(f"version {self.params['version']} is not installed and no archive given")
        archive = Path(self.params["archive"])
        try:
            return promtail.unpack(archive, self.folder, self.run)
        finally:
            archive.unlink(missing_ok=True)

    def retire(self, strays: list[int]) -> list[str]:
        """Stop other Promtails; one that does not stop within 10 s is killed.

        Parameters:
            strays: their processes.

        Returns:
            What they were: the name of a unit, which is disabled as well, or a command line.
        """
        retired = []
        for pid in strays:
            unit, words = linux.unit_of(pid), " ".join(linux.command_line(pid))
            if unit and Systemd(self.run, unit).pid() == pid:
                self.service.do("disable", "--now", unit)
                retired.append(unit)
                continue
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
            retired.append(words)
        deadline = time.monotonic() + 10
        while (alive := [pid for pid in strays if linux.command_line(pid)]) and time.monotonic() < deadline:
            time.sleep(0.1)
        for pid in alive:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return retired

    def switch(self, pending: list[Change], retired: list[str]) -> None:
        """Make what is pending and start the service; put everything back when the agent does not come up.

        Parameters:
            pending: changes to make.
            retired: Promtails of a hand-made set-up that were stopped before, for the message.

        Raises:
            PromtailError: it did not come up; says whether the old agent runs again.
        """
        before = self.service.state()
        unit = Path(self.params["unit_file"])
        try:
            if promtail.foreign_unit(unit, "") and self.params["adopt"]:
                shutil.copy2(unit, f"{unit}.before-smolcluster")
            for change in pending:
                change.apply()
            self.service.do("daemon-reload")
            self.service.do("enable", self.params["service"])
            self.service.do("restart", self.params["service"])
            self.observe()
        except (RuntimeError, OSError, ValueError, promtail.PromtailError) as error:
            words = self.service.journal()
            outcome = self.put_back(pending, before)
            if retired:
                outcome += f"; stopped before, start it again yourself: {', '.join(retired)}"
            raise promtail.PromtailError(f"{error}; {outcome}. Its last words:\n{words}") from error
        for change in pending:
            change.conclude()

    def put_back(self, pending: list[Change], before: dict[str, str]) -> str:
        """Put back the files, and what ran before.

        Parameters:
            pending: changes that were or were to be made.
            before: state of the service before them.

        Returns:
            What holds now, for the message.
        """
        name = self.params["service"]
        try:
            if self.service.state().get("LoadState") == "loaded":
                # A stop that fails must not keep the files from being put back.
                self.run(["systemctl", "stop", name])
                if before.get("UnitFileState") != "enabled":
                    self.run(["systemctl", "disable", name])
            for change in reversed(pending):
                change.undo()
            self.service.do("daemon-reload")
            if before.get("ActiveState") != "active":
                self.run(["systemctl", "reset-failed", name])
                return "nothing ran before and nothing was left running"
            self.service.do("start", name)
            if self.service.state().get("ActiveState") != "active":
                return "the agent that ran before was put back but does not run"
        except (RuntimeError, OSError) as error:
            return f"putting the old agent back failed too: {error}"
        return "the agent that ran before runs again"

    def observe(self) -> None:
        """Wait until the new agent answers, has all its targets and is still the process that was started.

        Not `/ready`: that is an error until a file is followed (Promtail 3.6, server.go).

        Raises:
            PromtailError: it does not, within the time given.
        """
        url = f"http://127.0.0.1:{self.params['http_port']}/metrics"
        deadline = time.monotonic() + self.params["timeout"]
        while time.monotonic() < deadline:
            pid = self.service.pid()
            try:
                with loki.DIRECT.open(url, timeout=5) as answer:
                    targets = Metrics(answer.read().decode()).total("promtail_targets_active_total")
                if targets >= self.targets and pid and self.service.pid() == pid and self.stale() is None:
                    return
            except (http.client.HTTPException, OSError):
                pass
            if int(self.service.state().get("NRestarts") or 0) > 1:
                raise promtail.PromtailError("the agent dies right after its start")
            time.sleep(0.1)
        raise promtail.PromtailError(
            f"the agent does not answer at {url}, or not with {self.targets} targets, within {self.params['timeout']} s"
        )


def interpreter() -> str:
    """Python for the service: the system's own by the name that outlives its upgrades, else the one that runs this."""
    return next(path for path in ("/usr/bin/python3", sys.executable) if os.access(path, os.X_OK))


def main() -> None:
    """Run the module; a refusal or a roll-back fails it with the cause."""
    module = AnsibleModule(argument_spec=SPEC, supports_check_mode=True)
    try:
        module.exit_json(**Deployment(module).apply())
    except (promtail.PromtailError, RuntimeError, OSError) as error:
        module.fail_json(msg=str(error))


if __name__ == "__main__":
    main()
