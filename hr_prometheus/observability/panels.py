"""The panels of a dashboard, with their queries. They follow from the metrics of the catalogue and from the routes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from hr_prometheus import metrics
from hr_prometheus.observability.promql import route_matchers, sum_by

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from hr_prometheus.metric import Metric
    from hr_prometheus.observability.promql import ApplicationMetrics
    from hr_prometheus.observability.route_table import Row

#: The matchers of the variables that a dashboard has.
JOB, INSTANCE, PATH = 'job=~"$job"', 'instance=~"$instance"', 'path=~"$path"'
#: Grafana's window for rates: at least four scrapes.
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
    """One picture; *unit* is ``seconds``, ``bytes``, ``share`` or anything else, and *width* is of 24.

    Its last query may be one of series that have exemplars.
    """

    kind: Literal["graph", "number", "bars", "heatmap"]
    title: str
    description: str
    unit: str
    queries: tuple[Query, ...]
    width: int = 8
    has_exemplars: bool = False


@dataclass(frozen=True)
class Section:
    """Panels under a title, in sight unless the section is folded."""

    title: str
    panels: tuple[Panel, ...]
    is_folded: bool = False


def sections(application: ApplicationMetrics, table: Sequence[Row]) -> list[Section]:
    """Return the sections of a dashboard: of all requests, of each kind of metric, and of each route of a table."""
    application = application.where(JOB, INSTANCE)
    groups = {
        "Requests": metrics.BASIC_METRICS,
        "First bytes and sizes": metrics.DETAIL_METRICS,
        "WebSockets": metrics.WEBSOCKET_METRICS,
        "Outgoing calls": metrics.CLIENT_METRICS,
        "Workers": metrics.WORKER_METRICS,
    }
    loop_metrics = (metrics.REQUEST_LOOP_TIME, *metrics.LOOP_METRICS)
    grouped = {metric for members in (*groups.values(), loop_metrics) for metric in members}
    groups["hr-prometheus itself"] = tuple(metric for metric in metrics.METRICS if metric not in grouped)
    result = [Section("Overview", tuple(_overview(application)))]
    for title, members in groups.items():
        panels = [panel for metric in members if application.has(metric) for panel in _panels(application, metric)]
        if members is metrics.CLIENT_METRICS:
            panels = [*_hosts(application), *panels]
        if panels:
            result.append(Section(title, tuple(panels)))
    result.insert(2, Section("Routes", tuple(_routes(application.where(PATH)))))
    if loop_panels := tuple(_event_loop(application)):
        result.insert(3, Section("Event loop", loop_panels))
    return result + [_route(application, row, table) for row in table if row.pattern]


def _overview(application: ApplicationMetrics) -> Iterator[Panel]:
    """Yield the numbers that a person looks at first."""
    of_path = application.where(PATH)
    requests = of_path.rate(metrics.REQUEST_COUNT, WINDOW)
    slow = of_path.outcome(metrics.OK).quantile(0.95, metrics.REQUEST_LATENCY, WINDOW)
    progress = f"sum ({of_path.selector(metrics.REQUESTS_IN_PROGRESS)})"
    for width, title, unit, expression in (
        (5, "Requests per second", "requests", requests),
        (5, "Share of errors (5xx)", "share", of_path.error_ratio(WINDOW)),
        (5, "95 % are answered within", "seconds", slow),
        (5, "Requests in progress", "requests", progress),
        (4, "Processes scraped", "processes", f"count (up{{{','.join(application.matchers)}}} == 1)"),
    ):
        yield Panel("number", title, "", unit, (Query(expression, ""),), width)


def _routes(application: ApplicationMetrics) -> Iterator[Panel]:
    """Yield the busiest, the slowest and the most failing routes."""
    by = ["path"]
    errors = f"topk({TOP}, (\n{application.error_ratio(WINDOW, by)}\n) > 0)"
    of_route = application.route_labels
    slow = (
        f"topk({TOP}, {application.outcome(metrics.OK).quantile(0.95, metrics.REQUEST_LATENCY, WINDOW, of_route)} > 0)"
    )
    busy = f"topk({TOP}, {application.rate(metrics.REQUEST_COUNT, WINDOW, by)} > 0)"
    for title, unit, expression, labels in (
        ("Busiest routes (requests per second)", "requests", busy, by),
        ("Slowest routes (95th percentile)", "seconds", slow, of_route),
        ("Most failing routes (share of 5xx)", "share", errors, by),
    ):
        legend = _legend(application, metrics.REQUEST_COUNT, labels)
        yield Panel("bars", title, "", unit, (Query(expression, legend),))


def _hosts(application: ApplicationMetrics) -> Iterator[Panel]:
    """Yield the slowest and the most failing hosts that an application calls, and the routes that wait for them."""
    latency, by = metrics.CLIENT_REQUEST_LATENCY, ["client", "host"]
    if not application.has(latency):
        return
    slow = f"topk({TOP}, {application.quantile(0.95, latency, WINDOW, by)} > 0)"
    failing = f"topk({TOP}, (\n{application.call_error_ratio(WINDOW, by)}\n) > 0)"
    for title, unit, expression in (
        ("Slowest hosts (95th percentile)", "seconds", slow),
        ("Most failing hosts (share of 5xx and failures)", "share", failing),
    ):
        yield Panel("bars", title, "", unit, (Query(expression, "{{client}} {{host}}"),))
    if application.has_calls_by_route:
        spent = f"topk({TOP}, {application.rate(latency, WINDOW, ['path', 'host'], '_sum')} > 0)"
        title, help_text = "Calls that routes wait for, by route and host", "The mean number of them at a time."
        yield Panel("graph", title, help_text, "calls", (Query(spent, "{{path}} {{host}}"),))


def _event_loop(application: ApplicationMetrics) -> Iterator[Panel]:
    """Yield how late the event loop is, what it uses, and which routes hold and block it."""
    lag, cpu, tasks = metrics.LOOP_LAG, metrics.LOOP_CPU, metrics.LOOP_TASKS
    if application.has(lag):
        yield _quantiles(application, lag, "Event loop lag")
        use = Query(application.rate(cpu, WINDOW, ["instance"]), "{{instance}}")
        yield Panel("graph", "Utilisation (processor time of the event loop)", cpu.help, "share", (use,))
        number = Query(f"sum by (instance) ({application.selector(tasks)})", "{{instance}}")
        yield Panel("graph", "Tasks", tasks.help, tasks.unit, (number,))
    for title, metric, unit in (
        ("Share of the time that requests hold it, by route", metrics.REQUEST_LOOP_TIME, "share"),
        ("Share of the time blocked, by route", metrics.LOOP_BLOCKED_SECONDS, "share"),
        ("Blocks per second, by route", metrics.LOOP_BLOCKED, "blocks"),
    ):
        if application.has(metric):
            rate = f"topk({TOP}, {application.rate(metric, WINDOW, ['method', 'path'])} > 0)"
            yield Panel("graph", title, metric.help, unit, (Query(rate, "{{method}} {{path}}"),))


def _panels(application: ApplicationMetrics, metric: Metric) -> Iterator[Panel]:
    """Yield the panels of any metric, which follow from its type, its unit and its labels."""
    if "path" in metric.labels:
        application = application.where(PATH)
    by = _distinguishing_labels(metric)
    legend = _legend(application, metric, by)
    title = _title(metric)
    if metric.type == "counter":
        rate = Query(application.rate(metric, WINDOW, by), legend)
        yield Panel("graph", f"{title} per second", metric.help, metric.unit, (rate,))
    elif metric.type == "gauge":
        labels = [application.label(metric, label) for label in by]
        value = f"{sum_by(labels)} ({application.selector(metric)})"
        if by == ["path"]:
            value = f"topk({TOP}, {value} > 0)"  # most paths have nothing at most times
        yield Panel("graph", title, metric.help, metric.unit, (Query(value, legend),))
    else:
        yield _quantiles(application, metric, title)
        buckets = application.bucket_rate(metric, WINDOW)
        queries, has_exemplars = (Query(buckets, "{{le}}"),), metric is metrics.REQUEST_LATENCY
        yield Panel("heatmap", f"{title}: how many", metric.help, metric.unit, queries, has_exemplars=has_exemplars)
        if metric.unit == "bytes":
            size = Query(application.rate(metric, WINDOW, suffix="_sum"), "bytes")
            yield Panel("graph", f"{title} per second", metric.help, metric.unit, (size,))
    if metric is metrics.REQUEST_COUNT:
        yield _errors(application)
    elif metric is metrics.REQUEST_LATENCY and application.latency_by_status:
        failed = application.outcome(metrics.ERROR).quantile(0.95, metric, WINDOW)
        of_errors = (Query(failed, "5xx"),)
        yield Panel("graph", "95 % of the errors are answered within", "", metric.unit, of_errors, has_exemplars=True)


def _route(application: ApplicationMetrics, row: Row, table: Sequence[Row]) -> Section:
    """Return the section of one route."""
    application = application.of_route(*(_escape_variables(matcher) for matcher in route_matchers(row, table)))
    statuses = application.rate(metrics.REQUEST_COUNT, WINDOW, ["status"])
    traffic = Query(statuses, _legend(application, metrics.REQUEST_COUNT, ["status"]))
    name = f" ({row.name})" if row.name else ""
    panels = (
        Panel("graph", "Requests per second", "", "requests", (traffic,)),
        _quantiles(application, metrics.REQUEST_LATENCY, _title(metrics.REQUEST_LATENCY)),
        _errors(application),
    )
    return Section(f"{','.join(row.methods)} {row.label}{name}", panels, is_folded=True)


def _quantiles(application: ApplicationMetrics, metric: Metric, title: str) -> Panel:
    if metric is metrics.REQUEST_LATENCY:
        application = application.outcome(metrics.OK)
    queries = (Query(application.quantile(share, metric, WINDOW), f"{share * 100:g} %") for share in QUANTILES)
    has_exemplars = metric is metrics.REQUEST_LATENCY
    return Panel("graph", title, metric.help, metric.unit, tuple(queries), has_exemplars=has_exemplars)


def _errors(application: ApplicationMetrics) -> Panel:
    return Panel("graph", "Share of errors (5xx)", "", "share", (Query(application.error_ratio(WINDOW), "5xx"),))


def _legend(application: ApplicationMetrics, metric: Metric, by: Sequence[str]) -> str:
    """Return Grafana's template of the values of labels."""
    return " ".join(f"{{{{{application.label(metric, label)}}}}}" for label in by)


def _distinguishing_labels(metric: Metric) -> list[str]:
    """Return the labels that have a line each: those of the metric alone, else the route, else the process."""
    own = [label for label in metric.labels if label not in ("method", "path")]
    return own or (["path"] if "path" in metric.labels else ["instance"])


def _title(metric: Metric) -> str:
    name = metric.name.removeprefix("hr_prometheus_")
    if metric.unit in {"seconds", "bytes"}:  # which the axis says; what is counted is the name's last word
        name = name.removesuffix(f"_{metric.unit}")
    words = name.replace("_", " ")
    return words[0].upper() + words[1:]


def _escape_variables(matcher: str) -> str:
    """Return an equal matcher in which Grafana sees no variable."""
    return matcher.replace("$", "\\x24").replace("[[", "[\\x5b")
