"""PromQL about one application: selectors of its series, matchers of its routes, rates and quantiles."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from hr_prometheus.labels.resources import escaped
from hr_prometheus.metrics import BASIC_METRICS, FULL, FULL_METRICS, HOST, LOOP_METRICS, REQUEST_COUNT
from hr_prometheus.observability.yaml_text import quote

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hr_prometheus.metrics import Metric
    from hr_prometheus.observability.route_table import Row

#: The statuses that are the server's fault. 499 is not: the client has left, and how long it waited is in the latency.
SERVER_ERRORS = 'status=~"5.."'


@dataclass(frozen=True)
class ApplicationMetrics:
    """The metrics of one application, as PromQL sees them.

    *prefix* goes before the names of the request metrics, every selector has the *matchers*, and *detail* is how much the
    application measures of its requests.
    """

    prefix: str = ""
    matchers: tuple[str, ...] = ()
    detail: str = FULL
    has_loop_metrics: bool = True

    def has(self, metric: Metric) -> bool:
        """Whether the application has a metric."""
        if metric in LOOP_METRICS:
            return self.has_loop_metrics
        return self.detail == FULL or metric not in FULL_METRICS

    def where(self, *matchers: str) -> ApplicationMetrics:
        """Return the same metrics with more matchers."""
        return replace(self, matchers=self.matchers + matchers)

    def name(self, metric: Metric) -> str:
        """Return the name of a metric's family. Only the request metrics have the prefix."""
        return self.prefix + metric.name if metric in BASIC_METRICS + FULL_METRICS else metric.name

    def selector(self, metric: Metric, suffix: str = "") -> str:
        """Return the selector of a metric's series, for a histogram of those with this *suffix*."""
        name = self.name(metric) + ("_total" if metric.type == "counter" else suffix)
        return f"{name}{{{','.join(self.matchers)}}}"

    def rate(self, metric: Metric, window: str, by: Sequence[str] = (), suffix: str = "") -> str:
        """Return how fast a counter grows in a second, or the series of a histogram with this *suffix*."""
        return f"{sum_by(by)} (rate({self.selector(metric, suffix)}[{window}]))"

    def quantile(self, share: float | str, metric: Metric, window: str, by: Sequence[str] = ()) -> str:
        """Return a quantile of a histogram."""
        return f"histogram_quantile({share}, {self.rate(metric, window, [*by, 'le'], '_bucket')})"

    def error_ratio(self, window: str, by: Sequence[str] = ()) -> str:
        """Return the share of the requests that were answered with a 5xx, 0 if none was."""
        all_requests = self.rate(REQUEST_COUNT, window, by)
        errors = self.where(SERVER_ERRORS).rate(REQUEST_COUNT, window, by)
        return f"({errors} or 0 * {all_requests})\n/\n{all_requests}"


def sum_by(labels: Sequence[str]) -> str:
    """Return the beginning of a sum, by labels if there are any."""
    return f"sum by ({', '.join(labels)})" if labels else "sum"


def equal(label: str, value: str) -> str:
    """Return the matcher of one value."""
    return f"{label}={quote(value)}"


def route_matchers(row: Row, table: Sequence[Row]) -> tuple[str, ...]:
    """Return the matchers of the requests to one route of a table.

    A route that keeps values may share labels with another one. Those of a route that aiohttp asks first are left out.
    """
    is_constant = re.sub(r"\\(.)", r"\1", row.regex) == row.label
    matchers = [equal("path", row.label) if is_constant else f"path=~{quote(row.regex)}"]
    others = [] if is_constant else [other.regex for other in table if _comes_before(other, row, table)]
    if others:
        matchers.append(f"path!~{quote('|'.join(others))}")
    if any(other.host for other in table):
        matchers.append(equal(HOST, row.host))
    if "*" not in row.methods:
        matchers.append(f"method=~{quote('|'.join(map(escaped, row.methods)))}")
    return tuple(matchers)


def example_label(row: Row) -> str:
    """Return a path label that a route can have: its template, as when all parameters are fixed or folded."""
    return re.sub(r"<(\w+)>", lambda match: f"{{{match[1]}}}" if match[1] in row.parameters else match[0], row.label)


def _comes_before(other: Row, row: Row, table: Sequence[Row]) -> bool:
    """Whether aiohttp asks *other* first, and its labels are among those of *row*."""
    if other.regex == row.regex or other.host != row.host:
        return False
    if not (set(other.methods) & set(row.methods) or "*" in other.methods + row.methods):
        return False
    if not re.fullmatch(row.regex, example_label(other)):
        return False
    own, its = len(row.pattern.partition("{")[0]), len(other.pattern.partition("{")[0])
    return its > own or (its == own and table.index(other) < table.index(row))
