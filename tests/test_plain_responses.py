"""The responses that the middleware sends itself: from the second of a kind on, when all series exist."""

from __future__ import annotations

import asyncio
import gc
import logging
import socket
from functools import partial

import pytest
from aiohttp import ClientConnectionResetError, FormData, web
from conftest import DEADLINE, counts, samples
from hr_prometheus.life import WRITES_ARE_TOLD, Life
from prometheus_client import CollectorRegistry, Histogram, generate_latest

from hr_prometheus import instrument
from hr_prometheus.catalog import SIZE_BUCKETS
from hr_prometheus.middleware import hrprometheus_middleware
from hr_prometheus.monitors import BaseRequestMonitor

WARM = 3  # requests after which all series of a response exist


def bare(_registry):
    return web.Application()


def basic(registry):
    return web.Application(middlewares=[hrprometheus_middleware(registry=registry)])


def full(registry):
    return web.Application(middlewares=[hrprometheus_middleware(registry=registry, detail="full")])


def instrumented(registry):
    return instrument(web.Application(), registry=registry, metrics_path=None)


APPLICATIONS = [basic, full, instrumented]


@pytest.fixture(params=APPLICATIONS)
def app(request, registry):
    """An application with each of our ways to record."""
    return request.param(registry)


@pytest.fixture
def waits(monkeypatch) -> list[int]:
    """The requests whose end was waited for, rather than seen."""
    found: list[int] = []
    handled = Life.handled

    def counting(life, outcome):
        found.append(1)
        handled(life, outcome)

    monkeypatch.setattr(Life, "handled", counting)
    return found


async def settled(registry) -> dict[str, float]:
    """Wait until nothing is in progress, and return all samples."""
    async with asyncio.timeout(DEADLINE):
        while True:
            found = samples(generate_latest(registry).decode())
            if found and not any(value for name, value in found.items() if name.startswith("requests_in_progress")):
                return found
            await asyncio.sleep(0.001)


@pytest.mark.parametrize("path", ["/plain", "/cells/{id}", "/%7Bodd%7D/{id}"])
async def test_their_end_is_seen_without_a_wait(aiohttp_client, registry, app, waits, path):
    """All but the first are sent by the middleware, and all are counted alike."""

    async def handler(_request):
        return web.Response(text="four")

    app.router.add_get(path.replace("%7B", "x").replace("%7D", "x"), handler)
    client = await aiohttp_client(app)
    target = path.replace("%7B", "x").replace("%7D", "x").replace("{id}", "7")
    for _ in range(10):
        response = await client.get(target)
        assert (response.status, await response.text()) == (200, "four")
    found = await settled(registry)
    assert len(waits) < WARM
    labels = f'{{method="GET",path="{target}"}}'
    assert found[f'request_count_total{{method="GET",path="{target}",status="200"}}'] == 10
    assert found["request_latency_count" + labels] == 10
    assert found["request_latency_sum" + labels] > 0
    if "response_size_bytes_sum" + labels in found:
        assert found["response_size_bytes_sum" + labels] == 40
        assert found["response_size_bytes_count" + labels] == 10
        assert found["request_size_bytes_count" + labels] == 10
        assert found["request_size_bytes_sum" + labels] == 0
        assert found["request_first_byte_latency_count" + labels] == 10
        assert found["request_first_byte_latency_sum" + labels] <= found["request_latency_sum" + labels]


async def test_request_bodies_are_measured(aiohttp_client, registry, waits):
    """What a request sent is counted, whether its handler has read it or not."""

    async def read(request):
        return web.Response(body=await request.read())

    async def ignore(_request):
        return web.Response(text="no, thanks")

    app = full(registry)
    app.router.add_post("/read", read)
    app.router.add_post("/ignore", ignore)
    client = await aiohttp_client(app)
    for _ in range(5):
        assert await (await client.post("/read", data=b"12345")).read() == b"12345"
        assert (await client.post("/ignore", data=b"1234567")).status == 200
    found = await settled(registry)
    assert len(waits) < 2 * WARM
    assert found['request_size_bytes_sum{method="POST",path="/read"}'] == 25
    assert found['request_size_bytes_sum{method="POST",path="/ignore"}'] == 35
    assert found['response_size_bytes_sum{method="POST",path="/read"}'] == 25


