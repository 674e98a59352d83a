"""The store of the metrics in a registry, and the collector that reads it.

A :class:`Store` looks the cells of a series up by its labels once. While requests are served they are written to by
index, ``page[index] += 1.0``: no look-up by label, no lock and no formatting. Series are made under a lock and never
removed.

A store is a prometheus_client collector, so whatever reads its registry (``generate_latest``, ``start_http_server``, a
push gateway) sees the numbers. They are in memory, unless :data:`allocators` has another place for the registry, or
prometheus_client is in its own multi-process mode.
"""

from __future__ import annotations

from bisect import bisect_left
from threading import Lock
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from prometheus_client import REGISTRY

from hr_prometheus.errors import ConfigurationError, SettingError
from hr_prometheus.metric import LATENCY_BUCKETS
from hr_prometheus.metrics import (
    BASIC_METRICS,
    CLIENT_METRICS,
    COUNTED_LOOP_METRICS,
    FULL_METRICS,
    SCRAPE_METRICS,
    SELF_METRICS,
)
from hr_prometheus.names import DEFAULT_NAMING, exports_of
from hr_prometheus.store.bounds import OFF, cell_bounds, classic_bounds, native_bounds
from hr_prometheus.store.cells import MemoryAllocator, SeriesId
from hr_prometheus.store.exemplars import Exemplars
from hr_prometheus.store.exported import ExportedFamilies
from hr_prometheus.store.families import StoredFamily
from hr_prometheus.store.values import ValueAllocator, is_multiprocess_mode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from prometheus_client import CollectorRegistry

    from hr_prometheus.metric import Metric
    from hr_prometheus.names import Naming
    from hr_prometheus.store.cells import Allocator, Cells

#: Where the stores of a registry have their cells, if not in memory. An entry counts for stores that are made after it.
allocators: WeakKeyDictionary[CollectorRegistry, Allocator] = WeakKeyDictionary()

#: Called at each collection of a store. A worker warns here that its numbers are not those of all workers.
collect_hooks: list[Callable[[], None]] = []


class Store:
    """The numbers of some metrics, as a collector for a prometheus_client registry.

    *naming* is how the metrics are named, and *buckets* are the upper bounds, in seconds, of the histograms that have the
    catalogue's latency buckets. *native* is the mode of native histograms, if there are any; ``None`` is that of others in the
    registry (:func:`make_native`).
    """

    def __init__(
        self,
        metrics: Sequence[Metric],
        *,
        naming: Naming = DEFAULT_NAMING,
        buckets: Sequence[float] = LATENCY_BUCKETS,
        native: str | None = OFF,
    ) -> None:
        self.metrics = tuple(metrics)
        self.naming = naming
        self.latency_buckets = tuple(buckets)
        self.native = native
        self._native = native or OFF
        self._lock = Lock()
        self._allocator: Allocator = MemoryAllocator()
        self._series: dict[tuple[Metric, tuple[str, ...]], tuple[Cells, tuple[float, ...]]] = {}
        self._exported = ExportedFamilies()
        self.exemplars = Exemplars()

    def make_native(self, mode: str) -> None:
        """Have the histograms of new series native in a *mode*, unless the store has a mode of its own."""
        if self.native is None and not isinstance(self._allocator, ValueAllocator):
            self._native = mode

    def use(self, allocator: Allocator) -> None:
        """Have cells from *allocator*, and the series that it has already. To be called before the first series is made."""
        self._allocator = allocator
        if isinstance(allocator, ValueAllocator):  # whose cells others read
            self._native = OFF
        for metric in self.metrics:
            for series in allocator.existing(metric, self.naming):
                classic = classic_bounds(series.bounds)
                if series.bounds == self.bounds(metric, classic):  # else its process had another mode
                    self.allocate(metric, series.labels, classic)

    def is_in(self, allocator: Allocator | None) -> bool:
        """Whether its cells are those of *allocator*."""
        return self._allocator is allocator

    def has_series_of(self, other: Store) -> bool:
        """Whether a series may be of both stores."""
        return self.naming == other.naming and not set(self.metrics).isdisjoint(other.metrics)

    def buckets(self, metric: Metric) -> tuple[float, ...]:
        """Return the upper bounds of a histogram's buckets, without ``+Inf``, where a series has none of its own."""
        return self.latency_buckets if metric.buckets is LATENCY_BUCKETS else metric.buckets

    def bounds(self, metric: Metric, classic: tuple[float, ...] | None = None) -> tuple[float, ...]:
        """Return the bounds of the cells of a histogram whose buckets have the *classic* ones, or those of the metric."""
        if classic is None:
            classic = self.buckets(metric)
        return native_bounds(classic, metric.native, self._native) if self._native and metric.native else classic

    def allocate(self, metric: Metric, labels: tuple[str, ...], bounds: tuple[float, ...] | None = None) -> Cells:
        """Return the page and the first cell of one series, which the first call makes.

        :mod:`hr_prometheus.store.cells` says what each cell is for. A gauge that ends in a histogram has no series of its
        own: the cell before the histogram's first counts what has begun. Observing the end is enough; what ends otherwise
        is subtracted from that cell.
        """
        return self.allocate_histogram(metric, labels, bounds)[0]

    def allocate_histogram(
        self, metric: Metric, labels: tuple[str, ...], bounds: tuple[float, ...] | None = None
    ) -> tuple[Cells, tuple[float, ...]]:
        """Do the same, and return the bounds of the cells as well: those for *bounds*, or those with which it was made."""
        key = metric, labels
        try:
            return self._series[key]
        except KeyError:
            with self._lock:
                if key not in self._series:
                    series = SeriesId(metric, self.naming, self.bounds(metric, bounds), labels)
                    cells = self._allocator.allocate(series)
                    self._exported.add(series, cells)
                    self._series[key] = cells, series.bounds
                return self._series[key]

    def observe(self, metric: Metric, labels: tuple[str, ...], value: float) -> None:
        """Observe a *value*, in the metric's unit, for one series of a histogram."""
        (page, first), bounds = self.allocate_histogram(metric, labels)
        bucket = first + 1 + bisect_left(cell_bounds(bounds), value)
        page[first] += value  # no call between the two, so that other threads see both or neither
        page[bucket] += 1.0

    def describe(self) -> Iterator[StoredFamily]:
        """Yield the families without samples, by which a registry notices names that are taken."""
        for metric in self.metrics:
            for export in exports_of(metric, self.naming):
                yield StoredFamily(export)

    def collect(self) -> Iterator[StoredFamily]:
        """Yield the families that have at least one series."""
        for hook in collect_hooks:
            hook()
        for family in self._exported.families():
            family.exemplars = self.exemplars.of_export(family.export)
            yield family


