# Copyright (c) SmolCluster contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""A launchd service: its state, and the few changes that a deployment needs.

Sources: launchctl(1), launchd.plist(5), and reports of other projects: a stopped job is still listed as `SIGTERMed`
until its processes are gone, and loading it during that time fails with 5 (kxn/codex-remote-feishu#914,
openclaw/openclaw#136453); unloading a job that is not loaded fails with 3, or 5 since Darwin 27 (jdx/mise#10965);
loading a job that is already loaded fails with 5, 17 or 37. So exit codes decide nothing here: after each change the
state is read again. A job that was ended by a signal shows that signal instead of an exit code.
"""

from __future__ import annotations

import calendar
import os
import plistlib
import re
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from ansible_collections.smolcluster.logging.plugins.module_utils.changes import (
    READ_LIMIT,
    open_regular,
    rename_to_backup,
)
from ansible_collections.smolcluster.logging.plugins.module_utils.services.base import (
    ABSENT,
    RUNNING,
    STARTING,
    STOPPED,
    Run,
    ServiceState,
)
from ansible_collections.smolcluster.logging.plugins.module_utils.systems import darwin

LAUNCHCTL = "/bin/launchctl"
DAEMONS, AGENTS = Path("/Library/LaunchDaemons"), Path("/Library/LaunchAgents")
HOMES = Path("/Users")
# Belongs to the user who is logged in at the Mac itself.
CONSOLE = "/dev/console"

# Exit codes of `launchctl print`: no such job; no such domain (a user who is not logged in).
NOT_FOUND = (113, 125)
# Seconds. A job that ignores SIGTERM is killed after its exit timeout; it is gone soon after that.
GONE_AFTER, LOADED_WITHIN = 15, 15


def parse(text: str) -> dict[str, str | dict[str, str]]:
    """Fields in the output of `launchctl print` for a job; a block of `name => value` lines becomes a mapping.

    Its form is documented as subject to change. Levels are distinguished by the number of tabs, because deeper blocks
    have fields with the same names, and other kinds of brackets.
    """
    fields: dict[str, str | dict[str, str]] = {}
    block: dict[str, str] = {}
    for line in text.splitlines():
        if found := re.fullmatch(r"\t(\S.*?) = (.*)", line):
            fields[found[1]] = block = {}
            if found[2] != "{":
                fields[found[1]] = found[2]
        elif found := re.fullmatch(r"\t\t(\S.*?) => (.*)", line):
            block[found[1]] = found[2]
    return fields


def owner_of(path: Path) -> int:
    """User ID of the account that controls the folder of a property list.

    For a folder in a home it is the owner of the home, which only root can create or replace; all other folders belong
    to root.
    """
    if HOMES in path.parents:
        return (HOMES / path.relative_to(HOMES).parts[0]).stat().st_uid
    return os.geteuid()


def read_plist(path: Path) -> dict:
    """Content of a property list; empty when it cannot be read or is not a mapping.

    In a user's home it is read only if that user may read it: Homebrew puts links there, and a user could put any link.
    """
    try:
        owner = owner_of(path)
        with open_regular(path) as file:
            status = os.fstat(file.fileno())
            if status.st_uid != owner and not status.st_mode & stat.S_IROTH:
                return {}
            content = file.read(READ_LIMIT + 1)
        found = plistlib.loads(content) if len(content) <= READ_LIMIT else None
    except Exception:  # plistlib and its parsers raise many kinds of errors for invalid files
        return {}
    return found if isinstance(found, dict) else {}


def plists() -> Iterator[tuple[list[str], Path]]:
    """Possible domains and the file of every daemon and agent; in an SSH session Homebrew uses the domain `user`.

    Agents for all users run in the domain of each logged-in user; only the domain of the user at the console is tried.
    """
    for path in sorted(DAEMONS.glob("*.plist")):
        yield ["system"], path
    console = os.stat(CONSOLE).st_uid
    for path in sorted(AGENTS.glob("*.plist")):
        yield [f"gui/{console}", f"user/{console}"], path
    for path in sorted(HOMES.glob("*/Library/LaunchAgents/*.plist")):
        uid = path.parents[2].stat().st_uid
        yield [f"gui/{uid}", f"user/{uid}"], path


class Launchd:
    """One job.

    Parameters:
        run: function that runs a command (list of arguments); returns exit code, standard output and standard error.
        name: label of the job.
        domain: launchd's domain, `system` or `gui/<uid>`.
        file: its property list; by default that of a daemon with this name.
    """

    # launchd writes nothing to the service's log, only to the system log.
    MANAGER_LINE = re.compile(r"(?!)")

    def __init__(self, run: Run, name: str, domain: str = "system", file: Path | None = None) -> None:
        self._run = run
        self.name = name
        self._domain = domain
        self._target = f"{domain}/{name}"
        self._file = file or DAEMONS / f"{name}.plist"
        # For messages: what a user types on the node.
        self.start_command = f"sudo launchctl bootstrap {domain} {self._file}"
        # KeepAlive starts it again.
        self.restart_command = f"sudo launchctl kill SIGTERM {self._target}"
        self.log_command = f"sudo tail {self._log()}"

    @staticmethod
    def present() -> bool:
        """Whether this host has launchd."""
        return os.access(LAUNCHCTL, os.X_OK)

    @classmethod
    def services_of(cls, run: Run, program: str, pids: list[int]) -> list[Launchd]:  # noqa: ARG003
        """Jobs that start a program, whether they run or not, because a job may start again at login.

        Parameters:
            run: see the class.
            program: name of the program.
            pids: its running processes; not used here, the property lists are enough.
        """
        found = []
        for domains, path in plists():
            job = read_plist(path)
            arguments = job.get("ProgramArguments", [])
            listed = arguments if isinstance(arguments, list) else [arguments]
            words = " ".join(map(str, [job.get("Program", ""), *listed])).split()
            if any(os.path.basename(word) == program for word in words):
                label = job.get("Label")
                name = label if label and isinstance(label, str) else path.stem
                services = [cls(run, name, domain, path) for domain in domains]
                found.append(next((service for service in services if service._print() is not None), services[0]))
        return found

    def _print(self) -> dict[str, str | dict[str, str]] | None:
        """Fields of the job as launchd reports them; None when launchd does not know the job.

        Raises:
            RuntimeError: launchctl failed; the text has its message.
        """
        code, out, err = self._run([LAUNCHCTL, "print", self._target])
        # The domain of a user who is not logged in may not exist.
        if code in NOT_FOUND or (code and ("Could not find" in out + err or self._domain != "system")):
            return None
        if code:
            raise RuntimeError(f"launchctl print {self._target}: {(err or out).strip()}")
        return parse(out)

    def _job_pid(self) -> int:
        """ID of the process that launchd has started; 0 without one."""
        return int((self._print() or {}).get("pid", 0))

    def _disabled(self) -> bool:
        """Whether the job is disabled; newer systems print `disabled`, older ones `true`."""
        out = self._run([LAUNCHCTL, "print-disabled", self._domain])[1]
        return bool(re.search(rf'"{re.escape(self.name)}" => (disabled|true)\s*$', out, re.MULTILINE))

    def state(self) -> ServiceState:
        """State of the job.

        Raises:
            RuntimeError: launchctl failed.
        """
        fields = self._print()
        if fields is None:
            return ServiceState(active_state=STOPPED if self._file.exists() else ABSENT, enabled=not self._disabled())
        # The job's own process is the watcher, which starts the program as its child.
        started = darwin.descendants(int(fields.get("pid", 0)))[1:]
        pid = started[0] if started else 0
        runs = int(fields.get("runs", 0))
        return ServiceState(
            active_state=RUNNING if pid else STARTING,
            pid=pid,
            enabled=not self._disabled(),
            restarts=max(0, runs - 1),
            definition=str(fields.get("path", "")),
        )

    def processes(self) -> list[int]:
        """All processes of the job."""
        return darwin.descendants(self._job_pid())

    def environment(self) -> dict[str, str]:
        """Environment of the job as loaded by launchd; empty when it is not loaded.

        The environment of the process itself is visible only where System Integrity Protection allows it.
        """
        environment = (self._print() or {}).get("environment", {})
        return environment if isinstance(environment, dict) else {}

    def restart(self) -> None:
        """Restart the job with the present content of its file, and enable it at boot.

        Not with `kickstart -k`, which kills it with SIGKILL and uses the file as it was when it was loaded.

        Raises:
            RuntimeError: it failed; the text has the message of launchctl.
        """
        if self._disabled():
            self._do("enable", self._target)
        self._unload()
        self._load()

    def start(self) -> None:
        """Start the job, whether it is loaded already or not.

        Raises:
            RuntimeError: see `restart`.
        """
        if self._print() is None:
            self._load()
        else:
            self._do("kickstart", self._target)

    def stop(self, disable: bool) -> None:
        """Unload the job and wait until its processes are gone.

        Parameters:
            disable: whether to disable it at boot, too.

        Raises:
            RuntimeError: it does not stop.
        """
        self._unload()
        if disable:
            self._do("disable", self._target)

    def reload(self) -> None:
        """Do nothing: launchd reads a file when it loads the job."""

    def retire(self) -> None:
        """Stop the job permanently; its file is kept under another name, which launchd does not read.

        Raises:
            RuntimeError: it does not stop.
            OSError: its file cannot be renamed.
        """
        self._unload()
        rename_to_backup(self._file, owner_of(self._file))

    @staticmethod
    def drop_ins() -> list[dict[str, object]]:
        """Drop-ins of the job: none, because launchd has no drop-ins."""
        return []

    def remove(self, file: Path) -> None:
        """Stop the job permanently and remove its definition.

        Raises:
            RuntimeError: it does not stop.
        """
        self._unload()
        file.unlink(missing_ok=True)

    def _unload(self) -> None:
        """Unload the job, and wait until launchd no longer lists it.

        Raises:
            RuntimeError: it is still listed after its exit timeout plus `GONE_AFTER`.
        """
        fields = self._print()
        if fields is None:
            return
        _code, out, err = self._run([LAUNCHCTL, "bootout", self._target])
        end = time.monotonic() + int(fields.get("exit timeout", 0)) + GONE_AFTER
        while self._print() is not None:
            if time.monotonic() > end:
                raise RuntimeError(f"launchctl bootout {self._target}: it is still loaded; {(err or out).strip()}")
            time.sleep(0.1)

    def _load(self) -> None:
        """Load the job; retries, because launchd may not have finished unloading the old job.

        Raises:
            RuntimeError: it is not loaded within `LOADED_WITHIN`.
        """
        end = time.monotonic() + LOADED_WITHIN
        while True:
            code, out, err = self._run([LAUNCHCTL, "bootstrap", self._domain, str(self._file)])
            if not code or (self._print() or {}).get("path") == str(self._file):
                return
            if time.monotonic() > end:
                raise RuntimeError(f"launchctl bootstrap {self._domain} {self._file}: {(err or out).strip()}")
            time.sleep(0.5)

    def _do(self, *words: str) -> None:
        code, out, err = self._run([LAUNCHCTL, *words])
        if code:
            raise RuntimeError(f"launchctl {' '.join(words)}: {(err or out).strip()}")

    def _log(self) -> str:
        """Path of the job's standard error; empty when its property list has none."""
        return str(read_plist(self._file).get("StandardErrorPath", ""))

    def journal(self, lines: int = 15, seconds: int | None = None) -> str:
        """Last lines of the job's log, with the exit code or signal if it does not run.

        Parameters:
            lines: how many at most.
            seconds: largest age, see `younger`; None for any age.
        """
        try:
            # The agent's account controls the folder of the log, so no link is followed.
            with open_regular(self._log(), follow=False) as file:
                status = os.fstat(file.fileno())
                file.seek(max(0, status.st_size - lines * 1024))
                found, changed = file.read().decode(errors="replace").splitlines()[-lines:], status.st_mtime
        except OSError:
            found, changed = [], 0.0
        if seconds is not None:
            found = younger(found, time.time() - seconds, changed)
        try:
            fields = self._print() or {}
        except RuntimeError:
            fields = {}
        ends = {name: str(fields.get(name, "")) for name in ("last exit code", "last terminating signal")}
        if "pid" not in fields:
            found += [f"launchd: {name} {end}" for name, end in ends.items() if re.search("[1-9]", end)]
        return "\n".join(found).strip()


def younger(lines: list[str], since: float, changed: float) -> list[str]:
    """Lines of a log since a given time, by their `ts=`; a line without a time belongs to the line before it.

    Parameters:
        lines: lines at the end of the log.
        since: the given time, seconds since 1970.
        changed: when the log was last changed, in seconds since 1970. This is also the time of lines without a time at
            the end, for example the panic of a program that has logged nothing else.
    """
    times = [written(line) for line in lines]
    young = [number for number, moment in enumerate(times) if moment >= since]
    if not young and changed >= since:
        young = [max((number for number, moment in enumerate(times) if moment), default=-1) + 1]
    return lines[young[0] :] if young else []


def written(line: str) -> float:
    """When a line of Promtail's log was written, in seconds since 1970; 0 when it has no time."""
    found = re.search(r"\bts=(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)\S*Z", line)
    if not found:
        return 0.0
    return float(calendar.timegm(time.strptime(found[1], "%Y-%m-%dT%H:%M:%S")))
