"""The requests of a client: what is recorded of each is what its caller saw."""

from __future__ import annotations

import asyncio
import gc
import logging
import socket
import ssl
import struct
import sys
import time
from contextlib import asynccontextmanager, suppress
from functools import cache
from pathlib import Path
from weakref import WeakSet, ref

import aiohttp
import pytest
from aiohttp import ClientResponse, ClientSession, ClientTimeout, TCPConnector, web
from aiohttp.abc import AbstractResolver
from aiohttp.client_proto import ResponseHandler
from conftest import samples, until
from prometheus_client import CollectorRegistry, generate_latest

from hr_prometheus import client_trace_config

#: Seconds by which what is recorded may differ from what the caller measured.
_EXACT = 0.005
#: How often a case is tried until a busy machine has not come between the two.
_TRIES = 20
_DELAY = 0.03
#: Within so many seconds the head of a response comes, however busy a machine is.
_AMPLE = 0.5
_TLS = Path(__file__).parent / "tls"
_CERTIFICATE = str(_TLS / "certificate.pem"), str(_TLS / "key.pem")


async def whole(_request):
    await asyncio.sleep(_DELAY)
    return web.Response(text="0123456789")


async def parts(request):
    """Two parts, with a delay before each."""
    response = web.StreamResponse()
    await response.prepare(request)
    for _ in range(2):
        await asyncio.sleep(_DELAY)
        await response.write(b"01234")
    return response


async def cut(request):
    response = web.StreamResponse(headers={"Content-Length": "10"})
    await response.prepare(request)
    await response.write(b"01234")
    await asyncio.sleep(_DELAY)
    request.transport.abort()
    return response


async def endless(request):
    response = web.StreamResponse()
    await response.prepare(request)
    await response.write(b"01234")
    await asyncio.sleep(60)
    return response


async def silent(_request):
    await asyncio.sleep(60)
    return web.Response()


async def redirect(_request):
    raise web.HTTPFound("/redirect/2")


async def redirect_again(_request):
    await asyncio.sleep(_DELAY)
    raise web.HTTPFound("/whole")


async def loop_of_redirects(_request):
    raise web.HTTPFound("/loop_of_redirects")


async def missing(_request):
    raise web.HTTPNotFound


async def websocket(request):
    response = web.WebSocketResponse()
    await response.prepare(request)
    await response.send_str("hello")
    async for _ in response:
        pass
    return response


async def disconnect(request):
    request.transport.close()
    return web.Response()


async def upload(request):
    return web.Response(text=str(len(await request.read())))


HANDLERS = (
    whole, parts, cut, endless, silent, redirect, loop_of_redirects, missing, websocket, disconnect, upload,
)  # fmt: skip


@pytest.fixture
async def server(aiohttp_server):
    app = web.Application(client_max_size=1 << 24)
    for handler in HANDLERS:
        app.router.add_route("*", f"/{handler.__name__}", handler)
    app.router.add_get("/redirect/2", redirect_again)
    return await aiohttp_server(app, shutdown_timeout=0.01)


@asynccontextmanager
async def raw_server(answer=b"", context=None):
    """A server that takes connections, and answers with some bytes."""

    async def connected(_reader, writer):
        writers.append(writer)
        writer.write(answer)

    writers = []
    server = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        for writer in writers:
            writer.close()
        server.close()


class NoNames(AbstractResolver):
    """Knows no host."""

    async def resolve(self, *_host, **_family):
        await asyncio.sleep(_DELAY)
        raise OSError(-2, "Name or service not known")

    async def close(self):
        pass


# -- the cases: each makes one request of a session, and returns its response, if it has one


async def read_whole(session, url):
    async with session.get(url / "parts") as response:
        assert await response.read() == b"0123401234"
        return response


async def read_streamed(session, url):
    async with session.get(url / "parts") as response:
        assert [part async for part in response.content.iter_any()] == [b"01234", b"01234"]
        return response


async def is_not_read(session, url):
    response = await session.get(url / "parts")
    await until(lambda: response.closed)
    return response


async def is_released(session, url):
    response = await session.get(url / "endless")
    await asyncio.sleep(_DELAY)
    response.release()
    return response


async def is_closed(session, url):
    response = await session.get(url / "endless")
    await asyncio.sleep(_DELAY)
    response.close()
    return response


async def is_cut(session, url):
    async with session.get(url / "cut") as response:
        await response.read()


