# Copyright (c) SmolCluster contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Fetch the metrics of an agent."""

from __future__ import annotations

from ansible_collections.smolcluster.logging.plugins.module_utils import loki
from ansible_collections.smolcluster.logging.plugins.module_utils.samples import Metrics


class AgentError(Exception):
    """The agent does not answer; the text says where and why."""


def fetch(port: int, timeout: float = 5) -> Metrics:
    """The agent's own metrics.

    Parameters:
        port: TCP port on 127.0.0.1.
        timeout: seconds to wait for an answer.

    Raises:
        AgentError: no answer, or an HTTP error.
    """
    url = f"http://127.0.0.1:{port}/metrics"
    try:
        answer = loki.ask(url, timeout=timeout)
    except loki.LokiError as error:
        raise AgentError(str(error)) from error
    if answer.status != 200:
        raise AgentError(f"{url} answers {answer.shown()}")
    return Metrics(answer.text)
