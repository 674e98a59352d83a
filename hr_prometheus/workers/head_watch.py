"""Notes connections that have received only a part of a request's head: aiohttp's parser does not show what it has.

Such a connection must not be handed to another process, which would get the rest alone.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from aiohttp import EMPTY_PAYLOAD

from hr_prometheus.server.in_progress import is_waiting, partial_heads

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiohttp.web import RequestHandler, Server

_END_OF_HEAD = b"\r\n\r\n"


def watch_heads(server: Server) -> Callable[[], asyncio.Protocol]:
    """Return a factory of protocols that pass everything on to those of *server*, and keep ``partial_heads``.

    They cost a call for all that comes in.
    """
    return lambda: _HeadWatch(server())


class _HeadWatch(asyncio.Protocol):
    def __init__(self, connection: RequestHandler) -> None:
        self._connection = connection
        #: The body of the last request.
        self._body: Any = EMPTY_PAYLOAD
        self._latest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._connection.connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        partial_heads.discard(self._connection)
        self._connection.connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        connection, is_body = self._connection, not self._body.is_eof()
        connection.data_received(data)
        self._latest = (self._latest + data)[-len(_END_OF_HEAD) :]
        messages: Any = getattr(connection, "_messages", None)
        if messages:
            _, self._body = messages[-1]
            is_body = is_body or self._body is not EMPTY_PAYLOAD
        # A client may send a part of the next head before it has its answer.
        if is_waiting(connection) or not (is_body or self._latest == _END_OF_HEAD):
            partial_heads.add(connection)
        else:
            partial_heads.discard(connection)

    def eof_received(self) -> None:
        self._connection.eof_received()

    def pause_writing(self) -> None:
        self._connection.pause_writing()

    def resume_writing(self) -> None:
        self._connection.resume_writing()
