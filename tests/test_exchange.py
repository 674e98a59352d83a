"""What is recorded of a request and its response: the status, the times, the sizes, and nothing kept."""

from __future__ import annotations

import asyncio
import gc
import logging
import weakref
from contextlib import suppress
from time import perf_counter

import pytest
from aiohttp import ClientError, ClientPayloadError, WSMsgType, web
from conftest import APPLICATIONS, counted, full, instrumented, samples, settled, until
from prometheus_client import CollectorRegistry, Histogram, generate_latest

from hr_prometheus import access_log_class, instrument
from hr_prometheus.metric import SIZE_BUCKETS
from hr_prometheus.middleware import hrprometheus_middleware
from hr_prometheus.monitors import BaseRequestMonitor, RequestMonitor
from hr_prometheus.request.aiohttp_features import WRITES_ARE_REPORTED


@pytest.fixture(params=APPLICATIONS)
def app(request, registry):
    """An application with each of our ways to record."""
    return request.param(registry)


async def plain(_request):
    """Answer."""
    return web.Response(text="four")


async def read(request):
    """Answer when the request's body is there."""
    await request.read()
    return web.Response(text="four")


async def stream(request):
    """Answer with a stream."""
    response = web.StreamResponse(status=202)
    await response.prepare(request)
    await response.write(b"1234")
    return response


async def broken(request):
    """Fail in the middle of a stream."""
    await stream(request)
    raise RuntimeError("on purpose")


def scraped(registry) -> dict[str, float]:
    """Return all samples, now."""
    return samples(generate_latest(registry).decode())


async def open_request(client, target="/", version="1.1"):
    """Send a GET request of a client that reads what the test makes it read."""
    reader, writer = await asyncio.open_connection(client.host, client.port, limit=1000)
    writer.write(f"GET {target} HTTP/{version}\r\nHost: x\r\n\r\n".encode())
    return reader, writer


@pytest.mark.parametrize(
    ("route", "target"), [("/plain", "/plain"), ("/cells/{id}", "/cells/7"), ("/x{odd}/{id}", "/xy/7")]
)
async def test_each_request_is_counted_and_measured_once(aiohttp_client, registry, app, route, target):
    """Status, duration, first byte and sizes, for any route."""
    app.router.add_get(route, plain)
    client = await aiohttp_client(app)
    for _ in range(10):
        assert await (await client.get(target)).text() == "four"
    found = await settled(registry)
    labels = f'{{method="GET",path="{target}"}}'
    assert await counted(registry) == {("GET", target, "200"): 10}
    assert found["request_latency_count" + labels] == 10
    assert found["request_latency_sum" + labels] > 0
    if "response_size_bytes_sum" + labels in found:
        assert found["response_size_bytes_sum" + labels] == 40
        assert found["response_size_bytes_count" + labels] == 10
        assert found["request_size_bytes_count" + labels] == 10
        assert found["request_size_bytes_sum" + labels] == 0
        assert found["request_first_byte_latency_count" + labels] == 10
        assert found["request_first_byte_latency_sum" + labels] <= found["request_latency_sum" + labels]


# Sizes.


async def test_request_bodies_are_measured(aiohttp_client, registry):
    """What a request sent is counted, whether its handler has read it or not."""
    app = full(registry)
    app.router.add_post("/read", read)
    app.router.add_post("/ignore", plain)
    client = await aiohttp_client(app)
    for _ in range(5):
        await client.post("/read", data=b"12345")
        await client.post("/ignore", data=b"1234567")
    sums = [f'request_size_bytes_sum{{method="POST",path="/{name}"}}' for name in ("read", "ignore")]
    await until(lambda: [scraped(registry).get(each) for each in sums] == [25, 35])


async def test_request_bodies_of_expectations_are_measured(aiohttp_client, registry):
    """A request whose expectation was met is one request, with all of its body."""
    app = instrumented(registry)
    app.router.add_post("/", read)
    client = await aiohttp_client(app)
    for _ in range(3):
        async with client.post("/", data=b"12", expect100=True) as response:
            assert await response.text() == "four"
    assert await counted(registry) == {("POST", "/", "200"): 3}
    assert scraped(registry)['request_size_bytes_sum{method="POST",path="/"}'] == 6


