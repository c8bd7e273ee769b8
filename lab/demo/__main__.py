"""`python -m lab.demo`: train on the lab's minis, then show what Loki knows of it."""

from __future__ import annotations

import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import yaml

from lab.config import ROOT, STATE
from lab.demo import report
from lab.shell import LabError, run, step
from plugins.module_utils.loki import LokiError

LOGS = "/tmp/smolcluster-logs"  # noqa: S108 - SmolCluster's own folder
PROGRAM = "/home/smol/train.py"
# Host, log file, and what the process is told.
PROCESSES = (
    ("mini1", "server-mini1", ["server"]),
    ("mini2", "worker-rank0-mini2", ["worker", "--rank", "0", "--server", "mini1"]),
    ("mini3", "worker-rank1-mini3", ["worker", "--rank", "1", "--server", "mini1"]),
)
ENTRY = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} \| ", re.MULTILINE)


def ssh(host: str, *command: str) -> list[str]:
    """Command line that runs a command on a host of the lab as the training's user."""
    return ["ssh", "-F", str(STATE / "ssh_config"), host, *command]


def entries_in(host: str, name: str) -> int:
    """Number of entries in a log file, 0 without one; continuation lines belong to the entry before."""
    return len(ENTRY.findall(run(ssh(host, f"cat {LOGS}/{name}.log 2>/dev/null || true")).stdout))


def train(steps: int) -> None:
    """Run the training's three processes at once.

    Raises:
        LabError: a process fails; holds what it said.
    """
    source = (Path(__file__).parent / "train.py").read_text()
    for host, name, _ in PROCESSES:
        run(ssh(host, f"cat > {PROGRAM}; mkdir -p {LOGS}; touch {LOGS}/{name}.log"), data=source)
    running = []
    try:
        for host, _, words in PROCESSES:
            command = ssh(host, "python3", PROGRAM, *words, "--host", host, "--steps", str(steps))
            running.append(
                subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
                )
            )
        said = [process.communicate(timeout=180)[0].strip() for process in running]
        failed = [f"{PROCESSES[n][0]}: {said[n]}" for n, process in enumerate(running) if process.returncode]
        if failed:
            raise LabError("the training failed on " + "; ".join(failed))
    finally:
        for process in running:
            process.kill()


def grafana() -> str:
    """How to log in to Grafana, or why it is not there."""
    try:
        urllib.request.urlopen("http://127.0.0.1:3000/api/health", timeout=5).close()
    except (urllib.error.URLError, OSError):
        return "not deployed: there is no image of it here"
    variables = yaml.safe_load((ROOT / "inventory/lab/group_vars/all.yml").read_text())
    return f"http://127.0.0.1:3000  (admin / {variables['docker_loki_grafana_grafana_admin_password']}; choose Explore)"


def main() -> int:
    """Run the demo; 1 with a plain message when something is missing."""
    try:
        before = {name: entries_in(host, name) for host, name, _ in PROCESSES}
        start = time.time_ns()
        with step("Training on mini1 (server), mini2 (rank 0) and mini3 (rank 1)"):
            train(steps=60)
        report.show({name: entries_in(host, name) - before[name] for host, name, _ in PROCESSES}, start)
    except (LabError, LokiError, KeyError, IndexError) as error:
        print(f"demo: {error}. Is the lab deployed? `make demo` does all of it.", file=sys.stderr)
        return 1
    print(f"""
The lab is still up:
  Loki     {report.URL}
  Grafana  {grafana()}
  a mini   ssh -F {STATE / "ssh_config"} mini1
Go on:
  ansible-playbook -i inventory/lab playbooks/verify.yml    prove delivery again (first: . .venv/bin/activate)
  make lab-down                                             remove the lab""")
    return 0


if __name__ == "__main__":
    sys.exit(main())
