"""The lab as fixtures."""

from __future__ import annotations

import os

import pytest
import yaml

from lab import hosts
from lab.config import STATE
from tests.lab.harness import Lab


@pytest.fixture(scope="session")
def fresh_lab() -> Lab:
    """Hosts on which nothing was deployed yet."""
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
    return yaml.safe_load((STATE / "vars.yml").read_text())
