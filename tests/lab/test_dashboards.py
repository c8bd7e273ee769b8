"""Every query of the dashboards and alert rules on a real Loki, with lines of runs that went well or failed."""

from __future__ import annotations

import json
import re
import time
import uuid

import pytest
import yaml

from plugins.module_utils import loki
from plugins.module_utils import runs as records
from tests.lab.harness import ROOT, Lab
from tests.lab.training_lines import CASES, HEALTH_CASES, TRACEBACK, Run, controller_lines, failing, health_lines, loss

FILES = ROOT / "roles/docker_loki_grafana/files"
PAGES = {path.stem: json.loads(path.read_text()) for path in sorted((FILES / "dashboards").glob("*.json"))}
(GROUP,) = yaml.safe_load((FILES / "alerting/alert-rules.yml").read_text())["groups"]
HEALTH_RULES = {uid for _, uid in HEALTH_CASES.values() if uid}
RANGE = 3600


def targets(*pages: str) -> list:
    """Every query of every panel of some pages, by default of all."""
    return [
        pytest.param(panel, target, id=f"{page}-{panel['title']}-{target['refId']}")
        for page, dashboard in PAGES.items()
        if page in (pages or PAGES)
        for panel in dashboard["panels"]
        for target in panel["targets"]
    ]


def filled(expr: str, run: Run, **choices: str) -> str:
    """Expression of a panel with its variables filled in as Grafana does it."""
    values = {
        "job": run.job,
        "node": ".*",
        "rank": ".*",
        "level": ".*",
        "metric": "loss",
        "every": "10",
        "run": run.job,
        "search": "",
        "__interval": "1m",
        "__range": f"{RANGE}s",
        "__range_s": str(RANGE),
        "__to": str(run.end * 1000),
    } | choices
    return re.sub(r"\$(\w+)", lambda found: values[found[1]], expr)


def ask(url: str, target: dict, run: Run, **choices: str) -> list[dict]:
    """Result of a panel's query over the hour before the end of a run, by Loki's HTTP API."""
    instant = target["queryType"] == "instant"
    parameters = {"query": filled(target["expr"], run, **choices), "limit": target.get("maxLines", 1000)}
    if instant:
        parameters["time"] = run.end
    else:
        parameters |= {"start": run.end - RANGE, "end": run.end, "step": 60}
        parameters["direction"] = target.get("direction", "backward")
    path = "/loki/api/v1/query" if instant else "/loki/api/v1/query_range"
    return json.loads(loki.get(url, path, parameters)[0])["data"]["result"]


def query_of(page: str, panel: str, ref: str = "A") -> dict:
    """One query of a panel."""
    return next(
        target
        for one in PAGES[page]["panels"]
        if one["title"] == panel
        for target in one["targets"]
        if target["refId"] == ref
    )


def by_rank(result: list[dict]) -> dict[str, float]:
    """Value of each rank."""
    return {series["metric"]["rank"]: float(series["value"][1]) for series in result}


def fired(url: str, run: Run) -> dict[tuple[str, str], dict]:
    """Alerts that the rules raise at the end of a run, by rule and rank, each with its labels and its time."""
    found = {}
    for rule in GROUP["rules"]:
        if rule["uid"] in HEALTH_RULES:
            continue
        parts = {part["refId"]: part["model"] for part in rule["data"]}
        (threshold,) = parts["C"]["conditions"][0]["evaluator"]["params"]
        only = lambda ref, parts=parts: parts[ref]["expr"].replace('job=~".+"', f'job="{run.job}"')  # noqa: E731
        moments = {
            json.dumps(series["metric"], sort_keys=True): float(series["value"][1])
            for series in loki.instant(url, only("L"), run.end)
        }
        for series in loki.instant(url, only("A"), run.end):
            labels = series["metric"]
            if float(series["value"][1]) > threshold:
                rank = labels.get("failed_rank", labels.get("rank", ""))
                # The link needs a time with the same labels.
                found[rule["uid"], rank] = labels | {"moment": moments[json.dumps(labels, sort_keys=True)] / 1000}
    return found


