"""Cells that are values of prometheus_client's, where it runs in its own multi-process mode.

That is so where ``PROMETHEUS_MULTIPROC_DIR`` is set and no worker of ours has taken over: gunicorn, for example, with a view of the
application's that reads a ``MultiProcessCollector``. prometheus_client then keeps each value in a file of the process, and
begins new files in a process that was forked. It takes longer than cells do.
"""

from __future__ import annotations

import logging
import os
import time
from typing import TYPE_CHECKING, Any, overload

from prometheus_client import values

from hr_prometheus.metrics import IN_PROGRESS, SCRAPE_LINES
from hr_prometheus.store.families import go_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hr_prometheus.metrics import Metric

logger = logging.getLogger("hr_prometheus")


def is_multiprocess() -> bool:
    """Whether prometheus_client keeps its values in files."""
    return bool(getattr(values.ValueClass, "_multiprocess", False))


class _Fixed:
    """A value of this process alone."""

    def __init__(self, value: float) -> None:
        self._value = value

    def get(self) -> float:
        return self._value

    def set(self, value: float) -> None:
        self._value = value


class _Begun:
    """What has begun, of which the file has only what is in progress. A process that was forked begins with nothing."""

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


class _Bucket:
    """What has ended, and so is no longer in progress."""

    def __init__(self, bucket: Any, gauge: Any) -> None:
        self._bucket, self._gauge = bucket, gauge

    def get(self) -> float:
        value: float = self._bucket.get()
        return value

    def set(self, value: float) -> None:
        self._gauge.inc(self.get() - value)
        self._bucket.set(value)


class ValuePage:
    """The cells of one series."""

    def __init__(self, cells: Sequence[Any]) -> None:
        self._cells = cells

    @overload
    def __getitem__(self, index: int, /) -> float: ...
    @overload
    def __getitem__(self, index: slice, /) -> list[float]: ...
    def __getitem__(self, index: int | slice, /) -> float | list[float]:
        """Return a number, or some."""
        if isinstance(index, slice):
            return [cell.get() for cell in self._cells[index]]
        value: float = self._cells[index].get()
        return value

    def __setitem__(self, index: int, value: float, /) -> None:
        """Set a number."""
        self._cells[index].set(value)


def value_page(metric: Metric, prefix: str, bounds: Sequence[float], labels: tuple[str, ...]) -> ValuePage:
    """Return the cells of a series. Raises what prometheus_client raises if it cannot make its file."""
    name = prefix + metric.name
    created = _Fixed(time.time())
    if metric.type != "histogram":
        mode = "livemax" if metric is SCRAPE_LINES else "livesum"
        return ValuePage([_value(metric, name, prefix + metric.exported_name, labels, mode=mode), created])
    total = _value(metric, name, f"{name}_sum", labels)
    buckets = [
        _value(metric, name, f"{name}_bucket", (*labels, go_text(bound)), more=("le",))
        for bound in (*bounds, float("inf"))
    ]
    if metric not in IN_PROGRESS:
        return ValuePage([total, *buckets, created])
    in_progress = IN_PROGRESS[metric]
    gauge_name = prefix + in_progress.name
    gauge = _value(in_progress, gauge_name, gauge_name, labels, mode="livesum")
    ended = [_Bucket(bucket, gauge) for bucket in buckets]
    return ValuePage([_Begun(buckets, gauge), total, *ended, created])


def _value(
    metric: Metric, family: str, name: str, labels: tuple[str, ...], *, mode: str = "", more: tuple[str, ...] = ()
) -> Any:
    make: Any = values.ValueClass
    names = (*metric.label_names(labels[: len(labels) - len(more)]), *more)
    return make(metric.type, family, name, names, labels, metric.help, multiprocess_mode=mode)
