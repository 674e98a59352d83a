"""Tests of the rules for ``promtool test rules``: in simulated time, each alert fires when it should, and no other."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from math import ceil
from typing import TYPE_CHECKING, Any

from hr_prometheus import metrics
from hr_prometheus.observability.alerts import alerts, burn_rates, minutes
from hr_prometheus.observability.objectives import format_percent
from hr_prometheus.observability.promql import equal
from hr_prometheus.observability.rules import group_names
from hr_prometheus.observability.yaml_text import render_yaml

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from hr_prometheus.metric import Metric
    from hr_prometheus.observability.alerts import Alert
    from hr_prometheus.observability.objectives import Objective, ServiceLevels
    from hr_prometheus.observability.promql import ApplicationMetrics

#: Requests a minute, unless an alert needs more of them.
_LEAST_TRAFFIC = Decimal(1000)
#: How many times faster than allowed a simulated fault spends the budget: 5 % errors for an objective of 99.9 %.
_FAULT = 50
_STEP = 5  # minutes between evaluations
_INSTANCE = "127.0.0.1:8080"


def render_rule_tests(levels: ServiceLevels, rule_file: str) -> str:
    """Return a file for ``promtool test rules`` that tests what :func:`.rules.render_rules` makes of the same levels.

    *rule_file* is the file of the rules, as seen from the directory of the tests.
    """
    value: dict[str, Any] = {
        "rule_files": [rule_file],
        "evaluation_interval": f"{_STEP}m",
        "group_eval_order": group_names(levels.job),
        "tests": list(_tests(_Simulation(levels, alerts(levels)))),
    }
    return render_yaml(value, "Made by `hr-prometheus rules`. Run it with: promtool test rules FILE")


@dataclass(frozen=True)
class _Simulation:
    """An application with one process, its service levels and its alerts."""

    levels: ServiceLevels
    alerts: Sequence[Alert]

    @property
    def metrics(self) -> ApplicationMetrics:
        """The metrics of the process."""
        return self.levels.metrics.where(equal("instance", _INSTANCE))

    @property
    def up(self) -> str:
        """The series that says whether the process could be scraped."""
        return f"up{{{','.join(self.metrics.matchers)}}}"


def _tests(simulation: _Simulation) -> Iterator[dict[str, Any]]:
    """Yield two tests of the fastest alert of each objective, and one of each alert of hr-prometheus itself."""
    by_route = {objective.route: objective for objective in simulation.levels.objectives}
    for alert in simulation.alerts:
        objective = by_route.get(alert.labels.get("route", ""))
        if objective is None:
            yield _test_without_objective(alert, simulation)
        elif alert.labels["window"] == burn_rates(objective)[0].long:
            yield _test_of_an_objective(alert, objective, simulation)
            if simulation.levels.least_requests:
                yield _test_of_few_requests(alert, objective, simulation)


def _test_of_an_objective(alert: Alert, objective: Objective, simulation: _Simulation) -> dict[str, Any]:
    """Return a test of an alert: a fault fires it as soon as its long window has enough, and none of the slower ones."""
    fastest, slowest = burn_rates(objective)[0], burn_rates(objective)[-1]
    kind, share = alert.labels["objective"], _fault(objective)
    budget_minutes = fastest.factor * minutes(fastest.long)
    length = _round_up(Decimal("1.1") * budget_minutes * objective.budget / share)
    # So long that the fault spends less of the budget than the slowest alert allows.
    end = _round_up(Decimal("1.2") * budget_minutes / slowest.factor)
    start = end - length
    # Twice what the alert needs in its window.
    traffic = max(_LEAST_TRAFFIC, Decimal(ceil(2 * simulation.levels.least_requests / minutes(fastest.long))))
    series = [(simulation.up, f"1x{end}")]
    for each in simulation.levels.objectives:
        fault = kind if each is objective else ""
        series += _requests(simulation, each, fault, start=start, end=end, traffic=(traffic, traffic))
    name = f"{format_percent(share)} % of the requests fail ({kind}, route {objective.route}) for {length} minutes"
    return _test(name, series, simulation, {f"{start}m": [], f"{end}m": [alert]}, {"job": simulation.levels.job})


def _test_of_few_requests(fastest: Alert, objective: Objective, simulation: _Simulation) -> dict[str, Any]:
    """Return a test of a service that has just started: a fault fires its alerts when it has had enough requests."""
    kind, least = fastest.labels["objective"], Decimal(simulation.levels.least_requests)
    few, enough, quiet = 20, 80, 60  # minutes: half as many requests as are needed, and twice as many
    traffic = Decimal(0), least / 40
    series = [
        (simulation.up, f"1x{quiet + enough}"),
        *_requests(simulation, objective, kind, start=quiet, end=quiet + enough, traffic=traffic),
    ]
    of_objective = {"objective": kind, "route": objective.route}.items()
    firing = [alert for alert in simulation.alerts if of_objective <= alert.labels.items()]
    share = format_percent(_fault(objective))
    name = f"{share} % of few requests fail ({kind}, route {objective.route}): {least / 2}, then {2 * least}"
    times: dict[str, Sequence[Alert]] = {f"{quiet + few}m": [], f"{quiet + enough}m": firing}
    return _test(name, series, simulation, times, {"job": simulation.levels.job})


def _fault(objective: Objective) -> Decimal:
    """Return the share of the requests that fail while there is a fault."""
    return min(Decimal(1), _FAULT * objective.budget)


def _round_up(length: Decimal) -> int:
    """Return whole steps of at least that many minutes."""
    return _STEP * ceil(length / _STEP)


def _requests(
    simulation: _Simulation,
    objective: Objective,
    fault: str,
    *,
    start: int,
    end: int,
    traffic: tuple[Decimal, Decimal],
) -> list[tuple[str, str]]:
    """Return the series of an objective's requests until minute *end*; a *fault*, if it has a name, begins at *start*.

    *traffic* is the number of requests a minute, before *start* and after.
    """
    host = [equal(metrics.HOST, objective.host)] if objective.host else []
    requests = simulation.metrics.where(equal("method", objective.method), equal("path", objective.path), *host)
    before, after = traffic
    bad = _fault(objective) * after
    failed, slow = (bad if fault == kind else Decimal(0) for kind in ("errors", "latency"))
    counter = partial(_counter, start=start, end=end)
    series = [
        (requests.where(equal("status", "200")).selector(metrics.REQUEST_COUNT), counter(before, after - failed)),
        (requests.where(equal("status", "503")).selector(metrics.REQUEST_COUNT), counter(Decimal(0), failed)),
    ]
    if objective.latency_bucket is not None:
        # Under some names the requests are counted by their latencies, which then have a status.
        is_counted = requests.family(metrics.REQUEST_COUNT) == requests.family(metrics.REQUEST_LATENCY)
        answered = requests.where(equal("status", "200")) if requests.has_statuses else requests.outcome(metrics.OK)
        fast = answered.where(equal("le", objective.latency_bucket))
        series.append((fast.selector(metrics.REQUEST_LATENCY, "_bucket"), counter(before, after - slow)))
        if not is_counted:
            series.append((answered.selector(metrics.REQUEST_LATENCY, "_count"), counter(before, after)))
    return series


def _counter(before: Decimal, after: Decimal, *, start: int, end: int) -> str:
    """Return a counter's value at each minute: it grows by *before* a minute until *start*, then by *after*."""
    first, step = (f"{number.normalize():f}" for number in (before * start + after, after))
    return f"0+{before}x{start} {first}+{step}x{end - start - 1}"


