"""Health lines of a node: what is measured, how it is written."""

from __future__ import annotations

import email.utils
import http.server
import json
import os
import threading
import time
from datetime import datetime, timedelta

import health
import pytest
from ansible_collections.smolcluster.logging.plugins.module_utils.agents.registry import AGENTS

METRICS = AGENTS["promtail"].METRICS
# As Promtail 3.6 writes them, shortened.
TEXT = """\
# HELP promtail_sent_entries_total Number of log entries sent to the ingester.
promtail_build_info{branch="",goarch="amd64",version="3.6.15"} 1
promtail_sent_entries_total{host="127.0.0.1:3100"} 1.5e+06
promtail_sent_entries_total{host="other:3100"} 2
promtail_sent_bytes_total{host="127.0.0.1:3100"} 1e+09
promtail_dropped_entries_total{host="a",reason="line_too_long",tenant=""} 0
promtail_dropped_entries_total{host="a",reason="ingester_error",tenant=""} 7
promtail_batch_retries_total{host="a",tenant=""} 3
promtail_batch_retries_total_other 9
"""


@pytest.fixture
def server():
    """A web server: answers of the agent, and of a Loki whose clock is `ahead` seconds ahead of this one's."""

    class Handler(http.server.BaseHTTPRequestHandler):
        ahead, text, status = 0.0, TEXT, 200

        def do_GET(self):
            self.send_response(self.status)
            self.end_headers()
            self.wfile.write(self.text.encode())

        def date_time_string(self, *_):
            return email.utils.formatdate(time.time() + Handler.ahead, usegmt=True)

        def log_message(self, *_):
            pass

    served = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=served.serve_forever, daemon=True).start()
    Handler.port = served.server_port
    yield Handler
    served.shutdown()
    served.server_close()


def writer(server, folder) -> health.Health:
    settings = {
        "agent": "promtail",
        "path": str(folder / "health.log"),
        "metrics": METRICS,
        "loki_url": f"http://127.0.0.1:{server.port}",
    }
    return health.Health(settings, server.port, [str(folder)])


def test_line_has_what_the_agent_counts(server, tmp_path):
    found = writer(server, tmp_path).fields(files=4, lag=100)
    assert found.pop("disk_size_bytes") >= found.pop("disk_free_bytes") > 0
    assert abs(datetime.fromisoformat(found.pop("time")).timestamp() - time.time()) < 60
    found.pop("oom_kills")
    assert found == {
        "agent": "promtail",
        "version": "3.6.15",
        "sent_lines": 1500002,
        "sent_bytes": 10**9,
        "dropped_lines": {"line_too_long": 0, "ingester_error": 7},
        "retries": 3,
        "lag_bytes": 100,
        "files": 4,
        "clock_offset_seconds": 0.0,
        "oom_last": None,
    }


def test_what_cannot_be_known_is_null(server, tmp_path):
    one = writer(server, tmp_path)
    one.port, one.settings["loki_url"], one.folders = 9, "http://127.0.0.1:9", ["/does/not/exist"]
    found = one.fields(0, 0)
    assert {found[field] for field in (*METRICS, "clock_offset_seconds", "disk_free_bytes", "disk_size_bytes")} == {
        None
    }


@pytest.mark.parametrize(("ahead", "least", "most"), [(-5, 4, 5), (5, -5, -4), (0.2, 0, 0)])
@pytest.mark.parametrize("status", [200, 401])
def test_offset_of_the_clock_is_what_is_certain(server, ahead, least, most, status):
    server.ahead, server.status = ahead, status
    assert least <= health.clock_offset(f"http://127.0.0.1:{server.port}") <= most


def test_answer_without_a_date_tells_nothing_of_the_clock(server):
    server.date_time_string = lambda *_: "yesterday"
    assert health.clock_offset(f"http://127.0.0.1:{server.port}") is None


def test_kills_of_all_cgroups_are_counted(tmp_path):
    for name, kills in (("system.slice", 2), ("user.slice", 1)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "memory.events").write_text(f"low 0\noom 9\noom_kill {kills}\noom_group_kill 0\n")
    (tmp_path / "init.scope").mkdir()
    assert health.oom_kills(tmp_path) == 3


def test_kernel_without_counts_of_kills(tmp_path):
    assert health.oom_kills(tmp_path) is None


def test_message_of_the_kernel_is_looked_up_only_after_a_kill(server, tmp_path, monkeypatch):
    program = tmp_path / "journalctl"
    program.write_text(
        f"#!/bin/sh\necho \"$*\" >> {tmp_path}/asked\necho 'Out of memory:  Killed process 12 (python3)'\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    kills = iter([2, 2, 3, 3])
    monkeypatch.setattr(health, "oom_kills", lambda: next(kills))
    one = writer(server, tmp_path)
    assert [one.fields(0, 0)["oom_last"] for _ in range(3)] == [
        None,
        "Out of memory: Killed process 12 (python3)",
        None,
    ]
    (asked,) = (tmp_path / "asked").read_text().splitlines()
    assert "_TRANSPORT=kernel" in asked


def test_log_is_rotated_and_stays_small(tmp_path):
    path = tmp_path / "health.log"
    for number in range(200):
        health.append(path, f"{number:03d}" + "x" * 500)
    old = tmp_path / "health.log.1"
    numbers = [int(line[:3]) for line in (old.read_text() + path.read_text()).splitlines()]
    assert numbers == list(range(numbers[0], 200))
    assert {file.name for file in tmp_path.iterdir()} == {"health.log", "health.log.1"}
    assert all(file.stat().st_size < health.LARGEST + 1000 for file in (path, old))


def test_all_lines_of_the_log_are_new_enough_for_loki(server, tmp_path):
    """Loki refuses lines that are more than an hour older than the newest line of their stream."""
    one = writer(server, tmp_path)
    one.port, one.settings["loki_url"], one.folders = 9, "http://127.0.0.1:9", []
    line = len(json.dumps(one.fields(0, 0)))  # the shortest that there is
    assert 2 * (health.LARGEST / line + 1) * timedelta(seconds=health.PERIOD) < timedelta(hours=1)


def test_link_is_not_followed(tmp_path):
    (tmp_path / "health.log").symlink_to(tmp_path / "other")
    with pytest.raises(OSError, match="symbolic links"):
        health.append(tmp_path / "health.log", "x")


def test_line_comes_when_it_is_due_and_the_last_one_is_done(server, tmp_path, monkeypatch):
    one = writer(server, tmp_path)
    gate = threading.Event()
    lines = []
    monkeypatch.setattr(one, "fields", lambda files, _lag: (gate.wait(10), {"files": files})[1])
    monkeypatch.setattr(health, "append", lambda _path, line: lines.append(json.loads(line)["files"]))
    now = time.monotonic()
    for seconds, files in ((0, 1), (6, 2), (67, 3)):
        monkeypatch.setattr(health.time, "monotonic", lambda seconds=seconds: now + seconds)
        one.tick(files, 0)
    gate.set()
    one._thread.join(10)
    one.tick(4, 0)
    one._thread.join(10)
    assert lines == [2, 4]
