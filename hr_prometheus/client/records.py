"""The records of a client's requests: handles on the series of their labels."""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING

from hr_prometheus.metrics import (
    CLIENT_REDIRECTS,
    CLIENT_REQUEST_COUNT,
    CLIENT_REQUEST_ERRORS,
    CLIENT_REQUEST_FIRST_BYTE_LATENCY,
    CLIENT_REQUEST_LATENCY,
    CLIENT_REQUESTS_IN_PROGRESS,
    CLIENT_RESPONSE_SIZE,
)
from hr_prometheus.store.bounds import cell_bounds

if TYPE_CHECKING:
    from typing import TypeAlias

    from hr_prometheus.metric import Metric
    from hr_prometheus.store.cells import Cells, Page
    from hr_prometheus.store.store import Store

    #: The page and the first cell of a series, and the bounds of its cells.
    _Histogram: TypeAlias = tuple[Page, int, tuple[float, ...]]


class CallRecord:
    """The numbers of the requests of one *client* with one method to one host; *extra* are names and values of more labels."""

    __slots__ = (
        "_cells",
        "_client",
        "_extra",
        "_first_byte",
        "_host",
        "_latency",
        "_method",
        "_progress",
        "_size",
        "_store",
    )

    def __init__(self, store: Store, client: str, method: str, host: str, extra: tuple[str, ...] = ()) -> None:
        self._store, self._client, self._method, self._host, self._extra = store, client, method, host, extra
        labels = (client, method, host, *extra)
        self._progress = store.allocate(CLIENT_REQUESTS_IN_PROGRESS, (client, host, *extra))
        self._latency = _histogram(store, CLIENT_REQUEST_LATENCY, labels)
        self._first_byte = _histogram(store, CLIENT_REQUEST_FIRST_BYTE_LATENCY, labels)
        self._size = _histogram(store, CLIENT_RESPONSE_SIZE, labels)
        #: The cells of counters, by metric and label; they are made when they are first needed.
        self._cells: dict[tuple[Metric, str], Cells] = {}

    def begin(self) -> None:
        """Count one request more in progress."""
        page, index = self._progress
        page[index] += 1.0

    def leave(self) -> None:
        """Count one request less in progress, and nothing else."""
        page, index = self._progress
        page[index] -= 1.0

    def redirect(self) -> None:
        """Count one redirect."""
        self._count(CLIENT_REDIRECTS, "", (self._client, self._host, *self._extra))

    def upgrade(self) -> None:
        """Count a request in progress as ended: its connection goes on as a WebSocket's."""
        self.leave()
        self._count_status("101")

    def head(self, seconds: float) -> None:
        """Observe the seconds until the head of a response."""
        _observe(self._first_byte, seconds)

    def end(self, status: str, reason: str | None, seconds: float, size: int | None) -> None:
        """Count a request in progress as ended.

        *reason* is why it failed, if it did, and *size* the bytes of the body, if there was a head.
        """
        self.leave()
        self._count_status(status)
        if reason is not None and not status.startswith("5"):  # the status says already that it has failed
            self._count(CLIENT_REQUEST_ERRORS, reason, (self._client, self._host, reason, *self._extra))
        _observe(self._latency, seconds)
        if size is not None:
            _observe(self._size, size)

    def _count_status(self, status: str) -> None:
        self._count(CLIENT_REQUEST_COUNT, status, (self._client, self._method, self._host, status, *self._extra))

    def _count(self, metric: Metric, label: str, labels: tuple[str, ...]) -> None:
        cells = self._cells.get((metric, label))
        if cells is None:
            cells = self._cells[metric, label] = self._store.allocate(metric, labels)
        page, index = cells
        page[index] += 1.0


def _histogram(store: Store, metric: Metric, labels: tuple[str, ...]) -> _Histogram:
    (page, first), bounds = store.allocate_histogram(metric, labels)
    return page, first, cell_bounds(bounds)


def _observe(histogram: _Histogram, value: float) -> None:
    page, first, bounds = histogram
    bucket = first + 1 + bisect_left(bounds, value)
    page[first] += value  # no call between the two, so that other threads see both or neither
    page[bucket] += 1.0
