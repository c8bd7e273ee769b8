"""The dashboards: is it running, and what broke, on which rank, first?"""

from __future__ import annotations

from dashboards import logql
from dashboards.logql import STREAMS, count, over, seen, step
from dashboards.panels import (
    Json,
    by_level,
    choice,
    dashboard,
    lines,
    link,
    logs,
    named,
    one_of,
    override,
    panel,
    place,
    stat,
    table,
    target,
    text,
    thresholds,
)

OVERVIEW, RANK, CAUSE = "smolcluster-overview", "smolcluster-rank", "smolcluster-cause"
RUNS, HEALTH = "smolcluster-runs", "smolcluster-health"
TITLES = {
    OVERVIEW: "Training overview",
    RANK: "Rank detail",
    CAUSE: "Root cause",
    RUNS: "Runs",
    HEALTH: "Log system health",
}

NO_LINES = "No lines in this time range. Choose a longer one, or check the choices above."
NO_STEPS = "No line here has a step, such as step:12, step=12 or Iter 12."
NO_METRIC = (
    "No line here has this metric as name:value, name=value or metric:name | value:value. Type another name above."
)
NO_ERRORS = "No errors here."

# A link from a point in time opens the minute around it.
MINUTE = "&time.window=60000"
# Links name the fields of a table by the titles of its columns.
OF_ROW = "&var-job=${__data.fields.Job}&var-node=${__data.fields.Node}&var-rank=${__data.fields.Rank}"
TO_RANK = link("Lines of this rank", f"/d/{RANK}?${{__url_time_range}}{OF_ROW}")
TO_CAUSE = link("All ranks in the minute around it", f"/d/{CAUSE}?time=${{__value.raw}}{MINUTE}", new_tab=True)
AROUND = link(
    "Lines around it",
    f"/d/{RANK}?time=${{__value.raw}}{MINUTE}&${{job:queryparam}}&${{node:queryparam}}&${{rank:queryparam}}",
    new_tab=True,
)
POINT_TO_LINES = link(
    "Lines of this rank in the minute around this point",
    f"/d/{RANK}?var-rank=${{__field.labels.rank}}&var-node=${{__field.labels.node}}&time=${{__value.time}}{MINUTE}",
)
NAMES = {"rank": "Rank", "node": "Node", "job": "Job"}
# How a table colours the text of a cell: 9.4 reads the first, newer versions the second.
COLOURED = {"custom_displayMode": "color-text", "custom_cellOptions": {"type": "color-text"}}
OF_RANK = "rank {{rank}} · {{node}}"
GOOD_WHEN_ZERO = [{"color": "green", "value": None}, {"color": "red", "value": 1}]
WARN_WHEN_NOT_ZERO = [{"color": "green", "value": None}, {"color": "orange", "value": 1}]


def variables(*more: Json) -> list[Json]:
    """Variables that every dashboard has, and those of one dashboard."""
    narrow = f'{{job=~"$job", node=~"$node", {logql.TRAINING}}}'
    return [
        # A selector needs one matcher that an absent label does not match.
        choice("job", "Job", logql.ALL, ".+"),
        choice("node", "Node", f'{{job=~"$job", {logql.TRAINING}}}'),
        choice("rank", "Rank", narrow),
        choice("level", "Level", narrow),
        *more,
    ]


def others(uid: str) -> dict[str, str]:
    """Links to the other dashboards."""
    return {other: title for other, title in TITLES.items() if other != uid}


def metric_over_time() -> Json:
    """The chosen metric of each rank."""
    return lines(
        "$metric over time",
        [target(over("avg", logql.metric(STREAMS, "$metric"), "$__interval"), legend=OF_RANK)],
        "The metric that is named above, read from the lines of each rank; the average where a point covers "
        "several lines. Click a point to see the lines around it. Values that are NaN or infinite are not drawn; "
        "an alert names them.",
        NO_METRIC,
        defaults={"links": [POINT_TO_LINES]},
        interval="1s",
    )


