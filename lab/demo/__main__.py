"""`python -m lab.demo`: train on the lab's minis, then show what Loki knows of it."""

from __future__ import annotations

import base64
import re
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import yaml

from lab.config import GRAFANA, LOKI, NUMBER, ROOT, STATE, SUFFIX
from lab.demo import report
from lab.shell import LabError, run, step
from plugins.module_utils.loki import LokiError

LOGS = "/tmp/smolcluster-logs"  # noqa: S108 - SmolCluster's own folder
PROGRAM = "/home/smol/train.py"
# Host, log file, and arguments of the process.
PROCESSES = (
    ("mini1", "server-mini1", ["server"]),
    ("mini2", "worker-rank0-mini2", ["worker", "--rank", "0", "--server", "mini1"]),
    # See inventory.yml.
    ("mini3", "worker-rank1-mini3", ["worker", "--rank", "1", "--server", "mini1", "--log-format", "python"]),
)
# Identifier of the dashboard with the training; it is Grafana's home page where the role has deployed dashboards.
OVERVIEW = "smolcluster-overview"
TAIL = 10  # seconds
ENTRY = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} [|-] ", re.MULTILINE)


def ssh(host: str, *command: str, terminal: bool = False) -> list[str]:
    """Command line that runs a command on a host of the lab as the training's user.

    Parameters:
        host: name of the host.
        command: words for the host's shell.
        terminal: with a terminal the command ends when the connection does; without one it goes on.
    """
    # LogLevel: no "Connection closed" among the words of the command.
    return [
        "ssh",
        *(["-tt", "-o", "LogLevel=ERROR"] if terminal else []),
        "-F",
        str(STATE / "ssh_config"),
        host,
        *command,
    ]


def entries_in(host: str, name: str) -> int:
    """Number of entries in a log file, 0 without one; continuation lines belong to the entry before."""
    return len(ENTRY.findall(run(ssh(host, f"cat {LOGS}/{name}.log 2>/dev/null || true")).stdout))


def train(steps: int, timeout: float = 180) -> None:
    """Run the training's three processes at once; when one fails or the time is over, end all.

    Parameters:
        steps: number of steps.
        timeout: seconds that the training may take.

    Raises:
        LabError: a process fails, with what it said, or the time is over.
    """
    source = (Path(__file__).parent / "train.py").read_text()
    for host, name, _ in PROCESSES:
        run(ssh(host, f"cat > {PROGRAM}; mkdir -p {LOGS}; touch {LOGS}/{name}.log"), data=source)
    running: dict[str, subprocess.Popen] = {}
    with tempfile.TemporaryDirectory() as folder:
        said = {host: Path(folder) / host for host, _, _ in PROCESSES}
        try:
            for host, _, words in PROCESSES:
                command = ssh(host, "python3", PROGRAM, *words, "--host", host, "--steps", str(steps), terminal=True)
                with said[host].open("w") as output:
                    running[host] = subprocess.Popen(
                        command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
                    )
            deadline = time.monotonic() + timeout
            while not (failed := [host for host, process in running.items() if process.poll()]):
                if all(process.returncode == 0 for process in running.values()):
                    return
                if time.monotonic() > deadline:
                    raise LabError(f"the training was not over after {timeout:.0f} s and was stopped")
                time.sleep(0.1)
            lines = [f"  {host}, exit code {running[host].returncode}: {last_words(said[host])}" for host in failed]
            raise LabError("\n".join(["the training failed and was stopped", *lines]))
        finally:
            for process in running.values():
                process.terminate()
                process.wait()


def last_words(output: Path, count: int = 5) -> str:
    """Last lines of what a process printed, or that it printed nothing."""
    return "\n    ".join(output.read_text(errors="replace").splitlines()[-count:]) or "it printed nothing"


def live() -> None:
    """Train again, and show for ten seconds what `cluster-logs tail` prints of it.

    Raises:
        LabError: the training fails, or the command does.
    """
    command = f"timeout --foreground --signal=INT {TAIL} cluster-logs tail"
    with ThreadPoolExecutor(1) as pool:
        training = pool.submit(train, steps=60)
        shown = subprocess.run(
            ssh("controller", command, terminal=sys.stdout.isatty()), stdin=subprocess.DEVNULL, check=False
        )
        training.result()
    if shown.returncode != 124:  # that of timeout(1) when the time is over
        raise LabError(f"`cluster-logs tail` on the controller ended with exit code {shown.returncode}")


def grafana() -> str:
    """Where to look in Grafana and how to log in, or why it is not there."""
    try:
        urllib.request.urlopen(f"{GRAFANA}/api/health", timeout=5).close()
    except (urllib.error.URLError, OSError):
        return "not deployed: there is no image of it here"
    variables = yaml.safe_load((ROOT / "inventory/lab/group_vars/all.yml").read_text())
    account = f"admin:{variables['docker_loki_grafana_grafana_admin_password']}"
    request = urllib.request.Request(
        f"{GRAFANA}/api/dashboards/uid/{OVERVIEW}",
        headers={"Authorization": f"Basic {base64.b64encode(account.encode()).decode()}"},
    )
    login = account.replace(":", " / ", 1)
    try:
        urllib.request.urlopen(request, timeout=5).close()
    except (urllib.error.URLError, OSError):
        return f"{GRAFANA}  ({login}; choose Explore)"
    return f"{GRAFANA}/d/{OVERVIEW}  ({login})"


def main() -> int:
    """Run the demo; 1 with a plain message when something is missing."""
    try:
        before = {name: entries_in(host, name) for host, name, _ in PROCESSES}
        start = time.time_ns()
        with step("Training on mini1 (server), mini2 (rank 0) and mini3 (rank 1)"):
            train(steps=60)
        report.show({name: entries_in(host, name) - before[name] for host, name, _ in PROCESSES}, start)
        print(f"\n== Live: the next training, {TAIL} s of `ssh -t controller cluster-logs tail` ==", flush=True)
        live()
    except (LabError, LokiError) as error:
        print(f"demo: {error}\n`make demo` brings the lab up, deploys, and tries again.", file=sys.stderr)
        return 1
    number = f"export LAB_NUMBER={NUMBER}; " if SUFFIX else ""
    print(f"""
The lab is still up:
  Loki     {LOKI}
  Grafana  {grafana()}
  live     ssh -t -F {STATE / "ssh_config"} controller cluster-logs tail
  a node   ssh -F {STATE / "ssh_config"} mini1
Next steps (first: {number}. .venv/bin/activate):
  ansible-playbook -i inventory/lab -i lab/demo/inventory.yml playbooks/verify.yml    prove delivery again
  make lab-down                                                                       remove the lab""")
    return 0


if __name__ == "__main__":
    sys.exit(main())