@pytest.mark.parametrize("status", [204, 304])
async def test_bodies_that_are_not_sent_are_not_counted(aiohttp_client, registry, status):
    """HEAD, 204 and 304 have no body, whatever their handler has made."""

    async def empty(_request):
        return web.Response(status=status, body=b"not sent")

    app = full(registry)
    app.router.add_get("/empty", empty)
    app.router.add_get("/", plain)
    client = await aiohttp_client(app)
    for _ in range(5):
        await client.get("/empty")
        await client.head("/")
    found = await settled(registry)
    assert found['response_size_bytes_sum{method="GET",path="/empty"}'] == 0
    assert found['response_size_bytes_sum{method="HEAD",path="/"}'] == 0
    assert found['response_size_bytes_count{method="HEAD",path="/"}'] == 5


async def test_sizes_belong_in_the_buckets_that_prometheus_client_has_for_them(aiohttp_client, registry):
    """A size that is a bucket's bound is in it, one byte more is in the next."""
    sizes = [0, 1, *(int(bound) + more for bound in SIZE_BUCKETS for more in (0, 1) if bound < 2**21)]
    bodies = iter([b"x" * size for size in sizes])

    async def handler(_request):
        return web.Response(body=next(bodies))

    app = full(registry)
    app.router.add_get("/", handler)
    client = await aiohttp_client(app)
    for _ in sizes:
        await (await client.get("/")).read()
    expected = CollectorRegistry()
    histogram = Histogram("response_size_bytes", "", ["method", "path"], buckets=SIZE_BUCKETS, registry=expected)
    for size in sizes:
        histogram.labels("GET", "/").observe(size)
    found = await settled(registry)
    for name, value in scraped(expected).items():
        assert "_created" in name or found[name] == value, name


# How the chunks of a compressed body are framed is known since aiohttp reports each write.
@pytest.mark.parametrize(
    ("body", "is_chunked"), [(b"a" * 1000, False), *([(b"a" * 1000, True), (b"", True)] if WRITES_ARE_REPORTED else [])]
)
async def test_compressed_bodies_have_their_size_on_the_wire(aiohttp_client, registry, body, is_chunked):
    """A body that aiohttp compresses is counted as it was sent."""

    async def handler(_request):
        response = web.Response(body=body)
        response.enable_compression(web.ContentCoding.gzip)
        if is_chunked:
            response.enable_chunked_encoding()
        return response

    app = full(registry)
    app.router.add_get("/", handler)
    client = await aiohttp_client(app, auto_decompress=False)
    sizes = [len(await (await client.get("/")).read()) for _ in range(5)]
    assert 0 < sizes[0] < 100
    assert (await settled(registry))['response_size_bytes_sum{method="GET",path="/"}'] == sum(sizes)


async def test_what_is_written_for_another_request_is_not_ones_own(aiohttp_client, registry):
    """A handler can write to the streams of other requests, as those do that publish events to subscribers."""
    streams, subscribed, over = [], asyncio.Event(), asyncio.Event()

    async def subscribe(request):
        response = web.StreamResponse()
        await response.prepare(request)
        streams.append(response)
        subscribed.set()
        await over.wait()
        return response

    async def publish(_request):
        for each in streams:
            await each.write(b"x" * 1000)
        return web.Response(text="ok")

    app = instrumented(registry)
    app.router.add_get("/subscribe", subscribe)
    app.router.add_get("/publish", publish)
    client = await aiohttp_client(app)
    subscriber = await client.get("/subscribe")
    await subscribed.wait()
    for _ in range(3):
        await (await client.get("/publish")).read()
    over.set()
    await subscriber.read()
    found = await settled(registry)
    assert found['response_size_bytes_sum{method="GET",path="/publish"}'] == 3 * 2
    assert found['response_size_bytes_sum{method="GET",path="/subscribe"}'] == 3 * 1000


# Times.


