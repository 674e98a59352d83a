"""Tests of the rules for ``promtool test rules``: in simulated time, each alert fires when it should, and no other."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from math import ceil
from typing import TYPE_CHECKING, Any

from hr_prometheus import metrics
from hr_prometheus.observability.alerts import alerts, burns, minutes
from hr_prometheus.observability.objectives import percent
from hr_prometheus.observability.promql import Source, equal
from hr_prometheus.observability.rules import group_names, latency_bound
from hr_prometheus.observability.yaml_text import document
from hr_prometheus.settings import DEFAULT_LEAST_REQUESTS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from hr_prometheus.observability.alerts import Alert
    from hr_prometheus.observability.objectives import Objective

#: Minutes for which all goes well before something fails: the longest window.
_HISTORY = 3 * 24 * 60
#: Requests a minute.
_TRAFFIC = Decimal(1000)
#: How many times faster than allowed a simulated fault spends the budget: 5 % errors for an objective of 99.9 %.
_FAULT = 50
_STEP = 5  # minutes between evaluations
_INSTANCE = "127.0.0.1:8080"


def rule_tests(
    source: Source,
    job: str,
    found: Sequence[Objective],
    *,
    buckets: Sequence[float],
    latency: float | None,
    rule_file: str,
    least_requests: int = DEFAULT_LEAST_REQUESTS,
) -> str:
    """Return a file for ``promtool test rules`` which tests what :func:`hr_prometheus.observability.rules.rules` makes of the same.

    *rule_file* is the file of the rules, as seen from the directory of the tests.
    """
    simulated = _Simulated(
        source.where(equal("job", job), equal("instance", _INSTANCE)),
        job,
        found,
        alerts(source, job, found, latency, least_requests),
        None if latency is None else latency_bound(latency, buckets),
        least_requests,
    )
    value: dict[str, Any] = {
        "rule_files": [rule_file],
        "evaluation_interval": f"{_STEP}m",
        "group_eval_order": group_names(job),
        "tests": list(_tests(simulated)),
    }
    return document(value, "Made by `hr-prometheus rules`. Run it with: promtool test rules FILE")


@dataclass(frozen=True)
class _Simulated:
    """An application with one process, its objectives, its alerts, and the bucket of its objective for latencies."""

    source: Source
    job: str
    objectives: Sequence[Objective]
    alerts: Sequence[Alert]
    bound: str | None
    least_requests: int

    @property
    def up(self) -> str:
        """The series that says whether the process could be scraped."""
        return f"up{{{','.join(self.source.matchers)}}}"


def _tests(simulated: _Simulated) -> Iterator[dict[str, Any]]:
    """Yield two tests of the first alert of each objective, and one of each alert of the instrument."""
    by_route = {objective.route: objective for objective in simulated.objectives}
    for alert in simulated.alerts:
        objective = by_route.get(alert.labels.get("route", ""))
        if objective is None:
            yield _test_of_the_instrument(alert, simulated)
        elif alert.labels["window"] == burns(objective)[0].long:
            yield _test_of_an_objective(alert, objective, simulated)
            if simulated.least_requests:
                yield _test_of_few_requests(alert, objective, simulated)


def _test_of_an_objective(alert: Alert, objective: Objective, simulated: _Simulated) -> dict[str, Any]:
    """Return a test of an alert: a fault fires it as soon as the long window says enough, and not the slower ones."""
    burn, kind = burns(objective)[0], alert.labels["objective"]
    enough = Decimal("1.1") * burn.factor * objective.budget * minutes(burn.long) / _share(objective)
    length = _STEP * ceil(enough / _STEP)
    end = _HISTORY + length
    series = [(simulated.up, f"1x{end}")]
    for each in simulated.objectives:
        series += _requests(simulated, each, end, kind if each is objective else "")
    name = f"{percent(_share(objective))} % of the requests fail ({kind}, route {objective.route}) for {length} minutes"
    return _test(name, series, simulated, {f"{_HISTORY}m": [], f"{end}m": [alert]}, {"job": simulated.job})


def _test_of_few_requests(first: Alert, objective: Objective, simulated: _Simulated) -> dict[str, Any]:
    """Return a test of a service that has just started: a fault fires its alerts when it has had enough requests."""
    kind, least = first.labels["objective"], Decimal(simulated.least_requests)
    few, enough, quiet = 20, 80, 60  # minutes: half as many as are needed, and twice as many
    series = [
        (simulated.up, f"1x{quiet + enough}"),
        *_requests(simulated, objective, quiet + enough, kind, start=quiet, traffic=(Decimal(0), least / 40)),
    ]
    fired = [alert for alert in simulated.alerts if alert.labels.get("route") == objective.route]
    fired = [alert for alert in fired if alert.labels["objective"] == kind]
    name = f"{percent(_share(objective))} % of few requests fail ({kind}, route {objective.route}): {least / 2}, then {2 * least}"
    times: dict[str, Sequence[Alert]] = {f"{quiet + few}m": [], f"{quiet + enough}m": fired}
    return _test(name, series, simulated, times, {"job": simulated.job})


def _share(objective: Objective) -> Decimal:
    return min(Decimal(1), _FAULT * objective.budget)


def _requests(
    simulated: _Simulated,
    objective: Objective,
    end: int,
    fault: str,
    *,
    start: int = _HISTORY,
    traffic: tuple[Decimal, Decimal] = (_TRAFFIC, _TRAFFIC),
) -> list[tuple[str, str]]:
    """Return the series of an objective's requests; those from *start* on have a *fault*, if it has a name.

    *traffic* is the number of requests a minute, before *start* and after.
    """
    host = [equal(metrics.HOST, objective.host)] if objective.host else []
    source = simulated.source.where(equal("method", objective.method), equal("path", objective.path), *host)
    before, after = traffic
    bad = _share(objective) * after
    failed, slow = (bad if fault == kind else Decimal(0) for kind in ("errors", "latency"))
    rising = partial(_rising, start=start, end=end)
    series = [
        (source.where(equal("status", "200")).series(metrics.REQUEST_COUNT), rising(before, after - failed)),
        (source.where(equal("status", "503")).series(metrics.REQUEST_COUNT), rising(Decimal(0), failed)),
    ]
    if simulated.bound is not None:
        fast = source.where(equal("le", simulated.bound)).series(metrics.REQUEST_LATENCY, "_bucket")
        series.append((fast, rising(before, after - slow)))
        series.append((source.series(metrics.REQUEST_LATENCY, "_count"), rising(before, after)))
    return series


def _rising(before: Decimal, after: Decimal, *, start: int, end: int) -> str:
    """Return a counter's values a minute: *before* a minute until *start*, and *after* a minute from then on."""
    first, step = (f"{number.normalize():f}" for number in (before * start + after, after))
    return f"0+{before}x{start} {first}+{step}x{end - start - 1}"


