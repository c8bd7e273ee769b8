"""The programs that nodes have as they are: they import one another by plain names."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "roles/promtail/files"), str(ROOT / "plugins/module_utils")]
