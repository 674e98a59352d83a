from __future__ import annotations

import asyncio
import base64
import errno
import logging
import socket
import threading
import time
from contextlib import asynccontextmanager, suppress
from itertools import pairwise

import bcrypt
import pytest
from aiohttp import web
from conftest import DEADLINE, until

from hr_prometheus.access.guard import Guard
from hr_prometheus.errors import ServingError
from hr_prometheus.server import listener, metrics_server
from hr_prometheus.server.connection_queue import MOST_WAITING
from hr_prometheus.server.metrics_routes import MetricsRoutes
from hr_prometheus.server.metrics_server import serve_metrics
from hr_prometheus.settings import Settings

GET = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"


@asynccontextmanager
async def metrics_port(body=b"some metrics\n", guard=None, view=None):
    """Serve a body or a view at /metrics, and yield a function that connects to the port."""
    clients = []

    async def body_view(_request):
        return web.Response(body=body)

    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
        runner = await serve_metrics(MetricsRoutes("/metrics", lambda: True), view or body_view, [sock], guard=guard)

        async def connect():
            clients.append(Client(*await asyncio.open_connection("127.0.0.1", port)))
            return clients[-1]

        try:
            async with asyncio.timeout(DEADLINE):
                yield connect
        finally:
            for client in clients:
                client.writer.close()
            await runner.cleanup()


class Client:
    """A connection on which bytes are sent as they are."""

    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer

    async def ask(self, request=GET):
        """Return the head and the body of an answer."""
        self.writer.write(request)
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        return head, await self.reader.readexactly(length)

    async def rest(self):
        """Wait for the end of the connection, and return what comes until then."""
        received = b""
        with suppress(ConnectionError):  # so may a connection end, too
            while part := await self.reader.read(65536):
                received += part
        return received

    async def is_closed(self):
        """Wait for the end of the connection."""
        await self.rest()
        return True


async def test_requests_in_pieces_and_in_a_row():
    """Heads may arrive byte by byte, or many at once, on one connection."""
    async with metrics_port() as connect:
        client = await connect()
        for byte in GET[:-1]:
            client.writer.write(bytes([byte]))
            await asyncio.sleep(0)
        assert await client.ask(GET[-1:]) == await client.ask()
        client.writer.write(GET * 5)
        assert [(await client.ask(b""))[1] for _ in range(5)] == [b"some metrics\n"] * 5


class Recorder(asyncio.Protocol):
    """A protocol that answers nothing."""

    received = b""

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.received += data


async def test_requests_that_are_sent_ahead():
    """Each waits until the one before is answered, and what comes behind is not read: no protocol has to keep it."""
    recorder = Recorder()
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = listener.Listener(lambda: recorder, [sock])
        port.start()
        _, writer = await asyncio.open_connection("127.0.0.1", sock.getsockname()[1])
        writer.write(GET * 5)
        await until(lambda: recorder.received and not recorder.transport.is_reading())
        for number in range(1, 6):
            assert recorder.received == GET * number
            recorder.transport.get_protocol().go_on()
        assert recorder.transport.is_reading()
        recorder.transport.abort()
        writer.close()
        port.close()


async def test_a_head_that_waits(monkeypatch):
    """Its time does not run while the request before it is answered."""
    monkeypatch.setattr(listener, "HEAD_SECONDS", 0.2)
    is_ready = asyncio.Event()

    async def view(_request):
        await is_ready.wait()
        return web.Response(text="some metrics\n")

    async with metrics_port(view=view) as connect:
        client = await connect()
        client.writer.write(GET + GET[:-2])
        await asyncio.sleep(0.5)
        client.writer.write(GET[-2:])
        await asyncio.sleep(0)
        is_ready.set()
        assert [(await client.ask(b""))[1] for _ in range(2)] == [b"some metrics\n"] * 2


