"""What a dashboard shows: panels with their queries, which follow from the metrics of the catalogue and from the routes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from hr_prometheus import metrics
from hr_prometheus.observability.promql import of_route, summed

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from hr_prometheus.metrics import Metric
    from hr_prometheus.observability.promql import Source
    from hr_prometheus.observability.route_table import Row

#: The matchers of the variables that a dashboard has.
JOB, INSTANCE, PATH = 'job=~"$job"', 'instance=~"$instance"', 'path=~"$path"'
#: Over what Grafana takes rates: at least four scrapes.
WINDOW = "$__rate_interval"
QUANTILES = (0.5, 0.95, 0.99)
TOP = 10


@dataclass(frozen=True)
class Query:
    """A query, and Grafana's template of the legend of its series."""

    expression: str
    legend: str


@dataclass(frozen=True)
class Panel:
    """One picture; *unit* is ``seconds``, ``bytes``, ``share`` or anything else, and *width* is of 24."""

    kind: Literal["graph", "number", "bars", "heatmap"]
    title: str
    description: str
    unit: str
    queries: tuple[Query, ...]
    width: int = 8


@dataclass(frozen=True)
class Section:
    """Panels under a title; a folded one is opened by whoever wants to see it."""

    title: str
    panels: tuple[Panel, ...]
    is_folded: bool = False


def sections(source: Source, table: Sequence[Row]) -> list[Section]:
    """Return the sections of a dashboard: of all requests, of each kind of metric, and of each route of a table."""
    source = source.where(JOB, INSTANCE)
    groups = {
        "Requests": metrics.BASIC_METRICS,
        "First bytes and sizes": metrics.DETAIL_METRICS,
        "WebSockets": metrics.WEBSOCKET_METRICS,
        "Workers": metrics.WORKER_METRICS,
    }
    grouped = {metric for members in groups.values() for metric in members}
    groups["hr-prometheus itself"] = tuple(metric for metric in metrics.METRICS if metric not in grouped)
    made = [Section("Overview", tuple(_overview(source)))]
    for title, members in groups.items():
        panels = tuple(panel for metric in members if source.has(metric) for panel in _panels(source, metric))
        if panels:
            made.append(Section(title, panels))
    made.insert(2, Section("Routes", tuple(_routes(source.where(PATH)))))
    return made + [_route(source, row, table) for row in table if row.pattern]


def _overview(source: Source) -> Iterator[Panel]:
    """Yield the numbers to begin with."""
    of_path = source.where(PATH)
    requests = of_path.rate(metrics.REQUEST_COUNT, WINDOW)
    slow = of_path.quantile(0.95, metrics.REQUEST_LATENCY, WINDOW)
    progress = f"sum ({of_path.series(metrics.REQUESTS_IN_PROGRESS)})"
    for width, title, unit, expression in (
        (5, "Requests per second", "requests", requests),
        (5, "Share of errors (5xx)", "share", of_path.error_ratio(WINDOW)),
        (5, "95 % are answered within", "seconds", slow),
        (5, "Requests in progress", "requests", progress),
        (4, "Processes scraped", "processes", f"count (up{{{','.join(source.matchers)}}} == 1)"),
    ):
        yield Panel("number", title, "", unit, (Query(expression, ""),), width)


def _routes(source: Source) -> Iterator[Panel]:
    """Yield the routes that are the most, the slowest and the worst."""
    by = ["path"]
    errors = f"topk({TOP}, (\n{source.error_ratio(WINDOW, by)}\n) > 0)"
    slow = f"topk({TOP}, {source.quantile(0.95, metrics.REQUEST_LATENCY, WINDOW, by)} > 0)"
    busy = f"topk({TOP}, {source.rate(metrics.REQUEST_COUNT, WINDOW, by)} > 0)"
    for title, unit, expression in (
        ("Busiest routes (requests per second)", "requests", busy),
        ("Slowest routes (95th percentile)", "seconds", slow),
        ("Most failing routes (share of 5xx)", "share", errors),
    ):
        yield Panel("bars", title, "", unit, (Query(expression, "{{path}}"),))


def _panels(source: Source, metric: Metric) -> Iterator[Panel]:
    """Yield the panels of any metric, which follow from its type, its unit and its labels."""
    if "path" in metric.labels:
        source = source.where(PATH)
    by = _told_apart(metric)
    legend = " ".join(f"{{{{{label}}}}}" for label in by)
    title = _title(metric)
    if metric.type == "counter":
        rate = Query(source.rate(metric, WINDOW, by), legend)
        yield Panel("graph", f"{title} per second", metric.help, metric.unit, (rate,))
    elif metric.type == "gauge":
        value = f"{summed(by)} ({source.series(metric)})"
        if by == ["path"]:
            value = f"topk({TOP}, {value} > 0)"  # most paths have nothing at most times
        yield Panel("graph", title, metric.help, metric.unit, (Query(value, legend),))
    else:
        yield _quantiles(source, metric, title)
        buckets = source.rate(metric, WINDOW, ["le"], "_bucket")
        yield Panel("heatmap", f"{title}: how many", metric.help, metric.unit, (Query(buckets, "{{le}}"),))
        if metric.unit == "bytes":
            size = Query(source.rate(metric, WINDOW, suffix="_sum"), "bytes")
            yield Panel("graph", f"{title} per second", metric.help, metric.unit, (size,))
    if metric == metrics.REQUEST_COUNT:
        yield _errors(source)


def _route(source: Source, row: Row, table: Sequence[Row]) -> Section:
    """Return the section of one route."""
    source = source.where(*(_without_variables(matcher) for matcher in of_route(row, table)))
    traffic = Query(source.rate(metrics.REQUEST_COUNT, WINDOW, ["status"]), "{{status}}")
    name = f" ({row.name})" if row.name else ""
    panels = (
        Panel("graph", "Requests per second", "", "requests", (traffic,)),
        _quantiles(source, metrics.REQUEST_LATENCY, _title(metrics.REQUEST_LATENCY)),
        _errors(source),
    )
    return Section(f"{','.join(row.methods)} {row.label}{name}", panels, is_folded=True)


def _quantiles(source: Source, metric: Metric, title: str) -> Panel:
    queries = (Query(source.quantile(share, metric, WINDOW), f"{share * 100:g} %") for share in QUANTILES)
    return Panel("graph", title, metric.help, metric.unit, tuple(queries))


def _errors(source: Source) -> Panel:
    return Panel("graph", "Share of errors (5xx)", "", "share", (Query(source.error_ratio(WINDOW), "5xx"),))


def _told_apart(metric: Metric) -> list[str]:
    """Return the labels by which a metric's series are told apart: those of its own, else the route, else the process."""
    own = [label for label in metric.labels if label not in ("method", "path")]
    return own or (["path"] if "path" in metric.labels else ["instance"])


def _title(metric: Metric) -> str:
    words = metric.name.removeprefix("hr_prometheus_").removesuffix(f"_{metric.unit}").replace("_", " ")
    return words[0].upper() + words[1:]


def _without_variables(matcher: str) -> str:
    """Return the same matcher without what Grafana would take for a variable."""
    return matcher.replace("$", "\\x24").replace("[[", "[\\x5b")