def record(url: str, run: Run, *events: tuple[float, str]) -> None:
    """Record a run of three nodes, as `start.yml -e run=` does.

    Parameters:
        url: of Loki.
        run: its job is the name of the record, too.
        events: `start` or `end`, each with its seconds before the end of the run.
    """
    # A stream of its own: Loki refuses what is 1 h older than the newest line of a stream.
    labels = records.STREAM | {"component": run.job}
    for before, event in events:
        nodes = {"nodes": ["mini1", "mini2", "mini3"]} if event == "start" else {}
        text = json.dumps({"run": run.job, "event": event} | nodes, sort_keys=True)
        loki.push(url, labels, text, int((run.end - before) * 1e9))


@pytest.fixture(scope="module")
def runs(lab: Lab) -> dict[str, Run]:
    """One run of every kind in Loki, and one with two failures."""
    end, name = int(time.time()) - 5, uuid.uuid4().hex[:8]
    made = {case: make(f"{case.replace(' ', '-')}-{name}", end) for case, (make, _) in CASES.items()}
    both = failing(f"step:240 | failed\n{TRACEBACK}ValueError: bad batch", "2")(f"both-{name}", end)
    both.say(90, "0", f"step:255 | failed\n{TRACEBACK}ConnectionError: peer has gone", "ERROR")
    made["two failures"] = both
    for run in made.values():
        if run.lines:
            run.push(lab.loki_url)
    record(lab.loki_url, both, (600, "start"), (20, "end"))
    record(lab.loki_url, made["healthy"], (600, "start"))
    return made


@pytest.mark.parametrize("case", CASES)
def test_alerts_are_raised_for_the_failure_and_for_nothing_else(lab: Lab, runs, case):
    run, expected = runs[case], CASES[case][1]
    alerts = fired(lab.loki_url, run)
    assert set(alerts) == expected
    for labels in alerts.values():
        assert run.end - 600 <= labels["moment"] <= run.end


@pytest.fixture(scope="module")
def nodes(lab: Lab) -> dict[str, str]:
    """Name of one node of every kind, whose lines about the log system are in Loki."""
    end, name = int(time.time()) - 5, uuid.uuid4().hex[:8]
    made = {case: f"{case.replace(' ', '-')}-{name}" for case in HEALTH_CASES}
    for case, node in made.items():
        health_lines(lab.loki_url, node, end, **HEALTH_CASES[case][0])
    controller_lines(lab.loki_url, f"controller-{name}", end)
    return made


@pytest.mark.parametrize("case", HEALTH_CASES)
def test_alerts_about_the_log_system_are_raised_for_the_failure_and_for_nothing_else(lab: Lab, nodes, case):
    fired, now = {}, int(time.time())
    for rule in GROUP["rules"]:
        if rule["uid"] not in HEALTH_RULES:
            continue
        parts = {part["refId"]: part["model"] for part in rule["data"]}
        only = {ref: parts[ref]["expr"].replace('node=~".*"', f'node="{nodes[case]}"') for ref in "AL"}
        (moment,) = loki.instant(lab.loki_url, only["L"], now)
        assert moment["metric"] == {"node": nodes[case]}
        (threshold,) = parts["C"]["conditions"][0]["evaluator"]["params"]
        for series in loki.instant(lab.loki_url, only["A"], now):
            assert series["metric"] == {"node": nodes[case]}
            if float(series["value"][1]) > threshold:
                fired[rule["uid"]] = float(series["value"][1])
    expected = HEALTH_CASES[case][1]
    assert set(fired) == ({expected} if expected else set())


def test_table_of_the_nodes_has_their_numbers(lab: Lab, runs, nodes):
    def column(ref: str, case: str) -> float | None:
        """Value of a column for a node."""
        rows = ask(lab.loki_url, query_of("log-system-health", "Nodes", ref), runs["healthy"], node=nodes[case])
        return float(rows[0]["value"][1]) if rows else None

    assert column("E", "healthy") == pytest.approx(40)
    assert column("E", "disk") == pytest.approx(95)
    assert column("F", "clock ahead") == 42.5
    assert column("F", "unknown") == 0, "of the last line that has it"
    assert column("C", "drops") == pytest.approx(7, abs=4), "Loki extrapolates"
    assert column("C", "restarted") is None or column("C", "restarted") == 0
    assert column("D", "healthy") == 0


