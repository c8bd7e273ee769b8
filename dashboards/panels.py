"""Parts of a dashboard, in the form that Grafana 9.4 and 13 both read.

Sources: https://grafana.com/docs/grafana/v9.4/dashboards/build-dashboards/view-dashboard-json-model/, and for the
options of the panels grafana/grafana at v9.4, public/app/plugins/panel.
"""

from __future__ import annotations

from typing import Any

DATASOURCE = {"type": "loki", "uid": "smolcluster-loki"}
# Version of the dashboard model of 9.4; newer versions convert it while they load it.
SCHEMA, PLUGIN = 37, "9.4.0"
WIDTH = 24

COLOURS = {
    "CRITICAL": "dark-red",
    "ERROR": "red",
    "WARNING": "orange",
    "INFO": "green",
    "DEBUG": "blue",
    "TRACE": "light-blue",
}

Json = dict[str, Any]


def target(expr: str, ref: str = "A", legend: str = "", instant: bool = False, **more: Any) -> Json:
    """Query of a panel.

    Parameters:
        expr: LogQL.
        ref: letter by which transformations name it.
        legend: name of a series, with labels as `{{rank}}`.
        instant: one value at the end of the time range, not a series.
        more: further keys, for example `direction`.
    """
    kind = "instant" if instant else "range"
    query = {"refId": ref, "datasource": DATASOURCE, "editorMode": "code", "expr": expr, "queryType": kind}
    return query | ({"legendFormat": legend} if legend else {}) | more


def panel(kind: str, title: str, targets: list[Json], meaning: str, empty: str, **more: Any) -> Json:
    """A panel without its place.

    Parameters:
        kind: plugin, for example `timeseries`.
        title: text above it.
        targets: its queries.
        meaning: what it shows.
        empty: what it means when there is nothing to show; the panel shows it in that case, and its help has it.
        more: `options`, `defaults` and `overrides` of the fields, and further keys of the panel.
    """
    fields = {"defaults": {"noValue": empty} | more.pop("defaults", {}), "overrides": more.pop("overrides", [])}
    text = f"{meaning}\n\nEmpty: {empty}"
    return {
        "type": kind,
        "title": title,
        "description": text,
        "datasource": DATASOURCE,
        "pluginVersion": PLUGIN,
        "targets": targets,
        "fieldConfig": fields,
    } | more


def stat(
    title: str,
    targets: list[Json],
    meaning: str,
    empty: str,
    colours: Json | None = None,
    overrides: list[Json] | None = None,
    **defaults: Any,
) -> Json:
    """Large numbers; `colours` are thresholds, `defaults` further settings of the fields."""
    defaults = {
        "color": {"mode": "thresholds"},
        "thresholds": colours or thresholds(("text", None)),
        "unit": "short",
    } | defaults
    options = {
        "reduceOptions": {"values": False, "calcs": ["lastNotNull"], "fields": ""},
        "colorMode": "value",
        "graphMode": "none",
        "justifyMode": "auto",
        "textMode": "auto",
        "orientation": "auto",
    }
    return panel("stat", title, targets, meaning, empty, options=options, defaults=defaults, overrides=overrides or [])


