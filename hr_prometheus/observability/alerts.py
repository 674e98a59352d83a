"""When to call somebody: the alerts of an application's objectives, and those of the instrument itself.

The alerts of the objectives are those of Google's SRE workbook, "Alerting on SLOs": how many times faster than allowed the
budget of errors is being spent, over a long window, so that it matters, and over a short one, so that it still goes on.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING

from hr_prometheus import metrics
from hr_prometheus.observability.objectives import percent
from hr_prometheus.observability.promql import Source, equal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hr_prometheus.observability.objectives import Objective

#: What is recorded of an objective, with the labels ``objective`` (``errors`` or ``latency``) and ``route``; the window
#: stands behind it.
BAD_RATIO = "hr_prometheus:bad_requests:ratio_rate"
#: The rate of all its requests; the window stands behind it.
REQUESTS = "hr_prometheus:requests:rate"
PAGE, TICKET = "page", "ticket"
# Of the requests; an alert that needed more of them to fail could not be told from an outage.
_MOST = Decimal("0.9")
# In an annotation, where Prometheus fills it in.
_JOB, _INSTANCE = "{{ $labels.job }}", "{{ $labels.instance }} of {{ $labels.job }}"


@dataclass(frozen=True)
class Burn:
    """An alert for a budget that is spent *factor* times too fast, in the window *long* and still in *short*."""

    severity: str
    factor: Decimal
    long: str
    short: str


BURNS = (
    Burn(PAGE, Decimal("14.4"), "1h", "5m"),
    Burn(PAGE, Decimal(6), "6h", "30m"),
    Burn(TICKET, Decimal(1), "3d", "6h"),
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


def alerts(
    source: Source, job: str, found: Sequence[Objective], latency: float | None, least_requests: int
) -> list[Alert]:
    """Return the alerts: those of the objectives, which need *least_requests*, and those of the instrument itself."""
    kinds = {"errors": ("RequestErrorsBurnBudget", "are answered with a 5xx")}
    if latency is not None:
        kinds["latency"] = ("RequestLatencyBurnsBudget", f"take more than {latency:g} s")
    burning = [
        Alert(
            name,
            burn.severity,
            _burning(job, kind, objective, burn, least_requests),
            f"Too many requests to {_JOB} (route {{{{ $labels.route }}}}) {verb}.",
            f"The budget of {percent(objective.budget)} % is being spent more than {burn.factor} times too fast, over "
            f"{burn.long} and still over {burn.short}. * stands for all routes that have no objective of their own.",
            labels={"objective": kind, "route": objective.route, "window": burn.long},
        )
        for objective in found
        for kind, (name, verb) in kinds.items()
        for burn in burns(objective)
    ]
    return burning + _of_scrapes(job) + _of_workers(source) + _of_labels_and_errors(source)


def burns(objective: Objective) -> list[Burn]:
    """Return the alerts that an objective can fire: with a low one, some would need more requests than there are."""
    return [burn for burn in BURNS if burn.factor * objective.budget <= _MOST]


def _burning(job: str, kind: str, objective: Objective, burn: Burn, least_requests: int) -> str:
    matchers = ",".join([equal("job", job), equal("objective", kind), equal("route", objective.route)])
    limit = f"{(burn.factor * objective.budget).normalize():f}"
    conditions = [f"{BAD_RATIO}{window}{{{matchers}}} > {limit}" for window in (burn.long, burn.short)]
    if least_requests:
        # Five minutes side by side, so that the time before the first request, or the first record, counts for nothing.
        conditions.append(f"300 * sum_over_time({REQUESTS}5m{{{matchers}}}[{burn.long}:5m]) >= {least_requests}")
    return "\nand\n".join(conditions)


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


def _of_workers(source: Source) -> list[Alert]:
    # A worker that is replaced on purpose is no trouble.
    restarts = source.where('reason!~"max-requests|reload"').series(metrics.WORKER_RESTARTS)
    return [
        Alert(
            "HrPrometheusNoWorker",
            PAGE,
            f"max by (job, instance) ({source.series(metrics.WORKER_UP)}) == 0",
            f"No worker of {_INSTANCE} serves.",
            "The log has the reason for which they ended.",
            "1m",
        ),
        Alert(
            "HrPrometheusWorkersRestart",
            TICKET,
            # The counter of a reason begins with the first restart for it, of which there is no increase.
            f"sum by (job, instance) ({restarts} - ({restarts} offset 15m or 0 * {restarts})) > 2",
            f"Workers of {_INSTANCE} are started again and again.",
            "The label reason of the counter, and the log, say why they ended.",
        ),
    ]


def _of_labels_and_errors(source: Source) -> list[Alert]:
    return [
        Alert(
            "HrPrometheusLabelsFolded",
            TICKET,
            _counted(source.series(metrics.FOLDED_REQUESTS), "1h", "job, route"),
            f"The route {{{{ $labels.route }}}} of {_JOB} has more path labels than its budget.",
            "Fix the parameter that is behind it with --fixed-route, list its values with --allow-values, or raise "
            "--path-budget.",
        ),
        Alert(
            "HrPrometheusErrors",
            TICKET,
            _counted(source.series(metrics.ERRORS), "15m", "job, where"),
            f"The metrics of {_JOB} miss something: {{{{ $labels.where }}}} raises exceptions.",
            "The log has one traceback of each kind. No client has seen them.",
        ),
    ]


def _counted(series: str, window: str, by: str) -> str:
    """Return whether a counter has counted. One that begins with its first event has no increase by that one."""
    return f"sum by ({by}) (increase({series}[{window}])) > 0\nor\nsum by ({by}) ({series} unless {series} offset {window}) > 0"


def minutes(window: str) -> int:
    """Return the minutes of a window such as ``30m``, ``6h`` or ``3d``."""
    return int(window[:-1]) * {"m": 1, "h": 60, "d": 24 * 60}[window[-1]]
