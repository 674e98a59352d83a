"""From series and their cells to the families of a scrape: under each of their names, added up where labels are equal.

Several workers have a series of the same labels, and so do the outcomes of one route under names that do not tell outcomes
apart. Their numbers are added up when they are read.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

from hr_prometheus.metrics import IN_PROGRESS, METRICS
from hr_prometheus.names import exports_of
from hr_prometheus.store.cells import cells_before_first, in_progress, series_size
from hr_prometheus.store.families import Part, StoredFamily

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import TypeAlias

    from hr_prometheus.names import Export
    from hr_prometheus.store.cells import Cells, Page, SeriesId
    from hr_prometheus.store.families import Series

    #: A page, the first cell of a series on it, and the bounds of a histogram.
    _Source: TypeAlias = tuple[Page, int, tuple[float, ...]]
    #: By labels, what is added up.
    _Sources: TypeAlias = dict[tuple[str, ...], list[_Source]]


class ExportedFamilies:
    """The families that some series are exported as."""

    def __init__(self) -> None:
        #: By the bounds of a histogram, its series. A gauge of what is in progress is read from histograms of any bounds.
        self._families: dict[Export, dict[tuple[float, ...], _Sources]] = {}

    def add(self, series: SeriesId, cells: Cells) -> None:
        """Add the cells of a series to the families of its metric, and of the gauge that ends in it."""
        metric, naming, bounds, labels = series
        source = (*cells, bounds)
        for export in exports_of(metric, naming):
            self._add(export, bounds, labels, source)
        if metric in IN_PROGRESS:
            for export in exports_of(IN_PROGRESS[metric], naming):
                self._add(export, (), labels, source)

    def _add(self, export: Export, bounds: tuple[float, ...], labels: tuple[str, ...], source: _Source) -> None:
        parts = self._families.setdefault(export, {})
        labels = export.labels_of(labels)
        sources: list[_Source] = []
        for others, series in parts.items():
            if labels in series:
                sources = series[labels]
                if others != bounds:  # of a worker that was started with other buckets
                    bounds = tuple(bound for bound in others if bound in bounds)
                    del series[labels]
                break
        parts.setdefault(bounds, {})[labels] = [*sources, source]

    def families(self) -> Iterator[StoredFamily]:
        """Yield the families that have at least one series, in the order of the catalogue."""
        for export in sorted(self._families.copy(), key=_order):
            parts = self._families[export].copy()  # another thread may be adding
            yield StoredFamily(
                export, [Part(bounds, _Sums(export, bounds, series)) for bounds, series in parts.items() if series]
            )


def _order(export: Export) -> tuple[int, str]:
    return METRICS.index(export.metric), export.name


class _Sums:
    """Some series of one family. The numbers of a slice are added up when it is taken."""

    def __init__(self, export: Export, bounds: tuple[float, ...], series: _Sources) -> None:
        self._is_in_progress = export.metric.ends_in is not None
        self._bounds = bounds
        self._size = series_size(export.metric, bounds) - cells_before_first(export.metric)
        self._series = list(series.copy().items())

    def __len__(self) -> int:
        return len(self._series)

    def __iter__(self) -> Iterator[Series]:
        return iter(self[:])

    def __getitem__(self, part: slice) -> list[Series]:
        if self._is_in_progress:
            return [
                (labels, ([sum([in_progress(page, first, len(bounds)) for page, first, bounds in sources])], 0))
                for labels, sources in self._series[part]
            ]
        return [
            (labels, sources[0][:2] if len(sources) == 1 else (self._sum(sources), 0))
            for labels, sources in self._series[part]
        ]

    def _sum(self, sources: list[_Source]) -> list[float]:
        runs = [self._numbers(source) for source in sources]
        numbers: list[float] = [*map(sum, zip(*runs, strict=True))]
        numbers[-1] = min(run[-1] for run in runs)  # the time of creation
        return numbers

    def _numbers(self, source: _Source) -> list[float]:
        """Return the numbers of a series, for the bounds that it has in common with others."""
        page, first, bounds = source
        if bounds == self._bounds:
            return list(page[first : first + self._size])
        total, *counts, created = page[first : first + self._size + len(bounds) - len(self._bounds)]
        merged = [0.0]
        for bound, count in zip(chain(bounds, [float("inf")]), counts, strict=True):
            merged[-1] += count
            if bound in self._bounds:
                merged.append(0.0)
        return [total, *merged, created]
