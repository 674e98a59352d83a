"""Sums the numbers of hr-prometheus's own metrics over the workers: the cells in the files of all slots."""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import TYPE_CHECKING

from hr_prometheus.store.exported import ExportedFamilies
from hr_prometheus.store.files import SlotFiles, slot_paths

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hr_prometheus.store.families import StoredFamily


logger = logging.getLogger("hr_prometheus")


class CellCollector:
    """The sums of the cells of all slots in a *directory*, as a collector for prometheus_client."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._slots: dict[str, SlotFiles] = {}
        self._exported = ExportedFamilies()

    def collect(self) -> Iterator[StoredFamily]:
        """Yield the families that have at least one series, in the order of the catalogue."""
        if any(slot.is_cut() for slot in self._slots.values()):
            logger.error(
                "Another process has cut files of the workers' numbers in %s; what was in them begins at zero.",
                self._directory,
            )
            self._slots, self._exported = {}, ExportedFamilies()
        for path in slot_paths(self._directory):
            if path not in self._slots:
                self._slots[path] = SlotFiles(path, is_writable=False)
        for slot in self._slots.values():
            with suppress(OSError, ValueError):  # a file that was cut
                for series, cells in slot.read():
                    self._exported.add(series, cells)
        return self._exported.families()
