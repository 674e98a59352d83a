"""What is written for a request: handles on its series, found once and then kept by labels."""

from __future__ import annotations

from bisect import bisect_left
from time import perf_counter
from typing import TYPE_CHECKING, Any

from hr_prometheus.catalog import (
    BASIC,
    DETAILS,
    FULL,
    LATENCY_BUCKETS,
    REQUEST_COUNT,
    REQUEST_FIRST_BYTE_LATENCY,
    REQUEST_LATENCY,
    REQUEST_SIZE,
    REQUESTS_IN_PROGRESS,
    RESPONSE_SIZE,
    WEBSOCKET_CLOSES,
    WEBSOCKET_DURATION,
    WEBSOCKETS_IN_PROGRESS,
)
from hr_prometheus.errors import ConfigurationError, did_you_mean
from hr_prometheus.life import SWITCHING_PROTOCOLS, has_no_body
from hr_prometheus.series import basic_store, full_store

if TYPE_CHECKING:
    from collections.abc import Sequence

    from prometheus_client import CollectorRegistry

    from hr_prometheus.catalog import Metric
    from hr_prometheus.series import Page, Store


class Records:
    """The records of the requests and WebSockets in one registry, under one prefix.

    *detail* is ``basic`` or ``full``; *buckets* are the upper bounds of the latencies in seconds.
    Raises :exc:`~hr_prometheus.errors.ConfigurationError` for wrong options and for names that are taken.
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        *,
        prefix: str = "",
        buckets: Sequence[float] = LATENCY_BUCKETS,
        detail: str = BASIC,
    ) -> None:
        if detail not in DETAILS:
            raise ConfigurationError(
                f'the detail "{detail}" is none.{did_you_mean(detail, DETAILS)} Expected one of {", ".join(DETAILS)}.'
            )
        self.basic = basic_store(registry, prefix=prefix, buckets=buckets)
        self.full = full_store(registry, prefix=prefix, buckets=buckets) if detail == FULL else None

    def request(self, labels: tuple[str, str]) -> RequestRecord:
        """Return a record of the requests with these labels, ``(method, path)``. All of them write to the same cells."""
        return RequestRecord(self, labels)

    def websocket(self, path: str) -> WebSocketRecord:
        """Return a record of the WebSockets of one path."""
        return WebSocketRecord(self, path)


class Histogram:
    """One series of a histogram."""

    __slots__ = ("bounds", "first", "page", "sum")

    def __init__(self, store: Store, metric: Metric, labels: tuple[str, ...]) -> None:
        self.bounds = store.buckets(metric)
        self.page, self.first = store.cells(metric, labels)
        self.sum = self.first + len(self.bounds) + 1

    def observe(self, value: float) -> None:
        """Count one *value*, in the metric's unit."""
        self.page[self.first + bisect_left(self.bounds, value)] += 1.0
        self.page[self.sum] += value


_NONE: dict[int, tuple[Page, int]] = {}  # is never written to
#: How many statuses of a route may take the short way besides the first.
_MOST_OTHERS = 9


