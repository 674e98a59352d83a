"""The two files of a slot, as far as they have been read: what a worker and the readers of its numbers have in common."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from hr_prometheus.metrics import METRICS_BY_NAME
from hr_prometheus.names import Naming, checked_names
from hr_prometheus.store.bounds import MODES, native_bounds
from hr_prometheus.store.cells import SeriesId, cells_before_first, series_size

if TYPE_CHECKING:
    from hr_prometheus.store.cells import Cells, Page

#: Bytes of a page: what can be mapped by itself on every system, and cells for a hundred path labels or more.
PAGE_BYTES = 65536
PAGE_CELLS = PAGE_BYTES // 8
CELLS_SUFFIX, SERIES_SUFFIX = ".cells", ".series"


class InMemory(NamedTuple):
    """What is only in the memory of a worker, as the first cells of its file say. It ends with the worker."""

    series: float = 0.0
    #: Those that are counted in the series.
    requests: float = 0.0
    #: Values of the application's own metrics.
    values: float = 0.0


class SlotFiles:
    """The two files of one slot, as far as they have been read.

    *path* is that of the files without their suffixes.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._pages: list[Page] = []
        self._offset = 0  # bytes of ".series" that have been read
        self._last_line = b""  # the last of them
        self._next = len(InMemory())  # the first cell that is free
        self.cells: dict[SeriesId, Cells] = {}

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
        if not (0 <= begin <= begin + size <= (begin // PAGE_CELLS + 1) * PAGE_CELLS):
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

    def _locate(self, cell: int) -> tuple[Page, int]:
        """Return the page of a cell of the file, and its index there."""
        number, index = divmod(cell, PAGE_CELLS)
        while len(self._pages) <= number:
            self._pages.append(self._map(len(self._pages)))
        return self._pages[number], index

    def _map(self, number: int) -> Page:
        """Return a page of the file."""
        raise NotImplementedError
