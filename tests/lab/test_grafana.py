"""A real Grafana, started by the role: what its API says, an alert that arrives, and its pages in a browser."""

from __future__ import annotations

import base64
import json
import shutil
import time
import uuid
from collections.abc import Iterator
from urllib.parse import parse_qs, urlsplit

import pytest
import requests
from playwright.sync_api import sync_playwright

from lab import engine
from lab.config import GRAFANA
from lab.shell import LabError, wait_for
from tests.lab.harness import CONTROLLER, ROOT, Lab, Play
from tests.lab.test_dashboards import GROUP, PAGES, RANGE, filled, record, targets
from tests.lab.training_lines import RANKS, TRACEBACK, Run, controller_lines, failing, health_lines, loss

# Of inventory/lab, and the one that replaces it: with everything that a shell, a URL, YAML or Grafana's own files could
# read as something else.
FIRST = "only-for-the-lab"
NEW = """ü'"\\ $HOME ${x} $$ %(y)s #;: {{ no }} &<*!@/?=+~`|^ """
SIZE = {"width": 1400, "height": 900}
SCREENSHOTS = ROOT / ".cache/screenshots"
WEBHOOK = "/tmp/alerts"
FOLDER = "/opt/smolcluster-logging/grafana"
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
    lab.on(CONTROLLER, f"mkdir -p {WEBHOOK}; rm -f {WEBHOOK}/*; cat > /tmp/receiver.py", data=RECEIVER)
    # One that an interrupted test has left is replaced.
    lab.on(CONTROLLER, "systemctl stop alert-receiver || true")
    lab.on(CONTROLLER, "systemd-run --collect --unit=alert-receiver python3 /tmp/receiver.py")
    address = lab.on(CONTROLLER, "hostname -i").split()[0]
    settings = {
        "docker_loki_grafana_alert_contact_type": "webhook",
        "docker_loki_grafana_alert_contact_address": f"http://{address}:9999/a",
        "docker_loki_grafana_grafana_root_url": f"{GRAFANA}/",
        "docker_loki_grafana_grafana_admin_password": f"{{% raw %}}{NEW}{{% endraw %}}",
    }
    lab.deploy("--tags", "docker_loki_grafana", **settings)
    assert lab.deploy("--tags", "docker_loki_grafana", **settings).changed() == 0
    with requests.Session() as session:
        session.auth = ("admin", NEW.encode())
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
        f"gpt-{uuid.uuid4().hex[:4]}", int(time.time())
    )
    made.say(100, "0", "step:250 | metric:loss | value:nan")
    made.say(90, "1", "RuntimeError: CUDA out of memory. Tried to allocate 2.00 GiB", "ERROR")
    made.push(lab.loki_url)
    record(lab.loki_url, made, (600, "start"), (5, "end"))
    controller_lines(lab.loki_url, f"controller-{made.job}", made.end)
    health_lines(lab.loki_url, f"drops-{made.job}", made.end, dropped_lines={"line_too_long": 5})
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
def test_nobody_gets_in_without_the_new_password():
    assert requests.get(f"{GRAFANA}/api/search", timeout=30).status_code == 401
    assert requests.get(f"{GRAFANA}/api/search", auth=("admin", FIRST), timeout=30).status_code == 401


def test_session_is_for_this_grafana_and_nothing_is_sent_or_fetched(grafana):
    answer = requests.post(f"{GRAFANA}/login", json={"user": "admin", "password": NEW}, timeout=30)
    assert answer.status_code == 200, answer.text
    (cookie,) = (part for part in answer.headers["Set-Cookie"].split(", ") if part.startswith("smolcluster_session="))
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie
    settings = get(grafana, "/api/admin/settings")
    assert settings["analytics"] | {"reporting_enabled": "false", "check_for_updates": "false"} == settings["analytics"]
    assert settings["security"]["disable_gravatar"] == "true"
    assert settings["snapshots"]["external_enabled"] == "false"


