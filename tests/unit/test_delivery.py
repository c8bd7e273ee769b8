"""How verify.yml proves a path and leaves everything as it was, and what it says where it cannot."""

from __future__ import annotations

import json
import logging
import os
import random
import re
import shutil
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from ansible_collections.smolcluster.logging.plugins.module_utils import delivery, globs, host, loki, probe_file, watch
from ansible_collections.smolcluster.logging.plugins.module_utils.services.base import ServiceState

SAMPLE = "%(asctime)s | %(levelname)s | rank:verify | %(message)s"
TABLE = Path(__file__).resolve().parents[2] / "roles/agent/templates/verify.txt.j2"
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to act as another account")
SMOL = 64001  # an account without a name
RETRIED = (
    'level=warn ts=2026-11-23T22:40:59Z caller=client.go:419 msg="error sending batch, will retry" status=-1 tenant= '
    'error="Post \\"http://controller:3100/loki/api/v1/push\\": dial tcp: connection refused"'
)
HARMLESS = 'level=warn ts=2026-11-23T22:40:59Z caller=promtail.go:263 msg="enable watchConfig"'


@pytest.fixture
def place():
    """A folder that every account can reach, as those of pytest cannot be."""
    folder = Path(tempfile.mkdtemp(dir="/var/tmp")).resolve()
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def owned(path: Path, user: int, mode: int = 0o755) -> Path:
    """Make a folder of an account."""
    path.mkdir(parents=True)
    path.chmod(mode)
    os.chown(path, user, user)
    return path


@pytest.fixture
def node(monkeypatch, place):
    """A node whose agent and Loki are stand-ins: Loki shows what is in the files, as the node says."""
    node = SimpleNamespace(
        active_state="running", pid=1, journal="", skew=0.1, delivers=True, follows=True, answers=True, off=0.0,
        place=place, folder=place / "logs", unread=0, refused={}, seconds=[], queries=[], on_write=None,
    )  # fmt: skip
    node.folder.mkdir()

    class Service:
        def __init__(self, *_):
            pass

        log_command = "journalctl -u promtail"

        def state(self):
            return ServiceState(node.active_state, node.pid)

        def journal(self, _, seconds):
            node.seconds.append(seconds)
            return node.journal

    def files():
        return [path for path in node.folder.rglob("*") if path.is_file() and not path.is_symlink()]

    def skew(url):
        if node.skew is None:
            raise loki.NoAnswerError(f"{url} does not answer: refused")
        return node.skew

    def streams(_, query, start, end, limit=5000):
        node.queries.append(query)
        marker, name = re.search(r'\|= "(.*)"', query), re.search(r'filename="([^"]*)"', query)
        found = []
        for path in files() if node.delivers else []:
            moment = int((path.stat().st_mtime + node.off) * loki.SECOND)
            lines = [
                [str(moment), line]
                for line in path.read_text().splitlines()
                if (not marker or marker[1] in line) and start <= moment < end
            ]
            if lines and (not name or name[1] == str(path)):
                found.append({"stream": {"rank": "verify", "filename": str(path)}, "values": lines[:limit]})
        return found

    def ask(*_, **__):
        if not node.answers:
            raise loki.NoAnswerError("http://127.0.0.1:9080 does not answer: refused")
        return loki.Answer(200, {}, "")

    def report(_):
        sizes = {str(path): path.stat().st_size for path in files()} if node.follows else {}
        read = {path: (size - node.unread, size) for path, size in sizes.items()}
        return watch.Report(files=read, refused=node.refused)

    monkeypatch.setattr(host, "Service", Service)
    monkeypatch.setattr(loki, "ask", ask)
    monkeypatch.setattr(watch, "report", report)
    monkeypatch.setattr(loki, "skew", skew)
    monkeypatch.setattr(loki, "streams", streams)
    monkeypatch.setattr(delivery, "COUNTED", 0.6)
    monkeypatch.setattr(delivery, "NEAR", 0.2)
    append = probe_file.OwnFile.append

    def watched_append(file, line):
        if node.on_write:
            node.on_write(file)
        append(file, line)

    monkeypatch.setattr(probe_file.OwnFile, "append", watched_append)

    def probe(**options):
        defaults = {
            "loki_url": "http://192.0.2.10:3100",
            "http_port": 9080,
            "node": "mini1",
            "agent": "promtail",
            "path": f"{node.folder}/worker-*.log",
            "name": "",
            "exclude": "",
            "source": {},
            "sample": SAMPLE,
            "sample_time": "",
            "stages": [],
            "lines": 4,
            "timeout": 10 if node.delivers else 0.6,
            "zone": "Local",
        }
        return delivery.Probe(delivery.Options(**defaults | options), None)

    node.probe = probe
    node.left = lambda: sorted(str(path.relative_to(node.folder)) for path in node.folder.rglob("*"))
    return node


