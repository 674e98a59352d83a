"""Writes the files of a slot, for its worker: its pages are mapped into memory, and each series is a line.

That needs room. What has none is in memory until there is: a page that cannot be mapped, and series whose lines cannot be
written. They have the places that they will have in the files, so a page moves as a whole, and nothing is counted anew.
"""

from __future__ import annotations

import errno
import json
import logging
import mmap
import os
import time
from contextlib import suppress
from itertools import takewhile
from typing import TYPE_CHECKING, Any, NamedTuple

from hr_prometheus.metrics import REQUEST_COUNT
from hr_prometheus.store.bounds import NativeBounds, classic_bounds
from hr_prometheus.store.cells import cells_before_first, series_size
from hr_prometheus.store.slot_files import CELLS_SUFFIX, PAGE_BYTES, PAGE_CELLS, SERIES_SUFFIX, InMemory, SlotFiles

if TYPE_CHECKING:
    from collections.abc import Callable

    from hr_prometheus.store.cells import Cells, Page, SeriesId

logger = logging.getLogger("hr_prometheus")

#: The cells of :class:`~hr_prometheus.store.slot_files.InMemory`, on the first page.
_SERIES, _REQUESTS, _VALUES = range(len(InMemory()))
#: Pages that are mapped together, because each mapping holds a descriptor: 4 MiB.
_REGION_PAGES = 64
#: How many series move into the files while the event loop waits.
SLICE = 100


class WaitingPage:
    """A page with series that no line of the file names yet. Those who hold it go on with it when they are written.

    It is slower than the *cells* themselves, which move into the file when there is room. The change of a number of requests
    is also given to *note* until then, so that the file says how many a kill would lose.
    """

    def __init__(self, cells: Page, note: Callable[[float], None]) -> None:
        self.cells = cells
        #: Where requests are counted that no file has.
        self.requests: set[int] = set()
        self._note = note

    def __getitem__(self, index: Any, /) -> Any:
        """Return the number of a cell, or those of some."""
        return self.cells[index]

    def __setitem__(self, index: int, value: float, /) -> None:
        """Set the number of a cell."""
        if index in self.requests:
            self._note(value - self.cells[index])
        self.cells[index] = value


class _Waiting(NamedTuple):
    """A series without a line in the file, the first of all its cells there, and the line."""

    series: SeriesId
    begin: int
    line: bytes


