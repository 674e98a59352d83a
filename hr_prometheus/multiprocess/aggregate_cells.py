"""Sums the numbers of hr-prometheus's own metrics over the workers: the cells in the files of all slots."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from hr_prometheus.metrics import IN_PROGRESS, METRICS
from hr_prometheus.store.cells import cells_before_first, has_observations, in_progress, series_size
from hr_prometheus.store.families import StoredFamily
from hr_prometheus.store.files import SlotFiles, slot_paths

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import TypeAlias

    from hr_prometheus.metrics import Metric
    from hr_prometheus.store.cells import Cells, Page
    from hr_prometheus.store.families import Series

    #: A metric, the prefix of its name, and the bounds of a histogram's buckets.
    _FamilyId: TypeAlias = tuple[Metric, str, tuple[float, ...]]
    #: A page, the first cell of a series on it, and how many bounds a histogram has.
    _SlotCells: TypeAlias = tuple[Page, int, int]
    #: By labels, the cells of each slot that has the series.
    _SeriesCells: TypeAlias = dict[tuple[str, ...], list[_SlotCells]]


class CellCollector:
    """The sums of the cells of all slots in a *directory*, as a collector for prometheus_client."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._slots: dict[str, SlotFiles] = {}
        #: A gauge of what is in progress has the cells of the histograms that it ends in, whatever their bounds.
        self._families: dict[_FamilyId, _SeriesCells] = {}

    def collect(self) -> Iterator[StoredFamily]:
        """Yield the families that have at least one series, in the order of the catalogue."""
        self._read()
        for metric, prefix, bounds in sorted(self._families, key=_order):
            series = self._families[metric, prefix, bounds]
            if metric in IN_PROGRESS and not any(
                has_observations(*cells) for slots in series.values() for cells in slots
            ):
                continue  # or it would take the name of a family with other bounds
            yield StoredFamily(metric, prefix + metric.name, bounds, _Sums(metric, bounds, series))

    def _read(self) -> None:
        for path in slot_paths(self._directory):
            if path not in self._slots:
                self._slots[path] = SlotFiles(path, is_writable=False)
        for slot in self._slots.values():
            with suppress(OSError, ValueError):  # a file that was cut
                for (metric, prefix, bounds, labels), (page, first) in slot.read():
                    cells = page, first, len(bounds)
                    self._add((metric, prefix, bounds), labels, cells)
                    if metric in IN_PROGRESS:
                        self._add((IN_PROGRESS[metric], prefix, ()), labels, cells)

    def _add(self, family: _FamilyId, labels: tuple[str, ...], cells: _SlotCells) -> None:
        self._families.setdefault(family, {}).setdefault(labels, []).append(cells)


def _order(family: _FamilyId) -> tuple[int, str, bool, tuple[float, ...]]:
    metric, prefix, bounds = family
    return METRICS.index(metric), prefix, bounds != metric.buckets, bounds


class _Sums:
    """The series of one family. The numbers of a slice are summed when it is taken."""

    def __init__(self, metric: Metric, bounds: tuple[float, ...], series: _SeriesCells) -> None:
        self._is_in_progress = metric.ends_in is not None
        self._size = series_size(metric, bounds) - cells_before_first(metric)
        self._series = list(series.items())

    def __len__(self) -> int:
        return len(self._series)

    def __iter__(self) -> Iterator[Series]:
        return iter(self[:])

    def __getitem__(self, part: slice) -> list[Series]:
        return [(labels, self._sum(slots)) for labels, slots in self._series[part]]

    def _sum(self, slots: list[_SlotCells]) -> Cells:
        if self._is_in_progress:
            return [sum(in_progress(*cells) for cells in slots)], 0
        if len(slots) == 1:
            page, first, _ = slots[0]
            return page, first
        runs = [list(page[first : first + self._size]) for page, first, _ in slots]
        numbers: list[float] = [*map(sum, zip(*runs, strict=True))]
        numbers[-1] = min(run[-1] for run in runs)  # the time of creation
        return numbers, 0