def refused_header():
    return web.Response(text="x", headers={"X-Bad": "one\nSet-Cookie: two"})


def chunked_for_old_clients():
    response = web.Response(text="x")
    response.enable_chunked_encoding()
    return response


SHARED = web.Response(text="used")


def used_before():
    return SHARED


@pytest.mark.parametrize("make", [refused_header, chunked_for_old_clients, used_before])
async def test_what_cannot_be_sent_ends_as_without_us(aiohttp_client, caplog, make):
    """The client gets, and the log says, what it would without hr-prometheus, and each request is counted once."""
    caplog.set_level(logging.ERROR)
    version = "1.0" if make is chunked_for_old_clients else "1.1"
    outcomes = []
    for kind in (bare, *APPLICATIONS):
        global SHARED  # noqa: PLW0603  # a response that an application keeps by mistake
        SHARED = web.Response(text="used")
        registry = CollectorRegistry()
        app = kind(registry)

        async def handler(request):
            return make() if "bad" in request.query else web.Response(text="good")

        app.router.add_get("/", handler)
        client = await aiohttp_client(app)
        for _ in range(WARM):
            assert await (await client.get("/")).text() == "good"
        caplog.clear()
        got = []
        for _ in range(2):
            reader, writer = await asyncio.open_connection(client.host, client.port)
            writer.write(f"GET /?bad HTTP/{version}\r\nHost: x\r\n\r\n".encode())
            try:
                got.append(_undated(await asyncio.wait_for(reader.read(1000), 0.3)))
            except TimeoutError:
                got.append(b"nothing")
            writer.close()
        await client.close()
        outcomes.append((got, [(record.name, record.getMessage()) for record in caplog.records]))
        if kind is not bare:
            found = await settled(registry)
            assert sum(counts(generate_latest(registry).decode()).values()) == WARM + 2
            assert sum(value for name, value in found.items() if name.startswith("request_latency_count")) == WARM + 2
    assert outcomes[1:] == [outcomes[0]] * 3


def _undated(answer: bytes) -> bytes:
    return b"\n".join(line for line in answer.splitlines() if not line.startswith(b"Date:"))


async def test_a_response_that_replaces_a_stream(aiohttp_client, registry):
    """What was sent first is the response: the one that the handler returns in the end goes nowhere."""
    app = instrumented(registry)

    async def handler(request):
        if "stream" not in request.query:
            return web.Response(status=201, text="plain")
        stream = web.StreamResponse(status=203)
        await stream.prepare(request)
        await stream.write(b"streamed")
        return web.Response(status=201, text="plain")

    app.router.add_get("/", handler)
    client = await aiohttp_client(app)
    for _ in range(WARM):
        assert (await client.get("/")).status == 201
    reader, writer = await asyncio.open_connection(client.host, client.port)
    writer.write(b"GET /?stream HTTP/1.1\r\nHost: x\r\n\r\n")
    assert await reader.readline() == b"HTTP/1.1 203 Non-Authoritative Information\r\n"
    await reader.readuntil(b"streamed")
    writer.close()
    await settled(registry)
    assert counts(generate_latest(registry).decode()) == {("GET", "/", "201"): WARM, ("GET", "/", "203"): 1}


@pytest.mark.parametrize("status", [204, 304])
async def test_bodies_that_are_not_sent_are_not_counted(aiohttp_client, registry, status):
    """HEAD, 204 and 304 have no body, whatever their handler has made."""

    async def handler(_request):
        return web.Response(status=status, body=b"not sent")

    async def get(_request):
        return web.Response(body=b"sent for GET alone")

    app = full(registry)
    app.router.add_get("/empty", handler)
    app.router.add_get("/", get)
    client = await aiohttp_client(app)
    for _ in range(5):
        await client.get("/empty")
        await client.head("/")
    found = await settled(registry)
    assert found['response_size_bytes_sum{method="GET",path="/empty"}'] == 0
    assert found['response_size_bytes_sum{method="HEAD",path="/"}'] == 0
    assert found['response_size_bytes_count{method="HEAD",path="/"}'] == 5


