"""How verify.yml writes its lines, follows them, and finds the cause when some are missing."""

from __future__ import annotations

import json
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from ansible_collections.smolcluster.logging.plugins.module_utils import host, loki
from ansible_collections.smolcluster.logging.plugins.module_utils.service import State
from ansible_collections.smolcluster.logging.plugins.modules import promtail_delivery

SAMPLE = "%(asctime)s | %(levelname)s | rank:verify | %(message)s"


@pytest.fixture
def node(monkeypatch, tmp_path):
    """A node whose agent and Loki are stand-ins: Loki shows what is in the file, as the node says."""
    node = SimpleNamespace(
        phase="running", pid=1, journal="", skew=0.1, delivers=True, follows=True, refuses=False, off=0.0
    )
    folder = tmp_path / "deep" / "logs"

    class Service:
        def __init__(self, *_):
            pass

        words_command = "journalctl -u promtail"

        def state(self):
            return State(node.phase, node.pid)

        def journal(self, *_):
            return node.journal

    def skew(url):
        if node.skew is None:
            raise loki.LokiError(f"{url} does not answer: refused")
        return node.skew

    def streams(*_):
        if not node.delivers:
            return []
        lines = next(folder.glob("worker-*.log")).read_text().splitlines()
        moment = time.time() + node.off
        return [{"stream": {"rank": "verify"}, "values": [[str(int(moment * loki.SECOND)), line] for line in lines]}]

    def open_(*_, **__):
        if node.refuses:
            raise loki.NoAnswerError("does not answer on port 9080")
        name = next(folder.glob("*.log"), Path("none")) if node.follows else "other"
        return loki.Answer(200, {}, f'promtail_read_bytes_total{{path="{name}"}} 1\n')

    monkeypatch.setattr(host, "manager", Service)
    monkeypatch.setattr(loki, "ask", open_)
    monkeypatch.setattr(loki, "skew", skew)
    monkeypatch.setattr(loki, "streams", streams)

    def probe(**params):
        defaults = {
            "loki_url": "http://192.0.2.10:3100",
            "http_port": 9080,
            "systems": {"Linux": {"service": "promtail"}},
            "path": f"{folder}/worker-*.log",
            "sample": SAMPLE,
            "lines": 4,
            "timeout": 0.3 if not node.delivers else 10,
            "zone": "Local",
        }
        return promtail_delivery.Probe(SimpleNamespace(params=defaults | params, run_command=None))

    node.probe, node.folder = probe, folder
    return node


def test_all_lines_arrive_and_nothing_is_left(node):
    result = node.probe().run()
    assert (result["written"], result["delivered"], result["cause"]) == (4, 4, "")
    assert result["labels"] == {"rank": "verify"}
    assert set(result["latency"]) == {"p50", "p99", "max"}
    assert abs(result["time_error"]) < 1
    assert not node.folder.parent.exists()
    json.dumps(result)


def test_folder_that_was_there_stays(node):
    node.folder.parent.mkdir()
    node.probe().run()
    assert list(node.folder.parent.iterdir()) == []


def test_file_of_training_is_not_removed(node):
    node.folder.mkdir(parents=True)
    (node.folder / "worker-1.log").write_text("a line of training\n")
    node.probe(path=f"{node.folder}/worker-1.log", lines=1).run()
    assert (node.folder / "worker-1.log").read_text().startswith("a line of training\n")


def test_times_of_another_zone_are_named(node):
    node.off = -5.5 * 3600
    assert "for another zone. Set promtail_timezone" in node.probe().run()["cause"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"pid": 0}, "the agent does not run"),
        ({"pid": 0, "phase": "absent"}, "the agent is not installed"),
        ({"refuses": True}, "does not answer on port 9080"),
        ({"follows": False}, "promtail_sources on this node do not match it"),
        ({"follows": False, "journal": "open /srv/a.log: permission denied"}, "/srv/a.log: permission denied"),
        ({"follows": False, "journal": "open a.log: operation not permitted"}, "a.log: operation not permitted"),
        ({"skew": 7200.0}, "clock is 7200 s ahead of Loki's"),
        ({"journal": 'level=error msg="final error sending batch" error="400: too new"'}, "400: too new"),
        ({}, "Loki does not show them"),
        ({"skew": None}, "this node cannot ask Loki"),
    ],
)
def test_cause_of_missing_lines(node, change, words):
    vars(node).update({"delivers": False} | change)
    result = node.probe().run()
    assert words in result["cause"]
    assert result["delivered"] == 0
    assert not node.folder.exists()


def test_check_mode_writes_nothing(node):
    node.follows = False
    assert node.probe().look_only() == {
        "changed": False,
        "written": 0,
        "delivered": 0,
        "labels": {},
        "cause": "",
        "clock_skew": 0.1,
    }
    node.pid = 0
    assert "does not run" in node.probe().look_only()["cause"]
    assert not node.folder.parent.exists()
