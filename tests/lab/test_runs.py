"""Training runs: recorded beside the lines, distinguished by node and time, and listed with what their lines say."""

from __future__ import annotations

import time

import pytest

from plugins.module_utils import loki, runs
from plugins.module_utils.runs import RunError, Runs
from tests.lab.harness import CONTROLLER, MINIS, Lab

MINUTE = 60 * loki.SECOND


class Story:
    """Lines of nodes that only this test has, over the last hours, pushed to the lab's Loki.

    Parameters:
        lab: the running lab.
    """

    def __init__(self, lab: Lab) -> None:
        self.url = lab.loki_url
        self.begin = time.time_ns() - 240 * MINUTE
        self.mark = format(time.time_ns(), "x")

    def name(self, text: str) -> str:
        """A name of a run or node that no other test uses."""
        return f"{text}-{self.mark}"

    def at(self, minute: float) -> int:
        """Time of a minute of the story, nanoseconds since 1970."""
        return self.begin + int(minute * MINUTE)

    def runs(self, minute: float) -> Runs:
        """The runs as they are known at a minute of the story."""
        return Runs(self.url, now=self.at(minute))

    def line(self, minute: float, node: str, rank: str, level: str = "INFO") -> None:
        """Store a line of a rank."""
        labels = {"job": "smolcluster-worker", "node": self.name(node), "rank": rank, "level": level}
        loki.push(self.url, labels, f"{level} at {minute}", self.at(minute))

    def start(self, minute: float, run: str, *nodes: str) -> bool:
        """Start a run; returns whether it is new."""
        return self.runs(minute).start(self.name(run), [self.name(node) for node in nodes])[1]

    def found(self, minute: float, run: str) -> dict:
        """What is known of a run at a minute of the story; times are minutes of the story."""
        known = self.runs(minute)
        found = known.complete(known.named(self.name(run))).shown()
        for key in ("start", "end", "last_line"):
            if found[key] is not None:
                found[key] = round((found[key] - self.begin / 1e9) / 60, 2)
        return {key: value for key, value in found.items() if key not in ("name", "nodes")}


