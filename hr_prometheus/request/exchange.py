"""One request and its response, observed where aiohttp writes the response.

A middleware sees the handler return, not the response leave. After it come the preparation of a file response, which
decides between 200, 206, 304, 404 and 416, the writing of the body, and the client that goes away. So an
:class:`Exchange` observes the request's *writer*: ``write_headers``, ``send_headers`` and ``write_eof`` are public names of
:class:`aiohttp.abc.AbstractStreamWriter`, and ``on_body_write`` is its own hook. They say which status was sent, when,
and how many bytes. The end of the task in which aiohttp handles the request says that there is nothing more to come.

When the request ended is the time of the last write, not that of the task's end: its callback runs in a later turn of
the event loop, under load milliseconds later.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from time import perf_counter
from typing import TYPE_CHECKING, Any

from aiohttp import hdrs
from aiohttp.abc import AbstractStreamWriter
from aiohttp.hdrs import CONTENT_ENCODING
from aiohttp.web import FileResponse, HTTPException

from hr_prometheus.request.body import EncodedBody, has_no_body
from hr_prometheus.request.task import is_closed_connection

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import Protocol

    from aiohttp.web import Request, StreamResponse
    from multidict import CIMultiDict

    from hr_prometheus.request.recorder import Recorder
    from hr_prometheus.request.websocket import WebSocketConnection

    class Record(Protocol):
        """Where the beginnings and ends of requests with the same labels are recorded."""

        def begin(self, exchange: Exchange) -> None:
            """Record that a request has begun."""

        def end(self, exchange: Exchange, status: str, seconds: float) -> None:
            """Record that a request has ended after some *seconds*."""


SWITCHING_PROTOCOLS = "101"
#: The status of a request whose client left before its response was complete, as nginx has it.
CLIENT_CLOSED_REQUEST = "499"

#: Whether aiohttp calls ``on_body_write`` after each write of a server's response (since 3.14.4).
WRITES_ARE_REPORTED = hasattr(AbstractStreamWriter, "on_body_write")


#: The methods of a writer whose place an exchange takes.
_SEAM = ("write_headers", "send_headers", "write_eof")


def seen(_size: int, _output_size: int) -> None:
    """Stand for an exchange that is over, so that its request is known to have been seen: ``on_body_write``."""


class Exchange:
    """One request and its response. Times are those of :func:`time.perf_counter`; 0.0 means never."""

    began: float
    # The methods whose place the exchange takes.
    _write_headers: Callable[[str, CIMultiDict[str]], Awaitable[None]]
    _send_headers: Callable[[], None]
    _write_eof: Callable[[bytes], Awaitable[None]]
    # Most requests need few of these, so they are set only then.
    status = ""  #: of the latest head
    is_complete = False  #: whether the last byte was handed to a transport that was still connected
    written_at = 0.0  #: when the latest part was handed to the transport
    first_byte_at = 0.0
    sent = 0  #: bytes of the body, as the writer has reported them
    encoded: EncodedBody | None = None  #: a body that may be compressed while it is written
    is_direct = False  #: whether it ended with the handler, because aiohttp's own task is out of sight
    headers: CIMultiDict[str] | None = None
    task: asyncio.Task[Any] | None = None  #: aiohttp's, once it is done
    prepared: StreamResponse | None = None  #: the response that an upgrade is answered with
    hook: Callable[[StreamResponse], Awaitable[None]] | None = None
    also: Callable[[int, int], None] | None = None  #: an ``on_body_write`` of the application's own
    monitor: Any = None
    websocket: WebSocketConnection | None = None
    inner: tuple[Exchange, ...] = ()  #: those of middlewares of ours further in, which record elsewhere

    def __init__(self, recorder: Recorder, record: Record, request: Request, writer: Any) -> None:
        self.recorder = recorder
        self.record = record
        self.request = request
        self.writer = writer

    def observe(self) -> None:
        """Take the place of the writer's methods, each of which goes on as it is."""
        writer = self.writer
        try:
            if writer.on_body_write is not None:
                self.also = writer.on_body_write
            writer.on_body_write = self
            self._write_headers, writer.write_headers = writer.write_headers, self.write_headers
            self._send_headers, writer.send_headers = writer.send_headers, self.send_headers
            self._write_eof, writer.write_eof = writer.write_eof, self.write_eof
        except AttributeError:  # a name is missing, or the writer takes no attributes
            self._observe_what_is_there()

    def _observe_what_is_there(self) -> None:
        try:
            for name in _SEAM:
                original = getattr(self.writer, name, None)
                if original is not None and original != getattr(self, name):
                    setattr(self, f"_{name}", original)
                    setattr(self.writer, name, getattr(self, name))
        except AttributeError as error:  # then what is known is what the end of aiohttp's task says
            self.recorder.failed("observe", error)

    def release(self) -> None:
        """Let go of the writer, which refers to this exchange as it does to the writer."""
        writer = self.writer
        try:
            writer.on_body_write = self.also
            del writer.write_headers, writer.write_eof, writer.send_headers
        except AttributeError:  # not all could be observed, or the application has done so
            for name in _SEAM:
                getattr(writer, "__dict__", {}).pop(name, None)
        if self.hook is not None:
            vars(self.request).pop("_prepare_hook", None)

    def expect_upgrade(self) -> None:
        """Have the response to an upgrade known when it is prepared, so that its close can be seen.

        aiohttp has no public name for this moment that costs other requests nothing. Where it has no private one any
        more either, it stays unknown who closes a WebSocket.
        """
        request: Any = self.request
        original = getattr(request, "_prepare_hook", None)
        if original is None or self.hook is not None:
            return

        async def prepare_hook(response: StreamResponse) -> None:
            self.prepared = response
            await original(response)

        self.hook = prepare_hook
        vars(request)["_prepare_hook"] = prepare_hook  # past what warns of unknown attributes while aiohttp is debugged

    def write_headers(self, status_line: str, headers: CIMultiDict[str]) -> Awaitable[None]:
        """Note the status, and have the writer write the head to its buffer."""
        writer = self.writer
        try:
            if not writer.output_size:  # else another head has left, and this one goes nowhere
                self.status = status = status_line[9:13].rstrip()
                self.headers = headers
                if writer.on_body_write is not self:
                    self.also, writer.on_body_write = writer.on_body_write, self
                if CONTENT_ENCODING in headers:
                    self.encoded = EncodedBody(writer, status_line, headers)
                if status == SWITCHING_PROTOCOLS:
                    for each in (self, *self.inner):
                        each.recorder.upgraded(each, self)
                if self.recorder.on_head is not None:
                    self.recorder.on_head(status, headers)
        except Exception as error:  # noqa: BLE001  # nothing of ours may reach the application
            self.recorder.failed("head", error)
        return self._write_headers(status_line, headers)

    def send_headers(self) -> None:
        """Have the writer send the head of a stream before its body, and note the time."""
        self._send_headers()
        self.first_byte_at = self.first_byte_at or perf_counter()

    def write_eof(self, chunk: bytes = b"") -> Awaitable[None]:
        """Have the writer write the last part. If there is still a connection, the response is complete."""
        writer = self.writer
        transport = writer.transport
        if transport is not None and not transport.is_closing() and not self.is_complete:
            if self.encoded is not None:
                self.encoded.is_last = True
            if not chunk:
                self.written_at = now = perf_counter()
                self.first_byte_at = self.first_byte_at or now
                self.is_complete = True
            elif self.encoded is None:  # else the compressor may wait, and the client leave
                self.is_complete = True
        return self._write_eof(chunk)

    def __call__(self, size: int, output_size: int) -> None:
        """Note that *size* bytes of the body were written, uncompressed, and *output_size* altogether: ``on_body_write``."""
        self.written_at = now = perf_counter()
        if not self.first_byte_at:
            self.first_byte_at = now
        if self.encoded is None:
            self.sent += size
        else:
            self.sent += self.encoded.written(output_size)
            self.is_complete = self.encoded.is_last
        if self.also is not None:
            self.also(size, output_size)

    def finish(self, task: asyncio.Task[Any]) -> None:
        """Record the end: *task*, in which aiohttp handles the request, is done. Raises nothing."""
        ended_at = perf_counter()
        self.task = task
        try:
            if self.is_complete and self.status:
                status, ended_at = self.status, self.written_at
            elif self._has_all():
                status, ended_at = self.status, self.written_at or self.first_byte_at
            else:
                status = self._status_of_incomplete(task)
            self.record.end(self, status, ended_at - self.began)
            if self.inner:
                self._finish_inner(status, ended_at)
        except Exception as error:  # noqa: BLE001  # as above
            self.recorder.failed("end", error)
        self.release()

    def _finish_inner(self, status: str, ended_at: float) -> None:
        for inner in self.inner:
            for name in _OBSERVED:
                setattr(inner, name, getattr(self, name))
            try:
                inner.record.end(inner, status, ended_at - inner.began)
            except Exception as error:  # noqa: BLE001  # as above
                inner.recorder.failed("end", error)

    def finish_directly(self, outcome: object) -> None:
        """Record the end where only the handler's *outcome* can be seen, a response or an exception."""
        self.is_direct = True
        sent = self.status if self.writer.output_size else ""
        status = sent or "500"
        if isinstance(outcome, BaseException) and not isinstance(outcome, HTTPException):
            transport = self.request.transport
            if isinstance(outcome, asyncio.CancelledError) or transport is None or transport.is_closing() is True:
                status = sent if sent == SWITCHING_PROTOCOLS else CLIENT_CLOSED_REQUEST
            elif isinstance(outcome, TimeoutError):
                status = sent or "504"
        elif isinstance(getattr(outcome, "status", None), int):
            self.prepared = outcome  # type: ignore[assignment]  # it is a response
            status = sent or str(outcome.status)  # type: ignore[attr-defined]
        try:
            self.record.end(self, status, perf_counter() - self.began)
        except Exception as error:  # noqa: BLE001  # as above
            self.recorder.failed("end", error)
        self.release()
        if self.also is None:
            with suppress(AttributeError):  # it could not be observed
                self.writer.on_body_write = seen  # which the access log looks for, later

    def _has_all(self) -> bool:
        """Whether all that was announced was written, although its handler has not said that this was the end."""
        if self.headers is None or not self.first_byte_at:
            return False
        if has_no_body(self.request.method, self.status):
            return self.status != SWITCHING_PROTOCOLS
        return self.headers.get(hdrs.CONTENT_LENGTH) == str(self.sent)

    def _status_of_incomplete(self, task: asyncio.Task[Any]) -> str:
        """Return the status of a response whose last byte was not seen to leave.

        Whether the client has left is a matter of its own connection: aiohttp drops the transport when that is lost.
        """
        if (self.status or str(getattr(self.response, "status", ""))) == SWITCHING_PROTOCOLS:
            return SWITCHING_PROTOCOLS
        if task.cancelled() or not self.writer.output_size:  # given up, or nothing was sent
            return CLIENT_CLOSED_REQUEST
        error = task.exception()
        if error is None and task.result()[1] and isinstance(self.response, FileResponse):
            return CLIENT_CLOSED_REQUEST  # the operating system has noticed before the transport
        if self.request.transport is None and (
            # aiohttp drops the transport for other errors as well.
            error is None or isinstance(error, ConnectionError) or is_closed_connection(error)
        ):
            return CLIENT_CLOSED_REQUEST
        # The server has cut it off, or the writer could not be observed.
        return self.status or str(getattr(self.response, "status", 500))

    @property
    def response(self) -> StreamResponse | None:
        """The response that aiohttp sent, or ``None`` if there was none."""
        if self.task is None or self.task.cancelled() or self.task.exception() is not None:
            return self.prepared
        response: StreamResponse = self.task.result()[0]
        return response

    def first_byte(self) -> float | None:
        """Return the seconds until the head of the response left; ``None`` if it never did."""
        return self.first_byte_at - self.began if self.first_byte_at else None

    def response_size(self) -> int | None:
        """Return the bytes of the response's body that were handed to the transport; ``None`` if that is not known.

        Unknown is what the operating system has sent of a file (sendfile) when the transfer is cut off.
        """
        if self.encoded is not None and self.is_complete:
            self.sent += self.encoded.written(self.writer.output_size)  # what the compressor kept until the end
        if self.sent or self.headers is None:
            return None if self.is_direct and not self.sent else self.sent
        if self.writer.on_body_write is not self:  # the application has put its own in our place
            return None
        length = self.headers.get(hdrs.CONTENT_LENGTH, "0")
        if length == "0" or has_no_body(self.request.method, self.status):
            return 0
        response = self.response
        if response is not None and not isinstance(response, FileResponse):
            return 0
        return int(length) if self.is_complete else None


#: What an exchange knows of what was written.
_OBSERVED = (
    "encoded",
    "first_byte_at",
    "headers",
    "is_complete",
    "prepared",
    "sent",
    "status",
    "task",
    "written_at",
)
