#!/usr/bin/env python3
"""Run the checklist of docs/macos.md on a real Mac, and write a report that can be attached to an issue.

`tools/mac_check.py HOST [--inventory FILE] [--ask-become-pass] [--reboot]`; the host must be one of the group minis.
"""

from __future__ import annotations

import argparse
import getpass
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

TARGET = "system/smolcluster.logging.promtail"
NEWSYSLOG = "/etc/newsyslog.d/smolcluster.logging.promtail.conf"
LOG = "/var/log/smolcluster-logging/promtail.log"


class CheckError(Exception):
    """A line of the checklist does not hold; the text says why."""


class Mac:
    """The Mac, by Ansible.

    Parameters:
        host: its name in the inventory.
        options: words that every command line gets.
    """

    def __init__(self, host: str, options: list[str]) -> None:
        self.host, self._options = host, options

    def run(self, *words: str) -> str:
        """Run a program of Ansible.

        Raises:
            CheckError: it failed; holds its last lines.
        """
        done = subprocess.run(
            [words[0], *self._options, *words[1:]],
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            check=False,
        )
        if done.returncode:
            raise CheckError("\n".join((done.stdout + done.stderr).strip().splitlines()[-25:]))
        return done.stdout

    def play(self, playbook: str, *words: str) -> str:
        """Run a playbook on the Mac alone; see `run`."""
        return self.run("ansible-playbook", playbook, "--limit", self.host, *words)

    def changed(self, *words: str) -> int:
        """Deploy; returns how many tasks have changed something.

        Raises:
            CheckError: the host is none of those that get an agent.
        """
        out = self.play("site.yml", "--tags", "promtail", *words)
        found = re.search(rf"^{re.escape(self.host)} .*changed=(\d+)", out, re.MULTILINE)
        if not found:
            raise CheckError(f"{self.host} is not in the group minis of the inventory")
        return int(found[1])

    def shell(self, script: str) -> str:
        """Run a script as root; returns what it printed."""
        words = ["--module-name=ansible.builtin.shell", "--become", "--args", script]
        return self.run("ansible", self.host, *words).partition(">>\n")[2].strip()

    def state(self) -> str:
        """State of the agent's job as launchd names it."""
        found = re.search(r"^\tstate = (.*)$", self.shell(f"launchctl print {TARGET}"), re.MULTILINE)
        return found[1] if found else "not loaded"

    def pid(self) -> str:
        """Process that launchd has started; empty while there is none."""
        return self.shell("cat /var/db/promtail/watcher.pid 2>/dev/null || true")

    def comes_back(self, before: str) -> str:
        """Wait until launchd has started another process; returns it.

        Raises:
            CheckError: not within 30 s.
        """
        end = time.monotonic() + 30
        while (now := self.pid()) in ("", before) or self.state() != "running":
            if time.monotonic() > end:
                raise CheckError(f"the job is {self.state()}, its process {now}, 30 s after that of {before} ended")
            time.sleep(1)
        return now


def expect(holds: bool, words: str) -> str:
    """Evidence of a line that holds.

    Raises:
        CheckError: it does not.
    """
    if not holds:
        raise CheckError(words)
    return words


def delivered(mac: Mac) -> str:
    """What verify.yml says of the Mac; it fails when a line is missing."""
    return "; ".join(re.findall(r"\d+/\d+\s+[\d.]+ s", mac.play("playbooks/verify.yml")))


def awake(mac: Mac) -> str:
    """The Mac does not go to sleep."""
    line = " ".join(mac.shell("pmset -g | grep -w sleep").split())
    return expect(bool(re.match("sleep 0", line)), line)


def killed(mac: Mac) -> str:
    """The agent is killed; launchd starts it again, and lines arrive."""
    before = mac.pid()
    mac.shell(f"kill -9 {before}")
    return f"{before} -> {mac.comes_back(before)}; {delivered(mac)}"


def rotated(mac: Mac) -> str:
    """The agent's own log is moved away, and the agent has a new one."""
    before = mac.pid()
    mac.shell(f"newsyslog -F -f {NEWSYSLOG}")
    mac.comes_back(before)
    return expect("promtail.log.0" in (files := mac.shell(f"ls {LOG}*")), " ".join(files.split()))


def changed(mac: Mac) -> str:
    """A change of the configuration restarts the agent, and so does taking it back."""
    counts = mac.changed("--extra-vars", "promtail_batch_wait=60ms"), mac.changed(), mac.changed()
    return expect(counts == (1, 1, 0), f"changed tasks: {counts}")


def rebooted(mac: Mac) -> str:
    """The Mac is rebooted; lines arrive without anybody logging in."""
    mac.run("ansible", mac.host, "--become", "--module-name=ansible.builtin.reboot")
    return delivered(mac)


def checks(reboot: bool) -> Iterator[tuple[str, Callable[[Mac], str] | None]]:
    """The checklist: what is to hold, and how that is found out; none is left out."""
    yield "the Mac answers", lambda mac: " ".join(mac.shell("sw_vers -productVersion; uname -m; id -un").split())
    yield "it never sleeps", awake
    yield "the agent is deployed", lambda mac: f"{mac.changed()} tasks changed"
    yield "a second run changes nothing", lambda mac: expect((count := mac.changed()) == 0, f"{count} tasks changed")
    yield "launchd runs the job", lambda mac: expect((state := mac.state()) == "running", state)
    yield "every line arrives", delivered
    yield "a killed agent comes back", killed
    yield "its own log is rotated", rotated
    yield "a changed setting restarts it", changed
    yield "it comes back after a reboot", rebooted if reboot else None


def main() -> int:
    """Read the command line and run all checks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("host", help="name in the inventory")
    parser.add_argument("--inventory", help="inventory; by default that of ansible.cfg")
    parser.add_argument("--ask-become-pass", action="store_true", help="ask for the password of sudo, once")
    parser.add_argument("--reboot", action="store_true", help="reboot the Mac as the last check")
    arguments = parser.parse_args()
    options = ["--inventory", arguments.inventory] if arguments.inventory else []
    with tempfile.NamedTemporaryFile("w", prefix="mac-check-") as secret:  # nobody else may read it
        if arguments.ask_become_pass:
            secret.write(getpass.getpass("BECOME password: "))
            secret.flush()
            options += ["--become-password-file", secret.name]
        return check_all(Mac(arguments.host, options), arguments.reboot)


def check_all(mac: Mac, reboot: bool) -> int:
    """Run all checks and write the report; a failed one does not stop the next.

    Parameters:
        mac: the Mac.
        reboot: whether it may be rebooted.

    Returns:
        1 when a check has failed.
    """
    lines, failures = [f"Check of {mac.host}, {time.strftime('%Y-%m-%d %H:%M %z')}"], 0
    for number, (name, check) in enumerate(checks(reboot), 1):
        try:
            result = f"ok       {name}: {check(mac)}" if check else f"not run  {name}: `make mac-check REBOOT=1` does"
        except CheckError as error:
            failures += 1
            result = f"FAILED   {name}:\n{error}"
        lines.append(f"{number:2} {result}")
        print(lines[-1], flush=True)
    report = Path(f"mac-check-{mac.host}.txt")
    report.write_text("\n".join(lines) + "\n")
    print(f"\n{failures} failed. The report is in {report}; please attach it to an issue, good or bad.")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
