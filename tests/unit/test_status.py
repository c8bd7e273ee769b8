"""What the status says of a node, from what its agent, its journal and Loki say."""

from __future__ import annotations

import os
import time
from types import SimpleNamespace

import pytest
from ansible_collections.smolcluster.logging.plugins.module_utils import linux, loki
from ansible_collections.smolcluster.logging.plugins.module_utils.metrics import Metrics
from ansible_collections.smolcluster.logging.plugins.modules import promtail_status

# As Promtail 3.6.15 gives them, other metrics left out.
METRICS = """
# HELP promtail_build_info A metric with a constant '1' value
# TYPE promtail_build_info gauge
promtail_build_info{branch="",goarch="amd64",goos="linux",goversion="go1.26.8",revision="unknown",version="3.6.15"} 1
promtail_batch_retries_total{host="controller:3100",tenant=""} 0
promtail_dropped_entries_total{host="controller:3100",reason="ingester_error",tenant=""} %(dropped)d
promtail_dropped_entries_total{host="controller:3100",reason="line_too_long",tenant=""} 0
promtail_file_bytes_total{path="/tmp/smolcluster-logs/worker-rank0-mini1.log"} 1.28e+06
promtail_file_bytes_total{path="/srv/a \\"quoted\\" name.log"} 700
promtail_files_active_total 2
promtail_mutated_entries_total{host="controller:3100",reason="line_too_long",tenant=""} 3
promtail_read_bytes_total{path="/tmp/smolcluster-logs/worker-rank0-mini1.log"} 1.28e+06
promtail_read_bytes_total{path="/srv/a \\"quoted\\" name.log"} 200
promtail_sent_entries_total{host="controller:3100"} 12345
"""
REFUSED = (
    'level=error ts=2026-11-23T22:40:59Z caller=client.go:430 msg="final error sending batch" status=400 '
    'error="server returned HTTP status 400 Bad Request (400): entry for stream has %s"'
)


@pytest.fixture
def node(monkeypatch, tmp_path):
    """A healthy node, and how to make it unwell."""
    node = SimpleNamespace(
        pid=os.getpid(), dropped=0, journal="", skew=0.1, age=3600.0, positions=tmp_path / "positions.yaml", others=[]
    )
    node.positions.write_text("positions: {}\n")

    class Answer:
        def __enter__(self):
            return self

        def __exit__(self, *_):
            return False

        def read(self):
            return (METRICS % {"dropped": node.dropped}).encode()

    class Service:
        def __init__(self, *_):
            pass

        def pid(self):
            return node.pid

        def journal(self, *_):
            return node.journal

    def skew(url):
        if node.skew is None:
            raise loki.LokiError(f"{url} does not answer: refused")
        return node.skew

    monkeypatch.setattr(promtail_status, "Systemd", Service)
    monkeypatch.setattr(loki, "DIRECT", SimpleNamespace(open=lambda *_, **__: Answer()))
    monkeypatch.setattr(loki, "skew", skew)
    monkeypatch.setattr(loki, "streams", lambda *_: [{"values": [[str(time.time_ns() - 5 * loki.SECOND), "line"]]}])
    monkeypatch.setattr(linux, "age", lambda _: node.age)
    monkeypatch.setattr(linux, "processes_of", lambda _: [node.pid, *node.others])

    def gather():
        params = {
            "loki_url": "http://192.0.2.10:3100",
            "http_port": 9080,
            "node": "mini1",
            "positions_file": str(node.positions),
            "service": "promtail",
        }
        return promtail_status.Status(SimpleNamespace(params=params, run_command=None)).gather()

    node.gather = gather
    return node


def test_healthy_node(node):
    result = node.gather()
    assert result["problems"] == []
    assert result["status"].pop("last_line") == pytest.approx(5, abs=0.5)
    assert result["status"] == {
        "running": True,
        "version": "3.6.15",
        "uptime": 3600.0,
        "sent": 12345,
        "retried": 0,
        "dropped": {},
        "cut": 3,
        "files": 2,
        "backlog": 500,
        "clock_skew": 0.1,
        "others": [],
    }


def test_agent_that_does_not_run(node):
    node.pid, node.journal = 0, "promtail.service: Failed with result 'exit-code'."
    result = node.gather()
    assert "the agent does not run (promtail.service: Failed with result 'exit-code'.)" in result["problems"][0]
    assert "--tags promtail" in result["problems"][0]
    assert result["status"]["version"] is None


def test_dropped_lines_with_lokis_own_words(node):
    node.dropped, node.journal = 7, REFUSED % "timestamp too new: 2026-11-24"
    (problem,) = node.gather()["problems"]
    assert "7 lines" in problem
    assert "ingester_error" in problem
    assert "timestamp too new: 2026-11-24" in problem


def test_lines_read_again_are_told_from_loss(node):
    node.dropped, node.journal = 7, REFUSED % "entry too far behind"
    assert "refused so, harmlessly" in node.gather()["problems"][0]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"skew": None}, "cannot ask Loki"),
        ({"skew": -90.0}, "clock is -90 s off"),
        ({"others": [1]}, "another Promtail runs here"),
    ],
)
def test_further_problems(node, change, words):
    vars(node).update(change)
    assert words in node.gather()["problems"][0]


def test_positions_that_are_not_saved(node):
    os.utime(node.positions, (0, 0))
    assert "was not saved" in node.gather()["problems"][0]
    node.age = 5.0  # not yet
    assert node.gather()["problems"] == []


def test_metrics_with_escaped_labels():
    metrics = Metrics('a{path="C:\\\\x \\"y\\"\\n"} 1\na{path="b"} 2\nbroken line\n')
    assert metrics.by("a", "path") == {'C:\\x "y"\n': 1, "b": 2}
    assert metrics.total("a") == 3
    assert metrics.total("none") == 0


def test_age_of_a_process():
    assert 0 <= linux.age(os.getpid()) < 100_000
    assert linux.age(2**22 + 1) is None
