"""Service-level objectives: which share of the requests must go well, of a whole application or of a route."""

from __future__ import annotations

from bisect import bisect
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING

from hr_prometheus.buckets import DEFAULT_BUCKETS, LatencyBuckets
from hr_prometheus.errors import SettingError, did_you_mean
from hr_prometheus.labels.policies import ALL
from hr_prometheus.labels.resources import MALFORMED, UNMATCHED, escaped
from hr_prometheus.metric import NATIVE_LATENCY_BUCKETS
from hr_prometheus.observability.promql import equal, example_label, route_matchers
from hr_prometheus.observability.yaml_text import quote
from hr_prometheus.settings import DEFAULT_LEAST_REQUESTS
from hr_prometheus.store.families import go_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from hr_prometheus.metric import Metric
    from hr_prometheus.observability.promql import ApplicationMetrics
    from hr_prometheus.observability.route_table import Row

#: Percent of the requests, for an application without another one.
DEFAULT_OBJECTIVE = "99.9"
# 0.999 is meant as 99.9: no service is meant to fail more often than not.
_LARGEST_BUDGET = Decimal("0.5")


@dataclass(frozen=True)
class Objective:
    """*budget* is the share of the requests of *route* that may go wrong; ``*`` is every route without an objective.

    As many may take longer than *latency*, in seconds; ``None`` is no objective for latencies.

    A request is one of them if all matchers of one of *selections* select it, and those of none of *exclusions*. *path*,
    *method* and *host* are labels that one of them can have.
    """

    route: str
    budget: Decimal
    selections: tuple[tuple[str, ...], ...]
    exclusions: tuple[tuple[str, ...], ...]
    path: str
    method: str
    host: str = ""
    latency: float | None = None

    @property
    def latency_bucket(self) -> str | None:
        """The label ``le`` of the classic bucket of the requests that are fast enough."""
        return None if self.latency is None else go_text(self.latency)

    def rate(
        self, application: ApplicationMetrics, metric: Metric, window: str, *matchers: str, suffix: str = ""
    ) -> str:
        """Return the rate of a metric of its requests, with more *matchers*, by job."""

        def rate(selection: tuple[str, ...]) -> str:
            return application.where(*selection, *matchers).series_rate(metric, window, suffix)

        selections = "\n  or ".join(map(rate, self.selections))
        exclusions = "".join(f"\n  unless {rate(each)}" for each in self.exclusions)
        return f"sum by (job) (\n  {selections}{exclusions}\n)"


@dataclass(frozen=True, kw_only=True)
class ServiceLevels:
    """The objectives of an application that Prometheus scrapes as *job*.

    The alert of an objective needs *least_requests* in its long window.
    """

    application: ApplicationMetrics
    job: str
    objectives: Sequence[Objective]
    least_requests: int = DEFAULT_LEAST_REQUESTS

    @property
    def metrics(self) -> ApplicationMetrics:
        """The application's metrics, of this job alone."""
        return self.application.where(equal("job", self.job))


def parse_objectives(texts: Iterable[str]) -> dict[str, Decimal]:
    """Read ``PERCENT`` and ``NAME=PERCENT``; return the budgets, as shares, by name, with ``*`` for all other routes."""
    budgets: dict[str, Decimal] = {}
    for text in texts:
        name, equals, number = text.rpartition("=")
        try:
            budget = 1 - Decimal(number) / 100
            is_share = 0 < budget < 1
        except InvalidOperation:
            is_share = False
        if not is_share or (equals and not name):
            raise SettingError(
                "objective",
                f'--objective "{text}"',
                " is not understood. Expected a percentage from 50 to below 100, without a sign, such as 99.9 for the "
                "application or get_cell=99.5 for its route.",
                (text,),
            )
        if budget > _LARGEST_BUDGET:
            problem = " is below 50. Expected percent of the requests that must go well, for example 99.9."
            raise SettingError("objective", f'--objective "{text}"', problem, (text,))
        if (name or ALL) in budgets:
            problem = ": there is another one for the same requests. Remove one."
            raise SettingError("objective", f'--objective "{text}"', problem, (text,))
        budgets[name or ALL] = budget
    return {ALL: 1 - Decimal(DEFAULT_OBJECTIVE) / 100} | budgets


