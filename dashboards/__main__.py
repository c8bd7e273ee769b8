"""Write the dashboards and alert rules into the role. Usage: python -m dashboards [--check]"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import yaml

from dashboards.alerts import rule_file
from dashboards.pages import all_pages

ROOT = Path(__file__).resolve().parent.parent
FILES = ROOT / "roles/docker_loki_grafana/files"


class Dumper(yaml.SafeDumper):
    """Writes lists with the indentation that yamllint wants."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:  # noqa: ARG002
        """Indent lists, too."""
        return super().increase_indent(flow, False)


def files() -> dict[Path, str]:
    """Text of every generated file by its path."""
    header = "# Made by `make docs` from dashboards/alerts.py. Edit that.\n"
    # A regular expression cannot be broken.
    header += "# yamllint disable rule:line-length\n"
    pages = {
        FILES / "dashboards" / f"{name}.json": json.dumps(page, indent=2, ensure_ascii=False) + "\n"
        for name, page in all_pages().items()
    }
    rules = yaml.dump(rule_file(), Dumper=Dumper, sort_keys=False, width=110, allow_unicode=True)
    return pages | {FILES / "alerting/alert-rules.yml": f"---\n{header}{rules}"}


def stale() -> list[Path]:
    """Files that are missing, different or no longer generated."""
    wanted = files()
    found = {path for folder in {path.parent for path in wanted} for path in folder.glob("*")}
    return sorted(
        path
        for path in found | set(wanted)
        if path not in wanted or path not in found or path.read_text() != wanted[path]
    )


def main() -> int:
    """Write the files, or say which are stale."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail when a file is stale")
    check = parser.parse_args().check
    wanted, changes = files(), stale()
    for path in changes:
        print(f"{path.relative_to(ROOT)}: {'stale; run make docs' if check else 'written'}")
        if check:
            continue
        if path not in wanted:
            path.unlink()
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(wanted[path])
    return 1 if check and changes else 0


if __name__ == "__main__":
    sys.exit(main())
