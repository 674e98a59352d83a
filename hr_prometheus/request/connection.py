"""The connections that requests come on, and what is recorded when they end."""

from __future__ import annotations

import asyncio
import select
from typing import TYPE_CHECKING, Any

from hr_prometheus.request.exchange import Exchange

if TYPE_CHECKING:
    from aiohttp.web import Request, WebSocketResponse
    from prometheus_client import CollectorRegistry

    from hr_prometheus.request.recorder import Recorder


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
    """One connection of a client."""

    def __init__(self) -> None:
        #: The request on it that is not over.
        self.exchange: Exchange | None = None
        self.tls: TlsSocket | None = None
        self.is_direct = False  #: whether it cannot be seen, as in a unit test: a request on it ends with its handler

    def end(self, task: asyncio.Task[Any]) -> None:
        """Record the end of a request whose response was not complete when the connection ended."""
        del connections[task]
        if self.exchange is not None:
            self.exchange.give_up()


#: The open connections, by aiohttp's tasks for them.
connections: dict[asyncio.Task[Any] | None, Connection] = {}


def open_connection(request: Request) -> Connection:
    """Return the connection that *request* is the first on."""
    connection = Connection()
    task = getattr(request, "task", None)
    if isinstance(task, asyncio.Task):
        connections[task] = connection
        task.add_done_callback(connection.end)
        transport = request.transport
        if transport is not None and transport.get_extra_info("sslcontext") is not None:
            connection.tls = TlsSocket(transport.get_extra_info("socket"))
    else:
        connection.is_direct = True
        observer = getattr(request.writer, "on_body_write", None)
        connection.exchange = observer if isinstance(observer, Exchange) else None
    return connection


def exchanges_in_progress(registry: CollectorRegistry) -> set[Exchange]:
    """Return the requests in progress that are recorded in a registry; not those that were left out, or of a unit test."""
    begun = [connection.exchange for connection in list(connections.values()) if connection.exchange is not None]
    every = {each for exchange in begun for each in (exchange, *exchange.inner)}
    return {each for each in every if each.record.labels and each.recorder.registry is registry}


def open_websockets(recorder: Recorder) -> list[WebSocketResponse]:
    """Return the open WebSockets of a recorder, as far as it counts them: with full detail, and if they are not left out."""
    websockets = [each.websocket for each in exchanges_in_progress(recorder.registry) if each.recorder is recorder]
    return [each.response for each in websockets if each is not None and each.response is not None]
