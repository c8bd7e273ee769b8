"""Log queries with more lines than Loki gives at once."""

from __future__ import annotations

from plugins.module_utils import loki

Entry = tuple[int, str, dict[str, str]]


def entries(url: str, query: str, start: int, end: int, page: int = loki.PAGE) -> list[Entry]:
    """All entries of a log query, asked for page by page.

    Parameters:
        url: base address, for example `http://127.0.0.1:3100`.
        query: LogQL log query.
        start: earliest time, nanoseconds since 1970.
        end: time after the latest, nanoseconds since 1970.
        page: lines per request, at most Loki's `max_entries_limit_per_query`.

    Returns:
        Time in nanoseconds, line and labels of each entry, oldest first.

    Raises:
        LokiError: no answer, a refusal with Loki's message, or a whole page of lines with one and the same time.
    """
    found: dict[tuple, Entry] = {}
    while True:
        rows = [
            (int(moment), line, stream["stream"])
            for stream in loki.streams(url, query, start, end, page)
            for moment, line in stream["values"]
        ]
        for moment, line, labels in rows:
            found[moment, line, tuple(sorted(labels.items()))] = (moment, line, labels)
        if len(rows) < page:
            return sorted(found.values(), key=lambda entry: entry[0])
        # Pages come latest first. Lines of the same time may stand on both, so the next one holds that time again.
        next_end = min(moment for moment, _, _ in rows) + 1
        if next_end >= end:
            raise loki.LokiError(f"{url}: {page} or more lines of {query} have one and the same time")
        end = next_end
