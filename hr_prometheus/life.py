"""The life of a request, as aiohttp lives it: what its end was, how long it took, how many bytes it moved.

A middleware sees the handler return, not the response leave: after it come the preparation of a file response
(which decides between 200, 206, 304, 404 and 416), the writing of the body, and the client that goes away.
aiohttp runs each request in a task of its own, which ends after all that. So the end of a request is the end
of that task, seen by a done callback; the task's result is the final response.

That callback costs nearly as much as an empty middleware. Most responses are plain: a ``Response`` whose body is bytes. When
nothing stands between the middleware and aiohttp, it sends such a response itself, by the two calls that aiohttp would
make next, and so sees the end of it.

What no public name of aiohttp tells is read from private ones, in one place each: which task is a request's
(:data:`REQUEST_TASK`) and whether a body is compressed while it is written.
"""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import TYPE_CHECKING, Any

from aiohttp import EMPTY_PAYLOAD, ClientConnectionResetError, hdrs
from aiohttp.abc import AbstractStreamWriter
from aiohttp.web import FileResponse, HTTPException, RequestHandler, Response, StreamResponse

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol, TypeGuard

    from aiohttp import StreamReader
    from aiohttp.web import Request

    class HasStatus(Protocol):
        """What a life needs of a response."""

        @property
        def status(self) -> int:
            """The HTTP status."""


SWITCHING_PROTOCOLS = 101
#: The status of a request whose client left before its response was complete, as nginx has it.
CLIENT_CLOSED_REQUEST = 499

#: The body of the task that aiohttp makes for each request; its result is (response, has the client gone).
REQUEST_TASK = RequestHandler._handle_request.__code__  # noqa: SLF001  # no public name tells these tasks apart


def is_request_task(task: asyncio.Task[Any] | None) -> TypeGuard[asyncio.Task[Any]]:
    """Whether aiohttp made *task* for a request, so that it ends when the response has left."""
    return task is not None and getattr(task.get_coro(), "cr_code", None) is REQUEST_TASK


def received(content: StreamReader) -> int:
    """Return the bytes of a request's body received so far: as sent, without chunk framing."""
    if content is EMPTY_PAYLOAD:
        return 0
    size = getattr(content, "total_raw_bytes", content.total_bytes)
    return size if isinstance(size, int) else 0  # a unit test's stand-in has none


