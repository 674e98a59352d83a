"""The numbers: every series' values in flat buffers of doubles, and the collector that reads them.

A :class:`Store` owns pages of doubles. A series is a run of cells on one page, found once by its labels
and then written to by index (``page[index] += 1.0``): no lock, no look-up by label and no formatting while
a request is served. A store is a prometheus_client collector, so whatever reads the registry it is
registered with (``generate_latest``, ``start_http_server``, a push gateway) sees the numbers.

Series are made under a lock and never removed. Adding to a cell is not synchronised: in CPython with the
GIL no other thread can run between the read and the write of ``page[index] += x``, because the interpreter
switches threads only at calls and backward jumps.
"""

from __future__ import annotations

import re
import time
from array import array
from bisect import bisect_left
from contextvars import ContextVar
from itertools import pairwise
from threading import Lock
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from prometheus_client.core import Metric as Family
from prometheus_client.utils import floatToGoString

from hr_prometheus.catalog import (
    LATENCY_BUCKETS,
    REQUEST_COUNT,
    REQUEST_LATENCY,
    REQUEST_METRICS,
    REQUESTS_IN_PROGRESS,
    SELF_METRICS,
)
from hr_prometheus.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import TypeAlias

    from prometheus_client import CollectorRegistry

    from hr_prometheus.catalog import Metric

    Page: TypeAlias = array[float]

#: Cells on one page; 8 bytes each.
PAGE_CELLS = 1024

_NAME = re.compile("[a-zA-Z_:][a-zA-Z0-9_:]*")

#: Whether :meth:`Store.collect` adds the ``_created`` samples, which only OpenMetrics has a use for: in the
#: text format each would be a series of its own.
with_created: ContextVar[bool] = ContextVar("with_created", default=False)


class Store:
    """The numbers of some metrics, as a collector for a prometheus_client registry.

    *prefix* goes before every metric's name. *buckets* are the upper bounds of the histograms, ascending,
    in the metric's unit, without the implied ``+Inf``.
    """

    def __init__(
        self,
        metrics: Sequence[Metric],
        *,
        prefix: str = "",
        buckets: Sequence[float] = LATENCY_BUCKETS,
    ) -> None:
        self.metrics = tuple(metrics)
        self.prefix = _checked_prefix(prefix)
        self.buckets = _checked(buckets)
        self._lock = Lock()
        self._page = array("d")
        self._next = 0
        self._series: dict[Metric, dict[tuple[str, ...], tuple[Page, int]]] = {metric: {} for metric in self.metrics}
        self._requests: dict[tuple[str, str], RequestSeries] = {}

    def cells(self, metric: Metric, labels: tuple[str, ...]) -> tuple[Page, int]:
        """Return the page and the first cell of one series, which is made if there is none.

        A counter and a gauge have their value in the first cell. A histogram has one cell a bucket (not
        cumulative, ``+Inf`` the last) and then the sum. The cell behind the values of a counter or a
        histogram holds the time of its creation, in seconds since the epoch.
        """
        try:
            return self._series[metric][labels]
        except KeyError:
            with self._lock:
                return self._series[metric].setdefault(labels, self._allocate(metric))

    def request(self, labels: tuple[str, str]) -> RequestSeries:
        """Return the numbers of all requests with these labels, ``(method, path)``."""
        try:
            return self._requests[labels]
        except KeyError:
            return self._requests.setdefault(labels, RequestSeries(self, labels))

    def describe(self) -> Iterator[Family]:
        """Yield the families without samples, by which a registry notices names that are taken."""
        for metric in self.metrics:
            yield self._family(metric)

    def collect(self) -> Iterator[Family]:
        """Yield the families that have at least one series."""
        for metric in self.metrics:
            series = list(self._series[metric].items())  # a copy: another thread may be adding
            if not series:
                continue
            family = self._family(metric)
            for values, (page, first) in series:
                _add_samples(family, dict(zip(metric.labels, values, strict=True)), page, first, self.buckets)
            yield family

    def _family(self, metric: Metric) -> Family:
        return Family(self.prefix + metric.name, metric.help, metric.type)

    def _allocate(self, metric: Metric) -> tuple[Page, int]:
        size = len(self.buckets) + 3 if metric.type == "histogram" else 2
        if self._next + size > len(self._page):
            self._page = array("d", bytes(8 * max(PAGE_CELLS, size)))
            self._next = 0
        first = self._next
        self._next += size
        self._page[first + size - 1] = time.time()
        return self._page, first


_go: Callable[[float], str] = floatToGoString