def _test_of_the_instrument(alert: Alert, simulated: _Simulated) -> dict[str, Any]:
    """Return a test of an alert of the instrument; the series that fire it are known by its name."""
    source, up, of_job = simulated.source, simulated.up, {"job": simulated.job}
    of_instance = {**of_job, "instance": _INSTANCE}

    def counter(metric: metrics.Metric, values: str, **labels: str) -> list[tuple[str, str]]:
        matchers = (equal(*label) for label in labels.items())
        return [(up, "1x60"), (source.where(*matchers).series(metric), values)]

    worker = source.where(equal("worker", "0")).series(metrics.WORKER_UP)
    route, where, once = {"route": "/cells/{cell_id}"}, {"where": "monitor"}, "_x20 1x40"
    killed = counter(metrics.WORKER_RESTARTS, "_x20 1 2 3x40", worker="0", reason="signal")
    reloaded = counter(metrics.WORKER_RESTARTS, "0+1x60", worker="0", reason="reload")
    series, labels = {
        "HrPrometheusNothingScraped": ([], of_job),
        "HrPrometheusScrapesFail": ([(up, "1 0 0 " * 20)], of_instance),
        "HrPrometheusNoWorker": ([*reloaded, (worker, "1x10 0x50")], of_instance),
        "HrPrometheusWorkersRestart": (killed, of_instance),
        "HrPrometheusLabelsFolded": (counter(metrics.FOLDED_REQUESTS, once, **route), of_job | route),
        "HrPrometheusErrors": (counter(metrics.ERRORS, once, **where), of_job | where),
    }[alert.name]
    return _test(alert.name, series, simulated, {"30m": [alert]}, labels)


def _test(
    name: str,
    series: Sequence[tuple[str, str]],
    simulated: _Simulated,
    fires: Mapping[str, Sequence[Alert]],
    labels: dict[str, str],
) -> dict[str, Any]:
    """Return a test: at each time only these alerts fire, with these *labels*."""
    return {
        "name": name,
        "interval": "1m",
        "input_series": [{"series": selector, "values": values.strip()} for selector, values in series],
        "alert_rule_test": [
            {
                "eval_time": time,
                "alertname": each,
                "exp_alerts": [_firing(alert, labels) for alert in firing if alert.name == each],
            }
            for time, firing in fires.items()
            for each in dict.fromkeys(alert.name for alert in simulated.alerts)
        ],
    }


def _firing(alert: Alert, labels: dict[str, str]) -> dict[str, Any]:
    labels = {**labels, **alert.labels, "severity": alert.severity}

    def filled_in(text: str) -> str:
        return re.sub(r"\{\{ \$labels\.(\w+) \}\}", lambda match: labels[match[1]], text)

    annotations = {"summary": filled_in(alert.summary), "description": filled_in(alert.description)}
    return {"exp_labels": labels, "exp_annotations": annotations}
