"""The idle connections that a worker leaves to the next one."""

from __future__ import annotations

import asyncio
import http.client
import socket
from contextlib import asynccontextmanager, suppress

import pytest
from aiohttp import web
from conftest import DEADLINE, until

from hr_prometheus.workers.idle_connections import IdleConnections


async def wait(request: web.Request) -> web.Response:
    await request.app["go"].wait()
    return web.Response(text="answer")


@asynccontextmanager
async def served():
    """Serve an application, and yield its runner, its port and an event for which its requests wait."""
    app = web.Application()
    app["go"] = asyncio.Event()
    app.router.add_get("/", wait)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield runner, runner.addresses[0][1], app["go"]
    await runner.cleanup()


@pytest.fixture
def idle():
    ends = [each.detach() for each in socket.socketpair()]
    with IdleConnections(*ends) as idle:
        yield idle
        idle._entrance.close()


async def test_only_idle_connections_are_taken(idle):
    """One that waits for its answer stays. What was taken stays open for its client, and is served by the next one."""
    async with served() as (runner, port, go), served() as (other, _, other_go):
        idle_client, busy_client = (http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE) for _ in range(2))
        go.set()
        assert await asyncio.to_thread(get, idle_client) == "answer"
        go.clear()
        task = asyncio.create_task(asyncio.to_thread(get, busy_client))
        await until(lambda: runner.server.requests_count == 2)
        idle.take_from(runner.server)
        connection, _ = idle.accept()
        with pytest.raises(BlockingIOError):
            idle.accept()
        await until(lambda: len(runner.server.connections) == 1)
        connection.setblocking(False)
        await asyncio.get_running_loop().connect_accepted_socket(other.server, connection)
        other_go.set()
        assert await asyncio.to_thread(get, idle_client) == "answer"
        assert other.server.requests_count == 1
        go.set()
        assert await task == "answer"
        idle_client.close()
        busy_client.close()


async def test_no_request_is_lost(idle):
    """Whatever a connection does at the moment at which it is looked at."""
    async with served() as (runner, port, go):
        go.set()
        loop = asyncio.get_running_loop()

        def take_over() -> None:
            nonlocal handle
            idle.take_from(runner.server)
            with suppress(BlockingIOError):
                while True:
                    connection, _ = idle.accept()
                    connection.setblocking(False)
                    tasks.append(loop.create_task(loop.connect_accepted_socket(runner.server, connection)))
            handle = loop.call_later(0.0002, take_over)

        tasks: list[asyncio.Task] = []
        handle = loop.call_later(0.0002, take_over)
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE)
        for _ in range(300):
            assert await asyncio.to_thread(get, client) == "answer"
        handle.cancel()
        client.close()
        await asyncio.gather(*tasks)
        assert len(tasks) > 50


async def test_connections_that_there_is_no_room_for_stay(idle, monkeypatch):
    """They are served by the worker that has them."""
    async with served() as (runner, port, go):
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE)
        go.set()
        assert await asyncio.to_thread(get, client) == "answer"
        while True:
            try:
                socket.send_fds(idle._entrance, [b"\0"], [0])
            except BlockingIOError:
                break
        idle.take_from(runner.server)
        assert await asyncio.to_thread(get, client) == "answer"
        client.close()


def get(client: http.client.HTTPConnection) -> str:
    client.request("GET", "/")
    return client.getresponse().read().decode()
