"""The two files of a slot, as its worker has them: mapped into memory."""

from __future__ import annotations

import errno
import json
import mmap
import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from hr_prometheus.metrics import METRICS_BY_NAME
from hr_prometheus.names import Naming, checked_names
from hr_prometheus.store.bounds import MODES, NativeBounds, classic_bounds, native_bounds
from hr_prometheus.store.cells import SeriesId, cells_before_first, series_size

if TYPE_CHECKING:
    from hr_prometheus.store.cells import Cells, Page

#: Bytes of a page: what can be mapped by itself on every system, and cells for a hundred path labels or more.
PAGE_BYTES = 65536
_PAGE_CELLS = PAGE_BYTES // 8
#: Pages that are mapped together, because each mapping holds a descriptor: 4 MiB.
_REGION_PAGES = 64
CELLS_SUFFIX, SERIES_SUFFIX = ".cells", ".series"


class SlotFiles:
    """The two files of one slot, as far as they have been read.

    *path* is that of the files without their suffixes.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._pages: list[Page] = []
        self._regions: dict[int, memoryview] = {}
        self._offset = 0  # bytes of ".series" that have been read
        self._last_line = b""  # the last of them
        self._inode = 0  # of ".cells", which no other file can have while it is mapped
        self._next = 1  # the first cell that is free, after that for the number of series that wait
        self.cells: dict[SeriesId, Cells] = {}

    def are_gone(self) -> bool:
        """Whether one of the files was removed, even if there is another one now. Its cells are still mapped."""
        if not self._pages:
            return False
        try:
            return os.stat(self._path + CELLS_SUFFIX).st_ino != self._inode or not os.path.exists(
                self._path + SERIES_SUFFIX
            )
        except OSError:
            return True

    def read(self) -> list[tuple[SeriesId, Cells]]:
        """Read the series that were added since the last time, and return them."""
        try:
            text = self._read_from(self._offset)
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

    def _read_from(self, offset: int) -> bytes:
        with open(self._path + SERIES_SUFFIX, "rb") as file:
            file.seek(offset)
            return file.read()

    def _read_line(self, line: bytes) -> SeriesId | None:
        name, (prefix, *sets), classic, labels, begin, size, *mode = json.loads(line)
        if not (0 <= begin <= begin + size <= (begin // _PAGE_CELLS + 1) * _PAGE_CELLS):
            return None
        self._next = max(self._next, begin + size)
        metric = METRICS_BY_NAME[name]
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

    def reserve(self) -> None:
        """Make both files, with the cell for the number of series that wait. Raises :exc:`OSError` if there is no room."""
        self._locate(0)
        os.close(os.open(self._path + SERIES_SUFFIX, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600))

    def note_waiting(self, number: int) -> None:
        """Write how many series wait in memory: their counts end with this process."""
        if self._pages:
            self._pages[0][0] = float(number)

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
        file = os.open(self._path + SERIES_SUFFIX, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
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
        file = os.open(self._path + CELLS_SUFFIX, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            # Room is taken now: writing to a mapped page for which the disk has none kills the process.
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file, number * PAGE_BYTES, PAGE_BYTES)
            elif os.fstat(file).st_size < (number + 1) * PAGE_BYTES:
                os.truncate(file, (number + 1) * PAGE_BYTES)
            inode = os.fstat(file).st_ino
            if self._pages and inode != self._inode:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), self._path + CELLS_SUFFIX)
            self._inode = inode
            region, first = divmod(number, _REGION_PAGES)
            if region not in self._regions:
                self._regions[region] = _map_region(file, region)
            return self._regions[region][first * PAGE_BYTES : (first + 1) * PAGE_BYTES].cast("d")
        finally:
            os.close(file)


def _map_region(file: int, number: int) -> memoryview:
    """Map a region of an open file, which is made longer. Its pages take no room yet."""
    size = _REGION_PAGES * PAGE_BYTES
    if os.fstat(file).st_size < (number + 1) * size:
        os.truncate(file, (number + 1) * size)
    return memoryview(mmap.mmap(file, size, access=mmap.ACCESS_WRITE, offset=number * size))
