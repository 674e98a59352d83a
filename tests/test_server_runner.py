"""A stop: what a connection still hears, and when it ends."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from functools import partial
from types import SimpleNamespace

import aiohttp
from aiohttp import web
from conftest import DEADLINE, until

from hr_prometheus import hrprometheus_middleware
from hr_prometheus.server import runner as runner_module
from hr_prometheus.server.runner import Runner

#: More bytes than the operating system and aiohttp keep for a client that does not read.
SIZE = 1 << 24


async def upload(request: web.Request) -> web.Response:
    request.app["state"].begun.set()
    return web.Response(text=f"{len(await request.read())} bytes")


async def websocket(request: web.Request) -> web.WebSocketResponse:
    response = web.WebSocketResponse()
    await response.prepare(request)
    request.app["state"].begun.set()
    async for message in response:
        await response.send_str(message.data)
    request.app["state"].has_ended = True
    return response


async def large(request: web.Request) -> web.Response:
    request.app["state"].begun.set()
    return web.Response(body=b"x" * SIZE)


async def slow(request: web.Request) -> web.Response:
    request.app["state"].begun.set()
    await request.app["state"].go.wait()
    request.app["state"].has_ended = True
    return web.Response(text="answer")


@asynccontextmanager
async def served(registry, seconds: float = DEADLINE, **options):
    """Serve an application, and yield it, its runner and its address."""
    app = web.Application(middlewares=[hrprometheus_middleware(registry=registry, **options)], client_max_size=1 << 30)
    state = app["state"] = SimpleNamespace(begun=asyncio.Event(), go=asyncio.Event(), has_ended=False)
    state.at_shutdown = partial(asyncio.sleep, 0)
    routes = web.post("/", upload), web.get("/ws", websocket), web.get("/large", large), web.get("/slow", slow)
    app.add_routes(routes)
    app.on_shutdown.append(lambda _app: state.at_shutdown())
    runner = Runner(app, drain_seconds=seconds)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with asyncio.timeout(DEADLINE):
        yield app, runner, runner.addresses[0]
        await runner.cleanup()


@asynccontextmanager
async def websocket_at(address):
    """Open a WebSocket at an address."""
    async with aiohttp.ClientSession() as session, session.ws_connect(f"http://127.0.0.1:{address[1]}/ws") as client:
        yield client


async def begin(app, address, head: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Send the head of a request, and return when its handler has begun."""
    reader, writer = await asyncio.open_connection(*address)
    writer.write(head + b" HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n")
    await app["state"].begun.wait()
    return reader, writer


async def test_a_request_whose_body_is_arriving(registry):
    """It is answered when the body has come, and its client reads that the connection ends."""
    async with served(registry) as (app, runner, address):
        reader, writer = await begin(app, address, b"POST /")
        writer.write(b"bo")
        stop = asyncio.create_task(runner.cleanup())
        await until(lambda: runner.is_draining)
        writer.write(b"dy")
        answer = await reader.read()
        assert b"\r\nConnection: close\r\n" in answer
        assert answer.endswith(b"4 bytes")
        await stop
        writer.close()


async def test_a_body_that_does_not_come(registry):
    """Its request is cut off when the time is over."""
    async with served(registry, seconds=0.1) as (app, runner, address):
        reader, writer = await begin(app, address, b"POST /")
        await runner.cleanup()
        assert await reader.read() == b""
        writer.close()


async def test_a_second_request_on_a_connection(registry):
    """One that is read while the first is in progress is answered as well, as the last one."""
    async with served(registry) as (app, runner, address):
        reader, writer = await begin(app, address, b"GET /slow")
        writer.write(b"bodyGET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
        stop = asyncio.create_task(runner.cleanup())
        await until(lambda: runner.is_draining)
        app["state"].go.set()
        assert (await reader.read()).count(b"answer") == 2
        await stop
        writer.close()


async def test_a_websocket(registry):
    """It is closed at once as "going away", its handler ends by itself, and the stop does not wait for its time to be over."""
    async with served(registry, detail="full") as (app, runner, address), websocket_at(address) as client:
        stop = asyncio.create_task(runner.cleanup())
        message = await client.receive()
        assert (message.type, message.data) == (aiohttp.WSMsgType.CLOSE, aiohttp.WSCloseCode.GOING_AWAY)
        await stop
        assert app["state"].has_ended


async def test_a_websocket_that_is_not_recorded(registry):
    """It is heard until it ends, or until the time is over."""
    async with served(registry, exclude=["/ws"]) as (app, runner, address), websocket_at(address) as client:
        stop = asyncio.create_task(runner.cleanup())
        await until(lambda: runner.is_draining)
        await client.send_str("still there?")
        assert (await client.receive()).data == "still there?"
        await client.close()
        await stop
        assert app["state"].has_ended


async def test_a_client_that_reads_slowly(registry):
    """It gets what is left of its response."""
    async with served(registry) as (app, runner, address):
        reader, writer = await asyncio.open_connection(*address, limit=1024)
        writer.write(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
        await app["state"].begun.wait()
        stop = asyncio.create_task(runner.cleanup())
        await asyncio.sleep(0.05)
        assert not stop.done()
        assert (await reader.read()).endswith(b"x" * SIZE)
        await stop
        writer.close()


async def test_a_request_whose_client_has_left(registry):
    """It goes on to its end."""
    async with served(registry) as (app, runner, address):
        _, writer = await begin(app, address, b"GET /slow")
        writer.close()
        await until(lambda: not any(each.transport for each in runner.server.connections))
        stop = asyncio.create_task(runner.cleanup())
        await until(lambda: runner.is_draining)
        app["state"].go.set()
        await stop
        assert app["state"].has_ended


async def test_idle_connections(registry):
    """They are closed at once, before the application's own part of the stop."""
    async with served(registry) as (app, runner, address):
        reader, writer = await asyncio.open_connection(*address)
        app["state"].at_shutdown = reader.read
        await until(lambda: runner.server.connections)
        await runner.cleanup()
        writer.close()


async def test_an_aiohttp_that_does_not_show_what_is_idle(registry, monkeypatch):
    """It waits for requests itself."""
    monkeypatch.setattr(runner_module, "SHOWS_IDLE", False)
    async with served(registry) as (app, runner, address):
        reader, writer = await begin(app, address, b"GET /slow")
        stop = asyncio.create_task(runner.cleanup())
        await until(lambda: runner.is_draining)
        app["state"].go.set()
        assert (await reader.read()).endswith(b"answer")
        await stop
        writer.close()