_lock = Lock()
_stores: WeakKeyDictionary[CollectorRegistry, dict[tuple[str, ...], Store]] = WeakKeyDictionary()
#: The modes of native histograms that are not those of requests.
_modes: WeakKeyDictionary[CollectorRegistry, str] = WeakKeyDictionary()


def basic_store(
    registry: CollectorRegistry,
    *,
    naming: Naming = DEFAULT_NAMING,
    buckets: Sequence[float] = LATENCY_BUCKETS,
    native: str = OFF,
) -> Store:
    """Return the store of the basic request metrics in *registry*; the first call registers it.

    Raises :exc:`~hr_prometheus.errors.ConfigurationError` if another collector has taken one of the names,
    or if the store exists with other buckets, or with another mode of native histograms.
    """
    return _registered(registry, Store(BASIC_METRICS, naming=naming, buckets=buckets, native=native))


def full_store(
    registry: CollectorRegistry,
    *,
    naming: Naming = DEFAULT_NAMING,
    buckets: Sequence[float] = LATENCY_BUCKETS,
    native: str = OFF,
) -> Store:
    """Return the store of what ``detail="full"`` adds, as :func:`basic_store` does for the basic metrics."""
    return _registered(registry, Store(FULL_METRICS, naming=naming, buckets=buckets, native=native))


def self_store(registry: CollectorRegistry) -> Store:
    """Return the store of hr-prometheus's metrics about itself in *registry*; the first call registers it."""
    return _registered(registry, Store(SELF_METRICS + SCRAPE_METRICS, native=None))


def loop_store(registry: CollectorRegistry) -> Store:
    """Return the store of the event loop's metrics in *registry*, as :func:`self_store` does."""
    return _registered(registry, Store(COUNTED_LOOP_METRICS, native=None))


def client_store(registry: CollectorRegistry) -> Store:
    """Return the store of the client's metrics in *registry*, as :func:`self_store` does."""
    return _registered(registry, Store(CLIENT_METRICS, native=None))


def make_native(registry: CollectorRegistry, mode: str) -> None:
    """Have the histograms of scrapes, of the event loop and of the client in *registry* native, as those of requests are.

    The first *mode* stays, and series that are there already stay as they are. ``OFF`` changes nothing.
    """
    with _lock:
        if mode and registry not in _modes:
            _modes[registry] = mode
            for store in _stores.get(registry, {}).values():
                store.make_native(mode)


