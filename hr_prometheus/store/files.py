"""Cells in files: how the numbers of a worker outlive it, and are read by another process.

Each worker process writes to two files that have its slot's name. One has the cells, in pages that are mapped into
memory: to add to a number is the same as in one process, and is not undone by the worker's death at any moment. The
other says which cells belong to which series: a line of JSON for each, written once, when the series is made. The
worker that takes a slot over goes on with both.
"""

from __future__ import annotations

import errno
import json
import logging
import mmap
import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from hr_prometheus.metrics import IN_PROGRESS, METRICS
from hr_prometheus.store.families import StoredFamily, has_ended, in_progress
from hr_prometheus.store.store import MemoryPages, cells_before, cells_from, cells_of, pages_of_process, read_alone

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import TypeAlias

    from prometheus_client.core import Metric as Family

    from hr_prometheus.metrics import Metric
    from hr_prometheus.store.families import Page, Series
    from hr_prometheus.store.store import Store

    #: The number of a metric in the catalogue, a prefix, and the bounds of a histogram's buckets if they are its own.
    _Kind: TypeAlias = tuple[int, str, tuple[float, ...]]
    #: A page, the first cell of a series on it, and how many bounds a histogram has.
    _Place: TypeAlias = tuple[Page, int, int]

logger = logging.getLogger("hr_prometheus")

#: Bytes of a page: what can be mapped by itself on every system, and cells for a hundred path labels or more.
_PAGE = 65536
_PAGE_CELLS = _PAGE // 8
_CELLS, _SERIES = ".cells", ".series"
#: The file that says to all slots that one has warned of an application which reads its own numbers.
_WARNED = "read-alone"

_NUMBERS = {metric.name: number for number, metric in enumerate(METRICS)}


class _Key(NamedTuple):
    """What tells a series from all others."""

    metric: str
    prefix: str
    bounds: tuple[float, ...]
    labels: tuple[str, ...]


