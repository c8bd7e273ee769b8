# Copyright (c) SmolCluster contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is specific to Promtail: its program, the check of its configuration, its metrics and messages."""

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
START_HINT = "With a glibc older than 2.34, promtail_version 3.5.6 is the last one that starts"
# Files of packages with a service of the same name (grafana/loki, tools/nfpm.jsonnet; distributions).
PACKAGED = ("/usr/lib/systemd/system/promtail.service", "/etc/promtail/promtail.yml")
# Positions files of SmolCluster's own setup (its logging/promtail-*-remote.yaml).
FOREIGN_POSITIONS = ("/tmp/positions.yaml", "/tmp/promtail-positions.yaml")  # noqa: S108
# Name and label of its metrics, by field of a health line. clients/pkg/promtail/client/metrics.go
METRICS = {
    "version": ("promtail_build_info", "version"),
    "sent_lines": ("promtail_sent_entries_total", ""),
    "sent_bytes": ("promtail_sent_bytes_total", ""),
    "dropped_lines": ("promtail_dropped_entries_total", "reason"),
    "retries": ("promtail_batch_retries_total", ""),
}
# clients/pkg/promtail/client/client.go
RETRIED = "error sending batch, will retry"
REFUSED = "final error sending batch"
# What to do about lines that it dropped, by its own reasons; other reasons are answers of Loki.
DROP_REASONS = {
    "line_too_long": "they are longer than max_line_size of the agent; let training write shorter lines",
    "rate_limited": "Loki's rate limit was reached; increase its ingestion_rate_mb and per_stream_rate_limit",
    "stream_limited": "they have more label sets than max_streams of the agent allows; remove that limit",
}


def check_config(program: Path, config: dict, run: Run) -> None:
    """Check a configuration with the program's own parser.

    A dry run builds every stage, but only of the first scrape config (Promtail 3.6, stdin_target_manager.go), and
    `-check-syntax` builds none. So each scrape config is checked separately.

    Parameters:
        program: Promtail's program.
        config: the configuration.
        run: function that runs a command.

    Raises:
        DeploymentError: the program refuses the configuration; the text has its message and the scrape config.
    """
    with tempfile.TemporaryDirectory(prefix="promtail-check-") as scratch:
        path = Path(scratch) / "promtail.yml"
        # Not the positions file of the running agent.
        alone = {**config, "positions": {**config["positions"], "filename": f"{scratch}/positions.yaml"}}
        for scrape in config["scrape_configs"]:
            # JSON is valid YAML, and Python on a node may have no YAML library.
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
    """URLs that a configuration sends lines to."""
    return [client["url"] for client in config["clients"]]


def is_complete(metrics: Metrics, config: dict[str, Any]) -> bool:
    """Whether an agent has all targets of its configuration.

    `/ready` is not used: it returns an error until a file is followed (Promtail 3.6, server.go).
    """
    targets = sum(len(scrape.get("static_configs", [])) for scrape in config["scrape_configs"])
    return metrics.total("promtail_targets_active_total") >= targets


def counters(metrics: Metrics) -> Counters:
    """Counters of the agent since its start."""
    dropped = metrics.by(*METRICS["dropped_lines"])
    return Counters(
        version=next(iter(metrics.by(*METRICS["version"])), None),
        sent=int(metrics.total(METRICS["sent_lines"][0])),
        retried=int(metrics.total(METRICS["retries"][0])),
        dropped={reason: int(lines) for reason, lines in dropped.items() if lines},
        truncated=int(metrics.total("promtail_mutated_entries_total")),
    )