@pytest.mark.parametrize("is_stream", [False, True])
async def test_the_first_byte_does_not_wait_for_the_last(aiohttp_client, registry, is_stream):
    """The first byte is measured when it leaves, and the request is in progress until its last one does."""
    go_on = asyncio.Event()

    async def parts():
        yield b"1234"
        await go_on.wait()
        yield b"5678"

    async def handler(request):
        if not is_stream:
            return web.Response(body=parts())
        response = web.StreamResponse()
        await response.prepare(request)
        async for part in parts():
            await response.write(part)
        return response

    app = full(registry)
    app.router.add_get("/", handler)
    client = await aiohttp_client(app)
    began = perf_counter()
    response = await client.get("/")
    assert await response.content.readexactly(4) == b"1234"
    received = perf_counter()
    assert scraped(registry)['requests_in_progress{method="GET",path="/"}'] == 1
    await until(lambda: perf_counter() - received > received - began)
    went_on = perf_counter()
    go_on.set()
    assert await response.read() == b"5678"
    found = await settled(registry)
    assert found['request_first_byte_latency_sum{method="GET",path="/"}'] < received - began
    assert found['request_latency_sum{method="GET",path="/"}'] > went_on - received
    assert found['response_size_bytes_sum{method="GET",path="/"}'] == 8


async def test_a_slow_reader_keeps_its_request_in_progress(aiohttp_client, registry, app):
    """A request is in progress until the transport takes more, and is a 499 if its client leaves before."""
    client = await _with_large_stream(aiohttp_client, app)
    reader, writer = await open_request(client)
    assert await reader.read(100)
    assert scraped(registry)['requests_in_progress{method="GET",path="/"}'] == 1
    writer.transport.abort()
    assert await counted(registry) == {("GET", "/", "499"): 1}


async def test_a_response_whose_last_byte_was_handed_over_is_none_of_the_clients(aiohttp_client, registry, app):
    """The status is the one that was sent when the transport has taken all, though the client leaves without it."""

    async def handler(_request):
        return web.Response(body=b"x" * 20_000_000)

    app.router.add_get("/", handler)
    client = await aiohttp_client(app)
    reader, writer = await open_request(client)
    assert await reader.read(100)
    writer.transport.abort()
    assert await counted(registry) == {("GET", "/", "200"): 1}


async def _with_large_stream(aiohttp_client, app):
    async def handler(request):
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(20):
            await response.write(b"x" * 1_000_000)
        return response

    app.router.add_get("/", handler)
    return await aiohttp_client(app)


# Ends.


async def test_a_stream_that_fails_has_the_status_that_was_sent(aiohttp_client, registry, app):
    """A client has seen the head of a stream before its handler raises."""
    app.router.add_get("/", broken)
    client = await aiohttp_client(app)
    for _ in range(2):
        response = await client.get("/")
        assert response.status == 202
        with pytest.raises(ClientPayloadError):
            await response.read()
    assert await counted(registry) == {("GET", "/", "202"): 2}


async def test_a_response_that_replaces_a_stream_goes_nowhere(aiohttp_client, registry, app):
    """What was sent first is the response, whatever the handler returns in the end."""

    async def handler(request):
        await (stream := web.StreamResponse(status=203)).prepare(request)
        await stream.write(b"streamed")
        return web.Response(status=201, text="plain")

    app.router.add_get("/", handler)
    client = await aiohttp_client(app)
    reader, writer = await open_request(client)
    assert await reader.readline() == b"HTTP/1.1 203 Non-Authoritative Information\r\n"
    await reader.readuntil(b"streamed")
    writer.close()
    assert list(await counted(registry)) == [("GET", "/", "203")]


def refused_by_its_head():
    """Return a response that aiohttp refuses to send."""
    return web.Response(text="x", headers={"X-Bad": "one\nSet-Cookie: two"})


def chunked_for_old_clients():
    """Return a response that cannot be sent to a client of HTTP/1.0."""
    response = web.Response(text="x")
    response.enable_chunked_encoding()
    return response


USED: list[web.Response] = []


def sent_before():
    """Return the same response again and again."""
    USED.append(USED[0] if USED else web.Response(text="used"))
    return USED[0]


