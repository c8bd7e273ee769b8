# Copyright (c) SmolCluster contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""The state of an agent on a node, and its problems."""

from __future__ import annotations

import json
import os
import pwd
import re
import time
from contextlib import suppress

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.smolcluster.logging.plugins.module_utils import (
    deployed,
    foreign_agents,
    health_lines,
    host,
    loki,
    shared_folders,
    shifted_times,
    watch,
)
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
SHOWN = 5  # number of files that a message lists
CLOCK = 1
RECENT = 30  # a batch that cannot be sent is retried more often than this
# A hanging request ends after 10 s, and the next one follows after 5 s at most (backoff_config of the role promtail).
RETRY = 16

ERROR = re.compile(r"^error|level=error(?!.*context canceled)")  # requests that a stop cancels are not a cause
# Loki's reasons for refusing lines, and what to do.
REFUSALS = {
    "too far behind": (
        "after a crash this is harmless, because Loki already has the lines that are read again. Otherwise lines are "
        "lost because a clock was set back by more than an hour"
    ),
    "timestamp too new": "set this node's clock, or set promtail_timezone to the time zone of the lines",
    "timestamp too old": "the lines are older than the retention; increase docker_loki_grafana_retention to keep them",
    "HTTP status 404": "set promtail_loki_url to Loki's URL",
}


def secret_free(text: str) -> str:
    """A text on one line, with users and passwords in URLs masked."""
    return re.sub(r"//[^/@\s]+@", "//***@", " ".join(text.split()))


def in_brackets(lines: list[str]) -> str:
    """The last line in brackets, to append to a message; empty without lines."""
    return f" ({lines[-1].strip()})" if lines else ""


