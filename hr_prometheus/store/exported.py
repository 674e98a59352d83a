"""From series and their cells to the families of a scrape: under each of their names, added up where labels are equal.

Several workers have a series of the same labels, and so do the outcomes of one route under names that do not tell outcomes
apart. Their numbers are added up when they are read.
"""

from __future__ import annotations

from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any

from hr_prometheus.metrics import IN_PROGRESS, METRICS
from hr_prometheus.names import exports_of
from hr_prometheus.store.bounds import common_bounds
from hr_prometheus.store.cells import cells_before_first, in_progress, series_size
from hr_prometheus.store.families import Part, StoredFamily

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import TypeAlias

    from hr_prometheus.metric import Metric
    from hr_prometheus.names import Export
    from hr_prometheus.store.cells import Cells, Page, SeriesId
    from hr_prometheus.store.families import Series, SeriesList

    #: A page, the first cell of a series on it, and the bounds of a histogram.
    _Source: TypeAlias = tuple[Page, int, tuple[float, ...]]


class ExportedFamilies:
    """The families that some series are exported as."""

    def __init__(self) -> None:
        self._families: dict[Export, dict[tuple[float, ...], _Part]] = {}

    def add(self, series: SeriesId, cells: Cells) -> None:
        """Add the cells of a series to the families of its metric, and of the gauge that ends in it."""
        metric, naming, bounds, labels = series
        for export in exports_of(metric, naming):
            self._add(export, labels, (*cells, bounds))
        if metric in IN_PROGRESS:
            for export in exports_of(IN_PROGRESS[metric], naming):
                parts = self._families.setdefault(export, {})
                part = parts.setdefault((), _Part())
                part.sums.setdefault(export.labels_of(labels), []).append((*cells, bounds))

    def _add(self, export: Export, labels: tuple[str, ...], source: _Source) -> None:
        parts = self._families.setdefault(export, {})
        labels, bounds = export.labels_of(labels), source[2]
        for others, part in parts.items():
            if labels in part.sums:
                sources = part.sums[labels]
            elif labels in part.series:
                sources = [(*part.series[labels], others)]
            else:
                continue
            # A worker may have been started with other buckets.
            common = common_bounds(others, bounds)
            parts.setdefault(common, _Part()).sums[labels] = [*sources, source]
            part.series.pop(labels, None)
            if common != others:
                part.sums.pop(labels, None)
            return
        parts.setdefault(bounds, _Part()).series[labels] = source[:2]

    def families(self) -> Iterator[StoredFamily]:
        """Yield the families that have at least one series, in the order of the catalogue."""
        for export in sorted(self._families.copy(), key=_order):
            parts = self._families[export].copy()  # another thread may be adding
            yield StoredFamily(
                export, [Part(bounds, part.read(export, bounds), part.kept) for bounds, part in parts.items()]
            )


def _order(export: Export) -> tuple[int, str]:
    return METRICS.index(export.metric), export.name


class _Part:
    """The series of a family with the same bounds: those with cells of their own, and those that are sums."""

    def __init__(self) -> None:
        self.series: dict[tuple[str, ...], Cells] = {}
        self.sums: dict[tuple[str, ...], list[_Source]] = {}
        self.kept: dict[tuple[str, ...], Any] = {}

    def read(self, export: Export, bounds: tuple[float, ...]) -> SeriesList:
        """Return the series as they are now. A sum is made when it is taken."""
        series = list(self.series.copy().items())  # another thread may be adding
        sums = self.sums.copy()
        if not sums:
            return series
        return _Sums(export, bounds, [each for each in series if each[0] not in sums], list(sums.items()))


class _Sums:
    """Some series of one family, the sums last. The numbers of a slice are added up when it is taken."""

    def __init__(
        self,
        export: Export,
        bounds: tuple[float, ...],
        series: list[Series],
        sums: list[tuple[tuple[str, ...], list[_Source]]],
    ) -> None:
        is_in_progress = export.metric.ends_in is not None
        self._sum = _sum_in_progress if is_in_progress else partial(_sum_cells, export.metric, bounds)
        self._series = series
        self._sums = sums

    def __len__(self) -> int:
        return len(self._series) + len(self._sums)

    def __iter__(self) -> Iterator[Series]:
        return iter(self[:])

    def __getitem__(self, part: slice) -> list[Series]:
        start, stop, _ = part.indices(len(self))
        first = len(self._series)
        sums = self._sums[max(0, start - first) : max(0, stop - first)]
        return self._series[start:stop] + [(labels, (self._sum(sources), 0)) for labels, sources in sums]


def _sum_in_progress(sources: list[_Source]) -> list[float]:
    return [sum([in_progress(page, first, len(bounds)) for page, first, bounds in sources])]


def _sum_cells(metric: Metric, bounds: tuple[float, ...], sources: list[_Source]) -> list[float]:
    """Return the sums of the numbers of a series, and its first time of creation."""
    runs = [_numbers(metric, bounds, source) for source in sources]
    numbers: list[float] = [*map(sum, zip(*runs, strict=True))]
    numbers[-1] = min(run[-1] for run in runs)
    return numbers


def _numbers(metric: Metric, common: tuple[float, ...], source: _Source) -> list[float]:
    """Return the numbers of a series; of a histogram for the bounds that it has in *common* with others."""
    page, first, bounds = source
    numbers = list(page[first : first + series_size(metric, bounds) - cells_before_first(metric)])
    if bounds == common:
        return numbers
    total, *counts, created = numbers
    merged = [0.0]
    for bound, count in zip(chain(bounds, [float("inf")]), counts, strict=True):
        merged[-1] += count
        if bound in common:
            merged.append(0.0)
    return [total, *merged, created]