def metric_over_step() -> Json:
    """The chosen metric of each rank, by the step in the same line."""
    bucket = "| label_format step=`{{ mul (div (int .step_number) $every) $every }}`, series=`rank {{ .rank }}` "
    with_step = f'| regexp `{logql.STEP}` | step_number!="" {bucket}'
    return panel(
        "xychart",
        "$metric over step",
        [target(over("avg", logql.metric(STREAMS, "$metric", with_step), "$__range", "series, step"), instant=True)],
        "The metric that is named above over the step in the same line, one series per rank. A point is the "
        "average of as many steps as chosen above. Loki refuses more than 5000 points; choose more steps per point "
        "then.",
        NO_METRIC,
        options={
            "seriesMapping": "auto",
            "dims": {"frame": 0},
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
            "tooltip": {"mode": "single", "sort": "none"},
        },
        defaults={
            # A label that is not seen; without one the axis has the name of the first series.
            "custom": {"show": "points+lines", "pointSize": {"fixed": 4}, "lineWidth": 1, "axisLabel": " "},
            "color": {"mode": "palette-classic"},
        },
        overrides=[override("step", custom_axisLabel="step")],
        transformations=[
            {
                "id": "convertFieldType",
                "options": {"conversions": [{"targetField": "step", "destinationType": "number"}], "fields": {}},
            },
            {"id": "sortBy", "options": {"fields": {}, "sort": [{"field": "series"}]}},
            # Not groupingToMatrix: where a rank has no value, 9.4 would draw it as 0.
            {"id": "partitionByValues", "options": {"fields": ["series"]}},
            {"id": "filterFieldsByName", "options": {"include": {"pattern": "/(^| )(step|Value #A)$/"}}},
            {"id": "joinByField", "options": {"byField": "step", "mode": "outer"}},
            {"id": "sortBy", "options": {"fields": {}, "sort": [{"field": "step"}]}},
            {"id": "renameByRegex", "options": {"regex": "^Value #A$", "renamePattern": "chosen rank"}},
            {"id": "renameByRegex", "options": {"regex": "^Value #A (.*)$", "renamePattern": "$1"}},
        ],
    )


def first_errors() -> Json:
    """Table of the first error of each rank, earliest first."""
    wanted = f"{logql.RANK}, exception"
    exception = f"| regexp `{logql.EXCEPTION}`"
    return table(
        "First errors, earliest first",
        [
            target(over("min", seen(f"{logql.errors(STREAMS)} {exception}"), "$__range", wanted), "A", instant=True),
            target(
                over("min", seen(f"{logql.other_tracebacks(STREAMS)} {exception}"), "$__range", wanted),
                "B",
                instant=True,
            ),
        ],
        "When each rank had each kind of error for the first time. The first row is usually the cause, and the "
        "others follow from it. Click a time to see all ranks in the minute around it.",
        NO_ERRORS,
        {"Value #A": "First time", "Value #B": "First traceback", **NAMES, "exception": "Exception"},
        overrides=[
            override("First time", unit="dateTimeAsIso", custom_width=190, links=[TO_CAUSE]),
            override("First traceback", unit="dateTimeAsIso", custom_width=190, links=[TO_CAUSE]),
            override("Rank", custom_width=90, links=[TO_RANK]),
            override("Node", custom_width=140),
        ],
        sort="First time",
    )


def ranks() -> Json:
    """Table of all ranks."""
    age = f"($__to - {over('max', seen(STREAMS), '$__range')}) / 1000"
    queries = {
        "Last line": age,
        "Step": over("last", step(STREAMS), "$__range"),
        "Steps behind": logql.lag(STREAMS, "$__range"),
        "Lines": count(STREAMS, "$__range"),
        "Errors": count(logql.errors(STREAMS), "$__range"),
        "Warnings": count(logql.at_level(STREAMS, logql.WARNING_LEVELS), "$__range"),
    }
    refs = dict(zip(queries, "ABCDEF", strict=True))
    return table(
        "Ranks",
        [target(expr, refs[name], instant=True) for name, expr in queries.items()],
        "One row per rank: how long before the end of the time range it wrote its last line, its last step, how "
        "many steps it is behind the rank of the same job that is ahead, and its lines. Click a rank to see its lines.",
        NO_LINES,
        {**NAMES, **{f"Value #{ref}": name for name, ref in refs.items()}},
        overrides=[
            override("Rank", links=[TO_RANK], custom_width=90),
            override("Last line", unit="s", decimals=0, thresholds=colours(30, 120), **COLOURED),
            # The text of an empty panel is not for single cells.
            override("Step", unit="none", decimals=0, noValue="none"),
            override("Steps behind", unit="none", decimals=0, noValue="-", thresholds=colours(10, 50), **COLOURED),
            override("Lines", unit="short"),
            override("Errors", noValue="0", thresholds=thresholds(("green", None), ("red", 1)), **COLOURED),
            override("Warnings", noValue="0", thresholds=thresholds(("green", None), ("orange", 1)), **COLOURED),
        ],
        sort="Rank",
    )


