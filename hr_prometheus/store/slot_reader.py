"""Reads the files of a slot, for the processes that do not write them.

The cells are copied, not mapped: another process may truncate a file at any moment, and reading a mapped page that the file
no longer has would end this process by SIGBUS. The numbers of a scrape are also those of one moment.
"""

from __future__ import annotations

import os
import struct
from contextlib import closing, suppress
from typing import TYPE_CHECKING
from weakref import finalize

from hr_prometheus.metrics import IN_PROGRESS
from hr_prometheus.store.cells import in_progress
from hr_prometheus.store.slot_files import CELLS_SUFFIX, PAGE_BYTES, SERIES_SUFFIX, InMemory, SlotFiles

if TYPE_CHECKING:
    from hr_prometheus.store.cells import Cells, Page, SeriesId


class SlotReader(SlotFiles):
    """Copies of the two files of a slot, which stay open: files that were removed can still be read.

    Raises :exc:`OSError` if one of them is missing.
    """

    def __init__(self, path: str) -> None:
        super().__init__(path)
        descriptors: list[int] = []
        #: Closes the files. The copies stay.
        self.close = finalize(self, _close, descriptors)
        descriptors.append(os.open(path + SERIES_SUFFIX, os.O_RDONLY))
        descriptors.append(os.open(path + CELLS_SUFFIX, os.O_RDONLY))
        self._series_file, self._cells_file = descriptors
        self._copies: list[bytearray] = []
        self._is_short = False

    def are_cut(self) -> bool:
        """Whether one of the files was shorter than its series need, or has lost what was read of it."""
        last = self._last_line
        is_other = os.pread(self._series_file, len(last), self._offset - len(last)) != last
        size = os.fstat(self._cells_file).st_size
        return self._is_short or is_other or size < len(self._copies) * PAGE_BYTES

    def are_gone(self) -> bool:
        """Whether the file of the cells was removed, even if there is another one now."""
        try:
            return not os.path.samestat(os.fstat(self._cells_file), os.stat(self._path + CELLS_SUFFIX))
        except OSError:
            return True

    def have_new_lines(self) -> bool:
        """Whether there is another file of the lines: a worker writes it again for the same cells if it was removed or cut."""
        with suppress(OSError):
            return not os.path.samestat(os.fstat(self._series_file), os.stat(self._path + SERIES_SUFFIX))
        return False

    def read(self) -> list[tuple[SeriesId, Cells]]:
        """Read the series that were added since the last time, and return them."""
        added = super().read()
        if added:  # the copies may be older than they
            self.refresh()
        return added

    def refresh(self) -> None:
        """Copy the cells again, as they are now."""
        for number, copy in enumerate(self._copies):
            self._fill(number, copy)

    def take_in_memory(self) -> InMemory:
        """Return what was only in the memory of the last process, once."""
        page, index = self._locate(0)
        numbers = InMemory(*page[index : index + len(InMemory())])
        for cell, number in enumerate(numbers, index):
            if number:
                self.write(page, cell, 0.0)
        return numbers

    def write(self, page: Page, index: int, value: float) -> None:
        """Write one cell, to its file and its copy. Raises :exc:`OSError` if there is no room."""
        page[index] = value
        number = next(number for number, each in enumerate(self._pages) if each is page)
        file = os.open(self._path + CELLS_SUFFIX, os.O_WRONLY)
        try:
            os.pwrite(file, struct.pack("d", value), number * PAGE_BYTES + 8 * index)
        finally:
            os.close(file)

    def lengthen(self) -> None:
        """Make the file of the cells as long as its series need, so that a worker which has it mapped goes on."""
        size = len(self._copies) * PAGE_BYTES
        with suppress(OSError):  # it was just removed
            if os.stat(self._path + CELLS_SUFFIX).st_size < size:
                os.truncate(self._path + CELLS_SUFFIX, size)

    def _read_from(self, offset: int) -> bytes:
        return os.pread(self._series_file, max(0, os.fstat(self._series_file).st_size - offset), offset)

    def _map(self, number: int) -> Page:
        copy = bytearray(PAGE_BYTES)
        self._fill(number, copy)
        self._copies.append(copy)
        return memoryview(copy).cast("d")

    def _fill(self, number: int, copy: bytearray) -> None:
        data = os.pread(self._cells_file, PAGE_BYTES, number * PAGE_BYTES)
        copy[: len(data)] = data
        self._is_short = self._is_short or len(data) < PAGE_BYTES


def _close(descriptors: list[int]) -> None:
    for each in descriptors:
        os.close(each)


def slot_paths(directory: str) -> list[str]:
    """Return the paths of the slots in a *directory*, for :class:`SlotReader`; none if it is gone."""
    with suppress(FileNotFoundError, NotADirectoryError):
        names = os.listdir(directory)
        return [
            os.path.join(directory, name.removesuffix(SERIES_SUFFIX)) for name in names if name.endswith(SERIES_SUFFIX)
        ]
    return []


def clear_gauges(path: str) -> InMemory:
    """Set to zero what was in progress in the last process of a slot, which has ended.

    Return what was only in its memory.
    """
    if not os.path.exists(path + SERIES_SUFFIX) or not os.path.exists(path + CELLS_SUFFIX):
        return InMemory()
    with closing(SlotReader(path)) as reader:
        in_memory = reader.take_in_memory()
        for series, (page, first) in reader.read():
            if series.metric.type == "gauge" and page[first]:
                reader.write(page, first, 0.0)
            elif series.metric in IN_PROGRESS and (number := in_progress(page, first, len(series.bounds))):
                reader.write(page, first - 1, page[first - 1] - number)
    return in_memory
