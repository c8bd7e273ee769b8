# Copyright (c) SmolCluster contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is Promtail's own: its program, its configuration check, its metrics and messages."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from ansible_collections.smolcluster.logging.plugins.module_utils.agents.base import Counters
from ansible_collections.smolcluster.logging.plugins.module_utils.errors import DeploymentError
from ansible_collections.smolcluster.logging.plugins.module_utils.metrics import Metrics
from ansible_collections.smolcluster.logging.plugins.module_utils.services.base import Run

NAME = "promtail"
VERSION_OPTION = ("-version",)
START_HINT = "promtail_version 3.5.6 is the last for a C library older than glibc 2.34"
# Files of packages with a service of the same name (grafana/loki, tools/nfpm.jsonnet; distributions).
PACKAGED = ("/usr/lib/systemd/system/promtail.service", "/etc/promtail/promtail.yml")
# Positions files of SmolCluster's own set-up (its logging/promtail-*-remote.yaml).
FOREIGN_POSITIONS = ("/tmp/positions.yaml", "/tmp/promtail-positions.yaml")  # noqa: S108
# clients/pkg/promtail/client/client.go
RETRIED = "error sending batch, will retry"
REFUSED = "final error sending batch"
# Its reasons for giving up lines, besides what Loki answers.
DROP_REASONS = {
    "line_too_long": "they are longer than max_line_size of the agent; let training write shorter lines",
    "rate_limited": "Loki takes no more per second; raise its limits ingestion_rate_mb and per_stream_rate_limit",
    "stream_limited": "they have more sets of labels than max_streams of the agent; remove that limit",
}


def check_config(program: Path, config: dict, run: Run) -> None:
    """Check a configuration with the program's own parser.

    A dry run builds every stage, but of the first scrape config only (Promtail 3.6, stdin_target_manager.go), and
    `-check-syntax` builds none; so each scrape config is put to it alone.

    Parameters:
        program: Promtail's program.
        config: the configuration.
        run: function that runs a command.

    Raises:
        DeploymentError: the program refuses it; holds its message and the scrape config that it is about.
    """
    with tempfile.TemporaryDirectory(prefix="promtail-check-") as scratch:
        path = Path(scratch) / "promtail.yml"
        # The agent that runs meanwhile must keep its positions file to itself.
        alone = {**config, "positions": {**config["positions"], "filename": f"{scratch}/positions.yaml"}}
        for scrape in config["scrape_configs"]:
            # JSON is YAML, and a node's Python need not have a YAML library.
            path.write_text(json.dumps({**alone, "scrape_configs": [scrape]}, ensure_ascii=False), "utf-8")
            command = [str(program), "-stdin", "-dry-run", "-server.disable", f"-config.file={path}"]
            code, out, err = run(command)
            if code:
                said = [line for line in (err or out).splitlines() if line.strip()]
                raise DeploymentError(
                    f"Promtail refuses the source {scrape['job_name']}: {said[-1] if said else f'exit code {code}'}. "
                    "Fix it in smolcluster_log_sources. Nothing was changed; a running agent keeps running"
                )


def push_addresses(config: dict[str, Any]) -> list[str]:
    """Addresses that a configuration sends lines to."""
    return [client["url"] for client in config["clients"]]


def is_complete(metrics: Metrics, config: dict[str, Any]) -> bool:
    """Whether an agent has all targets of its configuration.

    Not by `/ready`: that is an error until a file is followed (Promtail 3.6, server.go).
    """
    targets = sum(len(scrape.get("static_configs", [])) for scrape in config["scrape_configs"])
    return metrics.total("promtail_targets_active_total") >= targets


def counters(metrics: Metrics) -> Counters:
    """What the agent counts since its start."""
    dropped = metrics.by("promtail_dropped_entries_total", "reason")
    return Counters(
        version=next(iter(metrics.by("promtail_build_info", "version")), None),
        sent=int(metrics.total("promtail_sent_entries_total")),
        retried=int(metrics.total("promtail_batch_retries_total")),
        dropped={reason: int(lines) for reason, lines in dropped.items() if lines},
        truncated=int(metrics.total("promtail_mutated_entries_total")),
    )


def read_lines(metrics: Metrics, path: str) -> int | None:
    """Lines of a log that the agent has read; none when it has not opened it.

    Parameters:
        metrics: its metrics; their label `path` is that of a copy, which ends with the log's own.
        path: path of the log.
    """
    if not any(label.endswith(path) for label in metrics.by("promtail_read_bytes_total", "path")):
        return None
    found = metrics.by("promtail_read_lines_total", "path")
    return int(sum(lines for label, lines in found.items() if label.endswith(path)))