def colours(warning: float, bad: float) -> Json:
    """Green, orange from one value on, red from another one on."""
    return thresholds(("green", None), ("orange", warning), ("red", bad))


def numbers() -> list[Json]:
    """The numbers at the top of the overview."""
    warnings = logql.at_level(STREAMS, logql.WARNING_LEVELS)
    return [
        stat(
            "Ranks writing now",
            [target(f"count({count(STREAMS, '1m')})", instant=True)],
            "Ranks that wrote a line in the last minute of the time range.",
            "none",
        ),
        stat(
            "Ranks seen",
            [target(f"count({count(STREAMS, '$__range')})", instant=True)],
            "Ranks that wrote a line in the time range.",
            "none",
        ),
        stat(
            "Step",
            [target(f"max({over('last', step(STREAMS), '$__range')})", instant=True)],
            "Last step of the rank that is ahead.",
            "no steps",
        ),
        stat("Lines", [target(count(STREAMS, "$__range", ""), instant=True)], "Lines in the time range.", "none"),
        stat(
            "Errors",
            [target(count(logql.errors(STREAMS), "$__range", ""), instant=True)],
            "Lines with the level ERROR, CRITICAL or FATAL in the time range.",
            "0",
            thresholds(("green", None), ("red", 1)),
        ),
        stat(
            "Warnings",
            [target(count(warnings, "$__range", ""), instant=True)],
            "Lines with the level WARNING in the time range.",
            "0",
            thresholds(("green", None), ("orange", 1)),
        ),
    ]


def overview() -> Json:
    """Is it running?"""
    speed = lines(
        "Steps per minute",
        [target(logql.speed(STREAMS), legend=OF_RANK)],
        "Throughput: the steps that each rank made per minute, over the five minutes before each point. For tokens or "
        "samples per second, type their name into Metric.",
        NO_STEPS,
        interval="10s",
    )
    behind = lines(
        "Steps behind",
        [target(logql.lag(STREAMS, "1m"), legend=OF_RANK)],
        "Stragglers: how many steps each rank is behind the rank of the same job that is ahead.",
        NO_STEPS,
        interval="10s",
        defaults={"min": 0},
    )
    by_rank = lines(
        "Lines per second by rank",
        [target(f"sum by ({logql.RANK}) (rate({STREAMS} [$__interval]))", legend=OF_RANK)],
        "How much each rank writes. A line that ends while others go on is a rank that is silent.",
        NO_LINES,
        interval="10s",
    )
    levels = lines(
        "Lines per second by level",
        [target(f"sum by (level) (rate({STREAMS} [$__interval]))", legend="{{level}}")],
        "How much is written, by level. Lines without a level have no name here.",
        NO_LINES,
        bars=True,
        overrides=by_level(),
        interval="10s",
    )
    bad = f"{logql.ERROR_LEVELS}|{logql.WARNING_LEVELS}"
    latest = logs(
        "Errors and warnings, newest first",
        [target(logql.at_level(STREAMS, bad), "A"), target(logql.other_tracebacks(STREAMS, bad), "B")],
        "The latest lines with such a level, and tracebacks in lines without one. Click a line for its labels.",
        "No errors or warnings here.",
    )
    rows = [
        (4, [(4, number) for number in numbers()]),
        (8, [(24, ranks())]),
        (10, [(12, metric_over_time()), (12, metric_over_step())]),
        (8, [(12, speed), (12, behind)]),
        (8, [(12, by_rank), (12, levels)]),
        (8, [(24, first_errors())]),
        (10, [(24, latest)]),
    ]
    every = one_of("every", "Steps per point", ["1", "10", "100", "1000"], "10")
    return dashboard(
        OVERVIEW,
        TITLES[OVERVIEW],
        "Is the training running? Every rank, its loss and its errors.",
        variables(text("metric", "Metric", "loss"), every),
        place(rows),
        others(OVERVIEW),
    )


