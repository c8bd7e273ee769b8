"""`python -m tests.bench`: measure on the lab, and write docs/performance.md.

Figures that are compared are measured side by side, in turns, in the same run.
"""

from __future__ import annotations

import os
import platform
import re
import statistics
import subprocess
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import yaml

from lab import hosts
from lab.config import ADDRESS, STATE, Host
from lab.shell import step
from tests.bench import agent, presets, terminal
from tests.lab.harness import MINIS, ROOT, Lab

ROUNDS = 5
# Ends of the scale of `promtail_batch_wait`: the role's default, and Promtail's own.
WAITS = ("50ms", "1s")


def timed(*command: str) -> tuple[float, str]:
    """Run a command in the checkout; returns its seconds and its output."""
    start = time.monotonic()
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL, timeout=600
    )
    return time.monotonic() - start, done.stdout


def first_deployments(lab: Lab) -> tuple[float, float]:
    """Seconds that site.yml takes on fresh hosts: the controller with its images, then three minis.

    Images and archives are already in the artifacts folder, and the archive of the agent in its cache.
    """
    hosts.down()
    hosts.up()
    seconds = []
    for tag in ("docker_loki_grafana", "promtail"):
        start = time.monotonic()
        lab.deploy("--tags", tag)
        seconds.append(time.monotonic() - start)
    return seconds[0], seconds[1]


@dataclass
class Runs:
    """Medians of runs that change nothing.

    Parameters:
        bare: seconds of bare gathering of facts.
        run: seconds of `site.yml --tags promtail`.
        tasks: tasks of each mini in such a run.
    """

    bare: float
    run: float
    tasks: int


def no_change_runs(*inventories: str) -> Runs:
    """Runs that change nothing and bare gathering of facts, in turns.

    Parameters:
        inventories: the inventories, the first one is the lab's.
    """
    options = [word for inventory in ("inventory/lab", *inventories) for word in ("-i", inventory)]
    bare, runs, tasks = [], [], 0
    for _ in range(ROUNDS):
        bare.append(timed("ansible", *options, "minis", "-m", "ansible.builtin.setup")[0])
        seconds, output = timed("ansible-playbook", *options, "site.yml", "--tags", "promtail")
        runs.append(seconds)
        recap = output.partition("PLAY RECAP")[2]
        assert not re.search(r"changed=[1-9]", recap), recap
        tasks = max(int(count) for count in re.findall(r"mini\d+ +: ok=(\d+)", recap))
    return Runs(statistics.median(bare), statistics.median(runs), tasks)


def more_minis() -> dict[int, Runs]:
    """Runs that change nothing over three, six and twelve minis, all on this machine."""
    results = {3: no_change_runs()}
    key, added = (STATE / "id_ed25519.pub").read_text(), []
    inventory = STATE / "more.yml"
    try:
        for count in (6, 12):
            while len(added) < count - len(MINIS):
                number = len(MINIS) + len(added) + 1
                added.append(Host(f"mini{number}", "mini", "trixie", "Etc/UTC", 42230 + number))
                hosts.start(added[-1])
                with (STATE / "known_hosts").open("a") as known:
                    known.write(f"{hosts.prepare(added[-1], key)}\n")
                (STATE / "ssh_config").write_text(hosts.ssh_config(STATE / "id_ed25519", [*hosts.HOSTS, *added]))
            found = {host.name: {"ansible_host": ADDRESS, "ansible_port": host.ssh_port} for host in added}
            inventory.write_text(yaml.safe_dump({"minis": {"hosts": found}}))
            timed("ansible-playbook", "-i", "inventory/lab", "-i", str(inventory), "site.yml", "--tags", "promtail")
            results[count] = no_change_runs(str(inventory))
    finally:
        for host in added:
            hosts.remove(host)
        inventory.unlink(missing_ok=True)
        hosts.up()
    return results


@dataclass
class Wait:
    """Figures of a value of `promtail_batch_wait`.

    Parameters:
        rest: load by the number of files of old runs.
        rate: load by lines per second.
        latency: seconds from writing a line until Loki shows it, by lines per second.
    """

    rest: dict[int, agent.Load]
    rate: dict[int, agent.Load]
    latency: dict[int, list[float]]


def waits(lab: Lab) -> dict[str, Wait]:
    """Figures of both ends of the scale of `promtail_batch_wait`."""
    results = {}
    for wait in WAITS:
        lab.deploy("--tags", "promtail", "--limit", agent.MINI.name, promtail_batch_wait=wait)
        results[wait] = Wait(
            agent.at_rest(lab),
            {rate: agent.at_rate(lab, rate) for rate in (1, 10, 1000)},
            {rate: agent.latencies(lab, rate, rate * 60) for rate in (1, 10)},
        )
    lab.deploy("--tags", "promtail", "--limit", agent.MINI.name)
    return results


def machine() -> str:
    """The machine in a few words."""
    model = re.search(r"model name\s+: (.*)", Path("/proc/cpuinfo").read_text())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    name = model[1] if model else platform.machine()
    return f"{os.cpu_count()} cores ({name}), {memory:.0f} GiB, {platform.system()} {platform.release()}"


def percents(loads: list[agent.Load]) -> str:
    """Shares of a core."""
    return " / ".join(f"{load.cpu * 100:.1f}" for load in loads) + " %"


