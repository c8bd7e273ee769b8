"""A real Grafana, started by the role: what its API says, an alert that arrives, and its pages in a browser."""

from __future__ import annotations

import json
import os
import shutil
import time
import uuid
from collections.abc import Iterator

import pytest
import requests

from lab import engine
from lab.config import GRAFANA
from lab.shell import wait_for
from tests.lab.harness import CONTROLLER, ROOT, Lab
from tests.lab.test_dashboards import GROUP, PAGES, RANGE, filled, targets
from tests.lab.training_lines import TRACEBACK, Run, failing

PASSWORD = "only-for-the-lab"  # noqa: S105 - inventory/lab has it, too
SCREENSHOTS = ROOT / ".cache/screenshots"
WEBHOOK = "/tmp/alerts"
# Stands in for the user's webhook: one file per message.
RECEIVER = f"""
import http.server, pathlib, time
class Receiver(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        pathlib.Path("{WEBHOOK}", f"{{time.time_ns()}}.json").write_bytes(body)
        self.send_response(200)
        self.end_headers()
http.server.HTTPServer(("", 9999), Receiver).serve_forever()
"""


@pytest.fixture(scope="module")
def grafana(lab: Lab, artifacts: dict) -> Iterator[requests.Session]:
    """Grafana with a webhook as its contact, as the administrator."""
    if not artifacts["docker_loki_grafana_grafana_enabled"]:
        pytest.skip("no image of Grafana can be had here")
    if not os.environ.get("LAB_DASHBOARDS"):
        pytest.skip("these tests have not run with a Grafana yet; LAB_DASHBOARDS=1 runs them")
    lab.on(CONTROLLER, f"mkdir -p {WEBHOOK}; rm -f {WEBHOOK}/*; cat > /tmp/receiver.py", data=RECEIVER)
    lab.on(CONTROLLER, "systemd-run --unit=alert-receiver python3 /tmp/receiver.py")
    address = lab.on(CONTROLLER, "hostname -i").split()[0]
    contact = {
        "docker_loki_grafana_dashboards": True,
        "docker_loki_grafana_alert_contact_type": "webhook",
        "docker_loki_grafana_alert_contact_address": f"http://{address}:9999/a",
        "docker_loki_grafana_grafana_root_url": f"{GRAFANA}/",
    }
    lab.deploy("--tags", "docker_loki_grafana", **contact)
    assert lab.deploy("--tags", "docker_loki_grafana", **contact).changed() == 0
    with requests.Session() as session:
        session.auth = ("admin", PASSWORD)
        yield session
    lab.on(CONTROLLER, "systemctl stop alert-receiver")
    lab.deploy("--tags", "docker_loki_grafana")


def get(session: requests.Session, path: str) -> dict | list:
    """Answer of Grafana's API."""
    answer = session.get(f"{GRAFANA}{path}", timeout=30)
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.fixture(scope="module")
def run(lab: Lab) -> Run:
    """A run that goes on, in which two ranks fail."""
    made = failing(f"step:240 | failed\n{TRACEBACK}ValueError: bad batch", "2")(
        f"grafana-{uuid.uuid4().hex[:8]}", int(time.time())
    )
    made.say(100, "0", "step:250 | metric:loss | value:nan")
    made.say(90, "1", "RuntimeError: CUDA out of memory. Tried to allocate 2.00 GiB", "ERROR")
    made.push(lab.loki_url)
    return made


def test_data_source_and_pages_are_there_and_the_overview_is_the_home_page(grafana):
    assert get(grafana, "/api/datasources/uid/smolcluster-loki")["type"] == "loki"
    assert {page["uid"] for page in get(grafana, "/api/search?type=dash-db")} == {
        page["uid"] for page in PAGES.values()
    }
    for page in PAGES.values():
        assert len(get(grafana, f"/api/dashboards/uid/{page['uid']}")["dashboard"]["panels"]) == len(page["panels"])
    assert get(grafana, "/api/dashboards/home")["dashboard"]["title"] == "Training overview"


@pytest.mark.usefixtures("grafana")
def test_nobody_gets_in_without_the_password():
    assert requests.get(f"{GRAFANA}/api/search", timeout=30).status_code == 401
    assert requests.get(f"{GRAFANA}/api/search", auth=("admin", "admin"), timeout=30).status_code == 401


@pytest.mark.parametrize(("panel", "target"), targets())
def test_every_panel_gets_an_answer_through_the_data_source(grafana, run, panel, target):
    query = target | {"expr": filled(target["expr"], run), "intervalMs": 15000, "maxDataPoints": 500}
    body = {"from": str((run.end - RANGE) * 1000), "to": str(run.end * 1000), "queries": [query]}
    answer = grafana.post(f"{GRAFANA}/api/ds/query", json=body, timeout=30)
    assert answer.status_code == 200, answer.text
    result = answer.json()["results"][target["refId"]]
    assert "error" not in result
    if target["refId"] == "A":
        assert any(frame["data"]["values"][0] for frame in result["frames"] if frame["data"]["values"]), panel["title"]


