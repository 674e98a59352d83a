"""Cells in the files of a slot: the numbers of a worker outlive it, and other processes can read them.

Each worker writes to two files that are named by its slot. ``.cells`` has the cells, in pages that are mapped into
memory: adding to a number is the same as in one process, and a kill at any moment does not undo it. ``.series`` says
which cells belong to which series, in one line of JSON for each, written when the series is made. The next worker
in the slot goes on with both files.
"""

from __future__ import annotations

import atexit
import errno
import json
import logging
import mmap
import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from prometheus_client import REGISTRY

from hr_prometheus.metrics import IN_PROGRESS, METRICS
from hr_prometheus.names import Naming, checked_names
from hr_prometheus.store.bounds import MODES, NativeBounds, classic_bounds, native_bounds
from hr_prometheus.store.cells import MemoryAllocator, SeriesId, cells_before_first, in_progress, series_size
from hr_prometheus.store.store import allocators, collect_hooks

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hr_prometheus.metric import Metric
    from hr_prometheus.store.cells import Cells, Page

logger = logging.getLogger("hr_prometheus")

#: Bytes of a page: what can be mapped by itself on every system, and cells for a hundred path labels or more.
_PAGE_BYTES = 65536
_PAGE_CELLS = _PAGE_BYTES // 8
_CELLS, _SERIES = ".cells", ".series"
#: The file by which the slots of a directory share one warning of an application that collects its own numbers.
_WARNED = "read-alone"

_METRICS = {metric.name: metric for metric in METRICS}


class SlotFiles:
    """The two files of one slot, as far as they have been read.

    *path* is that of the files without their suffixes.
    """

    def __init__(self, path: str, *, is_writable: bool) -> None:
        self._path = path
        self._is_writable = is_writable
        self._pages: list[Page] = []
        self._offset = 0  # bytes of ".series" that have been read
        self._last_line = b""  # the last of them
        self._inode = 0  # of ".cells", which no other file can have while it is mapped
        self._next = 0  # the first cell that is free
        self.cells: dict[SeriesId, Cells] = {}

    def are_cut(self) -> bool:
        """Whether one of the files is shorter than what was read of it, or was so before others wrote more."""
        with suppress(OSError), open(self._path + _SERIES, "rb") as file:
            file.seek(self._offset - len(self._last_line))
            is_other = file.read(len(self._last_line)) != self._last_line
            return is_other or os.stat(self._path + _CELLS).st_size < len(self._pages) * _PAGE_BYTES
        return False

    def are_gone(self) -> bool:
        """Whether one of the files was removed, even if there is another one now. Its cells are still mapped."""
        if not self.cells:
            return False
        try:
            return os.stat(self._path + _CELLS).st_ino != self._inode or not os.path.exists(self._path + _SERIES)
        except OSError:
            return True

    def read(self) -> list[tuple[SeriesId, Cells]]:
        """Read the series that were added since the last time, and return them."""
        try:
            with open(self._path + _SERIES, "rb") as file:
                file.seek(self._offset)
                text = file.read()
        except FileNotFoundError:
            return []
        *lines, rest = text.split(b"\n")  # the rest is being written, or its writer was killed
        added = []
        for line in lines:
            with suppress(ValueError, TypeError, KeyError):  # where a disk was full a line may be anything
                series = self._read_line(line)
                if series is not None:
                    added.append((series, self.cells[series]))
        self._offset += len(text) - len(rest)
        self._last_line = lines[-1] + b"\n" if lines else self._last_line
        return added

    def _read_line(self, line: bytes) -> SeriesId | None:
        name, (prefix, *sets), classic, labels, begin, size, *mode = json.loads(line)
        if not (0 <= begin <= begin + size <= (begin // _PAGE_CELLS + 1) * _PAGE_CELLS):
            return None
        self._next = max(self._next, begin + size)
        metric = _METRICS[name]
        naming = Naming(prefix, checked_names(sets))
        bounds = tuple(classic) or metric.buckets
        if mode:
            if metric.native is None or mode[0] not in MODES:
                return None
            bounds = native_bounds(bounds, metric.native, mode[0])
        series = SeriesId(metric, naming, bounds, tuple(labels))
        if metric.ends_in is not None or size != series_size(metric, series.bounds):
            return None
        page, index = self._locate(begin)
        self.cells[series] = page, index + cells_before_first(metric)
        return series

    def add(self, series: SeriesId) -> Cells:
        """Add a series. Raises :exc:`OSError` if there is no room."""
        if self.are_gone():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), self._path)
        metric, naming, bounds, labels = series
        size = series_size(metric, bounds)
        begin = self._next
        if begin % _PAGE_CELLS + size > _PAGE_CELLS:
            begin = (begin // _PAGE_CELLS + 1) * _PAGE_CELLS
        page, index = self._locate(begin)
        for cell in range(index, index + size):  # where the lines of other series were cut, their numbers are left
            page[cell] = 0.0
        self._next = begin + size  # also where the line fails: it may have been written whole
        # The line comes before the numbers: cells that no line names stay zero.
        classic = classic_bounds(bounds)
        own_bounds = () if classic == metric.buckets else classic
        mode = [bounds.mode] if isinstance(bounds, NativeBounds) else []
        line = json.dumps([metric.name, [naming.prefix, *naming.sets], own_bounds, labels, begin, size, *mode]).encode()
        file = os.open(self._path + _SERIES, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            # An invalid line comes before it, so that it does not complete one that was cut short.
            if os.write(file, b"!\n" + line + b"\n") < len(line) + 3:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self._path)
        finally:
            os.close(file)
        page[index + size - 1] = time.time()
        cells = self.cells[series] = page, index + cells_before_first(metric)
        return cells

    def _locate(self, cell: int) -> tuple[Page, int]:
        """Return the page of a cell of the file, and its index there."""
        number, index = divmod(cell, _PAGE_CELLS)
        while len(self._pages) <= number:
            self._pages.append(self._map(len(self._pages)))
        return self._pages[number], index

    def _map(self, number: int) -> Page:
        flags = os.O_RDWR | os.O_CREAT if self._is_writable else os.O_RDONLY
        file = os.open(self._path + _CELLS, flags, 0o600)
        try:
            if self._is_writable and hasattr(os, "posix_fallocate"):
                # Room is taken now: writing to a mapped page for which the disk has none kills the process.
                os.posix_fallocate(file, number * _PAGE_BYTES, _PAGE_BYTES)
            elif os.fstat(file).st_size < (number + 1) * _PAGE_BYTES:  # for a reader: it was cut
                os.truncate(self._path + _CELLS, (number + 1) * _PAGE_BYTES)
            inode = os.fstat(file).st_ino
            if self._pages and inode != self._inode:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), self._path + _CELLS)
            self._inode = inode
            access = mmap.ACCESS_WRITE if self._is_writable else mmap.ACCESS_READ
            return memoryview(mmap.mmap(file, _PAGE_BYTES, access=access, offset=number * _PAGE_BYTES)).cast("d")
        finally:
            os.close(file)


