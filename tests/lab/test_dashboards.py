"""Every query of the dashboards and alert rules on a real Loki, with lines of runs that went well or failed."""

from __future__ import annotations

import json
import re
import time
import uuid

import pytest
import yaml

from plugins.module_utils import loki
from tests.lab.harness import ROOT, Lab
from tests.lab.training_lines import CASES, TRACEBACK, Run, failing

FILES = ROOT / "roles/docker_loki_grafana/files"
PAGES = {path.stem: json.loads(path.read_text()) for path in sorted((FILES / "dashboards").glob("*.json"))}
(GROUP,) = yaml.safe_load((FILES / "alerting/alert-rules.yml").read_text())["groups"]
RANGE = 3600


def targets() -> list:
    """Every query of every panel."""
    return [
        pytest.param(panel, target, id=f"{page}-{panel['title']}-{target['refId']}")
        for page, dashboard in PAGES.items()
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
        "search": "",
        "__interval": "1m",
        "__range": f"{RANGE}s",
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
    return made


@pytest.mark.parametrize("case", CASES)
def test_alerts_are_raised_for_the_failure_and_for_nothing_else(lab: Lab, runs, case):
    run, expected = runs[case], CASES[case][1]
    alerts = fired(lab.loki_url, run)
    assert set(alerts) == expected
    for labels in alerts.values():
        assert run.end - 600 <= labels["moment"] <= run.end


@pytest.mark.parametrize(("panel", "target"), targets())
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


def test_first_error_is_the_first(lab: Lab, runs):
    run = runs["two failures"]
    rows = ask(lab.loki_url, query_of("root-cause", "First errors, earliest first"), run)
    assert sorted(
        (float(row["value"][1]) / 1000 - run.end, row["metric"]["rank"], row["metric"]["exception"]) for row in rows
    ) == [(-120, "2", "ValueError"), (-90, "0", "ConnectionError")]
    # The panel has room for fewer lines than there may be: it must get the oldest ones.
    errors = query_of("root-cause", "Errors of all ranks, oldest first") | {"maxLines": 1}
    ((_, line),) = [value for stream in ask(lab.loki_url, errors, run) for value in stream["values"]]
    assert line.endswith("ValueError: bad batch")


def test_loss_is_read_over_time_and_over_step(lab: Lab, runs):
    run = runs["healthy"]
    over_step = ask(lab.loki_url, query_of("training-overview", "$metric over step"), run, rank="0")
    values = {int(row["metric"]["step"]): float(row["value"][1]) for row in over_step}
    # Steps 1 to 9, 10 to 19, … of the curve that the rank wrote.
    assert sorted(values) == list(range(0, 301, 10))
    assert values[0] == pytest.approx(sum(2 + 10 / step for step in range(1, 10)) / 9, abs=1e-5)
    assert values[300] == pytest.approx(2 + 10 / 300, abs=1e-5)
    (series,) = ask(lab.loki_url, query_of("training-overview", "$metric over time"), run, rank="0")
    last = float(series["values"][-1][1])
    assert last == pytest.approx(2 + 10 / 285, abs=0.01)


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