@pytest.mark.parametrize("first", [b"", GET], ids=["first request", "second request"])
@pytest.mark.parametrize("is_slow", [False, True], ids=["once", "again and again"])
async def test_empty_heads(monkeypatch, first, is_slow):
    """They are no requests: the connection is closed as if they were not there."""
    monkeypatch.setattr(listener, "HEAD_SECONDS", 0.2)
    monkeypatch.setattr(metrics_server, "_KEEP_ALIVE_SECONDS", 0.4 if first else 2 * DEADLINE)
    async with metrics_port() as connect:
        client = await connect()
        if first:
            assert b" 200 OK\r\n" in (await client.ask(first))[0]
        client.writer.write(b"\r\n\r\n")

        async def drip():
            while is_slow:
                client.writer.write(b"\r\n")
                await asyncio.sleep(0.02)

        dripping = asyncio.create_task(drip())
        assert await client.rest() == b""
        dripping.cancel()


@pytest.mark.parametrize("text", [b"CONNECT \r\n\r\n", b"PRI / HTTP/1.1\r\n\r\n"])
async def test_a_head_that_is_no_request(monkeypatch, text):
    """What aiohttp waits behind is closed in time, as a head without an end is."""
    monkeypatch.setattr(listener, "HEAD_SECONDS", 0.2)
    monkeypatch.setattr(metrics_server, "_KEEP_ALIVE_SECONDS", 2 * DEADLINE)
    async with metrics_port() as connect:
        client = await connect()
        client.writer.write(text)
        assert await client.is_closed()


@pytest.mark.parametrize("first", [b"", GET], ids=["first request", "second request"])
async def test_a_slow_head(monkeypatch, first):
    """Its connection is closed some time after its first byte, or after the connection, however many bytes still come."""
    monkeypatch.setattr(listener, "HEAD_SECONDS", 0.2)
    async with metrics_port() as connect:
        client = await connect()
        if first:
            assert b" 200 OK\r\n" in (await client.ask(first))[0]
            await asyncio.sleep(0.3)  # idle, which is no slow head

        async def drip():
            for byte in GET[:-2] + b"X: " + b"x" * 1000:
                client.writer.write(bytes([byte]))
                await asyncio.sleep(0.02)

        dripping = asyncio.create_task(drip())
        assert await client.rest() == b""
        assert not dripping.done()
        dripping.cancel()


async def test_a_connection_without_a_request(monkeypatch):
    """It is closed, although it has begun no head."""
    monkeypatch.setattr(listener, "HEAD_SECONDS", 0.1)
    async with metrics_port() as connect:
        client = await connect()
        assert await client.is_closed()


async def test_an_idle_connection(monkeypatch):
    """It is closed some time after the last answer."""
    monkeypatch.setattr(metrics_server, "_KEEP_ALIVE_SECONDS", 0.2)
    async with metrics_port() as connect:
        client = await connect()
        assert b" 200 OK\r\n" in (await client.ask())[0]
        assert await client.is_closed()


async def test_a_long_head():
    """It is answered with 431, whether it ends or not; behind another request the connection is closed without an answer."""
    head = GET[:-2] + b"".join(b"X-Number-%d: %s\r\n" % (number, b"x" * 4000) for number in range(9))
    async with metrics_port() as connect:
        for request in (head, head + b"\r\n"):
            client = await connect()
            assert b" 431 " in (await client.ask(request))[0]
            assert await client.is_closed()


async def test_a_long_head_behind_another(monkeypatch):
    """Its connection is closed in time, without an answer."""
    monkeypatch.setattr(listener, "HEAD_SECONDS", 0.2)
    async with metrics_port() as connect:
        client = await connect()
        assert b" 200 OK\r\n" in (await client.ask())[0]
        client.writer.write(b"x" * (listener.LONGEST_HEAD + 1))
        assert await client.is_closed()


