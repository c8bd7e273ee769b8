"""Tests. Each worker of pytest-xdist has a lab of its own."""

import os

if worker := os.environ.get("PYTEST_XDIST_WORKER", "").removeprefix("gw"):
    # Before lab.config reads it, and for what the tests start: 1 and 101, 2 and 102, …
    number = int(os.environ.get("LAB_NUMBER") or 1) + 100 * int(worker)
    os.environ["LAB_NUMBER"] = str((number - 1) % 254 + 1)
