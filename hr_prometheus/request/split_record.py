"""The record of requests whose latencies are split by outcome, or by status and scheme."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from hr_prometheus.labels.statuses import status_label
from hr_prometheus.metrics import ERROR, OK, OUTCOME, STATUS, URL_SCHEME

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    from aiohttp.web import BaseRequest

    from hr_prometheus.request.exchange import Exchange
    from hr_prometheus.request.records import Records, RequestRecord

    class HasRequest(Protocol):
        """What stands for one request: an exchange or a monitor."""

        @property
        def request(self) -> BaseRequest:
            """The request."""


#: The status of most requests; those in progress are counted as if they will have it.
USUAL_STATUS = "200"


class _RecordsByStatus(dict[str, "RequestRecord"]):
    """The records of the requests with the same labels and the same scheme, by status. Several may have one record."""

    def __init__(self, make: Callable[[tuple[str, ...]], RequestRecord], records: Records, scheme: str) -> None:
        self._make = make
        self._by_outcome, self._by_status = records.latency_by_status, records.naming.is_by_status
        self._scheme = scheme
        self._records: dict[tuple[str, ...], RequestRecord] = {}
        self.usual = self[USUAL_STATUS]  #: in which a request is in progress

    def __missing__(self, status: str) -> RequestRecord:
        label = status_label(status)
        split: tuple[str, ...] = ()
        if self._by_outcome:
            split += OUTCOME, OK if label < "500" else ERROR
        if self._by_status:
            split += STATUS, label, URL_SCHEME, self._scheme
        if split not in self._records:
            self._records[split] = self._make(split)
        if label == status:  # there is no end of others
            self[status] = self._records[split]
        return self._records[split]


class SplitRecord:
    """The numbers of the requests with one method and path, whose latencies are split by outcome, or by status and scheme.

    There is a record for each. A request is in progress in that of the usual status. If it ends with another one, it moves.
    """

    def __init__(self, records: Records, labels: tuple[str, ...], bounds: tuple[float, ...]) -> None:
        self.labels = labels
        self._make = partial(_RecordsByStatus, partial(records.unsplit, labels, bounds), records)
        self._http = self._make("http")
        self._has_schemes = records.naming.is_by_status
        self._https: _RecordsByStatus | None = None
        self.loop_time, self.measure = self._http.usual.loop_time, self._http.usual.measure
        self.store = records.full

    def _of(self, exchange: HasRequest | None) -> _RecordsByStatus:
        if not self._has_schemes or exchange is None or exchange.request.scheme != "https":
            return self._http
        if self._https is None:
            self._https = self._make("https")
        return self._https

    def begin(self, exchange: HasRequest | None = None) -> None:
        """Count one request more in progress."""
        self._of(exchange).usual.begin()

    def leave(self, exchange: HasRequest | None = None) -> None:
        """Count one request less in progress, and nothing else."""
        self._of(exchange).usual.leave()

    def _move(self, exchange: HasRequest | None, status: str) -> RequestRecord:
        """Have a request go over to the record of its *status*, and return that."""
        records = self._of(exchange)
        try:
            record = records[status]
        except BaseException:
            records.usual.leave()
            raise
        if record is not records.usual:
            records.usual.leave()
            record.begin()
        return record

    def end(self, exchange: Exchange, status: str, seconds: float) -> None:
        """Count a request in progress as ended with *status* after some *seconds*."""
        self._move(exchange, status).end(exchange, status, seconds)

    def finish(self, status: str, seconds: float, exchange: HasRequest | None = None) -> None:
        """Count a request in progress as ended, without an exchange."""
        self._move(exchange, status).finish(status, seconds, exchange)
