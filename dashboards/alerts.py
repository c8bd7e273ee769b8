"""The alert rules, in the form of Grafana's file provisioning.

Grafana replaces `$NAME` in such files by variables of its environment, so nothing here has a `$`: `.Labels` instead of
`$labels`, and a threshold instead of a formula.

Source: https://grafana.com/docs/grafana/v9.4/alerting/set-up/provision-alerting-resources/file-provisioning/
"""

from __future__ import annotations

from dataclasses import dataclass

from dashboards import logql
from dashboards.logql import ALL, RANK, RANKED, count, matching, over, seen
from dashboards.pages import CAUSE, DISK, HEALTH, OVERVIEW
from dashboards.panels import DATASOURCE, Json

FOLDER, GROUP = "SmolCluster", "Training"
# How often Grafana evaluates the rules, and how far back they look. Both are in the texts below.
EVERY, WINDOW, SECONDS = "30s", "5m", 300
OF_RANK = "rank {{ .Labels.rank }} on {{ .Labels.node }}"
VALUE = '{{ printf "%.0f" .Values.B.Value }}'


@dataclass(frozen=True)
class Rule:
    """An alert rule.

    Parameters:
        uid: its identifier, at most 40 characters.
        title: name of the alert.
        expr: instant query; each of its series is an alert of its own.
        moment: instant query with the same labels for the time to open the dashboard at, milliseconds since 1970.
        above: the alert fires when the value is greater than this.
        summary: what happened; may name labels and values.
        advice: what to do.
        lasting: how long it has to be so before the alert fires.
        page: dashboard to open.
        around: milliseconds of the time range that the link opens.
    """

    uid: str
    title: str
    expr: str
    moment: str
    above: float
    summary: str
    advice: str
    lasting: str = "0s"
    page: str = CAUSE
    around: int = 60_000


def lines(uid: str, title: str, pattern: str, summary: str, advice: str) -> Rule:
    """Rule that fires for each rank with a line that matches a regular expression."""
    query = f"{ALL} {matching(pattern)}"
    return Rule(uid, title, count(query, WINDOW), over("min", seen(query), WINDOW), 0, summary, advice)


def reports(uid: str, title: str, expr: str, above: float, summary: str, advice: str) -> Rule:
    """Rule about what agents and controller report each minute.

    Parameters:
        expr: instant query with one series per node.
        above, summary, advice: see `Rule`.
    """
    moment = over("max", seen(f'{{job="{logql.HEALTH}", node=~".*"}}'), "10m", "node")
    return Rule(uid, title, expr, moment, above, summary, advice, page=HEALTH, around=3_600_000)


def health_rules() -> list[Rule]:
    """Rules about the log system itself."""
    every = ".*"
    dropped = logql.increase(logql.reasons("agent", "dropped_lines", every), "10m", "600")
    retries = logql.increase(logql.health("agent", "retries", node=every), "10m", "600")
    free = over("last", logql.health(".+", *DISK, node=every), "10m", "node")
    clock = logql.health("agent", pattern=r'"clock_offset_seconds": *-?(?P<value>[0-9.]+)', node=every)
    return [
        reports(
            "smolcluster-dropped",
            "Agent drops lines",
            dropped,
            0,
            "The agent of {{ .Labels.node }} has dropped lines",
            "The lines are still in the log files of the node. ansible-playbook playbooks/status.yml names the reason; "
            "after it is removed, the tag promtail_clean lets the agent read all files again.",
        ),
        reports(
            "smolcluster-retries",
            "Agent cannot deliver at once",
            retries,
            10,
            "The agent of {{ .Labels.node }} has repeated " + VALUE + " requests in ten minutes",
            "Nothing is lost, but lines come late. See whether Loki is busy or refuses lines (page Log system health), "
            "and look at the network between the node and the controller.",
        ),
        reports(
            "smolcluster-clock",
            "Clock is wrong",
            over("last", clock, "10m", "node"),
            5,
            "The clock of {{ .Labels.node }} differs by " + VALUE + " s from that of the controller",
            "Lines of this node are at the wrong time, and Loki refuses lines that are more than 70 minutes ahead. "
            "Switch on time synchronisation on the node: timedatectl set-ntp true.",
        ),
        reports(
            "smolcluster-disk",
            "Disk is almost full",
            f"100 - {free}",
            90,
            "A disk of {{ .Labels.node }} is full to " + VALUE + " %",
            "Training fails when its disk is full, and Loki when that of the controller is. On a node remove old "
            "checkpoints and logs; on the controller set docker_loki_grafana_max_disk, or a shorter retention.",
        ),
        reports(
            "smolcluster-killed",
            "Kernel ended a process",
            count(f'{{job="{logql.HEALTH}", component="agent", node=~".*"}} |= `"oom_last": "`', WINDOW, "node"),
            0,
            "{{ .Labels.node }} ran out of memory, and the kernel ended a process",
            "Open the link; the field oom_last of the node's lines says which process. If it is training: make the "
            "batch smaller, or use fewer workers of the data loader.",
        ),
    ]


def rules() -> list[Rule]:
    """All rules."""
    return training_rules() + health_rules()


