"""What the agent costs on a node, and how long a line takes: measured on one node of the lab.

CPU is the scheduler's own account (schedstat, nanoseconds); /proc/PID/stat counts ticks, which timers distort.
"""

from __future__ import annotations

import json
import re
import statistics
import time
import uuid
from dataclasses import dataclass

import yaml

from lab.shell import wait_for
from tests.lab.harness import CONTROLLER, LOGS, MINIS, Lab

MINI = MINIS[1]
CONFIG = "/etc/promtail/promtail.yml"
OLD_LINES = 100  # of each file of an old run
SECONDS = 30  # of each measurement of the CPU
REST = 60  # of each measurement at rest: the period of the health lines, so that there is one in it
BURST = 500_000  # lines
SILENCE = 600  # seconds
SILENT_FILES = 9
# Writes lines in SmolCluster's format at a rate; arguments are a mark, lines per second, the number of lines, and an
# address of Loki, which is asked every 20 ms for the lines, or nothing. Prints the seconds until each line was found.
WRITER = """
import json, sys, time, urllib.parse, urllib.request
mark, rate, count, loki = sys.argv[1], float(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
written, found = [], {}
def look(now):
    query = {"query": '{job="smolcluster-worker"} |= "%s"' % mark, "limit": 1000}
    query |= {"start": int((now - 30) * 1e9), "end": int((now + 30) * 1e9)}
    with urllib.request.urlopen(f"{loki}/loki/api/v1/query_range?{urllib.parse.urlencode(query)}") as answer:
        streams = json.load(answer)["data"]["result"]
    for stream in streams:
        for _time, line in stream["values"]:
            found.setdefault(int(line.rpartition(" ")[2]), time.time())
begin = time.time()
with open(f"/tmp/smolcluster-logs/worker-rank0-{mark}.log", "a", buffering=1) as file:
    while len(written) < count or (loki and len(found) < count and time.time() < begin + count / rate + 30):
        now = time.time()
        if len(written) < count and now >= begin + len(written) / rate:
            stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(now))
            written.append(now)
            file.write(f"{stamp},{int(now % 1 * 1000):03d} | INFO | rank:0 | {mark} step {len(written) - 1}\\n")
        if loki:
            look(now)
        time.sleep(0.02 if loki else max(0.001, begin + len(written) / rate - time.time()))
print(json.dumps([found[number] - moment for number, moment in enumerate(written) if number in found]))
"""
OLD_FILES = f"""
import sys, time
stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(time.time() - 3600))
for file in range(int(sys.argv[1])):
    with open(f"{LOGS}/worker-rank{{file}}-old.log", "w") as log:
        for line in range({OLD_LINES}):
            moment = f"{{stamp}},{{line % 1000:03d}}"
            log.write(f"{{moment}} | INFO | rank:{{file}} | step:{{line}} | metric:loss | value:2.314000\\n")
"""


@dataclass
class Load:
    """What the watcher and the agent used.

    Parameters:
        cpu: share of a core.
        own: memory of the two processes, in MiB.
        program: resident part of their program files, in MiB, which the system takes back when memory is short.
    """

    cpu: float
    own: float
    program: float


def processes(lab: Lab) -> list[str]:
    """Process IDs of the watcher and the agent."""
    agent = lab.agent_pid(MINI)
    return [lab.on(MINI, f"ps -o ppid= -p {agent}").strip(), agent]


def load(lab: Lab, script: str = f"sleep {SECONDS}", data: str | None = None) -> Load:
    """Load while a shell script runs on the node."""
    pids = processes(lab)

    def used() -> float:
        tasks = lab.on(MINI, f"cat {' '.join(f'/proc/{pid}/task/*/schedstat' for pid in pids)}").splitlines()
        return sum(int(task.split()[0]) for task in tasks) / 1e9

    before, start = used(), time.monotonic()
    lab.on(MINI, script, data=data)
    spent, seconds = used() - before, time.monotonic() - start
    status = lab.on(MINI, f"cat {' '.join(f'/proc/{pid}/status' for pid in pids)}")
    # Copies are on a tmpfs, which counts as memory of the service, too; at rest they are empty or small.
    own, program = (sum(map(int, re.findall(rf"{name}:\s+(\d+)", status))) / 1024 for name in ("RssAnon", "RssFile"))
    return Load(spent / seconds, own, program)


def sent(lab: Lab) -> int:
    """Lines that Loki has accepted from the agent since its start."""
    text = lab.on(MINI, "curl -s http://127.0.0.1:9080/metrics")
    return sum(
        int(float(count)) for count in re.findall(r"^promtail_sent_entries_total\{.*\} (\S+)", text, re.MULTILINE)
    )


