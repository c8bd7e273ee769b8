"""The program on the nodes that sets positions back, on real files; the positions file is as Promtail writes it."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

PROGRAM = Path(__file__).resolve().parents[2] / "roles" / "promtail" / "files" / "positions.py"
spec = importlib.util.spec_from_file_location("positions", PROGRAM)
positions = importlib.util.module_from_spec(spec)
spec.loader.exec_module(positions)

START = r"^\d{4}-\d{2}-\d{2} "
STARTS = [re.compile(START.encode())]


class Node:
    """A state folder and a log file, and the service's calls on them.

    Parameters:
        folder: an empty folder.
    """

    def __init__(self, folder: Path) -> None:
        self.state, self.log = folder / "state", folder / "worker-rank0-mini1.log"
        self.state.mkdir()
        (folder / "settings.json").write_text(json.dumps({"entry_starts": [START]}))
        self.settings = folder / "settings.json"

    def saved(self, position: int) -> None:
        """Write the positions file as Promtail does."""
        (self.state / "positions.yaml").write_text(f'positions:\n  {self.log}: "{position}"\n')

    def call(self, action: str, result: str = "") -> str:
        """Run the program as the unit does; returns what it says."""
        done = subprocess.run(
            [sys.executable, PROGRAM, action, self.state, self.settings],
            env=os.environ | {"SERVICE_RESULT": result},
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stderr

    def position(self) -> int | None:
        """Where Promtail would begin to read the log."""
        text = (self.state / "positions.yaml").read_text()
        return int(json.loads(text)["positions"].get(str(self.log), -1))


@pytest.fixture
def node(tmp_path) -> Node:
    """A node whose log has 20,000 entries, every tenth with two further lines."""
    node = Node(tmp_path)
    entries = [
        f"2026-11-23 10:00:00,000 | INFO | rank:0 | step:{number:06d}\n" + "  more\n  yet more\n" * (number % 10 == 0)
        for number in range(20_000)
    ]
    node.log.write_text("".join(entries))
    return node


def test_clean_stop_leaves_positions_as_they_are(node):
    size = node.log.stat().st_size
    node.saved(size)
    node.call("stop", "success")
    assert node.call("start") == ""
    assert node.position() == size


@pytest.mark.parametrize("result", ["signal", "timeout", "oom-kill", None])
def test_unclean_stop_goes_back_to_the_beginning_of_an_entry(node, result):
    size = node.log.stat().st_size
    node.saved(size)
    if result:  # none is a power cut: nobody was there to call
        node.call("stop", result)
    said = node.call("start")
    back = size - node.position()
    assert f"{back} bytes of 1 files are read again" in said
    assert positions.REWIND <= back < positions.REWIND + 200
    assert node.log.read_bytes()[node.position() :].startswith(b"2026-11-23 ")


def test_never_farther_back_than_where_the_agent_began(node):
    size = node.log.stat().st_size
    node.saved(size)
    node.call("stop", "success")
    node.call("start")
    for more in (1000, 2000):
        with node.log.open("a") as log:
            log.write("2026-11-23 10:00:01,000 | INFO | rank:0 | new\n" * 50)
        node.saved(size + more)
        node.call("stop", "signal")
        node.call("start")
        assert node.position() == size


@pytest.mark.parametrize("longer", [False, True])
@pytest.mark.parametrize("result", ["success", "signal"])
def test_replaced_file_is_read_from_its_beginning(node, longer, result):
    size = node.log.stat().st_size
    node.saved(size)
    node.call("stop", result)
    text = node.log.read_text().replace("10:00:00", "11:00:00")
    node.log.write_text(text * 2 if longer else text[:500])
    node.call("start")
    assert node.position() == 0


def test_file_that_grew_from_less_than_the_head_is_the_same_file(node):
    text = node.log.read_text()
    node.log.write_text(text[:300])
    node.saved(300)
    node.call("stop", "success")
    node.log.write_text(text)
    node.call("start")
    assert node.position() == 300


def test_file_moved_away_in_an_outage_is_not_taken_for_its_successor(node):
    size = node.log.stat().st_size
    node.saved(size)
    node.call("start")
    # The agent reads on in the old file while the new one grows; then it is killed.
    node.log.rename(f"{node.log}.1")
    node.log.write_text("2026-11-23 12:00:00,000 | INFO | rank:0 | new\n" * 40_000)
    node.saved(size)
    node.call("stop", "signal")
    node.call("start")
    assert node.position() == 0


@pytest.mark.parametrize("damage", [b"", b"\0" * 200, b"positions:\n  /srv/a.log: '12", b"positions: [", b"\xff\xfe"])
def test_damaged_positions_give_way_to_where_the_agent_began(node, damage):
    size = node.log.stat().st_size
    node.saved(size)
    node.call("stop", "success")
    node.call("start")
    (node.state / "positions.yaml").write_bytes(damage)
    node.call("stop", "success")
    assert "is damaged" in node.call("start")
    assert size - positions.REWIND - 200 < node.position() <= size


def test_missing_positions_mean_that_all_is_read(node):
    node.saved(node.log.stat().st_size)
    node.call("stop", "success")
    (node.state / "positions.yaml").unlink()
    node.call("start")
    assert node.position() == -1


def test_progress_bars_count_as_what_promtail_keeps_of_them(tmp_path):
    node = Node(tmp_path)
    frame = "".join(f"\r{percent:3d}%|####    | {percent}/100" for percent in range(100))
    with node.log.open("w") as log:
        for number in range(9000):
            log.write(f"{frame}\r\x1b[2m2026-11-23 10:00:00,000\x1b[0m | INFO | rank:0 | {number} {'x' * 40}\n")
    size = node.log.stat().st_size
    node.saved(size)
    node.call("start")
    kept = (size - node.position()) / (len(frame) + 90) * 90
    assert kept == pytest.approx(positions.REWIND, rel=0.1)


def test_line_longer_than_all_that_is_gone_back_is_read_whole(node):
    node.log.write_text("2026-11-23 10:00:00,000 | INFO | rank:0 | " + "x" * 3 * positions.REWIND + "\n")
    node.saved(node.log.stat().st_size)
    node.call("start")
    assert node.position() == 0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("positions: {}\n", {}),
        (
            'positions:\n  /srv/a.log: "12"\n  /srv/with space.log: "3"\n',
            {"/srv/a.log": "12", "/srv/with space.log": "3"},
        ),
        ("positions:\n  '/srv/it''s: #1.log': \"12\"\n", {"/srv/it's: #1.log": "12"}),
        ('positions:\n  "/srv/caf\\u00e9.log": "12"\n', {"/srv/café.log": "12"}),
        (f'positions:\n  ? /srv/{"x" * 200}.log\n  : "12"\n', {f"/srv/{'x' * 200}.log": "12"}),
        ('{"positions": {"/srv/a.log": "12"}}', {"/srv/a.log": "12"}),
        ("positions:\n  cursor-journal: s=1;i=2\n", {"cursor-journal": "s=1;i=2"}),
    ],
)
def test_form_of_the_positions_file(text, expected):
    assert positions.parse(text) == expected


def test_other_positions_are_kept(node):
    (node.state / "positions.yaml").write_text("positions:\n  cursor-journal: s=1;i=2\n")
    node.call("start")
    assert positions.parse((node.state / "positions.yaml").read_text()) == {"cursor-journal": "s=1;i=2"}


def test_full_disk_means_that_all_is_read_again(node, monkeypatch, capsys):
    node.saved(node.log.stat().st_size)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(positions, "write", full)
    positions.start(node.state, STARTS)
    assert list(node.state.iterdir()) == []
    assert "everything is read again" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("written", "path"),
    [
        (r"/a/server-\U0001F600.log", "/a/server-\U0001f600.log"),
        (r"/a/b\x07\e\"c\\.log", '/a/b\x07\x1b"c\\.log'),
        (r"/a/\u00fc\_\N.log", "/a/\u00fc\xa0\x85.log"),
    ],
)
def test_escapes_of_yaml_are_understood(written, path):
    assert positions.parse(f'positions:\n  "{written}": "7"\n') == {path: "7"}


def test_what_is_written_is_yaml_and_read_again(tmp_path):
    odd = "/a/" + "".join(map(chr, [0x7F, 0x85, 0x9F, 0x2028, 0xFEFF, 0x1F600, 0xFC])) + ".log"
    positions.write(tmp_path / "positions.yaml", {"positions": {odd: "7"}})
    text = (tmp_path / "positions.yaml").read_text("utf-8")
    assert positions.parse(text) == yaml.safe_load(text)["positions"] == {odd: "7"}


def test_unknown_escape_is_damage():
    with pytest.raises(positions.DamagedError):
        positions.parse('positions:\n  "/a/\\q.log": "7"\n')


def test_positions_of_files_with_unusual_names_are_kept(node):
    node.log.rename(node.log.with_name("emo\U0001f600.log"))
    (node.state / "positions.yaml").write_text(f'positions:\n  "{node.log.parent}/emo\\U0001F600.log": "100"\n')
    node.call("stop", "success")
    assert "damaged" not in node.call("start")
    text = (node.state / "positions.yaml").read_text("utf-8")
    assert json.loads(text)["positions"] == {f"{node.log.parent}/emo\U0001f600.log": "100"}
    assert "\U0001f600" in text


@pytest.mark.parametrize(
    "text", ['{"clean":1,"started":[],"heads":7}', '{"clean":1,"started":{"a":[]},"heads":{}}', "[]"]
)
def test_damaged_checkpoint_counts_as_none(node, text):
    node.saved(100)
    (node.state / "checkpoint.json").write_text(text)
    node.call("start")
    assert node.position() == 0
