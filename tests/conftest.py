"""What all tests share: our own plugins can be imported, and the last line counts the results."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from ansible.plugins.loader import init_plugin_loader

from lab import engine, hosts
from lab.config import VARIABLES
from tests.lab.harness import Lab

ROOT = Path(__file__).resolve().parent.parent

# Makes `ansible_collections.smolcluster.logging` importable from this checkout, past any installed copy.
init_plugin_loader([str(ROOT / "collections")])


@pytest.fixture(scope="session")
def any_lab() -> Iterator[Lab]:
    """Hosts that are up, whatever was done on them before."""
    hosts.up()
    yield Lab()
    if not os.environ.get("LAB_KEEP"):
        hosts.down()


@pytest.fixture(scope="session")
def fresh_lab() -> Iterator[Lab]:
    """Hosts on which nothing was deployed yet."""
    engine.ensure()
    hosts.down()
    hosts.up()
    yield Lab()
    if not os.environ.get("LAB_KEEP"):
        hosts.down()


@pytest.fixture(scope="session")
def lab(fresh_lab: Lab) -> Lab:
    """Hosts with everything deployed."""
    first = fresh_lab.deploy()
    assert first.changed() > 0
    return fresh_lab


@pytest.fixture(scope="session")
def artifacts() -> dict:
    """Variables of the roles that make them install from the artifacts folder."""
    return yaml.safe_load(VARIABLES.read_text())


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run what wants fresh hosts before what deploys on them; the rest in the order of the command line."""
    items.sort(key=lambda item: "fresh_lab" not in item.fixturenames or "lab" in item.fixturenames)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Print the counts alone on the last line, whatever else was printed."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or config.option.collectonly:
        return
    count = {name: len(reporter.stats.get(name, [])) for name in ("passed", "failed", "error", "skipped")}
    print(f"\n{count['passed']} passed, {count['failed'] + count['error']} failed, {count['skipped']} skipped")
