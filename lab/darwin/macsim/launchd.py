"""Stand-in for launchd: process 1 of the simulated Mac. It really starts, restarts, stops and kills programs.

It speaks to the stand-in of launchctl over a socket. States of a job are those that `launchctl print` names: `running`,
`spawn scheduled` (waits for its ThrottleInterval), `not running`, `SIGTERMed` (unloaded, its process still there).
"""

from __future__ import annotations

import contextlib
import grp
import json
import os
import plistlib
import pwd
import resource
import signal
import socket
import socketserver
import struct
import subprocess
import threading
import time
from pathlib import Path

SOCKET = "/var/run/launchd.sock"
OVERRIDES = Path("/var/db/com.apple.xpc.launchd/disabled.plist")
FOLDERS = (Path("/System/Library/LaunchDaemons"), Path("/Library/LaunchDaemons"))
# A user who sits at the Mac has a `gui` domain; by SSH alone there is none.
LOGGED_IN = Path("/var/macsim/gui")

USAGE = 64
EX_CONFIG = 78
# Seconds. launchd.plist(5) says 20; `launchctl print` of jobs without a setting of their own says 5.
EXIT_TIMEOUT = 5
TEXTS = {
    1: "Operation not permitted",
    3: "No such process",
    5: "Input/output error",
    36: "Operation now in progress",
    113: "Could not find specified service",
    119: "Service is disabled",
    122: "Path had bad ownership/permissions",
    125: "Domain does not support specified action",
}
# launchd.plist(5); a real launchd ignores what it does not know, which hides mistakes.
KEYS = {
    "Label": str, "ProgramArguments": list, "Program": str, "UserName": str, "GroupName": str, "RunAtLoad": bool,
    "KeepAlive": bool, "ThrottleInterval": int, "ExitTimeOut": int, "SoftResourceLimits": dict,
    "HardResourceLimits": dict, "Umask": int, "WorkingDirectory": str, "StandardOutPath": str,
    "StandardErrorPath": str, "EnvironmentVariables": dict, "AbandonProcessGroup": bool, "ProcessType": str,
}  # fmt: skip


class RefusedError(Exception):
    """A request that launchctl reports as failed.

    Parameters:
        code: exit code.
        what: first words of the message, as `Bootstrap failed`.
    """

    def __init__(self, code: int, what: str) -> None:
        super().__init__(f"{what}: {code}: {TEXTS[code]}")
        self.code = code


