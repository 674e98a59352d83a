"""What is left out when the middleware sends a plain response: aiohttp's signal, where all who listen are our own."""

from __future__ import annotations

import asyncio
import socket

import pytest
from aiohttp import ClientPayloadError, ServerDisconnectedError, web
from aiohttp.web_response import Response
from conftest import counts, samples
from hr_prometheus.life import WRITES_ARE_TOLD
from hr_prometheus.sending import aloud, can_be_hooked, quietly
from prometheus_client import CollectorRegistry, generate_latest
from test_middleware import until
from test_plain_responses import APPLICATIONS, WARM, full, instrumented, kept, settled

from hr_prometheus import instrument
from hr_prometheus.middleware import hrprometheus_middleware
from hr_prometheus.monitors import BaseRequestMonitor
from hr_prometheus.request.recorder import Recorder, recorder_of


async def plain(_request):
    """Answer."""
    return web.Response(text="four")


async def read(request):
    """Answer when the request's body is there."""
    await request.read()
    return web.Response(text="four")


async def websocket(request):
    """Serve a WebSocket until its client closes it."""
    connection = web.WebSocketResponse()
    await connection.prepare(request)
    async for _ in connection:
        pass
    return connection


def with_listening_part(app, heard):
    """Give an application a part that keeps in *heard* which responses it was told of."""

    async def listening(request, response):
        heard.append((request.path, response.status))

    part = web.Application()
    part.on_response_prepare.append(listening)
    part.router.add_get("/", plain)
    app.router.add_get("/", plain)
    app.add_subapp("/part", part)
    return app


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
    app = with_listening_part(kind(registry), heard)
    client = await aiohttp_client(app)
    for path in order:
        for _ in range(5):
            await client.get(path)
    assert heard == [("/part/", 200)] * 5
    assert sending(app) is aloud


async def test_a_part_that_listens_is_told_after_a_refused_expectation(aiohttp_client, registry):
    """That its first request got no further than to aiohttp changes nothing."""
    heard = []
    app = with_listening_part(instrumented(registry), heard)
    client = await aiohttp_client(app)
    for _ in range(WARM):
        await client.get("/")
    assert sending(app) is quietly
    assert (await client.get("/part/", headers={"Expect": "wonders"})).status == 417
    assert sending(app) is quietly
    for _ in range(WARM):
        await client.get("/part/")
    assert heard == [("/part/", 417), *[("/part/", 200)] * WARM]
    await settled(registry)
    got = counts(generate_latest(registry).decode())
    assert got == {("GET", "/", "200"): WARM, ("GET", "/part/", "200"): WARM, ("GET", "/part/", "417"): 1}


@pytest.mark.parametrize("kind", APPLICATIONS)
@pytest.mark.parametrize("name", ["prepare", "_start", "_write_headers"])
async def test_who_replaces_a_step_of_the_preparation_finds_all_there(
    aiohttp_client, registry, monkeypatch, kind, name
):
    """A tool that puts a function of its own in the place of aiohttp's can look at the request, as can a thread."""
    step = getattr(Response, name)

    async def stepping(response, *of):
        response.headers["X-Application"] = requests[-1].app["name"]
        return await step(response, *of)

    async def handler(request):
        requests.append(request)
        return web.Response(text="four")

    requests: list[web.Request] = []
    monkeypatch.setattr(Response, name, stepping)
    app = kind(registry)
    app["name"] = "mine"
    app.router.add_get("/", handler)
    client = await aiohttp_client(app)
    for _ in range(5):
        assert (await client.get("/")).headers["X-Application"] == "mine"


@pytest.mark.parametrize("kind", APPLICATIONS)
@pytest.mark.parametrize("way", ["subclass", "patch"])
async def test_who_replaces_the_hook_is_asked(aiohttp_client, registry, monkeypatch, kind, way):
    """Requests may tell others in a way of their own when a response is prepared."""
    hook = web.Request._prepare_hook

    async def hooking(request, response):
        response.headers["X-Hook"] = "mine"
        await hook(request, response)

    app = kind(registry)
    if way == "patch":
        monkeypatch.setattr(web.Request, "_prepare_hook", hooking)
    else:
        make, mine = app._make_request, type("Mine", (web.Request,), {"_prepare_hook": hooking})

        def made(*of, **named):
            request = make(*of, **named)
            request.__class__ = mine
            return request

        monkeypatch.setattr(app, "_make_request", made, raising=False)
    app.router.add_get("/", plain)
    client = await aiohttp_client(app)
    for _ in range(5):
        assert (await client.get("/")).headers["X-Hook"] == "mine"


def test_requests_that_watch_their_attributes_are_left_alone():
    """As aiohttp's do when it is debugged: each new attribute would be a warning."""
    watching = type("Watching", (web.Request,), {"__setattr__": lambda *_of: None})
    assert not can_be_hooked(watching)
    assert can_be_hooked(web.Request) is (web.Request.__setattr__ is object.__setattr__)


