#!/usr/bin/env python3
"""Inventory script: the simulated Mac of the lab, where `make lab MAC=1` has brought it up; else nothing."""

import json
import os
from pathlib import Path

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "smolcluster-logging"
STATE = Path(os.environ.get("LAB_STATE") or CACHE / "lab")

try:
    variables = json.loads((STATE / "mac1.json").read_text())
except FileNotFoundError:
    print(json.dumps({"_meta": {"hostvars": {}}}))
else:
    print(json.dumps({"minis": {"hosts": ["mac1"]}, "_meta": {"hostvars": {"mac1": variables}}}))
