"""Health lines of the controller, and the limit of Loki's store."""

from __future__ import annotations

import base64
import http.server
import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import loki_health
import pytest
import yaml
from ansible_collections.smolcluster.logging.plugins.module_utils import health_lines

ROOT = Path(__file__).resolve().parents[2]
NOW = 1_800_000_000.0
# As Loki 3.7.8 writes them, shortened.
TEXT = """\
loki_build_info{branch="",goarch="amd64",goos="linux",goversion="go1.26.8",revision="unknown",version="3.7.8"} 1
loki_distributor_bytes_received_total{format="loki",policy="",retention_hours="720",tenant="fake"} 2097
loki_distributor_lines_received_total{format="loki",is_internal_stream="false",policy="",tenant="fake"} 6
loki_discarded_samples_total{policy="",reason="greater_than_max_sample_age",retention_hours="720",tenant="fake"} 4
process_resident_memory_bytes 1.4710784e+08
process_cpu_seconds_total 2.36
"""


def chunk(folder: Path, age: float, size: int = 100_000, now: float = NOW) -> Path:
    """A file with the name that Loki gives a chunk.

    Parameters:
        folder: folder of a stream.
        age: hours since its last line.
        size: its size in bytes.
        now: seconds since 1970.
    """
    last = int((now - age * 3600) * 1000)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / base64.b64encode(f"{last - 1000:x}:{last:x}:{int(age * 60):x}".encode()).decode()
    path.write_bytes(bytes(size))
    return path


def test_time_of_a_chunk_is_in_its_name():
    # From a Loki 3.7.8
    assert loki_health.last_time("MWEyMjBlMjg0NmQ6MWEyMjBlMzZmYTk6ZmY4NDc2NWY=") == int("1a220e36fa9", 16) / 1000
    for name in ("00000000", "series_progress.boltdb", "bmV2ZXI=", "1795847900-compactor.tsdb.gz", "é"):
        assert loki_health.last_time(name) is None


def test_survey_counts_what_is_on_the_disk(tmp_path):
    for age in (0.5, 30.2, 30.9):
        chunk(tmp_path / "chunks/fake" / str(age), age)
    (tmp_path / "wal").mkdir()
    (tmp_path / "wal/00000000").write_bytes(bytes(50_000))
    (tmp_path / "link").symlink_to("/usr")
    total, ages = loki_health.survey(str(tmp_path), NOW)
    assert set(ages) == {0, 30}
    assert ages[30] == 2 * ages[0] >= 200_000
    assert total >= sum(ages.values()) + 50_000
    assert total == sum(path.lstat().st_blocks * 512 for path in tmp_path.rglob("*"))


def test_folder_that_is_gone_is_empty(tmp_path):
    assert loki_health.survey(str(tmp_path / "none"), NOW) == (0, {})


@pytest.mark.parametrize(
    ("ages", "other", "hours"),
    [
        ({}, 0, 720),
        ({1: 40, 50: 40}, 0, 720),  # 80 of 90
        ({1: 40, 50: 40, 100: 20}, 0, 100),
        ({1: 40, 50: 40, 100: 20, 800: 1}, 0, 100),
        ({1: 40, 50: 40}, 20, 50),  # the index and the log of writes take room, too
        ({1: 60, 2: 60, 700: 1}, 0, 24),  # the last day stays
        ({800: 200}, 0, 720),  # Loki removes it in any case
    ],
)
def test_retention_is_the_age_of_what_does_not_fit(ages, other, hours):
    assert loki_health.fitting_hours(sum(ages.values()) + other, ages, 100, 720) == hours


def test_retention_does_not_get_longer_while_loki_has_not_removed_a_chunk():
    """A chunk is older than the retention that is to remove it, however long Loki takes."""
    for waited in range(100):
        age = 30 + waited * 0.3
        assert loki_health.fitting_hours(200, {1: 50, int(age): 150}, 100, 720) <= age