@pytest.mark.parametrize(
    "case",
    [(refused_by_its_head, "1.1", 0), (chunked_for_old_clients, "1.0", 0), (sent_before, "1.1", 1)],
)
async def test_a_request_without_a_byte_of_an_answer_is_a_499(aiohttp_client, registry, app, case):
    """That is all that its client knows, whatever has gone wrong while the response was prepared."""
    make, version, sent = case
    USED.clear()

    async def handler(_request):
        return make()

    app.router.add_get("/", handler)
    client = await aiohttp_client(app)
    for number in range(3):
        reader, writer = await open_request(client, version=version)
        if number < sent:
            assert await reader.readuntil(b"used")
        else:
            writer.write_eof()
            assert await reader.read() == b""
        writer.close()
    found = await settled(registry)
    expected = {("GET", "/", "499"): 3.0 - sent, ("GET", "/", "200"): float(sent)}
    assert await counted(registry) == {key: value for key, value in expected.items() if value}
    assert found.get('request_first_byte_latency_count{method="GET",path="/"}', sent) == sent


async def test_an_error_while_a_response_is_prepared_is_a_499(aiohttp_client, registry, app):
    """A receiver of the application's signal that raises leaves the client without an answer."""

    async def failing(_request, _response):
        raise ValueError("on purpose")

    app.on_response_prepare.append(failing)
    app.router.add_get("/", plain)
    client = await aiohttp_client(app)
    reader, writer = await open_request(client)
    assert await reader.read() == b""
    writer.close()
    assert await counted(registry) == {("GET", "/", "499"): 1}


async def test_a_cancelled_handler_is_a_499(aiohttp_client, registry, app):
    """With handler_cancellation a client that leaves cancels the handler."""
    started = asyncio.Event()

    async def handler(request):
        started.set()
        await asyncio.Event().wait()

    app.router.add_get("/", handler)
    client = await aiohttp_client(app, server_kwargs={"handler_cancellation": True})
    _, writer = await open_request(client)
    await started.wait()
    writer.transport.abort()
    assert await counted(registry) == {("GET", "/", "499"): 1}


async def test_an_odd_status_is_other(aiohttp_client, registry, app):
    """A handler may give any number."""

    async def handler(_request):
        return web.Response(status=0, text="zero")

    app.router.add_get("/", handler)
    client = await aiohttp_client(app)
    reader, writer = await asyncio.open_connection(client.host, client.port)
    for _ in range(3):
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await reader.readuntil(b"\r\n\r\nzero")).startswith(b"HTTP/1.1 0 ")
    writer.close()
    assert await counted(registry) == {("GET", "/", "other"): 3}


async def test_the_access_log_counts_refused_expectations(registry):
    """They reach no middleware; requests that are answered are counted once, by the middleware."""
    app = instrumented(registry)
    app.router.add_post("/", read)
    runner = web.AppRunner(app, access_log_class=access_log_class(app))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    reader, writer = await asyncio.open_connection(*runner.addresses[0])
    head = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: "
    for _ in range(2):
        writer.write(f"{head}100-continue\r\n\r\n".encode())
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"12")
        assert (await reader.readuntil(b"four")).startswith(b"HTTP/1.1 200 OK")
    writer.write(f"{head}wonders\r\n\r\n12".encode())
    assert (await reader.readuntil(b"wonders")).startswith(b"HTTP/1.1 417 ")
    writer.close()
    await runner.cleanup()
    assert await counted(registry) == {("POST", "/", "417"): 1, ("POST", "/", "200"): 2}


# Nothing is kept.


class Quiet(BaseRequestMonitor):
    """A monitor that counts nothing."""

    def update_init_metrics(self):
        pass

    def update_end_metrics(self):
        pass


class Failing(Quiet):
    """A monitor that fails before it has begun."""

    def update_init_metrics(self):
        raise ValueError


class FailingLate(Quiet):
    """A monitor that fails at the end."""

    def update_end_metrics(self):
        raise ValueError