class _File:
    """The two files of one slot, as far as they have been read."""

    def __init__(self, path: str, *, is_writing: bool) -> None:
        self._path = path
        self._is_writing = is_writing
        self._pages: list[Page] = []
        self._read = 0  # bytes of the lines
        self.found: dict[_Key, tuple[Page, int]] = {}
        self._next = 0  # the first cell that is free

    def read(self) -> list[tuple[_Key, tuple[Page, int]]]:
        """Take note of the series that have come since the last time, and return them with their cells."""
        try:
            with open(self._path + _SERIES, "rb") as file:
                file.seek(self._read)
                text = file.read()
        except FileNotFoundError:
            return []
        *lines, rest = text.split(b"\n")  # the rest is being written, or never will be to its end
        found = []
        for line in lines:
            with suppress(ValueError, TypeError, KeyError):  # as where a disk was full
                name, prefix, bounds, labels, first, size = json.loads(line)
                if not (0 <= first <= first + size <= (first // _PAGE_CELLS + 1) * _PAGE_CELLS):
                    continue
                self._next = max(self._next, first + size)
                metric = METRICS[_NUMBERS[name]]
                if metric.ends_in is not None or size != cells_of(metric, bounds or metric.buckets):
                    continue
                key = _Key(metric.name, prefix, tuple(bounds), tuple(labels))
                self.found[key] = self._page(first // _PAGE_CELLS), first % _PAGE_CELLS
                found.append((key, self.found[key]))
        self._read += len(text) - len(rest)
        return found

    def add(self, key: _Key, size: int) -> tuple[Page, int]:
        """Make a series of *size* cells. Raises :exc:`OSError` if there is no room."""
        first = self._next
        if first % _PAGE_CELLS + size > _PAGE_CELLS:
            first = (first // _PAGE_CELLS + 1) * _PAGE_CELLS
        page, index = self._page(first // _PAGE_CELLS), first % _PAGE_CELLS
        self._next = first + size  # even if it fails, as nobody knows how much of the line is written then
        # The line comes first: cells that no line tells of are zero.
        line = json.dumps([key.metric, key.prefix, key.bounds, key.labels, first, size]).encode()
        file = os.open(self._path + _SERIES, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            # Before it one that is none, lest a line that was cut short be completed.
            if os.write(file, b"!\n" + line + b"\n") < len(line) + 3:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self._path)
        finally:
            os.close(file)
        page[index + size - 1] = time.time()
        self.found[key] = page, index
        return page, index

    def _page(self, number: int) -> Page:
        while len(self._pages) <= number:
            self._pages.append(self._map(len(self._pages)))
        return self._pages[number]

    def _map(self, number: int) -> Page:
        flags = os.O_RDWR | os.O_CREAT if self._is_writing else os.O_RDONLY
        file = os.open(self._path + _CELLS, flags, 0o600)
        try:
            if self._is_writing:
                # The room is taken now: to write to a page for which there is none would end the process.
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(file, number * _PAGE, _PAGE)
                elif os.fstat(file).st_size < (number + 1) * _PAGE:
                    os.ftruncate(file, (number + 1) * _PAGE)
            access = mmap.ACCESS_WRITE if self._is_writing else mmap.ACCESS_READ
            return memoryview(mmap.mmap(file, _PAGE, access=access, offset=number * _PAGE)).cast("d")
        finally:
            os.close(file)


class FilePages:
    """Pages in the files of a slot, which this process alone writes to."""

    def __init__(self, path: str) -> None:
        clear_gauges(path)
        self._file = _File(path, is_writing=True)
        self._file.read()
        self._pid = os.getpid()
        self._of_fork = MemoryPages()

    def cells(self, store: Store, metric: Metric, labels: tuple[str, ...], size: int) -> tuple[Page, int]:
        """Return the cells of a series, which may be there from an earlier process."""
        if os.getpid() != self._pid:  # a child of the application's, which must not give away the same cells
            return self._of_fork.cells(store, metric, labels, size)
        key = _Key(metric.name, store.prefix, _bounds(store, metric), labels)
        return self._file.found.get(key) or self._file.add(key, size)

    def series(self, store: Store, metric: Metric) -> Iterable[tuple[str, ...]]:
        """Return the labels of the series that are there from an earlier process."""
        kind = (metric.name, store.prefix, _bounds(store, metric))
        return [key.labels for key in self._file.found if key[:3] == kind]


def _bounds(store: Store, metric: Metric) -> tuple[float, ...]:
    """Return the bounds of a histogram if they are not those of the catalogue."""
    bounds = store.buckets(metric)
    return () if bounds == metric.buckets else bounds


def use(path: str, *, shown_at: str = "") -> None:
    """Have the stores of the global registry, of which there is none yet, write to the files of a slot.

    *path* is that of the files without what tells them apart; their directory exists. *shown_at* is where the numbers of all
    slots can be seen, for an application that reads those of one.
    """
    pages_of_process[:] = [FilePages(path)]
    warned = os.path.join(os.path.dirname(path), _WARNED)

    def notice() -> None:
        read_alone.clear()
        try:
            os.close(os.open(warned, os.O_CREAT | os.O_EXCL, 0o600))
        except OSError:  # another worker has said it, or the disk is full
            return
        logger.warning(
            "The application reads its metrics itself, with generate_latest() for example: these are the numbers of one "
            "worker. Those of all workers are at %s.",
            shown_at,
        )

    read_alone[:] = [notice] if shown_at else []


def clear_gauges(path: str) -> None:
    """Set what was in progress in a process that has ended to zero."""
    file = _File(path, is_writing=os.path.exists(path + _CELLS))
    file.read()
    for key, (page, first) in file.found.items():
        metric = METRICS[_NUMBERS[key.metric]]
        if metric.type == "gauge":
            page[first] = 0.0
        elif metric in IN_PROGRESS:
            page[first] -= in_progress(page, first + cells_before(metric), len(key.bounds or metric.buckets))


class Reader:
    """The numbers in the files of all slots in a *directory*, added up; a collector for prometheus_client."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._files: dict[str, _File] = {}
        #: By kind and labels, where the numbers are in each file that has the series: of what is in progress, where the
        #: histograms are that it ends in, whatever their bounds.
        self._places: dict[_Kind, dict[tuple[str, ...], list[_Place]]] = {}

    def collect(self) -> Iterator[Family]:
        """Yield the families that have at least one series, in the order of the catalogue."""
        self._read()
        for (number, prefix, own), places in sorted(self._places.items()):
            metric = METRICS[number]
            if metric in IN_PROGRESS and not any(has_ended(*place) for each in places.values() for place in each):
                continue  # or it would take the name of one with other bounds
            bounds = own or metric.buckets
            yield StoredFamily(metric, prefix + metric.name, bounds, _Sums(metric, bounds, places))

    def _read(self) -> None:
        for name in os.listdir(self._directory):
            if name.endswith(_SERIES) and name not in self._files:
                path = os.path.join(self._directory, name.removesuffix(_SERIES))
                self._files[name] = _File(path, is_writing=False)
        for file in self._files.values():
            with suppress(OSError, ValueError):  # a file that somebody has cut
                for key, (page, first) in file.read():
                    metric = METRICS[_NUMBERS[key.metric]]
                    place = page, first + cells_before(metric), len(key.bounds or metric.buckets)
                    self._add((_NUMBERS[key.metric], key.prefix, key.bounds), key.labels, place)
                    if metric in IN_PROGRESS:
                        self._add((_NUMBERS[IN_PROGRESS[metric].name], key.prefix, ()), key.labels, place)

    def _add(self, kind: _Kind, labels: tuple[str, ...], place: _Place) -> None:
        self._places.setdefault(kind, {}).setdefault(labels, []).append(place)


class _Sums:
    """The series of a kind, whose numbers are added up when somebody takes a slice of them."""

    def __init__(self, metric: Metric, bounds: tuple[float, ...], places: dict[tuple[str, ...], list[_Place]]) -> None:
        self._is_in_progress = metric.ends_in is not None
        self._size = cells_from(metric, bounds)
        self._places = list(places.items())

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[Series]:
        return iter(self[:])

    def __getitem__(self, part: slice) -> list[Series]:
        return [(labels, self._sum(places)) for labels, places in self._places[part]]

    def _sum(self, places: list[_Place]) -> tuple[Page, int]:
        if self._is_in_progress:
            return [sum(in_progress(*place) for place in places)], 0
        if len(places) == 1:
            page, first, _ = places[0]
            return page, first
        runs = [list(page[first : first + self._size]) for page, first, _ in places]
        numbers: list[float] = [*map(sum, zip(*runs, strict=True))]
        numbers[-1] = min(run[-1] for run in runs)  # the time of creation
        return numbers, 0