@pytest.mark.parametrize("is_clone", [True, False])
@pytest.mark.parametrize("kind", APPLICATIONS)
async def test_a_request_that_is_sent_round_again(aiohttp_client, registry, kind, is_clone):
    """It is one request, with the labels that it entered with; who sent it has the last word on its response."""

    @web.middleware
    async def redirect(request, handler):
        if request.path != "/alias":
            return await handler(request)
        other = request.clone(rel_url="/plain")
        if not is_clone:
            request._rel_url = other.rel_url
            for name in ("path", "rel_url"):
                request._cache.pop(name, None)
        response = await request.app._handle(other if is_clone else request)
        response.headers["X-After"] = "yes"
        return response

    app = kind(registry)
    app.middlewares.append(redirect)
    app.router.add_get("/alias", refused)
    app.router.add_get("/plain", plain)
    client = await aiohttp_client(app)
    for _ in range(WARM):
        assert (await client.get("/plain")).headers.get("X-After") is None
        response = await client.get("/alias")
        assert (await response.text(), response.headers.get("X-After")) == ("four", "yes")
    await settled(registry)
    assert counts(generate_latest(registry).decode()) == {
        ("GET", "/plain", "200"): WARM,
        ("GET", "/alias", "200"): WARM,
    }


@pytest.mark.parametrize("kind", APPLICATIONS)
@pytest.mark.parametrize("path", ["/plain", "/stream"])
async def test_another_application_that_answers_is_told(aiohttp_client, registry, kind, path):
    """Receivers of an application that is no part of ours hear of its responses; of its streams nothing wrong is told."""
    heard = []

    async def listening(_request, response):
        heard.append(response.status)

    other = web.Application()
    other.on_response_prepare.append(listening)
    other.router.add_get("/plain", plain)
    other.router.add_get("/stream", stream)
    other.freeze()
    app = kind(registry)
    app.router.add_get(path, other._handle)
    client = await aiohttp_client(app)
    sizes = [len(await (await client.get(path)).read()) for _ in range(5)]
    assert heard == [200] * 5
    found = await settled(registry)
    labels = f'{{method="GET",path="{path}"}}'
    assert found["request_latency_count" + labels] == 5
    if found.get("response_size_bytes_count" + labels) and (WRITES_ARE_TOLD or path == "/plain"):
        assert found["response_size_bytes_sum" + labels] == sum(sizes)


async def test_a_refused_expectation_says_nothing_of_what_stands_around(aiohttp_client, registry):
    """A client cannot take the last word from a middleware that stands further out than ours."""

    @web.middleware
    async def outer(request, handler):
        response = await handler(request)
        response.headers["X-Outer"] = "yes"
        return response

    app = instrumented(registry)
    app.middlewares.insert(0, outer)
    app.router.add_get("/", plain)
    client = await aiohttp_client(app)
    assert (await client.get("/", headers={"Expect": "wonders"})).status == 417
    for _ in range(WARM):
        assert (await client.get("/")).headers["X-Outer"] == "yes"
    await settled(registry)
    assert counts(generate_latest(registry).decode()) == {("GET", "/", "417"): 1, ("GET", "/", "200"): WARM}


@pytest.mark.skipif(not WRITES_ARE_TOLD, reason="aiohttp tells of writes from 3.14.4 on")
@pytest.mark.parametrize("kind", APPLICATIONS)
async def test_an_application_that_wants_to_be_told_of_writes_is(aiohttp_client, registry, kind):
    """The handler may set the writer's callback itself."""
    told = []

    async def handler(request):
        request.writer.on_body_write = lambda size, _output_size: told.append(size)
        return web.Response(text="four")

    app = kind(registry)
    app.router.add_get("/", handler)
    client = await aiohttp_client(app)
    for _ in range(WARM):
        assert await (await client.get("/")).text() == "four"
    await settled(registry)
    assert told == [4] * WARM


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
        await response.prepare(request)
        await response.write(b"1234")
        await asyncio.sleep(0.05)
        await response.write_eof(b"5678")
        return response

    return await (asyncio.create_task(write()) if "task" in request.query else write())


@pytest.mark.parametrize("kind", [full, instrumented])
@pytest.mark.parametrize("query", ["", "?task"])
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
    app = instrumented(registry)
    app.router.add_get("/", websocket)
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

    async def asking():
        for _ in range(5):
            await (await client.get(path)).read()

    assert len(await kept(asking())) <= 1  # the connection's latest
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
    app = instrument(web.Application(), registry=registry, metrics_path=None, path_budget=1)
    app.router.add_get("/{number}", websocket)
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


