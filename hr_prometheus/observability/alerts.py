"""When a person must act: the alerts of an application's objectives, and those of hr-prometheus itself.

The alerts of the objectives are those of Google's SRE workbook, "Alerting on SLOs": how many times faster than allowed the
budget of errors is being spent, over a long window, so that it matters, and over a short one, so that it still goes on.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING

from hr_prometheus import metrics
from hr_prometheus.observability.objectives import format_percent
from hr_prometheus.observability.promql import equal

if TYPE_CHECKING:
    from hr_prometheus.observability.objectives import Objective, ServiceLevels
    from hr_prometheus.observability.promql import ApplicationMetrics

#: The recorded share of bad requests of an objective, with the labels ``objective`` (``errors`` or ``latency``) and
#: ``route``; the window stands behind it.
BAD_RATIO = "hr_prometheus:bad_requests:ratio_rate"
#: The recorded rate of all its requests; the window stands behind it.
REQUESTS = "hr_prometheus:requests:rate"
PAGE, TICKET = "page", "ticket"
# An alert that needs a larger share of the requests to fail misses most outages.
_MOST = Decimal("0.9")
# In an annotation, where Prometheus fills it in.
_JOB, _INSTANCE = "{{ $labels.job }}", "{{ $labels.instance }} of {{ $labels.job }}"


@dataclass(frozen=True)
class BurnRate:
    """A budget that is spent *factor* times too fast, in the window *long* and still in *short*."""

    severity: str
    factor: Decimal
    long: str
    short: str


BURN_RATES = (
    BurnRate(PAGE, Decimal("14.4"), "1h", "5m"),
    BurnRate(PAGE, Decimal(6), "6h", "30m"),
    BurnRate(TICKET, Decimal(1), "3d", "6h"),
)


@dataclass(frozen=True)
class Alert:
    """An alert, with the labels and annotations it has when it fires."""

    name: str
    severity: str
    expression: str
    summary: str
    description: str
    duration: str = ""
    labels: dict[str, str] = field(default_factory=dict)


def alerts(levels: ServiceLevels) -> list[Alert]:
    """Return the alerts: those of the objectives, and those of hr-prometheus itself."""
    of_objectives = [
        Alert(
            name,
            rate.severity,
            _burns(levels, kind, objective, rate),
            f"Too many requests to {_JOB} (route {{{{ $labels.route }}}}) {verb}.",
            f"The budget of {format_percent(objective.budget)} % is being spent more than {rate.factor} times too fast, over "
            f"{rate.long} and still over {rate.short}. * stands for all routes that have no objective of their own.",
            labels={"objective": kind, "route": objective.route, "window": rate.long},
        )
        for objective in levels.objectives
        for kind, (name, verb) in _kinds(objective).items()
        for rate in burn_rates(objective)
    ]
    return [
        *of_objectives,
        *_of_calls(levels.metrics),
        *_of_event_loop(levels.metrics, levels.job),
        *_of_scrapes(levels.job),
        *_of_workers(levels.metrics),
        *_of_labels_and_errors(levels.metrics),
    ]


def _kinds(objective: Objective) -> dict[str, tuple[str, str]]:
    """Return the name of the alert and what is wrong with the requests, by what the objective is about."""
    kinds = {"errors": ("RequestErrorsBurnBudget", "are answered with a 5xx")}
    if objective.latency is not None:
        kinds["latency"] = ("RequestLatencyBurnsBudget", f"take more than {objective.latency:g} s")
    return kinds


def burn_rates(objective: Objective) -> list[BurnRate]:
    """Return those that an objective can reach: a budget of 10 % cannot be spent 14.4 times too fast."""
    return [rate for rate in BURN_RATES if rate.factor * objective.budget <= _MOST]


def _burns(levels: ServiceLevels, kind: str, objective: Objective, rate: BurnRate) -> str:
    matchers = ",".join([equal("job", levels.job), equal("objective", kind), equal("route", objective.route)])
    limit = f"{(rate.factor * objective.budget).normalize():f}"
    conditions = [f"{BAD_RATIO}{window}{{{matchers}}} > {limit}" for window in (rate.long, rate.short)]
    if levels.least_requests:
        # A step of five minutes adds up rates over five minutes, and nothing before the first request or record.
        requests = f"300 * sum_over_time({REQUESTS}5m{{{matchers}}}[{rate.long}:5m])"
        conditions.append(f"{requests} >= {levels.least_requests}")
    return "\nand\n".join(conditions)


def _of_calls(application: ApplicationMetrics) -> list[Alert]:
    latency, by = metrics.CLIENT_REQUEST_LATENCY, ["job", "client", "host"]
    if not application.has(latency):
        return []
    return [
        Alert(
            "OutgoingCallsFail",
            TICKET,
            f"{application.call_error_ratio('10m', by)}\n> 0.05",
            f"More than 5 % of the calls of {_JOB} to {{{{ $labels.host }}}} fail.",
            "They get a 5xx or no complete response. The label reason of client_request_errors_total says why.",
            "5m",
        ),
        Alert(
            "OutgoingCallsSlow",
            TICKET,
            f"{application.quantile(0.5, latency, '10m', by)}\n> {metrics.DEFAULT_SLOW:g}",
            f"Half of the calls of {_JOB} to {{{{ $labels.host }}}} take more than {metrics.DEFAULT_SLOW:g} s.",
            "Where client_connection_wait_seconds has observations, they wait for a connection of the pool.",
            "5m",
        ),
    ]


def _of_event_loop(application: ApplicationMetrics, job: str) -> list[Alert]:
    if not application.has(metrics.LOOP_BLOCKED_SECONDS):
        return []
    blocked = application.rate(metrics.LOOP_BLOCKED_SECONDS, "10m", ["job", "instance"])
    # The seconds of several workers add up.
    workers = f"sum by (job, instance) ({application.selector(metrics.WORKER_UP)}) > 0"
    loops = f"({workers} or sum by (job, instance) (up{{{equal('job', job)}}}))"
    return [
        Alert(
            "EventLoopBlocked",
            TICKET,
            f"{blocked}\n/ {loops}\n> 0.05",
            f"The event loop of {_INSTANCE} was blocked for more than 5 % of ten minutes.",
            "Meanwhile all requests wait. The label path of the counter, and the log, say which routes or tasks have blocked it.",
        )
    ]


def _of_scrapes(job: str) -> list[Alert]:
    up = f"up{{{equal('job', job)}}}"
    return [
        Alert(
            "HrPrometheusNothingScraped",
            PAGE,
            f"sum by (job) ({up}) == 0 or absent({up})",
            f"No process of {_JOB} can be scraped.",
            "All are down, or Prometheus does not know of them: see its page Status, Targets.",
            "5m",
        ),
        Alert(
            "HrPrometheusScrapesFail",
            TICKET,
            f"avg_over_time({up}[10m]) < 0.75",
            f"More than a quarter of the scrapes of {_INSTANCE} fail.",
            "The page Status, Targets of Prometheus has the reason of the last one.",
            "5m",
        ),
    ]


def _of_workers(application: ApplicationMetrics) -> list[Alert]:
    # A worker that is replaced on purpose is no trouble.
    restarts = application.where('reason!~"max-requests|reload"').selector(metrics.WORKER_RESTARTS)
    return [
        Alert(
            "HrPrometheusNoWorker",
            PAGE,
            f"max by (job, instance) ({application.selector(metrics.WORKER_UP)}) == 0",
            f"No worker of {_INSTANCE} serves.",
            "The log has the reason for which they ended.",
            "1m",
        ),
        Alert(
            "HrPrometheusWorkersRestart",
            TICKET,
            # The counter of a reason begins at 1, with its first restart. Prometheus sees no increase then.
            f"sum by (job, instance) ({restarts} - ({restarts} offset 15m or 0 * {restarts})) > 2",
            f"Workers of {_INSTANCE} are started again and again.",
            "The label reason of the counter, and the log, say why they ended.",
        ),
    ]


def _of_labels_and_errors(application: ApplicationMetrics) -> list[Alert]:
    return [
        Alert(
            "HrPrometheusLabelsFolded",
            TICKET,
            _has_increased(application.selector(metrics.FOLDED_REQUESTS), "1h", "job, route"),
            f"The route {{{{ $labels.route }}}} of {_JOB} has more path labels than its budget.",
            "Fix the parameter that is behind it with --fixed-route, list its values with --allow-values, or raise "
            "--path-budget.",
        ),
        Alert(
            "HrPrometheusErrors",
            TICKET,
            _has_increased(application.selector(metrics.ERRORS), "15m", "job, where"),
            f"The metrics of {_JOB} miss something: {{{{ $labels.where }}}} raises exceptions.",
            "The log has one traceback of each kind. No client has seen them.",
        ),
    ]


def _has_increased(selector: str, window: str, by: str) -> str:
    """Return whether a counter has counted. One that begins with its first event has no increase by that one."""
    increased = f"sum by ({by}) (increase({selector}[{window}])) > 0"
    began = f"sum by ({by}) ({selector} unless {selector} offset {window}) > 0"
    return f"{increased}\nor\n{began}"


def minutes(window: str) -> int:
    """Return the minutes of a window such as ``30m``, ``6h`` or ``3d``."""
    return int(window[:-1]) * {"m": 1, "h": 60, "d": 24 * 60}[window[-1]]
