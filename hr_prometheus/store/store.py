"""The numbers: every series' values in flat buffers of doubles, and the collector that has them read.

A :class:`Store` owns pages of doubles. A series is a run of cells on one page, found once by its labels
and then written to by index (``page[index] += 1.0``): no lock, no look-up by label and no formatting while
a request is served. A store is a prometheus_client collector, so whatever reads the registry it is
registered with (``generate_latest``, ``start_http_server``, a push gateway) sees the numbers.

Series are made under a lock and never removed. Adding to a cell is not synchronised: in CPython with the
GIL no other thread can run between the read and the write of ``page[index] += x``, because the interpreter
switches threads only at calls and backward jumps. So several threads, applications and event loops can write
to one store.

The pages are in memory, or in a file that another process reads: see :data:`pages_of_process`, and
:mod:`hr_prometheus.store.values`.
"""

from __future__ import annotations

import logging
import re
import time
from bisect import bisect_left
from itertools import pairwise
from threading import Lock
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from prometheus_client import REGISTRY

from hr_prometheus.errors import SettingError
from hr_prometheus.metrics import (
    BASIC_METRICS,
    FULL_METRICS,
    IN_PROGRESS,
    LATENCY_BUCKETS,
    SCRAPE_METRICS,
    SELF_METRICS,
)
from hr_prometheus.store.families import StoredFamily
from hr_prometheus.store.values import is_multiprocess, value_page

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import Protocol

    from prometheus_client import CollectorRegistry

    from hr_prometheus.metrics import Metric
    from hr_prometheus.store.families import Page, SeriesList

    class Pages(Protocol):
        """Where the series of stores have their cells."""

        def cells(self, store: Store, metric: Metric, labels: tuple[str, ...], size: int) -> tuple[Page, int]:
            """Return *size* cells for a series, and its time of creation in the last of them."""

        def series(self, store: Store, metric: Metric) -> Iterable[tuple[str, ...]]:
            """Return the labels of the series that are there already."""


logger = logging.getLogger("hr_prometheus")

#: Cells on one page; 8 bytes each. Indexes up to 256 are integers that Python has already.
PAGE_CELLS = 256

_NAME = "[a-zA-Z_:][a-zA-Z0-9_:]*"


class MemoryPages:
    """Pages in the memory of the process."""

    def __init__(self) -> None:
        self._page: memoryview[Any] = memoryview(b"").cast("d")  # faster than an array
        self._next = 0

    def cells(self, _store: Store, _metric: Metric, _labels: tuple[str, ...], size: int) -> tuple[Page, int]:
        """Return *size* cells for a new series, with the time in the last of them."""
        if self._next + size > len(self._page):
            self._page = memoryview(bytearray(8 * max(PAGE_CELLS, size))).cast("d")
            self._next = 0
        first = self._next
        self._next += size
        self._page[first + size - 1] = time.time()
        return self._page, first

    def series(self, _store: Store, _metric: Metric) -> Iterable[tuple[str, ...]]:
        """Return nothing: memory begins empty."""
        return ()


class ValuePages(MemoryPages):
    """Pages of prometheus_client's values, where it is in its multi-process mode; in memory if there can be no file."""

    def cells(self, store: Store, metric: Metric, labels: tuple[str, ...], size: int) -> tuple[Page, int]:
        """Return the cells of a series."""
        try:
            return value_page(metric, store.prefix, store.buckets(metric), labels), 0
        except Exception as error:  # noqa: BLE001  # whatever is wrong with the directory, requests are answered
            if not self._is_refused:
                self._is_refused = True
                logger.warning("prometheus_client cannot keep numbers in PROMETHEUS_MULTIPROC_DIR: %r", error)
            return super().cells(store, metric, labels, size)

    _is_refused = False


#: Where the stores of the global registry have their cells, if not in memory. A worker sets it before it imports
#: anything that may make a store.
pages_of_process: list[Pages] = []


#: Called when somebody reads the numbers of this process by themselves, where there are those of others as well.
read_alone: list[Callable[[], None]] = []


class Store:
    """The numbers of some metrics, as a collector for a prometheus_client registry.

    *prefix* goes before every metric's name. *buckets* are the upper bounds, in seconds, of the histograms
    that have the catalogue's latency buckets; ascending, without the implied ``+Inf``.
    """

    def __init__(
        self, metrics: Sequence[Metric], *, prefix: str = "", buckets: Sequence[float] = LATENCY_BUCKETS
    ) -> None:
        self.metrics = tuple(metrics)
        self.prefix = _checked_prefix(prefix)
        self.latency_buckets = _checked(buckets)
        self._lock = Lock()
        self._pages: Pages = MemoryPages()
        self._series: dict[Metric, dict[tuple[str, ...], tuple[Page, int]]] = {
            metric: {} for metric in self.metrics if metric.ends_in is None
        }

    def move_to(self, pages: Pages) -> None:
        """Have the cells, of which there are none yet, on other pages, and take the series that are there."""
        self._pages = pages
        for metric in self.metrics:
            for labels in pages.series(self, metric):
                self.cells(metric, labels)

    def buckets(self, metric: Metric) -> tuple[float, ...]:
        """Return the upper bounds of a histogram's buckets, without ``+Inf``; of a gauge those of what it ends in."""
        metric = metric.ends_in or metric
        return self.latency_buckets if metric.buckets is LATENCY_BUCKETS else metric.buckets

    def cells(self, metric: Metric, labels: tuple[str, ...]) -> tuple[Page, int]:
        """Return the page and the first cell of one series, which is made if there is none.

        A counter and a gauge have their value in the first cell. A histogram has the sum there and then one cell a
        bucket (not cumulative, ``+Inf`` the last). The cell behind the values of a counter or a histogram holds the
        time of its creation, in seconds since the epoch.

        A gauge that ends in a histogram has no cells of its own: the histogram has one before its first, for what has begun.
        Whoever observes the end has nothing left to do; what ends otherwise is taken off that cell.
        """
        try:
            return self._series[metric][labels]
        except KeyError:
            with self._lock:
                if labels not in self._series[metric]:
                    size = cells_of(metric, self.buckets(metric))
                    page, first = self._pages.cells(self, metric, labels, size)
                    self._series[metric][labels] = page, first + cells_before(metric)
                return self._series[metric][labels]

    def observe(self, metric: Metric, labels: tuple[str, ...], value: float) -> None:
        """Observe a *value*, in the metric's unit, for one series of a histogram."""
        page, first = self.cells(metric, labels)
        observe(page, first, self.buckets(metric), value)

    def describe(self) -> Iterator[StoredFamily]:
        """Yield the families without samples, by which a registry notices names that are taken."""
        for metric in self.metrics:
            yield self._family(metric)

    def collect(self) -> Iterator[StoredFamily]:
        """Yield the families that have at least one series."""
        for notice in read_alone:
            notice()
        for metric in self.metrics:
            series = list(self._series[metric.ends_in or metric].items())  # a copy: another thread may be adding
            if series:
                yield self._family(metric, series)

    def _family(self, metric: Metric, series: SeriesList = ()) -> StoredFamily:
        return StoredFamily(metric, self.prefix + metric.name, self.buckets(metric), series)