@pytest.mark.parametrize(("panel", "target"), targets())
def test_every_panel_gets_an_answer_through_the_data_source(grafana, run, panel, target):
    query = target | {
        "expr": filled(target["expr"], run, node=f"mini.|drops-{run.job}"),
        "intervalMs": 15000,
        "maxDataPoints": 500,
    }
    body = {"from": str((run.end - RANGE) * 1000), "to": str(run.end * 1000), "queries": [query]}
    answer = grafana.post(f"{GRAFANA}/api/ds/query", json=body, timeout=30)
    assert answer.status_code == 200, answer.text
    result = answer.json()["results"][target["refId"]]
    assert "error" not in result
    # Second queries are for formats without levels, and this run has only some kinds of failure.
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


@pytest.fixture(scope="module")
def opened(lab: Lab, grafana) -> Play:  # noqa: ARG001
    """A run that opens Grafana to everybody, after somebody has edited a file of it; the contact of alerts goes."""
    lab.on(CONTROLLER, f"echo '{{}}' > {FOLDER}/provisioning/dashboards/rank-detail.json")
    settings = {
        "docker_loki_grafana_grafana_anonymous": True,
        "docker_loki_grafana_grafana_admin_password": f"{{% raw %}}{NEW}{{% endraw %}}",
    }
    return lab.deploy("--tags", "docker_loki_grafana", **settings)


def test_files_that_somebody_edited_are_kept_and_named(lab: Lab, opened):
    text = " ".join(opened.output.split())
    assert f"rank-detail.json in {FOLDER}/provisioning was edited since the last run. This run moves it to" in text
    assert lab.on(CONTROLLER, f"cat {FOLDER}/edited/dashboards-*/rank-detail.json") == "{}"
    assert (
        json.loads(lab.on(CONTROLLER, f"cat {FOLDER}/provisioning/dashboards/rank-detail.json")) == PAGES["rank-detail"]
    )
    lab.on(CONTROLLER, f"rm -r {FOLDER}/edited")


@pytest.mark.usefixtures("opened")
def test_anonymous_may_look_and_nothing_else():
    with requests.Session() as nobody:
        page = get(nobody, "/api/dashboards/uid/smolcluster-overview")
        assert not page["meta"]["canSave"]
        assert nobody.get(f"{GRAFANA}/api/admin/settings", timeout=30).status_code in (401, 403)
        assert nobody.post(f"{GRAFANA}/api/folders", json={"title": "x"}, timeout=30).status_code in (401, 403)


def test_without_a_contact_no_contact_of_this_collection_is_left(grafana, opened):  # noqa: ARG001
    text = json.dumps(get(grafana, "/api/v1/provisioning/contact-points"))
    assert "smolcluster-contact" not in text
    assert get(grafana, "/api/v1/provisioning/policies")["receiver"] == "grafana-default-email"


@pytest.fixture(scope="module")
def tab(grafana, browser):  # noqa: ARG001
    """A page of headless Chromium, logged in by the form."""
    page = browser.new_page(viewport=SIZE)
    # Parts of Grafana take long to start on a busy machine.
    page.set_default_timeout(120_000)
    page.goto(f"{GRAFANA}/login")
    page.fill('input[name="user"]', "admin")
    page.fill('input[name="password"]', NEW)
    page.click('button[type="submit"]')
    page.wait_for_url(lambda url: "/login" not in url)
    page.wait_for_selector("text=Ranks writing now")
    return page


@pytest.fixture(scope="module")
def browser():
    """Headless Chromium: one that is installed, or Debian's."""
    program = next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chromium-browser"))), None)
    if not program:
        try:
            engine.apt_install("chromium", "fonts-dejavu-core")
        except LabError as error:
            pytest.skip(f"no Chromium here: {error}")
        program = shutil.which("chromium")
    with sync_playwright() as started:
        running = started.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield running
        running.close()


def settle(tab) -> None:
    """Wait until no panel has been loading for two seconds."""
    tab.wait_for_function(
        """() => {
            const busy = document.querySelector('.panel-loading, [aria-label="Panel loading bar"]');
            if (busy || !window.quietSince) window.quietSince = Date.now();
            return Date.now() - window.quietSince > 2000;
        }"""
    )


