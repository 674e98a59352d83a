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
from hr_prometheus.store.cells import MemoryAllocator, cells_before_first
from hr_prometheus.store.families import go_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hr_prometheus.metrics import Metric
    from hr_prometheus.store.cells import Cells, SeriesId

logger = logging.getLogger("hr_prometheus")


def is_multiprocess_mode() -> bool:
    """Whether prometheus_client keeps its values in files."""
    return bool(getattr(values.ValueClass, "_multiprocess", False))


class ValueAllocator(MemoryAllocator):
    """Gives out values of prometheus_client's; cells in memory if it cannot make its files."""

    _is_logged = False

    def allocate(self, series: SeriesId) -> Cells:
        """Return the cells of a new series."""
        try:
            return ValuePage(_value_cells(series)), cells_before_first(series.metric)
        except Exception as error:  # noqa: BLE001  # whatever is wrong with the directory, requests are answered
            if not self._is_logged:
                self._is_logged = True
                logger.warning("prometheus_client cannot keep numbers in PROMETHEUS_MULTIPROC_DIR: %r", error)
            return super().allocate(series)


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


class _BegunCell:
    """The count of what has begun, derived from a gauge in the file and the buckets. A forked process begins with 0 in progress."""

    def __init__(self, buckets: Sequence[Any], gauge: Any) -> None:
        self._buckets, self._gauge = buckets, gauge
        self._pid = 0

    def get(self) -> float:
        if self._pid != os.getpid():
            self._pid = os.getpid()
            self._value: float = sum(bucket.get() for bucket in self._buckets)
            self._gauge.set(0.0)
        return self._value

    def set(self, value: float) -> None:
        self._gauge.inc(value - self.get())
        self._value = value


class _BucketCell:
    """The count of a bucket. What it counts is no longer in progress."""

    def __init__(self, bucket: Any, gauge: Any) -> None:
        self._bucket, self._gauge = bucket, gauge

    def get(self) -> float:
        value: float = self._bucket.get()
        return value

    def set(self, value: float) -> None:
        self._gauge.inc(self.get() - value)
        self._bucket.set(value)


def _value_cells(series: SeriesId) -> Sequence[Any]:
    """Return the cells of a series. Raises what prometheus_client raises if it cannot make its file."""
    metric, prefix, bounds, labels = series
    name = prefix + metric.name
    created = _ConstantCell(time.time())
    if metric.type != "histogram":
        mode = "livemax" if metric is SCRAPE_LINES else "livesum"
        return _value(metric, name, prefix + metric.exported_name, labels, mode=mode), created
    total = _value(metric, name, f"{name}_sum", labels)
    buckets = [
        _value(metric, name, f"{name}_bucket", (*labels, "le", go_text(bound))) for bound in (*bounds, float("inf"))
    ]
    if metric not in IN_PROGRESS:
        return total, *buckets, created
    gauge_name = prefix + IN_PROGRESS[metric].name
    gauge = _value(IN_PROGRESS[metric], gauge_name, gauge_name, labels, mode="livesum")
    return _BegunCell(buckets, gauge), total, *[_BucketCell(bucket, gauge) for bucket in buckets], created


def _value(metric: Metric, family: str, name: str, labels: tuple[str, ...], *, mode: str = "") -> Any:
    make: Any = values.ValueClass
    named = metric.named(labels)
    return make(metric.type, family, name, tuple(named), tuple(named.values()), metric.help, multiprocess_mode=mode)