@pytest.mark.parametrize(
    "body",
    [
        b"Content-Length: 9\r\n\r\n", b"Content-Length: 9\r\n\r\nsome body", b"Transfer-Encoding: chunked\r\n\r\n",
        b"Content-Length: 99999\r\n\r\n" + b"x" * 99999, b"Content-Length: 99999\r\n\r\n" + b"\r\n\r\n" * 9999,
    ],
    ids=["none yet", "short", "chunked", "longer than a head", "of empty heads"],
)  # fmt: skip
async def test_a_body(body):
    """A request with one is answered with 413 before it has arrived, and its connection is closed."""
    async with metrics_port() as connect:
        client = await connect()
        head, text = await client.ask(GET[:-2] + body)
        assert b" 413 " in head
        assert text == b"The metrics port takes no body of a request.\n"
        assert await client.is_closed()


async def test_too_many_connections(monkeypatch):
    """Each further one takes the place of the one that has been silent for the longest time."""
    monkeypatch.setattr(listener, "MOST_CONNECTIONS", 3)
    async with metrics_port() as connect:
        clients = [await connect() for _ in range(3)]
        for client in reversed(clients):
            await client.ask()
        clients.append(await connect())
        assert await clients[2].is_closed()
        for client in (clients[3], clients[1], clients[0]):
            assert b" 200 OK\r\n" in (await client.ask())[0]


async def test_connections_that_end_make_room(monkeypatch):
    """Only open connections count."""
    monkeypatch.setattr(listener, "MOST_CONNECTIONS", 3)
    async with metrics_port() as connect:
        kept = await connect()
        await kept.ask()
        for _ in range(9):
            client = await connect()
            await client.ask(GET[:-2] + b"Connection: close\r\n\r\n")
            assert await client.is_closed()
        assert b" 200 OK\r\n" in (await kept.ask())[0]


async def test_a_client_that_reads_nothing(monkeypatch):
    """Its connection is closed, with what is left of the answer."""
    monkeypatch.setattr(listener, "STALL_SECONDS", 0.2)
    body = b"x" * 50_000_000
    async with metrics_port(body) as connect:
        client = await connect()
        client.writer.write(GET)
        await asyncio.sleep(0.5)
        received = await client.rest()  # some of it was on its way
        assert len(received) < len(body)


async def test_refused_requests(monkeypatch, tmp_path):
    """Each ends its connection, and the next one waits for a moment, or until a request is let in.

    Those that are open are answered meanwhile.
    """
    monkeypatch.setattr(listener, "REST", 0.1)
    monkeypatch.setattr(listener, "LONGEST_REST", 0.3)
    (tmp_path / "token").write_text("right")
    right, wrong = (GET[:-2] + b"Authorization: Bearer %s\r\n\r\n" % token for token in (b"right", b"wrong"))
    async with metrics_port(
        guard=Guard(Settings(target="", metrics_port=0, metrics_token_file=str(tmp_path / "token")))
    ) as connect:
        kept = await connect()
        assert b" 200 OK\r\n" in (await kept.ask(right))[0]
        began = time.monotonic()
        for least in (0.0, 0.05, 0.1, 0.15, 0.2):
            client = await connect()
            head, text = await client.ask(wrong)
            assert (head.split()[1], text) == (b"401", b"Unauthorized\n")
            assert await client.is_closed()
            assert time.monotonic() - began >= least
            assert b" 200 OK\r\n" in (await kept.ask(right))[0]
        assert b" 200 OK\r\n" in (await (await connect()).ask(right))[0]
        assert time.monotonic() - began >= 0.25


class Flood:
    """Clients of a listener, which gives each connection that it sets up a protocol of *made*."""

    def __init__(self):
        self.made, self.clients = [], []
        self._sock = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._listener = listener.Listener(self._make, [self._sock])

    def _make(self):
        self.made.append(Recorder())
        return self.made[-1]

    def connect(self, number, host="127.0.0.1"):
        """Connect so many clients within one turn of the event loop."""
        for _ in range(number):
            self.clients.append(socket.create_connection(self._sock.getsockname(), source_address=(host, 0)))

    async def let_in(self, number):
        """Let a request in of a connection that was set up."""
        await until(lambda: hasattr(self.made[number], "transport"))
        self.made[number].transport.get_protocol().let_in()

    def __enter__(self):
        self._listener.start()
        return self

    def __exit__(self, *_error):
        self._listener.close()
        for each in self.clients:
            each.close()


