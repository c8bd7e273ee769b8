"""Every molecule scenario passes: syntax, create, prepare, check, converge, idempotence, verify, destroy."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from lab import hosts, images

ROOT = Path(__file__).resolve().parents[2]
SCENARIOS = sorted(path.parent.name for path in (ROOT / "molecule").glob("*/molecule.yml"))


@pytest.fixture(scope="module")
def prepared() -> None:
    """Images of the hosts, and the artifacts that are deployed."""
    hosts.write_variables()
    images.all_hosts()


@pytest.mark.usefixtures("prepared")
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_scenario(scenario: str, tmp_path: Path):
    log = tmp_path / "molecule.log"
    # molecule has settings of its own (.config/molecule/config.yml) and must not see ours.
    env = {name: value for name, value in os.environ.items() if name != "ANSIBLE_CONFIG"}
    with log.open("w") as output:
        done = subprocess.run(
            ["molecule", "test", "--scenario-name", scenario],
            cwd=ROOT,
            env=env | {"NO_COLOR": "1"},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            timeout=1800,
            check=False,
        )
    assert done.returncode == 0, log.read_text()[-20000:]