def rank_detail() -> Json:
    """Everything of one rank."""
    searched = f"{STREAMS} |~ `(?i)$search`"
    levels = lines(
        "Lines by level",
        [target(count(searched, "$__interval", "level"), legend="{{level}}")],
        "Lines that contain the searched text, by level.",
        NO_LINES,
        bars=True,
        overrides=by_level(),
        interval="10s",
    )
    errors = panel(
        "table",
        "Errors: click a time for the lines around it",
        [target(f"{logql.errors(STREAMS)} |~ `(?i)$search`", direction="backward", maxLines=200)],
        "The latest 200 lines with the level ERROR, CRITICAL or FATAL. A click on the time shows all lines of the "
        "chosen ranks in the minute around it.",
        NO_ERRORS,
        options={"showHeader": True, "cellHeight": "sm"},
        overrides=[override("Time", custom_width=190, links=[AROUND]), override("Line", custom_inspect=True)],
        transformations=[{"id": "filterFieldsByName", "options": {"include": {"names": ["Time", "Line"]}}}],
    )
    all_lines = logs(
        "Lines, newest first",
        [target(searched)],
        "The latest 500 lines of the chosen ranks that contain the searched text. Click a line for its labels.",
        NO_LINES,
    )
    return dashboard(
        RANK,
        TITLES[RANK],
        "The lines of one rank, or of a few.",
        variables(text("metric", "Metric", "loss"), text("search", "Search")),
        place([(8, [(12, metric_over_time()), (12, levels)]), (8, [(24, errors)]), (20, [(24, all_lines)])]),
        others(RANK),
    )


KINDS = {
    "out of memory": logql.OUT_OF_MEMORY,
    "time-out": logql.TIME_OUT,
    "NaN or infinite": logql.NOT_FINITE,
    "torchrun names the first failure": logql.FIRST_FAILURE,
    "traceback": logql.TRACEBACK,
}


def root_cause() -> Json:
    """What broke first?"""
    kinds = stat(
        "Known kinds of failure",
        [
            target(count(f"{STREAMS} {logql.matching(kind)}", "$__range", ""), letter, instant=True)
            for letter, kind in zip("ABCDE", KINDS.values(), strict=True)
        ],
        "Lines in the time range that tell of such a failure.",
        "No such line here.",
        thresholds(("green", None), ("red", 1)),
        [named(letter, title) for letter, title in zip("ABCDE", KINDS, strict=True)],
    )
    first = logs(
        "First error",
        [target(logql.errors(STREAMS), "A"), target(logql.other_tracebacks(STREAMS), "B")],
        "The first line with the level of an error, with its traceback, and the first traceback in lines without such "
        "a level.",
        NO_ERRORS,
        oldest_first=True,
        count=1,
    )
    errors = logs(
        "Errors of all ranks, oldest first",
        [target(logql.errors(STREAMS), "A"), target(logql.other_tracebacks(STREAMS), "B")],
        "The first errors in the time range with their tracebacks.",
        NO_ERRORS,
        oldest_first=True,
    )
    everything = logs(
        "What every rank said, oldest first",
        [target(STREAMS)],
        "The first 500 lines of all chosen ranks. Click a time in the table above to see here the 30 seconds "
        "before and after an error.",
        NO_LINES,
        oldest_first=True,
    )
    return dashboard(
        CAUSE,
        TITLES[CAUSE],
        "What broke first, on which rank, and what did the others say?",
        variables(),
        place(
            [
                (4, [(24, kinds)]),
                (8, [(24, first_errors())]),
                (7, [(24, first)]),
                (9, [(24, errors)]),
                (16, [(24, everything)]),
            ]
        ),
        others(CAUSE),
    )


