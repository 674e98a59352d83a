"""What an application does with a request's writer, or with tasks of its own: the answer is as without us, and counted."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest
from aiohttp import web
from conftest import APPLICATIONS, DEADLINE, counted, full, settled

from hr_prometheus.request.aiohttp_features import WRITES_ARE_REPORTED

REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


def bare(_registry):
    """An application without us."""
    return web.Application()


async def answers(client) -> bytes:
    """Return what a server sends for two requests on one connection, without dates."""
    reader, writer = await asyncio.open_connection(client.host, client.port)
    writer.write(REQUEST + REQUEST.replace(b"Host: x", b"Host: x\r\nConnection: close"))
    answer = await asyncio.wait_for(reader.read(), DEADLINE)
    writer.close()
    return b"\n".join(line for line in answer.splitlines() if not line.startswith(b"Date:"))


async def streamed(request, *parts: bytes, **headers: str) -> web.StreamResponse:
    """Send a stream of these parts."""
    response = web.StreamResponse(headers=headers)
    await response.prepare(request)
    for part in parts:
        await response.write(part)
    await response.write_eof()
    return response


async def chained_hook(request, said):
    """A hook of the application's that calls the one which it has replaced."""
    writer = request.writer
    before = writer.on_body_write
    writer.on_body_write = lambda size, output: (said.append(size), before and before(size, output))
    return web.Response(text="ok")


async def hook_of_a_compressed_stream(request, said):
    """A hook of the application's hears of the bytes before they are compressed."""
    request.writer.on_body_write = lambda size, _output: said.append(size)
    response = web.StreamResponse()
    response.enable_compression(web.ContentCoding.gzip)
    await response.prepare(request)
    for part in (b"a" * 3000, b"b" * 100):
        await response.write(part)
    await response.write_eof(b"c" * 1000)
    return response


async def hook_after_the_head(request, said):
    """A hook that takes our place when the head has left."""
    response = web.StreamResponse()
    await response.prepare(request)
    request.writer.on_body_write = lambda size, _output: said.append(size)
    await response.write(b"x")
    await response.write_eof(b"yy")
    return response


async def failing_hook(request, said):
    """A hook that fails when all has been written."""

    def fail(size, _output):
        said.append(size)
        raise ValueError

    request.writer.on_body_write = fail
    return web.Response(text="ok")


async def own_write_eof(request, said):
    """A method of the writer's that the application wraps, and gives back."""
    original = request.writer.write_eof

    async def write_eof(chunk=b""):
        said.append(len(chunk))
        await original(chunk)

    request.writer.write_eof = write_eof
    try:
        return await streamed(request, b"abc", **{"Content-Length": "3"})
    finally:
        del request.writer.write_eof


async def own_write_headers(request, said):
    """The same of the head, given back before the response is sent."""
    original = request.writer.write_headers

    async def write_headers(status_line, headers):
        said.append(status_line)
        await original(status_line, headers)

    request.writer.write_headers = write_headers
    del request.writer.write_headers
    return web.Response(text="ok")


async def early_hints(request, _said):
    """An interim response that the application writes itself (RFC 8297)."""
    await request.writer.write(b"HTTP/1.1 103 Early Hints\r\n\r\n")
    return await streamed(request, b"abc", **{"Content-Length": "3"})


async def task_that_is_cancelled(request, said):
    """A stream that one task begins, which is cancelled, and another one ends."""
    response = web.StreamResponse()

    async def begin():
        await response.prepare(request)
        await response.write(b"a")
        await asyncio.sleep(DEADLINE)

    try:
        await asyncio.wait_for(begin(), 0.01)
    except TimeoutError:
        said.append("cancelled")
    await response.write_eof(b"z")
    return response


