"""The running lab for tests: playbooks over SSH, commands on hosts, questions to Loki."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from lab import artifacts, engine
from lab.config import ADDRESS, HOSTS, LOKI, Host
from lab.shell import run
from plugins.module_utils import loki

ROOT = Path(__file__).resolve().parents[2]
MINIS = [host for host in HOSTS if host.role == "mini"]
CONTROLLER = next(host for host in HOSTS if host.role == "controller")
LOGS = "/tmp/smolcluster-logs"


@dataclass
class Play:
    """Outcome of a run of ansible-playbook."""

    code: int
    output: str
    recap: dict[str, dict[str, int]]

    @classmethod
    def of(cls, command: list[str], cwd: Path, **env: str) -> Play:
        """Run a command line of ansible-playbook in a folder, with additions to the environment."""
        done = subprocess.run(
            command,
            cwd=cwd,
            env=os.environ | {"ANSIBLE_NOCOLOR": "1"} | env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        output = done.stdout + done.stderr
        recap = {}
        for line in output.partition("PLAY RECAP")[2].splitlines():
            if found := re.match(r"(\S+)\s+: (ok=.*)", line):
                recap[found[1]] = {key: int(value) for key, value in re.findall(r"(\w+)=(\d+)", found[2])}
        return cls(done.returncode, output, recap)

    def failure(self, host: str) -> str:
        """What was printed of a host's failure, on one line, as YAML has it within quotes; empty without a failure."""
        found = re.search(rf"^fatal: \[{re.escape(host)}\].*?(?=^\S|\Z)", self.output, re.DOTALL | re.MULTILINE)
        return " ".join(found[0].split()).replace("''", "'") if found else ""

    def refused(self, host: str, *words: str) -> None:
        """Whether the play refused to do anything on a host.

        Parameters:
            host: the host; others of the play do not matter.
            words: what the message must say: the cause and the way out.

        Raises:
            AssertionError: it did not, changed something there, or said something else.
        """
        text = self.failure(host)
        assert text, f"{host} was not refused:\n{self.output}"
        for word in (host, *words):
            assert word in text, f"{word!r} is not in:\n{text}"
        assert self.recap[host]["changed"] == 0, self.output

    def changed(self) -> int:
        """Number of changed tasks on all hosts."""
        return sum(counts["changed"] for counts in self.recap.values())


class Lab:
    """The running lab."""

    loki_url = LOKI

    def play(self, playbook: str = "site.yml", *words: str, **variables) -> Play:
        """Run a playbook of the checkout against the lab.

        Parameters:
            playbook: its path.
            words: further words of the command line.
            variables: extra variables.
        """
        command = ["ansible-playbook", "-i", "inventory/lab", playbook, *words]
        return Play.of([*command, "--extra-vars", json.dumps(variables)], ROOT)

    def play_cases(self, folder: Path, host: Host, cases: dict[str, dict], role: str = "") -> Play:
        """Give one host several settings in a single run; each case is a host of the inventory, by the case's name.

        Parameters:
            folder: an empty folder.
            host: the host, which is what every case is reached at.
            cases: variables by the name of a case; a name has no spaces.
            role: role to apply to the cases; none is site.yml with the cases as nodes.
        """
        reached = {"ansible_host": ADDRESS, "ansible_port": host.ssh_port}
        group = {"hosts": {name: reached | variables for name, variables in cases.items()}}
        groups = {"cases": group} if role else {"cases": group, "minis": {"children": {"cases": {}}}}
        (folder / "cases.json").write_text(json.dumps({"all": {"children": groups}}))
        play = {"hosts": "cases", "gather_facts": False, "become": True, "roles": [role]}
        (folder / "play.yml").write_text(json.dumps([play]))
        words = [str(folder / "play.yml")] if role else ["site.yml", "--tags", "promtail"]
        # Few at once: an SSH server refuses more than ten sessions in one connection.
        command = ["ansible-playbook", "-i", "inventory/lab", "-i", str(folder / "cases.json"), "--forks", "5"]
        return Play.of([*command, "--limit", "cases", *words], ROOT)

    def deploy(self, *words: str, **variables) -> Play:
        """Run site.yml; it must succeed."""
        play = self.play("site.yml", *words, **variables)
        assert play.code == 0, play.output
        return play

    @staticmethod
    def on(host: Host, script: str, data: str | None = None, check: bool = True) -> str:
        """Run a shell script as root on a host; returns what it printed.

        Raises:
            LabError: it failed and `check` is set.
        """
        command = ["docker", "exec", "--interactive", host.container, "sh", "-c", script]
        return run(command, data=data, check=check).stdout.strip()

    def agent_pid(self, host: Host) -> str:
        """Process of the agent; `0` when its service does not run.

        The watcher, the service's main process, starts it a moment later.
        """
        script = """
            for try in $(seq 100); do
                main=$(systemctl show promtail --property=MainPID --value)
                if [ "$main" = 0 ]; then break; fi
                if pgrep --exact --parent "$main" promtail; then exit; fi
                sleep 0.1
            done
            echo 0
        """
        return self.on(host, script)

    def write(self, host: Host, name: str, text: str) -> None:
        """Append text to a log file of training on a host."""
        self.on(host, f"mkdir -p -m 1777 {LOGS} && cat >> {LOGS}/{name}", data=text)

    def entries(self, query: str, count: int, hours: float = 48, timeout: float = 60) -> list[tuple[int, str, dict]]:
        """Entries of a query, asked for until there are at least `count`.

        Returns:
            Time in nanoseconds, line and labels of each entry, oldest first.
        """
        deadline = time.monotonic() + timeout
        while True:
            now = time.time_ns()
            streams = loki.streams(self.loki_url, query, now - int(hours * 3600e9), now + int(3600e9))
            found = [(int(moment), line, stream["stream"]) for stream in streams for moment, line in stream["values"]]
            if len(found) >= count:
                return sorted(found, key=lambda entry: entry[0])
            assert time.monotonic() < deadline, f"{query}: {len(found)} of {count} entries after {timeout} s"
            time.sleep(0.1)


# A program that passes every check before the switch and dies as a service: a stand-in, named so.
DUMMY = """#!/bin/sh
case "$*" in *-version*|*-dry-run*) exit 0 ;; esac
echo "dummy program: cannot go on" >&2
exit 3
"""


def release(folder: Path, version: str, program: bytes, platform: str = "") -> dict[str, str]:
    """Make a release folder with one program, by default for this machine; returns variables that install from it."""
    platform = platform or engine.platform()
    target = folder / f"v{version}"
    target.mkdir(parents=True)
    (folder / "program").write_bytes(program)
    artifacts.archive(folder / "program", target / f"promtail-{platform}.zip")
    artifacts.write_sums(target)
    return {
        "promtail_version": version,
        "promtail_base_url": f"file://{folder}",
        "promtail_download_dir": f"{folder}/kept",
    }
