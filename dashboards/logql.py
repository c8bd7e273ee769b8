"""The queries: what counts as an error, and how step and metrics are read from a line.

All of it is LogQL of Loki 3 (https://grafana.com/docs/loki/v3.7.x/query/). Expressions are written in backticks, so a
backslash stands for itself; none has a `$` of its own, which Grafana would take for a variable.
"""

from __future__ import annotations

# Records of runs (plugins/module_utils/runs.py) and lines about the log system itself are not from training.
# `verify` is the rank of the lines that verify.yml writes; it trains nothing.
RUNS, HEALTH = "smolcluster-runs", "smolcluster-health"
TRAINING = f'job!~"{RUNS}|{HEALTH}", rank!="verify"'
# Variables of the dashboards.
STREAMS = f'{{job=~"$job", node=~"$node", rank=~"$rank", level=~"$level", {TRAINING}}}'
# Alerts look at everything.
ALL = f'{{job=~".+", {TRAINING}}}'
RANKED = f'{{job=~".+", rank=~".+", {TRAINING}}}'
# What a rank is: without a rank in the labels it is one file.
RANK = "job, node, rank"

ERROR_LEVELS = "ERROR|CRITICAL|FATAL"
WARNING_LEVELS = "WARNING|WARN"
TRACEBACK = r"Traceback \(most recent call last\)"

NUMBER = r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[-+]?[0-9]+)?"
# Between a name and its value: `loss: 2.3`, `loss=2.3`, `'loss': '2.3'`, `"loss": 2.3`, `metric:loss | value:2.3`.
BETWEEN = r"['\"]?[ :=|]*(?:value)?[ :='\"]*"
# Formats write `step:12`, `step=12`, `[Step 12]`, `Iter 12:`, `iteration   12/ 500`, `global_step=12`.
STEP = r"(?i)\b(?:global_?)?(?:steps?|iter(?:ation)?)['\"]?[ :=]*(?P<step_number>[0-9]+)"

NOT_FINITE = (
    rf"(?i)\b(?:loss|grad(?:ient)?[ _]norm)\b{BETWEEN}[-+]?(?:nan|inf|infinity)\b"
    r"|number of nan iterations: +[1-9]|\bloss is (?:nan|inf)|\bnan loss|non-?finite (?:loss|grad)"
)
OUT_OF_MEMORY = (
    r"(?i)\bout of memory\b|OutOfMemoryError|\bMemoryError\b|can(?:no|')t allocate memory|std::bad_alloc|^Killed\b"
)
TIME_OUT = (
    r"(?i)\btimed[ -]out\b|\bTimeoutError\b|\btime-?out (?:while|waiting|after|during)\b|collective operation timeout"
    r"|socket[ .]timeout|nccl(?:System|Internal|Remote|UnhandledCuda)Error|\bDist(?:Backend|Network)Error\b"
    r"|connection reset by peer|connection closed by (?:peer|remote)"
)
# The summary of torchrun names the rank that failed first.
FIRST_FAILURE = r"Root Cause \(first observed failure\)"
FAILED_RANK = r"(?s)Root Cause \(first observed failure\).*?\brank +: (?P<failed_rank>[0-9]+)"
EXCEPTION = r"(?m)(?P<exception>\b[A-Z][A-Za-z0-9_]*(?:Error|Exception|Interrupt|Exit|Warning|Iteration)\b)"
# What a rank says when it ends as it should.
FINISHED = (
    r"(?i)\b(?:training|worker|server|run|job)\b[^|]{0,40}\b(?:finished|completed?|done|stopped|shut(?:ting)? ?down)\b"
)


def matching(pattern: str) -> str:
    """Line filter for a regular expression."""
    return f"|~ `{pattern}`"


def at_level(streams: str, levels: str) -> str:
    """Selector of lines with one of some levels.

    Parameters:
        streams: selector to narrow down.
        levels: regular expression.
    """
    return f'{streams[:-1]}, level=~"{levels}"}}'


def errors(streams: str) -> str:
    """Selector of lines with the level of an error."""
    return at_level(streams, ERROR_LEVELS)


def other_tracebacks(streams: str, levels: str = ERROR_LEVELS) -> str:
    """Log query for tracebacks in lines that have none of these levels, as in formats without levels."""
    return f'{streams[:-1]}, level!~"{levels}"}} {matching(TRACEBACK)}'


def step(streams: str) -> str:
    """Unwrapped query for the step of the lines that have one."""
    return f'{streams} |~ `(?i)step|iter` | regexp `{STEP}` | step_number!="" | unwrap step_number | __error__=""'


def metric(streams: str, name: str, more: str = "") -> str:
    """Unwrapped query for the value of a metric, of the lines that have a finite one.

    Parameters:
        streams: selector.
        name: name of the metric in the lines; a regular expression.
        more: stages before the value is unwrapped.
    """
    value = rf"(?i)\b{name}\b{BETWEEN}(?P<metric_value>{NUMBER})"
    filters = f"|~ `(?i){name}` | regexp `{value}`"
    return f'{streams} {filters} | metric_value!="" {more}| unwrap metric_value | __error__=""'