@pytest.mark.parametrize(("panel", "target"), targets("log-system-health"))
@pytest.mark.usefixtures("nodes")
def test_every_query_about_the_log_system_is_answered(lab: Lab, runs, panel, target):
    assert ask(lab.loki_url, target, runs["healthy"], node=".*") != [], panel["title"]
    # The controller is not chosen.
    assert 'node=~".*"' in target["expr"] or ask(lab.loki_url, target, runs["healthy"], node="nothing") == []


@pytest.mark.parametrize(("panel", "target"), targets("training-overview", "rank-detail", "root-cause", "runs"))
def test_every_query_is_answered(lab: Lab, runs, panel, target):
    found = ask(lab.loki_url, target, runs["two failures"])
    # Second queries are for formats without levels, which this run has not.
    if target["refId"] == "A" and panel["title"] != "Known kinds of failure":
        assert found != []
    assert ask(lab.loki_url, target, runs["nothing"]) == []
    ask(lab.loki_url, target, runs["two failures"], job=".+", rank="0|1", level="ERROR|INFO", __interval="15s")


def test_ranks_are_in_the_table_with_their_numbers(lab: Lab, runs):
    run = runs["silent"]
    columns = {name: by_rank(ask(lab.loki_url, query_of("training-overview", "Ranks", ref), run)) for name, ref in REFS}
    assert columns["Last line"] == {"0": 2, "1": 202, "2": 2, "server": 2}
    assert columns["Step"] == {"0": 300, "1": 200, "2": 300, "server": 300}
    assert columns["Steps behind"] == {"0": 0, "1": 100, "2": 0, "server": 0}
    assert columns["Lines"] == {"0": 300, "1": 200, "2": 300, "server": 300}
    failed = by_rank(ask(lab.loki_url, query_of("training-overview", "Ranks", "E"), runs["two failures"]))
    assert failed == {"0": 1, "2": 1}
    warned = by_rank(ask(lab.loki_url, query_of("training-overview", "Ranks", "F"), runs["two failures"]))
    assert warned == {"1": 1}


REFS = (("Last line", "A"), ("Step", "B"), ("Steps behind", "C"), ("Lines", "D"))


def test_runs_are_listed_with_their_nodes_start_end_and_duration(lab: Lab, runs):
    def columns(run: Run) -> dict[str, float]:
        """Value of each column of the one run."""
        found = {name: ask(lab.loki_url, query_of("runs", "Runs", ref), run) for name, ref in RUN_REFS}
        (start,) = found["Start"]
        assert start["metric"] == {
            "run": run.job,
            "nodes": "mini1,mini2,mini3",
            "chosen": "mini1&var-node=mini2&var-node=mini3",
        }
        return {name: float(row["value"][1]) for name, rows in found.items() for row in rows}

    run = runs["two failures"]
    start, end = (run.end - 600) * 1000, (run.end - 20) * 1000
    assert columns(run) == {"Start": start, "End": end, "until": end, "Duration": 580}
    run = runs["healthy"]
    assert columns(run) == {"Start": (run.end - 600) * 1000, "until": run.end * 1000, "Duration": 600}


RUN_REFS = (("Start", "A"), ("End", "B"), ("until", "C"), ("Duration", "D"))


def test_first_error_is_the_first(lab: Lab, runs):
    run = runs["two failures"]
    rows = ask(lab.loki_url, query_of("root-cause", "First errors, earliest first"), run)
    assert sorted(
        (float(row["value"][1]) / 1000 - run.end, row["metric"]["rank"], row["metric"]["exception"]) for row in rows
    ) == [(-120, "2", "ValueError"), (-90, "0", "ConnectionError")]
    error = query_of("root-cause", "First error")
    ((_, line),) = [value for stream in ask(lab.loki_url, error, run) for value in stream["values"]]
    assert line.endswith("ValueError: bad batch")


