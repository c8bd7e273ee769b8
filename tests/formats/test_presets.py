"""Every preset and every family of lines, read by the agent's own program."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest
from ansible_collections.smolcluster.logging.plugins.module_utils.trial import utc

from tests.formats.reading import KNOWN, Entry

FAMILIES = json.loads((Path(__file__).parent / "families.json").read_text("utf-8"))


def check(found: list[Entry], wanted: list[dict], started: float) -> None:
    """Compare entries with what they must be; `time` may lack the year."""
    # An empty line belongs to the entry before it.
    assert [entry.text.rstrip("\n") for entry in found] == [entry["entry"] for entry in wanted]
    for entry, want in zip(found, wanted, strict=True):
        assert (entry.level, entry.rank) == (want.get("level", ""), want.get("rank", "")), entry
        if want.get("time"):
            known = utc(entry.time)
            assert (known if re.match(r"\d{4}-", want["time"]) else known[5:]) == want["time"], entry
        else:
            assert utc(entry.time)[:19] >= time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(started)), entry


@pytest.mark.parametrize("chosen", ["its own", "auto"])
@pytest.mark.parametrize("name", sorted(KNOWN))
def test_examples_of_a_preset(reader, name, chosen):
    examples = KNOWN[name]["examples"]
    text = "".join(example.get("lines", example["entry"]).rstrip("\n") + "\n" for example in examples)
    started = time.time()
    check(reader.log(text, name if chosen == "its own" else "auto"), examples, started)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family["id"])
def test_family(reader, family):
    text = "".join(line + "\n" for line in family["lines"])
    started = time.time()
    check(reader.log(text, "auto"), family["entries"], started)
