"""What the tests of formats share: the agent's own program, from the artifacts folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.smolcluster.logging.plugins.module_utils import trial

from lab import artifacts, engine
from tests.formats.reading import Reader


@pytest.fixture(scope="session")
def program(tmp_path_factory) -> str:
    """Path of Promtail; built if the artifacts folder does not have it."""
    versions = {"official": artifacts.PROMTAIL_OFFICIAL, "module": artifacts.PROMTAIL_MODULE}
    platform = engine.platform()
    version, _origin = artifacts.release("promtail", "clients/cmd/promtail", versions, platform)
    archive = Path(artifacts.ARTIFACTS, "releases", f"v{version}", f"promtail-{platform}.zip")
    return trial.unpacked(str(archive), str(tmp_path_factory.mktemp("promtail")))


@pytest.fixture(scope="session")
def reader(program) -> Reader:
    """Reads logs with the agent's program."""
    return Reader(program)
