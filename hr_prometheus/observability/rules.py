"""Prometheus rules for one application: records of its routes and of its objectives, and alerts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hr_prometheus import metrics
from hr_prometheus.metric import LATENCY_BUCKETS
from hr_prometheus.metrics import ERROR, OK
from hr_prometheus.observability.alerts import BAD_RATIO, BURN_RATES, REQUESTS, alerts, minutes
from hr_prometheus.observability.promql import SERVER_ERRORS, equal
from hr_prometheus.observability.yaml_text import render_yaml

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hr_prometheus.metric import Metric
    from hr_prometheus.observability.alerts import Alert
    from hr_prometheus.observability.objectives import Objective, ServiceLevels
    from hr_prometheus.observability.promql import ApplicationMetrics

#: The window of the rates of routes.
WINDOW = "5m"
QUANTILES = (0.5, 0.95, 0.99)
# The rates that the ratios of an objective are made of.
_ALL, _BAD = REQUESTS, "hr_prometheus:bad_requests:rate"


def render_rules(levels: ServiceLevels) -> str:
    """Return a Prometheus rule file. The same service levels make the same file, byte for byte."""
    groups: list[Any] = [
        [*_route_records(levels.metrics), *_host_records(levels.metrics)],
        list(_objective_records(levels)),
        [_alert(each) for each in alerts(levels)],
    ]
    named = [{"name": name, "rules": rules} for name, rules in zip(group_names(levels.job), groups, strict=True)]
    return render_yaml({"groups": named}, "Made by `hr-prometheus rules`; make it again rather than change it.")


def group_names(job: str) -> list[str]:
    """Return the names of the groups of rules, in the order in which each needs the records of the one before."""
    return [f"{job}: routes", f"{job}: objectives", f"{job}: alerts"]


def _route_records(application: ApplicationMetrics) -> Iterator[dict[str, Any]]:
    """Yield the recording rules of every metric that has a path: rates of counters, quantiles of durations."""
    for metric in metrics.METRICS:
        if "path" not in metric.labels or not application.has(metric):
            continue
        if metric.type == "counter":
            by = ["job", *metric.labels]
            expression = application.rate(metric, WINDOW, by)
            yield {"record": _record_name(application, metric, by, f"rate{WINDOW}"), "expr": expression}
        elif metric.type == "histogram":
            yield from _quantile_records(application, metric)
    by, errors = ["job", "path"], f"errors_ratio_rate{WINDOW}"
    name = _record_name(application, metrics.REQUEST_COUNT, by, errors)
    yield {"record": name, "expr": application.error_ratio(WINDOW, by)}


def _host_records(application: ApplicationMetrics) -> Iterator[dict[str, Any]]:
    """Yield the recording rules of the hosts that the application calls: the quantiles of latencies, and the share of failures."""
    latency, by = metrics.CLIENT_REQUEST_LATENCY, ["job", "client", "host"]
    if not application.has(latency):
        return
    for share in QUANTILES:
        yield {
            "record": _record_name(application, latency, by, f"quantile_rate{WINDOW}"),
            "labels": {"quantile": f"{share:g}"},
            "expr": application.quantile(share, latency, WINDOW, by),
        }
    name = _record_name(application, metrics.CLIENT_REQUEST_COUNT, by, f"errors_ratio_rate{WINDOW}")
    yield {"record": name, "expr": application.call_error_ratio(WINDOW, by)}


def _quantile_records(application: ApplicationMetrics, metric: Metric) -> Iterator[dict[str, Any]]:
    is_latency = metric.buckets is LATENCY_BUCKETS
    by = ["job", *(application.route_labels if is_latency else ["path"])]
    has_outcomes = metric is metrics.REQUEST_LATENCY and application.latency_by_status
    for outcome in (OK, ERROR) if has_outcomes else ("",):
        selected = application.outcome(outcome) if outcome else application
        for share in QUANTILES:
            yield {
                "record": _record_name(application, metric, by, f"quantile_rate{WINDOW}"),
                "labels": {"quantile": f"{share:g}", **({metrics.OUTCOME: outcome} if outcome else {})},
                "expr": selected.quantile(share, metric, WINDOW, by),
            }


def _record_name(application: ApplicationMetrics, metric: Metric, by: list[str], operation: str) -> str:
    """Return the name of a recorded series: its labels, the metric, and what is done with it."""
    labels = "_".join(application.label(metric, label) for label in by)
    return f"{labels}:{application.family(metric)}:{operation}"


def _objective_records(levels: ServiceLevels) -> Iterator[dict[str, Any]]:
    """Yield the rates of all and of bad requests of each objective, and their ratio in each window of the alerts.

    Long windows are made of the recorded rates: each objective is one series, whatever its requests' labels are.
    """
    application, count, latency = levels.metrics, metrics.REQUEST_COUNT, metrics.REQUEST_LATENCY
    for objective in levels.objectives:
        yield _record(_ALL, "errors", objective, objective.rate(application, count, WINDOW))
        failed = objective.rate(application, count, WINDOW, SERVER_ERRORS)
        yield _record(_BAD, "errors", objective, f"{failed}\nor 0 * {_recorded(application, 'errors', objective)}")
        if objective.latency_bucket is not None:
            answered = application.outcome(OK)
            yield _record(_ALL, "latency", objective, objective.rate(answered, latency, WINDOW, suffix="_count"))
            every = _recorded(application, "latency", objective)
            if application.is_native(latency):
                # From below zero: half of the bucket of zero counts as negative where nothing is above it.
                fast = (
                    f"histogram_fraction(-1, {objective.latency_bucket}, {objective.rate(answered, latency, WINDOW)})"
                )
                # Without requests there is no fraction, and NaN would stay in sums over long windows.
                slow = f"{every} * (1 - {fast}) >= 0\nor 0 * {every}"
            else:
                bucket = equal("le", objective.latency_bucket)
                slow = f"{every}\n- {objective.rate(answered, latency, WINDOW, bucket, suffix='_bucket')}"
            yield _record(_BAD, "latency", objective, slow)
    bad, every = (f"{name}{WINDOW}{{{','.join(application.matchers)}}}" for name in (_BAD, _ALL))
    for window in sorted({window for rate in BURN_RATES for window in (rate.long, rate.short)}, key=minutes):
        ratio = f"sum_over_time({bad}[{window}]) / sum_over_time({every}[{window}])"
        yield {"record": f"{BAD_RATIO}{window}", "expr": ratio}


def _record(name: str, kind: str, objective: Objective, expression: str) -> dict[str, Any]:
    labels = {"objective": kind, "route": objective.route}
    return {"record": name + WINDOW, "labels": labels, "expr": expression}


def _recorded(application: ApplicationMetrics, kind: str, objective: Objective) -> str:
    """Return the rate of all requests as the rule before has recorded it."""
    matchers = application.where(equal("objective", kind), equal("route", objective.route)).matchers
    return f"sum by (job) ({_ALL}{WINDOW}{{{','.join(matchers)}}})"


def _alert(alert: Alert) -> dict[str, Any]:
    return {
        "alert": alert.name,
        "expr": alert.expression,
        **({"for": alert.duration} if alert.duration else {}),
        "labels": {"severity": alert.severity, **alert.labels},
        "annotations": {"summary": alert.summary, "description": alert.description},
    }
