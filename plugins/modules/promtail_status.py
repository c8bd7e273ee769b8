# Copyright (c) SmolCluster contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module: how the agent of a node is, and what is wrong with it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: promtail_status
short_description: Tell how a node's Promtail is
description:
  - Puts together what the service, the agent's own metrics, its journal, its positions file and Loki say.
  - Reads only. A node that is unwell is a result, not a failure.
author: [SmolCluster contributors (@smolcluster)]
attributes:
  check_mode: {support: full, description: It never changes anything.}
  diff_mode: {support: none, description: It never changes anything.}
options:
  loki_url: {description: Base address of Loki., type: str, required: true}
  http_port: {description: TCP port of the agent's own metrics on 127.0.0.1., type: int, required: true}
  node: {description: Value of the label C(node) of this node's lines., type: str, required: true}
  systems:
    description:
      - What differs between systems, by the name of the kernel (C(Linux), C(Darwin)); C(service) is the service's name,
        C(data) the folder with its positions.
    type: dict
    required: true
"""
EXAMPLES = r"""
- name: How is the agent?
  smolcluster.logging.promtail_status:
    loki_url: http://192.0.2.10:3100
    http_port: 9080
    node: mini1
    systems:
      Linux: {service: promtail, data: /var/lib/promtail}
"""
RETURN = r"""
status:
  description: What is known of the agent; null where nothing is.
  returned: always
  type: dict
  contains:
    running: {description: Whether the service runs., type: bool}
    version: {description: Version of the agent., type: str}
    uptime: {description: Seconds since its start., type: int}
    sent: {description: Lines delivered since its start., type: int}
    retried: {description: Batches sent again since its start., type: int}
    dropped: {description: Lines given up since its start by Promtail's name of the reason., type: dict}
    cut: {description: Lines that were too long and lost their end since its start., type: int}
    files: {description: Number of files that it follows., type: int}
    backlog: {description: Bytes of these that it has not read yet., type: int}
    last_line: {description: Seconds since the time of the node's newest line in Loki within a day., type: float}
    clock_skew: {description: Seconds by which the node's clock is ahead of Loki's., type: float}
    others: {description: Command lines of other Promtails on the node., type: list, elements: str}
    positions_age: {description: Seconds since the agent saved how far it has read., type: int}
    notes: {description: What is worth knowing and no problem., type: list, elements: str}
problems:
  description: What is wrong, each with the way out; empty when all is well.
  returned: always
  type: list
  elements: str
"""

import json
import os
import re
import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.smolcluster.logging.plugins.module_utils import host, loki, promtail
from ansible_collections.smolcluster.logging.plugins.module_utils.metrics import AgentError, Metrics, fetch
from ansible_collections.smolcluster.logging.plugins.module_utils.service import ABSENT, FAILED, STOPPED, State

# Seconds.
DAY = 86400
UNSAVED = 60  # the agent saves its positions every 10
CLOCK = 1
FUTURE = 4200  # Loki refuses what is farther ahead (creation_grace_period of the role docker_loki_grafana)
RECENT = 30  # a batch that cannot be sent is tried again more often than this
# A try that hangs ends after 10 s, and the next one comes at most 5 s later (backoff_config of the role promtail).
RETRY = 16

# Promtail's words, clients/pkg/promtail/client/client.go.
RETRIED = "error sending batch, will retry"
REFUSED = "final error sending batch"
ERROR = re.compile(r"^error|level=error(?!.*context canceled)")  # what a stop cancels is no cause
# What Loki says of lines that it refuses, and what is to be done.
REFUSALS = {
    "too far behind": (
        "lines that are read again after a crash are refused so, harmlessly; others are lost when a clock was set back "
        "by more than an hour"
    ),
    "timestamp too new": "set this node's clock, or promtail_timezone to the zone of the lines",
    "timestamp too old": "they are older than Loki keeps lines; raise docker_loki_grafana_retention to have them",
    "HTTP status 404": "set promtail_loki_url to Loki's address",
}
# Promtail's other reasons for giving up lines.
REASONS = {
    "line_too_long": "they are longer than max_line_size of the agent; let training write shorter lines",
    "rate_limited": "Loki takes no more per second; raise its limits ingestion_rate_mb and per_stream_rate_limit",
    "stream_limited": "they have more sets of labels than max_streams of the agent; remove that limit",
}


def secret_free(text: str) -> str:
    """A text without the user and password of the addresses in it, on one line."""
    return re.sub(r"//[^/@\s]+@", "//***@", " ".join(text.split()))


def in_brackets(lines: list[str]) -> str:
    """The last of lines in brackets, to stand behind a word; empty without any."""
    return f" ({lines[-1].strip()})" if lines else ""


class Status:
    """What is known of a node's agent.

    Parameters:
        module: the module that runs; gives parameters and commands.
    """

    def __init__(self, module: AnsibleModule) -> None:
        self.params = module.params
        self.ours = self.params["systems"][host.SYSTEM]
        self.run = module.run_command
        self.service = host.manager(self.run, self.ours["service"])
        self.problems: list[str] = []
        self.notes: list[str] = []
        self.loki_answers = False
        self.status: dict = dict.fromkeys(
            ("running", "version", "uptime", "sent", "retried", "dropped", "cut", "files", "backlog", "last_line",
             "clock_skew", "others", "positions_age")
        )  # fmt: skip

    def gather(self) -> dict:
        """Ask everybody.

        Returns:
            Results of the module.
        """
        state = self.service.state()
        pid = state.pid
        self.status["running"] = bool(pid)
        if not pid:
            self.problems.append(self.stopped(state))
        self.others()
        self.store()
        if pid:
            age = host.own.age(pid)
            self.status["uptime"] = None if age is None else int(age)
            self.agent()
            self.positions()
        return {
            "changed": False,
            "status": {**self.status, "notes": [secret_free(note) for note in self.notes]},
            "problems": [secret_free(problem) for problem in self.problems],
        }

    def stopped(self, state: State) -> str:
        """Why the service does not run."""
        deploy = "`ansible-playbook site.yml --tags promtail`"
        if state.phase == ABSENT:
            return f"the agent does not run: it is not installed. {deploy} deploys and starts it"
        start = f"`{self.service.start_command}` on the node starts it"
        if state.phase == STOPPED:
            return f"the agent does not run: it was stopped. {start}"
        said = self.service.journal(50).splitlines()
        ends = [line for line in said if "Failed with result" in line]
        if state.phase == FAILED:
            # The unit restarts whatever ends by itself; a stop that takes too long ends so, too.
            return f"the agent does not run: it was stopped and killed, or failed{in_brackets(ends)}. {start}"
        own = [line for line in said if not host.manager.own_words.match(line)]
        errors = [line for line in own if ERROR.search(line)] or own or ends
        return (
            f"the agent does not run: it is starting anew, or fails to start{in_brackets(errors)}. If it stays so, "
            f"{deploy} says what is wrong"
        )

    def others(self) -> None:
        """Promtails that are not the service."""
        strays = promtail.strays(self.run, self.service)
        self.status["others"] = [secret_free(stray.words) for stray in strays if stray.words]
        if self.status["others"]:
            self.problems.append(
                f"another Promtail runs here: {', '.join(self.status['others'])}. On the same files it sends every "
                "line twice; `ansible-playbook site.yml --tags promtail -e promtail_adopt=true` retires it"
            )

    def store(self) -> None:
        """What Loki says, asked from this node."""
        url, now, before = self.params["loki_url"], time.time_ns(), time.monotonic()
        try:
            skew = loki.skew(url)
            # The date is cut to whole seconds, and may be of any moment between question and answer.
            doubt = 0.5 + (time.monotonic() - before) / 2
            self.status["clock_skew"] = round(skew, 1)
            query = f"{{node={json.dumps(self.params['node'])}}}"
            streams = loki.streams(url, query, now - DAY * loki.SECOND, now + DAY * loki.SECOND, 1)
            times = [int(moment) for stream in streams for moment, _line in stream["values"]]
        except loki.LokiError as error:
            self.problems.append(
                f"this node cannot ask Loki: {error}. Check that Loki runs, that promtail_loki_url is its address, and "
                "that no firewall is between"
            )
            return
        self.loki_answers = True
        if times:
            self.status["last_line"] = round((now - max(times)) / loki.SECOND, 1)
        if abs(skew) - doubt > CLOCK:
            self.problems.append(
                f"this node's clock is {abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} Loki's"
                f"{', which may refuse such lines' if skew > FUTURE else ''}. Set it: `{host.own.SET_CLOCK}`"
            )

    def metrics(self) -> Metrics:
        """The agent's own metrics; one that has just been started gets some seconds to answer.

        Raises:
            AgentError: it does not answer.
        """
        end = time.monotonic() + (3 if (self.status["uptime"] or 0) < 10 else 0)
        while True:
            try:
                return fetch(self.params["http_port"])
            except AgentError:
                if time.monotonic() >= end:
                    raise
                time.sleep(0.5)

    def agent(self) -> None:
        """What the agent's metrics say."""
        try:
            metrics = self.metrics()
        except AgentError as error:
            self.problems.append(
                f"the agent runs, but {error}. Compare promtail_http_port with what it was deployed "
                f"with, or restart it: `{self.service.restart_command}`"
            )
            return
        dropped = metrics.by("promtail_dropped_entries_total", "reason")
        self.status.update(
            version=next(iter(metrics.by("promtail_build_info", "version")), None),
            sent=int(metrics.total("promtail_sent_entries_total")),
            retried=int(metrics.total("promtail_batch_retries_total")),
            dropped={reason: int(lines) for reason, lines in dropped.items() if lines},
            cut=int(metrics.total("promtail_mutated_entries_total")),
            files=int(metrics.total("promtail_files_active_total")),
            backlog=self.backlog(metrics),
        )
        self.problems += [self.loss(reason, lines) for reason, lines in self.status["dropped"].items()]
        failure = self.words(RETRIED, RECENT) if self.status["retried"] else ""
        if failure and (not self.loki_answers or self.still_fails(metrics)):
            self.problems.append(
                f"the agent cannot deliver and tries again: {failure} (tries since its start: "
                f"{self.status['retried']}){host.own.hint(failure)}. Mend that; the lines wait in their files"
            )
        if not self.status["files"]:
            self.notes.append("no file is followed: training has written none yet, or promtail_sources names others")
        if self.status["cut"]:
            self.notes.append(f"{self.status['cut']} lines were too long and were cut; whole they are in their files")

    @staticmethod
    def backlog(metrics: Metrics) -> int:
        """Bytes of followed files that are not read yet.

        Promtail sets a file's size and position together, at least every 10 s (tailer.go, MarkPositionAndSize). So
        their difference is right for one moment; the size of now would count as unread what was read since.
        """
        read = metrics.by("promtail_read_bytes_total", "path")
        sizes = metrics.by("promtail_file_bytes_total", "path")
        # A file that was cut short is smaller than what was read of it, which must not hide the others.
        return int(sum(max(0, size - read.get(path, 0)) for path, size in sizes.items()))

    def loss(self, reason: str, lines: int) -> str:
        """What stands behind lines that the agent gave up.

        Parameters:
            reason: Promtail's name of it.
            lines: how many since its start.
        """
        if reason in ("line_too_long", "stream_limited"):
            return f"{lines} lines were dropped ({reason}): {REASONS[reason]}"
        # Promtail counts a batch as a whole, although Loki takes the rest of its lines.
        problem = f"a batch or more with {lines} lines was not taken whole ({reason})"
        words = self.words(REFUSED, (self.status["uptime"] or 0) + 1)
        ways = [way for phrase, way in REFUSALS.items() if phrase in words]
        way = ways[0] if ways else REASONS.get(reason, "mend what Loki refuses")
        again = "then `ansible-playbook site.yml --tags promtail_clean` sends again what the files still hold"
        return f"{problem}{f': {words}' if words else ''}. What to do: {way}; {again}"

    def words(self, phrase: str, seconds: int) -> str:
        """Error in the newest line of the agent's journal with a phrase; empty without one.

        Parameters:
            phrase: part of the line.
            seconds: how old it may be.
        """
        lines = [line for line in self.service.journal(500, seconds).splitlines() if phrase in line]
        found = re.search(r'error="((?:[^"\\]|\\.)*)"', lines[-1]) if lines else None
        return found[1].replace('\\"', '"') if found else ""

    def still_fails(self, before: Metrics) -> bool:
        """Whether the next try to send fails as well; looks until one has failed or succeeded.

        Parameters:
            before: the agent's metrics as they were.
        """
        end = time.monotonic() + RETRY
        while time.monotonic() < end:
            time.sleep(0.5)
            try:
                now = self.metrics()
            except AgentError:
                return True
            if now.total("promtail_sent_entries_total") != before.total("promtail_sent_entries_total"):
                return False
            if now.total("promtail_batch_retries_total") != before.total("promtail_batch_retries_total"):
                return True
        return False

    def positions(self) -> None:
        """Whether the agent can save how far it has read."""
        path = os.path.join(self.ours["data"], "positions.yaml")
        try:
            unsaved = time.time() - os.stat(path).st_mtime
            self.status["positions_age"] = int(unsaved)
        except OSError:
            unsaved = float("inf")
        if min(unsaved, self.status["uptime"] or 0) > UNSAVED:
            self.problems.append(
                f"{path} was not saved for more than {UNSAVED} s: its disk is full, or its folder is not writable for "
                f"the agent; `{self.service.words_command}` says which. Unmended, a restart reads lines again"
            )


def main() -> None:
    """Run the module; it has nothing to fail on."""
    module = AnsibleModule(
        argument_spec={
            "loki_url": {"type": "str", "required": True},
            "http_port": {"type": "int", "required": True},
            "node": {"type": "str", "required": True},
            "systems": {"type": "dict", "required": True},
        },
        supports_check_mode=True,
    )
    module.exit_json(**Status(module).gather())


if __name__ == "__main__":
    main()