def slot_paths(directory: str) -> list[str]:
    """Return the paths of the slots in a *directory*, for :class:`SlotFiles`; none if it is gone."""
    with suppress(FileNotFoundError, NotADirectoryError):
        names = os.listdir(directory)
        return [os.path.join(directory, name.removesuffix(_SERIES)) for name in names if name.endswith(_SERIES)]
    return []


class FileAllocator:
    """Gives out cells in the files of a slot, to which this process alone writes.

    What was in progress in an earlier process is set to zero. A series for which there is no room has its cells in memory,
    and :meth:`move_waiting` moves what they count.
    """

    def __init__(self, path: str) -> None:
        clear_gauges(path)
        self._path = path
        self._files = SlotFiles(path, is_writable=True)
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
            return cells

    def move_waiting(self) -> None:
        """Move what series in memory have counted since the last time into the files, as far as there is room now.

        Their cells go on counting in memory: others hold them. So do those of files that were removed, which are still mapped;
        they move into new ones.
        """
        if self._files.are_gone():
            self._waiting += self._files.cells.items()
            for suffix in (_CELLS, _SERIES):  # one may be left
                with suppress(OSError):
                    os.remove(self._path + suffix)
            with suppress(OSError):
                os.makedirs(os.path.dirname(self._path), mode=0o700, exist_ok=True)
            self._files = SlotFiles(self._path, is_writable=True)
        for series, (page, first) in self._waiting:
            try:
                target, begin = self._files.cells.get(series) or self._files.add(series)
            except OSError:
                return
            before = cells_before_first(series.metric)
            for cell in range(-before, series_size(series.metric, series.bounds) - before - 1):  # all but the time
                value = page[first + cell]
                page[first + cell] -= value
                target[begin + cell] += value

    def existing(self, metric: Metric, naming: Naming) -> Iterable[SeriesId]:
        """Return the series of a metric that an earlier process has left."""
        return [series for series in self._files.cells if series[:2] == (metric, naming)]


def move_waiting() -> None:
    """Move what series without room in the files have counted, as far as there is room now; to be called before a scrape."""
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


def clear_gauges(path: str) -> None:
    """Set to zero what was in progress in the last process of a slot, which has ended."""
    files = SlotFiles(path, is_writable=os.path.exists(path + _CELLS))
    for series, (page, first) in files.read():
        if series.metric.type == "gauge":
            page[first] = 0.0
        elif series.metric in IN_PROGRESS:
            page[first - 1] -= in_progress(page, first, len(series.bounds))
