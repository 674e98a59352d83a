"""PromQL about one application: selectors of its series, matchers of its routes, rates and quantiles."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from hr_prometheus.buckets import DEFAULT_BUCKETS
from hr_prometheus.labels.resources import escaped
from hr_prometheus.metric import LATENCY_BUCKETS
from hr_prometheus.metrics import (
    BASIC_METRICS,
    CANCELLED,
    CLIENT_METRICS,
    CLIENT_REQUEST_COUNT,
    CLIENT_REQUEST_ERRORS,
    ERROR,
    FULL,
    FULL_METRICS,
    HOST,
    LOOP_METRICS,
    OK,
    OUTCOME,
    REQUEST_COUNT,
    REQUEST_LATENCY,
    REQUEST_LOOP_TIME,
    STATUS,
)
from hr_prometheus.names import DEFAULT_NAMES, DEFAULT_NAMING, Naming, exports_of
from hr_prometheus.observability.yaml_text import quote
from hr_prometheus.store.families import go_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hr_prometheus.buckets import LatencyBuckets
    from hr_prometheus.metric import Metric
    from hr_prometheus.names import Export
    from hr_prometheus.observability.route_table import Row

#: The statuses that are the server's fault. 499 is not: the client has left, and how long it waited is in the latency.
SERVER_ERRORS = 'status=~"5.."'
NO_SERVER_ERRORS = 'status!~"5.."'


@dataclass(frozen=True)
class ApplicationMetrics:
    """The metrics of one application, as PromQL sees them.

    *prefix* goes before the names of the request metrics. They are those of the first of the name sets *names* that has one.
    Every selector has the *matchers*. *detail* is how much the application measures of its requests. *buckets* are those of its
    latencies, which all requests share if the matchers select *one_route*. *latency_by_status* splits latencies by outcome. With *native_histograms* those of requests are native ones, which need no
    buckets.

    Matchers and labels are given by the names that hr-prometheus has for them. Those of the name set appear in a query.
    """

    prefix: str = ""
    matchers: tuple[str, ...] = ()
    detail: str = FULL
    has_loop_metrics: bool = True
    has_client_metrics: bool = True
    has_calls_by_route: bool = False
    names: tuple[str, ...] = DEFAULT_NAMES
    buckets: LatencyBuckets = DEFAULT_BUCKETS
    latency_by_status: bool = False
    native_histograms: bool = False
    one_route: bool = False

    def has(self, metric: Metric) -> bool:
        """Whether the application has a metric."""
        if not self.has_loop_metrics and metric in (*LOOP_METRICS, REQUEST_LOOP_TIME):
            return False
        if metric in CLIENT_METRICS:
            return self.has_client_metrics
        return self.detail == FULL or metric not in FULL_METRICS

    def is_native(self, metric: Metric) -> bool:
        """Whether a metric is a native histogram."""
        return self.native_histograms and metric.native is not None

    def where(self, *matchers: str) -> ApplicationMetrics:
        """Return the same metrics with more matchers."""
        return replace(self, matchers=self.matchers + matchers)

    def of_route(self, *matchers: str) -> ApplicationMetrics:
        """Return the same metrics of one route, which the *matchers* select."""
        return replace(self.where(*matchers), one_route=True)

    @property
    def route_labels(self) -> tuple[str, ...]:
        """The labels by which latencies are summed for each route: those that all requests with the same bounds share."""
        return (HOST, "method", "path") if self.buckets.by_route and not self.native_histograms else ("path",)

    @property
    def has_statuses(self) -> bool:
        """Whether latencies have the label ``status``, and so no ``outcome``."""
        return STATUS in self._export(REQUEST_LATENCY)[0].names.latency_labels

    def outcome(self, outcome: str) -> ApplicationMetrics:
        """Return the same metrics with only the latencies of this outcome, if latencies are split by it."""
        if not self.latency_by_status:
            return self
        statuses = {OK: NO_SERVER_ERRORS, ERROR: SERVER_ERRORS}
        return self.where(statuses[outcome] if self.has_statuses else equal(OUTCOME, outcome))

    def _export(self, metric: Metric) -> tuple[Export, str]:
        """Return what a metric is exported as, and the suffix of a counter's samples."""
        has_prefix = metric in BASIC_METRICS + FULL_METRICS
        naming = Naming(self.prefix, self.names) if has_prefix else DEFAULT_NAMING
        if exports := exports_of(metric, naming):
            return exports[0], "_total" * (metric.type == "counter")
        return exports_of(REQUEST_LATENCY, naming)[0], "_count"  # which counts the requests by their status, too

    def family(self, metric: Metric) -> str:
        """Return the name of the family that a metric is exported as."""
        return self._export(metric)[0].name

    def name(self, metric: Metric) -> str:
        """Return the name to use in a query (for a histogram, without ``_bucket``, ``_sum`` or ``_count``)."""
        export, suffix = self._export(metric)
        return export.name if self.is_native(export.metric) else export.name + suffix

    def label(self, metric: Metric, label: str) -> str:
        """Return the name that a label of a metric has."""
        export, _ = self._export(metric)
        return export.names.labels.get(label, label)

    def selector(self, metric: Metric, suffix: str = "") -> str:
        """Return the selector of a metric's series, for a classic histogram of those with this *suffix*."""
        export, _ = self._export(metric)
        name = self.name(metric) if self.is_native(export.metric) else self.name(metric) + suffix
        matchers = (
            re.sub(r"^\w+", lambda match: self.label(metric, match[0]), matcher, count=1) for matcher in self.matchers
        )
        return f"{name}{{{','.join(matchers)}}}"

    def rate(self, metric: Metric, window: str, by: Sequence[str] = (), suffix: str = "") -> str:
        """Return how fast a counter grows in a second, or the series of a histogram with this *suffix*."""
        labels = [self.label(metric, label) for label in by]
        return f"{sum_by(labels)} ({self.series_rate(metric, window, suffix)})"

    def series_rate(self, metric: Metric, window: str, suffix: str = "") -> str:
        """Return the same of each series. The count and the sum of a native histogram are parts of it."""
        export, own_suffix = self._export(metric)
        rate = f"rate({self.selector(metric, suffix)}[{window}])"
        part = {"_count": "histogram_count", "_sum": "histogram_sum"}.get(suffix or own_suffix)
        return f"{part}({rate})" if part and self.is_native(export.metric) else rate

    def bucket_rate(self, metric: Metric, window: str, by: Sequence[str] = ()) -> str:
        """Return how fast the buckets of a histogram grow. What several routes have together are the bounds of all.

        A native histogram has its buckets in itself, and all have the same.
        """
        if self.is_native(metric):
            return self.rate(metric, window, by)
        together, is_by_route = self, set(self.route_labels) <= set(by)
        has_route_buckets = metric.buckets is LATENCY_BUCKETS and metric not in CLIENT_METRICS and self.buckets.by_route
        if has_route_buckets and not (self.one_route or is_by_route):
            bounds = map(go_text, (*self.buckets.common, float("inf")))
            together = self.where(f"le=~{quote('|'.join(map(escaped, bounds)))}")
        return together.rate(metric, window, [*by, "le"], "_bucket")

    def quantile(self, share: float | str, metric: Metric, window: str, by: Sequence[str] = ()) -> str:
        """Return a quantile of a histogram."""
        return f"histogram_quantile({share}, {self.bucket_rate(metric, window, by)})"

    def error_ratio(self, window: str, by: Sequence[str] = ()) -> str:
        """Return the share of the requests that were answered with a 5xx, 0 if none was."""
        all_requests = self.rate(REQUEST_COUNT, window, by)
        errors = self.where(SERVER_ERRORS).rate(REQUEST_COUNT, window, by)
        return f"({errors} or 0 * {all_requests})\n/\n{all_requests}"

    def call_error_ratio(self, window: str, by: Sequence[str]) -> str:
        """Return the share of the client's requests that failed or were answered with a 5xx, 0 if none was.

        Those that the application cancelled are no failures of the host.
        """
        calls = self.rate(CLIENT_REQUEST_COUNT, window, by)
        errors = self.where(SERVER_ERRORS).rate(CLIENT_REQUEST_COUNT, window, by)
        failures = self.where(f"reason!={quote(CANCELLED)}").rate(CLIENT_REQUEST_ERRORS, window, by)
        return f"(({errors} or 0 * {calls}) + ({failures} or 0 * {calls}))\n/\n{calls}"


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
