"""How the numbers of a store are read: a family of samples over the cells of its series."""

from __future__ import annotations

from bisect import bisect_left
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NamedTuple

from prometheus_client.core import Metric as Family
from prometheus_client.core import Sample
from prometheus_client.utils import floatToGoString

from hr_prometheus.metrics import IN_PROGRESS
from hr_prometheus.names import named_labels
from hr_prometheus.store.bounds import classic_bounds, cumulative_counts
from hr_prometheus.store.cells import has_observations
from hr_prometheus.store.exemplars import time_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
    from typing import Protocol, TypeAlias

    from prometheus_client.core import Exemplar

    from hr_prometheus.names import Export
    from hr_prometheus.store.cells import Cells, Page
    from hr_prometheus.store.exemplars import ExportedExemplars

    #: The values of a series' labels, and its cells.
    Series: TypeAlias = tuple[tuple[str, ...], Cells]

    class SeriesList(Protocol):
        """The series of a family, which can be taken slice by slice."""

        def __len__(self) -> int: ...
        def __iter__(self) -> Iterator[Series]: ...
        def __getitem__(self, part: slice, /) -> Sequence[Series]: ...


#: Writes a number as Go does, and so Prometheus.
go_text: Callable[[float], str] = floatToGoString

#: Whether families have ``_created`` samples. OpenMetrics and protocol buffers have a use for them: in the text format each
#: would be a series of its own.
with_created: ContextVar[bool] = ContextVar("with_created", default=False)


class Part(NamedTuple):
    """The series of a family that have the same *bounds*: those of the cells of a histogram.

    *kept* is what an exposition keeps for the next one, by the values of labels.
    """

    bounds: tuple[float, ...]
    series: SeriesList
    kept: dict[tuple[str, ...], Any]


class StoredFamily(Family):
    """A family whose numbers stay in their cells until its samples are read.

    *export* is what it is exported as. Its *parts* differ in the buckets of their histograms. A series of a histogram that a
    gauge ends in has no samples before its first observation.
    """

    def __init__(self, export: Export, parts: Sequence[Part] = ()) -> None:
        super().__init__(export.name, export.metric.help, export.metric.type)
        self.export = export
        self.parts = parts
        self.may_be_empty = export.metric in IN_PROGRESS
        self.exemplars: ExportedExemplars = {}
        #: The names of the samples that are read; ``None`` for all.
        self.selected: frozenset[str] | None = None

    @property
    def samples(self) -> list[Sample]:
        """The samples, as prometheus_client names and orders them."""
        samples = [
            sample
            for part in self.parts
            for values, (page, first) in part.series
            for sample in self._samples(part.bounds, values, page, first)
        ]
        return [sample for sample in samples if self.selects(sample.name)]

    @samples.setter
    def samples(self, _none: list[Sample]) -> None:
        """Ignore what the base class sets."""

    def sample_names(self, bounds: Sequence[float], *, with_created: bool) -> list[str]:
        """Return the names of the samples of one series, in their order, selected or not."""
        if self.type == "gauge":
            return [self.name]
        created = [f"{self.name}_created"] * with_created
        if self.type == "counter":
            return [f"{self.name}_total", *created]
        buckets = [f"{self.name}_bucket"] * (len(bounds) + 1)
        return [*buckets, f"{self.name}_count", f"{self.name}_sum", *created]

    def selects(self, name: str) -> bool:
        """Whether samples of this name are read."""
        return self.selected is None or name in self.selected

    def select(self, names: Collection[str]) -> StoredFamily | None:
        """Return the same family with the samples of these *names* only, or ``None`` if it has none of them.

        Nothing is read yet, so that a selection is rendered as fast as the whole.
        """
        selection = StoredFamily(self.export, self.parts)
        selection.exemplars = self.exemplars
        selection.selected = frozenset(self.sample_names((), with_created=with_created.get())).intersection(names)
        return selection if selection.selected else None

    #: What prometheus_client's registry calls for ``name[]``.
    _restricted_metric = select

    def exemplars_of(self, values: tuple[str, ...], bounds: tuple[float, ...]) -> Mapping[int, Exemplar]:
        """Return the newest exemplars of a series, by the index of their classic bucket; of a counter by 0."""
        newest: dict[int, Exemplar] = {}
        bounds = classic_bounds(bounds)
        for exemplars in self.exemplars.get(values, ()):
            for each in list(exemplars.values()):  # another thread may be adding
                bucket = bisect_left(bounds, each.value)
                if bucket not in newest or time_of(newest[bucket]) < time_of(each):
                    newest[bucket] = each
        return newest

    def _samples(self, bounds: tuple[float, ...], values: tuple[str, ...], page: Page, first: int) -> Iterator[Sample]:
        labels = named_labels(self.export.labels, values)
        exemplars = self.exemplars_of(values, bounds)
        created = first + 1
        if self.type == "gauge":
            yield Sample(self.name, labels, page[first])
            return
        if self.type == "counter":
            yield Sample(f"{self.name}_total", labels, page[first], exemplar=exemplars.get(0))
        else:
            if self.may_be_empty and not has_observations(page, first, len(bounds)):
                return
            created = first + len(bounds) + 2
            total, *counts = list(page[first:created])  # at one moment: another thread may be writing
            buckets = zip((*classic_bounds(bounds), float("inf")), cumulative_counts(bounds, counts), strict=True)
            for bucket, (bound, count) in enumerate(buckets):
                own_labels = {**labels, "le": go_text(bound)}
                yield Sample(f"{self.name}_bucket", own_labels, count, exemplar=exemplars.get(bucket))
            yield Sample(f"{self.name}_count", labels, count)
            yield Sample(f"{self.name}_sum", labels, total)
        if with_created.get():
            yield Sample(f"{self.name}_created", labels, page[created])