# By a new file


def test_all_lines_arrive_and_nothing_is_left(node):
    result = node.probe().run()
    assert (result["written"], result["delivered"], result["cause"]) == (4, 4, "")
    assert (result["proof"], result["not_probed"]) == ("Loki", "")
    assert result["labels"]["rank"] == "verify"
    assert set(result["latency"]) == {"p50", "p99", "max"}
    assert abs(result["time_error"]) < 1
    assert node.left() == []
    json.dumps(result)


def test_lines_are_asked_for_by_node_and_marker_around_now(node):
    node.probe(stages=[{"labeldrop": ["filename"]}]).run()
    assert {re.sub("verify-[0-9a-f]{12}x", "MARKER", query) for query in node.queries} == {'{node="mini1"} |= "MARKER"'}


def test_times_of_another_zone_are_found_and_named(node):
    node.off = -5.5 * 3600
    result = node.probe(timeout=20).run()
    assert result["delivered"] == 4
    assert "in another time zone. Set promtail_timezone" in result["cause"]
    assert any("filename=" in query for query in node.queries)


def test_no_folder_is_made(node):
    result = node.probe(path=f"{node.place}/missing/logs/worker-*.log").run()
    assert f"the folder {node.place}/missing/logs is missing" in result["not_probed"]
    assert (result["proof"], result["cause"], result["written"]) == ("", "", 0)
    assert not (node.place / "missing").exists()


def test_check_mode_writes_nothing(node):
    result = node.probe().look_only()
    assert (result["written"], result["not_probed"], result["clock_skew"]) == (0, "check mode writes no lines", 0.1)
    node.pid = 0
    assert "does not run" in node.probe().look_only()["cause"]
    assert node.left() == []


@as_root
@pytest.mark.parametrize("target", ["nowhere", "there", "/etc/planted-by-a-test"])
def test_planted_link_is_neither_followed_nor_removed(node, target):
    """Whoever owns the folder knows the name beforehand, in the worst case."""
    os.chown(node.folder, SMOL, SMOL)
    (node.folder / "there").write_text("private\n")
    probe = node.probe()
    link = node.folder / f"worker-{probe.marker}.log"
    link.symlink_to(target)
    result = probe.run()
    assert (result["written"], result["cause"]) == (0, "")
    assert result["not_probed"]
    assert os.readlink(link) == target
    assert (node.folder / "there").read_text() == "private\n"
    assert not Path("/etc/planted-by-a-test").exists()


@as_root
def test_link_put_in_place_after_the_second_line_gets_nothing(node):
    os.chown(node.folder, SMOL, SMOL)
    victim = node.place / "victim"
    victim.write_text("private\n")

    def swap(file):
        path = Path(file.path)
        if path.read_text().count("\n") == 2 and not path.is_symlink():
            path.rename(node.folder / "aside")
            path.symlink_to(victim)
            node.delivers = False

    node.on_write = swap
    node.probe(timeout=1).run()
    assert victim.read_text() == "private\n"
    (link,) = (path for path in node.folder.iterdir() if path.is_symlink())
    assert os.readlink(link) == str(victim)