def monitored(kind):
    """Return what makes an application with monitors of a kind."""
    return lambda _registry: web.Application(middlewares=[hrprometheus_middleware(kind)])


def leaving_out(registry):
    """Make an application that records nothing."""
    return instrument(web.Application(), registry=registry, metrics_path=None, exclude=["*"])


async def fail(_request):
    """Raise an error, which is a 500."""
    raise RuntimeError("on purpose")


@pytest.mark.parametrize(
    "make", [*APPLICATIONS, leaving_out, *(monitored(kind) for kind in (Quiet, Failing, FailingLate))]
)
@pytest.mark.parametrize("handler", [plain, stream, fail])
async def test_nothing_of_a_request_is_kept(aiohttp_client, registry, monkeypatch, make, handler):
    """When a request is over, it is gone without a search for garbage."""
    requests = []

    async def noting(request):
        requests.append(weakref.ref(request))
        return await handler(request)

    monkeypatch.setattr(logging.getLogger("aiohttp.server"), "disabled", True)  # pytest keeps what is logged
    monkeypatch.setattr(logging.getLogger("hr_prometheus"), "disabled", True)
    app = make(registry)
    app.router.add_get("/", noting)
    client = await aiohttp_client(app)
    gc.collect()
    gc.disable()
    try:
        for _ in range(5):
            await (await client.get("/")).read()
        await until(lambda: not any(request() for request in requests[:-1]))  # the connection may keep its latest
    finally:
        gc.enable()


# Monitors that fail.


class RaisingAfter(RequestMonitor):
    """Raises when the request has been counted as in progress."""

    def update_init_metrics(self):
        super().update_init_metrics()
        raise ValueError


class RaisingBefore(RequestMonitor):
    """Raises before the request is counted as ended."""

    def update_end_metrics(self):
        raise ValueError
        super().update_end_metrics()


class WithoutEnd(RequestMonitor):
    """Counts no end."""

    def update_end_metrics(self):
        pass


class WithoutBeginning(RequestMonitor):
    """Counts no beginning."""

    def update_init_metrics(self):
        pass


class NotItself(RequestMonitor):
    """Enters as something else."""

    def __enter__(self):
        super().__enter__()


class CancellingAfter(RequestMonitor):
    """Begins as if it were cancelled."""

    def update_init_metrics(self):
        super().update_init_metrics()
        raise asyncio.CancelledError


class CancellingBefore(RequestMonitor):
    """Ends as if it were cancelled."""

    def update_end_metrics(self):
        raise asyncio.CancelledError


class Twice(RequestMonitor):
    """Begins twice."""

    def update_init_metrics(self):
        super().update_init_metrics()
        super().update_init_metrics()


class Unmade(RequestMonitor):
    """Begins before it is made, and is not."""

    def __init__(self, request, **options):
        super().__init__(request, **options)
        self.update_init_metrics()
        raise RuntimeError("on purpose")


@pytest.mark.parametrize(
    "monitor",
    [
        RaisingAfter,
        RaisingBefore,
        WithoutEnd,
        WithoutBeginning,
        NotItself,
        CancellingAfter,
        CancellingBefore,
        Twice,
        Unmade,
    ],
)
@pytest.mark.parametrize("handler", [plain, stream, fail])
async def test_a_monitor_cannot_leave_a_request_in_progress(aiohttp_client, registry, monitor, handler):
    """Whatever a subclass of the default monitor raises or forgets, the gauge is 0 after the requests."""
    app = web.Application(middlewares=[hrprometheus_middleware(monitor, registry=registry)])
    app.router.add_get("/", handler)
    client = await aiohttp_client(app)
    for _ in range(100):
        await (await client.get("/")).read()
    gauge = 'requests_in_progress{method="GET",path="/"}'
    await until(lambda: scraped(registry)[gauge] == 0)