class Job:
    """A loaded job.

    Parameters:
        domain: `system`, `gui/<uid>` or `user/<uid>`.
        path: its property list.
        plist: content of that.
    """

    def __init__(self, domain: str, path: str, plist: dict) -> None:
        self.domain, self.path, self.plist = domain, path, plist
        self.pid = 0
        self.runs = 0
        self.last = "last exit code = (never exited)"
        self.started = -1e9
        self.wanted = bool(plist.get("RunAtLoad") or plist.get("KeepAlive"))
        self.unloading = False
        self.kill_at: float | None = None

    @property
    def state(self) -> str:
        """As `launchctl print` names it."""
        if self.unloading:
            return "SIGTERMed"
        if self.pid:
            return "running"
        return "spawn scheduled" if self.wanted else "not running"

    def arguments(self) -> list[str]:
        """Command line of the job."""
        return self.plist.get("ProgramArguments") or [self.plist["Program"]]

    def spawn(self) -> None:
        """Start the program; one that cannot be started counts as a run that ended with EX_CONFIG."""
        self.started, self.wanted = time.monotonic(), False
        self.runs += 1
        pid = os.fork()
        if pid:
            self.pid = pid
            return
        try:
            self._become()
            os.execv(  # noqa: S606
                self.plist.get("Program") or self.arguments()[0], self.arguments()
            )
        except BaseException:
            os._exit(EX_CONFIG)

    def _become(self) -> None:
        """In the child: account, limits, files and environment of the job."""
        os.setsid()
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        uid = 0 if self.domain == "system" else int(self.domain.partition("/")[2])
        user = pwd.getpwnam(self.plist["UserName"]) if "UserName" in self.plist else pwd.getpwuid(uid)
        group = grp.getgrnam(self.plist["GroupName"]).gr_gid if "GroupName" in self.plist else user.pw_gid
        soft, hard = (self.plist.get(f"{kind}ResourceLimits", {}).get("NumberOfFiles") for kind in ("Soft", "Hard"))
        allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        hard = min(hard or allowed, allowed)
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft or 256, hard), hard))
        os.initgroups(user.pw_name, group)
        os.setgid(group)
        os.setuid(user.pw_uid)
        os.umask(self.plist.get("Umask", 0o022))
        os.chdir(self.plist.get("WorkingDirectory", "/"))
        for number, key in ((1, "StandardOutPath"), (2, "StandardErrorPath")):
            os.dup2(os.open(self.plist.get(key, "/dev/null"), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666), number)
        os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
        os.closerange(3, 1024)
        os.environ.clear()
        os.environ.update(
            {"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "HOME": user.pw_dir, "USER": user.pw_name, "SHELL": "/bin/sh"}
            | self.environment()
        )

    def environment(self) -> dict[str, str]:
        """Environment of the property list, and what launchd adds."""
        return self.plist.get("EnvironmentVariables", {}) | {"XPC_SERVICE_NAME": self.plist["Label"]}

    def ended(self, status: int) -> None:
        """Take note that the process has ended; what is left of its process group is asked to end.

        Source: launchd-842, job_reap(), killpg2 with SIGTERM; a process that ignores it lives on.
        """
        if not self.plist.get("AbandonProcessGroup"):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGTERM)
        code = os.waitstatus_to_exitcode(status)
        if code < 0:
            self.last = f"last terminating signal = {signal.strsignal(-code)}: {-code}"
        else:
            self.last = f"last exit code = {code}{': EX_CONFIG' if code == EX_CONFIG else ''}"
        self.pid, self.kill_at = 0, None
        self.wanted = bool(self.plist.get("KeepAlive"))

    def text(self) -> str:
        """What `launchctl print` shows; blocks repeat names of the first level, as the real ones do."""

        def block(name: str, lines: list[str]) -> list[str]:
            return ["", f"\t{name} = {{", *(f"\t\t{line}" for line in lines), "\t}"]

        def pairs(of: dict[str, str]) -> list[str]:
            return [f"{name} => {value}" for name, value in of.items()]

        lines = [f"\tactive count = {1 if self.pid else 0}", f"\tpath = {self.path}", "\ttype = LaunchDaemon"]
        lines += [f"\tstate = {self.state}", "", f"\tprogram = {self.arguments()[0]}"]
        lines += block("arguments", self.arguments())
        lines += ["", f"\tstderr path = {self.plist.get('StandardErrorPath', '/dev/null')}"]
        lines += block("default environment", pairs({"PATH": "/usr/bin:/bin:/usr/sbin:/sbin"}))
        lines += block("environment", pairs(self.environment()))
        lines += ["", "\tLWCR = {", '\t\t"reqs" => {', '\t\t\t"$in" => [', "\t\t\t\t0 = \t]", "\t\t}", "\t}"]
        lines += ["", f"\tdomain = {self.domain}", f"\tminimum runtime = {self.plist.get('ThrottleInterval', 10)}"]
        lines += [f"\texit timeout = {self.plist.get('ExitTimeOut', EXIT_TIMEOUT)}", f"\truns = {self.runs}"]
        lines += [f"\tpid = {self.pid}"] if self.pid else []
        lines += [f"\t{self.last}"]
        lines += block("resource coalition", ["ID = 1234", "type = resource", "state = active", "pid = 1"])
        return "\n".join([f"{self.domain}/{self.plist['Label']} = {{", *lines, "}"]) + "\n"