def rows_of_wait(wait: Wait) -> list[str]:
    """Measured values of the second table for one value of `promtail_batch_wait`."""
    thousand, latency = wait.rest[1000], wait.latency
    return [
        percents(list(wait.rest.values())),
        f"{thousand.own:.0f} + {thousand.program:.0f} MiB",
        percents(list(wait.rate.values())),
        f"{statistics.median(latency[10]):.2f} / {statistics.median(latency[1]):.2f} s",
        f"{statistics.quantiles(latency[10], n=100)[98]:.2f} s",
    ]


def page(
    deployments: tuple[float, float],
    runs: dict[int, Runs],
    wait: dict[str, Wait],
    silence: float,
    seen: float,
    bursts: list,
    service: tuple[float, float],
    exposure: str,
    costs: dict[str, float],
) -> str:
    """The text of docs/performance.md."""
    three = runs[3]
    slopes = [
        f"{(runs[more].run - runs[less].run) / max(runs[more].bare - runs[less].bare, 0.1):.1f}"
        for less, more in ((3, 6), (6, 12))
    ]
    seconds = [" / ".join(f"{getattr(one, kind):.1f}" for one in runs.values()) for kind in ("run", "bare")]
    with_stages, without = (statistics.median(column) for column in zip(*bursts, strict=True))
    names = [
        "CPU with 0 / 100 / 1,000 files of old runs, nothing written | 1 / 2 / 6 %",
        "Memory with 1,000 such files: own + program files | 130 MiB",
        "CPU at 1 / 10 / 1,000 lines/s in one file | - / 2 / - %",
        "Line written until found in Loki, median at 10 / 1 lines/s | 0.2 / 0.5 s",
        "The same at 10 lines/s, 99th percentile | 0.6 s",
    ]
    table = "\n".join(
        f"| {name} | {' | '.join(values)} |"
        for name, *values in zip(names, *(rows_of_wait(wait[one]) for one in WAITS), strict=True)
    )
    return f"""# Performance

Made by `make bench` on {datetime.now(UTC):%Y-%m-%d}: {machine()}, Python {platform.python_version()},
ansible-core {version("ansible-core")}, load {os.getloadavg()[2]:.1f}. All hosts are containers of the lab on this one
machine, so Ansible, four systemd hosts and Loki share its cores; real machines do not.

## Deployment

| what | goal | measured |
|---|---|---|
| First deployment of the controller, images cached | - | {deployments[0]:.1f} s |
| First deployment of three minis, archive cached | 10 s | {deployments[1]:.1f} s |
| Run without changes, `site.yml --tags promtail`, 3 / 6 / 12 minis | - | {seconds[0]} s |
| Bare `ansible minis -m ansible.builtin.setup` | - | {seconds[1]} s |
| Ratio of the two with three minis (medians of {ROUNDS}, in turns) | 2.2 | {three.run / three.bare:.2f} |
| What a further mini adds, divided by what it adds to bare gathering (3 to 6, 6 to 12) | 2.2 | {" / ".join(slopes)} |
| Tasks per mini in a run without changes | 6 | {three.tasks} |

## The agent

CPU is the share of one core that the watcher and Promtail use together, over {agent.SECONDS} s; with nothing written,
over {agent.REST} s, in which there is one health line. Memory is what was resident: their own, and the part of their
program files that the system takes back when memory is short. The role sends after `promtail_batch_wait: {WAITS[0]}`;
Promtail's own default is `{WAITS[1]}`.

| what | goal | `{WAITS[0]}` | `{WAITS[1]}` |
|---|---|---|---|
{table}

| what | goal | measured |
|---|---|---|
| One line after {agent.SILENCE // 60} min of silence until found in Loki, median | 1.2 s | {silence:.2f} s |
| Line written until `cluster-logs tail` prints it, median of 100 | 0.5 s | {seen:.2f} s |
| {agent.BURST:,} lines at once until Loki has them | - | {with_stages:.1f} s |
| The same, the agent without its stages | - | {without:.1f} s |
| Ratio of the two (medians of {len(bursts)}, in turns) | 1.4 | {with_stages / without:.2f} |
| Health service of the controller: CPU, own memory | - | {service[0] * 100:.2f} %, {service[1]:.0f} MiB |
| `systemd-analyze security promtail` | 2.0 | {exposure} |

## Format presets

CPU of Promtail alone at {presets.RATE:,} lines/s of the preset's own examples, and the ratio to `{presets.BASE}`:
medians of {presets.ROUNDS} measurements of {presets.SECONDS} s, in turns.

{presets.table(costs)}
"""


def main() -> None:
    """Measure everything and write the page."""
    lab = Lab()
    with step("First deployments"):
        deployments = first_deployments(lab)
    silent_since = agent.begin_silence(lab)
    # Meanwhile: these runs write no lines.
    with step("Runs without changes"):
        runs = more_minis()
    with step("A line after silence"):
        silence = agent.after_silence(lab, silent_since)
    with step("The agent at rest and under load"):
        wait = waits(lab)
    with step("Bursts"):
        bursts = [(agent.burst(lab, stages=True), agent.burst(lab, stages=False)) for _ in range(3)]
    with step("A line in the terminal"):
        seen = terminal.latency(lab)
    with step("The health service of the controller"):
        service = agent.of_health_service(lab)
    with step("Format presets"):
        costs = presets.costs()
    exposure = lab.on(agent.MINI, "systemd-analyze security promtail --no-pager | tail -n 1")
    rating = re.search(r"([\d.]+) \w+", exposure)[1]
    text = page(deployments, runs, wait, silence, seen, bursts, service, rating, costs)
    (ROOT / "docs" / "performance.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
