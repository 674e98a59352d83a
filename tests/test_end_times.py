"""A request ends with its last write, however many others are ready in the same turn of the event loop.

Time is a clock that handlers and writes move, each by so much. So a recorded latency can be compared with the true one
to a write, whatever the machine does meanwhile.
"""

from __future__ import annotations

import asyncio
import sys
from time import perf_counter

import pytest
import uvloop
from aiohttp import WSMsgType, web
from conftest import DEADLINE, basic, full, settled

CONNECTIONS = 16
#: Seconds that a handler and a write take: about 30 and 4 µs. Sums of such numbers are exact.
HANDLING, WRITING = 2.0**-15, 2.0**-18

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


class Clock:
    """A clock that stands still until it is moved."""

    now = 0.0

    def __call__(self) -> float:
        """Return the seconds, as :func:`time.perf_counter` does."""
        return self.now

    def advance(self, seconds: float) -> None:
        """Move the clock."""
        self.now += seconds


class TimedTransport:
    """A connection's transport which notes when each request's handler began and when the latest write for it ended."""

    def __init__(self, transport, clock: Clock) -> None:
        self._transport, self._clock = transport, clock
        self.began: list[float] = []
        self.ended: list[float] = []

    def __getattr__(self, name):
        return getattr(self._transport, name)

    def begin(self) -> None:
        """Note that a handler begins; aiohttp answers the requests of a connection one after the other."""
        self.began.append(self._clock.now)
        self.ended.append(self._clock.now)
        self._clock.advance(HANDLING)

    def write(self, data) -> None:
        """Write, which takes its time."""
        self._transport.write(data)
        self.end_write()

    def writelines(self, data) -> None:
        """Write several pieces at once."""
        self._transport.writelines(data)
        self.end_write()

    def end_write(self) -> None:
        """Note the end of a write."""
        self._clock.advance(WRITING)
        self.ended[-1] = self._clock.now


@pytest.fixture
def clock(monkeypatch) -> Clock:
    """A clock in the place of :func:`time.perf_counter`, wherever the package uses that."""
    clock = Clock()
    monkeypatch.setattr("time.perf_counter", clock)
    for module in [module for name, module in sys.modules.items() if name.startswith("hr_prometheus.")]:
        for name in [name for name, value in vars(module).items() if value is perf_counter]:
            monkeypatch.setattr(module, name, clock)
    return clock


@pytest.fixture
def transports(monkeypatch, clock) -> list[TimedTransport]:
    """The transports of the server's connections, all of which are timed."""
    transports: list[TimedTransport] = []
    connection_made = web.RequestHandler.connection_made

    def connect(protocol, transport) -> None:
        transports.append(TimedTransport(transport, clock))
        connection_made(protocol, transports[-1])

    monkeypatch.setattr(web.RequestHandler, "connection_made", connect)
    return transports


# The handlers.


async def plain(_request):
    """Answer."""
    return web.Response(text="four")


async def no_content(_request):
    """Answer without a body."""
    return web.Response(status=204)


async def large(_request):
    """Answer with so much that aiohttp writes it apart from the head."""
    return web.Response(body=bytes(40_000))


async def raised(_request):
    """Raise the response."""
    raise web.HTTPNotFound


async def post(request):
    """Answer when the request's body is there."""
    return web.Response(body=await request.read())


async def compressed(_request):
    """Answer with a body that is compressed as a whole."""
    response = web.Response(body=b"four" * 1000)
    response.enable_compression(web.ContentCoding.gzip)
    return response


async def stream(request):
    """Answer in parts."""
    response = web.StreamResponse()
    await response.prepare(request)
    for _ in range(3):
        await response.write(b"four")
        await asyncio.sleep(0)
    return response


async def compressed_stream(request):
    """Answer in parts that the compressor keeps until the end."""
    response = web.StreamResponse()
    response.enable_compression(web.ContentCoding.gzip)
    await response.prepare(request)
    await response.write(b"four")
    return response


async def file(_request):
    """Answer with a file."""
    return web.FileResponse(__file__)