class Launchd:
    """All jobs."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.jobs: dict[str, Job] = {}
        try:
            self.disabled: dict[str, bool] = plistlib.loads(OVERRIDES.read_bytes())
        except OSError:
            self.disabled = {}

    def boot(self) -> None:
        """Load what is not disabled, as at the start of a Mac."""
        for folder in FOLDERS:
            for path in sorted(folder.glob("*.plist")):
                with contextlib.suppress(RefusedError):
                    self.bootstrap("system", str(path))

    def tick(self) -> None:
        """Take note of ended processes, start what waits, kill what took too long."""
        with self.lock:
            while True:
                try:
                    pid, status = os.waitpid(-1, os.WNOHANG)
                except ChildProcessError:
                    break
                if not pid:
                    break
                for target, job in list(self.jobs.items()):
                    if job.pid == pid:
                        job.ended(status)
                        if job.unloading:
                            del self.jobs[target]
            now = time.monotonic()
            for job in self.jobs.values():
                if job.kill_at and now > job.kill_at and job.pid:
                    os.kill(job.pid, signal.SIGKILL)
                if job.wanted and not job.pid and now - job.started >= job.plist.get("ThrottleInterval", 10):
                    job.spawn()

    def require(self, domain: str, what: str) -> None:
        """Make sure that a domain exists."""
        kind, _, uid = domain.partition("/")
        known = (kind == "user" and uid.isdigit()) or (kind == "gui" and (LOGGED_IN / uid).exists())
        if not known and domain != "system":
            raise RefusedError(125, what)

    def bootstrap(self, domain: str, path: str) -> None:
        """Load a job.

        Raises:
            RefusedError: no good property list, loaded already, still going away, or disabled.
        """
        failed = "Bootstrap failed"
        self.require(domain, failed)
        try:
            status = os.stat(path)
            plist = plistlib.loads(Path(path).read_bytes())
            label = plist["Label"]
            wrong = [key for key, value in plist.items() if not isinstance(value, KEYS.get(key, ()))]
            if wrong or not (plist.get("ProgramArguments") or plist.get("Program")):
                raise ValueError(wrong)
        except (OSError, ValueError, KeyError, TypeError, plistlib.InvalidFileException) as error:
            raise RefusedError(5, failed) from error
        owner = 0 if domain == "system" else int(domain.partition("/")[2])
        if status.st_uid != owner or status.st_mode & 0o022:
            raise RefusedError(122, failed)
        target = f"{domain}/{label}"
        if target in self.jobs:
            raise RefusedError(5, failed)
        if self.disabled.get(target):
            raise RefusedError(119, failed)
        self.jobs[target] = Job(domain, path, plist)

    def bootout(self, target: str) -> None:
        """Unload a job; its process may live on for a while.

        Raises:
            RefusedError: it is not loaded, or does not go at once.
        """
        job = self.jobs.get(target)
        if job is None:
            raise RefusedError(3, "Boot-out failed")
        job.wanted = False
        if not job.pid:
            del self.jobs[target]
            return
        if not job.unloading:
            job.unloading, job.kill_at = True, time.monotonic() + job.plist.get("ExitTimeOut", EXIT_TIMEOUT)
            os.kill(job.pid, signal.SIGTERM)
        raise RefusedError(36, "Boot-out failed")

    def kickstart(self, target: str, kill: bool) -> None:
        """Start a job at once; a running one is killed before when that is asked for."""
        job = self.job(target)
        if job.pid and kill:
            os.kill(job.pid, signal.SIGKILL)
            job.ended(os.waitpid(job.pid, 0)[1])
        if not job.pid and not job.unloading:
            job.spawn()

    def job(self, target: str) -> Job:
        """A loaded job.

        Raises:
            LookupError: there is none of this name; holds launchctl's words.
        """
        if target not in self.jobs:
            domain, _, label = target.rpartition("/")
            of = f"user {domain.replace('/', ': ')}" if "/" in domain else domain
            raise LookupError(f'Bad request.\nCould not find service "{label}" in domain for {of}')
        return self.jobs[target]

    def set_disabled(self, target: str, disabled: bool) -> None:
        """Remember whether a job may be loaded."""
        self.disabled[target] = disabled
        OVERRIDES.parent.mkdir(parents=True, exist_ok=True)
        OVERRIDES.write_bytes(plistlib.dumps(self.disabled))

    def handle(self, words: list[str], uid: int) -> tuple[int, str, str]:
        """Answer a call of launchctl.

        Parameters:
            words: its arguments.
            uid: who calls.

        Returns:
            Exit code, output, errors.
        """
        with self.lock:
            try:
                return self._handle(words, uid)
            except RefusedError as error:
                again = "\nTry re-running the command as root for richer errors." if error.code == 5 else ""
                return error.code, "", f"{error}{again}\n"
            except LookupError as error:
                return 113, "", f"{error}\n"

    def _handle(self, words: list[str], uid: int) -> tuple[int, str, str]:
        match words:
            case ["print", target]:
                return 0, self.job(target).text(), ""
            case ["print-disabled", domain]:
                listed = {name: off for name, off in self.disabled.items() if name.startswith(domain)}
                lines = [
                    f'\t"{name.rpartition("/")[2]}" => {"disabled" if off else "enabled"}\n'
                    for name, off in listed.items()
                ]
                return 0, f"\n\tdisabled services = {{\n{''.join(lines)}\t}}\n", ""
            case [("bootstrap" | "bootout" | "kickstart" | "enable" | "disable" | "kill"), *rest] if uid and any(
                word.startswith("system") for word in rest
            ):
                raise RefusedError(1, f"{words[0].capitalize()} failed")
            case ["bootstrap", domain, path] if path.startswith("/"):
                self.bootstrap(domain, path)
            case ["bootout", target] if target.count("/"):
                self.bootout(target)
            case ["kickstart", "-k", target]:
                self.kickstart(target, kill=True)
            case ["kickstart", target] if not target.startswith("-"):
                self.kickstart(target, kill=False)
            case ["enable" | "disable" as action, target]:
                self.set_disabled(target, action == "disable")
            case _:
                return USAGE, "", f"stand-in of launchctl: not understood: {' '.join(words)}\n"
        return 0, "", ""


def serve(launchd: Launchd) -> None:
    """Answer launchctl's calls for ever."""

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            credentials = self.request.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
            _, uid, _ = struct.unpack("3i", credentials)
            answer = launchd.handle(json.loads(self.rfile.readline()), uid)
            self.wfile.write(json.dumps(answer).encode() + b"\n")

    Path(SOCKET).unlink(missing_ok=True)
    server = socketserver.ThreadingUnixStreamServer(SOCKET, Handler)
    os.chmod(SOCKET, 0o666)  # noqa: S103
    threading.Thread(target=server.serve_forever, daemon=True).start()


def main() -> None:
    """Play process 1."""
    launchd = Launchd()
    over = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: over.set())
    subprocess.run(["/bin/sh", "-c", "mkdir -p /run/sshd /var/run && touch /dev/console"], check=True)
    launchd.boot()
    serve(launchd)
    while not over.is_set():
        launchd.tick()
        over.wait(0.05)
    # As at a shutdown: all are asked to end, then killed.
    for job in launchd.jobs.values():
        if job.pid:
            os.kill(job.pid, signal.SIGTERM)
    end = time.monotonic() + 5
    while any(job.pid for job in launchd.jobs.values()) and time.monotonic() < end:
        for job in launchd.jobs.values():
            job.plist["KeepAlive"] = False
        launchd.tick()
        time.sleep(0.05)


if __name__ == "__main__":
    main()