class Life:
    """One request, from the moment it is made to its only end.

    It is made without arguments and then given its ``request`` and ``began``, a time of :func:`time.perf_counter`. At
    the end, :meth:`ended` is called with the status that the client got and the time; ``response`` is then the
    response that was sent, or ``None`` if there was none.

    It measures the first byte and the bytes of both bodies. One that :meth:`follow` has been called of is told by aiohttp of
    each write, and is found again by whoever has the request's writer.
    """

    request: Request
    began: float

    # Most requests need few of these, so they are set only then.
    has_client_left = False
    is_cut_off = False
    is_direct = False  # whether it has ended before anything was sent
    first_byte_at = 0.0
    response: HasStatus | None = None  # the last that was prepared before a head had left
    also: Callable[[int, int], None] | None = None  # who else is told of writes: another life, or the application's own
    upgraded_at = 0.0
    _sent = 0
    _compressed: _Compressed | None = None

    def ended(self, status: int, now: float) -> None:
        """Record the end at *now* with the status that the client got. Raises nothing."""
        raise NotImplementedError

    def follow(self) -> None:
        """Have aiohttp tell this life after each write of a part of the body, but for what sendfile sends.

        It does so from 3.14.4 on; before, the attribute has no meaning.
        """
        writer = self.request.writer
        also = getattr(writer, "on_body_write", None)
        if also is not self:
            self.also = also
        writer.on_body_write = self

    def unfollow(self) -> None:
        """Have aiohttp tell the others who are told of writes, and not this life."""
        writer = self.request.writer
        told = getattr(writer, "on_body_write", None)
        if told is self:
            writer.on_body_write = self.also
        while isinstance(told, Life):
            if told.also is self:
                told.also = self.also
            told = told.also

    def handled(self, outcome: object) -> None:
        """Wait for the end of aiohttp's task, now that the handler has ended with *outcome*.

        Outside such a task, end with that outcome. So it is when a unit test awaits the middleware itself, or when
        another middleware gave its handler a task of its own: it is then the last that can be seen.
        """
        if not WRITES_ARE_TOLD and isinstance(outcome, Response) and isinstance(outcome.body, _BYTES):
            self.first_byte_at = self.first_byte_at or perf_counter()  # aiohttp sends it without delay
        try:
            task = asyncio.current_task()
        except RuntimeError:  # the loop is no more
            task = None
        if is_request_task(task):
            task.add_done_callback(self.task_done)
        else:
            self._end_directly(outcome)

    def task_done(self, task: asyncio.Task[Any]) -> None:
        """End with the result of aiohttp's task for the request."""
        now = perf_counter()
        writer = self.request.writer
        writer.on_body_write = None  # which may refer to us, as we refer to the request
        error = None if task.cancelled() else task.exception()
        if error is None and not task.cancelled():
            response, self.has_client_left = task.result()
            if self.response is None:
                self.response = response
            if self.request.transport is None and not isinstance(response, Response):
                self.has_client_left = True  # a handler has kept to itself that it could not write any more
        else:
            # aiohttp has nothing more to send: the request was given up, or there was an error after the head had
            # left or while it was made. The client has the status of that head and an unfinished body, or nothing.
            self.is_cut_off = True
            self.has_client_left = error is None or _has_met_a_closed_connection(error)
            if not writer.output_size:
                self.response = None
        status = getattr(self.response, "status", 500)  # a handler may have made a response of its own kind
        if self.is_cut_off and self.response is None and writer.output_size and _asks_for_websocket(self.request):
            status = SWITCHING_PROTOCOLS  # nobody has told of the response, but this is what it will have been
        if self.has_client_left and status != SWITCHING_PROTOCOLS:
            status = CLIENT_CLOSED_REQUEST
        self.ended(status, now)

    def _end_directly(self, outcome: object) -> None:
        status = 500
        if isinstance(outcome, BaseException) and not isinstance(outcome, HTTPException):
            transport = self.request.transport
            if isinstance(outcome, asyncio.CancelledError) or transport is None or transport.is_closing() is True:
                status = CLIENT_CLOSED_REQUEST
            elif isinstance(outcome, TimeoutError):
                status = 504
        elif isinstance(getattr(outcome, "status", None), int):
            response: Any = outcome
            self.response, status = response, response.status
        self.is_direct = True
        self.unfollow()
        self.ended(status, perf_counter())

    def prepared(self, response: StreamResponse) -> None:
        """Take note of a response, and of the time if its head leaves now."""
        if self.request.writer.output_size:
            return  # there is a head already, and this one goes nowhere
        self.response = response
        # The head of a streamed response leaves now. That of a Response leaves with the first part of its body:
        # at once, unless that body is made while it is sent.
        if isinstance(response, Response):
            leaves = response.body is None or isinstance(response.body, _BYTES)
        else:
            transport = self.request.transport
            leaves = transport is not None and not transport.is_closing()
        if leaves:
            self.first_byte_at = perf_counter()

    def __call__(self, size: int, output_size: int) -> None:
        """Take note of a write: *size* bytes of the body, uncompressed, and *output_size* bytes altogether."""
        if not self.first_byte_at:
            self.first_byte_at = perf_counter()
        if not is_compressing(self.request.writer):
            self._sent += size
        else:
            if self._compressed is None:
                self._compressed = _Compressed()
            self._compressed.written(output_size)
        if self.also is not None:
            self.also(size, output_size)

    def first_byte(self, now: float) -> float | None:
        """Return the seconds until the head of the response left; ``None`` if it never did. The end is *now*."""
        if self.has_client_left and not self._sent and isinstance(self.response, Response):
            return None  # its head leaves with its body, and that was not written
        if self.first_byte_at and (self.is_direct or self.request.writer.output_size):
            return self.first_byte_at - self.began
        # A head without a body leaves at the end.
        return now - self.began if self.request.writer.output_size else None

    def sent(self) -> int | None:
        """Return the bytes of the response's body handed to the transport; ``None`` if that is not known.

        Not known is what sendfile has sent of a file before the transfer was cut off, and what is sent after an end
        that was seen directly.
        """
        if self._sent:
            return self._sent
        writer, response = self.request.writer, self.response
        if self.is_direct:
            body = response.body if isinstance(response, Response) else None
            return len(body) if isinstance(body, _BYTES) else None
        if not writer.output_size or not isinstance(response, StreamResponse):
            return 0
        has_body = not has_no_body(self.request.method, response.status)
        if isinstance(response, FileResponse) and has_body and not response.compression:
            return None if self.has_client_left or self.is_cut_off else response.content_length or 0
        if self._compressed is not None or not WRITES_ARE_TOLD or is_compressing(writer):
            compressed = self._compressed or _Compressed()
            is_chunked = bool(getattr(writer, "chunked", False)) and WRITES_ARE_TOLD
            return compressed.total(writer.output_size, _head_size(response), is_chunked)
        return 0


