"""Lines of training runs that went well or failed in a known way, pushed straight to Loki with the agent's labels."""

from __future__ import annotations

import json
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
            self.say(moment, rank, f"step:{step} | metric:loss | value:{2 + 10 / step:.6f}")
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