@pytest.fixture
def story(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Story:
    """See `Story`. Its records have their own stream: Loki refuses what is 1 h older than the newest of a stream."""
    story = Story(lab)
    monkeypatch.setattr(runs, "STREAM", runs.STREAM | {"component": story.mark})
    return story


def test_run_has_the_lines_of_its_nodes_between_start_and_end(story: Story):
    for minute in (0, 1, 2, 5, 6):
        story.line(minute, "a", "0")
        story.line(minute, "other", "0")
    story.line(3, "b", "10", "ERROR")
    story.line(4, "b", "2", "CRITICAL")
    story.line(3, "a", "verify")  # from verify.yml
    assert story.start(1, "gpt", "a", "b")
    running = {"start": 1, "end": None, "end_recorded": False, "last_line": 4, "lines": 4, "errors": 2}
    running["ranks"] = ["0", "2", "10"]
    assert story.found(4.5, "gpt") == running
    assert story.runs(5).finish(story.name("gpt"))[1]
    assert story.found(200, "gpt") == running | {"end": 5, "end_recorded": True, "last_line": 5, "lines": 5}
    assert not story.runs(9).finish(story.name("gpt"))[1], "the first end counts"
    assert story.found(200, "gpt")["end"] == 5


def test_silence_ends_a_run_at_its_last_line(story: Story):
    story.start(0, "gpt", "a")
    # Loading a model may take longer than the silence that ends a run.
    for minute in (15, 20, 29.5):
        story.line(minute, "a", "0")
    story.line(90, "a", "0")
    assert story.found(14, "gpt")["end"] == 0, "no line for longer than the silence"
    assert story.found(30, "gpt")["end"] is None
    for later in (60, 120, 200):
        found = story.found(later, "gpt")
        assert (found["end"], found["end_recorded"], found["lines"]) == (29.5, False, 3)
    assert not story.runs(60).finish(story.name("gpt"))[1], "its end is known"


def test_runs_at_once_differ_by_node_and_refused_on_the_same_node(story: Story):
    story.start(0, "left", "a", "b")
    for minute in range(0, 60, 5):
        story.line(minute, "a", "0")
        story.line(minute, "c", "0", "ERROR")
    assert story.start(10, "right", "c", "d")
    with pytest.raises(RunError, match=f"left-{story.mark}.* still runs on {story.name('b')}.*run_end=left"):
        story.start(20, "third", "b", "e")
    assert story.found(58, "left")["errors"] == 0
    assert story.found(58, "right")["errors"] == story.found(58, "right")["lines"] == 10
    story.runs(20).finish(story.name("left"))
    assert story.start(21, "third", "b", "e")
    # The next run on a node ends the one before, also without silence between them.
    assert story.found(200, "left")["lines"] == 5


def test_a_name_is_used_once_and_a_start_may_be_repeated(story: Story):
    assert story.start(0, "gpt", "a")
    story.line(0.5, "a", "0")
    assert not story.start(1, "gpt", "a"), "the launch was repeated"
    with pytest.raises(RunError, match="it still runs on"):
        story.start(1, "gpt", "b")
    story.runs(2).finish(story.name("gpt"))
    with pytest.raises(RunError, match=r"it has ended\. Use another name"):
        story.start(3, "gpt", "a")
    with pytest.raises(RunError, match=f"no run gpd-{story.mark}. Similar names: gpt-{story.mark}"):
        story.runs(3).finish(story.name("gpd"))
    for name in ("", "two words", "-x", "a" * 101, "x\n", "ü"):
        with pytest.raises(RunError, match="cannot be the name of a run"):
            story.runs(3).start(name, ["a"])


def test_lines_of_others_in_the_stream_of_records_do_no_harm(story: Story):

    for number, text in enumerate(("no JSON", "[]", '{"run": "x"}', '{"run": "x", "event": "start"}', "null", "1")):
        loki.push(story.url, runs.STREAM, f"{text}", story.at(number))
    story.start(10, "gpt", "a")
    assert story.found(11, "gpt")["lines"] == 0


def test_playbook_starts_everything_records_the_run_and_says_what_holds(lab: Lab):
    name = f"gpt-{time.time_ns():x}"
    lab.on(MINIS[1], "systemctl stop promtail")
    edited = {MINIS[2]: "/etc/promtail/promtail.yml", CONTROLLER: "/opt/smolcluster-logging/loki/loki.yml"}
    for host, path in edited.items():
        lab.on(host, f"echo '# edited' >> {path}")
    play = lab.play("playbooks/start.yml", run=name)
    assert play.code == 0, play.output
    assert lab.on(MINIS[1], "systemctl is-active promtail") == "active"
    assert all(lab.on(host, f"grep -c edited {path} || true") == "0" for host, path in edited.items())
    # Only hosts that differ are deployed.
    assert [play.recap[host.name]["changed"] for host in MINIS] == [0, 1, 1], play.output
    assert play.recap["mini1"]["ok"] < play.recap["mini2"]["ok"]
    rows = [line.split() for line in play.output.splitlines()]
    assert [row[0] for row in rows if "runs" in row[2:3]] == ["mini1", "mini2", "mini3"]
    assert [name, "running"] == [row[i] for row in rows if row[:1] == [name] for i in (0, 3)]
    again = lab.play("playbooks/start.yml", run=name)
    assert (again.code, again.changed()) == (0, 0), again.output
    assert "Switch | " not in again.output and "Project | " not in again.output
    refused = lab.play("playbooks/start.yml", run=f"{name}-b", run_nodes="mini2")
    assert refused.code != 0
    assert f"the run {name} of" in refused.output
    ended = lab.play("playbooks/start.yml", run_end=name)
    assert (ended.code, ended.changed()) == (0, 1), ended.output
    listed = lab.play("playbooks/runs.yml", run=name)
    assert listed.code == 0 and name in listed.output and "running" not in listed.output, listed.output


def test_a_start_that_cannot_be_recorded_changes_nothing(lab: Lab):
    for variables in ({"run": "two words"}, {"run": "x", "run_nodes": "mini9"}, {"run": "x", "run_end": "y"}):
        play = lab.play("playbooks/start.yml", **variables)
        assert play.code != 0
        assert "run_nodes is a list of nodes of the inventory" in play.output
        assert play.changed() == 0 and "Agents" not in play.output
