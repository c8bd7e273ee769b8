"""What the CI's workflow relies on, beside its syntax (`make lint` runs actionlint)."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
WORKFLOW = (ROOT / ".github/workflows/test.yml").read_text()


def test_actions_are_pinned_by_their_commit():
    used = re.findall(r"uses: (\S+)", WORKFLOW)
    assert used
    assert [action for action in used if not re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", action)] == []


def test_the_mac_job_finds_the_version_of_loki():
    defaults = (ROOT / "roles/docker_loki_grafana/defaults/main.yml").read_text()
    pattern = re.search(r"sed -n 's,\^(.*)\\\((.*)\\\)\.\*,", WORKFLOW)
    found = re.search(rf"^{pattern[1]}({pattern[2]})", defaults, re.MULTILINE)
    assert re.fullmatch(r"\d+\.\d+\.\d+", found[1])


def test_the_mac_job_checks_a_host_of_its_inventory():
    name, inventory = re.search(r"make mac-check HOST=(\S+) INVENTORY=(\S+)", WORKFLOW).groups()
    groups = yaml.safe_load((ROOT / inventory).read_text())["all"]["children"]
    assert name in groups["minis"]["hosts"]
    assert len(groups["controller"]["hosts"]) == 1
    port = yaml.safe_load((ROOT / ".github/mac/loki.yml").read_text())["server"]["http_listen_port"]
    assert groups["minis"]["vars"]["promtail_loki_url"] == f"http://127.0.0.1:{port}"
