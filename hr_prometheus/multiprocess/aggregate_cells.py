"""Sums the numbers of hr-prometheus's own metrics over the workers: the cells in the files of all slots."""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from typing import TYPE_CHECKING

from prometheus_client import REGISTRY

from hr_prometheus.metrics import ERRORS, IN_PROGRESS
from hr_prometheus.store.cells import MemoryAllocator, ReadableAllocator, cells_before_first, in_progress, series_size
from hr_prometheus.store.exported import ExportedFamilies
from hr_prometheus.store.failures import failures_of
from hr_prometheus.store.slot_reader import SlotReader, slot_paths

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from hr_prometheus.store.cells import Cells, SeriesId
    from hr_prometheus.store.families import StoredFamily


logger = logging.getLogger("hr_prometheus")


class CellCollector:
    """The sums of the cells of all slots in a *directory*, as a collector for prometheus_client.

    *own* are cells of this process that are added to them. They are in no file, whose cut would end the process.
    """

    def __init__(self, directory: str, own: ReadableAllocator | None = None) -> None:
        self._directory = directory
        self._own = own or ReadableAllocator()
        self._own_read = 0
        self._slots: dict[str, SlotReader] = {}
        #: The removed files that a worker may still have mapped, with the names of their slots.
        self._gone: list[tuple[str, SlotReader]] = []
        #: What removed files have counted whose workers have ended, without what described these processes.
        self._kept: dict[SeriesId, Cells] = {}
        self._memory = MemoryAllocator()
        self._exported = ExportedFamilies()

    def collect(self) -> Iterator[StoredFamily]:
        """Yield the families that have at least one series, in the order of the catalogue, with their numbers as they are now."""
        self.look()
        for slot in self._readers():
            slot.refresh()
        return self._exported.families()

    def look(self) -> None:
        """Open files that are new, read which series are, and note files that were removed or truncated."""
        for path, slot in list(self._slots.items()):
            if slot.are_gone():  # a worker moves what it has counted there into new files
                self._gone.append((os.path.basename(path), self._slots.pop(path)))
            elif slot.have_new_lines():
                self._slots.pop(path).close()
                self._export_anew()
        self._drop_cut()
        self._read_new()
        if self._drop_cut():
            self._read_new()

    def close_removed(self, living: Collection[str]) -> None:
        """Close removed files unless their worker is one of the *living*, and keep what they have counted in memory."""
        ended = [slot for name, slot in self._gone if name not in living]
        if not ended:
            return
        for slot in ended:
            slot.read()
            slot.refresh()
            for series, cells in slot.cells.items():
                self._keep(series, cells)
            slot.close()
        self._gone = [each for each in self._gone if each[1] not in ended]
        self._export_anew()

    def _keep(self, series: SeriesId, cells: Cells) -> None:
        """Add the numbers of a series whose worker has ended to those that are kept."""
        metric, (page, first) = series.metric, cells
        if metric.type == "gauge":
            return
        begin, size = first - cells_before_first(metric), series_size(metric, series.bounds)
        *numbers, created = page[begin : begin + size]
        if metric in IN_PROGRESS:
            numbers[0] -= in_progress(page, first, len(series.bounds))
        is_new = series not in self._kept
        kept, index = self._kept[series] = self._memory.allocate(series) if is_new else self._kept[series]
        for cell, number in enumerate(numbers, index - cells_before_first(metric)):
            kept[cell] += number
        last = index - cells_before_first(metric) + size - 1
        kept[last] = created if is_new else min(created, kept[last])

    def close(self) -> None:
        """Close the files."""
        for slot in self._readers():
            slot.close()

    def _readers(self) -> list[SlotReader]:
        return [*self._slots.values(), *(slot for _, slot in self._gone)]

    def _read_new(self) -> None:
        for path in slot_paths(self._directory):
            if path not in self._slots:
                with suppress(OSError):  # it was just removed
                    self._slots[path] = SlotReader(path)
        for series, cells in self._own.series[self._own_read :]:
            self._exported.add(series, cells)
            self._own_read += 1
        for slot in self._slots.values():
            for series, cells in slot.read():
                self._exported.add(series, cells)

    def _drop_cut(self) -> bool:
        """Leave out the files that another process has cut, whose cells may be anything. Return whether there were any."""
        cut = [path for path, slot in self._slots.items() if slot.are_cut()]
        if not cut:
            return False
        logger.error(
            "Another process has truncated files of the workers' numbers in %s. Numbers that a worker cannot write again "
            "restart at zero.",
            self._directory,
        )
        for path in cut:
            failures_of(REGISTRY).count(ERRORS, "files")
            slot = self._slots.pop(path)
            slot.lengthen()
            slot.close()
        self._export_anew()
        return True

    def _export_anew(self) -> None:
        self._exported, self._own_read = ExportedFamilies(), 0
        for each in (self._kept, *(slot.cells for slot in self._readers())):
            for series, cells in each.items():
                self._exported.add(series, cells)