@pytest.fixture
def accepted(monkeypatch):
    """The connections that were accepted."""
    accept, sockets = socket.socket.accept, []

    def note(sock):
        connection = accept(sock)
        sockets.append(connection[0])
        return connection

    monkeypatch.setattr(socket.socket, "accept", note)
    return sockets


@pytest.fixture
def flood(monkeypatch):
    """A flood during which no rest ends by itself."""
    monkeypatch.setattr(listener, "REST", 10 * DEADLINE)
    monkeypatch.setattr(listener, "LONGEST_REST", 10 * DEADLINE)
    return Flood


async def test_connections_take_turns(flood, accepted):
    """One is set up, and the next one when a request of it is let in. They wait together, and their addresses take turns."""
    with flood() as clients:
        clients.connect(50)
        await until(lambda: len(accepted) == 50)
        clients.connect(1, "127.0.0.2")
        await until(lambda: len(accepted) == 51)
        for number in range(4):
            assert len(clients.made) == number + 1
            await clients.let_in(number)
            await clients.let_in(number)
        hosts = [each.transport.get_extra_info("peername")[0] for each in clients.made[:4]]
    assert hosts == ["127.0.0.1", "127.0.0.1", "127.0.0.2", "127.0.0.1"]


async def test_a_flood_of_connections(flood, accepted):
    """Few are accepted in one turn of the event loop, so that it serves others between them, and few wait."""
    counts = []

    async def count():
        while True:
            counts.append(len(accepted))
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    with flood() as clients:
        for number in (60, 120, 180):
            clients.connect(60)
            await until(lambda number=number: len(accepted) == number)
        counting.cancel()
        assert max(after - before for before, after in pairwise(counts)) <= 4
        assert len(clients.made) == 1
        assert sum(each.fileno() != -1 for each in accepted) <= MOST_WAITING + 1


@pytest.fixture
async def waits(monkeypatch):
    """The seconds that the next connection of a listener was asked to wait."""
    loop, seconds = asyncio.get_running_loop(), []
    call_at = loop.call_at

    def note(when, callback, *arguments, **options):
        if callback.__name__ == "_set_up_next":
            seconds.append(when - loop.time())
        return call_at(when, callback, *arguments, **options)

    monkeypatch.setattr(loop, "call_at", note)
    return seconds


async def test_a_few_silent_connections(flood, waits, monkeypatch):
    """Those that have nothing to say, such as the spare ones of a browser, delay others by the shortest time."""
    monkeypatch.setattr(listener, "REST", 0.01)
    with flood() as clients:
        clients.connect(listener.FEW)
        await until(lambda: len(clients.made) == listener.FEW)
    assert waits
    assert max(waits) <= 0.01


async def test_many_silent_connections(flood, waits, monkeypatch):
    """While many wait, the next one waits longer and longer, up to a limit."""
    monkeypatch.setattr(listener, "REST", 0.01)
    monkeypatch.setattr(listener, "LONGEST_REST", 0.1)
    with flood() as clients:
        clients.connect(5 * listener.FEW)
        await until(lambda: max(waits, default=0) > 0.08)
    assert max(waits) <= 0.1


async def test_no_more_descriptors_while_connections_wait(flood, accepted, monkeypatch, caplog):
    """Connections that wait give theirs back."""
    with flood() as clients:
        clients.connect(5)
        await until(lambda: len(accepted) == 5)
        accept = socket.socket.accept
        monkeypatch.setattr(socket.socket, "accept", lambda _: (_ for _ in ()).throw(OSError(errno.EMFILE, "too many")))
        clients.connect(1)
        await until(lambda: sum(each.fileno() == -1 for each in accepted) == 4)
        assert len(clients.made) == 1
        monkeypatch.setattr(socket.socket, "accept", accept)
    assert caplog.messages == ["The metrics port cannot accept a connection: too many."]


