# Copyright (c) SmolCluster contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Reading from Loki over HTTP. Every error of HTTP, and every answer that is not Loki's, ends here as a `LokiError`.

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
# Characters of an answer that a message repeats.
SHOWN = 200


class LokiError(Exception):
    """Loki refused, or did not answer as Loki; the text says what was seen."""


class NoAnswerError(LokiError):
    """Nobody answers, or not in time: Loki may only be down."""


class NotLokiError(LokiError):
    """Somebody answers, and not as Loki does."""


@dataclass(frozen=True)
class Answer:
    """What a server answered.

    Parameters:
        status: status of HTTP; a redirect is not followed.
        headers: its headers.
        text: its body.
    """

    status: int
    headers: Mapping[str, str]
    text: str

    def shown(self) -> str:
        """Status and the beginning of the text, on one line."""
        text = " ".join(self.text[: 4 * SHOWN].split())
        text = text if len(text) <= SHOWN else f"{text[:SHOWN]}…"
        if 300 <= self.status < 400:
            text = f"a redirect to {self.headers.get('Location', 'nowhere')}"
        return f"{self.status}{f': {text}' if text else ', and no text'}"


@functools.cache
def opener(scheme: str) -> urls.Request:
    """What opens URLs of a scheme.

    Past any proxy of the environment: the agent's service has none, and Loki is in the cluster's own network. Without
    the passwords of a .netrc, which are for others. Kept, because the certificates of the system take 30 ms to read.
    """
    context = urls.make_context() if scheme == "https" else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    return urls.Request(use_proxy=False, use_netrc=False, follow_redirects="no", context=context)


def ask(address: str, body: bytes | None = None, timeout: float = 10) -> Answer:
    """Ask a server of HTTP, whatever it is.

    Parameters:
        address: URL.
        body: JSON to send; none asks by GET.
        timeout: seconds to wait for an answer.

    Raises:
        NoAnswerError: nobody answers, or the connection ends before the answer does.
        NotLokiError: what answers does not speak HTTP.
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
        # So does a container's port whose program is down.
        raise NoAnswerError(f"{url} does not answer: the connection was closed") from error
    except http.client.HTTPException as error:
        seen = " ".join(str(error).split())[:SHOWN]
        raise NotLokiError(f"{url} does not speak HTTP{f': {seen}' if seen else ''}") from error
    except (OSError, urls.ConnectionError) as error:
        raise NoAnswerError(f"{url} does not answer: {getattr(error, 'reason', error)}") from error
    except ValueError as error:
        raise NotLokiError(f"{url} cannot be asked: {error}") from error


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
        NoAnswerError: see `ask`; also when a server before Loki says that Loki does not answer.
        NotLokiError: see `ask`; also for a redirect, which Loki never gives.
        LokiError: a refusal, with what Loki says.
    """
    answer = ask(
        url.rstrip("/") + path + ("?" + urllib.parse.urlencode(parameters) if parameters else ""), None, timeout
    )
    if answer.status in (502, 504):
        raise NoAnswerError(f"{url} does not answer: what is before it says {answer.shown()}")
    if 300 <= answer.status < 400 or answer.status in (404, 405, 501):
        raise NotLokiError(f"{url} is not Loki: {path} gives {answer.shown()}")
    if answer.status != 200:
        raise LokiError(f"{url} refuses ({answer.status}): {answer.text.strip()}")
    try:
        return answer.text, email.utils.parsedate_to_datetime(answer.headers["Date"]).timestamp()
    except (KeyError, TypeError, ValueError):
        return answer.text, None


def result(url: str, path: str, parameters: dict, kind: str) -> list[dict]:
    """Result of a query.

    Parameters:
        url: base address.
        path: path of the request.
        parameters: query parameters.
        kind: `streams` or `vector`.

    Raises:
        LokiError: see `get`; an answer of another form is a `NotLokiError`.
    """
    body = get(url, path, parameters)[0]
    strange = NotLokiError(f"{url} is not Loki: {path} gives {Answer(200, {}, body).shown()}")
    try:
        data = json.loads(body)["data"]
        found, type_ = data["result"], data["resultType"]
        if type_ != kind or not isinstance(found, list):
            raise strange
        for one in found:
            labels, values = (one["stream"], one["values"]) if kind == "streams" else (one["metric"], [one["value"]])
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
        url: base address.
        query: LogQL log query.
        start: earliest time, nanoseconds since 1970.
        end: time after the latest, nanoseconds since 1970.
        limit: how many lines at most; the latest are returned.

    Returns:
        One entry a stream: `stream` (labels) and `values` (list of time in nanoseconds as text, line).

    Raises:
        LokiError: see `result`.
    """
    parameters = {"query": query, "start": start, "end": end, "limit": limit, "direction": "backward"}
    return result(url, "/loki/api/v1/query_range", parameters, "streams")


def skew(url: str) -> float:
    """How far this host's clock is ahead of Loki's, in seconds; exact to about half a second.

    Raises:
        LokiError: see `get`; also when the answer has no date. A `NotLokiError` when it is not Loki's.
    """
    before = time.time()
    text, clock = get(url, "/ready")
    after = time.time()
    if text.strip() != "ready":
        raise NotLokiError(f"{url} is not Loki: /ready gives {Answer(200, {}, text).shown()}")
    if clock is None:
        raise LokiError(f"{url} gives no date")
    # The header is cut to whole seconds.
    return (before + after) / 2 - (clock + 0.5)


def instant(url: str, query: str, moment: float | None = None) -> list[dict]:
    """Result of a metric query at one time.

    Parameters:
        url: base address.
        query: LogQL metric query.
        moment: seconds since 1970; none is now.

    Returns:
        One entry a series: `metric` (labels) and `value` (time in seconds, value as text).

    Raises:
        LokiError: see `result`.
    """
    parameters = {"query": query} | ({"time": moment} if moment else {})
    return result(url, "/loki/api/v1/query", parameters, "vector")


def check_client(url: str) -> None:
    """Make sure that what answers at a client's address is Loki; nobody answering is no error, it may be down.

    A push without streams changes nothing. Loki answers it with 422 (v3.7.8, pkg/distributor/distributor.go) or 204.
    Not a GET: to that Loki answers 404 or 405, as its routes happen to be in order.

    Parameters:
        url: address that lines are sent to.

    Raises:
        NotLokiError: somebody answers who is not Loki: the agent would drop every line.
    """
    way = "Set promtail_loki_url; nothing was changed, and an agent that ran runs on"
    try:
        answer = ask(url, b'{"streams": []}', timeout=5)
    except NotLokiError as error:
        raise NotLokiError(f"{url} is not Loki: {error}. {way}") from error
    except NoAnswerError:
        return
    # Other refusals are Loki's, or a proxy's before it: a password is wanted (401), Loki is down (502), too much (429).
    if (answer.status < 400 and answer.status != 204) or answer.status in (404, 405, 501):
        raise NotLokiError(f"{url} is not Loki: it answers {answer.shown()}. {way}")
    if answer.status == 400 and "HTTPS" in answer.text:
        raise NotLokiError(f"{url} is not Loki: it answers {answer.shown()}. Begin promtail_loki_url with https://")
