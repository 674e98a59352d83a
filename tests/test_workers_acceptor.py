"""How a worker takes connections."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import socket
import ssl

import pytest
from aiohttp import web
from conftest import DEADLINE

from hr_prometheus.errors import ServingError
from hr_prometheus.server.runner import Runner
from hr_prometheus.workers.acceptor import Acceptor, Counts
from hr_prometheus.workers.descriptors import check_descriptors


class Echo(asyncio.Protocol):
    """Sends back each word that it receives."""

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.transport.write(data)


class FailingSocket(socket.socket):
    """A listening socket whose accept fails while there are errors to fail with."""

    def __init__(self, *errors: int) -> None:
        super().__init__()
        self.errors = list(errors)
        self.tries = 0
        self.bind(("127.0.0.1", 0))
        self.listen()
        self.setblocking(False)

    def accept(self):
        self.tries += 1
        if self.errors:
            raise OSError(self.errors[0], "refused")
        return super().accept()


@pytest.fixture
def counts():
    """Counts that no worker shares."""
    counts = Counts(Counts.create())
    yield counts
    counts.close()


async def echoed(sock: socket.socket) -> bytes:
    """Return the answer to a word."""
    reader, writer = await asyncio.open_connection(*sock.getsockname())
    writer.write(b"word")
    try:
        return await asyncio.wait_for(reader.read(4), DEADLINE)
    finally:
        writer.close()


async def until_connections(acceptor: Acceptor, number: int) -> None:
    async with asyncio.timeout(DEADLINE):
        while acceptor.connections != number:
            await asyncio.sleep(0.001)


async def until_tries(sock: FailingSocket, number: int) -> None:
    async with asyncio.timeout(DEADLINE):
        while sock.tries < number:
            await asyncio.sleep(0.001)


def test_the_smallest_count(counts):
    """The smallest is that of a worker that accepts connections."""
    counts.set(3, 5)
    counts.set(200, 2)
    assert counts.smallest() == 2
    counts.clear(200)
    assert counts.smallest() == 5
    counts.clear(3)
    assert counts.smallest() == 0


def test_a_worker_without_descriptors_does_not_begin():
    """It could answer hardly anybody, and would count nothing."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.open(os.devnull, os.O_RDONLY)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + 3, limits[1]))
    try:
        with pytest.raises(
            ServingError, match=r"no more than [0-3] further files: Too many open files. Expected room for 8"
        ):
            check_descriptors(8)
        check_descriptors(1)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


async def test_connections_are_counted_until_they_are_closed(counts):
    """And the sockets are closed when it stops."""
    sock = FailingSocket()
    acceptor = Acceptor(Echo, [sock], counts, 0, None)
    acceptor.start()
    assert await echoed(sock) == b"word"
    _, writer = await asyncio.open_connection(*sock.getsockname())
    await until_connections(acceptor, 1)
    assert counts.smallest() == 1
    counts.set(1, 7)
    acceptor.stop()
    assert counts.smallest() == 7
    assert sock.fileno() == -1
    writer.close()
    await until_connections(acceptor, 0)
    assert counts.smallest() == 7


async def test_a_worker_with_more_than_the_emptiest_rests_and_then_serves(counts):
    """The emptiest one may be blocked."""
    sock = FailingSocket()
    counts.set(1, 0)
    acceptor = Acceptor(Echo, [sock], counts, 0, None)
    acceptor.start()
    writers = [(await asyncio.open_connection(*sock.getsockname()))[1] for _ in range(5)]
    await until_connections(acceptor, 5)
    acceptor.stop()
    for writer in writers:
        writer.close()
    await until_connections(acceptor, 0)


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.EPROTO])
async def test_an_error_of_accept_is_logged_once(counts, monkeypatch, caplog, number):
    """It is tried again, not at once, and the connection that waited is served."""
    monkeypatch.setattr("hr_prometheus.workers.acceptor.RETRY", 0.01)
    sock = FailingSocket(number, errno.ECONNABORTED)
    acceptor = Acceptor(Echo, [sock], counts, 0, None)
    acceptor.start()
    client = asyncio.create_task(echoed(sock))
    await until_tries(sock, 3)
    sock.errors.clear()
    assert await client == b"word"
    assert [record.message for record in caplog.records] == ["No connection can be accepted at present: refused."]
    acceptor.stop()
    await until_connections(acceptor, 0)


