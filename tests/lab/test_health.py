"""Health lines of nodes and controller arrive and count as nothing else; Loki's store stays below its limit."""

from __future__ import annotations

import base64
import json
import math
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

import pytest

from lab.shell import wait_for
from tests.lab.harness import CONTROLLER, MINIS, Lab

HEALTH = '{job="smolcluster-health"}'
DAYS, EACH = 7, 50
# A second Loki on the controller with a disk of 64 MB: the role's configuration, but it removes lines at once.
SMALL = """
    mkdir /mnt/small && mount -t tmpfs -o size=64m tmpfs /mnt/small && cd /mnt/small
    mkdir -p data config/runtime bin && chown 10001 data
    cp /opt/smolcluster-logging/bin/loki-health bin/ && cp /opt/smolcluster-logging/bin/samples.py bin/
    cp /opt/smolcluster-logging/loki/runtime/limits.yml config/runtime/
    sed 's/retention_delete_delay: 15m/retention_delete_delay: 1s\\n  compaction_interval: 3s/' \
        /opt/smolcluster-logging/loki/loki.yml > config/loki.yml
    docker run --detach --name small --publish 127.0.0.1:3199:3100 --read-only --tmpfs "$(docker inspect \
        --format '{{range $path, $mode := .HostConfig.Tmpfs}}{{$path}}:{{$mode}}{{end}}' smolcluster-logging-loki-1)" \
        --volume /mnt/small/config:/etc/loki:ro --volume /mnt/small/data:/loki \
        "$(docker inspect --format '{{.Config.Image}}' smolcluster-logging-loki-1)" -config.file=/etc/loki/loki.yml
"""
GONE = """
    pkill --full '/mnt/small/bin/[l]oki-health'
    docker rm --force --volumes small; umount /mnt/small && rmdir /mnt/small
"""
READY = "curl -s http://127.0.0.1:3199/ready"
# Writes the same number of lines that cannot be compressed for each day, the oldest first.
FILL = f"""
import base64, json, os, time, urllib.request
def post(path, body):
    request = urllib.request.Request("http://127.0.0.1:3199" + path, body, {{"Content-Type": "application/json"}})
    urllib.request.urlopen(request)
now = time.time()
for day in reversed(range({DAYS})):
    line = lambda: base64.b64encode(os.urandom(30000)).decode()
    values = [[str(int((now - day * 86400 - 1800 + n) * 1e9)), line()] for n in range({EACH})]
    post("/loki/api/v1/push", json.dumps({{"streams": [{{"stream": {{"day": str(day)}}, "values": values}}]}}).encode())
post("/flush", b"")
"""
FILES = "find /mnt/small/data -printf '%b %f\\n'"


@dataclass
class Store:
    """What the small Loki has on its disk.

    Parameters:
        total: bytes of all files.
        chunks: bytes of the chunks, by the days since their last line.
    """

    total: int
    chunks: dict[int, int]

    @classmethod
    def of(cls, lab: Lab) -> Store:
        """Look at the disk."""
        total, chunks = 0, {}
        for row in lab.on(CONTROLLER, FILES).splitlines():
            blocks, name = row.split()
            total += int(blocks) * 512
            with suppress(ValueError):  # the name of a chunk: first time, last time and checksum
                _first, last, _checksum = base64.b64decode(name, validate=True).split(b":")
                day = math.floor((time.time() - int(last, 16) / 1000) / 86400)
                chunks[day] = chunks.get(day, 0) + int(blocks) * 512
        return cls(total, chunks)


