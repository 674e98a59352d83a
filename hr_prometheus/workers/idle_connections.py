"""The idle connections of a worker that is paused: they wait for the next worker, as new connections do.

They lie in a pair of sockets that all workers inherit. One worker puts connections in, and the next one accepts them there,
as from a listening socket. If it cannot start, the first one takes them back in the same way.
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from typing import TYPE_CHECKING

from hr_prometheus.server.in_progress import idle_connections

if TYPE_CHECKING:
    from aiohttp.web import Server


class IdleConnections(socket.socket):
    """The end of the pair at which connections are accepted; *entrance* is the descriptor of the other end."""

    def __init__(self, descriptor: int, entrance: int) -> None:
        super().__init__(fileno=descriptor)
        self._entrance = socket.socket(fileno=entrance)
        for each in (self, self._entrance):
            os.set_inheritable(each.fileno(), False)
            each.setblocking(False)

    def take_from(self, server: Server) -> None:
        """Take over the idle connections of a *server*. Those with TLS stay, and so do those that there is no room for."""
        for connection in idle_connections(server):
            transport = connection.transport
            if transport is not None and transport.get_extra_info("sslcontext") is None:
                with suppress(OSError):
                    socket.send_fds(self._entrance, [b"\0"], [transport.get_extra_info("socket").fileno()])
                    connection.force_close()  # which closes it here alone

    def listen(self, backlog: int = 0, /) -> None:
        """Accept what is there. No client can connect."""

    def accept(self) -> tuple[socket.socket, None]:
        """Return the next connection; raise :exc:`BlockingIOError` if there is none."""
        _, (descriptor,), _, _ = socket.recv_fds(self, 1, 1)
        return socket.socket(fileno=descriptor), None