@as_root
def test_file_has_the_owner_of_its_folder(node):
    os.chown(node.folder, SMOL, SMOL)
    owners = []
    node.on_write = lambda file: owners.append((os.stat(file.path).st_uid, oct(os.stat(file.path).st_mode)[-4:]))
    before = os.umask(0o077)
    try:
        assert node.probe().run()["proof"] == "Loki"
    finally:
        os.umask(before)
    assert set(owners) == {(SMOL, "0644")}


@as_root
def test_link_of_an_account_leads_only_where_that_account_may_write(node):
    owned(node.folder / "smol", SMOL)
    owned(node.folder / "private", 0)
    (node.folder / "smol/run").symlink_to(node.folder / "private")
    os.chown(node.folder / "smol/run", SMOL, SMOL, follow_symlinks=False)
    result = node.probe(path=f"{node.folder}/smol/run/worker-*.log").run()
    assert "cannot create a file in it" in result["not_probed"]
    assert "Permission denied" in result["not_probed"]
    os.chown(node.folder / "private", SMOL, SMOL)
    assert node.probe(path=f"{node.folder}/smol/run/worker-*.log").run()["proof"] == "Loki"
    assert node.left() == ["private", "smol", "smol/run"]


def test_file_that_training_writes_to_meanwhile_stays(node):
    """It opened the probe's file, by whatever chance."""

    def train(file):
        if Path(file.path).read_text().count("\n") == 2:
            with open(file.path, "a") as own:
                own.write("a line of training\n")

    node.on_write = train
    result = node.probe().run()
    assert "another program writes to" in result["not_probed"]
    (name,) = node.left()
    text = (node.folder / name).read_text().splitlines()
    assert text[2:] == ["a line of training"]


def test_file_that_training_makes_under_the_same_name_stays(node):
    def train(file):
        path = Path(file.path)
        if path.read_text().count("\n") == 2:
            path.unlink()
            path.write_text("a line of training\n")
            node.delivers = False

    node.on_write = train
    node.probe(timeout=1).run()
    (name,) = node.left()
    assert (node.folder / name).read_text() == "a line of training\n"


def test_file_that_is_gone_already_is_no_error(node):
    node.on_write = lambda file: Path(file.path).unlink(missing_ok=True)
    node.delivers = False
    assert node.probe().run()["cause"]


def test_end_by_a_signal_removes_the_file(node):
    def end(_):
        raise SystemExit

    node.on_write = end
    with pytest.raises(SystemExit):
        node.probe().run()
    assert node.left() == []


def test_lines_that_stages_join_count(node):
    """A multiline stage whose first line is another makes one entry of several lines."""
    probe = node.probe(stages=[{"multiline": {"firstline": "^x"}}])
    probe.written = {1: 0.0, 2: 0.0}
    (node.folder / "a").write_text(f"{probe.marker} 1 end; {probe.marker} 2 end\n")
    probe.look()
    assert set(probe.found) == {1, 2}


def test_slow_arrival_is_no_loss(node, monkeypatch):
    """In the second half of the time no more lines are written."""
    look = delivery.Probe.look
    began = time.monotonic()

    def slow(probe):
        if time.monotonic() > began + 0.7:
            look(probe)

    monkeypatch.setattr(delivery.Probe, "look", slow)
    result = node.probe(timeout=1, lines=500).run()
    assert (result["proof"], result["cause"]) == ("Loki", "")
    assert result["written"] == result["delivered"] == 1


