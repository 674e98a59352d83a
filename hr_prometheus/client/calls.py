"""One request of a client, from its start to the end of its response's body: what aiohttp's trace signals say of it.

The signals end with the response's head. When its connection is given back or closed, the body has ended: read whole, or
broken off, released, closed, or dropped with the response.
"""

from __future__ import annotations

from contextlib import suppress
from time import perf_counter
from typing import TYPE_CHECKING, Any
from weakref import ref

from aiohttp import EMPTY_PAYLOAD

from hr_prometheus.client.reasons import NO_STATUS, OTHER, error_of_body, reason_of, status_of
from hr_prometheus.labels.statuses import status_label

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiohttp import ClientResponse, StreamReader

    from hr_prometheus.client.records import CallRecord

#: The status of a response after which the connection is a WebSocket's.
_SWITCHING_PROTOCOLS = 101


class Call:
    """One request. aiohttp makes it, as the context of the request's signals, and drops it with the response.

    It keeps neither the response nor the session alive. ``record`` is where it is in progress, or ``None``.
    """

    __slots__ = (
        "_began", "_failed", "_response", "_status", "connecting_since", "record", "resolving_since", "waiting_since",
    )  # fmt: skip

    def __init__(self, trace_request_ctx: object = None) -> None:  # noqa: ARG002  # which is the application's
        self.record: CallRecord | None = None
        #: When it began to wait for a connection, to connect, and to look a name up; 0.0 where it does not.
        self.waiting_since = self.connecting_since = self.resolving_since = 0.0

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
        if connection is None or content.is_eof():
            self._end_body(content)
        else:
            self._response = ref(response)
            connection.add_callback(self._note_release)

    def fail(self, error: BaseException) -> None:
        """End with an exception that the caller gets instead of the response."""
        record = self.record
        if record is None:  # another trace has failed after the head
            return
        seconds = perf_counter() - self._began
        status, label, reason = status_of(error), NO_STATUS, None
        if status is None:
            reason = reason_of(error)
        else:
            label = status_label(str(status))
            record.head(seconds)
        self.record = None
        record.end(label, reason, seconds, None)

    def give_up(self) -> None:
        """Leave, because recording has failed."""
        if self.record is not None:
            record, self.record = self.record, None
            record.leave()

    def _note_release(self) -> None:
        """Note that the connection is given back or closed."""
        try:
            response = self._response()
            self._end_body(None if response is None else response.content)
        except Exception as error:  # noqa: BLE001  # nothing of ours may reach the application
            self.give_up()
            self._failed(error)

    def _end_body(self, content: StreamReader | None) -> None:
        record = self.record
        if record is None:
            return
        seconds = perf_counter() - self._began
        reason = size = None
        if content is not None:
            size = received_size(content)
            error = error_of_body(content)
            reason = None if error is None else reason_of(error)
        self.record = None
        record.end(self._status, reason, seconds, size)

    def __del__(self) -> None:
        # aiohttp before 3.14 sends no further signal where another trace fails at the start.
        if getattr(self, "record", None) is not None:
            with suppress(Exception):  # at the end of the process anything may be gone
                self.record.end(NO_STATUS, OTHER, perf_counter() - self._began, None)  # type: ignore[union-attr]


def received_size(content: Any) -> int:
    """Return the bytes of a body received so far: as they were sent, or decompressed with an older aiohttp."""
    if content is EMPTY_PAYLOAD:
        return 0
    size = getattr(content, "total_raw_bytes", None)
    return int(content.total_bytes if size is None else size)