@pytest.mark.parametrize("kind", APPLICATIONS)
@pytest.mark.parametrize("path", ["/part/", "/part/stream"])
@pytest.mark.parametrize("exclude", [[], ["*"]])
async def test_one_middleware_in_two_places_behind_another(aiohttp_client, registry, kind, path, exclude):
    """It records each request once, though the other was there before."""
    app = kind(registry)
    part = web.Application(middlewares=[app.middlewares[0]])
    part.router.add_get("/", plain)
    part.router.add_get("/stream", stream)
    app.middlewares.insert(0, hrprometheus_middleware(registry=CollectorRegistry(), exclude=exclude))
    app.add_subapp("/part", part)
    client = await aiohttp_client(app)
    for _ in range(WARM):
        await (await client.get(path)).read()
    await settled(registry)
    assert counts(generate_latest(registry).decode()) == {("GET", path, "200"): WARM}


async def test_a_refused_expectation_counts_wherever_it_is_told(aiohttp_client, registry):
    """Once in the registry of the application, and once in that of its part."""
    others = CollectorRegistry()
    part = instrumented(others)
    part.router.add_get("/", plain)
    app = instrumented(registry)
    app.add_subapp("/part", part)
    client = await aiohttp_client(app)
    for _ in range(WARM):
        assert (await client.get("/part/", headers={"Expect": "wonders"})).status == 417
    for each in (registry, others):
        await settled(each)
        assert counts(generate_latest(each).decode()) == {("GET", "/part/", "417"): WARM}


async def test_a_websocket_that_does_not_reach_the_middleware(aiohttp_client, registry):
    """Who serves it stands further out, behind another middleware of ours: it is none of the inner one's."""

    @web.middleware
    async def serving(request, handler):  # which it does not call
        return await websocket(request)

    app = instrumented(registry)
    other = CollectorRegistry()
    app.middlewares.insert(0, serving)
    app.middlewares.insert(0, hrprometheus_middleware(registry=other))
    app.router.add_get("/", plain)
    client = await aiohttp_client(app)
    async with client.ws_connect("/"):
        pass
    await settled(other)
    assert not samples(generate_latest(registry).decode())


async def test_an_expectation_that_the_application_meets_itself(aiohttp_client, registry):
    """What it writes for that is no part of the response, which is measured as a whole."""

    async def meet(request):
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    app = instrumented(registry)
    app.router.add_post("/", read, expect_handler=meet)
    client = await aiohttp_client(app)
    for _ in range(WARM):
        async with client.post("/", data=b"12", expect100=True) as response:
            assert await response.text() == "four"
    found = await settled(registry)
    assert found['response_size_bytes_count{method="POST",path="/"}'] == WARM
    assert not WRITES_ARE_TOLD or found['response_size_bytes_sum{method="POST",path="/"}'] == 4 * WARM
    assert found['request_first_byte_latency_count{method="POST",path="/"}'] == WARM


@pytest.mark.parametrize("kind", [full, instrumented])
async def test_a_response_that_was_never_sent_has_no_first_byte(aiohttp_client, registry, kind):
    """Aiohttp has refused its head."""
    app = kind(registry)
    app.router.add_get("/", refused)
    client = await aiohttp_client(app)
    for _ in range(WARM):
        with pytest.raises(ServerDisconnectedError):
            await client.get("/")
    found = await settled(registry)
    assert counts(generate_latest(registry).decode()) == {("GET", "/", "500"): WARM}
    assert not found.get('request_first_byte_latency_count{method="GET",path="/"}')


async def test_an_application_within_another_sends_nothing(aiohttp_client, registry):
    """A middleware of the user's in the outer one, in a file of the same name as ours, has the last word."""
    namespace: dict = {"web": web}
    code = (
        "@web.middleware\nasync def outer(request, handler):\n    response = await handler(request)\n"
        "    response.headers['X-Outer'] = 'yes'\n    return response\n"
    )
    exec(compile(code, "middleware.py", "exec"), namespace)  # noqa: S102
    inner = full(registry)
    inner.router.add_get("/", plain)
    inner.freeze()
    app = web.Application(middlewares=[namespace["outer"]])

    async def delegate(request):
        return await inner._handle(request.clone())

    app.router.add_get("/", delegate)
    client = await aiohttp_client(app)
    assert [(await client.get("/")).headers.get("X-Outer") for _ in range(5)] == ["yes"] * 5
    await settled(registry)
    assert counts(generate_latest(registry).decode()) == {("GET", "/", "200"): 5}


async def test_a_monitor_that_fails_to_begin_is_not_begun_again(aiohttp_client):
    """Not for a request with an expectation either."""
    begun = []

    class Failing(BaseRequestMonitor):
        def update_init_metrics(self):
            begun.append(1)
            raise ValueError

        def update_end_metrics(self):
            raise AssertionError

    app = instrument(web.Application(), request_monitor=Failing, metrics_path=None)
    app.router.add_post("/", read)
    client = await aiohttp_client(app)
    for _ in range(WARM):
        async with client.post("/", data=b"12", expect100=True) as response:
            assert await response.text() == "four"
    assert len(begun) == WARM
