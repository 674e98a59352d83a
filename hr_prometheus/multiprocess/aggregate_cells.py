"""Sums the numbers of hr-prometheus's own metrics over the workers: the cells in the files of all slots."""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import TYPE_CHECKING

from hr_prometheus.store.cells import ReadableAllocator
from hr_prometheus.store.exported import ExportedFamilies
from hr_prometheus.store.files import SlotFiles, slot_paths

if TYPE_CHECKING:
    from collections.abc import Iterator

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
        self._slots: dict[str, SlotFiles] = {}
        self._gone: list[SlotFiles] = []
        self._exported = ExportedFamilies()

    def collect(self) -> Iterator[StoredFamily]:
        """Yield the families that have at least one series, in the order of the catalogue."""
        for path, slot in list(self._slots.items()):
            if slot.are_gone():  # it stays mapped: a worker moves what it has counted there into new files
                self._gone.append(self._slots.pop(path))
        if any(slot.are_cut() for slot in self._slots.values()):
            self._drop_cut()
        for path in slot_paths(self._directory):
            if path not in self._slots:
                self._slots[path] = SlotFiles(path, is_writable=False)
        for series, cells in self._own.series[self._own_read :]:
            self._exported.add(series, cells)
            self._own_read += 1
        for slot in self._slots.values():
            with suppress(OSError, ValueError):  # a file that was cut
                for series, cells in slot.read():
                    self._exported.add(series, cells)
        return self._exported.families()

    def _drop_cut(self) -> None:
        """Leave out the files that another process has cut, whose cells may be anything."""
        logger.error(
            "Another process has truncated files of the workers' numbers in %s. Their numbers restart at zero.",
            self._directory,
        )
        self._slots = {path: slot for path, slot in self._slots.items() if not slot.are_cut()}
        self._exported, self._own_read = ExportedFamilies(), 0
        for slot in (*self._slots.values(), *self._gone):
            for series, cells in slot.cells.items():
                self._exported.add(series, cells)
