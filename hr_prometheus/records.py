"""What is written for a request: handles on its series, found once and then kept by labels."""

from __future__ import annotations

from bisect import bisect_left
from itertools import pairwise
from sys import intern
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
    RESPONSE_SIZE,
    SIZE_BUCKETS,
    WEBSOCKET_CLOSES,
    WEBSOCKET_DURATION,
    WEBSOCKETS_IN_PROGRESS,
)
from hr_prometheus.errors import ConfigurationError, did_you_mean
from hr_prometheus.life import SWITCHING_PROTOCOLS, has_no_body
from hr_prometheus.series import basic_store, full_store, observe

if TYPE_CHECKING:
    from collections.abc import Sequence

    from prometheus_client import CollectorRegistry

    from hr_prometheus.reading import Page
    from hr_prometheus.series import Store


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
                f'detail="{detail}" is none.{did_you_mean(detail, DETAILS)} Expected one of {", ".join(DETAILS)}.'
            )
        self.basic = basic_store(registry, prefix=prefix, buckets=buckets)
        self.full = full_store(registry, prefix=prefix, buckets=buckets) if detail == FULL else None

    def request(self, labels: tuple[str, str]) -> RequestRecord:
        """Return a record of the requests with these labels, ``(method, path)``. All of them write to the same cells."""
        return RequestRecord(self, labels)

    def websocket(self, path: str) -> WebSocketRecord:
        """Return a record of the WebSockets of one path."""
        return WebSocketRecord(self, path)


_NONE: dict[int, tuple[Page, int]] = {}  # is never written to
#: The most bytes of a body that are sent in the short way when sizes are measured: handed to the transport with the head,
#: they are all sent. Of more, its buffer (64 KiB in asyncio and uvloop) may let somebody wait, and a client may leave.
PLAIN_SIZE = 32768
#: By the size of such a body, which of the cells behind the sum counts it.
_OFFSETS = b"\1" + b"".join(
    bytes([offset]) * int(bound - lower)
    for offset, (lower, bound) in enumerate(pairwise((0.0, *SIZE_BUCKETS)), start=1)
    if lower < PLAIN_SIZE
)
#: How many statuses of a route may take the short way besides the first.
_MOST_OTHERS = 9


class RequestRecord:
    """The numbers of the requests with one method and path.

    The middleware writes to the cells itself, by page and index: ``latency`` is the first of the histogram, before which is
    the one of the requests that have begun, and ``ended`` counts the requests with ``status``. That is the first status for
    which all series exist; ``others`` has the cells of further ones. All are of responses with a body. ``details`` are what
    there is besides the basic metrics, ``None`` if nothing is.
    """

    __slots__ = (
        "_labels",
        "_records",
        "details",
        "ended",
        "ended_page",
        "latency",
        "others",
        "page",
        "status",
    )

    def __init__(self, records: Records, labels: tuple[str, str]) -> None:
        self._records = records
        self._labels = labels
        self.page, self.latency = records.basic.cells(REQUEST_LATENCY, labels)
        self.status: int | None = None
        self.ended_page: Any = None
        self.ended = 0
        self.others: dict[int, tuple[Page, int]] = _NONE
        self.details = None if records.full is None else Details(records.full, labels)

    def begin(self) -> float:
        """Count one request more in progress, and return the time."""
        self.page[self.latency - 1] += 1.0
        return perf_counter()

    def leave(self) -> None:
        """Count one request less in progress, of which nothing else is counted."""
        self.page[self.latency - 1] -= 1.0

    def count(self, status: int, seconds: float) -> None:
        """Count a request that has not begun, with its *status* and its duration in *seconds*."""
        self.begin()
        self.end(status, seconds)

    def end(self, status: int, seconds: float) -> None:
        """Count a request that has begun, with its *status* and its duration in *seconds*."""
        try:
            page, index = self._status(status)
            page[index] += 1.0
            if status != SWITCHING_PROTOCOLS:
                observe(self.page, self.latency, self._records.basic.latency_buckets, seconds)
            else:  # which lasts as long as its ends like
                self.leave()
        except BaseException:
            self.leave()
            raise

    def settle(self, status: int) -> None:
        """Let further requests with this *status* go the short way, if all of their series exist by now."""
        has_all = self.details is None or self.details.has_all()
        if not has_all or status in (self.status, *self.others) or has_no_body(self._labels[0], status):
            return
        if self.status is None:
            self.ended_page, self.ended = self._status(status)
            self.status = status
        elif len(self.others) < _MOST_OTHERS:
            self.others = {**self.others, status: self._status(status)}

    def websocket(self) -> WebSocketRecord:
        """Return the record of the WebSockets that these requests became."""
        return self._records.websocket(self._labels[1])

    def _status(self, status: int) -> tuple[Page, int]:
        # A status may come from a client, by way of a handler.
        label = intern(str(status)) if 100 <= status <= 599 else "other"
        return self._records.basic.cells(REQUEST_COUNT, (*self._labels, label))


