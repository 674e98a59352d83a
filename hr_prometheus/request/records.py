"""The records of requests: handles on the series of their labels, kept by labels."""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, Any, cast

from aiohttp import EMPTY_PAYLOAD

from hr_prometheus.buckets import LatencyBuckets
from hr_prometheus.errors import ConfigurationError, SettingError, did_you_mean
from hr_prometheus.labels.statuses import status_label
from hr_prometheus.metric import LATENCY_BUCKETS, SIZE_BUCKETS
from hr_prometheus.metrics import (
    BASIC,
    DETAILS,
    FULL,
    NO_EXEMPLARS,
    REQUEST_COUNT,
    REQUEST_FIRST_BYTE_LATENCY,
    REQUEST_LATENCY,
    REQUEST_LOOP_TIME,
    REQUEST_SIZE,
    RESPONSE_SIZE,
)
from hr_prometheus.names import DEFAULT_NAMES, Naming, checked_names, checked_prefix
from hr_prometheus.request.body import await_body, received_size, response_size
from hr_prometheus.request.incomplete import CLIENT_CLOSED_REQUEST, SWITCHING_PROTOCOLS
from hr_prometheus.request.split_record import SplitRecord
from hr_prometheus.request.traced_records import trace_finder, traced
from hr_prometheus.store.bounds import BOTH, OFF, ONLY, cell_bounds, classic_bounds
from hr_prometheus.store.store import basic_store, full_store, make_native

if TYPE_CHECKING:
    from collections.abc import Sequence

    from prometheus_client import CollectorRegistry

    from hr_prometheus.buckets import Buckets
    from hr_prometheus.request.exchange import Exchange
    from hr_prometheus.request.split_record import HasRequest
    from hr_prometheus.store.cells import Cells, Page
    from hr_prometheus.store.store import Store

#: The bounds of sizes, whole as the sizes are: Python compares two integers faster than an integer and a float.
_SIZE_BOUNDS = tuple(int(bound) for bound in SIZE_BUCKETS)