class RequestRecord:
    """The numbers of the requests with one method and path.

    What is called for every request is written out for that: every cell is reached by an index that was found before.
    ``status`` is the first for which all series exist, so that what is called *plainly* can be, and ``cells`` are its
    own; ``others`` has those of further such statuses. All are of responses with a body.
    """

    __slots__ = (
        "_first_byte",
        "_labels",
        "_latency",
        "_received",
        "_records",
        "_sent",
        "cells",
        "others",
        "progress",
        "progress_page",
        "status",
    )

    def __init__(self, records: Records, labels: tuple[str, str]) -> None:
        self._records = records
        self._labels = labels
        self.progress_page, self.progress = records.basic.cells(REQUESTS_IN_PROGRESS, labels)
        self.status = 0
        self.cells: tuple[Page, int] | None = None
        self.others: dict[int, tuple[Page, int]] = _NONE
        # Made when there is something to observe: an upgrade has none of these.
        self._latency: Histogram | None = None
        self._first_byte: Histogram | None = None
        self._sent: Histogram | None = None
        self._received: Histogram | None = None

    def begin(self) -> float:
        """Count one request more in progress, and return the time."""
        self.progress_page[self.progress] += 1.0
        return perf_counter()

    def leave(self) -> None:
        """Count one request less in progress."""
        self.progress_page[self.progress] -= 1.0

    def end(self, status: int, seconds: float) -> None:
        """Count a request with its *status* and its duration in *seconds*, and one less in progress."""
        self.leave()
        self.count(status, seconds)
        made = (self._latency, self._first_byte, self._sent, self._received)[: 1 if self._records.full is None else 4]
        if None in made or status in (self.status, *self.others) or has_no_body(self._labels[0], status):
            return
        if self.cells is None:
            self.status, self.cells = status, self._status(status)
        elif len(self.others) < _MOST_OTHERS:
            self.others = {**self.others, status: self._status(status)}

    def end_plainly(self, cells: tuple[Page, int], seconds: float) -> None:
        """Do the same for a request whose status is complete and has *cells*."""
        self.progress_page[self.progress] -= 1.0
        page, index = cells
        page[index] += 1.0
        histogram: Any = self._latency
        page = histogram.page
        page[histogram.first + bisect_left(histogram.bounds, seconds)] += 1.0
        page[histogram.sum] += seconds

    def end_fully(
        self, cells: tuple[Page, int], seconds: float, first_byte: float, size: int, *, has_body: bool
    ) -> None:
        """Do the same, and observe a response of *size* bytes, the first of which left after *first_byte* seconds.

        *has_body* is whether the request has a body, which is then counted by :meth:`receive`.
        """
        self.end_plainly(cells, seconds)
        histogram: Any = self._first_byte
        page = histogram.page
        page[histogram.first + bisect_left(histogram.bounds, first_byte)] += 1.0
        page[histogram.sum] += first_byte
        histogram = self._sent
        page = histogram.page
        page[histogram.first + bisect_left(histogram.bounds, size)] += 1.0
        page[histogram.sum] += size
        if not has_body:
            histogram = self._received
            histogram.page[histogram.first] += 1.0

    def count(self, status: int, seconds: float) -> None:
        """Count an ended request with its *status* and its duration in *seconds*, whether or not it has begun."""
        page, index = self._status(status)
        page[index] += 1.0
        self._observe(status, seconds)

    def _observe(self, status: int, seconds: float) -> None:
        """Observe a duration in *seconds*, unless it is that of an upgrade, which lasts as long as its ends like."""
        if status == SWITCHING_PROTOCOLS:
            return
        if self._latency is None:
            self._latency = Histogram(self._records.basic, REQUEST_LATENCY, self._labels)
        self._latency.observe(seconds)

    def measure(self, first_byte: float | None, sent: int | None) -> None:
        """Observe the seconds until the *first byte* and the body bytes *sent*; ``None`` is not known."""
        if self._first_byte is None or self._sent is None:
            self._first_byte = Histogram(self._full(), REQUEST_FIRST_BYTE_LATENCY, self._labels)
            self._sent = Histogram(self._full(), RESPONSE_SIZE, self._labels)
        if first_byte is not None:
            self._first_byte.observe(first_byte)
        if sent is not None:
            self._sent.observe(sent)

    def receive(self, size: int) -> None:
        """Observe the *size* of a request's body in bytes."""
        if self._received is None:
            self._received = Histogram(self._full(), REQUEST_SIZE, self._labels)
        self._received.observe(size)

    def websocket(self) -> WebSocketRecord:
        """Return the record of the WebSockets that these requests became."""
        return self._records.websocket(self._labels[1])

    def _status(self, status: int) -> tuple[Page, int]:
        # A status may come from a client, by way of a handler.
        label = str(status) if 100 <= status <= 599 else "other"
        return self._records.basic.cells(REQUEST_COUNT, (*self._labels, label))

    def _full(self) -> Store:
        assert self._records.full is not None  # noqa: S101  # only a full record is measured
        return self._records.full


class WebSocketRecord:
    """The numbers of the WebSockets of one path."""

    __slots__ = ("_closes", "_duration", "_path", "_progress", "_store")

    def __init__(self, records: Records, path: str) -> None:
        assert records.full is not None  # noqa: S101  # as above
        self._store = store = records.full
        self._path = path
        self._progress: tuple[Page, int] = store.cells(WEBSOCKETS_IN_PROGRESS, (path,))
        self._duration = Histogram(store, WEBSOCKET_DURATION, (path,))

    def begin(self) -> None:
        """Count one connection more that is open."""
        page, index = self._progress
        page[index] += 1.0

    def leave(self) -> None:
        """Count one connection less that is open."""
        page, index = self._progress
        page[index] -= 1.0

    def end(self, seconds: float, code: int | None) -> None:
        """Count a connection that was open for some *seconds* and was closed with *code*."""
        self.leave()
        self._duration.observe(seconds)
        page, index = self._store.cells(WEBSOCKET_CLOSES, (self._path, _code_label(code)))
        page[index] += 1.0


def _code_label(code: int | None) -> str:
    """Return the label of a close code; those that a peer may invent have one for each thousand.

    The registered codes are 1000 to 1015, 3000 to 3999 belong to libraries and 4000 to 4999 to applications
    (RFC 6455, 7.4). A connection without a close code was closed abnormally, which is 1006 (7.1.5).
    """
    if code is None:
        return "1006"
    if 1000 <= code <= 1015:
        return str(code)
    return f"{code // 1000}xxx" if 3000 <= code <= 4999 else "other"