class Status:
    """State of a node's agent.

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
        """Collect the state from the service, the agent, the watcher and Loki.

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
        folders = self.folders(pid)
        if pid:
            age = host.system.age(pid)
            self.status["uptime"] = None if age is None else int(age)
            self.counts()
            self.files()
        return {
            "changed": False,
            "status": {**self.status, "notes": [secret_free(note) for note in self.notes]},
            "problems": [secret_free(problem) for problem in self.problems],
            "folders": folders,
            "machine": shared_folders.machine(),
            **self.deployed(),
        }

    def deployed(self) -> dict:
        """What the node has of a deployment, if the module was given a version; see `deployed.look`."""
        version = self.params.get("version")
        return {"deployed": deployed.look(self.agent, self.layout, version, self.run, self.service)} if version else {}

    def stopped(self, state: ServiceState) -> str:
        """Why the service does not run."""
        deploy = "`ansible-playbook site.yml --tags promtail`"
        if state.active_state == ABSENT:
            return f"the agent does not run: it is not installed. {deploy} deploys it"
        start = f"`{self.service.start_command}` on the node starts it"
        if state.active_state == STOPPED:
            return f"the agent does not run: it was stopped. {start}"
        said = self.service.journal(50).splitlines()
        ends = [line for line in said if "Failed with result" in line]
        if state.active_state == FAILED:
            # The unit restarts an agent that ends by itself, so this is a failure or a stop that took too long.
            return f"the agent does not run: it was stopped and killed, or failed{in_brackets(ends)}. {start}"
        own = [line for line in said if not host.Service.MANAGER_LINE.match(line)]
        errors = [line for line in own if ERROR.search(line)] or own or ends
        return (
            f"the agent does not run: it is restarting, or fails to start{in_brackets(errors)}. If this continues, "
            f"{deploy} shows the cause"
        )

    def others(self) -> None:
        """Report agents outside the service."""
        found = foreign_agents.running(self.agent, self.run, self.service)
        self.status["others"] = [secret_free(foreign.command) for foreign in found if foreign.command]
        if self.status["others"]:
            self.problems.append(
                f"another Promtail runs here: {', '.join(self.status['others'])}. On the same files it sends every "
                "line twice. `ansible-playbook site.yml --tags promtail -e promtail_adopt=true` retires it"
            )

    def folders(self, pid: int) -> list[dict]:
        """Look at the folders of the sources; see `shared_folders.look`.

        Parameters:
            pid: process of the agent; 0 when it does not run.
        """
        user = self.layout.default_user
        with suppress(OSError, KeyError):  # it has ended, or is none of Linux
            user = pwd.getpwuid(os.stat(f"/proc/{pid}").st_uid).pw_name if pid else user
        found = shared_folders.look(self.params["sources"], user)
        self.notes += shared_folders.notes(found, user)
        return found

    def store(self) -> None:
        """Query Loki from this node: its clock, and the node's newest line."""
        url, now, before = self.params["loki_url"], time.time_ns(), time.monotonic()
        try:
            skew = loki.skew(url)
            # The date has whole seconds, and is of any moment between request and answer.
            doubt = 0.5 + (time.monotonic() - before) / 2
            self.status["clock_skew"] = round(skew, 1)
            query = f"{{node={json.dumps(self.params['node'])}, job!={json.dumps(health_lines.JOB)}}}"
            streams = loki.streams(url, query, now - DAY * loki.SECOND, now + DAY * loki.SECOND, 1)
            times = [int(moment) for stream in streams for moment, _line in stream["values"]]
        except loki.LokiError as error:
            self.problems.append(
                f"this node cannot query Loki: {error}. Check that Loki runs, that promtail_loki_url is its URL, and "
                "that no firewall blocks it"
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
        """The agent's own metrics; an agent that was just started gets a few seconds to answer.

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
        """Read the agent's counters and report losses and failures."""
        try:
            metrics = self.metrics()
        except AgentError as error:
            self.problems.append(
                f"the agent runs, but {error}. Check that promtail_http_port is the port of its deployment, or restart "
                f"it: `{self.service.restart_command}`"
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
                f"the agent cannot deliver and retries: {failure} (retries since its start: "
                f"{self.status['retried']}){host.system.hint(failure)}. Fix that; unsent lines stay in their files"
            )
        if counters.truncated:
            self.notes.append(
                f"{counters.truncated} lines were too long and were truncated; the files still have them in full"
            )

    def loss(self, reason: str, lines: int) -> str:
        """Message about lines that the agent dropped.

        Parameters:
            reason: the agent's name of the reason.
            lines: number of lines since its start.
        """
        if reason in ("line_too_long", "stream_limited"):
            return f"{lines} lines were dropped ({reason}): {self.agent.DROP_REASONS[reason]}"
        # Promtail counts all lines of a batch, although Loki accepts some of them.
        problem = f"Loki rejected at least one batch ({lines} lines, {reason})"
        message = self.newest_error(self.agent.REFUSED, (self.status["uptime"] or 0) + 1)
        ways = [way for phrase, way in REFUSALS.items() if phrase in message]
        way = ways[0] if ways else self.agent.DROP_REASONS.get(reason, "fix what Loki rejects")
        again = "then `ansible-playbook site.yml --tags promtail_clean` sends again what is still in the files"
        return f"{problem}{f': {message}' if message else ''}. What to do: {way}; {again}"

    def newest_error(self, phrase: str, seconds: int) -> str:
        """Error in the newest log line of the agent that contains a phrase; empty without such a line.

        Parameters:
            phrase: part of the line.
            seconds: largest age of the line.
        """
        lines = [line for line in self.service.journal(500, seconds).splitlines() if phrase in line]
        found = re.search(r'error="((?:[^"\\]|\\.)*)"', lines[-1]) if lines else None
        return found[1].replace('\\"', '"') if found else ""

    def still_fails(self, before: Counters) -> bool:
        """Whether the next request fails as well; waits until one has failed or succeeded.

        Parameters:
            before: earlier counters of the agent.
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
        """Read the watcher's report of the log files; a watcher that was just started gets a few seconds for it."""
        path = self.layout.report
        end = time.monotonic() + (3 if (self.status["uptime"] or 0) < 10 else 0)
        while (found := watch.report(path)) is None and time.monotonic() < end:
            time.sleep(0.2)
        if found is None:
            self.problems.append(
                f"there is no usable report of the log files in {path}. `{self.service.log_command}` shows the log of "
                "the service"
            )
            return
        self.status.update(files=found.count, backlog=found.backlog)
        self.problems += shifted_times.Times(self.params["sources"], list(found.files)).problems()
        if not found.count:
            self.notes.append(
                "no file is followed: training has written none yet, or smolcluster_log_sources has other paths"
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
            (
                [f"{watch.printable(file)} ({lines})" for file, lines in found.equal.items()],
                "entries that are equal to another one of their file, with the same time, since the agent's start; "
                "Loki keeps one of them",
            ),
        ):
            if files:
                more = f" and {len(files) - SHOWN} more" if len(files) > SHOWN else ""
                self.notes.append(f"{text}: {', '.join(files[:SHOWN])}{more}")
        if found.unsaved:
            self.problems.append(
                f"the watcher cannot save in {self.layout.data} how far it has read: {watch.printable(found.unsaved)}. "
                "Until this is fixed, a restart sends lines again"
            )