class Records:
    """The records of the requests and WebSockets in one registry, under one prefix.

    *detail* is ``basic`` or ``full``; *buckets* are the upper bounds of the latencies in seconds, of all routes or by route
    name; *names* are name sets. With *latency_by_status* latencies are split by outcome. With *native_histograms* all histograms
    are native ones as well, which protocol buffers have in place of the classic ones, or with them if it is ``both``. *exemplars*
    is where the traces of requests are taken from, or ``off``.
    Raises :exc:`~hr_prometheus.errors.ConfigurationError` for wrong options and for names that are taken.
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        *,
        prefix: str = "",
        buckets: Buckets = LATENCY_BUCKETS,
        detail: str = BASIC,
        names: Sequence[str] = DEFAULT_NAMES,
        latency_by_status: bool = False,
        native_histograms: bool | str = False,
        exemplars: str = NO_EXEMPLARS,
    ) -> None:
        if detail not in DETAILS:
            raise ConfigurationError(
                f'detail="{detail}": unknown detail level.{did_you_mean(detail, DETAILS)} Expected one of {", ".join(DETAILS)}.'
            )
        self.naming = Naming(checked_prefix(prefix), checked_names(names))
        self.buckets = LatencyBuckets(buckets)
        self.latency_by_status = latency_by_status
        self.native = _checked_mode(native_histograms)
        self.exemplars, self.find_trace = exemplars, trace_finder(exemplars)
        options: dict[str, Any] = {"naming": self.naming, "buckets": self.buckets.others, "native": self.native}
        self.basic = basic_store(registry, **options)
        self.full = full_store(registry, **options) if detail == FULL else None
        make_native(registry, self.native)
        #: Whether it is counted for how long requests hold the event loop, with full detail.
        self.has_loop_time = True

    def request(self, labels: tuple[str, ...], route: str | None = None) -> RequestRecord | SplitRecord:
        """Return a record of the requests with these labels: method, path, and names and values of extra ones.

        All records of the same labels write to the same cells. *route* is the name of their route.
        """
        bounds = self.buckets.of(route)
        if self.latency_by_status or self.naming.is_by_status:
            return SplitRecord(self, labels, bounds)
        return self.unsplit(labels, bounds)

    def unsplit(self, labels: tuple[str, ...], bounds: tuple[float, ...], split: tuple[str, ...] = ()) -> RequestRecord:
        """Return a record with one histogram of latencies, whose series has the labels *split* as well."""
        kind: Any = RequestRecord if self.full is None else DetailedRequestRecord
        if self.find_trace is not None:
            kind = traced(kind)
        record: RequestRecord = kind(self, labels, bounds, split)
        return record


def _checked_mode(native_histograms: object) -> str:
    """Return the mode of native histograms. Raises :exc:`~hr_prometheus.errors.ConfigurationError` for anything else."""
    if native_histograms is True:
        return ONLY
    if not native_histograms:
        return OFF
    if native_histograms not in (ONLY, BOTH):
        problem = " is not understood. Expected True, False or "
        raise SettingError(
            "native_histograms",
            f"native_histograms={native_histograms!r}",
            problem,
            advice='"both".',
            command_advice="both.",
        )
    return str(native_histograms)


class _StatusCells(dict[str, "tuple[Page, int]"]):
    """The cells of a request counter by status, which are made when they are first needed."""

    def __init__(self, store: Store, labels: tuple[str, ...]) -> None:
        self._store = store
        self._own, self._extra = labels[:2], labels[2:]

    def __missing__(self, status: str) -> tuple[Page, int]:
        label = status_label(status)
        cells = self._store.allocate(REQUEST_COUNT, (*self._own, label, *self._extra))
        if label == status:  # there is no end of others
            self[status] = cells
        return cells


class RequestRecord:
    """The numbers of the requests with one method and path.

    ``latency`` is the first cell of their histogram on ``page``, ``bounds`` are those of its cells, and ``classic`` those of its
    classic buckets. The cell before it counts the requests that have begun.
    """

    __slots__ = ("bounds", "classic", "labels", "latency", "loop_time", "page", "statuses")

    def __init__(
        self, records: Records, labels: tuple[str, ...], bounds: tuple[float, ...], split: tuple[str, ...]
    ) -> None:
        self.labels = labels
        self.loop_time: Cells | None = None
        cells, bounds = records.basic.allocate_histogram(REQUEST_LATENCY, labels + split, bounds)
        self.page, self.latency = cells
        self.bounds, self.classic = cell_bounds(bounds), classic_bounds(bounds)
        self.statuses = _StatusCells(records.basic, labels)

    def begin(self, _exchange: HasRequest | None = None) -> None:
        """Count one request more in progress."""
        self.page[self.latency - 1] += 1.0

    def leave(self, _exchange: HasRequest | None = None) -> None:
        """Count one request less in progress, and nothing else."""
        self.page[self.latency - 1] -= 1.0

    def count(self, _exchange: Exchange | None, status: str, seconds: float) -> None:
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

    end = count

    def finish(self, status: str, seconds: float, _exchange: HasRequest | None = None) -> None:
        """Count a request in progress as ended, without an exchange."""
        RequestRecord.count(self, None, status, seconds)

    def measure(self, first_byte: float | None, sent: int | None, received: int | None) -> None:
        """Observe the seconds until the first byte and the bytes of both bodies; ``None`` is not known."""


class DetailedRequestRecord(RequestRecord):
    """The same, with the first byte, the sizes of both bodies, and WebSockets."""

    __slots__ = ("_cells", "_size_bounds", "store")

    def __init__(
        self, records: Records, labels: tuple[str, ...], bounds: tuple[float, ...], split: tuple[str, ...]
    ) -> None:
        super().__init__(records, labels, bounds, split)
        self.store = cast("Store", records.full)
        self._size_bounds = cell_bounds(self.store.bounds(RESPONSE_SIZE)) if records.native else _SIZE_BOUNDS
        if records.has_loop_time:
            self.loop_time = self.store.allocate(REQUEST_LOOP_TIME, labels)
        self._cells: tuple[Page, int, Page, int, Page, int] | None = None

    def end(self, exchange: Any, status: str, seconds: float) -> None:
        """Count a request that has begun, and measure it."""
        self.count(exchange, status, seconds)
        websocket = exchange.websocket
        if status == SWITCHING_PROTOCOLS:
            if websocket is not None:
                websocket.finish(exchange.response)
            return
        if websocket is not None:
            websocket.abandon()
        content = exchange.request.content
        received: int | None = 0
        if content is not EMPTY_PAYLOAD:
            received = received_size(content) if content.is_eof() or status == CLIENT_CLOSED_REQUEST else None
        sent: int | None = exchange.sent
        if not sent:
            sent = response_size(exchange)
        first = exchange.first_byte_at
        self.measure(first - exchange.began if first else None, sent, received)
        if received is None:
            await_body(content, self._received)

    def measure(self, first_byte: float | None, sent: int | None, received: int | None) -> None:
        """Observe the seconds until the first byte and the bytes of both bodies; ``None`` is not known."""
        page, first, sent_page, sent_first, received_page, received_first = self._cells or self._make_cells()
        if first_byte is not None:
            bucket = first + 1 + bisect_left(self.bounds, first_byte)
            page[first] += first_byte  # as above
            page[bucket] += 1.0
        if sent is not None:
            bucket = sent_first + 1 + bisect_left(self._size_bounds, sent)
            sent_page[sent_first] += sent
            sent_page[bucket] += 1.0
        if received:
            bucket = received_first + 1 + bisect_left(self._size_bounds, received)
            received_page[received_first] += received
            received_page[bucket] += 1.0
        elif received is not None:  # most requests have no body
            received_page[received_first + 1] += 1.0

    def _received(self, size: int) -> None:
        self.measure(None, None, size)

    def _make_cells(self) -> tuple[Page, int, Page, int, Page, int]:
        page, first = self.store.allocate(REQUEST_FIRST_BYTE_LATENCY, self.labels, self.classic)
        sent, sent_first = self.store.allocate(RESPONSE_SIZE, self.labels)
        received, received_first = self.store.allocate(REQUEST_SIZE, self.labels)
        self._cells = page, first, sent, sent_first, received, received_first
        return self._cells