async def test_a_monitor_that_fails_to_begin_is_not_begun_again(aiohttp_client):
    """Each request has one beginning, and one that failed has no end."""
    begun = []

    class FailingOnce(BaseRequestMonitor):
        def update_init_metrics(self):
            begun.append(1)
            raise ValueError

        def update_end_metrics(self):
            begun.append("ended")

    app = web.Application(middlewares=[hrprometheus_middleware(FailingOnce)])
    app.router.add_post("/", read)
    client = await aiohttp_client(app)
    for _ in range(3):
        async with client.post("/", data=b"12", expect100=True) as response:
            assert await response.text() == "four"
    assert begun == [1] * 3


# WebSockets.


async def echo(request):
    """Serve a WebSocket until its client closes it."""
    connection = web.WebSocketResponse()
    await connection.prepare(request)
    async for _ in connection:
        pass
    return connection


async def closing(request):
    """Close a WebSocket with a code of the application's."""
    connection = web.WebSocketResponse()
    await connection.prepare(request)
    await connection.close(code=4001)
    return connection


async def closing_elsewhere(request):
    """Serve a WebSocket until another task closes it, as an application does when it is shut down."""
    connection = web.WebSocketResponse()
    await connection.prepare(request)
    connection["closing"] = asyncio.create_task(connection.close(code=4001))
    async for _ in connection:
        pass
    return connection


async def raising(request):
    """Raise in the middle of a WebSocket."""
    await web.WebSocketResponse().prepare(request)
    raise RuntimeError("on purpose")


CLOSE_WITHOUT_CODE = b"\x88\x80\0\0\0\0"


async def close_4001(connection):
    """Close with a code of the client's."""
    await connection.close(code=4001)


async def close_without_code(connection):
    """Send a close frame that has no code."""
    connection._writer.transport.write(CLOSE_WITHOUT_CODE)
    async for _ in connection:
        pass


async def drop(connection):
    """Drop the connection without a close frame."""
    connection._response.connection.transport.abort()


async def listen(connection):
    """Let the server close."""
    with suppress(ClientError):
        assert (await connection.receive()).type in {WSMsgType.CLOSE, WSMsgType.CLOSED, WSMsgType.ERROR}


@pytest.mark.parametrize(
    "case",
    [
        (closing, listen, "4xxx", "server"),
        (closing_elsewhere, listen, "4xxx", "server"),
        (echo, close_4001, "4xxx", "client"),
        (echo, close_without_code, "1005", "client"),
        (raising, listen, "1006", "server"),
        (echo, drop, "1006", "client"),
    ],
)
@pytest.mark.parametrize("kind", [full, instrumented])
async def test_who_closes_a_websocket_with_which_code(aiohttp_client, registry, kind, case):
    """Each WebSocket is closed once, by the one that sent the first close frame or let go of the connection."""
    handler, act, code, by = case
    app = kind(registry)
    app.router.add_get("/", handler)
    client = await aiohttp_client(app)
    for _ in range(2):
        connection = await client.ws_connect("/", autoclose=False)
        await act(connection)
        await connection.close()
    found = await settled(registry)
    closes = {name: value for name, value in found.items() if name.startswith("websocket_closes_total")}
    assert closes == {f'websocket_closes_total{{by="{by}",code="{code}",path="/"}}': 2}
    assert found['websocket_connections_in_progress{path="/"}'] == 0
    assert found['websocket_connection_duration_count{path="/"}'] == 2
    assert await counted(registry) == {("GET", "/", "101"): 2}


@pytest.mark.parametrize("handler", [echo, closing])
async def test_what_a_handler_does_after_the_close_belongs_to_no_websocket(aiohttp_client, registry, handler):
    """The connection ends with its close, so neither its duration nor the gauge waits for the handler."""
    closed, go_on = asyncio.Event(), asyncio.Event()

    async def lingering(request):
        connection = await handler(request)
        closed.set()
        await go_on.wait()
        return connection

    app = instrumented(registry)
    app.router.add_get("/", lingering)
    client = await aiohttp_client(app)
    began = perf_counter()
    connection = await client.ws_connect("/")
    await (connection.close() if handler is echo else connection.receive())
    await closed.wait()
    ended = perf_counter()
    found = scraped(registry)
    assert found['websocket_connections_in_progress{path="/"}'] == 0
    await until(lambda: perf_counter() - ended > ended - began)
    go_on.set()
    await connection.close()
    found = await settled(registry)
    assert found['websocket_connection_duration_sum{path="/"}'] < ended - began


