"""Cells in the files of a slot: the numbers of a worker outlive it, and other processes can read them.

Each worker writes to two files that are named by its slot. ``.cells`` has the cells, in pages that are mapped into
memory: adding to a number is the same as in one process, and a kill at any moment does not undo it. ``.series`` says
which cells belong to which series, in one line of JSON for each, written when the series is made. The next worker
in the slot goes on with both files.
"""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from threading import Lock
from typing import TYPE_CHECKING

from prometheus_client import REGISTRY

from hr_prometheus.store.cells import MemoryAllocator, cells_before_first, series_size
from hr_prometheus.store.slot_files import CELLS_SUFFIX, SERIES_SUFFIX
from hr_prometheus.store.slot_reader import clear_gauges
from hr_prometheus.store.slot_writer import SLICE, SlotWriter
from hr_prometheus.store.store import allocators, collect_hooks

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from hr_prometheus.metric import Metric
    from hr_prometheus.names import Naming
    from hr_prometheus.store.cells import Cells, SeriesId

logger = logging.getLogger("hr_prometheus")

#: The file by which the slots of a directory share one warning of an application that collects its own numbers.
_WARNED = "read-alone"


class FileAllocator:
    """Gives out cells in the files of a slot, to which this process alone writes.

    What was in progress in an earlier process is set to zero. A series for which there is no room is in memory until there is.
    """

    def __init__(self, path: str) -> None:
        clear_gauges(path)
        if not os.path.exists(path + SERIES_SUFFIX):
            # Cells without names are of no use to this process. Others read them still.
            with suppress(OSError):
                os.remove(path + CELLS_SUFFIX)
        self._path = path
        self._lock = Lock()  # the stores have one each
        self._files = SlotWriter(path)
        self._pid = os.getpid()
        self._memory = MemoryAllocator()
        #: The cells of files that were removed.
        self._removed: list[tuple[SeriesId, Cells]] = []

    def allocate(self, series: SeriesId) -> Cells:
        """Return the cells of a series, which an earlier process may have made."""
        if os.getpid() != self._pid:  # a fork by the application would give out the same cells as its parent
            return self._memory.allocate(series)
        with self._lock:
            return self._files.cells.get(series) or self._files.add(series)

    def keep(self) -> Iterator[None]:
        """Write what is only in memory into the files, as far as there is room now; yield between slices of this work.

        Files that were removed are made anew. Their cells are still mapped, and go on counting: others hold them. What they
        have counted since the last time is moved.
        """
        if os.getpid() != self._pid:
            return
        with self._lock:
            if self._files.are_gone():
                self._removed += self._files.cells.items()
                for suffix in (CELLS_SUFFIX, SERIES_SUFFIX):  # one may be left
                    with suppress(OSError):
                        os.remove(self._path + suffix)
                with suppress(OSError):
                    os.makedirs(os.path.dirname(self._path), mode=0o700, exist_ok=True)
                self._files = SlotWriter(self._path)
        while self._settle():
            yield
        for begin in range(0, len(self._removed), SLICE):
            yield
            with self._lock:
                removed = self._removed[begin : begin + SLICE]
                for series, _ in removed:
                    if series not in self._files.cells:
                        self._files.add(series, waits=True)
                self._files.settle()
                for series, cells in removed:
                    self._move(series, cells)

    def _settle(self) -> bool:
        with self._lock:
            return self._files.settle()

    def _move(self, series: SeriesId, cells: Cells) -> None:
        (page, first), (target, begin) = cells, self._files.cells[series]
        before = cells_before_first(series.metric)
        for cell in range(-before, series_size(series.metric, series.bounds) - before - 1):  # all but the time
            if value := page[first + cell]:
                page[first + cell] -= value
                target[begin + cell] += value

    def note_values(self, number: int) -> None:
        """Write how many values of the application's own metrics are only in memory."""
        if os.getpid() == self._pid:
            self._files.note_values(number)

    def existing(self, metric: Metric, naming: Naming) -> Iterable[SeriesId]:
        """Return the series of a metric that an earlier process has left."""
        return [series for series in self._files.cells if series[:2] == (metric, naming)]


def file_allocator() -> FileAllocator | None:
    """Return that of the global registry, in a worker."""
    allocator = allocators.get(REGISTRY)
    return allocator if isinstance(allocator, FileAllocator) else None


def store_in_files(path: str, *, totals_at: str = "") -> None:
    """Keep the numbers of the global registry in the files of a slot. To be called before it has a store.

    *path* is that of the files without their suffixes; their directory exists. *totals_at* says where the numbers of all
    slots are served: an application that collects those of one by itself is warned once.
    """
    allocators[REGISTRY] = FileAllocator(path)
    warned = os.path.join(os.path.dirname(path), _WARNED)

    def warn() -> None:
        collect_hooks.clear()
        try:
            os.close(os.open(warned, os.O_CREAT | os.O_EXCL, 0o600))
        except OSError:  # another worker has warned, or the disk is full
            return
        logger.warning(
            "The application reads its metrics itself, with generate_latest() for example: these are the numbers of one "
            "worker. Those of all workers are at %s.",
            totals_at,
        )

    collect_hooks[:] = [warn] if totals_at else []
