"""One request and its response, observed where aiohttp writes the response.

A middleware sees the handler return, not the response leave. After it come the preparation of a file response, which decides
between 200, 206, 304, 404 and 416, the writing of the body, and the client that goes away. So an :class:`Exchange` observes the
request's *writer*. ``write_headers``, ``send_headers`` and ``write_eof`` are public names of
:class:`aiohttp.abc.AbstractStreamWriter`, and ``on_body_write`` is its hook for observers. They say which status was sent,
when, and how many bytes.

A response is complete when its last byte was handed to a transport that was still connected. That moment is the end of the
request, and most requests are recorded in it. A response that does not get so far is recorded when the task that writes it
fails, or when its connection ends or goes on to another request.
"""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import TYPE_CHECKING, Any

from aiohttp.hdrs import CONTENT_ENCODING, METH_HEAD

from hr_prometheus.request.aiohttp_features import HEADS_ARE_BUFFERED, MISSING_NAMES
from hr_prometheus.request.body import NO_BODY, EncodedBody, status_in
from hr_prometheus.request.incomplete import (
    CLIENT_CLOSED_REQUEST,
    SWITCHING_PROTOCOLS,
    is_bodiless,
    response_of,
    status_after_task,
)
from hr_prometheus.request.websocket import begin_websocket

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextvars import Context

    from aiohttp.web import Request, StreamResponse
    from multidict import CIMultiDict

    from hr_prometheus.request.connection import Connection
    from hr_prometheus.request.recorder import Record, Recorder
    from hr_prometheus.request.websocket import WebSocketConnection


def seen(_size: int, _output_size: int) -> None:
    """Mark the writer of a request that is recorded, in the place of its exchange: ``on_body_write``."""


