#!/usr/bin/env python3
"""Inventory script: the simulated Mac of the lab, where `make lab MAC=1` has brought it up; else nothing."""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from lab.config import STATE

try:
    variables = json.loads((STATE / "mac1.json").read_text())
except FileNotFoundError:
    print(json.dumps({"_meta": {"hostvars": {}}}))
else:
    print(json.dumps({"minis": {"hosts": ["mac1"]}, "_meta": {"hostvars": {"mac1": variables}}}))