def test_loki_that_restarts_in_the_meantime_is_waited_for(node, monkeypatch):
    streams, until = loki.streams, time.monotonic() + 0.5

    def restarted(*asked):
        if time.monotonic() < until:
            raise loki.NoAnswerError("http://192.0.2.10:3100 does not answer: refused")
        return streams(*asked)

    monkeypatch.setattr(loki, "streams", restarted)
    result = node.probe(timeout=3).run()
    assert (result["proof"], result["delivered"], result["cause"]) == ("Loki", 4, "")
    until += 60
    result = node.probe(timeout=0.6).run()
    assert result["cause"] == "this node cannot query Loki: http://192.0.2.10:3100 does not answer: refused"
    assert node.left() == []


# By counters


@pytest.mark.parametrize("stages", [[{"sampling": {"rate": 0.1}}], [{"json": {}}, {"output": {"source": "x"}}]])
def test_new_file_of_doubtful_stages_is_proven_by_the_lines_that_the_agent_read(node, stages):
    node.delivers = False
    result = node.probe(stages=stages, timeout=10).run()
    assert (result["proof"], result["cause"], result["not_probed"]) == ("counters", "", "")
    assert (result["written"], result["delivered"]) == (1, 0)
    node.follows = False
    result = node.probe(stages=stages, timeout=10).run()
    assert (result["proof"], result["not_probed"]) == ("", "")
    assert "the agent does not follow" in result["cause"]


def test_doubtful_stages_that_leave_the_lines_alone_are_proven_by_loki(node):
    assert node.probe(stages=[{"match": {"selector": '{job="x"}'}}]).run()["proof"] == "Loki"


def test_counters_are_no_proof_while_the_agent_cannot_deliver(node):
    node.delivers, node.journal = False, RETRIED
    result = node.probe(stages=[{"drop": {}}]).run()
    assert result["proof"] == ""
    assert "the agent cannot deliver: level=warn" in result["cause"]


def test_json_gets_json():
    line = delivery.sample_of([{"json": {"expressions": {"level": ""}}}], "%(message)s") % {"message": "verify-1 1 end"}
    assert json.loads(line) == {"message": "verify-1 1 end"}


@pytest.mark.parametrize(
    ("stages", "doubts"),
    [
        ([], []),
        ([{"regex": {"expression": "x"}}, {"labels": {"level": ""}}, {"timestamp": {}}, {"multiline": {}}], []),
        ([{"labels": {"node": "x"}}, {"static_labels": {"node": "x"}}], ["labels", "static_labels"]),
        ([{"labeldrop": ["filename"]}, {"labelallow": ["node", "job"]}], []),
        ([{"labeldrop": ["node"]}, {"labelallow": ["job"]}], ["labelallow", "labeldrop"]),
        ([{one: {}} for one in "drop match sampling limit output pack json tenant replace cri docker".split()],
         sorted("drop match sampling limit output pack json tenant replace cri docker".split())),
        ([{"decolorize": None}], []),
    ],
)  # fmt: skip
def test_stages_that_may_change_or_drop_a_line(stages, doubts):
    assert delivery.doubtful(stages) == doubts


def test_path_of_one_file_is_proven_by_what_the_agent_read_of_it(node):
    (node.folder / "train.log").write_text('{"step": 1}\n')
    before = (node.folder / "train.log").stat()
    result = node.probe(path=f"{node.folder}/train.log").run()
    assert (result["proof"], result["cause"], result["not_probed"], result["written"]) == ("counters", "", "", 0)
    assert result["newest_line"] == pytest.approx(0, abs=5)
    assert result["labels"]["rank"] == "verify"
    after = (node.folder / "train.log").stat()
    assert (after.st_mtime_ns, after.st_ino, after.st_size) == (before.st_mtime_ns, before.st_ino, before.st_size)
    assert (node.folder / "train.log").read_text() == '{"step": 1}\n'