async def test_passwords_of_clients_that_have_left(monkeypatch, tmp_path, accepted):
    """They are not checked. Those of clients that wait are."""
    checks, is_free = [], threading.Event()

    def check(password, _hashed):
        checks.append(password)
        return is_free.wait(DEADLINE)

    def request(number):
        return GET[:-2] + b"Authorization: Basic %s\r\n\r\n" % base64.b64encode(b"alice:%d" % number)

    monkeypatch.setattr(bcrypt, "checkpw", check)
    monkeypatch.setattr(listener, "REST", 0.0)
    (tmp_path / "web.yml").write_text(
        f"basic_auth_users:\n  alice: {bcrypt.hashpw(b'a', bcrypt.gensalt(4)).decode()}\n"
    )
    settings = Settings(target="", metrics_port=0, metrics_web_config=str(tmp_path / "web.yml"))
    async with metrics_port(guard=Guard(settings)) as connect:
        first, *others, last = [await connect() for _ in range(6)]
        for number, client in enumerate([first, *others, last]):
            client.writer.write(request(number))
            await until(lambda: checks)
        await asyncio.sleep(0.1)
        for client in others:
            client.writer.close()
        await asyncio.sleep(0.1)
        is_free.set()
        for client in (first, last):
            assert b" 200 OK\r\n" in (await client.ask(b""))[0]
        # Nor is that of one that leaves at once, while none waits.
        with socket.create_connection(last.writer.get_extra_info("peername")) as client:
            client.sendall(request(6))
        await until(lambda: len(accepted) == 7)
        for _ in range(20):
            assert b" 200 OK\r\n" in (await last.ask(request(5)))[0]
    assert checks == [b"0", b"5"]


async def test_clients_that_fail_at_tls(authority, caplog):
    """The log has the reason once, for the client sees only that its connection is closed. One that has left is no failure."""
    certificate, key = authority.issue("server")
    (authority.directory / "web.yml").write_text(
        f"tls_server_config: {{cert_file: {certificate}, key_file: {key}, client_auth_type: RequireAndVerifyClientCert, "
        f"client_ca_file: {authority.path}, client_allowed_sans: [prometheus.example]}}\n"
    )
    guard = Guard(Settings(target="", metrics_port=0, metrics_web_config=str(authority.directory / "web.yml")))
    async with metrics_port(guard=guard) as connect:
        for identity in [(), (), authority.issue("other", "DNS:other.example")]:
            client = await connect()
            with suppress(OSError):
                await client.writer.start_tls(authority.context(*identity), server_hostname="127.0.0.1")
            assert await client.is_closed()
        client = await connect()
        client.writer.write(GET)
        assert await client.is_closed()
        (await connect()).writer.close()
        await asyncio.sleep(0.1)
    assert [
        line.removeprefix("A client of the metrics port has failed at the TLS handshake: ") for line in caplog.messages
    ] == [
        "PEER_DID_NOT_RETURN_A_CERTIFICATE.",
        "the client's certificate has no allowed name.",
        "HTTP_REQUEST.",
    ]


SECRET = b"some-secret"
MALFORMED = {
    "request line": b"GET /metrics?token=%s HTTP/1.1x\r\n\r\n" % SECRET,
    "method": b"%s{} / HTTP/1.1\r\n\r\n" % SECRET,
    "host of the URL": b"GET http://[::1%s HTTP/1.1\r\n\r\n" % SECRET,
    "name of a field": GET[:-2] + b"Authorization : Bearer %s\r\n\r\n" % SECRET,
    "no name of a field": GET[:-2] + b"%s\r\n\r\n" % SECRET,
    "null byte": GET[:-2] + b"Authorization: Bearer %s\0\r\n\r\n" % SECRET,
    "long field": GET[:-2] + b"Authorization: Bearer %s\r\n\r\n" % (SECRET * 1000),
    "length": GET[:-2] + b"Content-Length: %s\r\n\r\n" % SECRET,
    "chunk": GET[:-2] + b"Transfer-Encoding: chunked\r\n\r\n%s\r\n" % SECRET,
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n%s" % SECRET,
    "behind another": GET + b"GET /%s HTTP/1.1x\r\n\r\n" % SECRET,
}