async def is_cut_while_streamed(session, url):
    async with session.get(url / "cut") as response:
        async for _ in response.content.iter_any():
            pass


async def is_cut_without_a_context(session, url):
    response = await session.get(url / "cut")
    async for _ in response.content.iter_any():
        pass


async def is_left_to_its_session(session, url):
    return await session.get(url / "endless")


async def times_out_in_connect(session, _url):
    async with raw_server() as port:  # which does not answer in TLS
        await session.get(f"https://127.0.0.1:{port}/", timeout=ClientTimeout(connect=_DELAY))


async def times_out_in_the_pool(session, url):
    other = ClientSession(connector=session.connector, connector_owner=False)
    async with other, other.get(url / "endless"):
        await session.get(url / "whole", timeout=ClientTimeout(connect=_DELAY))


async def times_out_in_the_head(session, url):
    await session.get(url / "silent", timeout=ClientTimeout(total=_DELAY))


async def times_out_in_the_body(session, url):
    async with session.get(url / "endless", timeout=ClientTimeout(total=_AMPLE)) as response:
        await response.read()


async def times_out_while_streamed(session, url):
    async with session.get(url / "endless", timeout=ClientTimeout(total=_AMPLE)) as response:
        async for _ in response.content.iter_any():
            pass


async def times_out_around_the_reading(session, url):
    async with session.get(url / "endless") as response, asyncio.timeout(_DELAY):
        async for _ in response.content.iter_any():
            pass


async def is_waited_for_too_long(session, url):
    async with session.get(url / "endless") as response:
        await asyncio.wait_for(response.content.readexactly(100), _DELAY)


async def fails_with_the_readers_own_error(session, url):
    async with session.get(url / "endless", timeout=ClientTimeout(total=_AMPLE)) as response:
        try:
            await response.content.readexactly(100)
        except TimeoutError as error:
            raise KeyError from error


async def is_cancelled_between_two_parts(session, url):
    asyncio.get_running_loop().call_later(_AMPLE, asyncio.current_task().cancel)
    async with session.get(url / "endless") as response:
        async for _ in response.content.iter_any():
            await asyncio.sleep(60)


async def is_silent_in_the_body(session, url):
    async with session.get(url / "endless", timeout=ClientTimeout(sock_read=_AMPLE)) as response:
        await response.text()


async def has_no_address(session, url):
    await session.get(url.with_host("nowhere.example"))


@cache
def tls_context():
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*_CERTIFICATE)
    return context


async def has_a_wrong_certificate(session, _url):
    async with raw_server(context=tls_context()) as port:
        await session.get(f"https://127.0.0.1:{port}/")


async def is_cancelled(session, url):
    asyncio.get_running_loop().call_later(_DELAY, asyncio.current_task().cancel)
    await session.get(url / "silent")


async def is_cancelled_in_the_body(session, url):
    asyncio.get_running_loop().call_later(_AMPLE, asyncio.current_task().cancel)
    async with session.get(url / "endless") as response:
        await response.read()


async def is_redirected(session, url):
    async with session.get(url / "redirect") as response:
        await response.read()
        assert len(response.history) == 2
        return response


async def is_refused(session, url):
    async with raw_server() as port:
        pass
    await session.get(url.with_port(port))


async def is_disconnected(session, url):
    await session.post(url / "disconnect")


async def is_malformed(session, _url):
    async with raw_server(b"no HTTP\r\n\r\n") as port:
        await session.get(f"http://127.0.0.1:{port}/")


async def is_not_compressed_as_it_says(session, _url):
    answer = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 10\r\n\r\n0123456789"
    async with raw_server(answer) as port, session.get(f"http://127.0.0.1:{port}/") as response:
        await response.read()


async def raises_for_status(session, url):
    await session.get(url / "missing", raise_for_status=True)


async def has_no_body(session, url):
    async with session.head(url / "whole") as response:
        return response


async def is_answered_before_it_is_sent(session, url):
    async def slowly():
        yield b"0" * 1000
        await asyncio.sleep(60)

    async with session.post(url / "missing", data=slowly()) as response:
        await response.read()
        return response


async def is_redirected_for_ever(session, url):
    await session.get(url / "loop_of_redirects", max_redirects=3)


async def fails_for_another_reason(session, url):
    with suppress(KeyError):
        async with session.get(url / "endless") as response:
            raise KeyError
    return response


