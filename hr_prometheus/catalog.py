"""Every metric that hr-prometheus can export, described once.

Monitors, the README's table and the tests read this module; nothing else names a metric.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

#: Upper bounds of the latency buckets, in seconds, as published by hr-prometheus 0.2.0
#: (they are prometheus_client's defaults). The bucket ``+Inf`` is implied.
LATENCY_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric family.

    *name* is the family's name: a counter's samples carry ``_total`` behind it. *unit* is for people;
    it is not part of the published names and so is not exported as OpenMetrics ``UNIT``.
    """

    name: str
    type: Literal["counter", "gauge", "histogram"]
    help: str
    unit: str
    labels: tuple[str, ...]

    @property
    def exported_name(self) -> str:
        """The name to use in a query (for a histogram, without ``_bucket``, ``_sum`` or ``_count``)."""
        return f"{self.name}_total" if self.type == "counter" else self.name


REQUEST_LATENCY = Metric(
    "request_latency",
    "histogram",
    "Seconds from the request's head being read until its response has left, or can no longer leave",
    "seconds",
    ("method", "path"),
)
REQUEST_COUNT = Metric(
    "request_count",
    "counter",
    "Requests ended, by the status that the client got; 499: the client left before the end of the response",
    "requests",
    ("method", "path", "status"),
)
REQUESTS_IN_PROGRESS = Metric(
    "requests_in_progress",
    "gauge",
    "Requests begun and not yet ended",
    "requests",
    ("method", "path"),
)
ERRORS = Metric(
    "hr_prometheus_errors",
    "counter",
    "Exceptions raised by a monitor or by hr-prometheus itself, which no client has seen",
    "errors",
    ("where",),
)
FOLDED_REQUESTS = Metric(
    "hr_prometheus_folded_requests",
    "counter",
    "Requests recorded under their route's template because the route's path budget was spent",
    "requests",
    ("route",),
)

#: What the default monitor exports for requests. A metric prefix applies to these.
REQUEST_METRICS = (REQUEST_LATENCY, REQUEST_COUNT, REQUESTS_IN_PROGRESS)
#: What hr-prometheus exports about itself. These appear when there is something to report.
SELF_METRICS = (ERRORS, FOLDED_REQUESTS)
METRICS = REQUEST_METRICS + SELF_METRICS