@pytest.mark.parametrize("request_text", MALFORMED.values(), ids=MALFORMED)
async def test_malformed_requests(monkeypatch, caplog, capfd, request_text):
    """Each kind is logged once a minute, without anything of the request."""
    caplog.set_level(logging.DEBUG)
    monkeypatch.setattr(listener, "REST", 0.0)
    async with metrics_port() as connect:
        for _ in range(20):
            client = await connect()
            client.writer.write(request_text)
            assert await client.is_closed()
    text = caplog.text + "".join(capfd.readouterr())
    assert SECRET.decode() not in text
    assert text.count("The metrics port has refused a malformed request: ") <= 1
    assert "Traceback" not in text


async def test_a_view_that_fails(caplog):
    """Its error is logged by aiohttp's logger, with a traceback."""

    async def view(_request):
        raise RuntimeError("on purpose")

    async with metrics_port(view=view) as connect:
        assert b" 500 " in (await (await connect()).ask())[0]
    (record,) = caplog.records
    assert record.name == "aiohttp.server"
    assert record.getMessage().startswith("Error handling request")
    assert "RuntimeError: on purpose" in caplog.text


async def test_no_more_descriptors(monkeypatch, caplog):
    """It is logged once, and connections are accepted again when there are some."""
    monkeypatch.setattr(listener, "_RETRY", 0.05)
    accept, refused = socket.socket.accept, 0

    def refuse(sock):
        nonlocal refused
        refused += 1
        raise OSError(24, "Too many open files")

    async with metrics_port() as connect:
        monkeypatch.setattr(socket.socket, "accept", refuse)
        client = await connect()
        await until(lambda: refused == 3)
        monkeypatch.setattr(socket.socket, "accept", accept)
        assert b" 200 OK\r\n" in (await client.ask())[0]
    assert caplog.messages == ["The metrics port cannot accept a connection: Too many open files."]


@pytest.fixture
def one_descriptor(monkeypatch, accepted):
    """After each connection that is accepted, another is refused."""
    accept, refusals = socket.socket.accept, []
    monkeypatch.setattr(listener, "_RETRY", 0.0)

    def accept_every_second(sock):
        if len(refusals) < len(accepted):
            refusals.append(sock)
            raise OSError(errno.EMFILE, "Too many open files")
        return accept(sock)

    monkeypatch.setattr(socket.socket, "accept", accept_every_second)


async def test_the_last_descriptor(one_descriptor):
    """The connection that has it is answered."""
    async with metrics_port() as connect:
        for _ in range(3):
            assert b" 200 OK\r\n" in (await (await connect()).ask())[0]


async def test_a_flood_with_one_descriptor(flood, one_descriptor, accepted, caplog):
    """It is logged once, though some connections are accepted meanwhile."""
    with flood() as clients:
        clients.connect(5)
        await until(lambda: len(accepted) == 5)
    assert caplog.messages == ["The metrics port cannot accept a connection: Too many open files."]


async def test_a_port_that_is_refused():
    """The sentence names it."""

    async def view(_request):
        return web.Response()

    with socket.socket() as other, socket.socket() as sock:
        for each in (other, sock):
            each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            each.bind(("127.0.0.1", other.getsockname()[1] if each is sock else 0))
        other.listen()
        with pytest.raises(ServingError, match=r"cannot listen on http://127.0.0.1:\d+: another process uses it"):
            await serve_metrics(MetricsRoutes("/metrics", lambda: True), view, [sock])
