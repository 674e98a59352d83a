"""The lives of requests that are recorded: by the default monitor, or by one of the user's."""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import TYPE_CHECKING, Any

from aiohttp import EMPTY_PAYLOAD
from aiohttp.web import StreamResponse, WebSocketResponse

from hr_prometheus.life import SWITCHING_PROTOCOLS, Life, received

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    from aiohttp import StreamReader
    from aiohttp.web import Request

    from hr_prometheus.life import HasStatus
    from hr_prometheus.monitors import BaseRequestMonitor
    from hr_prometheus.records import Details, RequestRecord, WebSocketRecord

    class HasLives(Protocol):
        """What a life needs of the recorder that it belongs to."""

        #: What stands for the life of a request that has none yet, and of one that will have none any more.
        entered: Any
        left_out: Any

        def failed(self, where: str, error: Exception) -> None:
            """Count an exception that no client may see."""

        #: Makes and enters the monitor of a request with these labels.
        enter: Callable[[Request, tuple[str, str]], BaseRequestMonitor]
        #: Shows a monitor its response and leaves it.
        leave: Callable[[BaseRequestMonitor, HasStatus], None]


#: For how many seconds a request's body may still arrive after the response has left; aiohttp's server reads
#: and discards it for 10 by default.
_LINGERING = 11.0


class RecordedLife(Life):
    """A request that a recorder records, with what was *found* for its labels."""

    recorder: HasLives
    found: Any
    is_late = False  # whether something may have been sent before it was made

    def begin(self) -> None:
        """Begin the request."""
        raise NotImplementedError

    def measured(self, now: float) -> tuple[float | None, int | None]:
        """Return the seconds until the first byte, and the bytes that were sent; what is not known is ``None``."""
        return (None, None) if self.is_late and not self.is_direct else (self.first_byte(now), self.sent())

    def unfollow(self) -> None:
        """As a life does; and what stands for this one now is that it had its end."""
        super().unfollow()
        writer = self.request.writer
        if writer.on_body_write in (None, self.recorder.entered):
            writer.on_body_write = self.recorder.left_out


class RequestLife(RecordedLife):
    """A request that the default monitor records."""

    found: RequestRecord
    _websocket: WebSocketRecord | None = None

    def begin(self) -> None:
        """Count the request as in progress."""
        self.began = self.found.begin()

    def prepared(self, response: StreamResponse) -> None:
        """Count a WebSocket as open from the moment at which it is one."""
        super().prepared(response)
        if response.status == SWITCHING_PROTOCOLS and isinstance(response, WebSocketResponse) and not self.upgraded_at:
            self._begin_websocket(perf_counter())

    def _begin_websocket(self, began: float) -> None:
        """Count a WebSocket as open, which is closed under the same labels even if the handler changes what was matched."""
        self.upgraded_at = began
        if self.found.details is not None:
            self._websocket = self.found.websocket()
            self._websocket.begin()

    def ended(self, status: int, now: float) -> None:
        """Record the metrics."""
        try:
            self.found.end(status, now - self.began)
            if self.found.details is not None:
                self._measure(self.found.details, status, now)
            self.found.settle(status)
        except Exception as error:  # noqa: BLE001  # as in Recorder.begin
            self.recorder.failed("end", error)

    def _measure(self, details: Details, status: int, now: float) -> None:
        if status != SWITCHING_PROTOCOLS:
            details.measure(*self.measured(now))
            receive(details, self.request.content, is_over=self.has_client_left)
            if self._websocket is not None:  # its preparation failed after it had been told
                self._websocket.leave()
        elif isinstance(self.response, WebSocketResponse):
            if self._websocket is None:  # nobody told when it was prepared
                self._begin_websocket(self.began)
            if self._websocket is not None:
                self._websocket.end(now - self.upgraded_at, self.response.close_code)


def receive(details: Details, content: StreamReader, *, is_over: bool = False) -> None:
    """Count a request's body, once all of it has arrived or none of it can arrive any more, which *is_over* says."""
    if is_over or content.is_eof():
        details.receive(received(content))
        return

    def arrived() -> None:  # keeps nothing of the request but the rest of its body
        if not given_up.cancelled():
            given_up.cancel()
            details.receive(received(content))

    given_up = asyncio.get_running_loop().call_later(_LINGERING, arrived)
    content.on_eof(arrived)


class MonitoredLife(RecordedLife):
    """A request that a monitor records; what was *found* is the monitor, once that has begun."""

    def begin(self) -> None:
        """Enter the request's monitor."""
        self.began = perf_counter()
        self.found = self.recorder.enter(self.request, self.found)

    def ended(self, status: int, now: float) -> None:
        """Show the monitor what is known of how the request ended, and leave it."""
        monitor, response, content = self.found, self.response, self.request.content
        try:
            monitor.response = response if isinstance(response, StreamResponse) else None
            monitor.elapsed = now - self.began
            monitor.first_byte_elapsed, monitor.response_size = self.measured(now)
            monitor.request_size = 0 if content is EMPTY_PAYLOAD else received(content)
            outcome = response if response is not None and response.status == status else _Outcome(status)
            self.recorder.leave(monitor, outcome)
        except Exception as error:  # noqa: BLE001  # as in Recorder.begin
            self.recorder.failed("end", error)


class _Outcome:
    """Stands for the response of a request that has none, or whose client did not get it."""

    __slots__ = ("status",)

    def __init__(self, status: int) -> None:
        self.status = status