def test_every_rule_is_evaluated_and_the_alert_reaches_the_webhook(lab: Lab, grafana, run):
    def states() -> dict[str, tuple[str, str]]:
        """Health and state of each rule."""
        groups = get(grafana, "/api/prometheus/grafana/api/v1/rules")["data"]["groups"]
        return {rule["name"]: (rule["health"], rule["state"]) for group in groups for rule in group["rules"]}

    def messages() -> list[dict]:
        """Alerts that have arrived."""
        text = lab.on(CONTROLLER, f"for file in {WEBHOOK}/*.json; do cat $file; echo; done", check=False)
        return [alert for line in text.splitlines() for alert in json.loads(line)["alerts"]]

    def arrived() -> bool:
        """Whether the alerts of the run have arrived."""
        return {"Loss is NaN or infinite", "Out of memory", "Traceback"} <= {
            alert["labels"]["alertname"] for alert in messages() if alert["labels"].get("job") == run.job
        }

    assert {rule["title"] for rule in GROUP["rules"]} == set(states())
    wait_for(arrived, "the alerts of the run arrive at the webhook", 180)
    assert {health for health, _ in states().values()} == {"ok"}
    (alert,) = (
        one
        for one in {alert["fingerprint"]: alert for alert in messages()}.values()
        if one["labels"]["alertname"] == "Loss is NaN or infinite" and one["labels"]["job"] == run.job
    )
    assert alert["annotations"]["summary"] == "Loss or gradient of rank 0 on mini1 is NaN or infinite"
    address = alert["annotations"]["dashboard"]
    assert address == f"{GRAFANA}/d/smolcluster-cause?time={(run.end - 100) * 1000}&time.window=60000"


@pytest.mark.usefixtures("grafana")
def test_files_that_somebody_edited_are_kept_and_named(lab: Lab):
    folder = "/opt/smolcluster-logging/grafana"
    lab.on(CONTROLLER, f"echo '{{}}' > {folder}/provisioning/dashboards/rank-detail.json")
    play = lab.deploy("--tags", "docker_loki_grafana")
    text = " ".join(play.output.split())
    assert f"rank-detail.json in {folder}/provisioning was edited since the last run. This run moves it to" in text
    assert lab.on(CONTROLLER, f"cat {folder}/edited/dashboards-*/rank-detail.json") == "{}"
    assert lab.deploy("--tags", "docker_loki_grafana").changed() == 0
    lab.on(CONTROLLER, f"rm -r {folder}/edited")


@pytest.fixture(scope="module")
def browser():
    """Headless Chromium: that of Debian, or that which Playwright has downloaded."""
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    program = shutil.which("chromium")
    if not program:
        engine.apt_install("chromium", "fonts-dejavu-core")
        program = shutil.which("chromium")
    with playwright.sync_playwright() as started:
        running = started.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture(scope="module")
def tab(grafana, browser):
    """A page of the browser, logged in by the form."""
    page = browser.new_page(viewport={"width": 1600, "height": 1000})
    page.goto(f"{GRAFANA}/login")
    assert get(grafana, "/api/health")["database"] == "ok"
    page.fill('input[name="user"]', "admin")
    page.fill('input[name="password"]', PASSWORD)
    page.click('button[type="submit"]')
    page.wait_for_url(lambda url: "/login" not in url)
    page.wait_for_selector("text=Ranks writing now")
    return page


@pytest.mark.parametrize("name", PAGES)
def test_page_shows_data_in_every_panel_and_no_error(tab, run, name):
    page = PAGES[name]
    failures = []
    tab.on("pageerror", lambda error: failures.append(str(error)))
    # As tall as the page, so that every panel is drawn: Grafana draws only what is seen.
    height = 200 + 38 * max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in page["panels"])
    tab.set_viewport_size({"width": 1600, "height": height})
    tab.goto(f"{GRAFANA}/d/{page['uid']}?from={(run.end - 900) * 1000}&to={run.end * 1000}&var-job={run.job}&refresh=")
    for panel in page["panels"]:
        tab.wait_for_selector(f"text={panel['title'].replace('$metric', 'loss')}")
    tab.wait_for_load_state("networkidle")
    tab.wait_for_timeout(1500)
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    tab.screenshot(path=SCREENSHOTS / f"{name}.png")
    text = tab.inner_text("body")
    for unwanted in ("No data", "Panel plugin not found", "An unexpected error happened", "Data is missing"):
        assert unwanted not in text
    assert tab.locator('[aria-label="Panel header error"], [data-testid="data-testid Alert error"]').count() == 0
    assert failures == []