def objectives_of(
    budgets: Mapping[str, Decimal],
    table: Sequence[Row],
    metrics_path: str,
    *,
    latencies: Mapping[str, float] | None = None,
    buckets: LatencyBuckets | None = DEFAULT_BUCKETS,
) -> list[Objective]:
    """Return the objective of the application and those of its routes.

    A route with an objective of its own is judged by that one alone; if each has one, the application has none. Scrapes,
    and requests that match no route, belong to none: neither Prometheus nor a scanner shall make an outage look small.

    Raises :exc:`~hr_prometheus.errors.ConfigurationError` for a route that is not in the table, and for a latency that is no
    bound of the *buckets* of its routes. ``None`` is native histograms, which any latency between their ends will do for.
    """
    latencies = latencies or {}
    if buckets is None:
        _check_native_latencies(latencies)
    names = (budgets.keys() | latencies.keys()) - {ALL}
    objectives = []
    for name in sorted(names):
        rows = [row for row in table if row.name == name]
        if not rows:
            raise _unknown_route(name, budgets, latencies, table)
        latency = latencies.get(name, latencies.get(ALL))
        if buckets is not None:
            _check_latency(latency, buckets.of(name), name, is_own=name in latencies)
        selections = tuple(route_matchers(row, table) for row in rows)
        budget = budgets.get(name, budgets[ALL])
        objectives.append(Objective(name, budget, selections, (), *_example(rows[0]), latency))
    not_judged = [UNMATCHED, MALFORMED, metrics_path]
    others = [row for row in table if row.name not in names and example_label(row) not in not_judged]
    if table and not others:
        return objectives
    if buckets is not None:
        for other in dict.fromkeys([None, *(row.name for row in others)]):
            _check_latency(latencies.get(ALL), buckets.of(other), other if other in buckets.by_route else None)
    labels = _example(others[0]) if others else ("/", "GET", "")
    selection = (f"path!~{quote('|'.join(map(escaped, not_judged)))}",)
    exclusions = tuple(selection for objective in objectives for selection in objective.selections)
    everything = Objective(ALL, budgets[ALL], (selection,), exclusions, *labels, latencies.get(ALL))
    return [everything, *objectives]


def _check_latency(latency: float | None, bounds: Sequence[float], route: str | None, *, is_own: bool = False) -> None:
    """Check that the latency of an objective is a bound of its requests; of a *route* if that has bounds of its own."""
    if latency is None or latency in bounds:
        return
    place = bisect(bounds, latency)
    nearest = " or ".join(f"{bound:g}" for bound in bounds[max(place - 1, 0) : place + 1])
    of_route = "" if route is None else f"{route}="
    raise SettingError(
        "latency",
        f'--latency "{of_route * is_own}{latency:g}"',
        f" is not a bound of the latency histogram{of_route and f' of the route {route}'}, which counts the requests up to each of "
        f"its bounds. Take {nearest}{of_route and f' with --latency {of_route}SECONDS'}, or add it to --buckets, here and where "
        "the application is run.",
    )


def _check_native_latencies(latencies: Mapping[str, float]) -> None:
    """Check that native histograms tell the requests that take longer than these latencies from others."""
    least, most = 2.0**NATIVE_LATENCY_BUCKETS.low, 2.0**NATIVE_LATENCY_BUCKETS.high
    for name, latency in latencies.items():
        if not least <= latency <= most:
            raise SettingError(
                "latency",
                f'--latency "{f"{name}=" * (name != ALL)}{latency:g}"',
                f" is beyond the native histograms. Choose one from {least:.2g} to {most:g} seconds.",
            )


def format_percent(share: Decimal) -> str:
    """Return a share as people write percentages."""
    return f"{(share * 100).normalize():f}"


def _unknown_route(
    name: str, budgets: Mapping[str, Decimal], latencies: Mapping[str, float], table: Sequence[Row]
) -> SettingError:
    named = sorted({row.name for row in table if row.name})
    is_latency = name not in budgets
    value = f"{latencies[name]:g}" if is_latency else format_percent(1 - budgets[name])
    return SettingError(
        "latency" if is_latency else "objective",
        f'--{"latency" if is_latency else "objective"} "{name}={value}"',
        f': the application has no route named "{name}".{did_you_mean(name, named)} '
        f"Named routes: {', '.join(named) or 'none'}."
        if table
        else " names a route, whose labels only the application tells. Give its TARGET as well.",
        (name,),
    )


def _example(row: Row) -> tuple[str, str, str]:
    """Return path, method and host of a request to a route."""
    return example_label(row), "GET" if "*" in row.methods else row.methods[0], row.host
