"""What describes a metric, and the bounds of buckets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

#: Upper bounds of the latency buckets, in seconds, as published by hr-prometheus 0.2.0
#: (they are prometheus_client's defaults). The bucket ``+Inf`` is implied.
LATENCY_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
#: Upper bounds of the size buckets, in bytes: powers of four from 64 bytes to 64 MiB.
SIZE_BUCKETS = tuple(float(64 * 4**power) for power in range(11))
#: Upper bounds of the buckets for connections that stay open, in seconds: from one second to a day.
CONNECTION_BUCKETS = (1.0, 10.0, 60.0, 300.0, 900.0, 3600.0, 10800.0, 21600.0, 43200.0, 86400.0)
#: Upper bounds of the buckets for scrapes, in seconds; Prometheus gives one up after 10 by default.
SCRAPE_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
#: Upper bounds of the buckets for the lag of an event loop, in seconds.
LAG_BUCKETS = (*SCRAPE_BUCKETS, 30.0)


class NativeBuckets(NamedTuple):
    """The buckets of a native histogram: from ``2**low`` to ``2**high``, ``2**schema`` of them for each doubling.

    The bucket of zero has all below, and there is one more for all above.
    """

    schema: int
    low: int
    high: int


#: From 0.49 milliseconds to 64 seconds, each bucket 9 % wider than the one before it.
NATIVE_LATENCY_BUCKETS = NativeBuckets(3, -11, 6)
#: From one byte to 4 GiB, each bucket 41 % wider than the one before it.
NATIVE_SIZE_BUCKETS = NativeBuckets(1, -1, 32)
#: For connections that stay open: from half a second to 36 hours, as finely as latencies.
NATIVE_CONNECTION_BUCKETS = NativeBuckets(3, -1, 17)


@dataclass(frozen=True, eq=False)  # compared by identity, which is fast: each exists once and is a key of dictionaries
class Metric:
    """One metric family.

    *name* is the family's name: a counter's samples carry ``_total`` behind it. *unit* is for people;
    it is not part of the published names and so is not exported as OpenMetrics ``UNIT``. A histogram may have *native*
    buckets as well. A gauge of things in progress may
    have *ends_in*: the histogram with the same labels that observes each of them at its end.

    A series may have more labels than its metric. What identifies it is the values of the metric's *labels*, and then the
    name and the value of each extra label, in turn: ``("GET", "/cells", "host", "a.example")``.
    """

    name: str
    type: Literal["counter", "gauge", "histogram"]
    help: str
    unit: str
    labels: tuple[str, ...]
    buckets: tuple[float, ...] = ()
    ends_in: Metric | None = None
    native: NativeBuckets | None = None

    @property
    def exported_name(self) -> str:
        """The name to use in a query (for a histogram, without ``_bucket``, ``_sum`` or ``_count``)."""
        return f"{self.name}_total" if self.type == "counter" else self.name
