"""Accepts the connections of the metrics port: so many at most, and only with heads of requests that come in time."""

from __future__ import annotations

import asyncio
import logging
from math import inf
from typing import TYPE_CHECKING

from hr_prometheus.server.bind import address_error, url_of
from hr_prometheus.server.connection_queue import ConnectionQueue

if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Callable, Iterable

logger = logging.getLogger("hr_prometheus")

#: Connections that are open at a time. For one more, the one is closed that has been silent for the longest time.
MOST_CONNECTIONS = 256
#: Seconds for the head of a request from its first byte on, for the first one from the connection on, and for TLS.
HEAD_SECONDS = 10.0
#: Bytes of a request's head.
LONGEST_HEAD = 32768
#: Seconds for which a client may read nothing of an answer.
STALL_SECONDS = 60.0
#: Seconds that the next connection waits for a request of the last one to be let in. While more than a few wait, each one without
#: such a request doubles them, up to so many. Who floods the port has to wait, and takes nothing from the application.
REST, LONGEST_REST, FEW = 0.05, 1.0, 8
#: Connections that may wait to be accepted.
_BACKLOG = 128
#: Connections that are accepted in one turn of the event loop, and seconds until the next such turn while some wait. The application
#: may have to wait for the interpreter at each turn, so there are few. The operating system turns away what comes faster.
_MOST_AT_ONCE, _PAUSE = 4, 0.01
#: Seconds after which connections are accepted again when the operating system has refused one.
_RETRY = 1.0
_END_OF_HEAD = b"\r\n\r\n"
#: The beginning of HTTP/2, which aiohttp refuses a few bytes behind it: https://www.rfc-editor.org/rfc/rfc9113#section-3.4
_HTTP_2 = b"PRI * HTTP/2.0"
_TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class Listener:
    """Listens on bound *sockets*, and gives each connection a protocol of *server*, such as aiohttp's, behind *tls*.

    *on_tls_failure* is called with the reason of each connection that fails there.
    """

    def __init__(
        self,
        server: Callable[[], asyncio.Protocol],
        sockets: Iterable[socket.socket],
        tls: ssl.SSLContext | None = None,
        on_tls_failure: Callable[[BaseException], None] = lambda _error: None,
    ) -> None:
        self._server, self._sockets, self._tls, self._on_tls_failure = server, list(sockets), tls, on_tls_failure
        self._loop = asyncio.get_running_loop()
        # In the order of their latest bytes.
        self._connections: dict[_Connection, None] = {}
        self._pauses: dict[socket.socket, asyncio.TimerHandle] = {}
        self._is_refused = False
        self._queue = ConnectionQueue()
        self._next: asyncio.TimerHandle | None = None
        self._rest, self._rest_ends = REST, -inf

    def start(self) -> None:
        """Begin to accept connections.

        Raises :exc:`~hr_prometheus.errors.ServingError` for an address that the operating system refuses.
        """
        for each in self._sockets:
            each.setblocking(False)
            try:
                each.listen(_BACKLOG)
            except OSError as error:
                raise address_error(url_of(each, "http" if self._tls is None else "https"), error) from error
            self._loop.add_reader(each, self._accept, each)

    def close(self) -> None:
        """Accept no more connections, and close the sockets. Open connections stay so."""
        for each in self._sockets:
            if each in self._pauses:
                self._pauses.pop(each).cancel()
            else:
                self._loop.remove_reader(each)
            each.close()
        self._queue.close()

    def _accept(self, sock: socket.socket) -> None:
        count = 0
        while count < _MOST_AT_ONCE:
            try:
                accepted, address = sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                break
            except OSError as error:  # as a rule there are no more descriptors
                if not self._is_refused:
                    logger.error("The metrics port cannot accept a connection: %s.", error.strerror)  # noqa: TRY400
                self._is_refused = True
                if self._next is None:
                    self._set_up_next()
                self._queue.close()  # those that still wait give theirs back
                self._pause(sock, _RETRY)
                return
            count += 1
            self._queue.add(address[0] if isinstance(address, tuple) else "", accepted)
        self._is_refused = False
        if self._next is None:
            self._set_up_next()
        if count and self._queue:
            self._pause(sock, _PAUSE)
        elif sock in self._pauses:
            del self._pauses[sock]
            self._loop.add_reader(sock, self._accept, sock)

    def _set_up_next(self) -> None:
        """Set up the next connection as soon as it is time for it."""
        if self._next is not None:
            self._next.cancel()
            self._next = None
        while self._queue:
            now = self._loop.time()
            if now < self._rest_ends:
                self._next = self._loop.call_at(self._rest_ends, self._set_up_next)
                break
            accepted = self._queue.take()
            if accepted is None:
                break
            self._rest = min(2 * self._rest, LONGEST_REST) if len(self._queue) > FEW else REST
            self._rest_ends = now + self._rest
            if len(self._connections) >= MOST_CONNECTIONS:
                next(iter(self._connections)).abort()
            connection = _Connection(self._server(), self._touch, self._end_rest, self._forget)
            self._connections[connection] = None
            accepted.setblocking(False)
            connection.set_up(accepted, self._tls, self._on_tls_failure)

    def _end_rest(self) -> None:
        self._rest_ends = -inf
        self._set_up_next()

    def _pause(self, sock: socket.socket, seconds: float) -> None:
        """Accept the next connections in so many *seconds*, whether or not the event loop says that there are any."""
        if sock not in self._pauses:
            self._loop.remove_reader(sock)
        self._pauses[sock] = self._loop.call_later(seconds, self._accept, sock)

    def _touch(self, connection: _Connection) -> None:
        if connection in self._connections:
            self._connections[connection] = self._connections.pop(connection)

    def _forget(self, connection: _Connection) -> None:
        del self._connections[connection]