def native_mode(registry: CollectorRegistry) -> str:
    """Return the mode that :func:`make_native` has given these histograms in *registry*."""
    return _modes.get(registry, OFF)


def dump_exemplars(registry: CollectorRegistry, since: int = 0) -> list[list[object]]:
    """Return the exemplars of all stores in *registry* that were kept after the number *since*.

    Each begins with its own number. In a worker, stores whose series are in the same files count as well.
    """
    allocator = allocators.get(registry)
    with _lock:
        every = [(each, store) for each, stores in _stores.items() for store in stores.values()]
    stores = [store for each, store in every if each is registry or store.is_in(allocator)]
    return [each for store in stores for each in store.exemplars.dump(since)]


def check_registry(registry: object) -> None:
    """Check that *registry* can register collectors and collect, as prometheus_client's does."""
    if not all(callable(getattr(registry, name, None)) for name in ("register", "collect")):
        raise ConfigurationError(
            f"registry is {registry!r}. Expected a prometheus_client.CollectorRegistry, such as prometheus_client.REGISTRY."
        )


def _registered(registry: CollectorRegistry, candidate: Store) -> Store:
    """Return the store that *registry* has under the candidate's names, or register the candidate."""
    check_registry(registry)
    names = tuple(family.name for family in candidate.describe())
    with _lock:
        stores = _stores.setdefault(registry, {})
        store = stores.get(names)
        try:
            registry.register(store or candidate)  # again, too: tests like to empty the global registry
        except ValueError as error:
            if store is None:
                raise _taken(candidate, getattr(error, "duplicates", names), stores.values()) from error
        if store is None:
            store = stores[names] = candidate
            store.make_native(native_mode(registry))
            if registry in allocators:
                _share_cells(store, allocators[registry])
            elif not allocators and is_multiprocess_mode():
                store.use(ValueAllocator())
    if store.latency_buckets != candidate.latency_buckets:
        raise SettingError(
            "buckets",
            "",
            f': the metric "{names[0]}" exists already with the buckets {_listed(store.latency_buckets)}, so it cannot '
            f"have {_listed(candidate.latency_buckets)}. Use the same buckets, another metric prefix or another registry.",
        )
    if store.native != candidate.native:
        own, others = (f"native histograms ({each.native})" if each.native else "none" for each in (store, candidate))
        raise SettingError(
            "native_histograms",
            "",
            f': the metric "{names[0]}" exists already with {own}, so it cannot have {others}. Use the same, another metric '
            "prefix or another registry.",
        )
    return store


def share_cells(registry: CollectorRegistry) -> None:
    """Keep the request metrics of *registry* where those of the global one are, as in the files of a worker.

    To be called before the first request.
    """
    with _lock:
        allocator = allocators.get(REGISTRY)
        if allocator is not None and registry is not REGISTRY:
            for store in _stores.get(registry, {}).values():
                if store.native is not None:
                    _share_cells(store, allocator)


def _share_cells(store: Store, allocator: Allocator) -> None:
    """Have a store use an *allocator*, whose series have no registry, unless another store has the same series there."""
    others = [each for stores in _stores.values() for each in stores.values()]
    if not any(each.is_in(allocator) and each.has_series_of(store) for each in others):
        store.use(allocator)


def _taken(candidate: Store, duplicates: Iterable[str], stores: Iterable[Store]) -> SettingError:
    """Return the error for names that another collector has: a store of ours with other names, or the application's."""
    name = min(duplicates)
    for store in stores:
        if taken := {family.name for family in store.describe()}.intersection(duplicates):
            name = min(taken)
            own, others = (",".join(each.naming.sets) for each in (store, candidate))
            problem = f': the metric "{name}" exists already under the names "{own}", so it cannot have "{others}". Use the same names, another metric prefix or another registry.'
            return SettingError("names", "", problem)
    if candidate.metrics == CLIENT_METRICS:  # which have no prefix
        return SettingError(
            "client_metrics",
            "",
            f': the application already has a metric named "{name}", which outgoing calls need. ',
            advice="Give these a registry of their own: client_trace_config(registry=CollectorRegistry()).",
            command_advice="Give yours another name, or measure no outgoing calls.",
        )
    return SettingError(
        "metric_prefix",
        "",
        f': the application already has a metric named "{name}". Give the metrics of hr-prometheus a prefix of their own: ',
        advice='metric_prefix="myapp_".',
        command_advice="--metric-prefix myapp_.",
    )


def _listed(buckets: Sequence[float]) -> str:
    return f'"{",".join(f"{bound:g}" for bound in buckets)}"'
