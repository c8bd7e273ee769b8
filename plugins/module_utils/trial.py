# Copyright (c) SmolCluster contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the agent makes of entries: its own program runs its own stages on them, and sends nothing.

Source: Promtail 3.6, clients/pkg/promtail/client/logger.go (what -dry-run prints) and targets/stdin (what it reads).
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import tempfile
import threading
import zipfile
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from ansible_collections.smolcluster.logging.plugins.module_utils.entries import Entries, shown
from ansible_collections.smolcluster.logging.plugins.module_utils.errors import DeploymentError

READ = 4 << 20  # bytes of a log that are read for a trial
LONGEST = 20.0  # seconds that Promtail may take
ESCAPE, LINE_FEED, ESCAPED = "\x1e", "\x1en", "\x1ee"
# One entry as -dry-run prints it: its time, its labels, and its text as JSON, with tabs where columns need them.
PRINTED = re.compile(r"(?P<time>\d{4}-\d\d-\d\dT[\d:.]+[+-]\d{4})\t*(?P<labels>\{.*?\})\t*(?P<text>\".*\")")
LABEL = re.compile(r"(\w+)=(\"(?:[^\"\\]|\\.)*\")")


def entries_of(text: str, start: str, console: bool) -> list[str]:
    """Entries of a log, as the watcher gives them to the agent.

    Parameters:
        text: the log.
        start: expression for the first line of an entry.
        console: whether the log is a console.
    """
    expression, found = re.compile(start, re.ASCII), []
    borders = Entries(expression) if console else expression
    begun = False
    for data in text.encode("utf-8", "surrogateescape").removesuffix(b"\n").split(b"\n"):
        line = shown(data).decode("utf-8", "surrogateescape")
        begins = bool(borders.search(line))
        if begins or not begun:
            found.append(line)
        else:
            found[-1] += "\n" + line
        begun = begun or begins
    return found


def unpacked(archive: str, folder: str) -> str:
    """Unpack the agent's program from a release archive.

    Parameters:
        archive: path of the archive.
        folder: folder for the program.

    Returns:
        Path of the program.
    """
    with zipfile.ZipFile(archive) as packed:
        names = packed.namelist()
        if len(names) != 1 or "/" in names[0]:
            raise DeploymentError(f"{archive} is no release archive: it must contain one program")
        program = packed.extract(names[0], folder)
    Path(program).chmod(0o700)
    return program


def run(
    program: str, stages: list[dict[str, Any]], entries: list[str], zone: str, labels: dict[str, str] | None = None
) -> list[dict[str, Any]]:
    """Let Promtail read entries.

    Parameters:
        program: path of Promtail.
        stages: stages for entries.
        entries: texts.
        zone: IANA name of the zone that is the node's own; empty for that of this machine.
        labels: labels of every entry.

    Returns:
        For each entry `time` (RFC 3339 with an offset), `labels` and `text`.

    Raises:
        DeploymentError: Promtail refuses the stages, or does not answer for every entry.
    """
    lines = [text.replace(ESCAPE, ESCAPED).replace("\n", LINE_FEED) for text in entries]
    decode = '{{ .trial | replace "\\x1en" "\\n" | replace "\\x1ee" "\\x1e" }}'
    wrapped = [
        # Entries of different shapes can overtake one another in the stages.
        {"regex": {"expression": r"^(?P<trial_number>\d+)\t(?P<trial>(?s:.*))$"}},
        {"template": {"source": "trial", "template": decode}},
        {"output": {"source": "trial"}},
        *stages,
        {"labels": {"trial_number": ""}},
        {"template": {"source": "trial", "template": "{{ toJson .Entry }}"}},
        {"output": {"source": "trial"}},
    ]
    static = {"targets": ["localhost"], "labels": {"job": "trial"} | (labels or {})}
    config = {
        "server": {"disable": True},
        "clients": [{"url": "http://127.0.0.1:9/loki/api/v1/push"}],
        "scrape_configs": [{"job_name": "trial", "pipeline_stages": wrapped, "static_configs": [static]}],
    }
    data = "".join(f"{number}\t{line}\n" for number, line in enumerate(lines)).encode("utf-8", "surrogateescape")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "config.yml")
        path.write_text(json.dumps(config), "utf-8")
        output, errors = _answers(
            [program, "-stdin", "-dry-run", "-server.disable", f"-config.file={path}"],
            data,
            len(lines),
            os.environ | ({"TZ": zone} if zone else {}),
        )
    found = {entry["labels"].pop("trial_number"): entry for entry in map(entry_of, PRINTED.finditer(output))}
    if len(found) != len(lines):
        reason = " ".join(errors.split())[-600:]
        raise DeploymentError(f"Promtail read {len(found)} of {len(lines)} entries: {reason or output[-300:]}")
    return [found[str(number)] for number in range(len(lines))]


