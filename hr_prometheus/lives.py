"""The lives of requests that are recorded: with the basic metrics, with all, or by a monitor of the user's."""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import TYPE_CHECKING, Any

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
    """A request that a recorder records."""

    recorder: CountsErrors

    def __init__(self, recorder: CountsErrors, request: Request, found: Any) -> None:
        """Begin *request*, with what was *found* for its labels."""


class BasicLife(RecordedLife):
    """A request that the default monitor records, with the basic metrics."""

    def __init__(self, recorder: CountsErrors, request: Request, record: RequestRecord) -> None:
        self.recorder = recorder
        self.request = request
        self.record = record
        self.began = record.begin()

    def task_done(self, task: asyncio.Task[Any]) -> None:
        """End with the result of aiohttp's task, which most often is the response that the client has got."""
        if self.response is None and not task.cancelled() and task.exception() is None:
            response, has_client_left = task.result()
            if not has_client_left:
                self.ended(response.status)
                return
        super().task_done(task)

    def ended(self, status: int) -> None:
        """Record the basic metrics."""
        try:
            self.record.end(status, self.began)
        except Exception as error:  # noqa: BLE001  # as in Recorder.begin
            self.recorder.failed("end", error)


class FollowingBasicLife(BasicLife):
    """The same, for a request whose response is told of when it is prepared."""

    def __init__(self, recorder: CountsErrors, request: Request, record: RequestRecord) -> None:
        super().__init__(recorder, request, record)
        self.follow()

    def task_done(self, task: asyncio.Task[Any]) -> None:
        """End with the result of aiohttp's task."""
        Life.task_done(self, task)


class FullLife(MeasuredLife, RecordedLife):
    """A request that the default monitor records, with all metrics."""

    def __init__(self, recorder: CountsErrors, request: Request, record: RequestRecord) -> None:
        self.recorder = recorder
        self.request = request
        self.record = record
        self.began = record.begin()
        writer = request.writer
        if getattr(writer, "on_body_write", None) is None:
            writer.on_body_write = self
        else:
            self.follow()

    def prepared(self, response: StreamResponse) -> None:
        """Count a WebSocket as open from the moment at which it is one."""
        super().prepared(response)
        if response.status == SWITCHING_PROTOCOLS and isinstance(response, WebSocketResponse) and not self.upgraded_at:
            self.upgraded_at = perf_counter()
            self.record.websocket().begin()

    def ended(self, status: int) -> None:
        """Record all metrics."""
        record = self.record
        try:
            first_byte = self.first_byte()
            seconds = record.end(status, self.began)
            if status != SWITCHING_PROTOCOLS:
                record.measure(first_byte, self.sent())
                self._receive()
                if self.upgraded_at:  # its preparation failed after it had been told
                    record.websocket().leave()
            elif isinstance(self.response, WebSocketResponse):
                if not self.upgraded_at:  # nobody told when it was prepared
                    self.upgraded_at = self.began
                    record.websocket().begin()
                record.websocket().end(seconds - (self.upgraded_at - self.began), self.response.close_code)
        except Exception as error:  # noqa: BLE001  # as in Recorder.begin
            self.recorder.failed("end", error)

    def _receive(self) -> None:
        """Count the request's body, once all of it has arrived or none of it can arrive any more."""
        content, record = self.request.content, self.record
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

    def __init__(self, recorder: CountsErrors, request: Request, labels: tuple[str, str]) -> None:
        self.recorder = recorder
        self.request = request
        self.began = perf_counter()
        self.monitor = recorder.entered_monitor(request, labels)
        self.follow()

    def ended(self, status: int) -> None:
        """Show the monitor all that is known, and end it."""
        monitor = self.monitor
        try:
            monitor.first_byte_elapsed = self.first_byte()
            monitor.elapsed = perf_counter() - self.began
            monitor.request_size = received(self.request.content)
            monitor.response_size = self.sent()
            response = self.response
            monitor.response = response if isinstance(response, StreamResponse) else None
            monitor.observe(response if response is not None and response.status == status else _Outcome(status))
            monitor.__exit__(None, None, None)
        except Exception as error:  # noqa: BLE001  # as in Recorder.begin
            self.recorder.failed("end", error)


class _Outcome:
    """Stands for the response of a request that has none, or whose client did not get it."""

    __slots__ = ("status",)

    def __init__(self, status: int) -> None:
        self.status = status
