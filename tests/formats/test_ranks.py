"""Where the label `rank` comes from: the line, the name of the file, a folder, the source, and last the inventory."""

from __future__ import annotations

import pytest
import records
from ansible_collections.smolcluster.logging.plugins.filter.promtail_scrape_configs import scrape_configs
from ansible_collections.smolcluster.logging.plugins.module_utils import trial

from tests.formats.reading import FOLDER

LINE = "2026-11-25 10:00:00,123 - train - INFO - "
# Path and line, and the rank that counts on a node with rank 9.
CASES = {
    ("/srv/run/rank_2/worker-rank1-a.log", f"{LINE}[rank: 0] boom"): "0",
    ("/srv/run/rank_2/worker-rank1-a.log", f"{LINE}boom"): "1",
    ("/srv/run/rank_2/train.log", f"{LINE}boom"): "2",
    ("/srv/run/train.log", f"{LINE}boom"): "9",
    ("/srv/run/train.log", "no format at all"): "9",
    ("/srv/run/train.log", '{"timestamp": "2026-11-25T10:00:00Z", "level": "info", "message": "x"}'): "9",
    ("/srv/run/train.log", '{"timestamp": "2026-11-25T10:00:00Z", "level": "info", "message": "x", "rank": 0}'): "0",
    ("/srv/run/train.log", "time=2026-11-25T10:00:00Z level=info msg=x"): "9",
}
SMOLCLUSTER = {
    ("/tmp/logs/worker-rank1-mini2.log", "2026-11-25 10:00:00,123 | INFO | rank:0 | boom"): "0",
    ("/tmp/logs/worker-rank1-mini2.log", "print() of a library"): "1",
    ("/tmp/logs/server-mini1.log", "2026-11-25 10:00:00,123 | INFO | rank:server | boom"): "server",
    ("/tmp/logs/server-mini1.log", "print() of a library"): "9",
}


@pytest.mark.parametrize(("chosen", "cases"), [("auto", CASES), ("smolcluster", SMOLCLUSTER)])
@pytest.mark.parametrize(("labels", "known"), [({}, "9"), ({"rank": "7"}, "7"), ({"rank": ""}, "")])
def test_first_of_line_name_folder_source_and_node_counts(program, chosen, cases, labels, known):
    source = {"name": "train", "paths": ["/srv/**/*.log"], "format": chosen, "labels": labels}
    (config,) = scrape_configs([source], [FOLDER], "mini1", "Local", "/run/promtail/files", "9")
    static = config["static_configs"][0]["labels"]
    static.pop("__path__")
    written = [records.record(path.encode(), line.encode()).decode().removesuffix("\n") for path, line in cases]
    found = trial.run(program, config["pipeline_stages"], written, "UTC", static)
    assert [entry["text"] for entry in found] == [line for _path, line in cases]
    ranks = [entry["labels"].get("rank", "") for entry in found]
    assert ranks == [known if rank == "9" else rank for rank in cases.values()]
