"""Which connections have received only a part of a request's head."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from conftest import DEADLINE, until

from hr_prometheus.server.in_progress import idle_connections, partial_heads
from hr_prometheus.workers.head_watch import watch_heads

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody"


@asynccontextmanager
async def connected():
    """Serve an application whose connections are watched.

    Yield its server, a reader, a writer, and an event for which its requests wait.
    """
    go = asyncio.Event()
    go.set()

    async def answer(request: web.Request) -> web.Response:
        await go.wait()
        return web.Response(text=f"answer {await request.text()}")

    app = web.Application()
    app.router.add_route("*", "/", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    async with await asyncio.get_running_loop().create_server(watch_heads(runner.server), "127.0.0.1", 0) as server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        yield runner.server, reader, writer, go
        writer.close()
        await until(lambda: not runner.server.connections)
    await runner.cleanup()
    assert not partial_heads


async def exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, data: bytes, answers: int) -> None:
    """Send some bytes, and wait for so many answers."""
    writer.write(data)
    async with asyncio.timeout(DEADLINE):
        for _ in range(answers):
            await reader.readuntil(b"answer ")


@pytest.mark.parametrize(
    ("begun", "rest", "answers"),
    [
        (GET[:1], GET[1:], 0),
        (GET[:-1], GET[-1:], 0),
        (POST[:30], POST[30:], 0),
        (GET + GET[:20], GET[20:], 1),
        (POST + GET + POST[:30], POST[30:], 2),
    ],
)
async def test_a_part_of_a_head(begun, rest, answers):
    """Its connection is not idle until the rest has come and was answered."""
    async with connected() as (server, reader, writer, _):
        await until(lambda: idle_connections(server))
        await exchange(reader, writer, begun, answers)
        await until(lambda: partial_heads)
        assert idle_connections(server) == []
        await exchange(reader, writer, rest, 1)
        await until(lambda: idle_connections(server))


async def test_a_part_of_a_head_before_the_answer_to_the_last_request():
    """It is noted when it comes."""
    async with connected() as (server, reader, writer, go):
        go.clear()
        await exchange(reader, writer, GET, 0)
        await until(lambda: server.requests_count)
        await exchange(reader, writer, GET[:20], 0)
        await until(lambda: partial_heads)
        go.set()
        await exchange(reader, writer, GET[20:], 2)
        await until(lambda: idle_connections(server))


async def test_a_body_in_parts():
    """It is no head: its connection is idle when the request was answered."""
    async with connected() as (server, reader, writer, _):
        await exchange(reader, writer, POST[:-2], 0)
        await until(lambda: server.requests_count)
        await exchange(reader, writer, POST[-2:], 1)
        await until(lambda: idle_connections(server))
        assert not partial_heads
