"""Files with times of another zone are named only if there is evidence. The files and their times are real."""

from __future__ import annotations

import os
import time
from datetime import datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from ansible_collections.smolcluster.logging.plugins.filter.timed_sources import timed_sources
from ansible_collections.smolcluster.logging.plugins.module_utils import shifted_times

FORMATS = [str(Path(__file__).resolve().parents[2] / "roles/agent/vars/formats"), ""]
NODE = "Asia/Kolkata"
# Lines as libraries write them, with the format of their time for strftime.
LINES = {
    "smolcluster": "%Y-%m-%d %H:%M:%S,123 | INFO | rank:0 | step:42",
    "smolcluster_v2": "%Y-%m-%d %H:%M:%S  INFO      [gpt | edp | worker-1 | Mac Mini]  [WORKER-1]  step:42",
    "smolcluster_console": "%Y-%m-%d %H:%M:%S,123 - [WORKER-1] - INFO - step",
    "loguru": "%Y-%m-%d %H:%M:%S.123 | INFO     | __main__:<module>:26 - step 10 loss 2.310",
    "python": "%Y-%m-%d %H:%M:%S,123 - train - INFO - step 10 loss=2.31",
    "glog": "I%m%d %H:%M:%S.145218 140635627748224 basic.py:48] step 10 loss 2.310",
    "torch": "[I%-m%d %H:%M:%S.000000004 socket.cpp:1] x",
    "accelerate": "%m/%d/%Y %H:%M:%S - INFO - __main__ - step",
    "transformers": "[INFO|hf.py:12] %Y-%m-%d %H:%M:%S,534 >> explicit fmt",
    "vllm": "(EngineCore_DP0 pid=12321) INFO %m-%d %H:%M:%S [core.py:96] step",
    "json": '{"asctime": "%Y-%m-%d %H:%M:%S,025", "levelname": "INFO", "message": "step"}',
    "logfmt": 'time="%Y-%m-%d %H:%M:%S" level=info msg=step',
    "auto": "%Y-%m-%d %H:%M:%S INFO hello",
}
# Lines of which nothing is to be said: times with a zone, and none.
SILENT = {
    "smolcluster": "step 10 without a time",
    "loguru": "%Y-%m-%d %H:%M:%S.123+00:00 | INFO     | __main__:<module>:26 - step 10 loss 2.310",
    "json": '{"timestamp": "%Y-%m-%dT%H:%M:%S.814058Z", "level": "info", "event": "step"}',
    "python": "INFO:train:step at %Y-%m-%d %H:%M:%S",
    "plain": "%Y-%m-%d %H:%M:%S step",
    "auto": "%Y-%m-%dT%H:%M:%SZ INFO hello",
}


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Log files of training, and what is said of their times."""

    class Files:
        path = tmp_path / "worker.log"

        def __init__(self) -> None:
            self.times = None
            monkeypatch.setattr(shifted_times, "GROWTH", 0)

        def write(self, line: str, zone: str, ago: float = 0, path: Path | None = None) -> None:
            """Append a line with the time of a zone some seconds ago."""
            moment = datetime.now(ZoneInfo(zone)) - timedelta(seconds=ago)
            with (path or self.path).open("a") as file:
                file.write(moment.strftime(line) + "\n")

        def begin(self, preset: str, zone: str = NODE, **source) -> None:
            """Take the first look, for a source whose times are read in a zone."""
            source = {"name": "train", "paths": [f"{tmp_path}/*.log"], "format": preset, "timezone": zone} | source
            followed = sorted(map(str, tmp_path.glob("*")))
            self.times = shifted_times.Times(timed_sources([source], FORMATS, "Local"), followed)

        def both(self, preset: str, line: str, written: str, read: str = NODE, **more) -> list[str]:
            """What is said after two lines in one zone that are read in another."""
            self.write(line, written, **more)
            self.begin(preset, read)
            self.write(line, written, **more)
            return self.times.problems()

    return Files()


@pytest.mark.parametrize(("preset", "line"), LINES.items())
def test_program_in_another_zone_is_told_for_every_family(files, preset, line):
    (problem,) = files.both(preset, line, "UTC")
    assert f"times of {files.path} look shifted by +5:30: the newest line has" in problem
    assert "(UTC+0530), where the source train is read. Set timezone of the source to UTC, which they fit" in problem


@pytest.mark.parametrize("preset", LINES)
def test_right_times_are_not_told(files, preset):
    assert files.both(preset, LINES[preset], NODE) == []
    assert files.times._first == []


@pytest.mark.parametrize(("preset", "line"), SILENT.items())
def test_nothing_is_told_of_times_with_a_zone_and_of_lines_without_times(files, preset, line):
    assert files.both(preset, line, "UTC") == []


@pytest.mark.parametrize(
    ("written", "read", "words"),
    [
        (NODE, "UTC", "shifted by -5:30: the newest"),
        ("Asia/Kathmandu", NODE, "shifted by -0:15: the newest"),
        ("Pacific/Kiritimati", "Pacific/Pago_Pago", "shifted by -25:00: the newest"),
        ("Asia/Tokyo", NODE, "the zone of the program that writes them, such as Asia/Kolkata"),
    ],
)
def test_zones_of_both_signs_and_all_distances(files, written, read, words):
    (problem,) = files.both("smolcluster", LINES["smolcluster"], written, read)
    assert words in problem


def test_zone_of_the_node_is_its_own(files, monkeypatch):
    monkeypatch.setenv("TZ", NODE)
    time.tzset()
    try:
        (problem,) = files.both("smolcluster", LINES["smolcluster"], "UTC", "Local")
    finally:
        monkeypatch.undo()
        time.tzset()
    assert "shifted by +5:30" in problem
    assert "of this node (UTC+0530)" in problem


@pytest.mark.parametrize("ago", [400, 1000, 40])
def test_lines_that_are_only_old_are_not_told(files, ago):
    """Such as those of a file that was copied: their age is no difference of two zones."""
    assert files.both("smolcluster", LINES["smolcluster"], NODE, ago=ago) == []


def test_lines_that_a_program_writes_in_blocks_are_told(files):
    (problem,) = files.both("smolcluster", LINES["smolcluster"], "UTC", ago=20)
    assert "shifted by +5:30" in problem


def test_file_must_grow_with_the_same_shift(files):
    line = LINES["smolcluster"]
    files.write(line, "UTC")
    files.begin("smolcluster")
    assert files.times.problems() == []  # it is at rest
    files.write(line, NODE)
    assert files.times.problems() == []  # the program was corrected


def test_file_at_rest_is_not_told(files):
    files.write(LINES["smolcluster"], "UTC")
    os.utime(files.path, (time.time() - 90, time.time() - 90))
    files.begin("smolcluster")
    assert files.times._first == []


def test_only_the_end_of_a_file_counts(files):
    files.path.write_text("x" * 200_000 + "\n")
    (problem,) = files.both("smolcluster", LINES["smolcluster"], "UTC")
    assert "shifted by +5:30" in problem
    with files.path.open("a") as file:
        file.write("unfinished")
    files.begin("smolcluster")
    assert files.times._first == []


def test_files_of_one_shift_are_one_text(files, tmp_path):
    paths = [tmp_path / f"worker-{number}.log" for number in range(5)]
    for path in paths:
        files.write(LINES["smolcluster"], "UTC", path=path)
    files.begin("smolcluster", exclude=f"{tmp_path}/*-4.log")
    for path in paths:
        files.write(LINES["smolcluster"], "UTC", path=path)
    (problem,) = files.times.problems()
    assert f"times of {', '.join(map(str, paths[:3]))} and 1 more look shifted" in problem


@pytest.mark.parametrize("kind", ["link", "hard link", "fifo"])
def test_only_regular_files_with_one_name_are_read(files, tmp_path, kind):
    target = tmp_path / "target"
    files.write(LINES["smolcluster"], "UTC", path=target)
    if kind == "link":
        files.path.symlink_to(target)
    elif kind == "hard link":
        files.path.hardlink_to(target)
    else:
        os.mkfifo(files.path)
    files.begin("smolcluster")
    assert files.times._first == []


@pytest.mark.parametrize("chosen", [[{"decolorize": None}], "no-such-preset", {"pattern": "("}])
def test_formats_of_which_nothing_is_known_are_left_out(files, chosen):
    assert files.both(chosen, LINES["smolcluster"], "UTC") == []


def test_hour_that_occurs_twice_is_not_told():
    zone = ZoneInfo("Europe/Berlin")
    first = datetime(2026, 10, 25, 2, 30, tzinfo=zone, fold=0)
    for moment in (first, first.replace(fold=1)):
        written = moment.timestamp()
        assert shifted_times.shift_of(moment.replace(tzinfo=None), zone, written) == 0
    assert shifted_times.shift_of(datetime(2026, 10, 25, 0, 30), zone, first.timestamp()) == 7200


def test_year_that_is_missing_is_the_nearest_one():
    (source,) = timed_sources([{"name": "g", "paths": [], "format": "glog"}], FORMATS, "Local")
    for near in (datetime(2026, 12, 31, 23, 59, 59), datetime(2027, 1, 1, 0, 0, 1)):
        found = shifted_times.moment_of("I1231 23:59:59.000000 1 a.py:1] x", source["times"], near)
        assert found == datetime(2026, 12, 31, 23, 59, 59)
