#!/usr/bin/env python3
"""Run the checklist of docs/macos.md on a real Mac, and write a report that can be attached to an issue.

`tools/mac_check.py HOST [--inventory FILE] [--reboot]`; the host must be one of the group minis.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

TARGET = "system/smolcluster.logging.promtail"
NEWSYSLOG = "/etc/newsyslog.d/smolcluster.logging.promtail.conf"
LOG = "/var/log/promtail/promtail.log"


class CheckError(Exception):
    """A line of the checklist does not hold; the text says why."""


class Mac:
    """The Mac, by Ansible.

    Parameters:
        host: its name in the inventory.
        inventory: words of the command line that name the inventory.
    """

    def __init__(self, host: str, inventory: list[str]) -> None:
        self.host, self._inventory = host, inventory

    def run(self, *words: str) -> str:
        """Run a program of Ansible with the inventory.

        Raises:
            CheckError: it failed; holds its last lines.
        """
        done = subprocess.run(
            [words[0], *self._inventory, *words[1:]],
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
        """Deploy; returns how many tasks have changed something."""
        out = self.play("site.yml", "--tags", "promtail", *words)
        return int(re.search(rf"^{re.escape(self.host)} .*changed=(\d+)", out, re.MULTILINE)[1])

    def shell(self, script: str) -> str:
        """Run a script as root; returns what it printed."""
        words = ["--module-name=ansible.builtin.shell", "--become", "--args", script]
        return self.run("ansible", self.host, *words).partition(">>\n")[2].strip()

    def state(self) -> str:
        """State of the agent's job as launchd names it."""
        found = re.search(r"^\tstate = (.*)$", self.shell(f"launchctl print {TARGET}"), re.MULTILINE)
        return found[1] if found else "not loaded"

    def pid(self) -> str:
        """Process that launchd has started."""
        return self.shell("cat /var/db/promtail/promtail.pid")

    def comes_back(self, before: str) -> str:
        """Wait until launchd has started another process; returns it.

        Raises:
            CheckError: not within 30 s.
        """
        end = time.monotonic() + 30
        while (now := self.pid()) == before or self.state() != "running":
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
    yield "it sleeps never (0)", lambda mac: " ".join(mac.shell("pmset -g | grep -w sleep").split())
    yield "the agent is deployed", lambda mac: f"{mac.changed()} tasks changed"
    yield "a second run changes nothing", lambda mac: expect((count := mac.changed()) == 0, f"{count} tasks changed")
    yield "launchd runs the job", lambda mac: expect((state := mac.state()) == "running", state)
    yield "every line arrives", delivered
    yield "a killed agent comes back", killed
    yield "its own log is rotated", rotated
    yield "a changed setting restarts it", changed
    yield "it comes back after a reboot", rebooted if reboot else None


def main() -> int:
    """Run all checks; a failed one does not stop the next."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("host", help="name in the inventory")
    parser.add_argument("--inventory", help="inventory; by default that of ansible.cfg")
    parser.add_argument("--reboot", action="store_true", help="reboot the Mac as the last check")
    arguments = parser.parse_args()
    mac = Mac(arguments.host, ["--inventory", arguments.inventory] if arguments.inventory else [])
    lines, failures = [f"Check of {arguments.host}, {time.strftime('%Y-%m-%d %H:%M %z')}"], 0
    for number, (name, check) in enumerate(checks(arguments.reboot), 1):
        try:
            result = f"ok       {name}: {check(mac)}" if check else f"not run  {name}: `make mac-check REBOOT=1` does"
        except CheckError as error:
            failures += 1
            result = f"FAILED   {name}:\n{error}"
        lines.append(f"{number:2} {result}")
        print(lines[-1], flush=True)
    report = Path(f"mac-check-{arguments.host}.txt")
    report.write_text("\n".join(lines) + "\n")
    print(f"\n{failures} failed. The report is in {report}; please attach it to an issue, good or bad.")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