async def test_an_aborted_connection_is_not_logged(counts, caplog):
    """Its client has left."""
    sock = FailingSocket(errno.ECONNABORTED)
    acceptor = Acceptor(Echo, [sock], counts, 0, None)
    acceptor.start()
    client = asyncio.create_task(echoed(sock))
    await until_tries(sock, 1)
    sock.errors.clear()
    assert await client == b"word"
    assert not caplog.records
    acceptor.stop()
    await until_connections(acceptor, 0)


async def test_stopping_while_it_rests(counts, monkeypatch):
    """The rest does not outlive it."""
    monkeypatch.setattr("hr_prometheus.workers.acceptor.RETRY", 0.01)
    errors = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: errors.append(context))
    sock = FailingSocket(errno.EMFILE)
    acceptor = Acceptor(Echo, [sock], counts, 0, None)
    acceptor.start()
    writer = (await asyncio.open_connection(*sock.getsockname()))[1]
    await until_tries(sock, 1)
    tries = sock.tries  # more than one on a busy machine
    acceptor.stop()
    await asyncio.sleep(0.02)  # an event loop calls what is due later in the order of time
    assert (sock.tries, errors) == (tries, [])
    writer.close()


async def test_a_client_that_fails_at_tls_is_forgotten(counts):
    """And harms no other client."""
    sock = FailingSocket()
    acceptor = Acceptor(Echo, [sock], counts, 0, ssl.create_default_context(ssl.Purpose.CLIENT_AUTH))
    acceptor.start()
    reader, writer = await asyncio.open_connection(*sock.getsockname())
    writer.write(b"GET / HTTP/1.1\r\n\r\n")
    await until_connections(acceptor, 1)
    async with asyncio.timeout(DEADLINE):
        while await reader.read(1000):
            pass
    await until_connections(acceptor, 0)
    writer.close()
    acceptor.stop()


async def hello(_request: web.Request) -> web.Response:
    return web.Response(text="hello")


def requested(address: tuple[str, int]) -> socket.socket:
    """Return a connection on which a request waits."""
    sock = socket.create_connection(address, DEADLINE)
    sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    sock.setblocking(False)
    return sock


async def answer(sock: socket.socket) -> bytes:
    """Return the beginning of a response."""
    with sock:
        return await asyncio.wait_for(asyncio.get_running_loop().sock_recv(sock, 12), DEADLINE)


@pytest.mark.parametrize("turns", range(16))
async def test_a_connection_that_comes_during_the_stop_of_a_worker(counts, turns):
    """It is answered or refused, and the stop does not wait for it."""
    app = web.Application()
    app.router.add_get("/", hello)
    runner = Runner(app, drain_seconds=10 * DEADLINE)
    await runner.setup()
    sock = FailingSocket()
    address = sock.getsockname()
    acceptor = Acceptor(runner.server, [sock], counts, 0, None)
    acceptor.start()
    waiting = requested(address)

    async def stop() -> None:
        await acceptor.drain(DEADLINE)
        await runner.cleanup()

    stopping = asyncio.create_task(stop())
    for _ in range(turns):
        await asyncio.sleep(0)
    try:
        late = requested(address)
    except ConnectionRefusedError:
        late = None
    await asyncio.wait_for(stopping, DEADLINE)
    assert await answer(waiting) == b"HTTP/1.1 200"
    assert late is None or await answer(late) == b"HTTP/1.1 200"


async def test_a_stop_sets_up_all_that_wait(counts):
    """Without TLS it needs no time, however long the event loop was blocked."""
    app = web.Application()
    app.router.add_get("/", hello)
    runner = Runner(app, drain_seconds=10 * DEADLINE)
    await runner.setup()
    sock = FailingSocket()
    acceptor = Acceptor(runner.server, [sock], counts, 0, None)
    acceptor.start()
    waiting = [requested(sock.getsockname()) for _ in range(20)]
    await acceptor.drain(0.0)
    answers = await asyncio.gather(*map(answer, waiting))
    await runner.cleanup()
    assert answers == [b"HTTP/1.1 200"] * 20
