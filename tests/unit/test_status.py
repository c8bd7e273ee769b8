"""What the status says of a node, from what its agent, its journal and Loki say, and how the table shows it."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from ansible_collections.smolcluster.logging.plugins.module_utils import deployed, host, loki, status, watch
from ansible_collections.smolcluster.logging.plugins.module_utils.agents.registry import AGENTS
from ansible_collections.smolcluster.logging.plugins.module_utils.layout import layout_of
from ansible_collections.smolcluster.logging.plugins.module_utils.metrics import Metrics
from ansible_collections.smolcluster.logging.plugins.module_utils.services.base import ServiceState
from ansible_collections.smolcluster.logging.plugins.module_utils.services.systemd import Systemd

TABLE = Path(__file__).resolve().parents[2] / "roles/agent/templates/status.txt.j2"

# As Promtail 3.6.15 gives them, other metrics left out.
METRICS = """
# HELP promtail_build_info A metric with a constant '1' value
# TYPE promtail_build_info gauge
promtail_build_info{branch="",goarch="amd64",goos="linux",goversion="go1.26.8",revision="unknown",version="3.6.15"} 1
promtail_batch_retries_total{host="controller:3100",tenant=""} %(retried)d
promtail_dropped_entries_total{host="controller:3100",reason="ingester_error",tenant=""} %(dropped)d
promtail_dropped_entries_total{host="controller:3100",reason="line_too_long",tenant=""} %(too_long)d
promtail_mutated_entries_total{host="controller:3100",reason="line_too_long",tenant=""} %(cut)d
promtail_sent_entries_total{host="controller:3100"} %(sent)d
"""
REFUSED = (
    'level=error ts=2026-11-23T22:40:59Z caller=client.go:430 msg="final error sending batch" status=400 '
    'error="server returned HTTP status 400 Bad Request (400): entry for stream has %s"'
)
RETRIED = (
    'level=warn ts=2026-11-23T22:40:59Z caller=client.go:419 msg="error sending batch, will retry" status=-1 tenant= '
    'error="Post \\"http://controller:3100/loki/api/v1/push\\": dial tcp: connection refused"'
)


@pytest.fixture
def node(monkeypatch):
    """A healthy node, and how to break it."""
    counters = {"sent": 12345, "retried": 0, "dropped": 0, "too_long": 0, "cut": 0}
    node = SimpleNamespace(
        pid=os.getpid(), active_state="running", age=3600.0, journal="",
        answers=True, later={}, skew=0.1, lines=True, loki=None, others={}, report=watch.Report(count=3, backlog=500),
        **counters,
    )  # fmt: skip
    clock = SimpleNamespace(now=0.0)

    class Service(Systemd):
        @classmethod
        def services_of(cls, *_):
            return []

        def state(self):
            return ServiceState(active_state=node.active_state, pid=node.pid)

        def processes(self):
            return [node.pid, *(pid for pid, unit in node.others.items() if unit == "promtail.service")]

        def journal(self, *_):
            return node.journal

    def ask(address, **_):
        if not node.answers:
            raise loki.NoAnswerError(f"{address} does not answer: Connection refused")
        text = METRICS % {name: getattr(node, name) for name in counters}
        vars(node).update(node.later)
        return loki.Answer(200, {}, text)

    def skew(url):
        if node.loki:
            raise node.loki
        if node.skew is None:
            raise loki.LokiError(f"{url} does not answer: refused")
        return node.skew

    def streams(_, query, *__):
        assert query == '{node="mini1", job!="smolcluster-health"}'
        return [{"values": [[str(time.time_ns() - 5 * loki.SECOND), "line"]]}] if node.lines else []

    def sleep(seconds):
        clock.now += seconds

    monkeypatch.setattr(watch, "report", lambda _: node.report)
    monkeypatch.setattr(host, "Service", Service)
    times = SimpleNamespace(time=time.time, time_ns=time.time_ns, monotonic=lambda: clock.now, sleep=sleep)
    monkeypatch.setattr(status, "time", times)
    monkeypatch.setattr(loki, "ask", ask)
    monkeypatch.setattr(loki, "skew", skew)
    monkeypatch.setattr(loki, "streams", streams)
    monkeypatch.setattr(host.system, "age", lambda _: node.age)
    monkeypatch.setattr(host, "processes_of", lambda _: [node.pid, *node.others])
    monkeypatch.setattr(host.system, "command_line", lambda pid: ["/home/me/promtail", f"-config.file={pid}.yaml"])

    def gather(url="http://192.0.2.10:3100"):
        params = {
            "loki_url": url,
            "http_port": 9080,
            "node": "mini1",
            "agent": "promtail",
            "sources": [],
        }
        return status.Status(SimpleNamespace(params=params, run_command=None)).gather()

    node.gather = gather
    node.waited = lambda: clock.now
    return node


def test_healthy_node(node):
    result = node.gather()
    assert result["problems"] == []
    assert result["status"].pop("last_line") == pytest.approx(5, abs=0.5)
    assert result["status"] == {
        "running": True,
        "version": "3.6.15",
        "uptime": 3600,
        "sent": 12345,
        "retried": 0,
        "dropped": {},
        "cut": 0,
        "files": 3,
        "backlog": 500,
        "clock_skew": 0.1,
        "others": [],
        "notes": [],
    }


@pytest.mark.parametrize(
    ("phase", "journal", "words"),
    [
        ("absent", "", "not installed. `ansible-playbook site.yml --tags"),
        ("stopped", "", "was stopped. `systemctl start promtail` on the node"),
        (
            "starting",
            'level=error msg="address in use"\nlevel=error msg="context canceled"\nStopped promtail.service.\n'
            "promtail.service: Failed with result 'exit-code'.",
            'fails to start (level=error msg="address in use"). If this continues, `ansible-playbook site.yml',
        ),
        (
            "starting",
            "Started promtail.service - Promtail.\nno such library\npromtail.service: Failed with result 'exit-code'.",
            "fails to start (no such library)",
        ),
        (
            "starting",
            "",
            "fails to start. If this continues, `ansible-playbook site.yml",
        ),
        (
            "failed",
            "level=error msg=\"old\"\npromtail.service: Failed with result 'timeout'.\nStopped promtail.service.",
            "killed, or failed (promtail.service: Failed with result 'timeout'.). `systemctl start promtail`",
        ),
    ],
)
def test_agent_that_does_not_run(node, phase, journal, words):
    node.pid, node.active_state, node.journal = 0, phase, journal
    result = node.gather()
    assert result["problems"][0].startswith("the agent does not run: it ")
    assert words in result["problems"][0]
    assert result["status"]["running"] is False
    assert result["status"]["version"] is None


@pytest.mark.parametrize(
    ("said", "phase"),
    [
        ("LoadState=not-found\nActiveState=inactive\nMainPID=0", "absent"),
        ("LoadState=loaded\nActiveState=inactive\nMainPID=0", "stopped"),
        ("LoadState=loaded\nActiveState=activating\nMainPID=0", "starting"),
        ("LoadState=loaded\nActiveState=active\nMainPID=0", "starting"),
        ("LoadState=loaded\nActiveState=failed\nMainPID=0", "failed"),
        ("LoadState=loaded\nActiveState=active\nMainPID=7\nUnitFileState=enabled\nNRestarts=2", "running"),
    ],
)
def test_phases_of_systemd(monkeypatch, said, phase):
    monkeypatch.setattr(Systemd, "present", lambda *_: True)
    state = Systemd(lambda _: (0, said, ""), "promtail").state()
    assert state.active_state == phase
    assert (state.pid, state.enabled, state.restarts) == ((7, True, 2) if phase == "running" else (0, False, 0))


def test_node_without_systemd_has_no_service(monkeypatch):
    monkeypatch.setattr(Systemd, "present", lambda *_: False)
    assert Systemd(None, "promtail").state() == ServiceState(active_state="absent")


def test_agent_that_does_not_answer(node):
    node.answers = False
    (problem,) = node.gather()["problems"]
    assert problem.startswith("the agent runs, but http://127.0.0.1:9080/metrics does not answer: Connection refused")
    assert "systemctl restart promtail" in problem
    assert node.waited() == 0
    node.age = 1.0  # it is just starting
    node.gather()
    assert 3 <= node.waited() < 5


def test_dropped_lines_with_lokis_own_words(node):
    node.dropped, node.journal = 7, REFUSED % "timestamp too new: 2026-11-24"
    (problem,) = node.gather()["problems"]
    for words in ("7 lines", "ingester_error", "timestamp too new: 2026-11-24", "promtail_timezone", "promtail_clean"):
        assert words in problem


def test_dropped_lines_without_words(node):
    node.dropped = 7
    assert "rejected at least one batch (7 lines, ingester_error). What to do: " in node.gather()["problems"][0]


def test_lines_read_again_are_told_from_loss(node):
    node.dropped, node.journal = 7, REFUSED % "entry too far behind"
    assert "after a crash this is harmless" in node.gather()["problems"][0]


def test_lines_that_are_too_long(node):
    node.too_long = 2
    (problem,) = node.gather()["problems"]
    assert problem.startswith("2 lines were dropped (line_too_long): they are longer")


def test_notes_are_no_problems(node):
    node.report, node.cut, node.lines = watch.Report(), 4, False
    result = node.gather()
    assert result["problems"] == []
    assert result["status"]["last_line"] is None
    assert any("no file is followed" in note for note in result["status"]["notes"])
    assert any("4 lines were too long and were truncated" in note for note in result["status"]["notes"])


def test_retries_without_loki_are_told_at_once(node):
    node.retried, node.journal, node.skew = 3, RETRIED, None
    problems = node.gather()["problems"]
    assert "cannot query Loki" in problems[0]
    assert (
        'cannot deliver and retries: Post "http://controller:3100/loki/api/v1/push": dial tcp: connection refused'
        in problems[1]
    )
    assert node.waited() == 0


def test_retries_that_go_on_are_told_and_those_that_are_over_are_not(node):
    node.retried, node.journal, node.later = 3, RETRIED, {"retried": 4}
    assert "cannot deliver and retries" in node.gather()["problems"][0]
    node.later = {"sent": 12346}
    assert node.gather()["problems"] == []
    node.later, before = {}, node.waited()  # nothing more to send
    assert node.gather()["problems"] == []
    assert node.waited() - before == pytest.approx(status.RETRY, abs=0.5)


def test_retries_of_long_ago_cost_no_time(node):
    node.retried = 3
    assert node.gather()["problems"] == []
    assert node.waited() == 0


@pytest.mark.parametrize("error", [loki.NotLokiError("it is not Loki"), loki.LokiError("it refuses (503)")])
def test_whatever_answers_instead_of_loki_is_a_problem_and_no_failure(node, error):
    node.loki = error
    assert "cannot query Loki" in node.gather()["problems"][0]


def test_password_of_the_address_is_not_shown(node):
    node.skew = None
    (problem,) = node.gather("http://me:secret@192.0.2.10:3100")["problems"]
    assert "http://***@192.0.2.10:3100 does not answer" in problem
    assert "secret" not in problem


@pytest.mark.parametrize(
    ("skew", "words"),
    [(1.2, ""), (-90.0, "is 90 s behind Loki's. Set it"), (7000.0, "is 7000 s ahead of Loki's, which may refuse")],
)
def test_clock(node, skew, words):
    node.skew = skew
    problems = node.gather()["problems"]
    assert (words in problems[0]) if words else problems == []


def test_another_promtail_is_told_and_the_service_itself_is_not(node):
    node.others = {7: "promtail.service"}
    assert node.gather()["problems"] == []
    node.others = {7: "promtail.service", 8: None, 9: "loki-agent.service"}
    result = node.gather()
    assert "another Promtail runs here: /home/me/promtail -config.file=8.yaml, " in result["problems"][0]
    assert "promtail_adopt=true" in result["problems"][0]
    assert len(result["status"]["others"]) == 2


def test_state_that_cannot_be_kept(node):
    node.report = watch.Report(unsaved="No space left on device")
    (problem,) = node.gather()["problems"]
    assert problem.startswith(
        "the watcher cannot save in /var/lib/promtail how far it has read: No space left on device. Until"
    )


def test_missing_report_is_a_problem(node):
    node.report = None
    assert node.gather()["problems"][0].startswith(
        "there is no usable report of the log files in /run/promtail/watch.json"
    )


def test_files_that_are_not_shipped_are_named(node):
    refused = {f"/srv/{number}.log": "a link that leads nowhere" for number in range(7)}
    node.report = watch.Report(1, 0, refused=refused, left_out={"/srv/bar.log": 9 << 20})
    result = node.gather()
    assert result["problems"] == []
    assert result["status"]["notes"] == [
        "not shipped: "
        + ", ".join(f"/srv/{number}.log (a link that leads nowhere)" for number in range(5))
        + " and 2 more",
        "lines of more than 8 MiB, of which only the end was shipped: /srv/bar.log (9437184 bytes)",
    ]


def test_equal_entries_are_named_with_their_number(node):
    node.report = watch.Report(1, 0, equal={"/srv/a.log": 3})
    (note,) = node.gather()["status"]["notes"]
    assert note == (
        "entries that are equal to another one of their file, with the same time, since the agent's start; Loki keeps "
        "one of them: /srv/a.log (3)"
    )


def test_metrics_with_escaped_labels():
    metrics = Metrics('a{path="C:\\\\x \\"y\\"\\n"} 1\na{path="b, c=\\"}\\" 3"} 2 1700000000000\nbroken line\nb +Inf\n')
    assert metrics.by("a", "path") == {'C:\\x "y"\n': 1, 'b, c="}" 3': 2}
    assert metrics.total("a") == 3
    assert metrics.total("b") == float("inf")
    assert metrics.total("none") == 0


def test_age_of_a_process():
    assert 0 <= host.system.age(os.getpid()) < 100_000
    assert host.system.age(2**22 + 1) is None


def table(**nodes: dict) -> list[str]:
    """Lines of the table for results of the module by node."""
    variables = {
        "ansible_play_hosts_all": list(nodes),
        "hostvars": {name: {"__agent_status": found} if found else {} for name, found in nodes.items()},
    }
    text = Templar(loader=DataLoader(), variables=variables).template(trust_as_template(TABLE.read_text()))
    return text.splitlines()


def test_what_is_deployed_counts_only_if_the_service_runs_it_and_starts_at_boot(tmp_path, monkeypatch):
    layout = dataclasses.replace(
        layout_of("promtail", "Linux"), home=str(tmp_path / "opt"), unit_file=str(tmp_path / "unit")
    )
    program = tmp_path / "opt" / "3.6.11" / "promtail"
    program.parent.mkdir(parents=True)
    program.touch()
    (tmp_path / "unit").write_text("Environment=SMOLCLUSTER_DEPLOYMENT=ab12")
    monkeypatch.setattr(deployed.foreign_agents, "running", lambda *_: [])
    monkeypatch.setattr(host.system, "executable", lambda pid: str(program) if pid else None)
    state = ServiceState(active_state="running", pid=7, enabled=True)

    def look(version="3.6.11", **changed):
        service = SimpleNamespace(
            state=lambda: dataclasses.replace(state, **changed), environment=lambda: {"SMOLCLUSTER_DEPLOYMENT": "ab12"}
        )
        return deployed.look(AGENTS["promtail"], layout, version, None, service)

    unit = str(tmp_path / "unit")
    assert look()["files"] == {unit: hashlib.sha256(b"Environment=SMOLCLUSTER_DEPLOYMENT=digest").hexdigest()}
    assert look()["node"]["layout"]["home"] == str(tmp_path / "opt")
    assert [look(pid=0)["files"], look(enabled=False)["files"], look("3.5.6")["files"]] == [{}, {}, {}]
    (tmp_path / "unit").write_text("Environment=SMOLCLUSTER_DEPLOYMENT=cd34")
    assert look()["files"] == {}, "it was started with another definition"


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (None, "-"),
        (0, "0s"),
        (59, "59s"),
        (720, "12m"),
        (7260, "2h 1m"),
        (86400, "1d 0h"),
        (3 * 86400 + 4 * 3600, "3d 4h"),
    ],
)
def test_uptime_as_people_read_it(seconds, shown):
    _, row = table(mini1={"status": {"uptime": seconds, "running": True, "version": "3.6.15"}})
    assert row.split("runs")[1].strip().startswith(f"{shown} ")


def test_table_shows_a_node_and_what_is_wrong_below(node):
    node.retried, node.cut, node.dropped, node.skew = 3, 2, 7, -90.0
    head, row, *below = table(mini1=node.gather())
    assert row.split() == "mini1 3.6.15 runs 1h 0m 12345 3 7 2 3 500 B 5s -90.0 s".split()
    assert len(head) == len(row)
    assert ["clock" in below[0], "ingester_error" in below[1], "note: 2 lines" in below[2]] == [True] * 3
    assert all(line.startswith(" " * 13) for line in below)


def test_table_survives_whatever_is_missing():
    lines = table(**{"mini1": {}, "a-node-with-a-long-name": {"status": {}}, "mini3": {"problems": ["it is off"]}})
    assert lines[1] == "mini1: not reached"
    assert lines[2].split() == ["a-node-with-a-long-name", "-", "stopped", *["-"] * 9]
    assert len(lines[2]) == len(lines[0])
    assert lines[3:] == ["mini3: not reached", f"{' ' * 13}it is off"]


def test_lines_of_the_future_and_big_backlogs_are_shown():
    _, row = table(mini1={"status": {"last_line": -3660.0, "backlog": 5 * 1024**2}})
    assert "-1h 1m" in row
    assert "5.00 MB" in row