def is_compressing(writer: AbstractStreamWriter) -> bool:
    """Whether what is written is compressed, so that its size on the wire is another."""
    return getattr(writer, "_compress", None) is not None


def _asks_for_websocket(request: Request) -> bool:
    return request.headers.get(hdrs.UPGRADE, "").lower() == "websocket"


def _has_met_a_closed_connection(error: BaseException) -> bool:
    """Whether *error* was raised while handling that nothing could be written to the client any more."""
    met: BaseException | None = error
    for _ in range(10):  # there may be a circle
        # The second is what asyncio's sendfile raises.
        if isinstance(met, ClientConnectionResetError) or (
            isinstance(met, RuntimeError) and met.args == ("Transport is closing",)
        ):
            return True
        if met is None:
            break
        met = met.__context__
    return False


_BYTES = (bytes, bytearray)
WRITES_ARE_TOLD = hasattr(AbstractStreamWriter, "on_body_write")


class _Compressed:
    """Counts a body that is compressed while it is written, of which aiohttp tells only the size before.

    What is known is all that was written, after each write: the head, and each part of the body, which may be
    framed as a chunk (RFC 9112, 7.1). A chunk of n bytes takes n, its length in hexadecimal and four more.
    """

    __slots__ = ("_counted", "_first", "_last", "_pending")

    def __init__(self) -> None:
        self._counted = 0  # bytes of the body
        self._first = 0  # written with the first part, head included
        self._pending = 0  # written with the latest part, which may turn out to have been the last
        self._last = 0  # written altogether

    def written(self, output_size: int) -> None:
        """Take note of all that has been written after a further part."""
        part = output_size - self._last
        if not part:  # the compressor has kept it
            return
        self._last = output_size
        if not self._first:
            self._first = part
        else:
            self._counted += _unframed(self._pending)
            self._pending = part

    def total(self, output_size: int, head: int, is_chunked: bool) -> int:
        """Return the bytes of the body, given all that has been written at the end."""
        if not is_chunked:
            return max(0, output_size - head)
        parts = [self._first, self._pending, output_size - self._last]
        parts[0 if self._first else 2] -= head
        parts = [part for part in parts if part > 0]
        if parts:
            parts[-1] -= len("0\r\n\r\n")
        return self._counted + sum(_unframed(part) for part in parts)


def _unframed(part: int) -> int:
    """Return the bytes inside a chunk that takes *part* bytes."""
    for digits in range(1, 9):
        size = part - digits - 4
        if size > 0 and len(f"{size:x}") == digits:
            return size
    return 0


def _head_size(response: StreamResponse) -> int:
    """Return the bytes of a response's head, as aiohttp writes it (RFC 9112, 2.1)."""
    fields = sum(len(name.encode()) + len(value.encode()) + 4 for name, value in response.headers.items())
    return len(f"HTTP/1.1 {response.status} {response.reason}".encode()) + fields + 4


_BODILESS = frozenset({hdrs.METH_HEAD, hdrs.METH_CONNECT})


def has_no_body(method: str, status: int) -> bool:
    """Whether a response has no body, whatever its handler made (RFC 9110, 6.4.1)."""
    if method in _BODILESS and (method == hdrs.METH_HEAD or 200 <= status < 300):
        return True
    return status in (204, 304) or 100 <= status < 200