async def websocket(request):
    """Answer until the client closes, and go on for a while."""
    response = web.WebSocketResponse()
    await response.prepare(request)
    await asyncio.sleep(0)
    assert [message.type async for message in response] == [WSMsgType.TEXT]
    await asyncio.sleep(0)
    return response


def send_file(loop: asyncio.AbstractEventLoop):
    """Return the loop's ``sendfile`` as one that takes the time of a write when all is sent."""
    sendfile = loop.sendfile

    async def timed(transport, *arguments):
        sent = await sendfile(transport, *arguments)
        transport.end_write()
        return sent

    return timed


def request_of(handler, *, is_last: bool) -> bytes:
    """Return a request for a handler, after the last of which the server closes the connection."""
    close = "Connection: close\r\n" * is_last
    if handler is post:
        return f"POST / HTTP/1.1\r\nHost: x\r\n{close}Content-Length: 4\r\n\r\nfour".encode()
    if handler is websocket:
        upgrade = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        text, closing = b"\x81\x82\0\0\0\0hi", b"\x88\x82\0\0\0\0\x03\xe8"
        return f"GET / HTTP/1.1\r\nHost: x\r\n{upgrade}{key}\r\n".encode() + text + closing
    return f"GET / HTTP/1.1\r\nHost: x\r\n{close}\r\n".encode()


@pytest.fixture
def answer(registry, transports):
    """Have a handler answer requests that arrive on all connections at once; give what was recorded, and what was true."""

    def run(loop: str, make, handler, pipelined: int = 1) -> tuple[dict[str, float], list[TimedTransport]]:
        with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
            runner.run(serve(make(registry), handler, pipelined))
            return runner.run(settled(registry)), transports

    return run


async def serve(app: web.Application, handler, pipelined: int) -> None:
    """Have the handler answer so many requests on each connection, all of which are there in one turn of the loop."""

    async def handle(request):
        request.transport.begin()
        return await handler(request)

    app.router.add_route("*", "/", handle)
    loop = asyncio.get_running_loop()
    loop.sendfile = send_file(loop)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with asyncio.timeout(DEADLINE):
        clients = [await asyncio.open_connection(*runner.addresses[0]) for _ in range(CONNECTIONS)]
        asked = b"".join(request_of(handler, is_last=number == pipelined - 1) for number in range(pipelined))
        for _, writer in clients:
            writer.write(asked)
        await asyncio.gather(*(reader.read() for reader, _ in clients))
        for _, writer in clients:
            writer.close()
    await runner.cleanup()


def assert_recorded(recorded: dict[str, float], histogram: str, labels: str, times: list[float]) -> None:
    """Compare the mean of a histogram with that of the times."""
    assert recorded[f"{histogram}_count{labels}"] == len(times)
    assert abs(recorded[f"{histogram}_sum{labels}"] - sum(times)) / len(times) <= WRITING


HANDLERS = [plain, no_content, large, raised, post, compressed, stream, compressed_stream, file]


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("detail", [basic, full])
@pytest.mark.parametrize("pipelined", [1, 10])
@pytest.mark.parametrize("handler", HANDLERS)
def test_latencies_are_true_to_a_write(answer, loop, detail, pipelined, handler):
    """The mean latency is the time from the handlers' first line to the last write, under load and pipelined as well."""
    recorded, transports = answer(loop, detail, handler, pipelined)
    times = [ended - began for each in transports for began, ended in zip(each.began, each.ended, strict=True)]
    assert len(times) == CONNECTIONS * pipelined
    method = "POST" if handler is post else "GET"
    assert_recorded(recorded, "request_latency", f'{{method="{method}",path="/"}}', times)


@pytest.mark.parametrize("loop", LOOPS)
def test_durations_of_websockets_are_true_to_a_write(answer, loop):
    """A WebSocket is open from its head to its close frame, however long its handler goes on."""
    recorded, transports = answer(loop, full, websocket)
    times = [each.ended[0] - each.began[0] - HANDLING for each in transports]
    assert_recorded(recorded, "websocket_connection_duration", '{path="/"}', times)