def _answers(command: list[str], data: bytes, number: int, env: dict[str, str]) -> tuple[str, str]:
    """Output and errors of Promtail for lines on its standard input.

    It ends as soon as its input ends, whether or not it has printed everything; so the input stays open until then.

    Parameters:
        command: the program and its arguments.
        data: the lines.
        number: number of entries that it must print.
        env: its environment.
    """
    with (
        tempfile.TemporaryFile() as errors,
        # AnsibleModule.run_command closes the input at once.
        subprocess.Popen(  # pylint: disable=ansible-bad-function
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, env=env
        ) as process,
    ):

        def write() -> None:
            with suppress(BrokenPipeError):
                process.stdin.write(data)
                process.stdin.flush()

        writer = threading.Thread(target=write, daemon=True)
        watchdog = threading.Timer(LONGEST, process.kill)
        writer.start()
        watchdog.start()
        output = []
        while number:
            line = process.stdout.readline().decode("utf-8", "replace")
            if not line:
                break
            output.append(line)
            number -= bool(PRINTED.search(line))
        writer.join()
        with suppress(BrokenPipeError):
            process.stdin.close()
        process.stdout.read()
        process.wait()
        watchdog.cancel()
        errors.seek(0)
        return "".join(output), errors.read().decode("utf-8", "replace")


def entry_of(match: re.Match[str]) -> dict[str, Any]:
    """One entry from what Promtail printed."""
    labels = {name: json.loads(value) for name, value in LABEL.findall(match["labels"])}
    return {"time": match["time"], "labels": labels, "text": json.loads(match["text"])}


def beginning(path: str) -> str:
    """Beginning of a log: complete lines, at most `READ` bytes, also of a file that is being written."""
    with open(path, "rb") as file:
        data = file.read(READ)
    if len(data) == READ and b"\n" in data:
        data = data[: data.rindex(b"\n") + 1]
    return data.decode("utf-8", "surrogateescape")


def row(entry: dict[str, Any]) -> dict[str, str]:
    """One entry for people; see the module `agent_format_trial`.

    Parameters:
        entry: one of the results of `run`, with the labels `smolcluster_format` and `smolcluster_time`.
    """
    labels = entry["labels"]
    written = labels.get("smolcluster_time", "")
    return {
        "time": utc(entry["time"]) if written else "",
        "written": written,
        "level": labels.get("level", ""),
        "rank": labels.get("rank", ""),
        "preset": labels.get("smolcluster_format", ""),
        "text": entry["text"],
    }


def utc(time: str) -> str:
    """A time as Promtail prints it, in UTC with `Z` and without zeros at the end of the fraction."""
    date, fraction, offset = re.match(r"(\S{19})(\.\d+)?([+-]\d{4})$", time).groups()
    moment = datetime.strptime(date + offset, "%Y-%m-%dT%H:%M:%S%z").astimezone(timezone.utc)  # noqa: UP017 - Python 3.9
    return f"{moment:%Y-%m-%dT%H:%M:%S}{(fraction or '').rstrip('0').rstrip('.')}Z"
