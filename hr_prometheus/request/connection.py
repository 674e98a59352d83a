"""The connections that requests come on, and what is recorded when they end."""

from __future__ import annotations

import asyncio
import select
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aiohttp.web import Request

    from hr_prometheus.request.exchange import Exchange


class TlsSocket:
    """The socket of a connection with TLS."""

    def __init__(self, socket: Any) -> None:
        self._socket = socket

    def is_reset(self) -> bool:
        """Whether the client has reset the connection, as the operating system knows it.

        The transport may know it some turns of the event loop later (asyncio of Python 3.11, uvloop). Until then it drops
        what is written, without an error.
        """
        descriptor = self._socket.fileno()
        if descriptor < 0:
            return False
        poll = select.poll()
        poll.register(descriptor, 0)  # these two are reported unasked
        return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))


class Connection:
    """One connection of a client. *exchange* is the request on it that is not over."""

    exchange: Exchange | None = None
    tls: TlsSocket | None = None

    def end(self, task: asyncio.Task[Any]) -> None:
        """Record the end of a request whose response was not complete when the connection ended."""
        del connections[task]
        if self.exchange is not None:
            self.exchange.give_up()


#: The open connections, by aiohttp's tasks for them.
connections: dict[asyncio.Task[Any] | None, Connection] = {}


def open_connection(task: object, request: Request) -> Connection | None:
    """Return the connection that is new with *task*; ``None`` if that is not aiohttp's, as in a unit test."""
    if not isinstance(task, asyncio.Task):
        return None
    connection = connections[task] = Connection()
    transport = request.transport
    if transport is not None and transport.get_extra_info("sslcontext") is not None:
        connection.tls = TlsSocket(transport.get_extra_info("socket"))
    task.add_done_callback(connection.end)
    return connection