@pytest.fixture(scope="module")
def limit(lab: Lab) -> Iterator[int]:
    """A small Loki with lines of seven days, and a limit in bytes that lets it keep four; the program runs for it."""
    lab.on(CONTROLLER, GONE, check=False)
    lab.on(CONTROLLER, SMALL)
    try:
        wait_for(lambda: lab.on(CONTROLLER, READY, check=False) == "ready", "the small Loki is ready", 60)
        lab.on(CONTROLLER, "python3 -", data=FILL)
        # A stop writes the index to the disk, which otherwise takes a quarter of an hour.
        lab.on(CONTROLLER, "docker restart small")
        wait_for(lambda: lab.on(CONTROLLER, READY, check=False) == "ready", "the small Loki is back", 60)
        found = Store.of(lab)
        assert set(found.chunks) == set(range(DAYS))
        day = sum(found.chunks.values()) / DAYS
        most = int((found.total - 2.5 * day) / 0.9)  # the program leaves a tenth free
        settings = {
            "loki_url": "http://127.0.0.1:3199",
            "labels": {"job": "small"},
            "data": "/mnt/small/data",
            "retention_hours": 720,
            "max_disk_bytes": most,
            "runtime_config": "/mnt/small/config/runtime/limits.yml",
        }
        lab.on(CONTROLLER, "cat > /mnt/small/settings.json", data=json.dumps(settings))
        program = "python3 -B /mnt/small/bin/loki-health /mnt/small/settings.json"
        lab.on(CONTROLLER, f"setsid {program} > /mnt/small/log 2>&1 &")
        yield most
    finally:
        lab.on(CONTROLLER, GONE, check=False)


def test_line_of_every_node_and_of_the_controller_arrives_each_minute(lab: Lab, limit: int):
    del limit  # its Loki needs a while
    start = time.time()
    hosts = {host.name for host in (*MINIS, CONTROLLER)}

    def fresh() -> dict[str, list[dict]]:
        found: dict[str, list[dict]] = {name: [] for name in hosts}
        for moment, line, labels in lab.entries(HEALTH, 1, hours=0.1):
            if moment / 1e9 > start:
                fields = json.loads(line)
                assert abs(moment / 1e9 - time.time()) < 600
                assert labels["component"] == ("controller" if labels["node"] == CONTROLLER.name else "agent")
                assert not {"level", "rank"} & set(labels)
                found[labels["node"]].append(fields)
        return found

    wait_for(lambda: min(map(len, fresh().values())) >= 2, "two lines of each host", 200)
    lines = fresh()
    for name in hosts - {CONTROLLER.name}:
        last = lines[name][-1]
        assert last["agent"] == "promtail"
        assert last["sent_lines"] > lines[name][0]["sent_lines"] >= 0  # at least the health line before
        assert last["disk_size_bytes"] > last["disk_free_bytes"] > 0
        assert last["clock_offset_seconds"] == 0
        assert lab.on(MINIS[0], "stat -c '%a %U' /run/promtail/health.log") == "600 promtail"
    last = lines[CONTROLLER.name][-1]
    assert last["received_lines"] > lines[CONTROLLER.name][0]["received_lines"]
    assert last["store_bytes"] > 0
    assert last["retention_hours"] == 720
    assert last["clock_synchronized"] in (True, False)


def test_health_lines_are_no_lines_of_training(lab: Lab, tmp_path):
    assert lab.entries(HEALTH, 1)
    for command in ("ranks --since 10m", "errors --since 10m", "status --since 10m"):
        assert "health" not in lab.on(CONTROLLER, f"cluster-logs {command} 2>&1", check=False)
    play = lab.play("playbooks/status.yml", status_file=str(tmp_path / "status.json"))
    assert play.code == 0, play.output
    reports = {mini: json.loads(lab.on(mini, "cat /run/promtail/watch.json")) for mini in MINIS}
    assert not [one for report in reports.values() for one in report["files"] if one["path"].endswith("/health.log")]


def test_oldest_days_go_first_when_the_store_is_larger_than_its_limit(lab: Lab, limit: int):
    def small_enough() -> bool:
        return Store.of(lab).total <= limit and set(Store.of(lab).chunks) == set(range(4))

    wait_for(small_enough, "the oldest days are gone", 240)
    # Nothing was left out at the edge of the days that stay.
    query = 'query=sum by (day) (count_over_time({day=~".+"}[4d]))'
    answer = json.loads(
        lab.on(CONTROLLER, f"curl -s -G http://127.0.0.1:3199/loki/api/v1/query --data-urlencode '{query}'")
    )
    counts = {one["metric"]["day"]: int(one["value"][1]) for one in answer["data"]["result"]}
    assert counts == {str(day): EACH for day in range(4)}