class Details:
    """What is written of the same requests besides the basic metrics."""

    __slots__ = (
        "_bounds",
        "_first_byte",
        "_first_byte_page",
        "_labels",
        "_received",
        "_received_page",
        "_sent",
        "_sent_page",
        "_store",
    )

    def __init__(self, store: Store, labels: tuple[str, str]) -> None:
        self._store = store
        self._labels = labels
        self._bounds = store.latency_buckets
        # Made when there is something to observe, as above.
        self._first_byte_page: Any = None
        self._first_byte = 0
        self._sent_page: Any = None
        self._sent = 0
        self._received_page: Any = None
        self._received = 0

    def has_all(self) -> bool:
        """Whether all series exist, so that :meth:`measure_plainly` can be called."""
        return self._sent_page is not None and self._received_page is not None

    def measure_plainly(self, first_byte: float, latest: int, size: int, has_none: bool) -> None:
        """Observe the seconds until the *first byte*, whose bucket is none after the *latest*, and a response of *size* bytes.

        *has_none* is whether the request has no body; that of others is counted by :meth:`receive`.
        """
        page, index = self._first_byte_page, self._first_byte
        page[index] += first_byte
        page[index + (1 if latest == 1 else bisect_left(self._bounds, first_byte) + 1)] += 1.0
        page, index = self._sent_page, self._sent
        page[index] += size
        page[index + _OFFSETS[size]] += 1.0
        if has_none:
            self._received_page[self._received + 1] += 1.0

    def measure(self, first_byte: float | None, sent: int | None) -> None:
        """Observe the seconds until the *first byte* and the body bytes *sent*; ``None`` is not known."""
        if self._sent_page is None:
            self._first_byte_page, self._first_byte = self._store.cells(REQUEST_FIRST_BYTE_LATENCY, self._labels)
            self._sent_page, self._sent = self._store.cells(RESPONSE_SIZE, self._labels)
        if first_byte is not None:
            observe(self._first_byte_page, self._first_byte, self._bounds, first_byte)
        if sent is not None:
            observe(self._sent_page, self._sent, SIZE_BUCKETS, sent)

    def receive(self, size: int) -> None:
        """Observe the *size* of a request's body in bytes."""
        if self._received_page is None:
            self._received_page, self._received = self._store.cells(REQUEST_SIZE, self._labels)
        observe(self._received_page, self._received, SIZE_BUCKETS, size)


class WebSocketRecord:
    """The numbers of the WebSockets of one path."""

    __slots__ = ("_path", "_progress", "_store")

    def __init__(self, records: Records, path: str) -> None:
        assert records.full is not None  # noqa: S101  # as above
        self._store = store = records.full
        self._path = path
        self._progress: tuple[Page, int] = store.cells(WEBSOCKETS_IN_PROGRESS, (path,))

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
        self._store.observe(WEBSOCKET_DURATION, (self._path,), seconds)
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
