"""The program on the nodes that finds log files and copies their lines, on real files."""

from __future__ import annotations

import contextlib
import json
import os
import random
import resource
import socket
import threading
import time
from pathlib import Path

import logfiles
import positions
import pytest

START = r"^\d{4}-"


class Node:
    """A folder of logs, and an agent that reads the copies to their end whenever it is asked to.

    Parameters:
        folder: an empty folder.
    """

    def __init__(self, folder: Path) -> None:
        self.logs, self.state, self.run = folder / "logs", folder / "state", folder / "run"
        for path in (self.logs, self.state, self.run):
            path.mkdir()
        self.settings = {"name": "w", "paths": [f"{self.logs}/worker-*.log"], "entry_start": START, "join": True}
        self.others: list[dict] = []
        self.files: logfiles.LogFiles | None = None
        self.shipped: dict[str, list[str]] = {}
        self.entries: dict[str, list[str]] = {}
        self.offsets: dict[str, tuple[float | None, int]] = {}

    def start(self) -> logfiles.LogFiles:
        """Restart the program."""
        self.offsets = {}
        self.files = logfiles.LogFiles(
            self.state,
            self.run / "files",
            self.run / "watch.json",
            self.run / "positions.yaml",
            [logfiles.Source.of(one) for one in (self.settings, *self.others)],
            9,
            f"{self.run}/health.log",
        )
        return self.files

    def feed(self) -> None:
        """Look into the folders, and copy what is new."""
        self.files.scan()
        self.files.feed(all_logs=True)

    def read(self) -> None:
        """The agent reads the copies, and saves how far."""
        saved = {}
        # Other than tmpfs, this file system gives an inode to the next file; Promtail keeps the old one open meanwhile.
        begun = {str(source.copy.path): source.copy.begun for source in self.files.sources}
        for copy in sorted((self.run / "files").iterdir()):
            known, offset = self.offsets.get(str(copy), (None, 0))
            offset = offset if known == begun[str(copy)] and offset <= copy.stat().st_size else 0
            with copy.open("rb") as file:
                file.seek(offset)
                data = file.read()
            assert data.endswith(b"\n") or not data
            for path, entry in read_records(data):
                self.entries.setdefault(path, []).append(entry)
                self.shipped.setdefault(path, []).extend(entry.split("\n"))
            self.offsets[str(copy)] = (begun[str(copy)], offset + len(data))
            saved[str(copy)] = str(offset + len(data))
        positions.replace(self.run / "positions.yaml", json.dumps({"positions": saved}))
        self.files.feed(all_logs=True)

    def pass_on(self) -> dict[str, list[str]]:
        """Copy and read until nothing is left; lines by the name of the log."""
        for _ in range(200):
            self.feed()
            before = sum(map(len, self.shipped.values()))
            self.read()
            if sum(map(len, self.shipped.values())) == before:
                break
        return {Path(log).name: lines for log, lines in self.shipped.items()}

    def refused(self) -> dict[str, str]:
        """Why files are not shipped, by their names."""
        return {Path(path).name: why for path, why in self.files.refused.items()}


def read_records(data: bytes) -> list[tuple[str, str]]:
    """Path and entry of each record, as an agent reads them."""
    found = [line.split(b"\t", 1) for line in data.split(b"\n")[:-1]]
    return [
        (path.decode(), entry.replace(b"\x1en", b"\n").replace(b"\x1ee", b"\x1e").decode("utf-8", "replace"))
        for path, entry in found
    ]


@pytest.fixture
def node(tmp_path, monkeypatch) -> Node:
    """A node without logs, on which the last entry of a log is complete at once."""
    monkeypatch.setattr(logfiles, "SILENCE", 0)
    return Node(tmp_path)


def lines(count: int, first: int = 0) -> list[str]:
    """Numbered lines."""
    return [f"2026-11-25 10:00:00,000 | INFO | rank:0 | n={number:06d}" for number in range(first, first + count)]


def write(path: Path, text: list[str], age: float = 0) -> None:
    """Append lines to a file, which was last written some seconds ago."""
    with path.open("a") as file:
        file.writelines(f"{line}\n" for line in text)
    os.utime(path, (time.time() - age, time.time() - age))


def test_lines_are_copied_as_they_come(node):
    log = node.logs / "worker-0.log"
    write(log, lines(3))
    node.start()
    assert node.pass_on() == {"worker-0.log": lines(3)}
    with log.open("a") as file:
        file.write("half a li")
    assert node.pass_on() == {"worker-0.log": lines(3)}
    with log.open("a") as file:
        file.write("ne\n")
    assert node.pass_on() == {"worker-0.log": [*lines(3), "half a line"]}


@pytest.mark.parametrize(
    ("names", "log"),
    [
        (["worker-0.log.2", "worker-0.log.1", "worker-0.log"], "worker-0.log"),
        (["worker-0.log.10", "worker-0.log.9", "worker-0.log"], "worker-0.log"),
        (["worker-0.log.2026-11-23", "worker-0.log.2026-11-24", "worker-0.log"], "worker-0.log"),
        (["worker-0.log.2026-11-23_10-00-00", "worker-0.log.2026-11-23_11-00-00", "worker-0.log"], "worker-0.log"),
        (["worker-0.log-20261123", "worker-0.log-20261124", "worker-0.log"], "worker-0.log"),
        (["worker-0.2026-11-23_10-00-00_123456.log", "worker-0.log"], "worker-0.log"),
        (["worker-0.log.2", "worker-0.log.1"], "worker-0.log"),  # between rename and new file
    ],
)
def test_rotated_files_come_first_under_the_name_of_the_log(node, names, log):
    for number, name in enumerate(names):
        write(node.logs / name, lines(5, 5 * number), age=1000 - number)
    node.start()
    assert node.pass_on() == {log: lines(5 * len(names))}