def runs() -> Json:
    """Which runs were there?"""
    start, end = logql.runs("start", "$__range", "run, nodes, chosen"), logql.runs("end", "$__range", "run")
    begun = logql.runs("start", "$__range", "run")
    until = f"({end} or ({begun} * 0 + $__to))"
    queries = {"Start": start, "End": end, "until": until, "Duration": f"({until} - {begun}) / 1000"}
    refs = dict(zip(queries, "ABCD", strict=True))
    to_run = link(
        "Overview of this run",
        f"/d/{OVERVIEW}?from=${{__data.fields.Start.numeric}}&to=${{__data.fields.until.numeric}}"
        "&var-node=${__data.fields.chosen:raw}",
    )
    found = table(
        "Runs",
        [target(expr, refs[name], instant=True) for name, expr in queries.items()],
        "The runs that playbooks/start.yml has recorded. Click one to see its nodes from its start to its end. Without "
        "a recorded end the time counts until now; `ansible-playbook playbooks/runs.yml` also finds the last line of "
        "such a run, and counts lines and errors.",
        "No run was recorded in this time range. `ansible-playbook playbooks/start.yml -e run=NAME` records one.",
        {"run": "Run", **{f"Value #{ref}": name for name, ref in refs.items()}, "nodes": "Nodes", "chosen": "chosen"},
        overrides=[
            override("Run", links=[to_run]),
            override("Start", unit="dateTimeAsIso", custom_width=190),
            override("End", unit="dateTimeAsIso", custom_width=190, noValue="not recorded"),
            override("Duration", unit="dtdurations", decimals=0, custom_width=220),
            override("until", custom_hidden=True),
            override("chosen", custom_hidden=True),
        ],
        sort="Start",
        newest_first=True,
    )
    return dashboard(
        RUNS,
        TITLES[RUNS],
        "Which runs were there, when, and on which nodes?",
        [text("run", "Name contains")],
        place([(20, [(24, found)])]),
        others(RUNS),
        since="now-30d",
    )


HEALTH_LINES = f'{{job="{logql.HEALTH}", node=~"$node"}}'
AGENT_LINES = f'{{job="{logql.HEALTH}", component="agent", node=~"$node"}}'
DISK = ("disk_free_bytes", "disk_size_bytes")
NO_HEALTH = (
    "No node has reported in this time range: nodes and controller write one line a minute about the log system."
)


def nodes() -> Json:
    """Table of all nodes that report."""
    age = f"($__to - {over('max', seen(HEALTH_LINES), '$__range', 'node')}) / 1000"
    dropped = logql.increase(logql.reasons("agent", "dropped_lines"), "$__range", "$__range_s")
    queries = {
        "Last report": age,
        "Not yet read": over("last", logql.health("agent", "lag_bytes"), "$__range", "node"),
        "Dropped lines": dropped,
        "Retries": logql.increase(logql.health("agent", "retries"), "$__range", "$__range_s"),
        "Disk used": f"100 - {over('last', logql.health('.+', *DISK), '$__range', 'node')}",
        "Clock ahead": over("last", logql.health("agent", "clock_offset_seconds"), "$__range", "node"),
        "Out of memory": logql.increase(logql.health("agent", "oom_kills"), "$__range", "$__range_s"),
    }
    refs = dict(zip(queries, "ABCDEFG", strict=True))
    zero = {"noValue": "0", "decimals": 0, "thresholds": thresholds(("green", None), ("red", 1)), **COLOURED}
    return table(
        "Nodes",
        [target(expr, refs[name], instant=True) for name, expr in queries.items()],
        "One row per node, and one for the controller. Last report: age of its last line about itself; more than two "
        "minutes say that the node, its agent or its network is down. Not yet read: bytes in its log files that the "
        "agent has not read. Dropped lines, retries, and processes that the kernel ended because memory ran out are "
        "those of the time range. Disk used: the fullest disk with logs. Clock ahead: of the controller's clock; 0 "
        "below one second.",
        NO_HEALTH,
        {"node": "Node", **{f"Value #{ref}": name for name, ref in refs.items()}},
        overrides=[
            override("Last report", unit="s", decimals=0, thresholds=colours(90, 180), **COLOURED),
            override("Not yet read", unit="bytes", noValue="-"),
            override("Dropped lines", **zero),
            override(
                "Retries", noValue="0", decimals=0, thresholds=thresholds(("green", None), ("orange", 1)), **COLOURED
            ),
            override("Disk used", unit="percent", decimals=0, noValue="-", thresholds=colours(80, 90), **COLOURED),
            override("Clock ahead", unit="s", noValue="-"),
            override("Out of memory", **zero),
        ],
        sort="Node",
    )


