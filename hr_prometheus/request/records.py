"""The records of requests: handles on the series of their labels, kept by labels."""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, Any

from aiohttp import EMPTY_PAYLOAD

from hr_prometheus.errors import ConfigurationError, did_you_mean
from hr_prometheus.metrics import (
    BASIC,
    DETAILS,
    FULL,
    LATENCY_BUCKETS,
    REQUEST_COUNT,
    REQUEST_FIRST_BYTE_LATENCY,
    REQUEST_LATENCY,
    REQUEST_LOOP_TIME,
    REQUEST_SIZE,
    RESPONSE_SIZE,
    SIZE_BUCKETS,
)
from hr_prometheus.request.body import receive, response_size
from hr_prometheus.request.incomplete import CLIENT_CLOSED_REQUEST, SWITCHING_PROTOCOLS
from hr_prometheus.store.store import basic_store, full_store

if TYPE_CHECKING:
    from collections.abc import Sequence

    from prometheus_client import CollectorRegistry

    from hr_prometheus.request.exchange import Exchange
    from hr_prometheus.store.cells import Cells, Page
    from hr_prometheus.store.store import Store


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
                f'detail="{detail}": unknown detail level.{did_you_mean(detail, DETAILS)} Expected one of {", ".join(DETAILS)}.'
            )
        self.basic = basic_store(registry, prefix=prefix, buckets=buckets)
        self.full = full_store(registry, prefix=prefix, buckets=buckets) if detail == FULL else None

    def request(self, labels: tuple[str, ...]) -> RequestRecord:
        """Return a record of the requests with these labels: method, path, and names and values of extra ones.

        All records of the same labels write to the same cells.
        """
        return RequestRecord(self, labels) if self.full is None else DetailedRequestRecord(self, labels, self.full)


class _StatusCells(dict[str, "tuple[Page, int]"]):
    """The cells of a request counter by status, which are made when they are first needed."""

    def __init__(self, store: Store, labels: tuple[str, ...]) -> None:
        self._store = store
        self._own, self._extra = labels[:2], labels[2:]

    def __missing__(self, status: str) -> tuple[Page, int]:
        # A status may come from a client, by way of a handler.
        if not (len(status) == 3 and status.isdecimal() and "100" <= status <= "599"):
            return self._store.allocate(REQUEST_COUNT, (*self._own, "other", *self._extra))
        cells = self[status] = self._store.allocate(REQUEST_COUNT, (*self._own, status, *self._extra))
        return cells


class RequestRecord:
    """The numbers of the requests with one method and path.

    ``latency`` is the first cell of their histogram on ``page``. The cell before it counts the requests that have begun.
    """

    __slots__ = ("bounds", "labels", "latency", "loop_time", "page", "statuses")

    def __init__(self, records: Records, labels: tuple[str, ...]) -> None:
        self.labels = labels
        self.loop_time: Cells | None = None
        self.page, self.latency = records.basic.allocate(REQUEST_LATENCY, labels)
        self.bounds = records.basic.latency_buckets
        self.statuses = _StatusCells(records.basic, labels)

    def begin(self, _exchange: Exchange | None = None) -> None:
        """Count one request more in progress."""
        self.page[self.latency - 1] += 1.0

    def leave(self) -> None:
        """Count one request less in progress, and nothing else."""
        self.page[self.latency - 1] -= 1.0

    def end(self, _exchange: Exchange | None, status: str, seconds: float) -> None:
        """Count a request in progress as ended with *status* after some *seconds*."""
        try:
            page, cell = self.statuses[status]
        except BaseException:
            self.leave()
            raise
        page[cell] += 1.0
        if status == SWITCHING_PROTOCOLS:  # which lasts as long as its ends like
            self.leave()
            return
        page, first = self.page, self.latency
        bucket = first + 1 + bisect_left(self.bounds, seconds)
        page[first] += seconds  # no call between the two, so that other threads see both or neither
        page[bucket] += 1.0

    def finish(self, status: str, seconds: float) -> None:
        """Count a request in progress as ended, without an exchange."""
        RequestRecord.end(self, None, status, seconds)

    def measure(self, first_byte: float | None, sent: int | None, received: int | None) -> None:
        """Observe the seconds until the first byte and the bytes of both bodies; ``None`` is not known."""


class DetailedRequestRecord(RequestRecord):
    """The same, with the first byte, the sizes of both bodies, and WebSockets."""

    __slots__ = ("_cells", "store")

    def __init__(self, records: Records, labels: tuple[str, ...], store: Store) -> None:
        super().__init__(records, labels)
        self.store = store
        self.loop_time = store.allocate(REQUEST_LOOP_TIME, labels)
        self._cells: tuple[Page, int, Page, int, Page, int] | None = None

    def end(self, exchange: Any, status: str, seconds: float) -> None:
        """Count a request that has begun, and measure it."""
        RequestRecord.end(self, exchange, status, seconds)
        websocket = exchange.websocket
        if status == SWITCHING_PROTOCOLS:
            if websocket is not None:
                websocket.finish(exchange.response)
            return
        if websocket is not None:
            websocket.abandon()
        content = exchange.request.content
        has_body = content is not EMPTY_PAYLOAD
        sent: int | None = exchange.sent
        if not sent or exchange.encoded is not None:
            sent = response_size(exchange)
        first = exchange.first_byte_at
        self.measure(first - exchange.began if first else None, sent, None if has_body else 0)
        if has_body:
            receive(content, self._received, is_over=status == CLIENT_CLOSED_REQUEST)

    def measure(self, first_byte: float | None, sent: int | None, received: int | None) -> None:
        """Observe the seconds until the first byte and the bytes of both bodies; ``None`` is not known."""
        page, first, sent_page, sent_first, received_page, received_first = self._cells or self._make_cells()
        if first_byte is not None:
            bucket = first + 1 + bisect_left(self.bounds, first_byte)
            page[first] += first_byte  # as above
            page[bucket] += 1.0
        if sent is not None:
            bucket = sent_first + 1 + bisect_left(SIZE_BUCKETS, sent)
            sent_page[sent_first] += sent
            sent_page[bucket] += 1.0
        if received:
            bucket = received_first + 1 + bisect_left(SIZE_BUCKETS, received)
            received_page[received_first] += received
            received_page[bucket] += 1.0
        elif received is not None:  # most requests have no body
            received_page[received_first + 1] += 1.0

    def _received(self, size: int) -> None:
        self.measure(None, None, size)

    def _make_cells(self) -> tuple[Page, int, Page, int, Page, int]:
        metrics = (REQUEST_FIRST_BYTE_LATENCY, RESPONSE_SIZE, REQUEST_SIZE)
        (page, first), (sent, sent_first), (received, received_first) = (
            self.store.allocate(metric, self.labels) for metric in metrics
        )
        self._cells = page, first, sent, sent_first, received, received_first
        return self._cells
