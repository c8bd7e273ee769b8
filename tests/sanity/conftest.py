"""What the tests of the built collection share."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def tarball(tmp_path_factory) -> Path:
    """The built collection."""
    folder = tmp_path_factory.mktemp("built")
    galaxy = Path(sys.executable).with_name("ansible-galaxy")
    command = [galaxy, "collection", "build", ROOT, "--output-path", folder]
    env = os.environ | {"ANSIBLE_HOME": str(folder / "home")}
    built = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    (archive,) = folder.glob("smolcluster-logging-*.tar.gz")
    return archive