async def is_left_because_another_times_out(session, url):
    with suppress(TimeoutError):
        async with session.get(url / "endless") as response, ClientSession() as other:
            await (await other.get(url / "endless", timeout=ClientTimeout(total=_AMPLE))).read()
    return response


async def read_parts(response):
    async for _ in response.content.iter_any():
        pass


async def wait_for_much(response):
    await asyncio.wait_for(response.content.readexactly(100), _DELAY / 2)


#: What the caller sees of each: the status, the reason if it fails, and the class of the exception.
CASES = {
    read_whole: ("200", None, None),
    read_streamed: ("200", None, None),
    is_not_read: ("200", None, None),
    is_released: ("200", None, None),
    is_closed: ("200", None, None),
    is_cut: ("200", "cut", aiohttp.ClientPayloadError),
    is_cut_while_streamed: ("200", "cut", aiohttp.ClientPayloadError),
    is_cut_without_a_context: ("200", "cut", aiohttp.ClientPayloadError),
    is_left_to_its_session: ("200", None, None),
    times_out_in_connect: ("error", "timeout", aiohttp.ConnectionTimeoutError),
    times_out_in_the_pool: ("error", "timeout", aiohttp.ConnectionTimeoutError),
    times_out_in_the_head: ("error", "timeout", TimeoutError),
    times_out_in_the_body: ("200", "timeout", TimeoutError),
    times_out_while_streamed: ("200", "timeout", TimeoutError),
    times_out_around_the_reading: ("200", "cancelled", TimeoutError),
    is_waited_for_too_long: ("200", "cancelled", TimeoutError),
    fails_with_the_readers_own_error: ("200", "timeout", KeyError),
    is_cancelled_between_two_parts: ("200", "cancelled", asyncio.CancelledError),
    is_silent_in_the_body: ("200", "timeout", aiohttp.SocketTimeoutError),
    has_no_address: ("error", "dns", aiohttp.ClientConnectorDNSError),
    has_a_wrong_certificate: ("error", "tls", aiohttp.ClientConnectorCertificateError),
    is_cancelled: ("error", "cancelled", asyncio.CancelledError),
    is_cancelled_in_the_body: ("200", "cancelled", asyncio.CancelledError),
    is_redirected: ("200", None, None),
    is_refused: ("error", "connect", aiohttp.ClientConnectorError),
    is_disconnected: ("error", "cut", aiohttp.ServerDisconnectedError),
    is_malformed: ("error", "other", aiohttp.ClientResponseError),
    is_not_compressed_as_it_says: ("200", "other", aiohttp.ClientPayloadError),
    raises_for_status: ("404", None, aiohttp.ClientResponseError),
    has_no_body: ("200", None, None),
    is_answered_before_it_is_sent: ("404", None, None),
    is_redirected_for_ever: ("error", "other", aiohttp.TooManyRedirects),
    fails_for_another_reason: ("200", None, None),
    is_left_because_another_times_out: ("200", None, None),
}


#: Those that end when their connection is lost.
LOST = (is_cut_without_a_context, is_left_to_its_session)
says_when_it_is_lost = pytest.mark.skipif(
    not hasattr(ResponseHandler, "closed"), reason="this aiohttp does not say that a connection is lost"
)


def total(numbers, name, **labels):
    """Return the sum of a metric's series with these labels."""
    return sum(
        value
        for key, value in numbers.items()
        if key.partition("{")[0] == name and all(f'{label}="{each}"' in key for label, each in labels.items())
    )


def scrape(registry):
    return samples(generate_latest(registry).decode())


@pytest.mark.filterwarnings("ignore:Unclosed connection:ResourceWarning")
@pytest.mark.parametrize(
    "case",
    [pytest.param(case, marks=says_when_it_is_lost if case in LOST else ()) for case in CASES],
    ids=lambda case: case.__name__,
)
async def test_what_is_recorded_is_what_the_caller_saw(case, server):
    """Status, reason and seconds are those of the caller, and nothing stays in progress."""
    status, reason, kind = CASES[case]
    for _ in range(_TRIES):
        registry = CollectorRegistry()
        connector = TCPConnector(
            limit=1 if case is times_out_in_the_pool else 0, resolver=NoNames() if case is has_no_address else None
        )
        async with ClientSession(
            connector=connector, trace_configs=[client_trace_config(registry=registry)]
        ) as session:
            began = time.perf_counter()
            (seen,) = await asyncio.gather(case(session, server.make_url("/")), return_exceptions=True)
            seconds = time.perf_counter() - began
        numbers = scrape(registry)
        if kind is None:
            assert str(seen.status) == status
        else:
            assert isinstance(seen, kind)
        assert total(numbers, "client_requests_in_progress") == 0
        assert total(numbers, "client_request_count_total") == 1
        assert total(numbers, "client_request_count_total", status=status) == 1
        assert total(numbers, "client_request_errors_total") == (reason is not None)
        assert total(numbers, "client_request_errors_total", reason=reason) == (reason is not None)
        assert total(numbers, "client_request_latency_count") == 1
        assert total(numbers, "client_request_first_byte_latency_count") == (status != "error")
        recorded = total(numbers, "client_request_latency_sum")
        if case in LOST:
            del seen
            gc.collect()  # while its warning is ignored
        if abs(seconds - recorded) < _EXACT:
            return
    pytest.fail(f"{recorded} seconds are recorded, and the caller waited for {seconds}")