def fresh(lab: Lab, files: int = 0) -> None:
    """Start the agent with only some files of old runs, all delivered, and let it come to rest.

    Parameters:
        lab: the lab.
        files: number of these files.
    """
    lab.on(MINI, f"systemctl stop promtail; rm -rf {LOGS}/* /var/lib/promtail/*; mkdir -p -m 1777 {LOGS}")
    lab.on(MINI, f"python3 - {files}", data=OLD_FILES)
    lab.on(MINI, "systemctl start promtail")
    processes(lab)
    wait_for(lambda: sent(lab) >= files * OLD_LINES, "the old files are delivered", 120)
    time.sleep(15)  # longer than a log counts as being written


def at_rest(lab: Lab) -> dict[int, Load]:
    """Load by the number of files of old runs, while nothing is written."""
    results = {}
    for files in (0, 100, 1000):
        fresh(lab, files)
        results[files] = load(lab, f"sleep {REST}")
    return results


def of_health_service(lab: Lab) -> tuple[float, float]:
    """What the health service of the controller uses: share of a core, and memory of its own in MiB."""
    pid = lab.on(CONTROLLER, "systemctl show smolcluster-logging-health --property=MainPID --value")
    used = f"cut -d ' ' -f 1 /proc/{pid}/schedstat"
    before = int(lab.on(CONTROLLER, used))
    lab.on(CONTROLLER, f"sleep {REST}")
    spent = (int(lab.on(CONTROLLER, used)) - before) / 1e9
    memory = lab.on(CONTROLLER, f"grep RssAnon /proc/{pid}/status")
    return spent / REST, int(memory.split()[1]) / 1024


def at_rate(lab: Lab, rate: float) -> Load:
    """Load while one program writes."""
    fresh(lab)
    return load(lab, f"python3 - {uuid.uuid4().hex[:10]} {rate} {int(rate * SECONDS)} ''", WRITER)


def latencies(lab: Lab, rate: float, count: int) -> list[float]:
    """Seconds from writing a line until Loki shows it, at a constant rate.

    Parameters:
        lab: the lab.
        rate: lines per second.
        count: number of lines.
    """
    mark = uuid.uuid4().hex[:10]
    found = json.loads(lab.on(MINI, f"python3 - {mark} {rate} {count} http://controller:3100", data=WRITER))
    assert len(found) == count, f"{len(found)} of {count} lines"
    return found


def begin_silence(lab: Lab) -> float:
    """Let no file of the node be written from now on; returns the moment, for `after_silence`."""
    fresh(lab, SILENT_FILES)
    return time.monotonic()


def after_silence(lab: Lab, begin: float) -> float:
    """Median of the seconds from writing one line, `SILENCE` after a moment, until Loki shows it.

    Each of some files gets its line at another moment of the watcher's period.

    Parameters:
        lab: the lab.
        begin: result of `begin_silence`.
    """
    time.sleep(max(0.0, begin + SILENCE - time.monotonic()))
    waits = []
    for number in range(SILENT_FILES):
        # Another file each time: those before it have just been written.
        path = f"/tmp/smolcluster-logs/worker-rank{number}-old.log"
        text = WRITER.replace('f"/tmp/smolcluster-logs/worker-rank0-{mark}.log"', repr(path))
        waits += json.loads(lab.on(MINI, f"python3 - {uuid.uuid4().hex[:10]} 10 1 http://controller:3100", data=text))
        time.sleep(12.3)  # longer than a file that has grown is checked more often
    return statistics.median(waits)


def burst(lab: Lab, stages: bool) -> float:
    """Seconds until Loki has many lines that are there at once.

    Parameters:
        lab: the lab.
        stages: whether the agent has its stages.
    """
    fresh(lab)
    if not stages:
        config = yaml.safe_load(lab.on(MINI, f"cat {CONFIG}"))
        for scrape in config["scrape_configs"]:
            scrape["pipeline_stages"] = []
        lab.on(MINI, f"cp -p {CONFIG} /tmp/with-stages && cat > {CONFIG}", data=yaml.safe_dump(config))
        lab.on(MINI, "systemctl restart promtail")
        processes(lab)
        time.sleep(5)
    name = uuid.uuid4().hex[:10]
    script = OLD_FILES.replace(f"range({OLD_LINES})", f"range({BURST})")
    lab.on(MINI, f"mkdir -p /tmp/{name}; python3 - 1", data=script.replace(f'"{LOGS}/', f'"/tmp/{name}/'))
    before = sent(lab)
    begin = time.monotonic()
    lab.on(MINI, f"mv /tmp/{name}/*.log {LOGS}/worker-rank0-{name}.log")
    wait_for(lambda: sent(lab) - before >= BURST, "the burst is delivered", 300)
    seconds = time.monotonic() - begin
    if not stages:
        lab.on(MINI, f"cat /tmp/with-stages > {CONFIG} && rm /tmp/with-stages && systemctl restart promtail")
    lab.on(MINI, f"rm -r /tmp/{name} {LOGS}/*")
    return seconds
