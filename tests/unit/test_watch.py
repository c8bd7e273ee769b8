"""The watcher's report belongs to the agent's account: it is read as data, and nothing else than a file is."""

from __future__ import annotations

import json
import os

import pytest
from ansible_collections.smolcluster.logging.plugins.module_utils import watch

WHOLE = {
    "count": 2,
    "backlog": 7,
    "files": [{"path": "/a.log", "read": 3, "size": 10}],
    "refused": [{"path": "/b.log", "reason": "a FIFO"}],
    "left_out": [{"path": "/c.log", "bytes": 9}],
    "equal": [{"path": "/d.log", "lines": 2}],
    "unsaved": "",
}


@pytest.fixture
def file(tmp_path):
    """Where a report is to be."""
    return tmp_path / "watch.json"


def test_report_is_read(file):
    file.write_text(json.dumps(WHOLE))
    found = watch.report(str(file))
    assert found == watch.Report(2, 7, {"/a.log": (3, 10)}, {"/b.log": "a FIFO"}, {"/c.log": 9}, {"/d.log": 2}, "")


@pytest.mark.parametrize("text", ["", "null", "[]", "x", "{}", json.dumps(WHOLE | {"files": [1]}), "[" * 99999])
def test_something_else_is_no_report(file, text):
    file.write_text(text)
    assert watch.report(str(file)) is None


def test_link_and_fifo_are_no_report(file):
    assert watch.report(str(file)) is None
    file.with_name("other").write_text(json.dumps(WHOLE))
    file.symlink_to("other")
    assert watch.report(str(file)) is None
    file.unlink()
    os.mkfifo(file)
    assert watch.report(str(file)) is None


def test_report_is_not_read_without_end(file, monkeypatch):
    monkeypatch.setattr(watch, "LARGEST", 10)
    file.write_text(json.dumps(WHOLE))
    assert watch.report(str(file)) is None


def test_text_of_others_is_shown_on_one_line_and_without_control_characters():
    assert watch.printable("/a\x1b[2J\n") == "/a?[2J?"
    assert len(watch.printable("x" * 9999)) == 1024