@pytest.fixture
async def session(registry):
    async with ClientSession(trace_configs=[client_trace_config(registry=registry)]) as session:
        yield session


async def test_a_response_that_is_dropped_ends_with_its_connection(server, registry):
    """A body that nobody reads keeps its connection, and is in progress, until the session has closed it."""
    async with ClientSession(trace_configs=[client_trace_config(registry=registry)]) as session:
        await session.get(server.make_url("/endless"))
        gc.collect()
        assert total(scrape(registry), "client_requests_in_progress") == 1
    await until(lambda: gc.collect() >= 0 and not total(scrape(registry), "client_requests_in_progress"))
    assert total(scrape(registry), "client_request_count_total", status="200") == 1


@says_when_it_is_lost
async def test_a_body_that_is_cut_ends_when_it_is_cut(server, session, registry):
    """Not when nothing has its response any more; also on a connection that is reused."""
    responses = []
    for path in ("missing", "cut"):
        responses.append(await session.get(server.make_url("/") / path))
        await until(lambda: not total(scrape(registry), "client_requests_in_progress"))
    numbers = scrape(registry)
    assert total(numbers, "client_connections_total", how="reused") == 1
    assert total(numbers, "client_request_errors_total", reason="cut") == 1
    responses[-1].close()


async def test_a_body_that_is_cut_before_its_head_is_seen_has_ended(server, registry):
    """Another trace may take its time."""

    async def wait(_session, _context, params):
        await until(params.response.content.exception)

    slow = aiohttp.TraceConfig()
    slow.on_request_end.append(wait)
    async with ClientSession(trace_configs=[slow, client_trace_config(registry=registry)]) as session:
        response = await session.get(server.make_url("/cut"))
        numbers = scrape(registry)
        assert total(numbers, "client_requests_in_progress") == 0
        assert total(numbers, "client_request_errors_total", reason="cut") == 1
        response.close()


async def test_an_idle_connection_that_is_reset_is_not_logged(session, caplog):
    """An exception that nothing has looked at is logged when it is dropped: here by a pool that needs another connection."""
    writers = []

    async def answer(reader, writer):
        writers.append(writer)
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no")
        await is_seen.wait()
        writer.write(b"k")

    async def send():
        """Return whether the connection of the request is still there."""
        response = await session.get(url)
        is_seen.set()
        protocol = response.connection.protocol
        assert await response.text() == "ok"
        return protocol.is_connected

    is_seen = asyncio.Event()
    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        is_connected = await send()
        writers[0].get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writers[0].transport.abort()
        await until(lambda: not is_connected())
        is_connected = None
        is_seen.clear()
        await send()
        gc.collect()
        writers[1].close()
        await writers[1].wait_closed()
    assert not caplog.records


@pytest.mark.filterwarnings("ignore:Unclosed connection:ResourceWarning")
async def test_a_cut_response_that_is_dropped_is_counted_once(server, session, registry):
    """Its garbage, a circle with the exception, may be finalised in any order."""

    async def read():
        response = await session.get(server.make_url("/cut"))
        await response.content.readexactly(10)

    for _ in range(3):
        with suppress(aiohttp.ClientPayloadError):
            await read()
    await until(lambda: gc.collect() >= 0 and total(scrape(registry), "client_request_count_total") >= 3)
    numbers = scrape(registry)
    assert total(numbers, "client_requests_in_progress") == 0
    assert total(numbers, "client_request_count_total") == 3
    assert total(numbers, "client_request_errors_total", reason="cut") == 3