def health() -> Json:
    """Does the log system itself work?"""
    latest = f"max({over('last', logql.health('controller', 'store_bytes', node='.*'), '$__range', 'node')})"
    refused = logql.increase(logql.reasons("controller", "rejected_lines", ".*"), "$__range", "$__range_s")
    top = [
        stat(
            "Nodes that report",
            [target(f"count({count(AGENT_LINES, '3m', 'node')})", instant=True)],
            "Nodes whose agent has sent a line about itself in the last three minutes of the time range.",
            "none",
        ),
        stat(
            "Nodes seen",
            [target(f"count({count(AGENT_LINES, '$__range', 'node')})", instant=True)],
            "Nodes whose agent has sent a line about itself in the time range.",
            "none",
        ),
        stat(
            "Lines that Loki refused",
            [target(f"sum({refused})", instant=True)],
            "Lines that Loki did not take, in the time range. The agents try again after a rate limit, so such lines "
            "are not lost; the graph below has the reasons.",
            "0",
            thresholds(("green", None), ("orange", 1)),
            decimals=0,
        ),
        stat("Size of Loki's store", [target(latest, instant=True)], "Bytes on the disk.", "unknown", unit="bytes"),
    ]
    received = lines(
        "Lines per second",
        [
            target(
                f"max(rate_counter({logql.health('controller', 'received_lines', node='.*')} [5m]))", "A", "received"
            ),
            target(
                f"max by (node) (rate_counter({logql.health('agent', 'sent_lines')} [5m]))", "B", "sent by {{node}}"
            ),
        ],
        "What each agent has sent and what Loki has received, over the five minutes before each point.",
        NO_HEALTH,
        interval="1m",
    )
    behind = lines(
        "Bytes that are not yet read",
        [target(over("last", logql.health("agent", "lag_bytes"), "3m", "node"), legend="{{node}}")],
        "How far each agent is behind its log files.",
        NO_HEALTH,
        interval="1m",
        defaults={"unit": "bytes", "min": 0},
    )
    disks = lines(
        "Free disk space",
        [target(over("last", logql.health(".+", *DISK), "3m", "node"), legend="{{node}}")],
        "Percent that are free on the fullest disk with logs of each node, and on the controller's disk.",
        NO_HEALTH,
        interval="1m",
        defaults={"unit": "percent", "min": 0, "max": 100},
    )
    memory = lines(
        "Memory and processor of Loki",
        [
            target(over("last", logql.health("controller", "memory_bytes", node=".*"), "3m", "node"), "A", "memory"),
            target(
                f"max(rate_counter({logql.health('controller', 'cpu_seconds', node='.*')} [5m]))",
                "B",
                "processor cores",
            ),
        ],
        "Memory that Loki uses, and how many processor cores it keeps busy.",
        NO_HEALTH,
        interval="1m",
        overrides=[override("memory", unit="bytes"), override("processor cores", custom_axisPlacement="right")],
    )
    said = logs(
        "Lines of refusals and drops, newest first",
        [target(f'{HEALTH_LINES} |~ `"(?:dropped|rejected)_lines": *\\{{"`')],
        "Reports that count dropped or refused lines; the numbers are totals since the agent or Loki was started.",
        "No line was dropped or refused.",
    )
    return dashboard(
        HEALTH,
        TITLES[HEALTH],
        "Does the log system itself work?",
        [choice("node", "Node", f'{{job="{logql.HEALTH}"}}')],
        place(
            [
                (4, [(6, one) for one in top]),
                (8, [(24, nodes())]),
                (8, [(12, received), (12, behind)]),
                (8, [(12, disks), (12, memory)]),
                (8, [(24, said)]),
            ]
        ),
        others(HEALTH),
    )


def all_pages() -> dict[str, Json]:
    """Every dashboard by the name of its file."""
    return {
        "training-overview": overview(),
        "rank-detail": rank_detail(),
        "root-cause": root_cause(),
        "runs": runs(),
        "log-system-health": health(),
    }