def picture(tab, name: str) -> None:
    """Save what is seen as a small picture; docs/using.md has some of them."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    shot = tab.context.new_cdp_session(tab).send("Page.captureScreenshot", {"format": "webp", "quality": 70})
    (SCREENSHOTS / f"{name}.webp").write_bytes(base64.b64decode(shot["data"]))


def address(name: str, run: Run) -> str:
    """Address of a page with the lines of a run."""
    around = f"from={(run.end - 660) * 1000}&to={run.end * 1000}"
    choices = {"runs": f"var-run={run.job}", "log-system-health": f"{around}&var-node=drops-{run.job}"}
    # No refresh while the page is looked at.
    return f"{GRAFANA}/d/{PAGES[name]['uid']}?{choices.get(name, f'{around}&var-job={run.job}')}&refresh=1d"


@pytest.mark.parametrize("name", PAGES)
def test_page_shows_data_in_every_panel_and_no_error(tab, run, name):
    page, failures = PAGES[name], []
    tab.on("pageerror", lambda error: failures.append(str(error)))
    tab.set_viewport_size(SIZE)
    tab.goto(address(name, run))
    tab.wait_for_selector(f"text={page['panels'][0]['title']}")
    settle(tab)
    picture(tab, name)
    # As tall as the page, so that every panel is drawn: Grafana draws only what is seen.
    height = 200 + 38 * max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in page["panels"])
    tab.set_viewport_size(SIZE | {"height": height})
    for panel in page["panels"]:
        tab.wait_for_selector(f"text={panel['title'].replace('$metric', 'loss')}")
    settle(tab)
    picture(tab, f"{name}-whole")
    text = tab.inner_text("body")
    empty = {panel["fieldConfig"]["defaults"]["noValue"] for panel in page["panels"]} - {"0", "none", "unknown"}
    for unwanted in (
        "No data",
        "Missing data",
        "Panel plugin not found",
        "An unexpected error",
        "Data is missing",
        "Value #",
        *empty,
    ):
        assert unwanted not in text
    assert tab.locator('.panel-info-corner--error, [data-testid="data-testid Panel status error"]').count() == 0
    assert tab.locator('[data-testid="data-testid Alert error"]').count() == 0
    assert failures == []


def test_loss_over_step_has_a_series_for_each_rank(tab, run):
    tab.set_viewport_size(SIZE)
    tab.goto(address("training-overview", run))
    for rank in (*RANKS, "server"):
        tab.wait_for_selector(f'text="rank {rank}"')


def test_click_on_the_first_error_shows_all_ranks_around_it(tab, run):
    tab.set_viewport_size(SIZE)
    tab.goto(address("root-cause", run))
    with tab.context.expect_page() as opened:
        tab.click('[role="row"]:has-text("ValueError") a')
    # As tall as the page: Grafana draws only what is seen.
    opened.value.set_viewport_size(SIZE | {"height": 3000})
    opened.value.wait_for_selector("text=What every rank said")
    settle(opened.value)
    query = parse_qs(urlsplit(opened.value.url).query)
    opened.value.close()
    moment = (run.end - 120) * 1000
    assert (int(query["from"][0]), int(query["to"][0])) == (moment - 30_000, moment + 30_000)
    text = tab.inner_text("body")
    assert "step:240 | failed" in text
    assert f"step:245 | metric:loss | value:{loss('0', 245):.6f}" in text


def test_click_on_a_run_opens_the_overview_of_its_nodes_and_time(tab, run):
    tab.set_viewport_size(SIZE)
    tab.goto(address("runs", run))
    tab.click(f'a:has-text("{run.job}")')
    tab.wait_for_selector("text=Ranks writing now")
    query = parse_qs(urlsplit(tab.url).query)
    assert query["var-node"] == ["mini1", "mini2", "mini3"]
    assert (query["from"], query["to"]) == ([str((run.end - 600) * 1000)], [str((run.end - 5) * 1000)])


def test_dashboards_and_rules_go_when_they_are_switched_off(lab: Lab, grafana):
    password = f"{{% raw %}}{NEW}{{% endraw %}}"
    settings = {"docker_loki_grafana_dashboards": False, "docker_loki_grafana_grafana_admin_password": password}
    lab.deploy("--tags", "docker_loki_grafana", **settings)
    assert get(grafana, "/api/search?type=dash-db") == []
    assert get(grafana, "/api/prometheus/grafana/api/v1/rules")["data"]["groups"] == []
