"""The programs that nodes have as they are: they import one another by plain names."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / folder) for folder in ("roles/agent/files", "roles/promtail/files", "plugins/module_utils")]


@pytest.fixture
def shared_path(tmp_path) -> Path:
    """A temporary folder that other accounts can enter; the folders of pytest are its user's only."""
    for folder in (tmp_path, *tmp_path.parents):
        if folder == Path(tempfile.gettempdir()):
            break
        folder.chmod(0o755)
    return tmp_path