def lines(title: str, targets: list[Json], meaning: str, empty: str, bars: bool = False, **more) -> Json:
    """Series over time, as lines or as stacked bars."""
    custom: Json = {
        "drawStyle": "bars" if bars else "line",
        "lineWidth": 1,
        "fillOpacity": 80 if bars else 0,
        "showPoints": "never" if bars else "auto",
        "pointSize": 4,
        # Ranks write at different times; a gap would only say that.
        "spanNulls": not bars,
        "stacking": {"mode": "normal" if bars else "none", "group": "A"},
    }
    options = {
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    defaults = {"custom": custom, "color": {"mode": "palette-classic"}} | more.pop("defaults", {})
    return panel("timeseries", title, targets, meaning, empty, options=options, defaults=defaults, **more)


def table(title: str, targets: list[Json], meaning: str, empty: str, columns: Json, **more) -> Json:
    """Table with one row per set of labels, made of instant queries.

    Parameters:
        columns: title by name of the field, in the order of the columns; `Value #A` is the value of query A.
        more: see `panel`; `sort` names the column to sort by, with `newest_first` from its largest value down.
    """
    transformations = [
        # The time of an instant query is the end of the range, the same in every row.
        {"id": "filterFieldsByName", "options": {"include": {"pattern": "^(?!Time$).*"}}},
        {"id": "merge", "options": {}},
        {
            "id": "organize",
            "options": {
                "renameByName": columns,
                "indexByName": {name: place for place, name in enumerate(columns)},
                "excludeByName": {},
            },
        },
    ]
    order = {"displayName": more.pop("sort"), "desc": more.pop("newest_first", False)}
    options = {"showHeader": True, "cellHeight": "sm", "sortBy": [order]}
    return panel("table", title, targets, meaning, empty, options=options, transformations=transformations, **more)


def logs(
    title: str, targets: list[Json], meaning: str, empty: str, oldest_first: bool = False, count: int = 500
) -> Json:
    """Lines, each with its time, level by colour, and its labels after a click; at most `count`."""
    direction = {"direction": "forward" if oldest_first else "backward", "maxLines": count}
    options = {
        "showTime": True,
        "showLabels": False,
        "showCommonLabels": False,
        "wrapLogMessage": True,
        "prettifyLogMessage": False,
        "enableLogDetails": True,
        "dedupStrategy": "none",
        "sortOrder": "Ascending" if oldest_first else "Descending",
    }
    return panel("logs", title, [one | direction for one in targets], meaning, empty, options=options)


def override(field: str, **properties: Any) -> Json:
    """Settings of one field, by its name; a key such as `custom_width` means `custom.width`."""
    return {
        "matcher": {"id": "byName", "options": field},
        "properties": [{"id": key.replace("custom_", "custom."), "value": value} for key, value in properties.items()],
    }


def named(ref: str, title: str) -> Json:
    """Name of the values of a query. An instant query has no use for a legend."""
    return {
        "matcher": {"id": "byFrameRefID", "options": ref},
        "properties": [{"id": "displayName", "value": title}],
    }


def thresholds(*steps: tuple[str, float | None]) -> Json:
    """Colours from values on: the first has no value and is the lowest."""
    return {"mode": "absolute", "steps": [{"color": colour, "value": value} for colour, value in steps]}


def by_level() -> list[Json]:
    """Colours of series that are named by levels."""
    return [override(level, color={"mode": "fixed", "fixedColor": colour}) for level, colour in COLOURS.items()]


def link(title: str, url: str, new_tab: bool = False) -> Json:
    """Link from a point or a cell.

    Parameters:
        title: what a menu or a tooltip shows.
        url: address, with Grafana's variables.
        new_tab: whether it opens in a new tab. A link with `time` from a page to itself needs one: Grafana 9.4 reads
            `time` only when it loads a page (tried).
    """
    return {"title": title, "url": url, "targetBlank": new_tab}


def place(rows: list[tuple[int, list[tuple[int, Json]]]]) -> list[Json]:
    """Give panels their places.

    Parameters:
        rows: from top to bottom, each its height and its panels with their widths, in units of Grafana's grid.

    Returns:
        The panels with `gridPos` and `id`.

    Raises:
        ValueError: the panels of a row are not as wide as the page.
    """
    placed, top = [], 0
    for height, panels in rows:
        if sum(width for width, _ in panels) != WIDTH:
            raise ValueError(f"the row of {panels[0][1]['title']} is not {WIDTH} wide")
        left = 0
        for width, one in panels:
            placed.append(one | {"id": len(placed) + 1, "gridPos": {"x": left, "y": top, "w": width, "h": height}})
            left += width
        top += height
    return placed


def choice(name: str, label: str, streams: str, every: str = ".*") -> Json:
    """Variable with the values of a label.

    Parameters:
        name: name of the label and of the variable.
        label: text on the page.
        streams: selector of the streams whose values are offered.
        every: regular expression of `All`; `.*` includes lines without that label.
    """
    query = {"label": name, "stream": streams, "type": 1, "refId": "LokiVariableQueryEditor-VariableQuery"}
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": DATASOURCE,
        "definition": "",
        "query": query,
        "refresh": 2,
        "sort": 3,
        "regex": "",
        "multi": True,
        "includeAll": True,
        "allValue": every,
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
        "options": [],
        "hide": 0,
        "skipUrlSync": False,
    }


def text(name: str, label: str, value: str = "") -> Json:
    """Variable that the user types."""
    chosen = {"selected": True, "text": value, "value": value}
    return {
        "name": name,
        "label": label,
        "type": "textbox",
        "query": value,
        "current": chosen,
        "options": [chosen],
        "hide": 0,
        "skipUrlSync": False,
    }


def one_of(name: str, label: str, values: list[str], chosen: str) -> Json:
    """Variable with fixed values."""
    options = [{"selected": value == chosen, "text": value, "value": value} for value in values]
    return {
        "name": name,
        "label": label,
        "type": "custom",
        "query": ",".join(values),
        "multi": False,
        "includeAll": False,
        "current": {"selected": True, "text": chosen, "value": chosen},
        "options": options,
        "hide": 0,
        "skipUrlSync": False,
    }


def run_marks() -> Json:
    """Starts and ends of runs, as vertical lines in every graph."""
    fields = '{job="smolcluster-runs"} | json run="run", event="event"'
    return {
        "name": "Runs",
        "datasource": DATASOURCE,
        "enable": True,
        # No switch on the page; it would stand beside the link to the page Runs.
        "hide": True,
        "iconColor": "blue",
        "expr": f"{fields} | line_format `{{{{ .event }}}} of run {{{{ .run }}}}`",
        "tagKeys": "run",
        "maxLines": 100,
    }


def dashboard(
    uid: str,
    title: str,
    description: str,
    variables: list[Json],
    panels: list[Json],
    links: Json,
    since: str = "now-1h",
) -> Json:
    """A whole dashboard.

    Parameters:
        uid: part of its address.
        links: title by uid of the other dashboards; a link keeps time range and variables.
        since: begin of the time range that it opens with.
    """
    return {
        "uid": uid,
        "title": title,
        "description": description,
        "tags": ["smolcluster"],
        "schemaVersion": SCHEMA,
        "version": 1,
        "editable": True,
        "style": "dark",
        "timezone": "browser",
        "graphTooltip": 1,
        "time": {"from": since, "to": "now"},
        "refresh": "30s",
        "timepicker": {},
        "annotations": {"list": [run_marks()]},
        "links": [
            {
                "title": name,
                "type": "link",
                "icon": "dashboard",
                "url": f"/d/{other}",
                "keepTime": True,
                "includeVars": True,
                "targetBlank": False,
                "asDropdown": False,
                "tags": [],
                "tooltip": "",
            }
            for other, name in links.items()
        ],
        "templating": {"list": variables},
        "panels": panels,
    }