def test_packed_files_are_left_alone_and_numbered_ranks_are_logs_of_their_own(node):
    node.settings["paths"] = [f"{node.logs}/*"]
    for name in ("rank.0", "rank.1", "old.log.1.gz", "old.log.2.xz"):
        write(node.logs / name, lines(2))
    node.start()
    node.feed()
    assert sorted(node.files.sources[0].logs) == [f"{node.logs}/rank.0", f"{node.logs}/rank.1"]


def test_rotations_between_two_looks_and_the_removal_of_what_was_not_read(node):
    log = node.logs / "worker-0.log"
    write(log, lines(5))
    node.start()
    for number in range(1, 4):
        if number == 3:
            node.feed()  # .1 is open from now on
        for old in range(3, 0, -1):
            if (path := log.with_name(f"worker-0.log.{old}")).exists():
                path.rename(log.with_name(f"worker-0.log.{old + 1}"))
        log.rename(log.with_name("worker-0.log.1"))
        write(log, lines(5, 5 * number))
    (node.logs / "worker-0.log.2").unlink()
    assert node.pass_on() == {"worker-0.log": lines(20)}


def test_renamed_file_is_the_same_file(node):
    log = node.logs / "worker-0.log"
    write(log, lines(5))
    node.start()
    node.pass_on()
    log.rename(node.logs / "worker-0-old.log")
    write(node.logs / "worker-0-old.log", lines(5, 5))
    assert node.pass_on() == {"worker-0.log": lines(10)}
    write(log, lines(5, 10))
    assert node.pass_on() == {"worker-0.log": lines(15)}


def test_last_line_of_a_rotated_file_is_shipped_without_an_end(node, monkeypatch):
    log = node.logs / "worker-0.log"
    log.write_text("no end")
    node.start()
    assert node.pass_on() == {}
    log.rename(f"{log}.1")
    write(log, ["next"])
    assert node.pass_on() == {"worker-0.log": ["next"]}
    monkeypatch.setattr(logfiles, "UNFINISHED", 0)
    assert node.pass_on() == {"worker-0.log": ["next", "no end"]}


@pytest.mark.parametrize("count", [3, 30])
def test_file_that_is_cut_and_refilled_is_read_anew(node, count):
    log = node.logs / "worker-0.log"
    write(log, lines(10))
    node.start()
    node.pass_on()
    log.write_text("")
    write(log, [f"other {line}" for line in lines(count)])
    assert node.pass_on() == {"worker-0.log": [*lines(10), *(f"other {line}" for line in lines(count))]}
    # What the agent has read of it counts for what is in it now.
    write(log, lines(1))
    node.files.end(clean=True)
    node.start()
    assert node.pass_on()["worker-0.log"][-1] == lines(1)[0]
    assert len(node.shipped[str(log)]) == 10 + count + 1


def test_copy_of_copytruncate_ships_only_what_was_missed(node):
    log = node.logs / "worker-0.log"
    write(log, lines(10))
    node.start()
    node.pass_on()
    write(log, lines(3, 10))
    (node.logs / "worker-0.log.1").write_text(log.read_text())
    log.write_text("")
    write(log, lines(2, 13))
    assert sorted(node.pass_on()["worker-0.log"]) == lines(15)


def test_same_banner_is_not_taken_for_a_copy(node):
    banner = ["=" * 80] * 20
    for number, name in enumerate(("worker-0.log.1", "worker-0.log")):
        write(node.logs / name, [*banner, *lines(3, 3 * number)], age=10 - number)
    node.start()
    assert node.pass_on()["worker-0.log"] == [*banner, *lines(3), *banner, *lines(3, 3)]


@pytest.mark.parametrize("clean", [True, False])
def test_next_start_goes_on_where_the_agent_was(node, clean):
    log = node.logs / "worker-0.log"
    write(log, lines(20_000))
    node.start()
    node.pass_on()
    write(log, lines(10, 20_000))
    node.files.end(clean)
    node.start()
    node.shipped.clear()
    found = node.pass_on()["worker-0.log"]
    again = 0 if clean else len(found) - 10
    assert found == lines(again + 10, 20_000 - again)
    if not clean:
        back = again * (len(lines(1)[0]) + 1)
        assert positions.REWIND <= back < positions.REWIND + 200


def test_an_unclean_start_never_goes_behind_the_last_start(node):
    log = node.logs / "worker-0.log"
    write(log, lines(20_000))
    node.start()
    node.pass_on()
    node.files.end(clean=True)
    node.start()
    write(log, lines(10, 20_000))
    node.pass_on()
    node.files.end(clean=False)
    node.start()
    node.shipped.clear()
    assert node.pass_on()["worker-0.log"] == lines(10, 20_000)


def test_an_unclean_start_goes_back_over_a_rotation(node):
    log = node.logs / "worker-0.log"
    write(log, lines(20_000))
    node.start()
    log.rename(f"{log}.1")
    write(log, lines(100, 20_000))
    node.pass_on()
    node.files.end(clean=False)
    node.start()
    node.shipped.clear()
    found = node.pass_on()["worker-0.log"]
    assert found == lines(len(found), 20_100 - len(found))
    assert len(found) * (len(lines(1)[0]) + 1) >= positions.REWIND


def test_unknown_first_lines_mean_that_all_since_the_last_start_is_read_again(node):
    node.settings = {"name": "w", "paths": node.settings["paths"], "unknown_start": True}
    write(node.logs / "worker-0.log", lines(20_000))
    node.start()
    node.pass_on()
    node.files.end(clean=False)
    node.start()
    node.shipped.clear()
    assert node.pass_on()["worker-0.log"] == lines(20_000)