@pytest.mark.parametrize(
    "handler",
    [
        chained_hook,
        hook_of_a_compressed_stream,
        hook_after_the_head,
        failing_hook,
        own_write_eof,
        own_write_headers,
        early_hints,
        task_that_is_cancelled,
    ],
)
async def test_the_writer_is_the_applications(aiohttp_client, handler):
    """The answers and what the application sees are as without us, and each request is counted with its status."""
    if "hook" in handler.__name__ and not WRITES_ARE_REPORTED:
        pytest.skip("this aiohttp calls no hook")
    from prometheus_client import CollectorRegistry

    outcomes = []
    for kind in (bare, *APPLICATIONS):
        registry, said = CollectorRegistry(), []
        app = kind(registry)

        async def handle(request, said=said):
            return await handler(request, said)

        app.router.add_get("/", handle)
        outcomes.append((await answers(await aiohttp_client(app)), said))
        if kind is not bare:
            assert await counted(registry) == {("GET", "/", "200"): outcomes[0][0].count(b"HTTP/1.1 200")}
    assert outcomes[0][0].count(b"HTTP/1.1 200")
    assert all(outcome == outcomes[0] for outcome in outcomes)


async def test_an_interim_response_is_no_part_of_the_body(aiohttp_client, registry):
    """A client that leaves in the middle of the stream behind it is a 499."""
    is_over = asyncio.Event()

    async def handler(request):
        await request.writer.write(b"HTTP/1.1 103 Early Hints\r\n\r\n")
        request.writer.output_size = 0
        response = web.StreamResponse(headers={"Content-Length": "100"})
        await response.prepare(request)
        await response.write(b"x" * 72)
        await is_over.wait()
        await response.write(b"x" * 10)
        return response

    app = full(registry)
    app.router.add_get("/", handler)
    client = await aiohttp_client(app)
    reader, writer = await asyncio.open_connection(client.host, client.port)
    writer.write(REQUEST)
    await reader.readuntil(b"x" * 72)
    writer.transport.abort()
    await asyncio.sleep(0.05)
    is_over.set()
    assert await counted(registry) == {("GET", "/", "499"): 1}


async def test_a_websocket_closes_as_its_class_does(aiohttp_client, registry):
    """A close with arguments and a result of its own gets and gives them."""
    results = []

    class Socket(web.WebSocketResponse):
        async def close(self, code=1000, text="bye"):
            await super().close(code=code, message=text.encode())
            return [text]

    async def handler(request):
        socket = Socket()
        await socket.prepare(request)
        results.append(await socket.close(4001, "so long"))
        return socket

    app = full(registry)
    app.router.add_get("/", handler)
    client = await aiohttp_client(app)
    connection = await client.ws_connect("/")
    await connection.receive()
    assert connection.close_code == 4001
    await connection.close()
    assert (await settled(registry))['websocket_closes_total{by="server",code="4xxx",path="/"}'] == 1
    assert results == [["so long"]]


SCRAPED_FIRST = """
import asyncio, gc
from aiohttp import web
from prometheus_client import CollectorRegistry
from hr_prometheus import instrument

writers = []

async def text(request):
    writers.append(request.writer)
    return web.Response(text="ok")

async def answer(app, number):
    app.router.add_get("/", text)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    reader, writer = await asyncio.open_connection(*runner.addresses[0])
    for _ in range(number):
        writer.write(b"GET / HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
        await reader.readuntil(b"ok")
    writer.close()
    await runner.cleanup()

async def main():
    await answer(web.Application(), 200)
    await answer(instrument(web.Application(), registry=CollectorRegistry()), 1)

asyncio.run(main())
print(sum(isinstance(each, dict) for each in gc.get_referents(writers[-1])))
"""


def test_a_writer_needs_no_dictionary_after_many_requests_that_are_not_recorded():
    """Such as scrapes of the metrics port, which its own server answers. A dictionary takes as long as a third of a middleware."""
    done = subprocess.run(
        [sys.executable, "-c", SCRAPED_FIRST], capture_output=True, text=True, check=False, timeout=DEADLINE
    )
    assert (done.stdout, done.stderr) == ("0\n", "")
