"""What all tests share: our own plugins can be imported, and the last line counts the results."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible.plugins.loader import init_plugin_loader

ROOT = Path(__file__).resolve().parent.parent

# Makes `ansible_collections.smolcluster.logging` importable from this checkout, past any installed copy.
init_plugin_loader([str(ROOT / "collections")])


def pytest_unconfigure(config: pytest.Config) -> None:
    """Print the counts alone on the last line, whatever else was printed."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or config.option.collectonly:
        return
    count = {name: len(reporter.stats.get(name, [])) for name in ("passed", "failed", "error", "skipped")}
    print(f"\n{count['passed']} passed, {count['failed'] + count['error']} failed, {count['skipped']} skipped")