def _add_samples(family: Family, labels: dict[str, str], page: Page, first: int, buckets: Sequence[float]) -> None:
    """Add the samples of one series to its family, as prometheus_client names and orders them."""
    created = first + 1
    if family.type == "gauge":
        family.add_sample(family.name, labels, page[first])
        return
    if family.type == "counter":
        family.add_sample(f"{family.name}_total", labels, page[first])
    else:
        total = 0.0
        for offset, bound in enumerate((*buckets, float("inf"))):
            total += page[first + offset]
            family.add_sample(f"{family.name}_bucket", {**labels, "le": _go(bound)}, total)
        family.add_sample(f"{family.name}_count", labels, total)
        family.add_sample(f"{family.name}_sum", labels, page[first + len(buckets) + 1])
        created = first + len(buckets) + 2
    if with_created.get():
        family.add_sample(f"{family.name}_created", labels, page[created])


class RequestSeries:
    """The numbers of the requests with one method and path: what a monitor writes to."""

    __slots__ = ("_buckets", "_labels", "_latency", "_progress", "_statuses", "_store")

    def __init__(self, store: Store, labels: tuple[str, str]) -> None:
        self._store = store
        self._labels = labels
        self._buckets = store.buckets
        self._progress = store.cells(REQUESTS_IN_PROGRESS, labels)
        self._latency: tuple[Page, int] | None = None
        self._statuses: dict[int, tuple[Page, int]] = {}

    def begin(self) -> None:
        """Count one request more in progress."""
        page, index = self._progress
        page[index] += 1.0

    def leave(self) -> None:
        """Count one request less in progress."""
        page, index = self._progress
        page[index] -= 1.0

    def count(self, status: int, seconds: float) -> None:
        """Count one ended request with its final *status* and its duration in *seconds*."""
        try:
            page, index = self._statuses[status]
        except KeyError:
            cells = self._store.cells(REQUEST_COUNT, (*self._labels, str(status)))
            page, index = self._statuses[status] = cells
        page[index] += 1.0
        if self._latency is None:
            self._latency = self._store.cells(REQUEST_LATENCY, self._labels)
        page, index = self._latency
        page[index + bisect_left(self._buckets, seconds)] += 1.0
        page[index + len(self._buckets) + 1] += seconds


_lock = Lock()
_stores: WeakKeyDictionary[CollectorRegistry, dict[tuple[str, ...], Store]] = WeakKeyDictionary()


def request_store(
    registry: CollectorRegistry, *, prefix: str = "", buckets: Sequence[float] = LATENCY_BUCKETS
) -> Store:
    """Return the store of the request metrics in *registry*; the first call registers it.

    Raises :exc:`~hr_prometheus.errors.ConfigurationError` if another collector has taken one of the names,
    or if the store exists with other buckets.
    """
    candidate = Store(REQUEST_METRICS, prefix=prefix, buckets=buckets)
    store = _registered(registry, candidate)
    if store.buckets != candidate.buckets:
        raise ConfigurationError(
            f'the metric "{prefix}{REQUEST_LATENCY.name}" exists already with the buckets {_listed(store.buckets)}, '
            f"so it cannot have {_listed(buckets)}. Use the same buckets, another metric prefix or another registry."
        )
    return store


def self_store(registry: CollectorRegistry) -> Store:
    """Return the store of hr-prometheus's metrics about itself in *registry*; the first call registers it."""
    return _registered(registry, Store(SELF_METRICS))


def _registered(registry: CollectorRegistry, candidate: Store) -> Store:
    """Return the store that *registry* has under the candidate's names, or register the candidate."""
    names = tuple(candidate.prefix + metric.name for metric in candidate.metrics)
    with _lock:
        stores = _stores.setdefault(registry, {})
        store = stores.get(names)
        try:
            registry.register(store or candidate)  # again, too: tests like to empty the global registry
        except ValueError as error:
            if store is None:
                taken = sorted(getattr(error, "duplicates", names))
                raise ConfigurationError(
                    f'the application already has a metric named "{taken[0]}". Give the metrics of hr-prometheus '
                    'a prefix of their own: --metric-prefix myapp_ (as a library: metric_prefix="myapp_").'
                ) from error
        return stores.setdefault(names, candidate)


def _checked(buckets: Sequence[float]) -> tuple[float, ...]:
    """Return the bounds without a final ``+Inf``; they must be finite, positive and ascending."""
    bounds = tuple(float(bound) for bound in buckets)
    if bounds and bounds[-1] == float("inf"):
        bounds = bounds[:-1]
    ascending = all(low < high for low, high in pairwise((0.0, *bounds, float("inf"))))  # also false for NaN
    if not bounds or not ascending:
        raise ConfigurationError(
            f"the buckets {_listed(buckets)} are no histogram. Expected upper bounds in seconds, greater than 0 "
            "and ascending, for example 0.05,0.1,0.5,1,5."
        )
    return bounds


def _checked_prefix(prefix: str) -> str:
    if prefix and not _NAME.fullmatch(prefix):
        raise ConfigurationError(
            f'the metric prefix "{prefix}" cannot begin a metric\'s name. Expected letters, digits and underscores, '
            "with no digit first, for example myapp_."
        )
    return prefix


def _listed(buckets: Sequence[float]) -> str:
    return f'"{",".join(f"{bound:g}" for bound in buckets)}"'