def test_lines_that_the_agent_did_not_read_prove_nothing(node):
    node.delivers, node.unread = False, 1
    result = node.probe(stages=[{"drop": {}}]).run()
    assert result["proof"] == ""
    read, size = map(int, re.search(r"has read (\d+) of (\d+) bytes of the file", result["cause"]).groups())
    assert read == size - 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, "The agent follows no file with that path"),
        ({"text": ""}, "train.log is empty"),
        ({"text": "x\n", "unread": 1}, "The agent did not read"),
        ({"text": "x\n", "delivers": False}, "but Loki has no line with that filename"),
        ({"text": "x\n", "delivers": False, "journal": RETRIED}, "with that filename: level=warn"),
        ({"text": "x\n", "delivers": False, "journal": HARMLESS}, "but Loki has no line with that filename"),
    ],
)
def test_path_of_one_file_that_shows_nothing_is_not_probed(node, change, words):
    text = change.pop("text", None)
    if text is not None:
        (node.folder / "train.log").write_text(text)
    vars(node).update(change)
    result = node.probe(path=f"{node.folder}/train.log").run()
    assert (result["proof"], result["cause"]) == ("", "")
    assert result["not_probed"].startswith("the path names one file, and only training writes to it. ")
    assert words in result["not_probed"]
    assert "watchConfig" not in result["not_probed"]


def test_file_that_the_agent_is_not_given_is_named_with_the_reason(node):
    reason = "a link to /etc/shadow, outside the folders of the sources"
    (node.folder / "rank0.log").symlink_to("/etc/shadow")
    node.refused = {f"{node.folder}/rank0.log": reason}
    result = node.probe(path=f"{node.folder}/rank0.log").run()
    assert (result["cause"], result["not_probed"]) == (f"not shipped: {node.folder}/rank0.log: {reason}", "")
    # Of several files one that is not given is no reason that others would not be.
    result = node.probe(path=f"{node.folder}/rank[0-9].log").run()
    assert result["not_probed"].endswith(f"Not shipped: {node.folder}/rank0.log: {reason}")
    node.refused = {str(node.folder): reason}
    assert node.probe(path=f"{node.folder}/rank[0-9].log").run()["cause"].startswith("not shipped: ")


# Causes


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"pid": 0}, "the agent does not run"),
        ({"pid": 0, "active_state": "absent"}, "the agent is not installed"),
        ({"answers": False}, "the agent runs, but http://127.0.0.1:9080 does not answer"),
        ({"follows": False}, "shipped say nothing about that file. If smolcluster_log_sources was changed since"),
        ({"follows": False, "journal": HARMLESS}, "shipped say nothing about that file"),
        (
            {"follows": False, "journal": "level=error msg=x path=/srv/other.log: permission denied"},
            "nothing about that",
        ),
        ({"skew": 7200.0}, "clock is 7200 s ahead of Loki's"),
        ({"journal": f"{RETRIED}\n{HARMLESS}"}, "the agent cannot deliver: level=warn ts=2026-11-23T22:40:59Z"),
        (
            {"journal": HARMLESS},
            "1 of 1 lines were not found in Loki within 0.6 s. The agent has read",
        ),
        ({}, "bytes of the file. Its log of this time"),
        ({"skew": None}, "this node cannot query Loki: http://192.0.2.10:3100 does not answer"),
    ],
)
def test_cause_of_missing_lines_comes_from_evidence(node, change, words):
    vars(node).update({"delivers": False} | change)
    result = node.probe().run()
    assert words in result["cause"]
    assert "watchConfig" not in result["cause"]
    assert (result["delivered"], result["proof"], result["not_probed"]) == (0, "", "")
    assert all(seconds <= 10 for seconds in node.seconds)  # of this time only
    assert node.left() == []


def test_error_about_the_file_itself_is_a_cause(node):
    node.delivers = node.follows = False

    def refuse(file):
        node.journal = f'level=error msg="failed to start tailer" error="open {file.path}: permission denied"'

    node.on_write = refuse
    assert "permission denied" in node.probe().run()["cause"]


def test_folder_that_the_agent_is_not_given_is_the_cause(node):
    node.delivers = node.follows = False
    reason = "a link that leads to /etc, outside its source's folder"
    node.refused = {f"{node.folder}-2": "x", str(node.folder): reason}
    assert node.probe().run()["cause"] == f"not shipped: {node.folder}: {reason}"