@pytest.mark.parametrize("damage", ["", "\0" * 50, "{", "[]", '{"files": [{}]}', '{"clean": 1, "files": {"a": 1}}'])
def test_damaged_state_gives_way_to_that_of_the_last_start(node, damage):
    log = node.logs / "worker-0.log"
    write(log, lines(100))
    node.start()
    node.pass_on()
    node.files.end(clean=True)
    node.start()
    write(log, lines(10, 100))
    node.pass_on()
    (node.state / "files.json").write_text(damage)
    node.start()
    node.shipped.clear()
    assert node.pass_on()["worker-0.log"] == lines(10, 100)


def test_missing_state_means_that_all_is_read(node):
    write(node.logs / "worker-0.log", lines(10))
    node.start()
    node.pass_on()
    node.files.end(clean=True)
    (node.state / "files.json").unlink()
    node.start()
    node.shipped.clear()
    assert node.pass_on()["worker-0.log"] == lines(10)


def test_file_that_was_replaced_meanwhile_is_another_one(node):
    log = node.logs / "worker-0.log"
    write(log, lines(10))
    node.start()
    node.pass_on()
    node.files.end(clean=True)
    log.write_text("".join(f"other {line}\n" for line in lines(20)))  # the same inode
    node.start()
    node.shipped.clear()
    assert node.pass_on()["worker-0.log"] == [f"other {line}" for line in lines(20)]


def test_full_copy_waits_for_the_agent_and_is_begun_anew(node, monkeypatch):
    monkeypatch.setattr(logfiles, "LARGEST", 20_000)
    monkeypatch.setattr(logfiles, "TURN", 2_000)
    monkeypatch.setattr(logfiles, "ROLL", 10_000)
    monkeypatch.setattr(logfiles, "STALE", 0.3)  # the copies have equal lengths
    write(node.logs / "worker-0.log", lines(2000))
    node.start()
    for _ in range(5):
        node.feed()
    copy = node.files.sources[0].copy
    assert copy.written < 20_000 + 8_000
    end = time.monotonic() + 20
    while len(node.shipped.get(str(node.logs / "worker-0.log"), [])) < 2000 and time.monotonic() < end:
        node.read()
        node.feed()
    assert node.pass_on()["worker-0.log"] == lines(2000)
    assert copy.consumed <= copy.written < 28_000


def test_all_copies_together_have_a_limit(node, monkeypatch):
    monkeypatch.setattr(logfiles, "HELD", 60_000)
    monkeypatch.setattr(logfiles, "TURN", 2_000)
    monkeypatch.setattr(logfiles.Copy, "roll", at_once)
    node.others = [{"name": f"o{number}", "paths": [f"{node.logs}/other{number}-*.log"]} for number in range(5)]
    for number in range(5):
        write(node.logs / f"other{number}-.log", lines(400))
    node.start()
    node.feed()
    assert 50_000 < sum(source.copy.written for source in node.files.sources) <= 60_000 + 8_000
    assert node.pass_on() == {f"other{number}-.log": lines(400) for number in range(5)}


def test_log_with_a_backlog_does_not_delay_the_others(node, monkeypatch):
    """The agent gets no more than it can read in a moment, and every log has its turn in that"""
    monkeypatch.setattr(logfiles, "AHEAD", 200_000)
    monkeypatch.setattr(logfiles, "TURN", 10_000)
    write(node.logs / "worker-0.log", lines(20_000))
    node.start()
    node.feed()
    copy = node.files.sources[0].copy
    # A turn more at most, in which each line of 51 characters has the path of its file in front.
    assert copy.written - copy.consumed < 200_000 + 10_000 * (2 + len(str(node.logs / "worker-0.log")) / 51)
    for number in range(1, 4):
        write(node.logs / f"worker-{number}.log", lines(1, number))
    node.feed()
    for _ in range(3):  # what is in the copy, what followed before the new files were found, what they have
        node.read()
    assert [len(node.shipped[str(node.logs / f"worker-{number}.log")]) for number in range(1, 4)] == [1, 1, 1]
    assert len(node.shipped[str(node.logs / "worker-0.log")]) < 20_000
    assert node.pass_on()["worker-0.log"] == lines(20_000)


@pytest.mark.parametrize("kind", ["hole", "frames", "text"])
def test_line_that_is_too_long_is_left_out_but_for_its_end(node, kind):
    log = node.logs / "worker-0.log"
    write(log, lines(2))
    with log.open("ab") as file:
        if kind == "hole":
            file.truncate(400 << 20)
            file.seek(0, os.SEEK_END)
        else:
            file.write((b"\r" if kind == "frames" else b"x") * (9 << 20) + b"\r")
        file.write(lines(1, 2)[0].encode() + b"\n")
    write(log, lines(2, 3))
    node.start()
    begin = time.monotonic()
    assert node.pass_on()["worker-0.log"] == lines(5)
    assert time.monotonic() - begin < 10
    node.files.keep()
    (entry,) = json.loads((node.run / "watch.json").read_text())["left_out"]
    assert entry["path"] == str(log)


def test_long_line_without_an_end_stops_no_other_file(node):
    with (node.logs / "worker-0.log").open("wb") as file:
        file.truncate(50 << 20)
    write(node.logs / "worker-1.log", lines(5))
    node.start()
    assert node.pass_on() == {"worker-1.log": lines(5)}