def cells_before(metric: Metric) -> int:
    """Return how many cells a series has before the one that is its first."""
    return 1 if metric in IN_PROGRESS else 0


def cells_from(metric: Metric, bounds: Sequence[float]) -> int:
    """Return how many cells a series has from its first on: its values, and the time of its creation."""
    return len(bounds) + 3 if metric.type == "histogram" else 2


def cells_of(metric: Metric, bounds: Sequence[float]) -> int:
    """Return how many cells a series has altogether."""
    return cells_before(metric) + cells_from(metric, bounds)


def observe(page: Page, first: int, bounds: Sequence[float], value: float) -> None:
    """Observe a *value* for a series of a histogram with these *bounds*, the first cell of which is known."""
    page[first] += value
    page[first + bisect_left(bounds, value) + 1] += 1.0


_lock = Lock()
_stores: WeakKeyDictionary[CollectorRegistry, dict[tuple[str, ...], Store]] = WeakKeyDictionary()


def basic_store(registry: CollectorRegistry, *, prefix: str = "", buckets: Sequence[float] = LATENCY_BUCKETS) -> Store:
    """Return the store of the basic request metrics in *registry*; the first call registers it.

    Raises :exc:`~hr_prometheus.errors.ConfigurationError` if another collector has taken one of the names,
    or if the store exists with other buckets.
    """
    return _registered(registry, Store(BASIC_METRICS, prefix=prefix, buckets=buckets))


def full_store(registry: CollectorRegistry, *, prefix: str = "", buckets: Sequence[float] = LATENCY_BUCKETS) -> Store:
    """Return the store of what ``detail="full"`` adds, as :func:`basic_store` does for the basic metrics."""
    return _registered(registry, Store(FULL_METRICS, prefix=prefix, buckets=buckets))


def self_store(registry: CollectorRegistry) -> Store:
    """Return the store of hr-prometheus's metrics about itself in *registry*; the first call registers it."""
    return _registered(registry, Store(SELF_METRICS + SCRAPE_METRICS))


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
                raise SettingError(
                    "metric_prefix",
                    "",
                    f': the application already has a metric named "{taken[0]}". Give the metrics of hr-prometheus '
                    "a prefix of their own: ",
                    advice='metric_prefix="myapp_".',
                    command_advice="--metric-prefix myapp_.",
                ) from error
        if store is None and pages_of_process:
            if registry is REGISTRY:
                candidate.move_to(pages_of_process[0])
        elif store is None and is_multiprocess():
            candidate.move_to(ValuePages())
        store = stores.setdefault(names, candidate)
    if store.latency_buckets != candidate.latency_buckets:
        raise SettingError(
            "buckets",
            "",
            f': the metric "{names[0]}" exists already with the buckets {_listed(store.latency_buckets)}, so it cannot '
            f"have {_listed(candidate.latency_buckets)}. Use the same buckets, another metric prefix or another registry.",
        )
    return store


def _checked(buckets: Sequence[float]) -> tuple[float, ...]:
    """Return the bounds without a final ``+Inf``; they must be finite, positive and ascending."""
    try:
        bounds = tuple(float(bound) for bound in buckets)
    except (TypeError, ValueError):  # which are no numbers
        bounds = ()
    if bounds and bounds[-1] == float("inf"):
        bounds = bounds[:-1]
    ascending = all(low < high for low, high in pairwise((0.0, *bounds, float("inf"))))  # also false for NaN
    if not bounds or not ascending:
        raise SettingError(
            "buckets",
            f"buckets={buckets!r}",
            " makes no histogram. Expected upper bounds in seconds, greater than 0 and ascending, for example ",
            advice="[0.05, 0.1, 0.5, 1, 5].",
            command_advice="0.05,0.1,0.5,1,5.",
        )
    return bounds


def _checked_prefix(prefix: str) -> str:
    if not isinstance(prefix, str) or (prefix and not re.fullmatch(_NAME, prefix)):
        raise SettingError(
            "metric_prefix",
            f"metric_prefix={prefix!r}",
            " cannot begin a metric's name. Expected letters, digits and underscores, with no digit first, for example ",
            advice='"myapp_".',
            command_advice="myapp_.",
        )
    return prefix


def _listed(buckets: Sequence[float]) -> str:
    return f'"{",".join(f"{bound:g}" for bound in buckets)}"'
