"""The numbers of a family, read from the cells in which they are when somebody asks for them."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING

from prometheus_client.core import Metric as Family
from prometheus_client.core import Sample
from prometheus_client.utils import floatToGoString

from hr_prometheus.metrics import IN_PROGRESS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import Protocol, TypeAlias, overload

    from hr_prometheus.metrics import Metric

    class Page(Protocol):
        """Cells, such as those of an array or of a view of a file."""

        @overload
        def __getitem__(self, index: int, /) -> float: ...
        @overload
        def __getitem__(self, index: slice, /) -> Iterable[float]: ...
        def __setitem__(self, index: int, value: float, /) -> None: ...

    Series: TypeAlias = tuple[tuple[str, ...], tuple[Page, int]]

    class SeriesList(Protocol):
        """Series, of which parts can be taken."""

        def __len__(self) -> int: ...
        def __iter__(self) -> Iterator[Series]: ...
        def __getitem__(self, part: slice, /) -> Sequence[Series]: ...


#: Writes a number as Go does, and so Prometheus.
go_text: Callable[[float], str] = floatToGoString

#: Whether families have ``_created`` samples, which only OpenMetrics has a use for: in the text format each would be a
#: series of its own.
with_created: ContextVar[bool] = ContextVar("with_created", default=False)

#: How often what is in progress is read again if requests begin meanwhile.
_TRIES = 10


def in_progress(page: Page, first: int, bounds: int) -> float:
    """Return what has begun, which the cell before the *first* of a histogram counts, and not ended in one of its buckets.

    *bounds* is how many the histogram has. Other threads and processes write meanwhile. What is read while nothing begins
    was so at one moment: whatever ends then is in its bucket or not.
    """
    tries = _TRIES
    while True:
        begun = page[first - 1]
        value = begun - sum(page[first + 1 : first + bounds + 2])
        tries -= 1
        if page[first - 1] == begun or not tries:
            return max(0.0, value)


def has_ended(page: Page, first: int, bounds: int) -> bool:
    """Whether there is anything in the buckets of a histogram with so many *bounds*, the *first* cell of which is known."""
    return any(page[first + 1 : first + bounds + 2])


class StoredFamily(Family):
    """A family of which the numbers are still in their cells; its samples are made when they are asked for.

    ``metric`` is its entry in the catalogue, ``bounds`` are the upper bounds of a histogram's buckets, and ``series``
    the values of the labels of each series with its page and first cell. Those of a gauge with bounds are the cells of the
    histogram that it ends in. Of that one, a series in which nothing has ended yet has no samples.
    """

    def __init__(self, metric: Metric, name: str, bounds: tuple[float, ...], series: SeriesList) -> None:
        super().__init__(name, metric.help, metric.type)
        self.metric = metric
        self.bounds = bounds
        self.series = series

    @property
    def samples(self) -> list[Sample]:
        """The samples, as prometheus_client names and orders them."""
        return [sample for values, (page, first) in self.series for sample in self._samples(values, page, first)]

    @samples.setter
    def samples(self, _none: list[Sample]) -> None:
        """Ignore what the base class sets."""

    def _samples(self, values: tuple[str, ...], page: Page, first: int) -> Iterator[Sample]:
        labels = dict(zip(self.metric.label_names(values), values, strict=True))
        created = first + 1
        if self.type == "gauge":
            bounds = len(self.bounds)
            yield Sample(self.name, labels, in_progress(page, first, bounds) if bounds else page[first])
            return
        if self.type == "counter":
            yield Sample(f"{self.name}_total", labels, page[first])
        else:
            if self.metric in IN_PROGRESS and not has_ended(page, first, len(self.bounds)):
                return
            total = 0.0
            for offset, bound in enumerate((*self.bounds, float("inf")), start=1):
                total += page[first + offset]
                yield Sample(f"{self.name}_bucket", {**labels, "le": go_text(bound)}, total)
            yield Sample(f"{self.name}_count", labels, total)
            yield Sample(f"{self.name}_sum", labels, page[first])
            created = first + len(self.bounds) + 2
        if with_created.get():
            yield Sample(f"{self.name}_created", labels, page[created])
