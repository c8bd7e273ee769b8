"""Lines of training runs that went well or failed in a known way, pushed straight to Loki with the agent's labels."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field

from plugins.module_utils import loki

SECOND = 1_000_000_000
STEP = 2  # seconds
LENGTH = 600  # seconds
RANKS = ("0", "1", "2")
TRACEBACK = 'Traceback (most recent call last):\n  File "train.py", line 12, in step\n    loss = model(batch)\n'


@dataclass
class Run:
    """A training run of three ranks and a server that ends now.

    Parameters:
        job: label of all its lines; unique, so that runs do not meet in a query.
        end: time of its end, seconds since 1970.
        lines: time in seconds, labels and text of each line.
    """

    job: str
    end: int
    lines: list[tuple[float, dict[str, str], str]] = field(default_factory=list)

    def say(self, before: float, rank: str, text: str, level: str = "INFO") -> None:
        """Let a rank write a line.

        Parameters:
            before: seconds before the end of the run.
            rank: number, or `server`.
            text: message after the time, level and rank.
            level: upper case; empty for a line without a level.
        """
        node = "mini1" if rank == "server" else f"mini{int(rank) % 3 + 1}" if rank.isdigit() else "mini1"
        host = f"server-{node}" if rank == "server" else f"worker-rank{rank}-{node}"
        labels = {"job": self.job, "node": node, "rank": rank, "host": host, "filename": f"/tmp/{host}.log"}
        if level:
            labels["level"] = level
            text = f"2026-11-28 02:00:00,000 | {level} | rank:{rank} | {text}"
        self.lines.append((self.end - before, labels, text))

    def train(self, rank: str, start: float = LENGTH, stop: float = 0, speed: float = 1) -> None:
        """Let a rank train.

        Parameters:
            rank: number, or `server`.
            start: seconds before the end of the run of its first step.
            stop: seconds before the end at which it writes nothing more.
            speed: steps per two seconds.
        """
        step, moment = 0, start
        while moment > stop:
            step += 1
            self.say(moment, rank, f"step:{step} | metric:loss | value:{loss(rank, step):.6f}")
            moment -= STEP / speed

    def push(self, url: str) -> None:
        """Send the lines to Loki, in order of time."""
        streams: dict[str, tuple[dict, list]] = {}
        for moment, labels, text in sorted(self.lines, key=lambda line: line[0]):
            _, values = streams.setdefault(json.dumps(labels, sort_keys=True), (labels, []))
            # A nanosecond each, so that equal lines of one time stay two.
            values.append([str(int(moment * SECOND) + len(values)), text])
        body = {"streams": [{"stream": labels, "values": values} for labels, values in streams.values()]}
        answer = loki.ask(f"{url}/loki/api/v1/push", json.dumps(body).encode())
        assert answer.status == 204, answer.text


def loss(rank: str, step: int) -> float:
    """Loss of a rank at a step: a curve that falls, with a little noise of its own."""
    return 2 + 10 / (step + 3) + 0.1 * math.sin(7.3 * step + ord(rank[0]))


def healthy(job: str, end: int) -> Run:
    """All ranks train until now."""
    run = Run(job, end)
    for rank in (*RANKS, "server"):
        run.train(rank)
    run.say(300, "verify", "verify-0123456789abx 1 end")
    run.say(200, "1", "step:200 | no gradient from rank [2], going on without", "WARNING")
    run.say(150, "0", "Waiting for 2 workers, timeout 60 s; information about out-of-date files")
    return run


def silent(job: str, end: int) -> Run:
    """Rank 1 says nothing more for 200 s."""
    run = Run(job, end)
    for rank in ("0", "2", "server"):
        run.train(rank)
    run.train("1", stop=200)
    return run


def ended(job: str, end: int) -> Run:
    """A run that ended well 150 s ago; rank 1 had ended 200 s before the others."""
    run = Run(job, end)
    for rank in ("0", "2", "server"):
        run.train(rank, stop=150)
        run.say(150, rank, f"{'Training' if rank == 'server' else 'Worker'} finished after 225 steps")
    run.train("1", stop=350)
    run.say(350, "1", "Worker finished after 125 steps")
    return run


def ended_early(job: str, end: int) -> Run:
    """Rank 1 has ended as it should, and the others go on."""
    run = Run(job, end)
    for rank in ("0", "2", "server"):
        run.train(rank)
    run.train("1", stop=200)
    run.say(199, "1", "Training completed")
    return run


def straggling(job: str, end: int) -> Run:
    """Rank 2 is at half the speed of the others."""
    run = Run(job, end)
    for rank in ("0", "1", "server"):
        run.train(rank)
    run.train("2", speed=0.5)
    return run


def failing(text: str, rank: str = "1", level: str = "ERROR", times: int = 1):
    """Healthy runs in which a rank writes lines of a failure two minutes before the end."""

    def run(job: str, end: int) -> Run:
        made = healthy(job, end)
        for number in range(times):
            made.say(120 - number, rank, text, level)
        return made

    return run


# What happens, and which alerts that has to raise: uid of the rule and the label that names the rank.
CASES = {
    "healthy": (healthy, set()),
    "nothing": (Run, set()),
    "ended well": (ended, set()),
    "one rank ended early": (ended_early, set()),
    "silent": (silent, {("smolcluster-silent", "1")}),
    "straggler": (straggling, {("smolcluster-straggler", "2")}),
    "NaN": (failing("step:240 | metric:loss | value:nan", "2", "INFO"), {("smolcluster-nan", "2")}),
    "infinite": (failing("{'loss': 'inf', 'grad_norm': '0.4'}", "2", ""), {("smolcluster-nan", "2")}),
    "CUDA out of memory": (
        failing(
            f"step:240 | failed\n{TRACEBACK}torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB.", "0"
        ),
        {("smolcluster-memory", "0"), ("smolcluster-traceback", "0")},
    ),
    "MPS out of memory": (
        failing("RuntimeError: MPS backend out of memory (MPS allocated: 9.06 GB, max allocated: 9.07 GB)."),
        {("smolcluster-memory", "1")},
    ),
    "host out of memory": (failing("Killed", level=""), {("smolcluster-memory", "1")}),
    "NCCL time-out": (
        failing(
            "[rank1]:[E1128 02:00:00.123 ProcessGroupNCCL.cpp:632] [Rank 1] Watchdog caught collective operation "
            "timeout: WorkNCCL(SeqNum=4, OpType=ALLREDUCE, Timeout(ms)=600000) ran for 600041 milliseconds before "
            "timing out.",
            level="",
        ),
        {("smolcluster-timeout", "1")},
    ),
    "gloo time-out": (
        failing(
            "RuntimeError: [../third_party/gloo/transport/tcp/unbound_buffer.cc:81] Timed out waiting 1800000ms "
            "for recv"
        ),
        {("smolcluster-timeout", "1")},
    ),
    "socket time-out": (failing("TimeoutError: timed out", "2"), {("smolcluster-timeout", "2")}),
    "traceback without a level": (
        failing(f"[rank2]: {TRACEBACK}ValueError: bad batch", "2", ""),
        {("smolcluster-traceback", "2")},
    ),
    "torchrun": (
        failing(
            "train.py FAILED\nRoot Cause (first observed failure):\n[0]:\n  time      : 2026-11-28_02:00:00\n"
            "  host      : mini3\n  rank      : 2 (local_rank: 0)\n  exitcode  : 1 (pid: 77)\n",
            "0",
            "",
        ),
        {("smolcluster-first-failure", "2")},
    ),
    "burst of errors": (failing("no gradient", times=30), {("smolcluster-errors", "")}),
}


def health_lines(url: str, node: str, end: int, **changes: object) -> None:
    """Send the lines that a node's agent writes each minute (docs/health.md), for the ten minutes before a time.

    Parameters:
        url: of Loki.
        node: name of the node; unique, so that tests do not meet in a query.
        end: time of the last line, seconds since 1970.
        changes: fields of the last three lines that differ from those of a healthy node.
    """
    gib = 1 << 30
    values = []
    for minute in range(10, -1, -1):
        fields = {"time": "2026-11-28T06:40:46.098031Z", "agent": "promtail", "version": "3.6.15", "retries": 3}
        fields |= {"sent_lines": 1000 - 60 * minute, "sent_bytes": 90_000, "dropped_lines": {}, "lag_bytes": 0}
        fields |= {"files": 2, "disk_free_bytes": 60 * gib, "disk_size_bytes": 100 * gib, "oom_kills": 0}
        fields |= {"clock_offset_seconds": 0.0, "oom_last": None}
        text = json.dumps(fields | (changes if minute < 3 else {}))
        values.append([str((end - 60 * minute) * SECOND), text])
    push_health(url, "agent", node, values)


def controller_lines(url: str, node: str, end: int) -> None:
    """Send the lines that the controller writes each minute, as `health_lines` does for a node."""
    values = []
    for minute in range(10, -1, -1):
        fields = {"time": "2026-11-28T06:40:46.098031Z", "version": "3.7.8", "received_lines": 4000 - 240 * minute}
        fields |= {"received_bytes": 400_000, "rejected_lines": {"rate_limited": 20 - minute}, "store_bytes": 3 << 30}
        fields |= {"disk_free_bytes": 70 << 30, "disk_size_bytes": 100 << 30, "memory_bytes": 180 << 20}
        fields |= {"cpu_seconds": 60 - 3.0 * minute, "clock_synchronized": True}
        values.append([str((end - 60 * minute) * SECOND), json.dumps(fields)])
    push_health(url, "controller", node, values)


def push_health(url: str, component: str, node: str, values: list[list[str]]) -> None:
    """Send lines about the log system to Loki."""
    labels = {"job": "smolcluster-health", "component": component, "node": node}
    body = {"streams": [{"stream": labels, "values": values}]}
    answer = loki.ask(f"{url}/loki/api/v1/push", json.dumps(body).encode())
    assert answer.status == 204, answer.text


# Fields that differ from those of a healthy node, and the rule that has to fire.
HEALTH_CASES = {
    "healthy": ({}, ""),
    "unknown": ({"sent_lines": None, "dropped_lines": None, "retries": None, "clock_offset_seconds": None}, ""),
    "restarted": ({"sent_lines": 0, "retries": 0}, ""),
    "drops": ({"dropped_lines": {"line_too_long": 2, "ingester_error": 5}}, "smolcluster-dropped"),
    "retries": ({"retries": 40}, "smolcluster-retries"),
    "clock ahead": ({"clock_offset_seconds": 42.5}, "smolcluster-clock"),
    "clock behind": ({"clock_offset_seconds": -3600.0}, "smolcluster-clock"),
    "disk": ({"disk_free_bytes": 5 << 30}, "smolcluster-disk"),
    "killed": ({"oom_kills": 1, "oom_last": "Out of memory: Killed process 12 (python3)"}, "smolcluster-killed"),
}
