"""One request of a client, from its start to the end of its response's body: what aiohttp's trace signals say of it.

The signals end with the response's head. When its connection is given back, closed or lost, the body has ended: read whole,
or broken off, released, closed, or dropped with the response.
"""

from __future__ import annotations

import sys
from asyncio import isfuture
from contextlib import suppress
from contextvars import Context
from time import perf_counter
from typing import TYPE_CHECKING, Any

from aiohttp import EMPTY_PAYLOAD

from hr_prometheus.client.reasons import NO_STATUS, OTHER, error_of_body, reason_of, status_of
from hr_prometheus.labels.statuses import status_label

if TYPE_CHECKING:
    from asyncio import Future
    from collections.abc import Callable

    from aiohttp import ClientResponse, StreamReader
    from aiohttp.connector import Connection

    from hr_prometheus.client.records import CallRecord

#: The status of a response after which the connection is a WebSocket's.
_SWITCHING_PROTOCOLS = 101


class Call:
    """One request. aiohttp makes it, as the context of the request's signals, and drops it with the response.

    ``record`` is where it is in progress, or ``None``. Once it has ended it keeps nothing of the response. Until then the
    response's own connection keeps the body.
    """

    __slots__ = (
        "_began", "_content", "_failed", "_lost", "_status", "connecting_since", "record", "resolving_since", "waiting_since",
    )  # fmt: skip

    def __init__(self, trace_request_ctx: object = None) -> None:  # noqa: ARG002  # which is the application's
        self.record: CallRecord | None = None
        #: When it began to wait for a connection, to connect, and to look a name up; 0.0 where it does not.
        self.waiting_since = self.connecting_since = self.resolving_since = 0.0
        self._status = NO_STATUS
        self._content: StreamReader | None = None
        self._lost: Future[None] | None = None

    def begin(self, record: CallRecord, failed: Callable[[BaseException], None]) -> None:
        """Begin; errors of ours after the last signal go to *failed*."""
        self._began = perf_counter()
        self._failed = failed
        record.begin()
        self.record = record

    def note_head(self, response: ClientResponse) -> None:
        """Note the head of the response; the end of the body follows."""
        record = self.record
        if record is None:
            return
        if response.status == _SWITCHING_PROTOCOLS:
            self.record = None
            record.upgrade()
            return
        self._status = status_label(str(response.status))
        record.head(perf_counter() - self._began)
        connection, content = response.connection, response.content
        if connection is None or content.is_eof() or content.exception() is not None:
            self._end_body(content, None)
        else:
            self._content = content
            self._watch(connection)

    def fail(self, error: BaseException) -> None:
        """End with an exception that the caller gets instead of the response."""
        record = self.record
        if record is None:  # another trace has failed after the head
            return
        status, reason = status_of(error), None
        if status is None:
            self._status, reason = NO_STATUS, reason_of(error)
        else:
            self._status = status_label(str(status))
            record.head(perf_counter() - self._began)
        self._end(reason, None)

    def give_up(self) -> None:
        """Leave, because recording has failed."""
        record = self._take_record()
        if record is not None:
            record.leave()

    def _watch(self, connection: Connection) -> None:
        """Wait until the connection is given back, closed or lost.

        One that breaks, or that its session closes, is given back with its response, which may be garbage long after. aiohttp
        3.11 does not say that it is lost.
        """
        connection.add_callback(self._note_release)
        lost = getattr(connection.protocol, "closed", None)
        if isfuture(lost):
            lost.remove_done_callback(_retrieve)  # of an earlier request
            lost.add_done_callback(_retrieve, context=Context())  # one of its own would be kept with the connection
            lost.add_done_callback(self._note_loss)
            self._lost = lost

    def _note_loss(self, _lost: Future[None]) -> None:
        self._end_released(None)

    def _note_release(self) -> None:
        """Note that the connection is given back or closed."""
        self._end_released(sys.exc_info()[1])

    def _end_released(self, raised: BaseException | None) -> None:
        try:
            if self._content is not None:
                self._end_body(self._content, raised)
        except Exception as error:  # noqa: BLE001  # nothing of ours may reach the application
            self.give_up()
            self._failed(error)

    def _end_body(self, content: StreamReader, raised: BaseException | None) -> None:
        error = error_of_body(content, raised)
        self._end(None if error is None else reason_of(error), received_size(content))

    def _end(self, reason: str | None, size: int | None) -> None:
        """Count it as ended, unless it is so already: garbage may be finalised in any order."""
        record = self._take_record()
        if record is not None:
            record.end(self._status, reason, perf_counter() - self._began, size)

    def _take_record(self) -> CallRecord | None:
        """Return where it is in progress, and keep nothing more of the request."""
        lost, record = self._lost, self.record
        self.record = self._content = self._lost = None
        if lost is not None:
            lost.remove_done_callback(self._note_loss)
        return record

    def __del__(self) -> None:
        with suppress(Exception):  # at the end of the process anything may be gone
            if self._content is not None:  # it is garbage with its response, whose connection says so too late
                self._end_released(None)
            else:  # aiohttp before 3.14 sends no further signal where another trace fails at the start
                self._end(OTHER, None)


def _retrieve(lost: Future[None]) -> None:
    """Look at why a connection was lost: asyncio logs an error at which nothing has looked."""
    if not lost.cancelled():
        lost.exception()


def received_size(content: Any) -> int:
    """Return the bytes of a body received so far: as they were sent, or decompressed with an older aiohttp."""
    if content is EMPTY_PAYLOAD:
        return 0
    size = getattr(content, "total_raw_bytes", None)
    return int(content.total_bytes if size is None else size)
