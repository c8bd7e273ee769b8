"""What is taken for Loki, what is not, and what is said of everything that answers wrongly or not at all."""

from __future__ import annotations

import http.server
import json
import socket
import threading
from types import SimpleNamespace

import pytest
from ansible_collections.smolcluster.logging.plugins.module_utils import loki, metrics

PAGE = "<html><title>It works!</title></html>"
STREAMS = {
    "status": "success",
    "data": {"resultType": "streams", "result": [{"stream": {"node": "mini1"}, "values": [["1", "a line"]]}]},
}
VECTOR = {"status": "success", "data": {"resultType": "vector", "result": [{"metric": {}, "value": [1.5, "3"]}]}}


@pytest.fixture
def server():
    """A server of HTTP that answers everything with what `code`, `text` and `headers` say."""
    answers = SimpleNamespace(code=200, text="ready\n", headers={}, asked=[])

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            answers.asked.append((self.command, self.path))
            self.send_response(answers.code)
            for name, value in answers.headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(answers.text.encode())

        def do_POST(self):
            self.do_GET()

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        answers.url = f"http://127.0.0.1:{running.server_port}"
        yield answers
        running.shutdown()


@pytest.fixture
def raw():
    """A program at a port that answers with bytes, whatever it is asked, and closes the connection."""
    answers = SimpleNamespace(bytes=b"")

    def serve(listening):
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            with connection:
                connection.recv(1 << 16)
                connection.sendall(answers.bytes)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=serve, args=(listening,), daemon=True).start()
        answers.url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        yield answers
        listening.shutdown(socket.SHUT_RDWR)


def test_answers_of_loki_are_read(server):
    assert abs(loki.skew(server.url)) < 2
    server.text = json.dumps(STREAMS)
    assert loki.streams(server.url, "{}", 0, 1) == STREAMS["data"]["result"]
    server.text = json.dumps(VECTOR)
    assert loki.instant(server.url, "x") == VECTOR["data"]["result"]
    assert server.asked[0] == ("GET", "/ready")


def test_refusal_holds_what_loki_says_and_is_no_silence(server):
    server.code, server.text = 400, "parse error at line 1"
    with pytest.raises(loki.LokiError, match=r"refuses the request \(400\): parse error at line 1") as caught:
        loki.streams(server.url, "{", 0, 1)
    assert not isinstance(caught.value, (loki.NoAnswerError, loki.NotLokiError))


@pytest.mark.parametrize(
    "text",
    [
        PAGE,
        "",
        "null",
        "[]",
        "{}",
        '{"data": null}',
        '{"data": {"result": {}, "resultType": "streams"}}',
        json.dumps(VECTOR),
        '{"data": {"resultType": "streams", "result": [1]}}',
        '{"data": {"resultType": "streams", "result": [{"stream": [], "values": []}]}}',
        '{"data": {"resultType": "streams", "result": [{"stream": {}, "values": [["now", "a line"]]}]}}',
        '{"data": {"resultType": "streams", "result": [{"stream": {}, "values": [["1"]]}]}}',
        '{"data": {"resultType": "streams", "result": [{"stream": {}, "values": [[1, 2, 3]]}]}}',
    ],
)
def test_whoever_answers_200_to_everything_is_not_loki(server, text):
    server.text = text
    for question in (lambda: loki.streams(server.url, "{}", 0, 1), lambda: loki.skew(server.url)):
        with pytest.raises(loki.NotLokiError, match=r"is not Loki: /\S+ answers 200"):
            question()


def test_result_of_another_kind_is_not_lokis(server):
    server.text = json.dumps(STREAMS)
    with pytest.raises(loki.NotLokiError, match="/loki/api/v1/query answers 200"):
        loki.instant(server.url, "x")


def test_message_shows_the_beginning_of_what_was_seen_on_one_line(server):
    server.text = "<html>\n  <b>It works!</b>" + 5000 * "x"
    with pytest.raises(loki.NotLokiError, match=r"answers 200: <html> <b>It works!</b>x+…$") as caught:
        loki.skew(server.url)
    assert len(str(caught.value)) < 300


