"""The lives of requests that are recorded: with the basic metrics, with all, or by a monitor of the user's."""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import TYPE_CHECKING, Protocol

from aiohttp.web import Response, StreamResponse, WebSocketResponse

from hr_prometheus.life import (
    SWITCHING_PROTOCOLS,
    Life,
    MeasuredLife,
    ended,
    has_no_body,
    received,
)

if TYPE_CHECKING:
    from aiohttp.web import Request

    from hr_prometheus.monitors import BaseRequestMonitor
    from hr_prometheus.records import RequestRecord


#: For how many seconds a request's body may still arrive after the response has left; aiohttp's server reads
#: and discards it for 10 by default.
_LINGERING = 11.0


class CountsErrors(Protocol):
    """What a life needs of the recorder that it belongs to."""

    def failed(self, where: str, error: Exception) -> None:
        """Count an exception that no client may see."""


class RecordedLife(Life):
    """A request that a recorder records."""

    recorder: CountsErrors
    record: RequestRecord

    def ended_at_once(self, response: Response) -> bool:
        """Record a response that leaves as it is returned; ``False`` if more is to come of the request after all."""
        raise NotImplementedError


class BasicLife(RecordedLife):
    """A request that the default monitor records, with the basic metrics."""

    def __init__(self, recorder: CountsErrors, request: Request, record: RequestRecord, began: float) -> None:
        self.recorder = recorder
        self.request = request
        self.record = record
        self.began = began

    def ended_at_once(self, response: Response) -> bool:
        """Record a response that leaves as it is returned, unless it is not the first."""
        if self.request.writer.output_size:
            return False
        self.leave()
        self.record.end(response.status, self.began)
        return True

    def ended(self, status: int) -> None:
        """Record the basic metrics."""
        try:
            self.record.end(status, self.began)
        except Exception as error:  # noqa: BLE001  # as in Recorder.find
            self.recorder.failed("end", error)


class FullLife(MeasuredLife, RecordedLife):
    """A request that the default monitor records, with all metrics."""

    def __init__(self, recorder: CountsErrors, request: Request, record: RequestRecord, began: float) -> None:
        self.recorder = recorder
        self.request = request
        self.record = record
        self.began = began
        self._writer = writer = request.writer
        also = getattr(writer, "on_body_write", None)  # as in follow(), written out
        if also is not None and isinstance(also, Life):
            self.also = also
        writer.on_body_write = self

    def ended_at_once(self, response: Response) -> bool:
        """Record a response that leaves as it is returned, unless it is not the first or its request is unfinished."""
        request, writer = self.request, self._writer
        content = request.content
        if writer.output_size or not content.is_eof():
            return False
        if writer.on_body_write is self:
            writer.on_body_write = ended
        status, body = response.status, response.body
        sent = 0 if body is None or has_no_body(request.method, status) else len(body)  # type: ignore[arg-type]
        self.record.end_at_once(status, self.began, sent, received(request) if content.total_bytes else 0)
        return True

    def prepared(self, response: StreamResponse) -> None:
        """Count a WebSocket as open from the moment at which it is one."""
        super().prepared(response)
        if isinstance(response, WebSocketResponse) and not self.upgraded_at and self.response is response:
            self.upgraded_at = perf_counter()
            self.record.websocket().begin()

    def ended(self, status: int) -> None:
        """Record all metrics."""
        now = perf_counter()
        try:
            self.record.end(status, self.began)
            if status != SWITCHING_PROTOCOLS:
                self.record.measure(self.first_byte(), self.sent())
                self._receive()
            elif isinstance(self.response, WebSocketResponse):
                if not self.upgraded_at:  # nobody told when it was prepared
                    self.upgraded_at = self.began
                    self.record.websocket().begin()
                self.record.websocket().end(now - self.upgraded_at, self.response.close_code)
        except Exception as error:  # noqa: BLE001  # as in Recorder.find
            self.recorder.failed("end", error)

    def _receive(self) -> None:
        """Count the request's body, once all of it has arrived or none of it can arrive any more."""
        if self.request.content.is_eof() or self.has_client_left:
            self.record.receive(received(self.request))
            return
        is_counted = False

        def arrived() -> None:
            nonlocal is_counted
            if not is_counted:
                is_counted = True
                self.record.receive(received(self.request))

        self.request.content.on_eof(arrived)
        asyncio.get_running_loop().call_later(_LINGERING, arrived)


class MonitoredLife(MeasuredLife, RecordedLife):
    """A request that a monitor object records."""

    monitor: BaseRequestMonitor

    def __init__(self, recorder: CountsErrors, request: Request, began: float) -> None:
        super().__init__(request, began)
        self.recorder = recorder

    def ended(self, status: int) -> None:
        """Show the monitor all that is known, and end it."""
        monitor = self.monitor
        try:
            monitor.elapsed = perf_counter() - self.began
            monitor.first_byte_elapsed = self.first_byte()
            monitor.request_size = received(self.request)
            monitor.response_size = self.sent()
            response = self.response
            monitor.response = response if isinstance(response, StreamResponse) else None
            monitor.observe(response if response is not None and response.status == status else _Outcome(status))
            monitor.__exit__(None, None, None)
        except Exception as error:  # noqa: BLE001  # as in Recorder.find
            self.recorder.failed("end", error)


class _Outcome:
    """Stands for the response of a request that has none, or whose client did not get it."""

    __slots__ = ("status",)

    def __init__(self, status: int) -> None:
        self.status = status