def test_what_the_watcher_reports_is_only_text(node):
    node.delivers = node.follows = False
    node.refused = {str(node.folder): "a\x1b[2Jb\nc" + "x" * 5000}
    cause = node.probe().run()["cause"]
    assert "a?[2Jb?cx" in cause
    assert len(cause) < 1100


# Names


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        ("worker-*.log", "worker-MARK.log"),
        ("worker-?.log", "worker-~.log"),
        ("worker-[^0-9].log", "worker-~.log"),
        ("worker-[!~]-*.log", "worker-=-MARK.log"),
        ("[wx]orker[0-9]-*", "worker0-MARK"),
        (r"a\*b\[c\]-*", "a*b[c]-MARK"),
        ("two words-*.log", "two words-MARK.log"),
        (r"[\]a-]-*", "a-MARK"),
        ("[ä-ü]*", "äMARK"),
        ("*.*", "MARK."),
        ("**.log", "MARK.log"),
        ("train.log", None),
        ("worker-[0-9].log", None),
        (r"train\?.log", None),
    ],
)
def test_name_fits_and_is_not_one_of_trainings(pattern, name):
    assert probe_file.example(pattern, "MARK") == name
    if name:
        assert globs.matches(f"/a/{pattern}", f"/a/{name}")


@pytest.mark.parametrize(
    ("pattern", "exclude", "wanted"),
    [
        ("{a,b}/worker-*.log", "", "a/worker-M.log"),
        ("{b,a}/{x,w{or,er}ker}-*.log", "", "b/x-M.log"),
        ("{b,a}/{x,w{or,er}ker}-*.log", "**/x-*", "b/worker-M.log"),
        ("?/w-*.log", "/**/a/**", "b/w-M.log"),
        ("**/w-*", "", "w-M"),
        ("*/c/**", "", "a/c/M"),
        ("[!a]/[[]x] *", "", "b/[x] M"),
        (r"a\{1,2\}/*", "", "a{1,2}/M"),
    ],
)
def test_new_file_lies_in_a_folder_that_is_there_and_is_not_excluded(tmp_path, pattern, exclude, wanted):
    for folder in ("a/c", "b", "a{1,2}"):
        (tmp_path / folder).mkdir(parents=True)
    folder, name = next(probe_file.candidates(f"{tmp_path}/{pattern}", exclude, "M"))
    assert os.path.relpath(f"{folder}/{name}", tmp_path) == wanted


@pytest.mark.parametrize(
    ("pattern", "exclude", "words"),
    [
        ("train.log", "", "the path names one file"),
        ("*/train.log", "", "every name that matches the path may be a file of training"),
        ("{a,b}.log", "", "every name that matches"),
        ("rank[0-9].log", "", "every name that matches"),
        ("missing/*.log", "", "/missing is missing; training or `ansible-playbook site.yml"),
        ("*/logs/*.log", "", "no folder below"),
        ("worker-*", "**/worker-*", "exclude leaves out every new name"),
    ],
)
def test_path_without_a_new_name_is_told(tmp_path, pattern, exclude, words):
    (tmp_path / "a").mkdir()
    path = f"{tmp_path}/{pattern}"
    assert list(probe_file.candidates(path, exclude, "M")) == []
    assert words in probe_file.unprovable(path, exclude, "M")


def test_names_that_are_there_are_not_taken(tmp_path):
    (tmp_path / "worker-~").symlink_to("nowhere")
    assert list(probe_file.candidates(f"{tmp_path}/worker-?", "", "M")) == []
    assert probe_file.unprovable(f"{tmp_path}/worker-?", "", "M") == "no new name matches the path"


def test_folder_that_is_no_utf_8_is_left_out(tmp_path):
    os.mkdir(os.fsencode(tmp_path) + b"/caf\xe9")
    assert list(probe_file.candidates(f"{tmp_path}/c*/x-*", "", "M")) == []


