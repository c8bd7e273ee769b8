"""Facts that have to be in two places are the same in both."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import logfiles
import positions
import pytest
import yaml
from ansible_collections.smolcluster.logging.plugins.module_utils import health_lines, layout, loki, runs
from ansible_collections.smolcluster.logging.plugins.module_utils.agents import promtail
from ansible_collections.smolcluster.logging.plugins.module_utils.agents.registry import AGENTS
from ansible_collections.smolcluster.logging.plugins.module_utils.errors import DeploymentError
from ansible_collections.smolcluster.logging.plugins.module_utils.services.base import DEPLOYMENT, NO_DIGEST
from ansible_collections.smolcluster.logging.plugins.modules import agent_deployment
from ansible_collections.smolcluster.logging.plugins.plugin_utils import agent_checks

from lab import artifacts

ROOT = Path(__file__).resolve().parents[2]


def variables(role: str, name: str) -> dict:
    """Variables of a file of a role, templates as they are written."""
    return yaml.safe_load((ROOT / "roles" / role / "vars/main" / f"{name}.yml").read_text())


@pytest.mark.parametrize("system", ["Linux", "Darwin"])
def test_layouts_name_everything_of_the_agent(system):
    found = layout.layout_of("promtail", system)
    assert set(found.as_dict()) == {field.name for field in fields(layout.Layout)}
    assert found.data.endswith("promtail")
    assert found.state_files() == [f"{found.data}/files.json", f"{found.data}/started.json"]


def test_unknown_system_is_refused():
    with pytest.raises(DeploymentError, match="promtail is not supported on FreeBSD, only on Linux and Darwin"):
        layout.layout_of("promtail", "FreeBSD")


def test_watcher_keeps_what_the_layout_removes():
    assert {logfiles.STATE, logfiles.STARTED} == set(layout.STATE_FILES)


def test_programs_that_are_copied_are_those_that_are_removed():
    text = variables("agent", "files")["__agent_programs"]
    copied = set(re.findall(r"'(\w+\.py)'", text)) | set(variables("promtail", "agent")["__promtail_agent"]["programs"])
    assert copied == set(layout.PROGRAM_FILES)


def test_health_source_is_told_from_training_by_its_job():
    source = variables("agent", "health")["__agent_health"]
    assert source["name"] == source["labels"]["job"] == health_lines.JOB


def test_rewind_is_longer_than_what_a_killed_agent_may_hold():
    (client,) = variables("promtail", "config")["__promtail_config"]["clients"]
    assert 4 * client["batchsize"] <= positions.REWIND


def test_status_waits_longer_than_the_pause_between_two_tries():
    from ansible_collections.smolcluster.logging.plugins.module_utils import status

    (client,) = variables("promtail", "config")["__promtail_config"]["clients"]
    pause = int(client["backoff_config"]["max_period"].removesuffix("s"))
    assert 10 + pause < status.RETRY


def test_what_is_ahead_of_its_time_is_the_same_for_loki_and_the_checks():
    text = "".join(path.read_text() for path in (ROOT / "roles/docker_loki_grafana/vars").rglob("*.yml"))
    (minutes,) = re.findall(r"creation_grace_period: (\d+)m", text)
    assert int(minutes) * 60 == loki.FUTURE


def test_the_last_release_is_the_default_and_the_pinned_one():
    release = ".".join(map(str, agent_checks.LAST_RELEASE))
    defaults = yaml.safe_load((ROOT / "roles/promtail/defaults/main.yml").read_text())
    assert defaults["promtail_version"] == release
    assert release in variables("promtail", "checksums")["__promtail_known_checksums"]


@pytest.mark.parametrize("file", ["templates/agent.service.j2", "vars/main/launchd.yml"])
def test_service_names_what_it_was_started_with(file):
    text = (ROOT / "roles/agent" / file).read_text()
    assert re.search(rf"\b{DEPLOYMENT}(: |=){NO_DIGEST}\n", text)


def test_agents_have_what_the_engine_asks_for():
    assert promtail.NAME in AGENTS
    assert agent_deployment.SPEC["agent"]["choices"] == list(AGENTS)
    assert (ROOT / "roles" / promtail.NAME).is_dir()


def test_logcli_is_the_one_that_the_lab_builds_and_of_the_version_of_loki():
    defaults = yaml.safe_load((ROOT / "roles/docker_loki_grafana/defaults/main.yml").read_text())
    assert defaults["docker_loki_grafana_logcli_version"] == artifacts.LOKI
    assert defaults["docker_loki_grafana_loki_image"] == artifacts.LOKI_IMAGE


def test_name_of_a_run_is_checked_alike_before_and_while_it_is_recorded():
    assert f"match('{runs.NAME.pattern}$')" in (ROOT / "playbooks/start.yml").read_text()
