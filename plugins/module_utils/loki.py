# Copyright (c) SmolCluster contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Reading from Loki over HTTP.

Source: https://grafana.com/docs/loki/v3.7.x/reference/loki-http-api/
"""

from __future__ import annotations

import email.utils
import json
import time
import urllib.error
import urllib.parse
import urllib.request

SECOND = 1_000_000_000
# Loki's default limit of a query (max_entries_limit_per_query).
PAGE = 5000


# Past any proxy of the environment: the agent's service has none, and Loki is in the cluster's own network.
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class LokiError(Exception):
    """Loki did not answer, or refused; the text says which and why."""


def get(url: str, path: str, parameters: dict | None = None, timeout: float = 10) -> tuple[str, float | None]:
    """Ask Loki.

    Parameters:
        url: base address, for example `http://192.0.2.10:3100`.
        path: path of the request.
        parameters: query parameters.
        timeout: seconds to wait for an answer.

    Returns:
        The answer's text, and Loki's clock in seconds since 1970 (whole seconds; none without a Date header).

    Raises:
        LokiError: no answer, or a refusal with Loki's own words.
    """
    address = url.rstrip("/") + path + ("?" + urllib.parse.urlencode(parameters) if parameters else "")
    try:
        with DIRECT.open(address, timeout=timeout) as answer:
            date = answer.headers.get("Date")
            clock = email.utils.parsedate_to_datetime(date).timestamp() if date else None
            return answer.read().decode(), clock
    except urllib.error.HTTPError as error:
        raise LokiError(f"{url} refuses ({error.code}): {error.read().decode(errors='replace').strip()}") from error
    except (urllib.error.URLError, OSError) as error:
        raise LokiError(f"{url} does not answer: {getattr(error, 'reason', error)}") from error


def streams(url: str, query: str, start: int, end: int, limit: int = PAGE) -> list[dict]:
    """Streams of a log query.

    Parameters:
        url: base address.
        query: LogQL log query.
        start: earliest time, nanoseconds since 1970.
        end: time after the latest, nanoseconds since 1970.
        limit: how many lines at most; the latest are returned.

    Returns:
        One entry a stream: `stream` (labels) and `values` (list of time in nanoseconds as text, line).

    Raises:
        LokiError: see `get`.
    """
    parameters = {"query": query, "start": start, "end": end, "limit": limit, "direction": "backward"}
    text = get(url, "/loki/api/v1/query_range", parameters)[0]
    return json.loads(text)["data"]["result"]


def skew(url: str) -> float:
    """How far this host's clock is ahead of Loki's, in seconds; exact to about half a second.

    Raises:
        LokiError: see `get`; also when the answer has no date.
    """
    before = time.time()
    clock = get(url, "/ready")[1]
    if clock is None:
        raise LokiError(f"{url} gives no date")
    # The header is cut to whole seconds.
    return (before + time.time()) / 2 - (clock + 0.5)


def instant(url: str, query: str, moment: float | None = None) -> list[dict]:
    """Result of a metric query at one time.

    Parameters:
        url: base address.
        query: LogQL metric query.
        moment: seconds since 1970; none is now.

    Returns:
        One entry a series: `metric` (labels) and `value` (time in seconds, value as text).

    Raises:
        LokiError: see `get`.
    """
    text = get(url, "/loki/api/v1/query", {"query": query} | ({"time": moment} if moment else {}))[0]
    return json.loads(text)["data"]["result"]
