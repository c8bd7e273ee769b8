"""What the tests of formats share: the agent's own program, from the artifacts folder."""

from __future__ import annotations

import pytest

from tests.formats.reading import Reader, promtail


@pytest.fixture(scope="session")
def program(tmp_path_factory) -> str:
    """Path of Promtail; see `promtail`."""
    return promtail(str(tmp_path_factory.mktemp("promtail")))


@pytest.fixture(scope="session")
def reader(program) -> Reader:
    """Reads logs with the agent's program."""
    return Reader(program)
