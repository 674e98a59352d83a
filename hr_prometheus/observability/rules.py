"""Prometheus rules for one application: what is recorded of its routes and of its objectives, and the alerts."""

from __future__ import annotations

from bisect import bisect
from typing import TYPE_CHECKING, Any

from prometheus_client.utils import floatToGoString

from hr_prometheus import metrics
from hr_prometheus.errors import SettingError
from hr_prometheus.observability.alerts import BAD_RATIO, BURNS, REQUESTS, alerts, minutes
from hr_prometheus.observability.promql import SERVER_ERRORS, Source, equal
from hr_prometheus.observability.yaml_text import document
from hr_prometheus.settings import DEFAULT_LEAST_REQUESTS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from hr_prometheus.observability.alerts import Alert
    from hr_prometheus.observability.objectives import Objective

#: Over what the rates of routes are taken.
WINDOW = "5m"
QUANTILES = (0.5, 0.95, 0.99)
# What is recorded of an objective before its ratios.
_ALL, _BAD = REQUESTS, "hr_prometheus:bad_requests:rate"


def rules(
    source: Source,
    job: str,
    found: Sequence[Objective],
    *,
    buckets: Sequence[float],
    latency: float | None,
    least_requests: int = DEFAULT_LEAST_REQUESTS,
) -> str:
    """Return a Prometheus rule file for the application that Prometheus scrapes as *job*.

    *latency* is in seconds, and must be one of the *buckets*; ``None`` is no objective for latencies. The alerts of an
    objective need *least_requests* in their long window. The same rules come of the same arguments, letter for letter.
    """
    source = source.where(equal("job", job))
    bound = None if latency is None else latency_bound(latency, buckets)
    made = [
        list(_of_routes(source)),
        list(_of_objectives(source, found, bound)),
        [_alert(each) for each in alerts(source, job, found, latency, least_requests)],
    ]
    groups: list[Any] = [{"name": name, "rules": each} for name, each in zip(group_names(job), made, strict=True)]
    return document({"groups": groups}, "Made by `hr-prometheus rules`; make it again rather than change it.")


def group_names(job: str) -> list[str]:
    """Return the names of the groups of rules, in the order in which one needs what the other has recorded."""
    return [f"{job}: routes", f"{job}: objectives", f"{job}: alerts"]


def latency_bound(latency: float, buckets: Sequence[float]) -> str:
    """Return the label ``le`` of the bucket for an objective.

    Raises :exc:`~hr_prometheus.errors.ConfigurationError` if there is none.
    """
    if latency not in buckets:
        place = bisect(buckets, latency)
        nearest = buckets[max(place - 1, 0) : place + 1]
        raise SettingError(
            "latency",
            f'--latency "{latency:g}"',
            " is no bound of the latency histogram, so nobody can tell how many requests took "
            f"longer. Take {' or '.join(f'{bound:g}' for bound in nearest)}, or add it to --buckets, here and where the "
            "application is run.",
        )
    return floatToGoString(latency)  # type: ignore[no-any-return, no-untyped-call]


def _of_routes(source: Source) -> Iterator[dict[str, Any]]:
    """Yield the recording rules of every metric that has a path: rates of counters, quantiles of durations."""
    for metric in metrics.METRICS:
        name, by = source.name(metric), ["job", *metric.labels]
        if "path" not in metric.labels or not source.has(metric):
            continue
        if metric.type == "counter":
            yield {"record": f"{'_'.join(by)}:{name}:rate{WINDOW}", "expr": source.rate(metric, WINDOW, by)}
        elif metric.type == "histogram":
            for share in QUANTILES:
                quantile = source.quantile(share, metric, WINDOW, ["job", "path"])
                yield {
                    "record": f"job_path:{name}:quantile_rate{WINDOW}",
                    "labels": {"quantile": f"{share:g}"},
                    "expr": quantile,
                }
    errors = source.error_ratio(WINDOW, ["job", "path"])
    yield {"record": f"job_path:{source.name(metrics.REQUEST_COUNT)}:errors_ratio_rate{WINDOW}", "expr": errors}


def _of_objectives(source: Source, found: Sequence[Objective], bound: str | None) -> Iterator[dict[str, Any]]:
    """Yield the rates of all and of bad requests of each objective, and their ratio in each window of the alerts.

    Long windows are made of the recorded rates: each objective is one series, whatever its requests' labels are.
    """
    count, latency = metrics.REQUEST_COUNT, metrics.REQUEST_LATENCY
    for objective in found:
        yield _rate(_ALL, "errors", objective, objective.rate(source, count, WINDOW))
        failed, every = objective.rate(source, count, WINDOW, SERVER_ERRORS), _recorded(source, "errors", objective)
        yield _rate(_BAD, "errors", objective, f"{failed}\nor 0 * {every}")
        if bound is not None:
            yield _rate(_ALL, "latency", objective, objective.rate(source, latency, WINDOW, suffix="_count"))
            fast = objective.rate(source, latency, WINDOW, equal("le", bound), suffix="_bucket")
            yield _rate(_BAD, "latency", objective, f"{_recorded(source, 'latency', objective)}\n- {fast}")
    bad, every = (f"{name}{WINDOW}{{{','.join(source.matchers)}}}" for name in (_BAD, _ALL))
    for window in sorted({window for burn in BURNS for window in (burn.long, burn.short)}, key=minutes):
        ratio = f"sum_over_time({bad}[{window}]) / sum_over_time({every}[{window}])"
        yield {"record": f"{BAD_RATIO}{window}", "expr": ratio}


def _rate(name: str, kind: str, objective: Objective, expression: str) -> dict[str, Any]:
    labels = {"objective": kind, "route": objective.route}
    return {"record": name + WINDOW, "labels": labels, "expr": expression}


def _recorded(source: Source, kind: str, objective: Objective) -> str:
    """Return the rate of all requests as it was recorded just before."""
    matchers = source.where(equal("objective", kind), equal("route", objective.route)).matchers
    return f"sum by (job) ({_ALL}{WINDOW}{{{','.join(matchers)}}})"


def _alert(alert: Alert) -> dict[str, Any]:
    return {
        "alert": alert.name,
        "expr": alert.expression,
        **({"for": alert.duration} if alert.duration else {}),
        "labels": {"severity": alert.severity, **alert.labels},
        "annotations": {"summary": alert.summary, "description": alert.description},
    }