def seen(query: str) -> str:
    """Unwrapped query for the times of lines, milliseconds since 1970."""
    return f'{query} | label_format seen=`{{{{ __timestamp__ | unixEpochMillis }}}}` | unwrap seen | __error__=""'


def over(function: str, query: str, window: str, by: str = RANK) -> str:
    """Value of an unwrapped query over a window, one per group.

    Parameters:
        function: `max`, `min`, `avg`, `first` or `last`.
        query: unwrapped query.
        window: duration, for example `5m`.
        by: labels of a group.
    """
    return f"{function}_over_time({query} [{window}]) by ({by})"


def count(query: str, window: str, by: str = RANK) -> str:
    """Number of lines in a window, one per group; without groups when `by` is empty."""
    return f"sum{f' by ({by})' if by else ''} (count_over_time({query} [{window}]))"


def lag(streams: str, window: str, across: str = "job") -> str:
    """Steps by which each rank is behind the one that is ahead.

    Parameters:
        streams: selector.
        window: how far back a rank's last step may be.
        across: labels within which ranks are compared.
    """
    last = over("last", step(streams), window)
    return f"max by ({across}) ({last}) - on ({across}) group_right () {last}"


def speed(streams: str) -> str:
    """Steps per minute of each rank over five minutes."""
    # Not the sum: warnings are another stream of the same rank, with the same steps.
    return f"60 * max by ({RANK}) (rate_counter({step(streams)} [5m]))"


def runs(event: str, window: str, by: str) -> str:
    """Time of the first record of each run for one event, milliseconds since 1970.

    Parameters:
        event: `start` or `end`.
        window: duration, for example `30d`.
        by: labels of a group: `run`, and for a start also `nodes`, and `chosen`, the nodes as part of an address.
    """
    fields = f'| json run="run", event="event", nodes="nodes" | event="{event}" | run=~"(?i).*$run.*"'
    names = r"""{{ .nodes | replace "\"" "" | replace " " "" | trimAll "[]" }}"""
    chosen = '{{ .nodes | replace "," "&var-node=" }}'
    named = f"| label_format nodes=`{names}` | label_format chosen=`{chosen}`"
    return over("min", seen(f'{{job="{RUNS}"}} {fields} {named}'), window, by)


def health(component: str, *fields: str, pattern: str = "", node: str = "$node") -> str:
    """Unwrapped query for a number in the lines that the agents and the controller write each minute (docs/health.md).

    Parameters:
        component: `agent`, `controller`, or a regular expression for both.
        fields: a field of the lines; of two fields it is the share of the first in the second, in percent.
        pattern: instead of fields, a regular expression with the group `value`.
        node: regular expression of the nodes.
    """
    streams = f'{{job="{HEALTH}", component=~"{component}", node=~"{node}"}}'
    if pattern:
        read = f"| regexp `{pattern}`"
    elif len(fields) == 1:
        read = f'| json value="{fields[0]}"'
    else:
        share = "{{ divf (mulf 100.0 (float64 .part)) (float64 .whole) }}"
        read = f'| json part="{fields[0]}", whole="{fields[1]}" | whole=~"[1-9].*" | label_format value=`{share}`'
    # Other labels would make a series of each value.
    return f'{streams} {read} | value=~"[0-9.e+-]+" | keep node, component, value | unwrap value | __error__=""'


# Sum of up to six numbers in an object such as {"rate_limited": 3, "line_too_long": 1}; `%s` is the name of its field.
REASONS = r'"%s": *\{"[^"]*": *(?P<n1>[0-9]+)' + "".join(rf'(?:, *"[^"]*": *(?P<n{n}>[0-9]+))?' for n in range(2, 7))


def reasons(component: str, field: str, node: str = "$node") -> str:
    """Unwrapped query for the sum over all reasons in a field of health lines; without any reason it is 0."""
    names = [f"n{n}" for n in range(1, 7)]
    total = "{{ add " + " ".join(f"(int .{name})" for name in names) + " }}"
    streams = f'{{job="{HEALTH}", component="{component}", node=~"{node}"}} |= `"{field}": {{`'
    return (
        f"{streams} | regexp `{REASONS % field}` | label_format value=`{total}` | keep node, component, value "
        '| unwrap value | __error__=""'
    )


def increase(query: str, window: str, seconds: str, by: str = "node") -> str:
    """By how much a counter has risen in a window; a counter that starts again at 0 is no rise.

    Parameters:
        query: unwrapped query.
        window: duration.
        seconds: the same in seconds.
        by: labels of a group.
    """
    return f"{seconds} * max by ({by}) (rate_counter({query} [{window}]))"