def test_loss_is_read_over_time_and_over_step(lab: Lab, runs):
    run = runs["healthy"]
    over_step = ask(lab.loki_url, query_of("training-overview", "$metric over step"), run, rank="0")
    values = {int(row["metric"]["step"]): float(row["value"][1]) for row in over_step}
    # Steps 1 to 9, 10 to 19, … of the curve that the rank wrote.
    assert sorted(values) == list(range(0, 301, 10))
    assert values[0] == pytest.approx(sum(loss("0", step) for step in range(1, 10)) / 9, abs=1e-5)
    assert values[300] == pytest.approx(loss("0", 300), abs=1e-5)
    (series,) = ask(lab.loki_url, query_of("training-overview", "$metric over time"), run, rank="0")
    last = float(series["values"][-1][1])
    assert last == pytest.approx(sum(loss("0", step) for step in range(271, 301)) / 30, abs=0.01)


def test_speed_is_in_steps_per_minute(lab: Lab, runs):
    (series,) = ask(lab.loki_url, query_of("training-overview", "Steps per minute"), runs["healthy"], rank="0")
    # A point whose five minutes lie within the run.
    assert float(series["values"][-3][1]) == pytest.approx(30, abs=0.5)


# A line of each family that has a loss or a step, and what is read from it.
FORMATS = [
    (
        "2026-11-28 01:00:00  INFO      [gpt | edp | worker-1 | Mac mini]  [W1]  step:42 | metric:loss | value:2.314",
        42,
        2.314,
    ),
    ("[Step 7] Loss: 2.314", 7, 2.314),
    ("INFO:train:step 10 loss=2.31", 10, 2.31),
    ('{"step": 11, "loss": 2.5, "rank": 0, "event": "step"}', 11, 2.5),
    ('step=12 loss=1.5e-3 msg="a b"', 12, 0.0015),
    ("{'loss': '0.6958', 'grad_norm': '0.4897', 'epoch': '0.5'}", None, 0.6958),
    ("steps: 13 loss: 2.3140 iter time (s): 1.234 samples/sec: 51.862", 13, 2.314),
    (
        " [2025-08-01 07:19:37] iteration       14/    5000 | elapsed time per iteration (ms): 19138.8 | "
        "lm loss: 1.042312E+01 | loss scale: 1.0 | grad norm: 5.912 | number of nan iterations:   0 |",
        14,
        10.42312,
    ),
    ("Iter 15: Train loss 2.314, Learning Rate 1.000e-05, It/sec 1.234, Tokens/sec 512.345", 15, 2.314),
    ("epoch=0/micro_step=80/global_step=16, RunningAvgSamplesPerSec=12.5", 16, None),
    ("Worker finished after 62 steps", None, None),
    ("step:17 | metric:loss | value:nan", 17, None),
    ("step:18 | val_loss: 3.5", 18, None),
]


def test_step_and_loss_are_read_from_every_format(lab: Lab):
    end, name = int(time.time()), uuid.uuid4().hex[:8]
    run = Run(f"formats-{name}", end)
    for number, (text, _, _) in enumerate(FORMATS):
        run.say(60, str(number), text, level="")
    run.push(lab.loki_url)
    steps = by_rank(ask(lab.loki_url, query_of("training-overview", "Ranks", "B"), run))
    assert steps == {str(number): step for number, (_, step, _) in enumerate(FORMATS) if step is not None}
    losses = {}
    for series in ask(lab.loki_url, query_of("training-overview", "$metric over time"), run):
        losses[series["metric"]["rank"]] = float(series["values"][-1][1])
    assert losses == {str(number): loss for number, (_, _, loss) in enumerate(FORMATS) if loss is not None}


def test_other_metrics_are_read_by_their_name(lab: Lab):
    run = Run(f"metrics-{uuid.uuid4().hex[:8]}", int(time.time()))
    run.say(60, "0", "Iter 15: Train loss 2.314, It/sec 1.234, Tokens/sec 512.345", level="")
    run.push(lab.loki_url)
    for metric, value in (("It/sec", 1.234), ("tokens/sec", 512.345)):
        (series,) = ask(lab.loki_url, query_of("training-overview", "$metric over time"), run, metric=metric)
        assert float(series["values"][-1][1]) == value
