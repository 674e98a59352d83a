"""What is left out when the middleware sends a plain response: aiohttp's signal, where all who listen are our own."""

from __future__ import annotations

import asyncio
import gc
import socket

import pytest
from aiohttp import ClientPayloadError, web
from aiohttp.web_response import Response, StreamResponse
from conftest import counts
from prometheus_client import CollectorRegistry, generate_latest
from test_middleware import until
from test_plain_responses import APPLICATIONS, WARM, full, instrumented, settled

from hr_prometheus import instrument
from hr_prometheus.life import WRITES_ARE_TOLD, Life
from hr_prometheus.middleware import hrprometheus_middleware
from hr_prometheus.recorder import Recorder, recorder_of
from hr_prometheus.sending import ALOUD, QUIETLY


async def plain(_request):
    """Answer."""
    return web.Response(text="four")


def sending(app) -> int:
    """How the middleware of an application sends plain responses."""
    return recorder_of(app.middlewares[0]).sending


@pytest.mark.parametrize("number", [0, 1])
async def test_the_signal_is_sent_for_others_alone(aiohttp_client, registry, monkeypatch, number):
    """Where nobody else listens, we do not listen to ourselves."""
    told, heard = [], []
    prepared = Recorder._response_prepared
    monkeypatch.setattr(Recorder, "_response_prepared", lambda *of: told.append(1) or prepared(*of))

    async def listening(_request, _response):
        heard.append(1)

    app = instrumented(registry)
    app.on_response_prepare.extend([listening] * number)
    app.router.add_get("/", plain)
    client = await aiohttp_client(app)
    for _ in range(10):
        await client.get("/")
    await settled(registry)
    assert len(told) == 10 if number else len(told) < WARM
    assert len(heard) == 10 * number
    assert counts(generate_latest(registry).decode()) == {("GET", "/", "200"): 10}


@pytest.mark.parametrize("kind", APPLICATIONS)
@pytest.mark.parametrize("order", [("/", "/part/"), ("/part/", "/")])
async def test_a_part_that_listens_is_told(aiohttp_client, registry, kind, order):
    """A sub-application hears of its own responses, whoever was asked first."""
    heard = []

    async def listening(request, _response):
        heard.append(request.path)

    part = web.Application()
    part.on_response_prepare.append(listening)
    part.router.add_get("/", plain)
    app = kind(registry)
    app.router.add_get("/", plain)
    app.add_subapp("/part", part)
    client = await aiohttp_client(app)
    for path in order:
        for _ in range(5):
            await client.get(path)
    assert heard == ["/part/"] * 5
    assert sending(app) == ALOUD


async def test_a_part_that_listens_is_told_after_a_refused_expectation(aiohttp_client, registry):
    """That its first request got no further than to aiohttp changes nothing."""
    heard = []

    async def listening(_request, response):
        heard.append(response.status)

    part = web.Application()
    part.on_response_prepare.append(listening)
    part.router.add_get("/", plain)
    app = instrumented(registry)
    app.router.add_get("/", plain)
    app.add_subapp("/part", part)
    client = await aiohttp_client(app)
    for _ in range(WARM):
        await client.get("/")
    assert sending(app) == QUIETLY
    assert (await client.get("/part/", headers={"Expect": "wonders"})).status == 417
    for _ in range(WARM):
        await client.get("/part/")
    assert heard == [417, *[200] * WARM]
    await settled(registry)
    got = counts(generate_latest(registry).decode())
    assert got == {("GET", "/", "200"): WARM, ("GET", "/part/", "200"): WARM, ("GET", "/part/", "417"): 1}


@pytest.mark.parametrize("kind", APPLICATIONS)
async def test_who_replaces_the_preparation_finds_all_there(aiohttp_client, registry, monkeypatch, kind):
    """A tool that puts a function of its own in the place of aiohttp's can look at the match."""
    prepare = StreamResponse.prepare

    async def preparing(response, request):
        response.headers["X-Application"] = request.app["name"]
        return await prepare(response, request)

    monkeypatch.setattr(Response, "prepare", preparing)
    app = kind(registry)
    app["name"] = "mine"
    app.router.add_get("/", plain)
    client = await aiohttp_client(app)
    for _ in range(5):
        assert (await client.get("/")).headers["X-Application"] == "mine"


async def refused(_request):
    """Return a response that aiohttp refuses to send."""
    return web.Response(text="x", headers={"X-Bad": "one\nSet-Cookie: two"})