@pytest.mark.parametrize(
    "name",
    [
        b"worker-caf\xe9.log",
        b"worker-a\nb.log",
        b"worker-[*]{?}.log",
        b"worker-\"'\\.log",
        b"worker-" + b"\xe9" * 244 + b".log",
    ],
)
def test_strange_names(node, name):
    path = os.fsencode(node.logs) + b"/" + name
    with open(path, "w") as file:
        file.write(f"{lines(1)[0]}\n")
    write(node.logs / "worker-1.log", lines(1))
    node.start()
    assert list(node.pass_on().values()) == [lines(1), lines(1)]
    node.files.end(clean=True)
    node.start()
    node.shipped.clear()
    assert node.pass_on() == {}


def test_what_is_no_file_is_named(node):
    os.mkfifo(node.logs / "worker-fifo.log")
    (node.logs / "worker-nowhere.log").symlink_to("/nowhere")
    (node.logs / "worker-loop.log").symlink_to("worker-loop.log")
    (node.logs / "worker-folder.log").mkdir()
    (node.logs / "worker-device.log").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(node.logs / "worker-s.log"))
    write(node.logs / "worker-1.log", lines(1))
    node.start()
    assert node.pass_on() == {"worker-1.log": lines(1)}
    assert node.refused() == {
        "worker-fifo.log": "a FIFO, not a regular file",
        "worker-nowhere.log": "a link that leads nowhere",
        "worker-loop.log": "a link that leads to itself",
        "worker-device.log": "a device, not a regular file",
        "worker-s.log": "a socket, not a regular file",
    }


TRACEBACK = ["2026-11-25 ERROR", "Traceback:", "", "  File x", "ValueError"]


def test_lines_of_an_entry_are_one_record(node):
    write(node.logs / "worker-0.log", [*lines(1), *TRACEBACK, *lines(1, 1)])
    node.start()
    node.pass_on()
    assert node.entries[str(node.logs / "worker-0.log")] == [*lines(1), "\n".join(TRACEBACK), *lines(1, 1)]
    node.settings["join"] = False
    node.entries.clear()
    (node.state / "files.json").unlink()
    node.start()
    node.pass_on()
    assert node.entries[str(node.logs / "worker-0.log")] == [*lines(1), *TRACEBACK, *lines(1, 1)]


def test_last_entry_waits_for_further_lines(node, monkeypatch):
    monkeypatch.setattr(logfiles, "SILENCE", 0.3)
    log = node.logs / "worker-0.log"
    write(log, [*lines(1), *TRACEBACK[:2]])
    node.start()
    for more in TRACEBACK[2:]:
        assert node.pass_on() == {"worker-0.log": lines(1)}
        write(log, [more])
    assert node.pass_on() == {"worker-0.log": lines(1)}
    with log.open("a") as file:
        file.write("a line without its end does not count")
    time.sleep(0.3)
    assert node.pass_on() == {"worker-0.log": [*lines(1), *TRACEBACK]}
    assert node.entries[str(log)][1] == "\n".join(TRACEBACK)
    # The next start begins with what was not copied, and the last entry of a rotated file waits no longer.
    write(log, ["", *TRACEBACK])
    node.feed()
    node.files.end(clean=True)
    log.rename(f"{log}.1")
    write(log, lines(1, 1))
    node.shipped, node.entries = {}, {}
    node.start()
    node.pass_on()
    time.sleep(0.35)
    node.pass_on()
    time.sleep(0.35)
    node.pass_on()
    assert node.entries[str(log)] == [
        "a line without its end does not count", "\n".join(TRACEBACK), *lines(1, 1),
    ]  # fmt: skip


def test_lines_before_the_first_entry_are_records_of_their_own(node):
    write(node.logs / "worker-0.log", ["a", "b", "c"])
    node.start()
    node.pass_on()
    write(node.logs / "worker-0.log", ["d", *TRACEBACK])
    node.pass_on()
    assert node.entries[str(node.logs / "worker-0.log")] == ["a", "b", "c", "d", "\n".join(TRACEBACK)]


def test_entry_has_a_largest_number_of_lines_and_a_largest_size(node, monkeypatch):
    monkeypatch.setattr(logfiles, "TURN", 4_000)
    monkeypatch.setattr(logfiles, "CHUNK", 10_000)
    many = [TRACEBACK[0], *(f"{number:>3}" for number in range(1500)), *lines(1)]
    large = [TRACEBACK[0], *("x" * 99 for number in range(150)), *lines(1, 1)]
    write(node.logs / "worker-0.log", many)
    write(node.logs / "worker-1.log", large)
    node.start()
    assert node.pass_on() == {"worker-0.log": many, "worker-1.log": large}
    sizes = [[entry.count("\n") + 1 for entry in entries] for _path, entries in sorted(node.entries.items())]
    assert sizes == [[1000, 501, 1], [100, 51, 1]]


def test_long_name_does_not_multiply_the_memory_that_is_needed(node, monkeypatch):
    monkeypatch.setattr(logfiles, "NAMES", 100 * 100)
    put = logfiles.Copy.put
    sizes = []
    monkeypatch.setattr(
        logfiles.Copy, "put", lambda copy, found, *of: sizes.append(len(found)) or put(copy, found, *of)
    )
    log = node.logs / f"worker-{'x' * 200}.log"
    text = [*lines(1), *([""] * 5000), *lines(3, 1)]
    write(log, text)
    for join in (True, False):
        node.settings["join"], node.shipped = join, {}
        node.start()
        assert list(node.pass_on().values()) == [text]
        (node.state / "files.json").unlink()
    assert max(sizes) <= 100


