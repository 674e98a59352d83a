"""PromQL about one application: its metrics' names, the matchers of its routes, and what is asked again and again."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from hr_prometheus.labels.resources import escaped
from hr_prometheus.metrics import BASIC_METRICS, FULL, FULL_METRICS, HOST, REQUEST_COUNT
from hr_prometheus.observability.yaml_text import quoted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hr_prometheus.metrics import Metric
    from hr_prometheus.observability.route_table import Row

#: The statuses that are the server's fault. 499, a client that left, is not: how long it has waited is in the latency.
SERVER_ERRORS = 'status=~"5.."'


@dataclass(frozen=True)
class Source:
    """The metrics of one application: the *prefix* of their names, *matchers* of their series, how much is measured."""

    prefix: str = ""
    matchers: tuple[str, ...] = ()
    detail: str = FULL

    def has(self, metric: Metric) -> bool:
        """Whether there is such a metric with this level of detail."""
        return self.detail == FULL or metric not in FULL_METRICS

    def where(self, *matchers: str) -> Source:
        """Return the part of the source that these matchers select as well."""
        return replace(self, matchers=self.matchers + matchers)

    def name(self, metric: Metric) -> str:
        """Return the name of a metric's family; the prefix is that of the request metrics alone."""
        return self.prefix + metric.name if metric in BASIC_METRICS + FULL_METRICS else metric.name

    def series(self, metric: Metric, suffix: str = "") -> str:
        """Return the selector of a metric's series; *suffix* is that of a histogram's."""
        name = self.name(metric) + ("_total" if metric.type == "counter" else suffix)
        return f"{name}{{{','.join(self.matchers)}}}"

    def rate(self, metric: Metric, window: str, by: Sequence[str] = (), suffix: str = "") -> str:
        """Return the rate of a counter, or of a part of a histogram, in one second."""
        return f"{summed(by)} (rate({self.series(metric, suffix)}[{window}]))"

    def quantile(self, share: float | str, metric: Metric, window: str, by: Sequence[str] = ()) -> str:
        """Return a quantile of a histogram."""
        return f"histogram_quantile({share}, {self.rate(metric, window, [*by, 'le'], '_bucket')})"

    def error_ratio(self, window: str, by: Sequence[str] = ()) -> str:
        """Return the share of the requests that were answered with a 5xx; 0 if there were requests and no 5xx."""
        every = self.rate(REQUEST_COUNT, window, by)
        return f"({self.where(SERVER_ERRORS).rate(REQUEST_COUNT, window, by)} or 0 * {every})\n/\n{every}"


def summed(by: Sequence[str]) -> str:
    """Return the beginning of a sum by labels."""
    return f"sum by ({', '.join(by)})" if by else "sum"


def equal(label: str, value: str) -> str:
    """Return the matcher of one value."""
    return f"{label}={quoted(value)}"


def of_route(row: Row, table: Sequence[Row]) -> tuple[str, ...]:
    """Return the matchers of the requests to one route of a table.

    Labels of a route with kept values are told from those of other routes as well as labels can: what another route
    takes before it is left out if its template says so.
    """
    is_constant = re.sub(r"\\(.)", r"\1", row.regex) == row.label
    matchers = [equal("path", row.label) if is_constant else f"path=~{quoted(row.regex)}"]
    others = [] if is_constant else [other.regex for other in table if _comes_before(other, row, table)]
    if others:
        matchers.append(f"path!~{quoted('|'.join(others))}")
    if any(other.host for other in table):
        matchers.append(equal(HOST, row.host))
    if "*" not in row.methods:
        matchers.append(f"method=~{quoted('|'.join(map(escaped, row.methods)))}")
    return tuple(matchers)


def example(row: Row) -> str:
    """Return a path label that a route can have: its template, as when all parameters are fixed or folded."""
    return re.sub(r"<(\w+)>", lambda match: f"{{{match[1]}}}" if match[1] in row.parameters else match[0], row.label)


def _comes_before(other: Row, row: Row, table: Sequence[Row]) -> bool:
    """Whether aiohttp asks *other* first, and its labels are among those of *row*."""
    if other.regex == row.regex or other.host != row.host:
        return False
    if not (set(other.methods) & set(row.methods) or "*" in other.methods + row.methods):
        return False
    if not re.fullmatch(row.regex, example(other)):
        return False
    own, its = len(row.pattern.partition("{")[0]), len(other.pattern.partition("{")[0])
    return its > own or (its == own and table.index(other) < table.index(row))