@pytest.mark.parametrize("kind", APPLICATIONS)
@pytest.mark.parametrize("make", [plain, refused])
async def test_the_match_of_a_request_stays(aiohttp_client, registry, kind, make):
    """Whoever keeps a request finds its application, when the response was sent and when it could not be."""
    requests = []

    async def handler(request):
        requests.append(request)
        return await (make if "now" in request.query else plain)(request)

    app = kind(registry)
    app.router.add_get("/{any}", handler)
    client = await aiohttp_client(app)
    for _ in range(WARM):
        await client.get("/x")
    reader, writer = await asyncio.open_connection(client.host, client.port)
    writer.write(b"GET /x?now HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    await reader.read()
    writer.close()
    await settled(registry)
    assert {request.app for request in requests} == {app}  # aiohttp looks it up in the match
    assert len(requests) == WARM + 1


@pytest.mark.parametrize("kind", APPLICATIONS)
async def test_the_match_is_there_while_a_large_body_is_sent(aiohttp_client, registry, kind):
    """A task that outlives the handler sees the request as it was, at any time."""
    seen = []

    async def watching(request):
        while "is_sent" not in request:
            seen.append(request.app)
            await asyncio.sleep(0)

    async def handler(request):
        response = web.Response(body=b"x" * 1_000_000)
        response.enable_compression(web.ContentCoding.gzip)  # in a thread
        request["watching"] = requests.append(request) or asyncio.create_task(watching(request))
        return response

    requests: list[web.Request] = []
    app = kind(registry)
    app.router.add_get("/", handler)
    client = await aiohttp_client(app)
    for _ in range(WARM):
        assert len(await (await client.get("/")).read()) == 1_000_000
    for request in requests:
        request["is_sent"] = True
        await request["watching"]
    assert set(seen) == {app}


async def stream(request):
    """Answer with a stream that a task of its own writes."""

    async def write():
        response = web.StreamResponse()
        await response.prepare(request if "clone" not in request.query else request.clone())
        await response.write(b"1234")
        await asyncio.sleep(0.05)
        await response.write_eof(b"5678")
        return response

    return await (asyncio.create_task(write()) if "task" in request.query else write())


@pytest.mark.parametrize("kind", [full, instrumented])
@pytest.mark.parametrize("query", ["", "?task", "?clone"])
async def test_streams_are_measured_from_their_first_byte(aiohttp_client, registry, kind, query):
    """A life that is made when a stream begins has missed nothing."""
    app = kind(registry)
    app.router.add_get("/", stream)
    client = await aiohttp_client(app)
    assert await (await client.get("/" + query)).read() == b"12345678"
    found = await settled(registry)
    labels = '{method="GET",path="/"}'
    assert found["request_latency_sum" + labels] > 0.05
    if WRITES_ARE_TOLD:
        assert found["response_size_bytes_sum" + labels] == 8
        assert found["request_first_byte_latency_sum" + labels] < 0.05


@pytest.mark.parametrize("path", ["/stream", "/plain", "/late"])
async def test_two_that_record_elsewhere_measure_the_same(aiohttp_client, registry, path):
    """An application can have two middlewares of ours with registries of their own; one is told before the other."""

    async def late(_request):
        return web.Response(status=503, text="none")

    other = CollectorRegistry()
    app = web.Application(middlewares=[hrprometheus_middleware(registry=other, detail="full")])
    app.middlewares.insert(0, hrprometheus_middleware(registry=registry, detail="full"))
    recorder_of(app.middlewares[0]).watch(app)
    app.router.add_get("/stream", stream)
    app.router.add_get("/plain", plain)
    app.router.add_get("/late", late)
    client = await aiohttp_client(app)
    sizes = [len(await (await client.get(path)).read()) for _ in range(2 * WARM)]
    labels = f'{{method="GET",path="{path}"}}'
    for each in (registry, other):
        found = await settled(each)
        assert found["request_latency_count" + labels] == len(sizes)
        if WRITES_ARE_TOLD or path != "/stream":
            assert found["response_size_bytes_sum" + labels] == sum(sizes)
            assert found["request_first_byte_latency_count" + labels] == len(sizes)
    if path == "/stream" and WRITES_ARE_TOLD:
        assert (await settled(registry))["request_first_byte_latency_sum" + labels] < len(sizes) * 0.05


async def test_a_websocket_is_open_as_soon_as_it_is_one(aiohttp_client, registry):
    """Its life is made in time."""

    async def socket_(request):
        connection = web.WebSocketResponse()
        await connection.prepare(request)
        async for _ in connection:
            pass
        return connection

    app = instrumented(registry)
    app.router.add_get("/", socket_)
    client = await aiohttp_client(app)
    async with client.ws_connect("/"):
        await until(lambda: 'websocket_connections_in_progress{path="/"} 1.0' in generate_latest(registry).decode())
    found = await settled(registry)
    assert found['websocket_connections_in_progress{path="/"}'] == 0
    assert found['websocket_connection_duration_count{path="/"}'] == 1


async def test_what_a_handler_writes_itself_does_no_harm(aiohttp_client, registry):
    """Bytes that come from no response are the handler's own business."""

    async def raw(request):
        await request.writer.write(b"HTTP/1.1 299 Mine\r\nContent-Length: 2\r\n\r\nok")
        return web.Response(text="never")

    app = instrument(web.Application(), registry=registry, metrics_path=None)
    app.router.add_get("/", raw)
    client = await aiohttp_client(app)
    with socket.create_connection((client.host, client.port)) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = await asyncio.to_thread(connection.recv, 1000)
    assert answer.startswith(b"HTTP/1.1 299 Mine")
    assert sum(counts(generate_latest(registry).decode()).values()) <= 1


@pytest.mark.parametrize("path", ["/plain", "/stream"])
async def test_nothing_of_a_request_that_is_left_out_is_kept(aiohttp_client, registry, path):
    """Requests that are not recorded need no life, and leave no garbage for the collector."""
    app = instrument(web.Application(), registry=registry, metrics_path=None, exclude=[path])
    app.router.add_get("/plain", plain)
    app.router.add_get("/stream", stream)
    client = await aiohttp_client(app)
    await (await client.get(path)).read()
    gc.collect()
    gc.disable()
    try:
        others = [each for each in gc.get_objects() if isinstance(each, web.Request | Life)]
        for _ in range(5):
            await (await client.get(path)).read()
        kept = [each for each in gc.get_objects() if isinstance(each, web.Request | Life)]
        kept = [each for each in kept if not any(each is other for other in others)]
    finally:
        gc.enable()
    assert len(kept) <= 1  # the connection's latest
    assert not counts(generate_latest(registry).decode())


@pytest.mark.parametrize("detail", ["basic", "full"])
@pytest.mark.parametrize("kind", APPLICATIONS)
async def test_streams_of_a_part_that_has_a_middleware_of_ours(aiohttp_client, registry, kind, detail):
    """The part's middleware records nothing, and takes nothing from the outermost: here, the status that was sent."""

    async def broken(request):
        response = web.StreamResponse(status=202)
        await response.prepare(request)
        await response.write(b"begun")
        raise RuntimeError

    part = kind(registry)
    part.router.add_get("/", broken)
    app = instrument(web.Application(), registry=registry, metrics_path=None, detail=detail)
    app.add_subapp("/part", part)
    client = await aiohttp_client(app)
    for _ in range(WARM):
        response = await client.get("/part/")
        assert response.status == 202
        with pytest.raises(ClientPayloadError):
            await response.read()
    await settled(registry)
    assert counts(generate_latest(registry).decode()) == {("GET", "/part/", "202"): WARM}


async def test_a_websocket_over_the_budget_is_folded_once(aiohttp_client, registry):
    """Its labels are looked up twice, but it is one request."""

    async def socket_(request):
        connection = web.WebSocketResponse()
        await connection.prepare(request)
        async for _ in connection:
            pass
        return connection

    app = instrument(web.Application(), registry=registry, metrics_path=None, path_budget=1)
    app.router.add_get("/{number}", socket_)
    client = await aiohttp_client(app)
    for number in range(4):
        async with client.ws_connect(f"/{number}"):
            pass
    found = await settled(registry)
    assert found['hr_prometheus_folded_requests_total{route="/{number}"}'] == 3
    assert found['websocket_connection_duration_count{path="/{number}"}'] == 3


@pytest.mark.parametrize("query", ["", "?task"])
async def test_a_stream_after_an_expectation_that_was_met(aiohttp_client, registry, query):
    """It is one request, which had entered the middleware when its response was prepared."""
    app = instrumented(registry)
    app.router.add_post("/", stream)
    client = await aiohttp_client(app)
    for _ in range(WARM):
        async with client.post("/" + query, data=b"12", expect100=True) as response:
            assert await response.read() == b"12345678"
    found = await settled(registry)
    assert counts(generate_latest(registry).decode()) == {("POST", "/", "200"): WARM}
    assert found['request_size_bytes_sum{method="POST",path="/"}'] == 2 * WARM
