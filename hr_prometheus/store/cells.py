"""Where a series keeps its numbers: a run of cells on a page.

A cell is one double, and a page is a sequence of cells: a list in memory, which Python reads and writes fastest, or a file
that is mapped into memory. The cells of a series are, in this order:

- of a counter or gauge: the value, and the time of its creation;
- of a histogram: the sum, a count for each bucket (not cumulative, ``+Inf`` last), and the time of its creation; where it is
  a native histogram as well, the buckets are finer than those that are exported (:mod:`hr_prometheus.store.bounds`);
- of a histogram that a gauge ends in, such as ``request_latency``: the count of what has begun, and then the same.

The *first* cell of a series is that of its value or sum. Times are in seconds since the epoch.

Adding to a cell takes no lock: in CPython with the GIL no other thread can run between the read and the write of
``page[index] += x``, because the interpreter switches threads only at calls and backward jumps. So several threads,
applications and event loops can write to one page.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

from hr_prometheus.metrics import IN_PROGRESS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Protocol, TypeAlias, overload

    from hr_prometheus.metric import Metric
    from hr_prometheus.names import Naming

    class Page(Protocol):
        """A sequence of cells: a list, a file that is mapped into memory, prometheus_client's values."""

        @overload
        def __getitem__(self, index: int, /) -> float: ...
        @overload
        def __getitem__(self, index: slice, /) -> Iterable[float]: ...
        def __setitem__(self, index: int, value: float, /) -> None: ...

    #: The page of a series, and the index of its first cell.
    Cells: TypeAlias = tuple[Page, int]

    class Allocator(Protocol):
        """Gives out the cells of the series of a store."""

        def allocate(self, series: SeriesId) -> Cells:
            """Return the cells of a series, its time of creation among them."""

        def existing(self, metric: Metric, naming: Naming) -> Iterable[SeriesId]:
            """Return the series of a metric that an earlier process has left."""


#: Cells on one page in memory; 8 bytes each. Python keeps the integers up to 256, so an index needs no new object.
PAGE_CELLS = 256
#: How often what is in progress is read again if requests begin meanwhile.
_TRIES = 10


class SeriesId(NamedTuple):
    """The identity of a series: its metric, how that is named, the bounds of a histogram's cells, the values of its labels."""

    metric: Metric
    naming: Naming
    bounds: tuple[float, ...]
    labels: tuple[str, ...]


class MemoryAllocator:
    """Gives out cells in the memory of the process."""

    def __init__(self) -> None:
        self._page: list[float] = []
        self._next = 0

    def allocate(self, series: SeriesId) -> Cells:
        """Return the cells of a new series."""
        size = series_size(series.metric, series.bounds)
        if size > PAGE_CELLS // 2:  # one that has a page of its own wastes nothing of others
            page, begin = [0.0] * size, 0
        else:
            if self._next + size > len(self._page):
                self._page, self._next = [0.0] * PAGE_CELLS, 0
            page, begin = self._page, self._next
            self._next += size
        page[begin + size - 1] = time.time()
        return page, begin + cells_before_first(series.metric)

    def existing(self, _metric: Metric, _naming: Naming) -> Iterable[SeriesId]:
        """Return nothing: memory begins empty."""
        return ()


class ReadableAllocator(MemoryAllocator):
    """The same, for another reader than the stores: ``series`` has all that were allocated, in their order."""

    def __init__(self) -> None:
        super().__init__()
        self.series: list[tuple[SeriesId, Cells]] = []

    def allocate(self, series: SeriesId) -> Cells:
        """Return the cells of a new series."""
        cells = super().allocate(series)
        self.series.append((series, cells))
        return cells


def series_size(metric: Metric, bounds: Sequence[float]) -> int:
    """Return the number of cells of a series."""
    return cells_before_first(metric) + (len(bounds) + 3 if metric.type == "histogram" else 2)


def cells_before_first(metric: Metric) -> int:
    """Return the number of cells that a series has before its first: 1 for the count of what has begun, or 0."""
    return 1 if metric in IN_PROGRESS else 0


def has_observations(page: Page, first: int, bounds: int) -> bool:
    """Whether any bucket of a histogram with so many *bounds* counts anything."""
    return any(page[first + 1 : first + bounds + 2])


def in_progress(page: Page, first: int, bounds: int) -> float:
    """Return what has begun and is in no bucket yet, of a histogram with so many *bounds*.

    Other threads and processes write meanwhile. If nothing begins while the cells are read, the result was true at one
    moment: whatever ends then is in its bucket or not.
    """
    tries = _TRIES
    while True:
        begun = page[first - 1]
        value = begun - sum(page[first + 1 : first + bounds + 2])
        tries -= 1
        if page[first - 1] == begun or not tries:
            return max(0.0, value)