def pattern_of(chance: random.Random, depth: int = 0) -> str:
    """A random pattern of one name."""
    pieces = [
        "a",
        "b.log",
        "-",
        " ",
        "ü",
        "*",
        "?",
        "[ab]",
        "[^ab]",
        "[!a-z]",
        "[a-cx-z]",
        r"\*",
        r"\[",
        r"[\]]",
        "[a-]",
    ]
    pieces += ["**", "7", r"\\", "[0-9]"]
    text = "".join(chance.choice(pieces) for _ in range(chance.randint(1, 5)))
    if depth < 3 and chance.random() < 0.4:
        parts = [pattern_of(chance, depth + 1) for _ in range(chance.randint(1, 3))]
        text += "{" + ",".join([*parts, *([""] if chance.random() < 0.2 else [])]) + "}"
    return text + chance.choice(["", ".log"])


@pytest.mark.parametrize("seed", range(20))
def test_names_of_random_patterns_match_these(tmp_path, seed):
    chance = random.Random(seed)  # noqa: S311
    names = 0
    for _ in range(50):
        pattern = f"{tmp_path}/{pattern_of(chance)}"
        for folder, name in probe_file.candidates(pattern, "", "verify-1x"):
            assert globs.matches(pattern, f"{folder}/{name}")
            assert "verify-1x" in name or set(name) & set(probe_file.UNUSUAL)
            names += 1
    assert names > 20


# The table


def test_table_has_a_line_per_path_and_counts_what_was_not_probed():
    def result(path, **more):
        base = {"proof": "Loki", "written": 20, "delivered": 20, "cause": "", "not_probed": "", "clock_skew": 0.1}
        base |= {"labels": {"job": "x", "filename": "y"}, "latency": {"p50": 0.1, "p99": 0.2}, "time_error": 0.0}
        return base | more | {"item": [{"name": "train"}, path]}

    none = {"written": 0, "delivered": 0, "labels": {}}
    results = [
        result("/a/*.log"),
        result("/b.log", proof="counters", newest_line=3.4, **none),
        result("/c.log", proof="", not_probed="the path names one file", **none),
        result("/d/*.log", proof="", delivered=0, cause="the agent does not follow /d/x.log"),
    ]
    variables = {
        "ansible_play_hosts_all": ["mini1", "mini2"],
        "hostvars": {"mini1": {"__agent_deliveries": {"results": results}}, "mini2": {}},
    }
    templar = Templar(DataLoader(), variables=variables)
    lines = templar.template(trust_as_template(TABLE.read_text())).splitlines()
    text = "\n".join(lines)
    assert re.search(r"^mini1 +train +20/20 +0\.1 s .*/a/\*\.log by Loki job=x$", text, re.MULTILINE)
    assert re.search(r"^mini1 +train +- .*/b\.log by the agent's counters$", text, re.MULTILINE)
    assert re.search(r"^mini1 +train +- .*/c\.log not probed$", text, re.MULTILINE)
    assert re.search(r"^mini1 +train +0/20 .*/d/\*\.log FAILED", text, re.MULTILINE)
    assert "not probed: the path names one file" in text
    assert "its newest line in Loki is 3 s old" in text
    assert "mini2: not reached" in text
    assert lines[-1] == "Paths: 2 proven, 1 not probed, 1 failed"


@pytest.mark.parametrize(
    ("form", "line"), [("", "2026-11-28 13:45:56,789 x"), ("%m%d %H:%M:%S.%f", "1128 13:45:56.789000 x")]
)
def test_time_of_the_lines_has_the_form_of_the_preset(form, line):
    record = logging.LogRecord("verify", logging.INFO, "", 0, "x", None, None)
    record.created, record.msecs = 1795873556.789, 789.0
    assert delivery.ZoneFormatter("%(asctime)s %(message)s", "UTC", form).format(record) == line
