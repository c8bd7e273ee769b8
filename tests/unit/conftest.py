"""The programs that nodes have as they are: they import one another by plain names."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("roles/agent/files", "roles/promtail/files", "roles/docker_loki_grafana/files", "plugins/module_utils")
sys.path[:0] = [str(ROOT / folder) for folder in FOLDERS]