class SlotWriter(SlotFiles):
    """The two files of one slot, to which this process alone writes. *path* is that of the files without their suffixes.

    Raises :exc:`OSError` if files that an earlier process has left cannot be mapped.
    """

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self._inode = 0  # of ".cells", which no other file can have while it is mapped
        self._size = 0  # that ".series" has at least
        self._in_memory: list[int] = []  # the numbers of the pages that are not mapped
        self._held: dict[int, WaitingPage] = {}  # by number; they are kept by those who hold them
        self._waiting: list[_Waiting] = []
        self._regions: dict[int, memoryview] = {}
        self.read()
        with suppress(OSError):  # then all wait
            self._locate(0)
            os.close(self._open_series(os.O_CREAT))

    def are_gone(self) -> bool:
        """Whether the file of the cells was removed, even if there is another one now. Its cells are still mapped."""
        if not self._inode:
            return False
        try:
            return os.stat(self._path + CELLS_SUFFIX).st_ino != self._inode
        except OSError:
            return True

    def add(self, series: SeriesId, *, waits: bool = False) -> Cells:
        """Add a series, in memory if there is no room. One that *waits* has its line with the next :meth:`settle`."""
        size = series_size(series.metric, series.bounds)
        begin = self._next
        if begin % PAGE_CELLS + size > PAGE_CELLS:
            begin = (begin // PAGE_CELLS + 1) * PAGE_CELLS
        self._next = begin + size
        is_first = not self._waiting
        self._waiting.append(_Waiting(series, begin, _line(series, begin)))
        problem: OSError | None = None
        number, index = divmod(begin, PAGE_CELLS)
        try:
            self._locate(begin)
        except OSError as error:
            problem = error
            for each in range(len(self._pages), number + 1):
                self._in_memory.append(each)
                self._pages.append(memoryview(bytearray(PAGE_BYTES)).cast("d"))
        page = self._pages[number]
        for cell in range(index, index + size):  # where the lines of other series were cut, their numbers are left
            page[cell] = 0.0
        page[index + size - 1] = time.time()
        first = index + cells_before_first(series.metric)
        try:
            if is_first and not waits:  # others are tried again by settle()
                self._write_lines()
        except OSError as error:
            problem = error
        if self._waiting:
            if is_first and problem is not None:
                text = "The numbers of new series cannot be written (%s). They are kept in memory until they can."
                logger.error(text, problem)
            held = self._held.setdefault(number, WaitingPage(page, self._note_requests))
            if series.metric is REQUEST_COUNT:
                held.requests.add(first)
            page = held
            self._pages[0][_SERIES] = float(len(self._waiting))
        self.cells[series] = page, first
        return page, first

    def settle(self) -> bool:
        """Write what waits in memory, as far as there is room now, and the lines that another process has removed or cut.

        Return whether there is more, and room for it.
        """
        for number in self._in_memory.copy():
            with suppress(OSError):
                page = self._map(number)
                page[:] = self._pages[number]  # type: ignore[index,assignment]  # as fast as can be
                self._pages[number] = page
                self._in_memory.remove(number)
                if number in self._held:
                    self._held[number].cells = page
        waiting = len(self._waiting)
        with suppress(OSError):
            self._write_lines()
        return 0 < len(self._waiting) < waiting

    def note_values(self, number: int) -> None:
        """Write how many values of the application's own metrics are only in memory."""
        if self._pages:
            self._pages[0][_VALUES] = float(number)

    def _note_requests(self, change: float) -> None:
        self._pages[0][_REQUESTS] += change

    def _write_lines(self) -> None:
        """Write the first lines that wait, but those of pages in memory. Raises :exc:`OSError` if there is no room."""
        if self._is_cut():
            self._restore_lines()
        first = self._waiting[:SLICE]
        ready = list(takewhile(lambda each: each.begin // PAGE_CELLS not in self._in_memory, first))
        if not ready:
            return
        # An invalid line comes before them, so that it does not complete one that was cut short.
        text = b"!\n" + b"".join(each.line for each in ready)
        file = self._open_series()
        try:
            written = os.write(file, text)
        finally:
            os.close(file)
        self._size += written
        lines = max(0, text[:written].count(b"\n") - 1)
        for series, begin, _ in ready[:lines]:
            self._settle(series, begin)
        del self._waiting[:lines]
        self._pages[0][_SERIES] = float(len(self._waiting))
        if written < len(text):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self._path)

    def _settle(self, series: SeriesId, begin: int) -> None:
        """Have the cells of a series in the file, which has its line now."""
        number, index = divmod(begin, PAGE_CELLS)
        page, first = self._pages[number], index + cells_before_first(series.metric)
        self.cells[series] = page, first
        if number in self._held and first in self._held[number].requests:
            self._held[number].requests.remove(first)
            self._note_requests(-page[first])

    def _is_cut(self) -> bool:
        """Whether another process has removed the file of the lines, or a part of it."""
        try:
            return os.stat(self._path + SERIES_SUFFIX).st_size < self._size
        except FileNotFoundError:
            return bool(self._inode)

    def _restore_lines(self) -> None:
        """Write all lines again: the cells are as they were. Raises :exc:`OSError` if there is no room."""
        waiting = {each.series for each in self._waiting}
        numbers = {id(page): number for number, page in enumerate(self._pages)}
        text = b"".join(
            _line(series, numbers[id(page)] * PAGE_CELLS + first - cells_before_first(series.metric))
            for series, (page, first) in self.cells.items()
            if series not in waiting
        )
        path = self._path + SERIES_SUFFIX
        try:
            with open(f"{path}.new", "wb") as file:
                file.write(text)
            os.replace(f"{path}.new", path)
        except OSError:
            with suppress(OSError):
                os.remove(f"{path}.new")
            raise
        if self._size:
            logger.error("Another process has removed or truncated %s. The worker has written it again.", path)
        self._size = len(text)

    def _open_series(self, flags: int = 0) -> int:
        file = os.open(self._path + SERIES_SUFFIX, os.O_WRONLY | os.O_APPEND | flags, 0o600)
        self._size = max(self._size, os.fstat(file).st_size)
        return file

    def _map(self, number: int) -> Page:
        file = os.open(self._path + CELLS_SUFFIX, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            take_room(file, number * PAGE_BYTES, PAGE_BYTES)
            inode = os.fstat(file).st_ino
            if self._inode and inode != self._inode:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), self._path + CELLS_SUFFIX)
            self._inode = inode
            region, first = divmod(number, _REGION_PAGES)
            if region not in self._regions:
                self._regions[region] = _map_region(file, region)
            return self._regions[region][first * PAGE_BYTES : (first + 1) * PAGE_BYTES].cast("d")
        finally:
            os.close(file)


def take_room(file: int, offset: int, size: int) -> None:
    """Take the room of a part of an open file now, or raise :exc:`OSError`.

    Writing to a mapped page for which the disk has no room would kill the process.
    """
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file, offset, size)
    elif os.fstat(file).st_size < offset + size:
        os.truncate(file, offset + size)


def _map_region(file: int, number: int) -> memoryview:
    """Map a region of an open file, which is made longer. Its pages take no room yet."""
    size = _REGION_PAGES * PAGE_BYTES
    if os.fstat(file).st_size < (number + 1) * size:
        os.truncate(file, (number + 1) * size)
    return memoryview(mmap.mmap(file, size, access=mmap.ACCESS_WRITE, offset=number * size))


def _line(series: SeriesId, begin: int) -> bytes:
    metric, naming, bounds, labels = series
    classic = classic_bounds(bounds)
    own_bounds = () if classic == metric.buckets else classic
    mode = [bounds.mode] if isinstance(bounds, NativeBounds) else []
    size = series_size(metric, bounds)
    fields = [metric.name, [naming.prefix, *naming.sets], own_bounds, labels, begin, size, *mode]
    return json.dumps(fields).encode() + b"\n"