def connection_of(transport: asyncio.BaseTransport | None) -> _Connection | None:
    """Return the connection that a transport belongs to; ``None`` if it has ended, or another accepted it."""
    protocol = None if transport is None else transport.get_protocol()
    return protocol if isinstance(protocol, _Connection) else None


class _Connection(asyncio.Protocol):
    """One connection: passes on to *protocol* what comes in, as long as it is heads that are short and quick enough.

    Each one waits until :meth:`go_on` is called for the one before: aiohttp before 3.14 collects requests without end.
    *on_bytes* and *on_end* are called with this connection, *on_let_in* when its first request was let in.
    """

    def __init__(
        self,
        protocol: asyncio.Protocol,
        on_bytes: Callable[[_Connection], None],
        on_let_in: Callable[[], None],
        on_end: Callable[[_Connection], None],
    ) -> None:
        self._protocol, self._on_bytes, self._on_let_in, self._on_end = protocol, on_bytes, on_let_in, on_end
        self._transport: asyncio.Transport | None = None
        self._head = b""  # the beginning of a head whose end has not come, which was passed on
        self._waiting = b""  # what has come behind a head that is not answered
        self._is_asked = False  # whether there is such a head
        self._deadline: asyncio.TimerHandle | None = None
        self._stall: asyncio.TimerHandle | None = None
        self._has_request = False  # whether a request has come, and could be read
        self._is_let_in = self._is_refused = self._is_over = False

    def set_up(
        self, accepted: socket.socket, tls: ssl.SSLContext | None, on_tls_failure: Callable[[BaseException], None]
    ) -> None:
        """Set it up in a task."""

        def note_failure(task: asyncio.Task[object]) -> None:
            error = None if task.cancelled() else task.exception()
            if tls is not None and error is not None:
                on_tls_failure(error)
            if self._transport is None:
                accepted.close()
                self._end()

        seconds = None if tls is None else HEAD_SECONDS
        loop = asyncio.get_running_loop()
        self._task = loop.create_task(
            loop.connect_accepted_socket(
                lambda: self, accepted, ssl=tls, ssl_handshake_timeout=seconds, ssl_shutdown_timeout=seconds
            )
        )
        self._task.add_done_callback(note_failure)

    def abort(self) -> None:
        """Close it at once."""
        if self._transport is None:
            self._task.cancel()
        else:
            self._transport.abort()
        self._end()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101  # that of TCP or TLS
        self._transport = transport
        self._start_deadline()
        self._protocol.connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end()
        self._protocol.connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._on_bytes(self)
        if self._is_refused:
            return
        self._waiting += data
        if not self._is_asked:
            self._pass_on()
        if self._waiting and self._transport is not None:
            self._transport.pause_reading()

    def begin(self) -> None:
        """Note that a request is being answered. What aiohttp makes no request of keeps the deadline of the first one."""
        self._has_request = True
        self._stop_deadline()

    def let_in(self) -> None:
        """Note that a request may be answered: its client has what it takes."""
        if not self._is_let_in:
            self._is_let_in = True
            self._on_let_in()

    def go_on(self) -> None:
        """Pass on the next request, when it comes: the answer to the last one has begun, and leaves the connection open."""
        self._is_asked = False
        self._pass_on()
        if not self._waiting and self._transport is not None:
            self._transport.resume_reading()

    def eof_received(self) -> bool | None:
        return self._protocol.eof_received()

    def pause_writing(self) -> None:
        self._stall = asyncio.get_running_loop().call_later(STALL_SECONDS, self.abort)
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        if self._stall is not None:
            self._stall.cancel()
        self._protocol.resume_writing()

    def _pass_on(self) -> None:
        """Pass on what waits, up to the end of a head."""
        # Empty lines before a request are no part of it: https://www.rfc-editor.org/rfc/rfc9112#section-2.2
        data = self._waiting if self._head else self._waiting.lstrip(b"\r\n")
        text = self._head + data
        self._head, end, self._waiting = text.partition(_END_OF_HEAD)
        if self._head == _HTTP_2:
            self._head, end, self._waiting = text, b"", b""
        if len(self._head) > LONGEST_HEAD:
            self._refuse()
            return
        if not text:
            return
        if end:
            self._head = b""
            self._is_asked = True
            if self._has_request:
                self._stop_deadline()
        elif self._head and self._deadline is None:
            self._start_deadline()
        try:
            self._protocol.data_received(data.removesuffix(self._waiting))
        except ValueError:  # of a URL, by aiohttp 3.11; asyncio would log it, perhaps with the URL
            self._has_request = False
            self.abort()

    def _refuse(self) -> None:
        """Close the connection: with 431, or at the deadline if another answer may be on its way."""
        self._is_refused = True
        if self._deadline is None:
            self._start_deadline()
        if not self._has_request and self._transport is not None:
            self._transport.write(_TOO_LARGE)
            self._transport.close()

    def _start_deadline(self) -> None:
        self._deadline = asyncio.get_running_loop().call_later(HEAD_SECONDS, self.abort)

    def _stop_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _end(self) -> None:
        self._stop_deadline()
        if self._stall is not None:
            self._stall.cancel()
        if not self._is_over:
            self._is_over = True
            self._on_end(self)
