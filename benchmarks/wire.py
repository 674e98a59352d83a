"""A connection to an application without a network: the server's protocol, fed by hand.

What is measured is then the server alone: its parser, its router, the task that it makes for each request, the
middlewares and the handler; and no socket, whose cost is many times that of what is looked for.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import Iterable

# HTTP/1.0: neither chunks nor keep-alive, so that the body is all that comes after the head, until the end.
_SCRAPE = b"GET /metrics HTTP/1.0\r\nHost: localhost\r\n\r\n"


def get(path: str) -> bytes:
    """Return a request of *path*, as a keep-alive client writes it."""
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()


class Transport(asyncio.Transport):
    """Where the server writes to; it keeps what is written if *keep*."""

    def __init__(self, protocol: asyncio.BaseProtocol, *, keep: bool = False) -> None:
        super().__init__()
        self.writes = 0
        self.written: list[bytes] = []
        self.closed = False
        self._protocol, self._keep = protocol, keep

    def write(self, data: Any) -> None:
        """Count the write."""
        self.writes += 1
        if self._keep:
            self.written.append(bytes(data))

    def writelines(self, list_of_data: Iterable[Any]) -> None:
        """Count them as one."""
        self.write(b"".join(list_of_data) if self._keep else b"")

    def close(self) -> None:
        """End the connection, as a socket does: a little later."""
        if not self.closed:
            self.closed = True
            asyncio.get_running_loop().call_soon(self._protocol.connection_lost, None)

    def is_closing(self) -> bool:
        """Whether it was closed."""
        return self.closed

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Tell where the client is."""
        return ("127.0.0.1", 50000) if name == "peername" else default

    def get_write_buffer_size(self) -> int:
        """Say that all was sent: this client is fast."""
        return 0

    def pause_reading(self) -> None:
        """Do nothing: there is nothing to read."""

    def resume_reading(self) -> None:
        """Do nothing."""


class Wire:
    """A running application, and a connection to it."""

    def __init__(self, runner: web.AppRunner) -> None:
        self.runner = runner
        self._protocol, self._transport = self._connect()

    @classmethod
    async def to(cls, app: web.Application) -> Wire:
        """Start the application and connect to it."""
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        wire = cls(runner)
        await asyncio.sleep(0)
        return wire

    def _connect(self, *, keep: bool = False) -> tuple[web.RequestHandler, Transport]:
        assert self.runner.server is not None  # noqa: S101  # it was set up
        protocol = self.runner.server()
        transport = Transport(protocol, keep=keep)
        protocol.connection_made(transport)
        return protocol, transport

    async def exchange(self, requests: Iterable[bytes]) -> None:
        """Send the requests one after the other, each when the response to the one before has been written."""
        feed, transport, once = self._protocol.data_received, self._transport, asyncio.sleep
        for request in requests:
            writes = transport.writes
            feed(request)
            while transport.writes == writes:
                await once(0)
        await once(0)  # what was put off until the request's task is done belongs to it

    async def scrape(self) -> bytes:
        """Return the body of the metrics."""
        protocol, transport = self._connect(keep=True)
        protocol.data_received(_SCRAPE)
        while not transport.closed:
            await asyncio.sleep(0)
        head, _, body = b"".join(transport.written).partition(b"\r\n\r\n")
        transport.written.clear()
        await asyncio.sleep(0)  # and the server lets go of the connection
        if not head.startswith((b"HTTP/1.0 200", b"HTTP/1.1 200")):
            raise RuntimeError(f"a scrape was answered with {head!r}")
        return body


def lines(body: bytes) -> int:
    """Return how many samples a scrape has."""
    return sum(not line.startswith(b"#") for line in body.splitlines())
