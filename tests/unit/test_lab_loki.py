"""Log queries of more than one page, against a stand-in that keeps to Loki's rules for `start`, `end` and `limit`."""

from __future__ import annotations

import json
import threading
import urllib.parse
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from lab.loki import entries
from plugins.module_utils.loki import LokiError

LABELS = ({"rank": "0"}, {"rank": "1"})


@pytest.fixture
def stand_in():
    """Stand-in for Loki: `rows` (time, line, number of its labels) is what it stores, `asked` counts requests."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self):
            query = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(self.path).query))
            self.server.asked += 1
            if int(query["limit"]) > 5000:
                self.answer(400, b"max entries limit per query exceeded, limit > max_entries_limit_per_query")
                return
            start, end = int(query["start"]), int(query["end"])
            rows = sorted((row for row in self.server.rows if start <= row[0] < end), reverse=True)
            streams: dict[int, list] = {}
            for moment, line, number in rows[: int(query["limit"])]:
                streams.setdefault(number, []).append([str(moment), line])
            result = [{"stream": LABELS[number], "values": values} for number, values in streams.items()]
            self.answer(200, json.dumps({"data": {"resultType": "streams", "result": result}}).encode())

        def answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_words):
            """Stay silent."""

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        server.rows, server.asked = [], 0
        server.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("count", [0, 1, 4, 5, 6, 23])
def test_every_line_comes_once_and_in_order(stand_in, count):
    # Three lines a moment: moments lie across the ends of pages.
    stand_in.rows = [(10 + n // 3, f"line {n}", n % 2) for n in range(count)]
    found = entries(stand_in.url, "{}", 10, 1000, page=5)
    assert sorted(found, key=lambda row: row[1]) == sorted(
        ((moment, line, LABELS[number]) for moment, line, number in stand_in.rows), key=lambda row: row[1]
    )
    assert [moment for moment, _, _ in found] == sorted(moment for moment, _, _ in stand_in.rows)


def test_same_line_of_two_ranks_is_two_entries(stand_in):
    stand_in.rows = [(10, "same", 0), (10, "same", 1), (9, "other", 0)]
    assert len(entries(stand_in.url, "{}", 0, 1000, page=3)) == 3


def test_only_the_asked_time_counts(stand_in):
    stand_in.rows = [(moment, "line", 0) for moment in range(10)]
    assert [moment for moment, _, _ in entries(stand_in.url, "{}", 3, 7, page=2)] == [3, 4, 5, 6]


def test_a_page_of_one_moment_is_an_error_and_no_endless_loop(stand_in):
    stand_in.rows = [(10, f"line {n}", 0) for n in range(6)]
    with pytest.raises(LokiError, match="one and the same time"):
        entries(stand_in.url, "{}", 0, 1000, page=5)
    assert stand_in.asked == 2


def test_refusal_comes_with_the_message_of_the_server(stand_in):
    with pytest.raises(LokiError, match=r"refuses the request \(400\): max entries limit per query exceeded"):
        entries(stand_in.url, "{}", 0, 1000, page=5001)


def test_no_answer_is_a_plain_error():
    with pytest.raises(LokiError, match="does not answer"):
        entries("http://127.0.0.1:9", "{}", 0, 1000)
