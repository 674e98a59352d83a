"""The clients, in a process of their own, so that the server has a processor to itself."""

from __future__ import annotations

import asyncio
import time

from commands import obey

_REQUEST = "GET {} HTTP/1.1\r\nHost: localhost\r\n\r\n"
_WARM = 2  # responses, to each connection
_DEADLINE = 30.0  # seconds
_SETTLE = 0.0003  # seconds in which a server closes a connection


class Client(asyncio.Protocol):
    """A connection that sends its request again as soon as it was answered."""

    def __init__(self, request: bytes, load: Load) -> None:
        self._request, self._load = request, load

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the first request."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101
        self.transport = transport
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        """Send the request again at the end of a response, whose body is "ok"."""
        if data.endswith(b"ok"):
            self._load.answered += 1
            self.transport.write(self._request)


class Load:
    """The methods that a driver calls."""

    def __init__(self) -> None:
        self.answered = 0
        self._clients: list[Client] = []

    async def begin(self, port: int, path: str, connections: int) -> None:
        """Open so many connections that request *path* again and again, and return when all of them do."""
        loop, self.answered = asyncio.get_running_loop(), 0
        request = _REQUEST.format(path).encode()
        for _ in range(connections):
            _, client = await loop.create_connection(lambda: Client(request, self), "127.0.0.1", port)
            self._clients.append(client)
        async with asyncio.timeout(_DEADLINE):
            while self.answered < _WARM * connections:
                await asyncio.sleep(0.01)

    async def end(self) -> None:
        """Close the connections, and wait until the server has done so as well."""
        for client in self._clients:
            client.transport.abort()
        await asyncio.sleep(0.01 + _SETTLE * len(self._clients))  # or it disturbs the next server
        self._clients.clear()

    async def scrape(self, port: int) -> float:
        """Scrape the metrics once, and return the seconds until the last byte arrived."""
        began = time.perf_counter()
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**24)
        writer.write(b"GET /metrics HTTP/1.0\r\nHost: localhost\r\n\r\n")
        body = await reader.read()
        writer.close()
        if b" 200 " not in body[:20]:
            raise RuntimeError(f"a scrape was answered with {body[:200]!r}")
        return time.perf_counter() - began

    async def wait(self, seconds: float) -> float:
        """Do nothing for so long."""
        await asyncio.sleep(seconds)
        return seconds


if __name__ == "__main__":
    asyncio.run(obey(Load()))