async def test_sizes_belong_in_the_buckets_that_prometheus_client_has_for_them(aiohttp_client, registry, waits):
    """A size that is a bucket's bound is in it, one byte more is in the next; as far as bodies are sent at once."""
    sizes = [0, 1, *(int(bound) + more for bound in SIZE_BUCKETS for more in (0, 1) if bound < 32768), 32768]
    bodies = iter([b"warm"] * WARM + [b"x" * size for size in sizes])

    async def handler(_request):
        return web.Response(body=next(bodies))

    app = full(registry)
    app.router.add_get("/", handler)
    client = await aiohttp_client(app)
    for _ in range(WARM):
        await client.get("/")
    waits.clear()
    for _ in sizes:
        await client.get("/")
    assert not waits
    expected = CollectorRegistry()
    histogram = Histogram("response_size_bytes", "", ["method", "path"], buckets=SIZE_BUCKETS, registry=expected)
    for size in [4] * WARM + sizes:
        histogram.labels("GET", "/").observe(size)
    found = await settled(registry)
    for name, value in samples(generate_latest(expected).decode()).items():
        assert "_created" in name or found[name] == value, name


# How the chunks of a compressed body are framed is known since aiohttp tells of each write.
@pytest.mark.parametrize(
    ("body", "is_chunked"), [(b"a" * 1000, False), *([(b"a" * 1000, True), (b"", True)] if WRITES_ARE_TOLD else [])]
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


async def test_a_middleware_further_out_has_the_last_word(aiohttp_client, registry):
    """The middleware sends nothing if another one may still replace the response."""

    @web.middleware
    async def replacing(request, handler):
        response = await handler(request)
        return web.Response(status=418, text=response.text.upper())

    async def handler(_request):
        return web.Response(text="tea")

    app = web.Application(middlewares=[replacing, hrprometheus_middleware(registry=registry)])
    app.router.add_get("/", handler)
    client = await aiohttp_client(app)
    for _ in range(5):
        response = await client.get("/")
        assert (response.status, await response.text()) == (418, "TEA")
    await settled(registry)
    assert counts(generate_latest(registry).decode()) == {("GET", "/", "418"): 5}


async def test_a_sub_applications_middleware_sends_nothing(aiohttp_client, registry):
    """Nor if it belongs to a part of the application, around which there may be another."""

    @web.middleware
    async def replacing(request, handler):
        await handler(request)
        return web.Response(status=202)

    async def handler(_request):
        return web.Response(text="part")

    part = basic(registry)
    part.router.add_get("/", handler)
    app = web.Application(middlewares=[replacing])
    app.add_subapp("/part", part)
    client = await aiohttp_client(app)
    for _ in range(5):
        assert (await client.get("/part/")).status == 202
    await settled(registry)
    assert counts(generate_latest(registry).decode()) == {("GET", "/part/", "202"): 5}


@pytest.mark.parametrize("kind", APPLICATIONS)
@pytest.mark.parametrize("way", ["wraps", "calls"])
async def test_who_wraps_the_application_has_the_last_word(aiohttp_client, registry, monkeypatch, kind, way):
    """Nothing is sent by the middleware if somebody has wrapped the application, or calls it, and changes responses."""
    handle = web.Application._handle

    async def changing(app, request):
        response = await handle(app, request)
        response.headers["X-Changed"] = "yes"
        return response

    async def handler(_request):
        return web.Response(text="x")

    app = kind(registry)
    app.router.add_get("/", handler)
    if way == "wraps":
        monkeypatch.setattr(web.Application, "_handle", changing)
    else:
        monkeypatch.setattr(app, "_handle", partial(changing, app), raising=False)
    client = await aiohttp_client(app)
    assert [(await client.get("/")).headers.get("X-Changed") for _ in range(5)] == ["yes"] * 5
    await settled(registry)
    assert counts(generate_latest(registry).decode()) == {("GET", "/", "200"): 5}


@pytest.mark.parametrize("kind", APPLICATIONS)
async def test_signals_see_the_application_that_handles_the_request(aiohttp_client, registry, kind):
    """While a response is prepared, request.app is the sub-application, as without us."""
    seen = []

    async def prepared(request, _response):
        seen.append(request.app)

    async def handler(_request):
        return web.Response(text="x")

    part, app = web.Application(), kind(registry)
    part.on_response_prepare.append(prepared)
    part.router.add_get("/", handler)
    app.add_subapp("/part", part)
    client = await aiohttp_client(app)
    for _ in range(5):
        assert (await client.get("/part/")).status == 200
    assert seen == [part] * 5


@pytest.mark.parametrize("error", [ConnectionResetError, BrokenPipeError, ClientConnectionResetError, ValueError])
async def test_a_signal_that_fails(aiohttp_client, caplog, error):
    """An error while a response is prepared ends the connection without a byte, as without us."""
    outcomes = []
    for kind in (bare, *APPLICATIONS):
        registry = CollectorRegistry()
        app = kind(registry)

        async def prepared(request, _response):
            if "bad" in request.query:
                raise error("on purpose")

        async def handler(_request):
            return web.Response(text="body")

        app.on_response_prepare.append(prepared)
        app.router.add_get("/", handler)
        client = await aiohttp_client(app)
        for _ in range(WARM):
            assert (await client.get("/")).status == 200
        caplog.clear()
        reader, writer = await asyncio.open_connection(client.host, client.port)
        writer.write(b"GET /?bad HTTP/1.1\r\nHost: x\r\n\r\n" * 2)
        got = await asyncio.wait_for(reader.read(), DEADLINE)
        writer.close()
        await client.close()
        outcomes.append((got, [(record.name, record.levelname, record.getMessage()) for record in caplog.records]))
        if kind is not bare:
            found = await settled(registry)
            assert sum(counts(generate_latest(registry).decode()).values()) == WARM + 1
            assert sum(value for name, value in found.items() if name.startswith("response_size_bytes_sum")) in (0, 12)
    assert outcomes[1:] == [outcomes[0]] * 3
    assert outcomes[0][0] == b""


async def test_files_of_a_form_are_closed_before_the_response_is_sent(aiohttp_client, registry, app):
    """Aiohttp closes them; the middleware leaves such responses to it."""
    files = []

    async def prepared(_request, _response):
        closed.append(all(file.closed for file in files))

    closed: list[bool] = []

    async def handler(request):
        files.append((await request.post())["file"].file)
        return web.Response(text="x")

    app.on_response_prepare.append(prepared)
    app.router.add_post("/", handler)
    client = await aiohttp_client(app)
    for _ in range(5):
        form = FormData()
        form.add_field("file", b"text", filename="name")
        assert (await client.post("/", data=form)).status == 200
    assert closed == [True] * 5


async def test_a_changed_match_hurts_nobody(aiohttp_client, registry, app):
    """Whatever a handler does to the values of its parameters, requests are answered."""

    async def handler(request):
        request.match_info["x"] = ["not", "hashable"]
        return web.Response(text="x")

    app.router.add_get("/a/{x}", handler)
    app.router.add_get("/b/{x}/{y}", handler)
    client = await aiohttp_client(app)
    for _ in range(5):
        assert (await client.get("/a/1")).status == 200
        assert (await client.get("/b/1/2")).status == 200
    await settled(registry)
    assert counts(generate_latest(registry).decode()) == {("GET", "/a/1", "200"): 5, ("GET", "/b/1/2", "200"): 5}


async def test_the_first_byte_of_a_large_response_does_not_wait_for_its_reader(aiohttp_client, registry):
    """It is told from the last one also where the middleware sends the response."""
    body = b"x" * 20_000_000

    async def handler(request):
        return web.Response(body=body if "large" in request.query else b"small")

    app = full(registry)
    app.router.add_get("/", handler)
    client = await aiohttp_client(app)
    for _ in range(WARM):
        await (await client.get("/")).read()
    before = await settled(registry)
    reader, writer = await asyncio.open_connection(client.host, client.port, limit=1000)
    writer.write(b"GET /?large HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert await reader.read(100)
    await asyncio.sleep(0.2)  # the reader's, not the test's
    while await reader.read(1_000_000):
        pass
    writer.close()
    after = await settled(registry)
    labels = '{method="GET",path="/"}'
    took = {
        name: after[f"{name}_sum{labels}"] - before[f"{name}_sum{labels}"]
        for name in ("request_latency", "request_first_byte_latency", "response_size_bytes")
    }
    assert took["request_latency"] - took["request_first_byte_latency"] > 0.15
    assert took["response_size_bytes"] == len(body)


async def test_the_first_byte_of_a_response_behind_others(aiohttp_client, registry):
    """Responses wait for a client that asks again and again before it reads: with their last byte, not their first."""
    body, many = b"x" * 30_000, 8

    async def handler(_request):
        return web.Response(body=body)

    app = full(registry)
    app.router.add_get("/", handler)
    with socket.socket() as listening, socket.socket() as client:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        runner = web.AppRunner(app)
        await runner.setup()
        await web.SockSite(runner, listening).start()
        client.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(client, listening.getsockname())
        await loop.sock_sendall(client, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * many)
        await asyncio.sleep(0.3)  # the client's, not the test's
        got = 0
        async with asyncio.timeout(DEADLINE):
            while got < many * len(body):
                got += len(await loop.sock_recv(client, 65536))
        found = await settled(registry)
        await runner.cleanup()
    labels = '{method="GET",path="/"}'
    assert found["response_size_bytes_sum" + labels] == many * len(body)
    assert found["request_latency_sum" + labels] > 0.2
    assert found["request_first_byte_latency_sum" + labels] < 0.1


@pytest.mark.parametrize("body", [b"less", b"more" * 50_000])
async def test_a_body_that_a_signal_replaces(aiohttp_client, registry, app, body):
    """What is counted is what was sent."""

    async def handler(_request):
        return web.Response(body=b"x" * 100)

    async def replace(_request, response):
        response.headers["Content-Length"] = str(len(body))
        response.body = body

    app.on_response_prepare.append(replace)
    app.router.add_get("/", handler)
    client = await aiohttp_client(app)
    for _ in range(2 * WARM):
        assert await (await client.get("/")).read() == body
    found = await settled(registry)
    assert found['request_count_total{method="GET",path="/",status="200"}'] == 2 * WARM
    sizes = 'response_size_bytes_sum{method="GET",path="/"}'
    assert found.get(sizes, 2 * WARM * len(body)) == 2 * WARM * len(body)


async def test_an_odd_status(aiohttp_client, registry, app):
    """A handler may give any number."""

    async def handler(_request):
        return web.Response(status=0, text="zero")

    app.router.add_get("/", handler)
    client = await aiohttp_client(app)
    reader, writer = await asyncio.open_connection(client.host, client.port)
    for _ in range(2 * WARM):
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await reader.readuntil(b"\r\n\r\nzero")).startswith(b"HTTP/1.1 0 ")
    writer.close()
    found = await settled(registry)
    assert found['request_count_total{method="GET",path="/",status="other"}'] == 2 * WARM


async def test_signals_of_the_application_are_sent_once(aiohttp_client, registry, app):
    """The application hears of each response once, and what it changes is sent."""
    heard = []

    async def prepared(_request, response):
        heard.append(response.status)
        response.headers["X-Heard"] = str(len(heard))

    async def handler(_request):
        return web.Response(text="x")

    app.on_response_prepare.append(prepared)
    app.router.add_get("/", handler)
    client = await aiohttp_client(app)
    got = [(await client.get("/")).headers["X-Heard"] for _ in range(5)]
    assert got == ["1", "2", "3", "4", "5"]
    assert heard == [200] * 5


async def test_a_slow_reader_keeps_its_request_in_progress(aiohttp_client, registry, app):
    """The end is when the transport has taken all of a large body; a client that leaves before is 499."""
    body = b"x" * 20_000_000

    async def handler(request):
        return web.Response(body=body if "large" in request.query else b"small")

    app.router.add_get("/", handler)
    client = await aiohttp_client(app)
    for _ in range(WARM):
        await (await client.get("/")).read()
    reader, writer = await asyncio.open_connection(client.host, client.port, limit=1000)
    writer.write(b"GET /?large HTTP/1.1\r\nHost: x\r\n\r\n")
    assert await reader.read(100)
    assert samples(generate_latest(registry).decode())['requests_in_progress{method="GET",path="/"}'] == 1
    writer.transport.abort()
    await settled(registry)
    assert counts(generate_latest(registry).decode()) == {("GET", "/", "200"): WARM, ("GET", "/", "499"): 1}


async def test_a_cancelled_handler_has_its_own_end(aiohttp_client, registry, app):
    """With handler_cancellation a client that leaves cancels the handler, and is 499."""
    started = asyncio.Event()

    async def handler(request):
        if "wait" in request.query:
            started.set()
            await asyncio.Event().wait()
        return web.Response(text="x")

    app.router.add_get("/", handler)
    client = await aiohttp_client(app, server_kwargs={"handler_cancellation": True})
    for _ in range(WARM):
        await client.get("/")
    _, writer = await asyncio.open_connection(client.host, client.port)
    writer.write(b"GET /?wait HTTP/1.1\r\nHost: x\r\n\r\n")
    await asyncio.wait_for(started.wait(), DEADLINE)
    writer.transport.abort()
    await settled(registry)
    assert counts(generate_latest(registry).decode()) == {("GET", "/", "200"): WARM, ("GET", "/", "499"): 1}


class Told(BaseRequestMonitor):
    """A monitor that keeps what it is told."""

    told: list[tuple[int, float, float | None, int, int | None]]

    def update_init_metrics(self):
        """Nothing begins here."""

    def update_end_metrics(self):
        """Keep it."""
        self.told.append(
            (self.response_status, self.elapsed, self.first_byte_elapsed, self.request_size, self.response_size)
        )


async def test_a_custom_monitor_is_told_the_same(aiohttp_client, waits, monkeypatch):
    """The middleware sends for custom monitors as well, and tells them all there is to know."""
    monkeypatch.setattr(Told, "told", [], raising=False)

    async def handler(request):
        await request.read()
        return web.Response(text="four")

    app = web.Application(middlewares=[hrprometheus_middleware(Told)])
    app.router.add_post("/", handler)
    client = await aiohttp_client(app)
    for _ in range(3):
        await client.post("/", data=b"12")
    assert not waits
    for status, elapsed, first_byte, received, sent in Told.told:
        assert (status, received, sent) == (200, 2, 4)
        assert 0 < first_byte <= elapsed
    assert len(Told.told) == 3


class Quiet(BaseRequestMonitor):
    """A monitor which counts nothing."""

    def update_init_metrics(self):
        pass

    def update_end_metrics(self):
        pass


class Failing(Quiet):
    """A monitor which fails before it has begun."""

    def update_init_metrics(self):
        raise ValueError


async def kept(asking) -> list[object]:
    """Return the requests and lives that are kept when *asking* is done, and no garbage was collected."""
    gc.collect()
    gc.disable()
    try:
        others = [each for each in gc.get_objects() if isinstance(each, web.Request | Life)]
        await asking
        found = [each for each in gc.get_objects() if isinstance(each, web.Request | Life)]
        return [each for each in found if not any(each is other for other in others)]
    finally:
        gc.enable()


@pytest.mark.parametrize("make", [*APPLICATIONS, Quiet, Failing])
async def test_nothing_of_a_request_is_kept(aiohttp_client, registry, make):
    """When a request is over, nothing keeps it: no garbage is left for the collector."""

    async def handler(_request):
        return web.Response(text="x")

    is_monitor = issubclass(make, BaseRequestMonitor) if isinstance(make, type) else False
    app = web.Application(middlewares=[hrprometheus_middleware(make)]) if is_monitor else make(registry)
    app.router.add_get("/", handler)
    client = await aiohttp_client(app)
    for _ in range(WARM):
        await (await client.get("/")).read()

    async def asking():
        for _ in range(20):
            await (await client.get("/")).read()
        if not is_monitor:
            await settled(registry)

    assert len(await kept(asking())) <= 1  # the connection's latest


class Renamed:
    """Stands for something of aiohttp's, of which only the public names are as they are."""

    def __init__(self, of):
        self.__dict__["of"] = of

    def __getattr__(self, name):
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self.of, name)

    def __setattr__(self, name, value):
        setattr(self.of, name, value)


@pytest.mark.parametrize("make", APPLICATIONS)
async def test_nothing_depends_on_private_names(aiohttp_client, registry, make, waits):
    """Where aiohttp has renamed what is read in a hurry, the long way is taken."""

    async def hello(_request):
        return web.Response(text="hello")

    app = make(registry)
    recording = app.middlewares[0]

    async def renamed(request, handler):
        return await recording(Renamed(request), handler)

    recorded = web.middleware(renamed)
    recorded.hr_prometheus_recorder = recording.hr_prometheus_recorder
    app.middlewares[0] = recorded
    app.router.add_get("/hello/{name}", hello)
    client = await aiohttp_client(app)
    for _ in range(WARM):
        assert await (await client.get("/hello/me")).text() == "hello"
    assert len(waits) == WARM
    assert counts(generate_latest(registry).decode()) == {("GET", "/hello/me", "200"): WARM}