@pytest.mark.filterwarnings("ignore:Unclosed connection:ResourceWarning")
async def test_a_silent_response_that_is_dropped_has_its_reason_later(server, registry):
    """Its connection is open until the session is closed; what the reader saw is not lost meanwhile."""

    async def read():
        response = await session.get(server.make_url("/endless"), timeout=ClientTimeout(sock_read=_AMPLE))
        await response.content.readexactly(10)

    async with ClientSession(trace_configs=[client_trace_config(registry=registry)]) as session:
        with suppress(aiohttp.SocketTimeoutError):
            await read()
    await until(lambda: gc.collect() >= 0 and not total(scrape(registry), "client_requests_in_progress"))
    assert total(scrape(registry), "client_request_errors_total", reason="timeout") == 1


@pytest.mark.filterwarnings("ignore:Unclosed connection:ResourceWarning")
def test_a_response_that_outlives_its_loop_is_counted_once(registry):
    """Nothing is in progress when it is dropped after the loop has been closed."""

    async def leave_open():
        session = ClientSession(trace_configs=[client_trace_config(registry=registry)])
        async with raw_server(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n01234") as port, session:
            return await session.get(f"http://127.0.0.1:{port}/")

    for _ in range(2):
        response = asyncio.run(leave_open())
        del response
        gc.collect()
    numbers = scrape(registry)
    assert total(numbers, "client_requests_in_progress") == 0
    assert total(numbers, "client_request_count_total", status="200") == 2
    assert total(numbers, "client_request_count_total") == 2


async def test_sizes_are_those_of_bodies(server, session, registry):
    """A size is that of what was received, also of a body that is cut."""
    url = server.make_url("/")
    await read_whole(session, url)
    await is_redirected(session, url)
    with suppress(aiohttp.ClientPayloadError):
        await is_cut(session, url)
    numbers = scrape(registry)
    assert total(numbers, "client_response_size_bytes_sum") == 25
    assert total(numbers, "client_response_size_bytes_count") == 3


async def test_redirects_are_hops_of_one_request(server, session, registry):
    """Two redirects are two, and one request."""
    await is_redirected(session, server.make_url("/"))
    numbers = scrape(registry)
    assert total(numbers, "client_redirects_total") == 2
    assert total(numbers, "client_request_count_total") == 1
    assert (
        total(numbers, "client_connections_total", how="new") + total(numbers, "client_connections_total", how="reused")
        == 3
    )


async def test_websockets_are_counted_and_not_timed(server, session, registry):
    """A WebSocket is a request with the status 101, and in progress no more when it is open."""
    async with session.ws_connect(server.make_url("/websocket")) as websocket:
        assert await websocket.receive_str() == "hello"
        numbers = scrape(registry)
        assert total(numbers, "client_request_count_total", status="101") == 1
        assert total(numbers, "client_requests_in_progress") == 0
    with suppress(aiohttp.WSServerHandshakeError):
        await session.ws_connect(server.make_url("/whole"))
    numbers = scrape(registry)
    assert total(numbers, "client_request_count_total") == 2
    assert (
        total(numbers, "client_request_latency_count")
        == total(numbers, "client_request_count_total", status="200")
        == 1
    )
    assert total(numbers, "client_requests_in_progress") == 0


async def test_the_wait_for_a_connection_is_measured(server, registry):
    """Requests that the pool makes wait are observed once, whether they get a connection or not."""
    connector = TCPConnector(limit=1)
    async with ClientSession(connector=connector, trace_configs=[client_trace_config(registry=registry)]) as session:
        url = server.make_url("/whole")
        await asyncio.gather(session.get(url), session.get(url), session.get(url))
        numbers = scrape(registry)
        assert total(numbers, "client_connection_wait_seconds_count") == 2
        assert total(numbers, "client_connection_wait_seconds_sum") >= 2 * _DELAY
        assert total(numbers, "client_connections_total", how="new") == 1
        assert total(numbers, "client_connections_total", how="reused") == 2
        assert total(numbers, "client_connect_seconds_count") == 1
        async with session.get(server.make_url("/endless")):
            with suppress(aiohttp.ConnectionTimeoutError):
                await session.get(url, timeout=ClientTimeout(connect=_DELAY))
        assert total(scrape(registry), "client_connection_wait_seconds_count") == 3


async def test_look_ups_are_measured(server, registry):
    """A name that is looked up is observed, and one that the cache has is not."""
    connector = TCPConnector(force_close=True)
    async with ClientSession(connector=connector, trace_configs=[client_trace_config(registry=registry)]) as session:
        for _ in range(2):
            await session.get(server.make_url("/whole").with_host("localhost"))
    numbers = scrape(registry)
    assert total(numbers, "client_connections_total", how="new") == 2
    assert total(numbers, "client_dns_seconds_count") == 1


async def test_a_trace_of_the_applications_may_fail(server, registry):
    """Where another trace fails the request, at its start or after its head, it has ended once."""

    async def fail(*_signal):
        raise LookupError

    for signal in ("on_request_start", "on_request_end"):
        other = aiohttp.TraceConfig()
        getattr(other, signal).append(fail)
        configs = [client_trace_config(registry=registry), other]
        async with ClientSession(trace_configs=configs) as session:
            with pytest.raises(LookupError):
                await session.get(server.make_url("/whole"))
        gc.collect()
    numbers = scrape(registry)
    assert total(numbers, "client_requests_in_progress") == 0
    assert total(numbers, "client_request_count_total") == 2


@pytest.mark.parametrize("reader", [ClientResponse.read, read_parts, wait_for_much], ids=lambda reader: reader.__name__)
async def test_nothing_is_kept_of_a_callers_variables(server, session, reader):
    """A body that failed leaves nothing behind in the function that goes on: its response and its data can go."""

    class Data:
        pass

    data = Data()
    try:
        async with session.get(server.make_url("/endless"), timeout=ClientTimeout(total=_AMPLE)) as response:
            await reader(response)
    except TimeoutError:
        kept = [ref(data), ref(response)]
    data = response = None
    await until(lambda: gc.collect() >= 0 and not [each for each in kept if each() is not None])


class Answers(asyncio.Protocol):
    """A connection of a server that needs little time: it answers, breaks off, hangs up or waits, as the path says."""

    def __init__(self, connections):
        self._connections, self._waits = connections, False

    def connection_made(self, transport):
        self._transport = transport
        self._connections.add(self)

    def connection_lost(self, _error):
        self._connections.remove(self)

    def data_received(self, data):
        path = data.split(b" ", 2)[1]
        if path != b"/hang-up":
            length = 2 if path == b"/" else 20
            self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\nok" % length)
        if path in {b"/cut", b"/hang-up"}:
            self._transport.close()
        self._waits = path == b"/wait"

    def finish(self):
        """Send the rest of an answer."""
        if self._waits:
            self._transport.write(b"x" * 18)


@pytest.mark.filterwarnings("ignore:Unclosed connection:ResourceWarning")
async def test_nothing_is_kept_of_requests_or_sessions(registry, caplog):
    """Memory stays as it is, however many requests are sent, answered, failed and left; and all are counted."""
    caplog.set_level(logging.CRITICAL, "asyncio")  # its record of each connection that is dropped would be kept
    connections = set()
    server = await asyncio.get_running_loop().create_server(lambda: Answers(connections), "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    config = client_trace_config(registry=registry)
    kept = WeakSet()

    async def send(session, path, **options):
        with suppress(aiohttp.ClientError, TimeoutError):
            async with session.get(url + path, **options) as response:
                kept.add(response)
                await response.read()

    async def use_session():
        """Send 100 requests."""
        async with ClientSession(trace_configs=[config]) as session:
            kept.add(session)
            for _ in range(47):
                await send(session, "/")
                response = await lasting.get(url + "/wait")
                for each in connections:
                    each.finish()
                assert len(await response.read()) == 20
            for path in ("/cut", "/hang-up"):
                await send(session, path)
            await send(session, "/wait", timeout=ClientTimeout(total=0.001))
            (await session.get(url + "/wait")).close()
            with suppress(aiohttp.ClientPayloadError):
                await (await session.get(url + "/cut")).content.readexactly(20)
            await session.get(url + "/wait")

    async def use_sessions(number):
        for _ in range(number):
            await use_session()
        await until(lambda: gc.collect() >= 0 and len(kept) == len(connections) == 1)  # the session that lasts
        return sys.getallocatedblocks()

    async with server, ClientSession(trace_configs=[config]) as lasting:
        kept.add(lasting)
        before = await use_sessions(5)
        assert await use_sessions(20) - before < 200  # of 2000 requests
    numbers = scrape(registry)
    assert total(numbers, "client_request_count_total") == 2500
    assert total(numbers, "client_requests_in_progress") == 0