async def test_a_websocket_is_open_as_soon_as_it_is_one(aiohttp_client, registry):
    """The gauge has it while it lasts."""
    app = instrumented(registry)
    app.router.add_get("/", echo)
    client = await aiohttp_client(app)
    async with client.ws_connect("/"):
        assert scraped(registry)['websocket_connections_in_progress{path="/"}'] == 1
    assert (await settled(registry))['websocket_connections_in_progress{path="/"}'] == 0


async def test_a_websocket_over_the_budget_is_folded_once(aiohttp_client, registry):
    """It is one request."""
    app = instrument(web.Application(), registry=registry, metrics_path=None, path_budget=1)
    app.router.add_get("/{number}", echo)
    client = await aiohttp_client(app)
    for number in range(4):
        async with client.ws_connect(f"/{number}"):
            pass
    found = await settled(registry)
    assert found['hr_prometheus_folded_requests_total{route="/{number}"}'] == 3
    assert found['websocket_connection_duration_count{path="/{number}"}'] == 3


async def test_a_websocket_whose_match_is_changed_is_closed_where_it_was_opened(aiohttp_client, registry):
    """It has the labels with which it began."""

    async def handler(request):
        request.match_info["name"] = "b"
        return await closing(request)

    app = instrument(
        web.Application(), registry=registry, metrics_path=None, keep_values="all", allow_values={"*": {"rest": ["x"]}}
    )
    app.router.add_get("/{name}/{rest}", handler)
    client = await aiohttp_client(app)
    for _ in range(2):
        await (await client.ws_connect("/a/x")).close()
    found = await settled(registry)
    assert not [name for name, value in found.items() if "in_progress" in name and value]
    assert found['websocket_connection_duration_count{path="/a/x"}'] == 2


async def test_a_response_prepared_in_vain_before_a_websocket(aiohttp_client, registry):
    """The first response that a handler prepares may not be the one that it sends."""

    async def handler(request):
        await web.Response(text="never sent").prepare(request)
        return await closing(request)

    app = instrumented(registry)
    app.router.add_get("/", handler)
    client = await aiohttp_client(app)
    with suppress(ClientError):  # older aiohttp sends both heads
        await client.get("/", headers={"Upgrade": "websocket", "Connection": "Upgrade"})
    found = await settled(registry)
    assert not [name for name, value in found.items() if "in_progress" in name and value]
    assert not [name for name in found if name.startswith("hr_prometheus_errors")]


@pytest.mark.parametrize("returned", ["file", "text"])
@pytest.mark.parametrize("sent", ["file", "nothing", "what was returned"])
async def test_the_size_of_a_file_is_that_of_what_was_sent(aiohttp_client, registry, tmp_path, returned, sent):
    """A middleware that stands before ours may send something else than the handler has returned."""
    (tmp_path / "file").write_bytes(b"x" * 5000)

    async def handler(_request: web.Request) -> web.StreamResponse:
        return web.FileResponse(tmp_path / "file") if returned == "file" else web.Response(text="four")

    @web.middleware
    async def replace(request: web.Request, handler) -> web.StreamResponse:
        response = await handler(request)
        if sent == "file":
            response = web.FileResponse(tmp_path / "file")
        elif sent == "nothing":
            response = web.StreamResponse()
            await response.prepare(request)
            await response.write_eof()
        return response

    part = web.Application(middlewares=[hrprometheus_middleware(registry=registry, detail="full")])
    part.router.add_get("/file", handler)
    app = web.Application(middlewares=[replace])
    app.add_subapp("/part", part)
    client = await aiohttp_client(app)
    async with client.get("/part/file") as response:
        body = await response.read()
    series = await settled(registry)
    size = {"file": 5000, "nothing": 0}.get(sent, 5000 if returned == "file" else 4)
    assert series['response_size_bytes_sum{method="GET",path="/part/file"}'] == len(body) == size
    assert series['response_size_bytes_count{method="GET",path="/part/file"}'] == 1