def test_redirect_is_not_loki_and_is_not_followed(server):
    server.code, server.headers = 302, {"Location": f"{server.url}/login"}
    with pytest.raises(loki.NotLokiError, match=r"/ready answers 302: a redirect to http://.*/login"):
        loki.skew(server.url)
    assert server.asked == [("GET", "/ready")]


def test_no_answer_is_different_from_a_wrong_answer(server):
    with pytest.raises(loki.NoAnswerError, match=r"http://127\.0\.0\.1:9 does not answer: .*refused"):
        loki.skew("http://127.0.0.1:9")
    with pytest.raises(loki.NoAnswerError, match="does not answer"):
        loki.skew("http://no-such-host.invalid:3100")
    server.code, server.text = 502, "bad gateway"
    with pytest.raises(loki.NoAnswerError, match="a proxy in front of it answers 502: bad gateway"):
        loki.skew(server.url)


def test_silence_after_the_connection_ends_in_time():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        with pytest.raises(loki.NoAnswerError, match="does not answer: timed out"):
            loki.get(url, "/ready", timeout=0.2)


def test_program_that_does_not_speak_http(raw):
    raw.bytes = b"SSH-2.0-OpenSSH_10.0\r\n"
    with pytest.raises(loki.NotLokiError, match=r"does not speak HTTP: SSH-2\.0-OpenSSH"):
        loki.skew(raw.url)
    with pytest.raises(loki.NotLokiError, match=r"is not Loki: .*does not speak HTTP"):
        loki.check_client(f"{raw.url}/loki/api/v1/push")


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nready"])
def test_closed_connection_may_be_a_loki_that_is_down(raw, answer):
    raw.bytes = answer
    with pytest.raises(loki.NoAnswerError, match="the connection was closed"):
        loki.skew(raw.url)
    loki.check_client(f"{raw.url}/loki/api/v1/push")


def test_answer_without_a_date(raw):
    raw.bytes = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nready\n"
    with pytest.raises(loki.LokiError, match="has no date"):
        loki.skew(raw.url)


def test_proxy_and_passwords_of_the_environment_are_not_used(server, monkeypatch, tmp_path):
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password secret\n")
    (tmp_path / ".netrc").chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert abs(loki.skew(server.url)) < 2


@pytest.mark.parametrize("code", [204, 422, 400, 401, 403, 429, 500, 502, 503])
def test_client_that_may_be_loki_is_taken(server, code):
    server.code, server.text = code, ""
    loki.check_client(f"{server.url}/loki/api/v1/push")
    assert server.asked == [("POST", "/loki/api/v1/push")]


@pytest.mark.parametrize(
    ("code", "seen"),
    [(200, "200: <html>"), (201, "201: "), (301, "301: a redirect to "), (404, "404"), (405, "405"), (501, "501")],
)
def test_client_that_is_somebody_else_is_refused(server, code, seen):
    server.code, server.text = code, PAGE
    with pytest.raises(loki.NotLokiError, match=f"is not Loki: it answers {seen}.*Set promtail_loki_url. Nothing was"):
        loki.check_client(f"{server.url}/loki/api/v1/push")


def test_client_that_wants_https_is_refused(server):
    server.code, server.text = 400, "Client sent an HTTP request to an HTTPS server."
    with pytest.raises(loki.NotLokiError, match="Begin promtail_loki_url with https://"):
        loki.check_client(f"{server.url}/loki/api/v1/push")


def test_client_that_is_down_is_no_error():
    loki.check_client("http://127.0.0.1:9/loki/api/v1/push")


def test_metrics_of_the_agent_are_fetched_in_one_place(server):
    port = int(server.url.rpartition(":")[2])
    server.text = 'promtail_read_lines_total{path="/a"} 3\n'
    assert metrics.fetch(port).by("promtail_read_lines_total", "path") == {"/a": 3}
    server.code, server.text = 500, "broken"
    with pytest.raises(metrics.AgentError, match=f"http://127.0.0.1:{port}/metrics answers 500: broken"):
        metrics.fetch(port)
    with pytest.raises(metrics.AgentError, match=r"127\.0\.0\.1:9 does not answer"):
        metrics.fetch(9)