def test_terminal_output_is_joined_as_it_was_shown(node):
    log = node.logs / "worker-0.log"
    write(log, [f"\x1b[32m{lines(1)[0]}\x1b[0m", "  1%\r 50%\r100%", "dos\r", "\x1b]0;title\x07x\x9b"])
    node.start()
    node.pass_on()
    assert node.entries[str(log)] == ["\n".join([*lines(1), "100%", "dos\r", "x\x9b"])]


def test_no_space_for_a_copy_leaves_no_half_line(node, monkeypatch):
    write(node.logs / "worker-0.log", lines(5))
    node.start()
    real = os.write

    def full(handle, data):
        if len(data) > 20:
            real(handle, bytes(data)[:20])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    node.feed()
    assert node.refused() == {"worker-0.log": "it cannot be copied: No space left on device"}
    monkeypatch.setattr(os, "write", real)
    assert node.pass_on() == {"worker-0.log": lines(5)}


def test_delivered_files_are_closed(node, monkeypatch):
    log = node.logs / "worker-0.log"
    write(log, lines(5))
    node.start()
    node.pass_on()
    log.rename(f"{log}.1")
    write(log, lines(5, 5))
    (node.logs / "worker-gone.log").write_text("x\n")
    node.pass_on()
    (node.logs / "worker-gone.log").unlink()
    node.feed()
    monkeypatch.setattr(node.files, "_repeated", lambda: 0.0)
    for name in ("QUIET", "ASKED"):
        monkeypatch.setattr(logfiles, name, 0)
    for _ in range(3):
        node.files.retire()
    (source,) = node.files.sources
    assert [len(one.generations) for one in source.logs.values()] == [1]
    # What is written on in the rotated file, and in the log, is shipped once.
    write(node.logs / "worker-0.log.1", lines(1, 10))
    write(log, lines(1, 11))
    assert sorted(node.pass_on()["worker-0.log"]) == lines(12)
    # A file with delivered content is not taken for new by the next start, either.
    node.files.end(clean=True)
    node.start()
    node.shipped.clear()
    assert node.pass_on() == {}


def test_nothing_is_closed_while_the_agent_repeats_requests(node, monkeypatch):
    log = node.logs / "worker-0.log"
    write(log, lines(5))
    node.start()
    node.pass_on()
    log.rename(f"{log}.1")
    node.pass_on()
    repeated = iter(range(100))
    monkeypatch.setattr(node.files, "_repeated", lambda: float(next(repeated)))
    monkeypatch.setattr(logfiles, "QUIET", 0.01)
    monkeypatch.setattr(logfiles, "ASKED", 0)
    for _ in range(3):
        node.files.retire()
    assert len(node.files.sources[0].logs) == 1


def test_exclude_leaves_out_and_alternatives_count(node):
    node.settings["paths"] = [f"{node.logs}/{{worker,server}}-*.log"]
    node.settings["exclude"] = f"{node.logs}/*-debug.log"
    for name in ("worker-1.log", "server-1.log", "worker-debug.log", "other-1.log"):
        write(node.logs / name, lines(1))
    node.start()
    assert sorted(node.pass_on()) == ["server-1.log", "worker-1.log"]


def equal(node) -> dict[str, int]:
    """Number of equal entries, by the name of the log."""
    return {Path(file.log).name: file.equal for source in node.files.sources for file in source.files.values()}


def test_equal_entries_with_a_time_are_counted(node):
    node.settings["timed"] = "^2026"
    line = "2026-11-25 10:00:00 INFO step"
    log = node.logs / "worker-0.log"
    write(log, [line, "at the same second", line, "at the same second", line.replace("00 I", "01 I")])
    write(node.logs / "worker-1.log", [line, line])
    node.start()
    node.pass_on()
    assert equal(node) == {"worker-0.log": 1, "worker-1.log": 1}
    # In pieces, as a program writes them.
    for _ in range(3):
        write(log, [line])
        node.pass_on()
    assert equal(node)["worker-0.log"] == 3
    node.files.keep()
    node.files._reported_at = 0
    node.files._changed = True
    node.files.keep()
    (first, second) = json.loads((node.run / "watch.json").read_text())["equal"]
    assert {Path(one["path"]).name: one["lines"] for one in (first, second)} == equal(node)


def test_equal_entries_are_not_counted_without_a_time_or_far_apart(node, monkeypatch):
    monkeypatch.setattr(logfiles, "RECENT", 10)
    node.settings["timed"] = "^2026-11-25 10:00:00,000 [|] INFO"
    first = lines(20)
    write(node.logs / "worker-0.log", [*first, first[0], "print", *lines(1, 99)])
    write(node.logs / "worker-1.log", ["print", "print", *lines(1)])
    node.start()
    node.pass_on()
    assert equal(node) == {"worker-0.log": 0, "worker-1.log": 0}


def test_of_a_shared_folder_only_files_with_the_name_of_the_node_count(node, monkeypatch):
    identity = os.uname()
    monkeypatch.setattr(os, "uname", lambda: type(identity)((identity.sysname, "Mac-1.lan", *tuple(identity)[2:])))
    node.settings["own"] = "mini1"
    for name in ("worker-mini1.log", "worker-mac-1.log", "worker-mini10.log", "worker-mini2.log", "worker-0.log"):
        write(node.logs / name, lines(1))
    (node.logs / "worker-mini1.log.1").write_text("".join(f"{line}\n" for line in lines(1, first=7)))
    node.start()
    assert node.pass_on() == {"worker-mini1.log": [*lines(1, first=7), *lines(1)], "worker-mac-1.log": lines(1)}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can play another account")
