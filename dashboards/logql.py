"""The queries: what counts as an error, and how step and metrics are read from a line.

All of it is LogQL of Loki 3 (https://grafana.com/docs/loki/v3.7.x/query/). Expressions are written in backticks, so a
backslash stands for itself; none has a `$` of its own, which Grafana would take for a variable.
"""

from __future__ import annotations

# Variables of the dashboards. `verify` is the rank of the lines that verify.yml writes; it trains nothing.
STREAMS = '{job=~"$job", node=~"$node", rank=~"$rank", level=~"$level", rank!="verify"}'
# Alerts look at everything.
ALL = '{job=~".+", rank!="verify"}'
RANKED = '{job=~".+", rank=~".+", rank!="verify"}'
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