class Exchange:
    """One request and its response. Times are those of :func:`time.perf_counter`; 0.0 means never."""

    __slots__ = (
        "_our_send_headers", "_our_write_headers", "_send_headers", "_write_eof", "_write_headers", "also", "began", "connection",
        "context", "encoded", "first_byte_at", "head_at", "headers", "inner", "is_blind", "is_complete", "is_last", "is_lost",
        "is_over", "is_reporting", "is_wrapped", "judged", "last_status", "length", "monitor", "output_size", "record", "recorder",
        "request", "response", "returned", "sent", "status", "task", "waits", "websocket", "writer", "written_at",
    )  # fmt: skip

    def __init__(
        self,
        recorder: Recorder,
        record: Record,
        request: Request,
        writer: Any,
        connection: Connection,
        *,
        outer: Exchange | None = None,
    ) -> None:
        """Observe the *writer*, unless the exchange of a middleware of ours further out, *outer*, does."""
        self.recorder = recorder
        self.record = record
        self.request = request
        self.writer = writer
        self.connection = connection
        self.status = ""  #: of the latest head
        self.headers: CIMultiDict[str] | None = None
        self.length: int | None = None  #: bytes of the body; ``None`` if only ``write_eof`` says where it ends
        self.head_at = 0  #: bytes that the writer had written before the head
        self.sent = 0  #: bytes of the body, as the writer has reported them
        self.output_size = 0  #: bytes of the head and the body that the writer has reported
        self.began = self.first_byte_at = self.written_at = 0.0  #: and when the head and the latest part left
        self.encoded: EncodedBody | None = None  #: a body that may be compressed while it is written
        self.is_last = self.is_complete = False  #: whether the latest part is the last one, and was handed over
        self.is_lost = False  #: whether the last part had no connection any more
        self.is_over = False  #: whether the end is recorded
        self.waits = False  #: whether the end is recorded when the response is known, with the time of the last byte
        self.last_status = CLIENT_CLOSED_REQUEST  #: the one to record if nothing more comes
        self.task: asyncio.Task[Any] | None = None  #: one that writes the response, and whose end is awaited
        self.judged: asyncio.Task[Any] | None = None  #: the task whose end has been looked at
        self.response: StreamResponse | None = None  #: the response, once it is known
        self.returned: Any = None  #: what the handler has returned, where its loop time is counted
        self.monitor: Any = None
        self.websocket: WebSocketConnection | None = None
        self.context: Context | None = None  #: that of the handler, in which OpenTelemetry's span is looked up
        self.inner: tuple[Exchange, ...] = ()  #: those of middlewares of ours further in, which record elsewhere
        self.also: Callable[[int, int], None] | None = None  #: an ``on_body_write`` of the application's own
        self.is_reporting = False  #: whether a hook of the application's is being called
        self.is_wrapped = False  #: whether the writer's methods were those of the application already
        self.is_blind = False  #: whether the writer could not be observed
        # The writer's own methods, whose places are taken if need be, and ours in them: each access would make one anew.
        self._send_headers: Callable[[], None] | None = None
        self._write_eof: Callable[[bytes], Awaitable[None]] | None = None
        self._our_write_headers: object = None
        self._our_send_headers: object = None
        if outer is not None:
            return
        try:
            self.also, writer.on_body_write = writer.on_body_write, self
            self._write_headers: Callable[[str, CIMultiDict[str]], Awaitable[None]] = writer.write_headers
            self._our_write_headers = writer.write_headers = self.write_headers
            if getattr(self._write_headers, "__self__", None) is not writer:
                self.is_wrapped = True
        except Exception as error:  # noqa: BLE001  # whatever the writer is, the request is answered
            self.be_blind(error)

    def observe_end(self) -> None:
        """Take the place of the writer's ``write_eof``."""
        if self._write_eof is None:
            try:
                self._write_eof, self.writer.write_eof = self.writer.write_eof, self.write_eof
                if getattr(self._write_eof, "__self__", None) is not self.writer:
                    self.is_wrapped = True
            except AttributeError as error:
                self.be_blind(error)

    def be_blind(self, error: Exception) -> None:
        """Go by what the end of aiohttp's task says: the writer lacks a name, or takes no attributes."""
        if not MISSING_NAMES:  # else a warning has said so
            self.recorder.failed("observe", error)
        self.is_blind = True
        self.watch()

    def release(self) -> None:
        """Let go of the writer, which refers to this exchange as it does to the writer.

        What the application has put in our place stays, and what it had there before comes back.
        """
        writer = self.writer
        try:
            if writer.on_body_write is self:
                writer.on_body_write = self.also or seen
            if writer.write_headers is self._our_write_headers:
                del writer.write_headers
            if self._send_headers is not None and writer.send_headers is self._our_send_headers:
                del writer.send_headers
            if self._write_eof is not None and writer.write_eof == self.write_eof:
                del writer.write_eof
            if self.is_wrapped:
                for name in ("write_headers", "send_headers", "write_eof"):
                    original = getattr(self, f"_{name}")
                    if original is not None and getattr(original, "__self__", None) is not writer:
                        vars(writer).setdefault(name, original)
        except AttributeError:  # it could not be observed
            pass
        self._our_write_headers = self._our_send_headers = None  # they refer to this exchange as well

    def write_headers(self, status_line: str, headers: CIMultiDict[str]) -> Awaitable[None]:
        """Note the status and the length, and have the writer write the head to its buffer."""
        writer = self.writer
        try:
            if not self.is_over and (not self.status or writer.output_size == self.head_at):
                # Else a head has left, and this one goes nowhere.
                self.status = status = status_in(status_line)
                if writer.output_size or self.sent:
                    # Of an interim response (RFC 9110, 15.2) that the application has written.
                    self.head_at = self.output_size = writer.output_size
                    self.sent, self.first_byte_at = 0, 0.0
                self.headers = headers
                self.length = length = writer.length
                if not HEADS_ARE_BUFFERED:
                    self.observe_end()
                    self.watch()
                elif self._send_headers is None:
                    self._send_headers = writer.send_headers
                    self._our_send_headers = writer.send_headers = self.send_headers
                if not length or status in NO_BODY or self.request.method == METH_HEAD:
                    self._expect_no_length(status_line)
                if writer.on_body_write is not self:
                    self.also, writer.on_body_write = writer.on_body_write, self
                if self.recorder.on_head is not None:
                    self.recorder.on_head(status, headers)
        except Exception as error:  # noqa: BLE001  # nothing of ours may reach the application
            self.be_blind(error)
        return self._write_headers(status_line, headers)

    def _expect_no_length(self, status_line: str) -> None:
        """Prepare for a response that only ``write_eof`` ends, or that is a WebSocket from here on."""
        self.length = None
        self.observe_end()
        if self.headers is not None and CONTENT_ENCODING in self.headers:
            self.encoded = EncodedBody(self.writer, self.head_at, status_line, self.headers)
        if self.status == SWITCHING_PROTOCOLS:
            for each in (self, *self.inner):
                begin_websocket(each, self)

    def send_headers(self) -> None:
        """Have the writer send the head of a stream or a file before its body."""
        self._send_headers()  # type: ignore[misc]  # it is the writer's own
        if self.is_over:
            return
        self.first_byte_at = self.first_byte_at or perf_counter()
        self.output_size = self.writer.output_size
        self.observe_end()  # the operating system may send the body
        self.watch()

    def __call__(self, size: int, output_size: int) -> None:
        """Note that *size* bytes of the body were written, uncompressed, and *output_size* altogether: ``on_body_write``."""
        if self.also is not None and self.is_reporting:  # the application's own hook calls what it has replaced
            return
        self.written_at = now = perf_counter()
        self.output_size = output_size
        if not self.first_byte_at:
            self.first_byte_at = now
        if self.encoded is None:
            self.sent += size
        else:
            self.sent += self.encoded.written(output_size, is_last=self.is_last)
        if self.sent == self.length or self.is_last:
            self.is_complete = True
            if self.waits or not self.status:  # without a status no head was seen
                self.watch()
            else:
                self.finish(self.status, now)
        elif self.task is None or self.task.done():
            self.watch()
        elif self.connection.tls and self.connection.tls.is_reset():
            self.is_lost, self.length = True, None  # whatever else is written, it is not complete any more
        if self.also is not None:
            self.is_reporting = True
            try:
                self.also(size, output_size)
            finally:
                self.is_reporting = False

    def write_eof(self, chunk: bytes = b"") -> Awaitable[None]:
        """Have the writer write the last part. If there is still a connection, the response is complete."""
        transport, tls = self.writer.transport, self.connection.tls
        if self.is_over or self.is_last:
            pass
        elif transport is None or transport.is_closing() or (tls and self.length is None and tls.is_reset()):
            self.is_lost = True
        else:
            self.is_last = True
            if self.writer.on_body_write is not self or (self.encoded is not None and not chunk):
                return self._write_unreported(chunk)
            if not chunk:  # the writer reports no empty part
                self.end_now()
        return self._write_eof(chunk)  # type: ignore[misc]  # it is the writer's own

    async def _write_unreported(self, chunk: bytes) -> None:
        """Have the writer write a last part that it will not report, such as what the compressor has kept until now."""
        before = self.writer.output_size
        try:
            await self._write_eof(chunk)  # type: ignore[misc]  # as above
        finally:
            if self.encoded is not None:
                self.sent += self.encoded.written(self.writer.output_size, is_last=True)
            if not chunk or self.writer.output_size > before:
                self.end_now()

    def end_now(self) -> None:
        """Complete a response whose last part has no bytes of its body."""
        self.written_at = now = perf_counter()
        self.first_byte_at = self.first_byte_at or now
        if self.task is not None and not self.sent and (self.recorder.is_full or self.inner):
            # For the size of a file, perhaps, that the operating system has sent. A middleware before ours may send another response.
            is_sent = self.headers is not None and getattr(self.returned, "headers", None) is self.headers
            self.response, self.waits = (self.returned, False) if is_sent else (self.response, True)
        self.is_complete = True
        if self.waits or not self.status:  # as above
            self.watch()
        else:
            self.finish(self.status, now)

    def watch(self) -> None:
        """See to it that the end of the current task, which writes the response, is known."""
        task = asyncio.current_task()
        if task is not None and task is not self.task:
            self.task = task
            task.add_done_callback(self.task_done)

    def task_done(self, task: asyncio.Task[Any]) -> None:
        """Record the end if it follows from that of a *task* which has written the response. Raises nothing."""
        if self.is_over or self.judged is task:
            return
        self.judged = task
        self.waits = False
        response = response_of(task)
        if response is not None:  # with aiohttp before 3.12 it may be false
            self.response = response
        if self.is_complete and self.status:
            self.finish(self.status, self.written_at)
            return
        try:
            status, is_final = status_after_task(self, task)
        except Exception as error:  # noqa: BLE001  # nothing of ours may reach the application
            self.recorder.failed("end", error)
            status, is_final = CLIENT_CLOSED_REQUEST, True
        if self.is_complete:
            self.finish(status, self.written_at)
        elif is_bodiless(self):
            self.finish(self.status, self.first_byte_at)
        elif is_final:
            self.finish(status, perf_counter())
        else:
            self.last_status = status

    def give_up(self) -> None:
        """Record the end of a request whose connection has ended, or goes on to another one."""
        if self.task is not None and self.task.done():  # whose callback comes later
            self.task_done(self.task)
        if self.is_complete or is_bodiless(self):
            self.finish(self.status or self.last_status, self.written_at or self.first_byte_at)
        else:
            self.finish(self.last_status, perf_counter())

    def finish(self, status: str, ended_at: float) -> None:
        """Record the end, the first time. Raises nothing."""
        if self.is_over:
            return
        self.is_over = True
        self.connection.exchange = None
        seconds, recent = ended_at - self.began, self.recorder.recent
        try:
            self.record.end(self, status, seconds)
            if status >= CLIENT_CLOSED_REQUEST or seconds >= recent.slow:  # it is the least that has failed
                recent.add(self, status, seconds)
            if self.task is not None:  # to call it would cost the event loop more than all of this
                self.task.remove_done_callback(self.task_done)
        except Exception as error:  # noqa: BLE001  # nothing of ours may reach the application
            self.recorder.failed("end", error)
        for inner in self.inner:
            for name in _OBSERVED:
                setattr(inner, name, getattr(self, name))
            inner.finish(status, ended_at)
        self.release()


#: What an exchange knows of what was written, and of its handler.
_OBSERVED = "context encoded first_byte_at headers is_complete response sent status task written_at".split()