@pytest.mark.usefixtures("shared_path")
def test_copies_of_another_account_are_no_obstacle(node):
    write(node.logs / "worker-0.log", lines(3))
    node.start()
    node.pass_on()
    for path in (node.logs.parent, node.state, node.run, *node.state.iterdir()):
        os.chown(path, 1234, 1234)
    os.chown(node.run / "positions.yaml", 1234, 1234)
    os.seteuid(1234)
    try:
        node.start()
        node.shipped.clear()
        assert node.pass_on() == {"worker-0.log": lines(3)}
    finally:
        os.seteuid(0)


def test_hole_of_terabytes_stops_no_other_file(node):
    with (node.logs / "worker-0.log").open("w") as file:
        try:
            file.truncate(8 << 40)
        except OSError:
            pytest.skip("this file system has no files of that size")
    write(node.logs / "worker-1.log", ["1"])
    before = time.monotonic()
    node.start()
    assert node.pass_on() == {"worker-1.log": ["1"]}
    assert time.monotonic() - before < 5


def test_line_without_an_end_is_searched_in_parts(node, monkeypatch):
    monkeypatch.setattr(logfiles, "SEARCHED", 1 << 20)
    monkeypatch.setattr(logfiles, "data_after", lambda _handle, offset, _length: offset)
    (node.logs / "worker-0.log").write_bytes(b"x" * (5 << 20) + b"\n2026-\n")
    write(node.logs / "worker-1.log", ["1"])
    node.start()
    node.files.feed(all_logs=True)
    assert [file.fed for file in node.files.sources[0].logs[str(node.logs / "worker-0.log")].generations] == [0]
    for _ in range(5):
        assert node.files.feed(all_logs=False)
    assert node.pass_on() == {"worker-0.log": ["x" * (5 << 20), "2026-"], "worker-1.log": ["1"]}


@pytest.mark.parametrize("hole", [1, 5000, 300_000, 5 << 20])
def test_hole_before_the_text_is_left_out(node, hole):
    (node.logs / "worker-0.log").write_bytes(b"\0" * hole + b"one\ntwo\n")
    node.start()
    assert node.pass_on() == {"worker-0.log": ["one", "two"]}
    node.files.end(clean=True)
    node.shipped = {}
    node.start()
    assert node.pass_on().get("worker-0.log", []) == []


def test_file_with_the_inode_of_a_forgotten_one_is_known(node, monkeypatch):
    monkeypatch.setattr(logfiles, "QUIET", 0)
    write(node.logs / "worker-0.log", ["new"])
    write(node.logs / "worker-0.log.1", ["old"], age=9)
    files = node.start()
    monkeypatch.setattr(files, "_delivered", lambda _now: True)
    node.pass_on()
    files.retire()
    files.retire()
    source = files.sources[0]
    old = source.seen[f"{node.logs}/worker-0.log.1"][1]
    assert old.done
    (node.logs / "worker-0.log.1").unlink()
    write(node.logs / "worker-1.log", ["other"])
    status = (node.logs / "worker-1.log").stat()
    # Whether the file system gives the number again is its own affair.
    del source.files[old.key]
    old.key = (status.st_dev, status.st_ino)
    source.files[old.key] = old
    assert node.pass_on()["worker-1.log"] == ["other"]
    assert source.files[old.key].current
    (node.logs / "worker-1.log").unlink()
    files.scan()
    files.retire()
    files.retire()
    assert list(source.logs) == [f"{node.logs}/worker-0.log"]


def test_what_is_written_while_a_file_is_closed_is_shipped(node, monkeypatch):
    monkeypatch.setattr(logfiles, "QUIET", 0)
    write(node.logs / "worker-0.log", ["new"])
    write(node.logs / "worker-0.log.1", ["old"], age=9)
    files = node.start()
    node.pass_on()
    files.retire()

    def delivered(_now):
        write(node.logs / "worker-0.log.1", ["late"])
        return True

    monkeypatch.setattr(files, "_delivered", delivered)
    files.retire()
    assert sorted(node.pass_on()["worker-0.log"]) == ["late", "new", "old"]


