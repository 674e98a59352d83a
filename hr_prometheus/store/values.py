"""Cells that are values of prometheus_client's, where it is in its own multi-process mode.

That is so where ``PROMETHEUS_MULTIPROC_DIR`` is set and the process is no worker of ours: under gunicorn, for example,
where a view of the application's reads a ``MultiProcessCollector``. prometheus_client then keeps each value in a file of
the process, and begins new files in a process that was forked. It is slower than other cells.
"""

from __future__ import annotations

import logging
import os
import time
from typing import TYPE_CHECKING, Any, overload

from prometheus_client import values

from hr_prometheus.metrics import IN_PROGRESS, SCRAPE_LINES
from hr_prometheus.names import exports_of, named_labels
from hr_prometheus.store.cells import MemoryAllocator, cells_before_first
from hr_prometheus.store.families import go_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hr_prometheus.store.cells import Cells, SeriesId

logger = logging.getLogger("hr_prometheus")


def is_multiprocess_mode() -> bool:
    """Whether prometheus_client keeps its values in files."""
    return bool(getattr(values.ValueClass, "_multiprocess", False))


class ValueAllocator(MemoryAllocator):
    """Gives out values of prometheus_client's; cells in memory if it cannot make its files."""

    def __init__(self) -> None:
        super().__init__()
        self._is_logged = False
        #: The values by name and labels. Series that are added up under one name share them.
        self._values: dict[object, Any] = {}

    def allocate(self, series: SeriesId) -> Cells:
        """Return the cells of a new series."""
        try:
            return ValuePage(self._cells(series)), cells_before_first(series.metric)
        except Exception as error:  # noqa: BLE001  # whatever is wrong with the directory, requests are answered
            if not self._is_logged:
                self._is_logged = True
                logger.warning("prometheus_client cannot keep numbers in PROMETHEUS_MULTIPROC_DIR: %r", error)
            return super().allocate(series)

    def _cells(self, series: SeriesId) -> Sequence[Any]:
        """Return the cells of a series. Raises what prometheus_client raises if it cannot make its file."""
        metric, _, bounds, _ = series
        created = _ConstantCell(time.time())
        if metric.type != "histogram":
            if metric.type == "counter":
                return _Cell(self._named(series, "_total")), created
            return _Cell(self._named(series, mode="livemax" if metric is SCRAPE_LINES else "livesum")), created
        total = _Cell(self._named(series, "_sum"))
        buckets = [self._named(series, "_bucket", le=go_text(bound)) for bound in (*bounds, float("inf"))]
        if metric not in IN_PROGRESS:
            return total, *map(_Cell, buckets), created
        gauges = self._named(series._replace(metric=IN_PROGRESS[metric]), mode="livesum")
        return _Cell(gauges), total, *[_Cell(bucket, gauges) for bucket in buckets], created

    def _named(self, series: SeriesId, suffix: str = "", *, mode: str = "", **more: str) -> list[Any]:
        """Return prometheus_client's values of one number of a series, one for each name under which it is exported."""
        make: Any = values.ValueClass
        numbers = []
        for export in exports_of(series.metric, series.naming):
            labels = named_labels(export.labels, export.labels_of(series.labels)) | more
            key = export.name + suffix, *labels.items()
            if key not in self._values:
                value = make(
                    series.metric.type, export.name, export.name + suffix, tuple(labels), tuple(labels.values()),
                    series.metric.help, multiprocess_mode=mode,
                )  # fmt: skip
                self._values[key] = _Gauge(value) if mode else value
            numbers.append(self._values[key])
        return numbers


class ValuePage:
    """The cells of one series."""

    def __init__(self, cells: Sequence[Any]) -> None:
        self._cells = cells

    @overload
    def __getitem__(self, index: int, /) -> float: ...
    @overload
    def __getitem__(self, index: slice, /) -> list[float]: ...
    def __getitem__(self, index: int | slice, /) -> float | list[float]:
        """Return the number of a cell, or those of some."""
        if isinstance(index, slice):
            return [cell.get() for cell in self._cells[index]]
        value: float = self._cells[index].get()
        return value

    def __setitem__(self, index: int, value: float, /) -> None:
        """Set the number of a cell."""
        self._cells[index].set(value)


class _ConstantCell:
    """A cell that no file has: its number is that of this process alone."""

    def __init__(self, value: float) -> None:
        self._value = value

    def get(self) -> float:
        return self._value

    def set(self, value: float) -> None:
        self._value = value


class _Cell:
    """A cell whose changes are added to some values, and taken from *others*: what is counted in a bucket is in progress no more.

    Its own number is that of this process and this series. A forked process begins with 0.
    """

    def __init__(self, numbers: Sequence[Any], others: Sequence[Any] = ()) -> None:
        self._values, self._others = numbers, others
        self._pid, self._number = 0, 0.0

    def get(self) -> float:
        if self._pid != os.getpid():
            self._pid, self._number = os.getpid(), 0.0
        return self._number

    def set(self, value: float) -> None:
        change = value - self.get()
        self._number = value
        for each in self._values:
            each.inc(change)
        for each in self._others:
            each.inc(-change)


class _Gauge:
    """A gauge in the file of a process. It begins with 0, whatever an earlier process with the same number has left there."""

    def __init__(self, value: Any) -> None:
        self._value = value
        self._pid = 0

    def inc(self, change: float) -> None:
        if self._pid != os.getpid():
            self._pid = os.getpid()
            self._value.set(0.0)
        self._value.inc(change)
