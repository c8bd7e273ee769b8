"""Dashboards and alert rules: the committed files are current and hang together."""

from __future__ import annotations

import json
import re

import pytest
import yaml
from ansible_collections.smolcluster.logging.plugins.plugin_utils import alerts

from dashboards import __main__ as generator
from dashboards import logql, pages

PAGES = pages.all_pages()
RULES = yaml.safe_load((generator.FILES / "alerting/alert-rules.yml").read_text())
by_page = pytest.mark.parametrize("page", PAGES.values(), ids=PAGES.keys())


def test_committed_files_are_current():
    assert generator.stale() == []


@by_page
def test_every_panel_says_what_it_means_when_it_is_empty(page):
    for panel in page["panels"]:
        assert panel["fieldConfig"]["defaults"]["noValue"] in panel["description"]


@by_page
def test_panels_do_not_overlap_and_fill_their_rows(page):
    cells = [
        (x, y)
        for panel in page["panels"]
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(cells) == len(set(cells))
    assert len(cells) == 24 * (1 + max(y for _, y in cells))


@by_page
def test_every_variable_in_a_query_exists(page):
    known = {variable["name"] for variable in page["templating"]["list"]} | {
        "__interval",
        "__range",
        "__range_s",
        "__to",
    }
    used = {
        name
        for panel in page["panels"]
        for text in [panel["title"], *(target["expr"] for target in panel["targets"])]
        for name in re.findall(r"\$(\w+)", text)
    }
    assert used <= known


@by_page
def test_every_link_leads_to_a_page(page):
    links = re.findall(r"/d/([\w-]+)", json.dumps(page))
    assert set(links) <= {other["uid"] for other in PAGES.values()}
    assert {link["url"] for link in page["links"]} == {
        f"/d/{other['uid']}" for other in PAGES.values() if other is not page
    }


def test_data_source_is_the_one_of_the_role():
    variables = yaml.safe_load((generator.ROOT / "roles/docker_loki_grafana/vars/main/project.yml").read_text())
    uids = set(re.findall(r'"datasourceUid": "([^"]+)"|"uid": "(smolcluster-loki|__expr__)"', json.dumps(RULES)))
    assert {first or second for first, second in uids} == {
        variables["__docker_loki_grafana_datasource_uid"],
        "__expr__",
    }


def test_grafana_finds_nothing_to_replace_in_the_rules():
    assert "$" not in (generator.FILES / "alerting/alert-rules.yml").read_text()


def rules() -> dict[str, dict]:
    """Rules by uid."""
    return {rule["uid"]: rule for rule in RULES["groups"][0]["rules"]}


def test_every_rule_says_what_to_do_and_leads_to_a_page_at_its_time():
    for rule in rules().values():
        assert rule["noDataState"] == "OK"
        assert {"summary", "description", "dashboard"} <= set(rule["annotations"])
        (page,) = re.findall(r"/?d/([\w-]+)\?time=", rule["annotations"]["dashboard"])
        assert page in {other["uid"] for other in PAGES.values()}


def test_thresholds_of_the_user_are_set():
    settings = {"wanted": True} | dict.fromkeys(alerts.THRESHOLDS.values(), 7)
    text = alerts.rules((generator.FILES / "alerting/alert-rules.yml").read_text(), settings)
    found = {rule["uid"]: threshold(rule) for rule in yaml.safe_load(text)["groups"][0]["rules"]}
    before = {rule["uid"]: threshold(rule) for rule in rules().values()}
    assert found == before | {uid: [7] for uid in alerts.THRESHOLDS}


def threshold(rule: dict) -> list[float]:
    """Threshold of a rule."""
    (step,) = (part["model"] for part in rule["data"] if part["refId"] == "C")
    return step["conditions"][0]["evaluator"]["params"]


def test_rules_of_an_earlier_run_are_removed_when_they_are_not_wanted():
    text = alerts.rules((generator.FILES / "alerting/alert-rules.yml").read_text(), {"wanted": False})
    assert {rule["uid"] for rule in yaml.safe_load(text)["deleteRules"]} == set(rules())


def test_thresholds_in_the_file_are_the_defaults_of_the_role():
    defaults = yaml.safe_load((generator.ROOT / "roles/docker_loki_grafana/defaults/main.yml").read_text())
    text = (generator.FILES / "alerting/alert-rules.yml").read_text()
    assert yaml.safe_load(alerts.rules(text, defaults | {"wanted": True})) == RULES


@pytest.mark.parametrize(
    ("pattern", "line"),
    [
        (logql.FINISHED, "Epoch 3 finished, the next one begins"),
        (logql.OUT_OF_MEMORY, "memory (MB) | allocated: 10770.3"),
        (logql.OUT_OF_MEMORY, "out-of-date file"),
        (logql.TIME_OUT, "Waiting for 2 workers, timeout 60 s"),
        (logql.TIME_OUT, "NCCL INFO NCCL_TIMEOUT set by environment to 1800"),
        (logql.NOT_FINITE, "number of nan iterations:   0 |"),
        (logql.NOT_FINITE, "loss: 2.31, information follows"),
        (logql.STEP, "Worker finished after 62 steps"),
    ],
)
def test_harmless_lines_match_nothing(pattern, line):
    # These patterns mean the same in Python and in RE2; the tests of the lab run them in Loki.
    assert not re.search(pattern, line)


@by_page
def test_every_panel_has_its_own_title(page):
    titles = [panel["title"] for panel in page["panels"]]
    assert len(titles) == len(set(titles))
