"""`python -m tests.faults`: put the recorded results into docs/delivery.md."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime

from tests.bench.__main__ import machine
from tests.faults.harness import RECORD
from tests.lab.harness import ROOT

PAGE = ROOT / "docs" / "delivery.md"
BEGIN, END = "<!-- results: made by `make test-slow` -->", "<!-- end of results -->"


def table(rows: list[dict]) -> str:
    """The results as Markdown, those of the controls last."""
    lines = [
        "| fault | lines written | lost | duplicated | seconds to catch up, where it was measured |",
        "|---|---|---|---|---|",
    ]
    for row in sorted(rows, key=lambda row: row["fault"].startswith("CONTROL")):
        catch_up = "-" if row["catch_up"] is None else row["catch_up"]
        lines.append(f"| {row['fault']} | {row['written']:,} | {row['lost']} | {row['duplicated']} | {catch_up} |")
    return "\n".join(lines)


def main() -> None:
    """Replace what stands between the two marks.

    Raises:
        SystemExit: there are no results, or the page has no marks.
    """
    if not RECORD.exists():
        raise SystemExit("no results yet; run `make test-slow`")
    rows = list(json.loads(RECORD.read_text()).values())
    head = f"Results of {datetime.now(UTC):%Y-%m-%d}: {machine()}; all hosts are containers on this one machine."
    text, count = re.subn(
        f"{re.escape(BEGIN)}.*{re.escape(END)}",
        lambda _: f"{BEGIN}\n\n{head}\n\n{table(rows)}\n\n{END}",
        PAGE.read_text(),
        flags=re.DOTALL,
    )
    if not count:
        raise SystemExit(f"{PAGE} has no place for results")
    PAGE.write_text(text)


if __name__ == "__main__":
    main()
