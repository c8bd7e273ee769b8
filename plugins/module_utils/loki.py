# Copyright (c) SmolCluster contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Talk to Loki over HTTP. Every HTTP error, and every answer that is not from Loki, becomes a `LokiError`.

Source: https://grafana.com/docs/loki/v3.7.x/reference/loki-http-api/
"""

from __future__ import annotations

import email.utils
import functools
import http.client
import json
import ssl
import time
import urllib.error
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass

from ansible.module_utils import urls

# Seconds that a line may be ahead of Loki's clock: creation_grace_period of the role docker_loki_grafana; a unit test
# compares them.
FUTURE = 4200
SECOND = 1_000_000_000
# Loki's default limit of a query (max_entries_limit_per_query).
PAGE = 5000
# Characters of an answer that a message quotes.
SHOWN = 200


class LokiError(Exception):
    """Loki refused the request, or what answered is not Loki; the text says what the answer was."""


class NoAnswerError(LokiError):
    """No answer, or not in time: Loki may be down."""


class NotLokiError(LokiError):
    """Something answers that is not Loki."""


@dataclass(frozen=True)
class Answer:
    """Answer of a server.

    Parameters:
        status: HTTP status; a redirect is not followed.
        headers: its headers.
        text: its body.
    """

    status: int
    headers: Mapping[str, str]
    text: str

    def shown(self) -> str:
        """Status and the first characters of the text, on one line."""
        text = " ".join(self.text[: 4 * SHOWN].split())
        text = text if len(text) <= SHOWN else f"{text[:SHOWN]}…"
        if 300 <= self.status < 400:
            text = f"a redirect to {self.headers.get('Location', 'nowhere')}"
        return f"{self.status}{f': {text}' if text else ', without a text'}"


@functools.cache
def opener(scheme: str) -> urls.Request:
    """Object that opens URLs of a scheme.

    It ignores proxies of the environment, because the agent's service uses none and Loki is in the cluster's own
    network, and it ignores passwords in .netrc, which are for other servers. It is cached, because reading the
    certificates of the system takes 30 ms.
    """
    context = urls.make_context() if scheme == "https" else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    return urls.Request(use_proxy=False, use_netrc=False, follow_redirects="no", context=context)


def ask(address: str, body: bytes | None = None, timeout: float = 10) -> Answer:
    """Send a request to any HTTP server.

    Parameters:
        address: URL.
        body: JSON to send by POST; None sends a GET.
        timeout: seconds to wait for an answer.

    Raises:
        NoAnswerError: no answer, or the connection ends before the answer is complete.
        NotLokiError: what answers does not speak HTTP, or the URL is not valid.
    """
    parts = urllib.parse.urlsplit(address)
    url = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
    headers = {"Content-Type": "application/json"} if body else None
    try:
        request = opener(parts.scheme)
        with request.open("POST" if body else "GET", address, data=body, headers=headers, timeout=timeout) as answer:
            return Answer(answer.status, answer.headers, answer.read().decode(errors="replace"))
    except urllib.error.HTTPError as error:
        try:
            text = error.read().decode(errors="replace")
        except (OSError, http.client.HTTPException):
            text = ""
        return Answer(error.code, error.headers or {}, text)
    except (http.client.RemoteDisconnected, http.client.IncompleteRead) as error:
        # Docker closes a connection to a container's port like this while the program in it is down.
        raise NoAnswerError(f"{url} does not answer: the connection was closed") from error
    except http.client.HTTPException as error:
        seen = " ".join(str(error).split())[:SHOWN]
        raise NotLokiError(f"{url} does not speak HTTP{f': {seen}' if seen else ''}") from error
    except (OSError, urls.ConnectionError) as error:
        raise NoAnswerError(f"{url} does not answer: {getattr(error, 'reason', error)}") from error
    except ValueError as error:
        raise NotLokiError(f"no request can be sent to {url}: {error}") from error


def get(url: str, path: str, parameters: dict | None = None, timeout: float = 10) -> tuple[str, float | None]:
    """Send a GET request to Loki.

    Parameters:
        url: base URL, for example `http://192.0.2.10:3100`.
        path: path of the request.
        parameters: query parameters.
        timeout: seconds to wait for an answer.

    Returns:
        Text of the answer, and Loki's clock in seconds since 1970 (whole seconds; None without a Date header).

    Raises:
        NoAnswerError: see `ask`; also when a proxy in front of Loki reports that Loki does not answer.
        NotLokiError: see `ask`; also for a redirect, which Loki never sends.
        LokiError: Loki refuses the request; the text has Loki's reason.
    """
    answer = ask(
        url.rstrip("/") + path + ("?" + urllib.parse.urlencode(parameters) if parameters else ""), None, timeout
    )
    if answer.status in (502, 504):
        raise NoAnswerError(f"{url} does not answer: a proxy in front of it answers {answer.shown()}")
    if 300 <= answer.status < 400 or answer.status in (404, 405, 501):
        raise NotLokiError(f"{url} is not Loki: {path} answers {answer.shown()}")
    if answer.status != 200:
        raise LokiError(f"{url} refuses the request ({answer.status}): {answer.text.strip()}")
    try:
        return answer.text, email.utils.parsedate_to_datetime(answer.headers["Date"]).timestamp()
    except (KeyError, TypeError, ValueError):
        return answer.text, None


def result(url: str, path: str, parameters: dict, kind: str) -> list[dict]:
    """Result of a query.

    Parameters:
        url: base URL.
        path: path of the request.
        parameters: query parameters.
        kind: `streams`, `vector` or `matrix`.

    Raises:
        LokiError: see `get`; an answer in another form is a `NotLokiError`.
    """
    body = get(url, path, parameters)[0]
    strange = NotLokiError(f"{url} is not Loki: {path} answers {Answer(200, {}, body).shown()}")
    try:
        data = json.loads(body)["data"]
        found, type_ = data["result"], data["resultType"]
        if type_ != kind or not isinstance(found, list):
            raise strange
        for one in found:
            labels = one["stream"] if kind == "streams" else one["metric"]
            values = [one["value"]] if kind == "vector" else one["values"]
            if not isinstance(labels, dict):
                raise strange
            for moment, text in values:
                float(moment)
                if not isinstance(text, str):
                    raise strange
    except (ValueError, LookupError, TypeError) as error:
        raise strange from error
    return found


def streams(url: str, query: str, start: int, end: int, limit: int = PAGE) -> list[dict]:
    """Streams of a log query.

    Parameters:
        url: base URL.
        query: LogQL log query.
        start: earliest time, nanoseconds since 1970.
        end: end of the time range (exclusive), nanoseconds since 1970.
        limit: how many lines at most; the latest are returned.

    Returns:
        One entry per stream: `stream` (labels) and `values` (list of time in nanoseconds as text, line).

    Raises:
        LokiError: see `result`.
    """
    parameters = {"query": query, "start": start, "end": end, "limit": limit, "direction": "backward"}
    return result(url, "/loki/api/v1/query_range", parameters, "streams")


def skew(url: str) -> float:
    """How many seconds this host's clock is ahead of Loki's; accurate to about half a second.

    Raises:
        LokiError: see `get`; also when the answer has no date. A `NotLokiError` when the answer is not from Loki.
    """
    before = time.time()
    text, clock = get(url, "/ready")
    after = time.time()
    if text.strip() != "ready":
        raise NotLokiError(f"{url} is not Loki: /ready answers {Answer(200, {}, text).shown()}")
    if clock is None:
        raise LokiError(f"the answer of {url} has no date")
    # The header has whole seconds, rounded down.
    return (before + after) / 2 - (clock + 0.5)


def instant(url: str, query: str, moment: int | None = None) -> list[dict]:
    """Result of a metric query at one time.

    Parameters:
        url: base URL.
        query: LogQL metric query.
        moment: nanoseconds since 1970; None is now.

    Returns:
        One entry per series: `metric` (labels) and `value` (time in seconds, value as text).

    Raises:
        LokiError: see `result`.
    """
    parameters = {"query": query} | ({"time": moment} if moment else {})
    return result(url, "/loki/api/v1/query", parameters, "vector")


def series(url: str, query: str, start: int, end: int, step: int) -> list[dict]:
    """Result of a metric query over a time range.

    Parameters:
        url: base URL.
        query: LogQL metric query.
        start: time of the first value, in seconds since 1970.
        end: time of the last value, in seconds since 1970.
        step: seconds between two values; Loki refuses more than 11,000 values.

    Returns:
        One entry per series: `metric` (labels) and `values` (list of time in seconds, value as text); times without a
        value are left out.

    Raises:
        LokiError: see `result`.
    """
    parameters = {"query": query, "start": start, "end": end, "step": step}
    return result(url, "/loki/api/v1/query_range", parameters, "matrix")


def push(url: str, labels: dict[str, str], line: str, moment: int) -> None:
    """Store one line.

    Parameters:
        url: base URL.
        labels: labels of its stream.
        line: the line.
        moment: its time, nanoseconds since 1970.

    Raises:
        LokiError: Loki does not answer, or does not accept the line.
    """
    body = {"streams": [{"stream": labels, "values": [[str(moment), line]]}]}
    answer = ask(url.rstrip("/") + "/loki/api/v1/push", json.dumps(body).encode())
    if answer.status != 204:
        raise LokiError(f"{url} does not accept a line: it answers {answer.shown()}")


def check_client(url: str) -> None:
    """Make sure that what answers at a client's URL is Loki. No answer is not an error: Loki may be down.

    A push without streams changes nothing. Loki answers it with 422 (v3.7.8, pkg/distributor/distributor.go) or 204.
    A GET would prove nothing: Loki answers it with 404 or 405, depending on the order of its routes.

    Parameters:
        url: URL that lines are sent to.

    Raises:
        NotLokiError: something answers that is not Loki; the agent would drop every line.
    """
    way = "Set promtail_loki_url. Nothing was changed; a running agent keeps running"
    try:
        answer = ask(url, b'{"streams": []}', timeout=5)
    except NotLokiError as error:
        raise NotLokiError(f"{url} is not Loki: {error}. {way}") from error
    except NoAnswerError:
        return
    # Other errors come from Loki or a proxy in front of it: password required (401), Loki down (502), rate limit (429).
    if (answer.status < 400 and answer.status != 204) or answer.status in (404, 405, 501):
        raise NotLokiError(f"{url} is not Loki: it answers {answer.shown()}. {way}")
    if answer.status == 400 and "HTTPS" in answer.text:
        raise NotLokiError(f"{url} is not Loki: it answers {answer.shown()}. Begin promtail_loki_url with https://")
