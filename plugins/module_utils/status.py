# Copyright (c) SmolCluster contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""The state of an agent on a node, and its problems."""

from __future__ import annotations

import json
import re
import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.smolcluster.logging.plugins.module_utils import foreign_agents, host, loki, watch
from ansible_collections.smolcluster.logging.plugins.module_utils.agents.base import Counters
from ansible_collections.smolcluster.logging.plugins.module_utils.agents.registry import AGENTS
from ansible_collections.smolcluster.logging.plugins.module_utils.layout import layout_of
from ansible_collections.smolcluster.logging.plugins.module_utils.metrics import AgentError, Metrics, fetch
from ansible_collections.smolcluster.logging.plugins.module_utils.services.base import (
    ABSENT,
    FAILED,
    STOPPED,
    ServiceState,
)

# Seconds.
DAY = 86400
SHOWN = 5  # files that are named
CLOCK = 1
RECENT = 30  # a batch that cannot be sent is tried again more often than this
# A try that hangs ends after 10 s, and the next one comes at most 5 s later (backoff_config of the role promtail).
RETRY = 16

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
        self.agent = AGENTS[self.params["agent"]]
        self.layout = layout_of(self.agent.NAME, host.SYSTEM)
        self.run = module.run_command
        self.service = host.Service(self.run, self.layout.service)
        self.problems: list[str] = []
        self.notes: list[str] = []
        self.loki_answers = False
        self.status: dict = dict.fromkeys(
            ("running", "version", "uptime", "sent", "retried", "dropped", "cut", "files", "backlog", "last_line",
             "clock_skew", "others")
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
            age = host.system.age(pid)
            self.status["uptime"] = None if age is None else int(age)
            self.counts()
            self.files()
        return {
            "changed": False,
            "status": {**self.status, "notes": [secret_free(note) for note in self.notes]},
            "problems": [secret_free(problem) for problem in self.problems],
        }

    def stopped(self, state: ServiceState) -> str:
        """Why the service does not run."""
        deploy = "`ansible-playbook site.yml --tags promtail`"
        if state.active_state == ABSENT:
            return f"the agent does not run: it is not installed. {deploy} deploys and starts it"
        start = f"`{self.service.start_command}` on the node starts it"
        if state.active_state == STOPPED:
            return f"the agent does not run: it was stopped. {start}"
        said = self.service.journal(50).splitlines()
        ends = [line for line in said if "Failed with result" in line]
        if state.active_state == FAILED:
            # The unit restarts whatever ends by itself; a stop that takes too long ends so, too.
            return f"the agent does not run: it was stopped and killed, or failed{in_brackets(ends)}. {start}"
        own = [line for line in said if not host.Service.MANAGER_LINE.match(line)]
        errors = [line for line in own if ERROR.search(line)] or own or ends
        return (
            f"the agent does not run: it is starting anew, or fails to start{in_brackets(errors)}. If it stays so, "
            f"{deploy} says what is wrong"
        )

    def others(self) -> None:
        """Promtails that are not the service."""
        found = foreign_agents.running(self.agent, self.run, self.service)
        self.status["others"] = [secret_free(foreign.command) for foreign in found if foreign.command]
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
                f"{', which may refuse such lines' if skew > loki.FUTURE else ''}. Set it: `{host.system.SET_CLOCK}`"
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

    def counts(self) -> None:
        """What the agent's metrics say."""
        try:
            metrics = self.metrics()
        except AgentError as error:
            self.problems.append(
                f"the agent runs, but {error}. Compare promtail_http_port with what it was deployed "
                f"with, or restart it: `{self.service.restart_command}`"
            )
            return
        counters = self.agent.counters(metrics)
        self.status.update(
            version=counters.version,
            sent=counters.sent,
            retried=counters.retried,
            dropped=counters.dropped,
            cut=counters.truncated,
        )
        self.problems += [self.loss(reason, lines) for reason, lines in self.status["dropped"].items()]
        failure = self.newest_error(self.agent.RETRIED, RECENT) if self.status["retried"] else ""
        if failure and (not self.loki_answers or self.still_fails(counters)):
            self.problems.append(
                f"the agent cannot deliver and tries again: {failure} (tries since its start: "
                f"{self.status['retried']}){host.system.hint(failure)}. Fix that; unsent lines stay in their files"
            )
        if counters.truncated:
            self.notes.append(
                f"{counters.truncated} lines were too long and were truncated; the files still have them in full"
            )

    def loss(self, reason: str, lines: int) -> str:
        """What stands behind lines that the agent gave up.

        Parameters:
            reason: Promtail's name of it.
            lines: how many since its start.
        """
        if reason in ("line_too_long", "stream_limited"):
            return f"{lines} lines were dropped ({reason}): {self.agent.DROP_REASONS[reason]}"
        # Promtail counts a batch as a whole, although Loki takes the rest of its lines.
        problem = f"Loki rejected at least one batch ({lines} lines, {reason})"
        words = self.newest_error(self.agent.REFUSED, (self.status["uptime"] or 0) + 1)
        ways = [way for phrase, way in REFUSALS.items() if phrase in words]
        way = ways[0] if ways else self.agent.DROP_REASONS.get(reason, "fix what Loki rejects")
        again = "then `ansible-playbook site.yml --tags promtail_clean` sends again what the files still hold"
        return f"{problem}{f': {words}' if words else ''}. What to do: {way}; {again}"

    def newest_error(self, phrase: str, seconds: int) -> str:
        """Error in the newest line of the agent's journal with a phrase; empty without one.

        Parameters:
            phrase: part of the line.
            seconds: how old it may be.
        """
        lines = [line for line in self.service.journal(500, seconds).splitlines() if phrase in line]
        found = re.search(r'error="((?:[^"\\]|\\.)*)"', lines[-1]) if lines else None
        return found[1].replace('\\"', '"') if found else ""

    def still_fails(self, before: Counters) -> bool:
        """Whether the next try to send fails as well; looks until one has failed or succeeded.

        Parameters:
            before: the agent's counters as they were.
        """
        end = time.monotonic() + RETRY
        while time.monotonic() < end:
            time.sleep(0.5)
            try:
                now = self.agent.counters(self.metrics())
            except AgentError:
                return True
            if now.sent != before.sent:
                return False
            if now.retried != before.retried:
                return True
        return False

    def files(self) -> None:
        """What the watcher reports of the log files; one that has just been started gets some seconds for that."""
        path = self.layout.report
        end = time.monotonic() + (3 if (self.status["uptime"] or 0) < 10 else 0)
        while (found := watch.report(path)) is None and time.monotonic() < end:
            time.sleep(0.2)
        if found is None:
            self.problems.append(
                f"there is no usable report of the log files in {path}; `{self.service.log_command}` shows what "
                "the service says"
            )
            return
        self.status.update(files=found.count, backlog=found.backlog)
        if not found.count:
            self.notes.append(
                "no file is followed: training has written none yet, or smolcluster_log_sources names others"
            )
        for files, text in (
            (
                [f"{watch.printable(file)} ({watch.printable(why)})" for file, why in found.refused.items()],
                "not shipped",
            ),
            (
                [f"{watch.printable(file)} ({size} bytes)" for file, size in found.left_out.items()],
                "lines of more than 8 MiB, of which only the end was shipped",
            ),
        ):
            if files:
                more = f" and {len(files) - SHOWN} more" if len(files) > SHOWN else ""
                self.notes.append(f"{text}: {', '.join(files[:SHOWN])}{more}")
        if found.unsaved:
            self.problems.append(
                f"what was read cannot be kept in {self.layout.data}: {watch.printable(found.unsaved)}. Until this is "
                "fixed, a restart sends lines again"
            )