def training_rules() -> list[Rule]:
    """Rules about ranks."""
    last = over("max", seen(RANKED), "10m")
    ended = count(f"{RANKED} {matching(logql.FINISHED)}", "10m")
    errors = logql.errors(ALL)
    summary_lines = f"{ALL} {matching(logql.FIRST_FAILURE)} | regexp `{logql.FAILED_RANK}`"
    by_failure = "job, node, failed_rank"
    return [
        Rule(
            "smolcluster-silent",
            "Rank is silent while others write",
            # The newest line of any rank is the clock: when all are silent, the run has ended or nothing runs.
            f"((max({last}) - on () group_right () {last}) / 1000) unless on ({RANK}) {ended}",
            last,
            120,
            f"{OF_RANK} has been silent for {VALUE} s while others write",
            "Look at the rank's last lines. Does its process run (ps, nvidia-smi), does the node answer? If so, a "
            "hanging collective is likely: py-spy dump shows where. A rank that has ended on purpose says so in "
            "its last line (training finished), and is not reported.",
            around=600_000,
        ),
        Rule(
            "smolcluster-errors",
            "Burst of errors",
            count(errors, WINDOW, "job"),
            over("min", seen(errors), WINDOW, "job"),
            20,
            VALUE + " errors of {{ .Labels.job }} in five minutes",
            "Open the link: the first error of all ranks is usually the cause.",
        ),
        lines(
            "smolcluster-nan",
            "Loss is NaN or infinite",
            logql.NOT_FINITE,
            f"Loss or gradient of {OF_RANK} is NaN or infinite",
            "Stop the run and go back to the last good checkpoint. Usual causes: a learning rate that is too high, "
            "fp16 without loss scaling, a bad sample just before.",
        ),
        lines(
            "smolcluster-memory",
            "Out of memory",
            logql.OUT_OF_MEMORY,
            f"{OF_RANK} is out of memory",
            "Make the batch or the sequence smaller, or use gradient accumulation or checkpointing. For a host "
            "(Killed) also look at the workers of the data loader and at dmesg; on MPS other programs share the "
            "memory.",
        ),
        lines(
            "smolcluster-timeout",
            "Time-out between ranks",
            logql.TIME_OUT,
            f"{OF_RANK} reports a time-out or a lost connection",
            "Find the rank that was silent or failed before this: it is the cause, and the ranks that time out "
            "only wait for it. If none did, check the network between the nodes (ping, firewall, NCCL_SOCKET_IFNAME or "
            "GLOO_SOCKET_IFNAME).",
        ),
        lines(
            "smolcluster-traceback",
            "Traceback",
            logql.TRACEBACK,
            f"{OF_RANK} wrote a traceback",
            "Open the link: it has the traceback and what the other ranks said at that time.",
        ),
        Rule(
            "smolcluster-first-failure",
            "A rank failed first (torchrun)",
            count(summary_lines, WINDOW, by_failure),
            over("min", seen(summary_lines), WINDOW, by_failure),
            0,
            "torchrun on {{ .Labels.node }} names rank {{ .Labels.failed_rank }} as the first that failed",
            "Read that rank's lines before this time; the other ranks were ended by torchrun afterwards.",
            around=600_000,
        ),
        Rule(
            "smolcluster-straggler",
            "Rank lags behind",
            # A rank without a step in this time is silent, which is another alert.
            logql.lag(RANKED, "2m"),
            over("max", seen(RANKED), "2m"),
            50,
            f"{OF_RANK} is {VALUE} steps behind",
            "Compare the node with the others: temperature and throttling, other programs, disk, network, a larger "
            "part of the data.",
            lasting="2m",
            page=OVERVIEW,
            around=1_800_000,
        ),
    ]


def query(ref: str, expr: str) -> Json:
    """Query of a rule, evaluated at one time."""
    return {
        "refId": ref,
        "queryType": "instant",
        "relativeTimeRange": {"from": SECONDS, "to": 0},
        "datasourceUid": DATASOURCE["uid"],
        "model": {
            "refId": ref,
            "datasource": dict(DATASOURCE),
            "editorMode": "code",
            "expr": expr,
            "queryType": "instant",
        },
    }


def expression(ref: str, kind: str, of: str, **more: object) -> Json:
    """Step of Grafana's own on the result of another one."""
    model = {"refId": ref, "type": kind, "expression": of, "datasource": {"type": "__expr__", "uid": "__expr__"}}
    return {
        "refId": ref,
        "queryType": "",
        "relativeTimeRange": {"from": 0, "to": 0},
        "datasourceUid": "__expr__",
        "model": model | more,
    }


def rule_file() -> Json:
    """The file with all rules."""
    entries = []
    for rule in rules():
        address = (
            f'{{{{ externalURL }}}}d/{rule.page}?time={{{{ printf "%.0f" .Values.M.Value }}}}&time.window={rule.around}'
        )
        entries.append(
            {
                "uid": rule.uid,
                "title": rule.title,
                "condition": "C",
                "for": rule.lasting,
                # No lines, no alert: an idle cluster is not an error.
                "noDataState": "OK",
                "execErrState": "Error",
                "annotations": {"summary": rule.summary, "description": rule.advice, "dashboard": address},
                "labels": {"source": "smolcluster"},
                "data": [
                    query("A", rule.expr),
                    expression("B", "reduce", "A", reducer="last"),
                    expression(
                        "C", "threshold", "B", conditions=[{"evaluator": {"type": "gt", "params": [rule.above]}}]
                    ),
                    query("L", rule.moment),
                    expression("M", "reduce", "L", reducer="last"),
                ],
            }
        )
    group = {"orgId": 1, "name": GROUP, "folder": FOLDER, "interval": EVERY, "rules": entries}
    return {"apiVersion": 1, "groups": [group]}