@pytest.fixture
def loki():
    """A web server with Loki's metrics that takes lines."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(TEXT.encode())

        def do_POST(self):
            Handler.pushed.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_):
            pass

    Handler.pushed = []
    served = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=served.serve_forever, daemon=True).start()
    Handler.url = f"http://127.0.0.1:{served.server_port}"
    yield Handler
    served.shutdown()
    served.server_close()


def settings(folder: Path, url: str, **changed) -> dict:
    (folder / "data").mkdir(exist_ok=True)
    return {
        "loki_url": url,
        "labels": {"job": "smolcluster-health", "component": "controller", "node": "box"},
        "data": str(folder / "data"),
        "retention_hours": "720",
        "max_disk_bytes": "0",
        "runtime_config": str(folder / "limits.yml"),
    } | changed


def test_line_has_what_loki_counts(loki, tmp_path):
    found = loki_health.Health(settings(tmp_path, loki.url)).line()
    assert found.pop("disk_size_bytes") >= found.pop("disk_free_bytes") > 0
    assert found.pop("time").endswith("Z")
    assert found.pop("clock_synchronized") in (True, False)
    assert found == {
        "version": "3.7.8",
        "received_lines": 6,
        "received_bytes": 2097,
        "rejected_lines": {"greater_than_max_sample_age": 4},
        "memory_bytes": 147107840,
        "cpu_seconds": 2.4,
        "store_bytes": 0,
        "max_disk_bytes": None,
        "retention_hours": 720,
    }


def test_limit_is_written_once_and_taken_back(loki, tmp_path, capsys):
    now = time.time()
    old = chunk(tmp_path / "data/fake/a", 200.5, now=now)
    new = chunk(tmp_path / "data/fake/b", 2, now=now)
    one = loki_health.Health(settings(tmp_path, loki.url, max_disk_bytes="150000"))

    def measured() -> tuple[dict, int]:
        one._survey_at = 0.0
        one.measure()
        path = tmp_path / "limits.yml"
        return yaml.safe_load(path.read_text()), path.stat().st_ino

    shortened, version = measured()
    assert shortened == {"overrides": {"fake": {"retention_period": "200h"}}}
    assert measured()[1] == version
    old.unlink()
    assert measured()[0] == {"overrides": {}}
    assert capsys.readouterr().err == ""
    new.write_bytes(bytes(400_000))
    assert measured()[0] == {"overrides": {"fake": {"retention_period": "24h"}}}
    measured()
    assert capsys.readouterr().err.count("the lines of the last 24 hours take more than max_disk") == 1


def test_store_is_not_measured_all_the_time(loki, tmp_path, monkeypatch):
    clock = iter([0.0, 3.0, 3.0, 150.0])
    monkeypatch.setattr(loki_health, "survey", lambda *_: (0, {}))
    one = loki_health.Health(settings(tmp_path, loki.url))
    one._survey_at = -1.0
    monkeypatch.setattr(loki_health.time, "monotonic", lambda: next(clock))
    one.measure()
    one.measure()
    assert one._survey_at == 303.0


def test_program_ends_when_its_settings_change(loki, tmp_path):
    path = tmp_path / "settings.json"
    path.write_text(json.dumps(settings(tmp_path, loki.url)))
    program = [sys.executable, "-B", ROOT / "roles/docker_loki_grafana/files/loki_health.py", path]
    process = subprocess.Popen(program, env={"PYTHONPATH": str(ROOT / "plugins/module_utils"), "PATH": "/usr/bin:/bin"})
    try:
        end = time.monotonic() + 30
        while not loki.pushed and time.monotonic() < end:
            time.sleep(0.05)
        ((stream,),) = (body["streams"] for body in loki.pushed)
        assert stream["stream"] == settings(tmp_path, "")["labels"]
        ((moment, line),) = stream["values"]
        assert abs(int(moment) / 1e9 - time.time()) < 60
        assert json.loads(line)["received_lines"] == 6
        path.write_text(json.dumps(settings(tmp_path, loki.url, max_disk_bytes="1")))
        assert process.wait(30) == 0
    finally:
        process.kill()


def test_program_goes_on_without_loki(tmp_path):
    path = tmp_path / "settings.json"
    path.write_text(json.dumps(settings(tmp_path, "http://127.0.0.1:9")))
    program = [sys.executable, "-B", ROOT / "roles/docker_loki_grafana/files/loki_health.py", path]
    process = subprocess.Popen(
        program,
        env={"PYTHONPATH": str(ROOT / "plugins/module_utils"), "PATH": "/usr/bin:/bin"},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr.readline().startswith("no health line: ")
        assert process.poll() is None
        # The limit of the store does not need Loki's answer.
        assert (tmp_path / "limits.yml").exists()
    finally:
        process.kill()
        process.wait()


def test_labels_are_those_of_health_lines():
    text = (ROOT / "roles/docker_loki_grafana/vars/main/health.yml").read_text()
    assert yaml.safe_load(text)["__docker_loki_grafana_health_settings"]["labels"]["job"] == health_lines.JOB
