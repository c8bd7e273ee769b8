"""The playbook that shows what the agent makes of a log, before anything is deployed."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from lab import artifacts, engine

ROOT = Path(__file__).resolve().parents[2]
HOSTS = """
all:
  children:
    controller: {hosts: {hub: {ansible_host: 192.0.2.10}}}
    minis: {hosts: {mini1: {ansible_host: 192.0.2.11}}}
"""


@pytest.fixture
def trial(program, tmp_path):  # noqa: ARG001 - the archive is there
    """Runs the playbook with a log and further variables; no host of the inventory can be reached."""
    (tmp_path / "hosts.yml").write_text(HOSTS)
    versions = {"official": artifacts.PROMTAIL_OFFICIAL, "module": artifacts.PROMTAIL_MODULE}
    version, _origin = artifacts.release("promtail", "clients/cmd/promtail", versions, engine.platform())

    def run(**variables: str) -> subprocess.CompletedProcess[str]:
        words = {
            "promtail_version": version,
            "promtail_base_url": f"file://{artifacts.ARTIFACTS}/releases",
            "promtail_download_dir": f"{tmp_path}/downloads",
        } | variables
        extra = [word for name, value in words.items() for word in ("-e", f"{name}={value}")]
        return subprocess.run(
            ["ansible-playbook", "-i", "hosts.yml", f"{ROOT}/playbooks/try_format.yml", *extra],
            cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False,
            env=os.environ | {"ANSIBLE_CONFIG": f"{ROOT}/ansible.cfg", "NO_COLOR": "1"},
        )  # fmt: skip

    return run


def test_entries_of_a_log_are_shown(trial, tmp_path):
    (tmp_path / "my-rank3.log").write_text(
        "2026-11-23 10:39:17,181 - train - INFO - step 10\na print\nTraceback (most recent call last):\n  x\nBoom: y\n"
    )
    done = trial(file="my-rank3.log", timezone="Asia/Kolkata")
    rows = [line.split() for line in done.stdout.splitlines()]
    assert done.returncode == 0, done.stdout + done.stderr
    assert ["2026-11-23T05:09:17.181Z", "INFO", "3", "dated", "2026-11-23", "10:39:17,181"] in [row[:6] for row in rows]
    assert ["time", "of", "reading", "-", "3", "none", "a", "print"] in rows
    assert any(row[3:7] == ["ERROR", "3", "traceback", "Traceback"] and row[-2:] == ["(+2", "lines)"] for row in rows)


def test_preset_of_the_user_is_tried(trial, tmp_path):
    (tmp_path / "formats").mkdir()
    (tmp_path / "formats/mine.yml").write_text(
        "pattern: '^at (?P<time>%{DATETIME}) \\[(?P<level>\\w+)\\] '\nsample: 'at %(asctime)s [info] %(message)s'\n"
    )
    (tmp_path / "my.log").write_text("at 2026-11-23 10:39:17 [warn] x\n")
    done = trial(file="my.log", format="mine", timezone="UTC", smolcluster_log_formats=f"{tmp_path}/formats")
    assert "2026-11-23T10:39:17Z           WARNING  -      mine" in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"file": "missing.log"}, "there is no file 'missing.log' on this machine"),
        ({"file": "hosts.yml", "format": "logguru"}, "unknown format logguru; did you mean loguru"),
        ({"file": "hosts.yml", "timezone": "Mars/Phobos"}, "unknown time zone 'Mars/Phobos'"),
        ({"file": "hosts.yml", "smolcluster_log_formats": "/no/such"}, "the folder of presets /no/such does not exist"),
    ],
)
def test_what_cannot_be_tried_is_told(trial, variables, words):
    done = trial(**variables)
    assert done.returncode == 2
    assert words in " ".join(done.stdout.split())