def _test_without_objective(alert: Alert, simulation: _Simulation) -> dict[str, Any]:
    """Return a test of an alert of hr-prometheus itself; the series that fire it are chosen by its name."""
    application, up, of_job = simulation.metrics, simulation.up, {"job": simulation.levels.job}
    of_instance = {**of_job, "instance": _INSTANCE}

    def counter(metric: Metric, values: str, **labels: str) -> list[tuple[str, str]]:
        matchers = (equal(*label) for label in labels.items())
        return [(up, "1x60"), (application.where(*matchers).selector(metric), values)]

    worker = application.where(equal("worker", "0")).selector(metrics.WORKER_UP)
    route, where, once = {"route": "/cells/{cell_id}"}, {"where": "monitor"}, "_x20 1x40"
    killed = counter(metrics.WORKER_RESTARTS, "_x20 1 2 3x40", worker="0", reason="signal")
    reloaded = counter(metrics.WORKER_RESTARTS, "0+1x60", worker="0", reason="reload")
    held = counter(metrics.LOOP_BLOCKED_SECONDS, "0+6x60", method="GET", path="/report")
    host = {"client": "default", "host": "stock"}
    calls = application.where(*(equal(*label) for label in host.items()), equal("method", "GET"))
    failing = [
        (calls.where(equal("status", status)).selector(metrics.CLIENT_REQUEST_COUNT), "0+10x60")
        for status in ("200", "503")
    ]
    slow = [
        (calls.where(equal("le", bound)).selector(metrics.CLIENT_REQUEST_LATENCY, "_bucket"), f"0+{count}x60")
        for bound, count in (("1.0", 4), ("2.5", 10), ("+Inf", 10))
    ]
    series, labels = {
        "OutgoingCallsFail": ([(up, "1x60"), *failing], of_job | host),
        "OutgoingCallsSlow": ([(up, "1x60"), *slow], of_job | host),
        "EventLoopBlocked": (held, of_instance),
        "HrPrometheusNothingScraped": ([], of_job),
        "HrPrometheusScrapesFail": ([(up, "1 0 0 " * 20)], of_instance),
        "HrPrometheusNoWorker": ([*reloaded, (worker, "1x10 0x50")], of_instance),
        "HrPrometheusWorkersRestart": (killed, of_instance),
        "HrPrometheusLabelsFolded": (counter(metrics.FOLDED_REQUESTS, once, **route), of_job | route),
        "HrPrometheusErrors": (counter(metrics.ERRORS, once, **where), of_job | where),
    }[alert.name]
    return _test(alert.name, series, simulation, {"30m": [alert]}, labels)


def _test(
    name: str,
    series: Sequence[tuple[str, str]],
    simulation: _Simulation,
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
            for each in dict.fromkeys(alert.name for alert in simulation.alerts)
        ],
    }


def _firing(alert: Alert, labels: dict[str, str]) -> dict[str, Any]:
    labels = {**labels, **alert.labels, "severity": alert.severity}

    def fill_in(text: str) -> str:
        return re.sub(r"\{\{ \$labels\.(\w+) \}\}", lambda match: labels[match[1]], text)

    annotations = {"summary": fill_in(alert.summary), "description": fill_in(alert.description)}
    return {"exp_labels": labels, "exp_annotations": annotations}