@pytest.mark.parametrize("answer", [b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nx", b"nothing", b"", None])
def test_agent_that_ends_while_it_is_asked(node, answer):
    files = node.start()
    with socket.create_server(("127.0.0.1", 0)) as server:
        files.port = server.getsockname()[1]
        if answer is not None:
            thread = threading.Thread(target=lambda: answered(server, answer))
            thread.start()
            assert files._repeated() is None
            thread.join()
    if answer is None:
        assert files._repeated() is None


def answered(server: socket.socket, answer: bytes) -> None:
    """Answer one request."""
    connection, _ = server.accept()
    with connection:
        connection.recv(9999)
        connection.sendall(answer)


def test_counter_that_is_no_number(node):
    files = node.start()
    body = b"promtail_batch_retries_total{} many\n"
    with socket.create_server(("127.0.0.1", 0)) as server:
        files.port = server.getsockname()[1]
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        thread = threading.Thread(target=lambda: answered(server, head + body))
        thread.start()
        assert files._repeated() is None
        thread.join()


def test_folder_is_no_log_whose_rotated_files_these_are(node):
    node.settings["paths"] = [f"{node.logs}/*"]
    (node.logs / "rank").mkdir()
    write(node.logs / "rank.0", ["0"])
    write(node.logs / "rank.1", ["1"])
    node.start()
    assert node.pass_on() == {"rank.0": ["0"], "rank.1": ["1"]}


@pytest.mark.parametrize(
    "damage", [{"read": -5}, {"head": [-3, ""]}, {"head": [1 << 60, ""]}, {"read": 1e999}, {"key": [1e999, 1]}]
)
def test_numbers_that_cannot_be_are_damage(node, damage):
    write(node.logs / "worker-0.log", ["1"])
    node.start().save(clean=False)
    known = json.loads((node.state / "files.json").read_text())
    known["files"][0].update(damage)
    for name in ("files.json", "started.json"):
        (node.state / name).write_text(json.dumps(known))
    node.start()
    assert node.pass_on() == {"worker-0.log": ["1"]}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can play several accounts")
def test_folder_to_follow_that_was_exchanged_for_a_link(node, tmp_path):
    shared = tmp_path / "shared"
    for name in ("alice", "bob"):
        (shared / name).mkdir(parents=True)
        write(shared / name / "x.log", [name])
    os.chown(shared, 1234, 1234)
    for name in ("alice", "bob"):
        (node.logs / f"worker-{name}.log").symlink_to(shared / name / "x.log")
    node.settings["follow"] = [str(shared / "alice")]
    node.start()
    assert node.pass_on() == {"worker-alice.log": ["alice"]}
    node.files.end(clean=True)
    (shared / "alice").rename(shared / "alice.old")
    (shared / "alice").symlink_to("bob")
    os.chown(shared / "alice", 1234, 1234, follow_symlinks=False)
    node.shipped = {}
    node.start()
    assert node.pass_on() == {}
    assert "a link in `follow`" in node.refused()["alice"]


@pytest.mark.parametrize("names", [("x\udcff", "x\\xff"), ("a\nb", "a\\x0ab")])
def test_names_that_would_look_alike_have_copies_of_their_own(node, names):
    for name in names:
        write(node.logs / f"worker-{name}.log", [ascii(name)])
    node.start()
    assert sorted(line for lines in node.pass_on().values() for line in lines) == sorted(map(ascii, names))


def test_too_many_files_are_refused_and_the_others_stay_known(node):
    for number in range(60):
        write(node.logs / f"worker-{number}.log", ["1"])
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = max(int(name) for name in os.listdir("/dev/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + logfiles.SPARE + 40, limits[1]))
    try:
        node.start()
        first = node.pass_on()
        assert 0 < len(first) < 60
        assert set(node.refused().values()) <= {"too many open files", "it cannot be copied: Too many open files"}
        known = dict(node.files.sources[0].seen)
        assert node.pass_on() == first
        assert node.files.sources[0].seen == known
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert len(node.pass_on()) == 60
    assert all(lines == ["1"] for lines in node.shipped.values())


def test_device_whose_number_has_changed(node):
    write(node.logs / "worker-0.log", ["1"])
    write(node.logs / "worker-0.log.1", ["0"], age=9)
    node.start()
    node.pass_on()
    node.files.end(clean=True)
    known = json.loads((node.state / "files.json").read_text())
    for entry in known["files"]:
        entry["key"][0] += 1
    (node.state / "files.json").write_text(json.dumps(known))
    write(node.logs / "worker-0.log", ["2"])
    node.shipped = {}
    node.start()
    assert node.pass_on() == {"worker-0.log": ["2"]}
    assert len(node.files.sources[0].files) == 2


def test_copies_that_are_read_make_room(node, monkeypatch):
    monkeypatch.setattr(logfiles, "HELD", 1 << 20)
    for number in range(20):
        write(node.logs / f"worker-{number}.log", ["x" * 99] * 2000)
    node.start()
    end = time.monotonic() + 60
    while time.monotonic() < end:
        node.feed()
        node.read()
        held = node.files.sources[0].copy.written
        if held <= 1 << 20 and sum(map(len, node.shipped.values())) == 20 * 2000:
            break
        time.sleep(0.05)
    assert held <= 1 << 20
    assert {name: len(lines) for name, lines in node.pass_on().items()} == {f"worker-{n}.log": 2000 for n in range(20)}


@pytest.mark.parametrize("join", [True, False])
@pytest.mark.parametrize("seed", range(8))
def test_any_sequence_of_what_programs_and_services_do(node, monkeypatch, seed, join):
    """Every line that was there at two looks arrives, in the order of its file, and once where all stops were clean"""
    monkeypatch.setattr(logfiles, "UNFINISHED", 0)
    monkeypatch.setattr(logfiles, "LARGEST", 4 << 10)
    monkeypatch.setattr(logfiles, "AHEAD", 3 << 10)
    monkeypatch.setattr(logfiles, "STALE", 0)  # two copies can have the same length
    monkeypatch.setattr(logfiles, "TURN", 700)
    monkeypatch.setattr(positions, "REWIND", 500)
    monkeypatch.setattr(logfiles.Copy, "roll", at_once)
    node.settings["join"] = join
    print(f"seed {seed}")
    chance, written, number, clean_only = random.Random(seed), {}, 0, seed % 2 == 0  # noqa: S311
    logs = [node.logs / f"worker-{name}.log" for name in "ab"]
    node.start()
    for _step in range(120):
        path = chance.choice(logs)
        what = chance.choice(["append"] * 8 + ["rotate", "truncate", "delete", "look", "look", "read", "start"])
        if what == "append":
            count = chance.choice([1, 5, 40])
            text = [f"2026-{path.name[7]}-{number + n:06d} {'x' * chance.randrange(60)}" for n in range(count)]
            text[1:1] = [f"  of {number} {n}\x1e\x1b[0m" for n in range(chance.choice([0, 0, 3]))]
            number += count
            write(path, text)
            written.setdefault(path.name, []).extend(text)
        elif what == "rotate" and path.exists():
            for old in range(40, 0, -1):
                if (one := path.with_name(f"{path.name}.{old}")).exists():
                    one.rename(path.with_name(f"{path.name}.{old + 1}"))
            path.rename(f"{path}.1")
        elif what in ("truncate", "delete") and path.exists():
            node.pass_on()  # else lines go that nobody has seen
            os.truncate(path, 0) if what == "truncate" else path.unlink()
            node.feed()
        elif what == "look":
            node.feed()
        elif what == "read":
            node.read()
        elif what == "start":
            clean = clean_only or chance.random() < 0.5
            if clean:
                node.files.end(clean=True)
            else:
                node.files.save(clean=False)
            for source in node.files.sources:
                for log in source.logs.values():
                    for file in log.generations:
                        os.close(file.handle)
            node.start()
    node.pass_on()
    shipped = {name: lines for name, lines in node.pass_on().items() if lines}
    for name, lines in written.items():
        once = list(dict.fromkeys(shipped[name]))
        lines = [line.removesuffix("\x1b[0m") for line in lines] if join else lines
        assert once == lines, f"{set(lines) - set(once)} of {name} is missing, or the order is another one"
        assert not clean_only or shipped[name] == lines


def at_once(copy: logfiles.Copy, _now: float, _largest: int) -> None:
    """Roll as soon as the agent has read all: this one sees a new copy at once."""
    if copy.handle is not None and copy.written and copy.consumed == copy.written:
        copy.open()


def test_inode_of_an_empty_file_says_nothing_about_the_next_one(node):
    write(node.logs / "worker-0.log", [])
    node.start()
    node.files.end(clean=True)
    (node.logs / "worker-0.log").unlink()
    write(node.logs / "worker-1.log", ["1"])
    status = (node.logs / "worker-1.log").stat()
    known = json.loads((node.state / "files.json").read_text())
    known["files"][0]["key"] = [status.st_dev, status.st_ino]
    (node.state / "files.json").write_text(json.dumps(known))
    node.start()
    assert node.pass_on() == {"worker-1.log": ["1"]}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can play several accounts")
def test_account_that_swaps_all_the_time_gets_nothing_and_stops_nothing(node, tmp_path):
    """Two seconds of links, folders, FIFOs and hard links that come and go under the watched names"""
    secret = tmp_path / "secret"
    secret.mkdir(mode=0o700)
    write(secret / "worker-x.log", ["SECRET"])
    node.settings["paths"] = [f"{node.logs}/**/worker-*.log"]
    for folder in (node.logs, node.logs / "sub"):
        folder.mkdir(exist_ok=True)
        os.chown(folder, 1234, 1234)
    logs, sub = (os.open(folder, os.O_RDONLY | os.O_DIRECTORY) for folder in (node.logs, node.logs / "sub"))
    done = threading.Event()

    def swap(seed: int) -> None:
        chance, number = random.Random(seed), 0  # noqa: S311
        while not done.is_set():
            number += 1
            made = node.logs / f".{seed}"
            try:
                kind = chance.choice(["link", "folder", "fifo", "hard", "file", "swap", "gone"])
                if kind in ("link", "folder"):
                    made.symlink_to(secret / "worker-x.log" if kind == "link" else secret)
                    os.chown(made, 1234, 1234, follow_symlinks=False)
                elif kind == "fifo":
                    os.mkfifo(made)
                elif kind == "hard":
                    os.link(secret / "worker-x.log", made)
                elif kind == "file":
                    with made.open("x") as file:
                        file.write(f"{number}\n")
                elif kind == "swap":
                    (node.logs / "sub").rename(made)
                    (node.logs / "sub").symlink_to(secret)
                    (node.logs / "sub").unlink()
                    made.rename(node.logs / "sub")
                    continue
                if made.is_symlink() or made.exists():
                    # By handle: through the link `sub` root would replace the secret, which no other account can.
                    folder, name = chance.choice(
                        [(logs, "worker-a.log"), (logs, "worker-b.log"), (sub, "worker-x.log")]
                    )
                    os.rename(made, name, dst_dir_fd=folder)
            except OSError:
                with contextlib.suppress(OSError):
                    made.unlink()

    threads = [threading.Thread(target=swap, args=(seed,)) for seed in (1, 2)]
    write(node.logs / "worker-own.log", ["own"])
    node.start()
    for thread in threads:
        thread.start()
    try:
        end = time.monotonic() + 2
        while time.monotonic() < end:
            node.feed()
            node.read()
    finally:
        done.set()
        for thread in threads:
            thread.join()
        os.close(logs)
        os.close(sub)
    shipped = {line for lines in node.pass_on().values() for line in lines}
    assert "own" in shipped
    assert "SECRET" not in shipped
    files = [file for log in node.files.sources[0].logs.values() for file in log.generations]
    opened = [path for path in map(target, os.listdir("/dev/fd")) if path.startswith(str(tmp_path))]
    assert len(opened) == len(files) + len(node.files.sources)


def target(number: str) -> str:
    """What an open file of this process is; empty when it is closed by now."""
    try:
        return os.readlink(f"/dev/fd/{number}")
    except OSError:
        return ""


def test_own_log_is_shipped_but_no_log_of_training(node):
    write(node.logs / "worker-0.log", lines(3))
    node.others.append({"name": "own", "paths": [f"{node.run}/health.log"]})
    write(node.run / "health.log", ["{}", "{}"])
    node.start()
    assert node.files.totals() == (1, (node.logs / "worker-0.log").stat().st_size)
    assert node.files.folders() == [str(node.logs)]
    assert node.pass_on() == {"worker-0.log": lines(3), "health.log": ["{}", "{}"]}
    node.files.keep()
    report = json.loads((node.run / "watch.json").read_text())
    assert [one["path"] for one in report["files"]] == [str(node.logs / "worker-0.log")]
    assert (report["count"], report["backlog"]) == (1, 0)
