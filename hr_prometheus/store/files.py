"""Cells in the files of a slot: the numbers of a worker outlive it, and other processes can read them.

Each worker writes to two files that are named by its slot. ``.cells`` has the cells, in pages that are mapped into
memory: adding to a number is the same as in one process, and a kill at any moment does not undo it. ``.series`` says
which cells belong to which series, in one line of JSON for each, written when the series is made. The next worker
in the slot goes on with both files.
"""

from __future__ import annotations

import atexit
import logging
import os
from contextlib import suppress
from typing import TYPE_CHECKING

from prometheus_client import REGISTRY

from hr_prometheus.store.cells import MemoryAllocator, cells_before_first, series_size
from hr_prometheus.store.slot_files import CELLS_SUFFIX, SERIES_SUFFIX, SlotFiles
from hr_prometheus.store.slot_reader import clear_gauges
from hr_prometheus.store.store import allocators, collect_hooks

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hr_prometheus.metric import Metric
    from hr_prometheus.names import Naming
    from hr_prometheus.store.cells import Cells, SeriesId

logger = logging.getLogger("hr_prometheus")

#: Seconds after which numbers that wait in memory are moved again, into the files, where a kill does not lose them.
MOVE_SECONDS = 1.0
#: The file by which the slots of a directory share one warning of an application that collects its own numbers.
_WARNED = "read-alone"


class FileAllocator:
    """Gives out cells in the files of a slot, to which this process alone writes.

    What was in progress in an earlier process is set to zero. A series for which there is no room has its cells in memory,
    and :meth:`move_waiting` moves what they count.
    """

    def __init__(self, path: str) -> None:
        clear_gauges(path)
        self._path = path
        self._files = _open_files(path)
        self._files.read()
        self._pid = os.getpid()
        self._memory = MemoryAllocator()
        #: The cells of series that had no room, in memory, and of those whose files are gone.
        self._waiting: list[tuple[SeriesId, Cells]] = []

    def allocate(self, series: SeriesId) -> Cells:
        """Return the cells of a series, which an earlier process may have made."""
        if os.getpid() != self._pid:  # a fork by the application would give out the same cells as its parent
            return self._memory.allocate(series)
        try:
            return self._files.cells.get(series) or self._files.add(series)
        except OSError as error:
            if not self._waiting:
                logger.error(  # noqa: TRY400  # it is the system's, and known
                    "The numbers of new series cannot be written (%s). They are kept in memory until they can.", error
                )
            cells = self._memory.allocate(series)
            self._waiting.append((series, cells))
            self._files.note_waiting(len(self._waiting))
            return cells

    def move_waiting(self) -> None:
        """Move what series in memory have counted since the last time into the files, as far as there is room now.

        Their cells go on counting in memory: others hold them. So do those of files that were removed, which are still mapped;
        they move into new ones.
        """
        if self._files.are_gone():
            self._waiting += self._files.cells.items()
            for suffix in (CELLS_SUFFIX, SERIES_SUFFIX):  # one may be left
                with suppress(OSError):
                    os.remove(self._path + suffix)
            with suppress(OSError):
                os.makedirs(os.path.dirname(self._path), mode=0o700, exist_ok=True)
            self._files = _open_files(self._path)
        left, has_room = 0, True
        for series, (page, first) in self._waiting:
            cells = self._files.cells.get(series)
            if cells is None and has_room:
                try:
                    cells = self._files.add(series)
                except OSError:
                    has_room = False
            if cells is None:
                left += 1
                continue
            target, begin = cells
            before = cells_before_first(series.metric)
            for cell in range(-before, series_size(series.metric, series.bounds) - before - 1):  # all but the time
                value = page[first + cell]
                page[first + cell] -= value
                target[begin + cell] += value
        self._files.note_waiting(left)

    def existing(self, metric: Metric, naming: Naming) -> Iterable[SeriesId]:
        """Return the series of a metric that an earlier process has left."""
        return [series for series in self._files.cells if series[:2] == (metric, naming)]


def _open_files(path: str) -> SlotFiles:
    files = SlotFiles(path)
    with suppress(OSError):  # then its series wait
        files.reserve()
    return files


def move_waiting() -> None:
    """Move what series without room in the files have counted, as far as there is room now; to be called often."""
    allocator = allocators.get(REGISTRY)
    if isinstance(allocator, FileAllocator):
        allocator.move_waiting()


def store_in_files(path: str, *, totals_at: str = "") -> None:
    """Keep the numbers of the global registry in the files of a slot. To be called before it has a store.

    *path* is that of the files without their suffixes; their directory exists. *totals_at* says where the numbers of all
    slots are served: an application that collects those of one by itself is warned once.
    """
    allocators[REGISTRY] = FileAllocator(path)
    atexit.register(move_waiting)
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
