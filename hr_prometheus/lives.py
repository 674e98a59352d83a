"""The lives of requests that are recorded: with the basic metrics, with all, or by a monitor of the user's."""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import TYPE_CHECKING, Any

from aiohttp import EMPTY_PAYLOAD
from aiohttp.web import StreamResponse, WebSocketResponse

from hr_prometheus.life import (
    SWITCHING_PROTOCOLS,
    Life,
    MeasuredLife,
    received,
)

if TYPE_CHECKING:
    from typing import Protocol

    from aiohttp.web import Request

    from hr_prometheus.life import HasStatus
    from hr_prometheus.monitors import BaseRequestMonitor
    from hr_prometheus.records import RequestRecord

    class CountsErrors(Protocol):
        """What a life needs of the recorder that it belongs to."""

        def failed(self, where: str, error: Exception) -> None:
            """Count an exception that no client may see."""

        def entered_monitor(self, request: Request, labels: tuple[str, str]) -> BaseRequestMonitor:
            """Make and enter the monitor of a request."""


#: For how many seconds a request's body may still arrive after the response has left; aiohttp's server reads
#: and discards it for 10 by default.
_LINGERING = 11.0


class RecordedLife(Life):
    """A request that a recorder records, with what was *found* for its labels."""

    recorder: CountsErrors
    found: Any
    is_plain = False  # whether the middleware sends the response itself

    def begin(self) -> None:
        """Begin the request."""
        raise NotImplementedError

    def sent_plainly(self, cells: Any, response: StreamResponse) -> None:
        """End with a *response* of bytes that the middleware has sent; *cells* are those of its status, ``None`` for a monitor."""
        raise NotImplementedError

    def let_go(self) -> None:
        """Be told of nothing more by the writer, which the request refers to as this life refers to the request."""
        writer = self.request.writer
        if getattr(writer, "on_body_write", None) is self:
            writer.on_body_write = None


class BasicLife(RecordedLife):
    """A request that the default monitor records, with the basic metrics."""

    found: RequestRecord

    def begin(self) -> None:
        """Count the request as in progress."""
        self.began = self.found.begin()

    def sent_plainly(self, cells: Any, response: StreamResponse) -> None:  # noqa: ARG002  # nothing of it
        """Record the basic metrics."""
        now = perf_counter()
        self.let_go()
        self.found.end_plainly(cells, now - self.began)

    def ended(self, status: int, now: float) -> None:
        """Record the basic metrics."""
        try:
            self.found.end(status, now - self.began)
        except Exception as error:  # noqa: BLE001  # as in Recorder.begin
            self.recorder.failed("end", error)


class FullLife(MeasuredLife, RecordedLife):
    """A request that the default monitor records, with all metrics."""

    found: RequestRecord

    def begin(self) -> None:
        """Count the request as in progress."""
        self.began = self.found.begin()

    def __call__(self, size: int, output_size: int) -> None:
        """Take note of a write. There is only one of a plain response."""
        if self.is_plain:
            self.first_byte_at = perf_counter()
            self._sent = size
        else:
            super().__call__(size, output_size)

    def sent_plainly(self, cells: Any, response: StreamResponse) -> None:
        """Record all metrics."""
        now, began, record = perf_counter(), self.began, self.found
        writer = self.request.writer
        if writer.on_body_write is self:
            writer.on_body_write = None
        has_body = self.request.content is not EMPTY_PAYLOAD
        # Before aiohttp 3.14.4 nobody tells of the write.
        size = self._sent or len(getattr(response, "body", b""))
        record.end_fully(cells, now - began, (self.first_byte_at or now) - began, size, has_body=has_body)
        if has_body:
            self.receive()

    def prepared(self, response: StreamResponse) -> None:
        """Count a WebSocket as open from the moment at which it is one."""
        super().prepared(response)
        if response.status == SWITCHING_PROTOCOLS and isinstance(response, WebSocketResponse) and not self.upgraded_at:
            self.upgraded_at = perf_counter()
            self.found.websocket().begin()

    def ended(self, status: int, now: float) -> None:
        """Record all metrics."""
        record = self.found
        try:
            record.end(status, now - self.began)
            if status != SWITCHING_PROTOCOLS:
                record.measure(self.first_byte(now), self.sent())
                self.receive()
                if self.upgraded_at:  # its preparation failed after it had been told
                    record.websocket().leave()
            elif isinstance(self.response, WebSocketResponse):
                if not self.upgraded_at:  # nobody told when it was prepared
                    self.upgraded_at = self.began
                    record.websocket().begin()
                record.websocket().end(now - self.upgraded_at, self.response.close_code)
        except Exception as error:  # noqa: BLE001  # as in Recorder.begin
            self.recorder.failed("end", error)

    def receive(self) -> None:
        """Count the request's body, once all of it has arrived or none of it can arrive any more."""
        content, record = self.request.content, self.found
        if self.has_client_left or content.is_eof():
            record.receive(received(content))
            return

        def arrived() -> None:  # keeps nothing of the request but the rest of its body
            if not given_up.cancelled():
                given_up.cancel()
                record.receive(received(content))

        given_up = asyncio.get_running_loop().call_later(_LINGERING, arrived)
        content.on_eof(arrived)


class MonitoredLife(MeasuredLife, RecordedLife):
    """A request that a monitor object records."""

    monitor: BaseRequestMonitor
    found: tuple[str, str]

    def begin(self) -> None:
        """Enter the request's monitor."""
        self.began = perf_counter()
        self.monitor = self.recorder.entered_monitor(self.request, self.found)

    def sent_plainly(self, cells: Any, response: StreamResponse) -> None:  # noqa: ARG002  # it has none
        """End the monitor."""
        now = perf_counter()
        self.let_go()
        self.response = response
        self._end(response, now - self.began, (self.first_byte_at or now) - self.began, self._sent or self.sent())

    def ended(self, status: int, now: float) -> None:
        """Show the monitor what is known of how the request ended."""
        response = self.response
        outcome = response if response is not None and response.status == status else _Outcome(status)
        self._end(outcome, now - self.began, self.first_byte(now), self.sent())

    def _end(self, outcome: HasStatus, elapsed: float, first_byte: float | None, sent: int | None) -> None:
        monitor, response, content = self.monitor, self.response, self.request.content
        try:
            monitor.elapsed = elapsed
            monitor.first_byte_elapsed = first_byte
            monitor.request_size = 0 if content is EMPTY_PAYLOAD else received(content)
            monitor.response_size = sent
            monitor.response = response if isinstance(response, StreamResponse) else None
            monitor.observe(outcome)
            monitor.__exit__(None, None, None)
        except Exception as error:  # noqa: BLE001  # as in Recorder.begin
            self.recorder.failed("end", error)


class _Outcome:
    """Stands for the response of a request that has none, or whose client did not get it."""

    __slots__ = ("status",)

    def __init__(self, status: int) -> None:
        self.status = status
