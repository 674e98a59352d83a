"""What a request's own hook tells, of which responses, and what it must not take for its own."""

from __future__ import annotations

import asyncio
import functools
import gc
import logging
import weakref
from contextlib import suppress

import pytest
from aiohttp import ClientError, web
from conftest import counts, samples
from hr_prometheus.life import WRITES_ARE_TOLD
from prometheus_client import CollectorRegistry, generate_latest
from test_plain_responses import APPLICATIONS, WARM, basic, full, instrumented, settled

from hr_prometheus.middleware import hrprometheus_middleware
from hr_prometheus.policies import Policies
from hr_prometheus.request.recorder import recorder_of


async def stream(request):
    """Answer with a stream."""
    response = web.StreamResponse(status=202)
    await response.prepare(request)
    await response.write(b"1234")
    return response


async def websocket(request):
    """Serve a WebSocket, and close it."""
    connection = web.WebSocketResponse()
    await connection.prepare(request)
    await connection.close()
    return connection


async def broken(request):
    """Fail in the middle of a stream."""
    await stream(request)
    raise RuntimeError("on purpose")


class OwnRequest(web.Request):
    """A request with a hook of its own."""

    async def _prepare_hook(self, response):
        response.headers["X-Own"] = "yes"
        await super()._prepare_hook(response)


def make_own_requests(monkeypatch, are_own):
    """Have the requests of which *are_own* says so, given the path, made of the class above."""
    make = web.Application._make_request

    def make_own(self, message, *arguments, **options):
        request = make(self, message, *arguments, **options)
        if are_own(message.path):
            request.__class__ = OwnRequest
        return request

    monkeypatch.setattr(web.Application, "_make_request", make_own)


@web.middleware
async def in_a_task(request, handler):
    """Have the handler run in a task of its own."""
    return await asyncio.create_task(handler(request))


@web.middleware
async def as_a_clone(request, handler):
    """Have the handler get a clone of the request."""
    return await handler(request.clone())


@pytest.mark.parametrize("kind", APPLICATIONS)
async def test_a_stream_that_fails_has_the_status_that_was_sent(aiohttp_client, registry, kind):
    """Whether or not the application tells of the responses that it prepares."""
    app = kind(registry)
    app.router.add_get("/", broken)
    client = await aiohttp_client(app)
    for _ in range(2):
        assert (await client.get("/")).status == 202
    await settled(registry)
    assert counts(generate_latest(registry).decode()) == {("GET", "/", "202"): 2}


async def test_a_stream_that_fails_where_requests_watch_their_attributes(aiohttp_client, registry, monkeypatch):
    """As when aiohttp is debugged: they have a life from their beginning, and a hook nevertheless."""

    def watch(request, name, value):
        assert name != "_prepare_hook"
        object.__setattr__(request, name, value)

    monkeypatch.setattr(web.Request, "__setattr__", watch)
    app = full(registry)
    app.router.add_get("/", broken)
    app.router.add_get("/plain", stream)
    client = await aiohttp_client(app)
    for _ in range(WARM):
        assert (await client.get("/")).status == 202
        assert (await client.get("/plain")).status == 202
    found = await settled(registry)
    assert counts(generate_latest(registry).decode()) == {("GET", "/", "202"): WARM, ("GET", "/plain", "202"): WARM}
    assert found['response_size_bytes_count{method="GET",path="/plain"}'] == WARM


@pytest.mark.parametrize("kind", APPLICATIONS)
async def test_two_that_record_a_stream_that_fails(aiohttp_client, registry, kind):
    """The inner one is told as the outer one is."""
    other = CollectorRegistry()
    app = kind(registry)
    app.middlewares.append(hrprometheus_middleware(registry=other, detail="full"))
    app.router.add_get("/", broken)
    client = await aiohttp_client(app)
    for _ in range(2):
        assert (await client.get("/")).status == 202
    for each in (registry, other):
        found = await settled(each)
        assert counts(generate_latest(each).decode()) == {("GET", "/", "202"): 2}
    assert found['request_first_byte_latency_count{method="GET",path="/"}'] == 2


@pytest.mark.parametrize("kind", [full, instrumented])
async def test_what_is_written_for_another_request_is_not_ones_own(aiohttp_client, registry, kind):
    """A handler can write to the streams of other requests, as those do that tell many of an event."""
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

    async def publish_and_upgrade(request):
        await publish(request)
        return await websocket(request)

    app = kind(registry)
    app.router.add_get("/subscribe", subscribe)
    app.router.add_get("/publish", publish)
    app.router.add_get("/upgrade", publish_and_upgrade)
    client = await aiohttp_client(app)
    subscriber = await client.get("/subscribe")
    await subscribed.wait()
    for _ in range(3):
        assert (await client.get("/publish")).status == 200
    await (await client.ws_connect("/upgrade")).close()
    over.set()
    await subscriber.read()
    found = await settled(registry)
    assert found['response_size_bytes_sum{method="GET",path="/publish"}'] == 3 * 2
    if WRITES_ARE_TOLD:
        assert found['response_size_bytes_sum{method="GET",path="/subscribe"}'] == 4 * 1000
    assert found['websocket_connections_in_progress{path="/upgrade"}'] == 0
    assert not [name for name in found if name.startswith("hr_prometheus_errors")]


@pytest.mark.parametrize("kind", APPLICATIONS)
async def test_errors_keep_nothing(aiohttp_client, registry, kind, monkeypatch):
    """When a 500 was answered, its request is gone, without a search for garbage."""
    requests = []

    async def fail(request):
        requests.append(weakref.ref(request))
        raise RuntimeError("on purpose")

    monkeypatch.setattr(logging.getLogger("aiohttp.server"), "disabled", True)  # pytest keeps what is logged
    app = kind(registry)
    app.router.add_get("/", fail)
    client = await aiohttp_client(app)
    gc.collect()
    gc.disable()
    try:
        for _ in range(5):
            await (await client.get("/")).read()
        await settled(registry)
        assert [request() for request in requests[:-1]] == [None] * 4  # the connection may keep its latest
    finally:
        gc.enable()


@pytest.mark.parametrize("kind", [full, instrumented])
async def test_two_that_record_around_a_task(aiohttp_client, registry, kind):
    """The inner one ends when the handler does, and leaves the life of the outer one in its place."""
    app = kind(registry)
    app.middlewares.extend([in_a_task, hrprometheus_middleware(registry=CollectorRegistry(), detail="full")])
    app.router.add_get("/stream", stream)
    app.router.add_get("/websocket", websocket)
    client = await aiohttp_client(app)
    for _ in range(2):
        assert await (await client.get("/stream")).read() == b"1234"
        await (await client.ws_connect("/websocket")).close()
    found = await settled(registry)
    assert found['request_first_byte_latency_count{method="GET",path="/stream"}'] == 2
    if WRITES_ARE_TOLD:
        assert found['response_size_bytes_sum{method="GET",path="/stream"}'] == 8
    assert found['websocket_connections_in_progress{path="/websocket"}'] == 0


@pytest.mark.parametrize("kind", [full, instrumented])
async def test_what_is_prepared_after_the_end_that_was_seen(aiohttp_client, registry, kind):
    """With a task in between, a handler's end is the last that is seen; a WebSocket that begins then is never open."""

    async def unprepared(_request):
        return web.WebSocketResponse()

    app = kind(registry)
    app.middlewares.insert(0, in_a_task)
    app.router.add_get("/", unprepared)
    client = await aiohttp_client(app)
    for _ in range(2):
        connection = await client.ws_connect("/")
        await connection.close()
    found = samples(generate_latest(registry).decode())
    assert counts(generate_latest(registry).decode()) == {("GET", "/", "101"): 2}
    assert not [name for name, value in found.items() if "in_progress" in name and value]


async def test_an_expectation_and_a_task_around_a_life_from_the_beginning(aiohttp_client, registry, monkeypatch):
    """The response is prepared after the end that was seen, and is none that nobody has counted."""

    async def handler(request):
        return web.Response(body=await request.read())

    make_own_requests(monkeypatch, lambda _path: True)
    app = instrumented(registry)
    app.middlewares.insert(0, in_a_task)
    app.router.add_post("/", handler)
    client = await aiohttp_client(app)
    for _ in range(WARM):
        assert await (await client.post("/", data=b"some", expect100=True)).read() == b"some"
    await settled(registry)
    assert counts(generate_latest(registry).decode()) == {("POST", "/", "200"): WARM}


@pytest.mark.parametrize("kind", [full, instrumented])
async def test_a_websocket_whose_match_is_changed(aiohttp_client, registry, kind):
    """It is closed under the labels under which it was opened."""

    async def handler(request):
        request.match_info["name"] = "b"
        return await websocket(request)

    app = kind(registry)
    app.router.add_get("/{name}/{rest}", handler)
    recorder_of(app.middlewares[0]).labels.policies = Policies({}, {"*": {"rest": ["x"]}})
    client = await aiohttp_client(app)
    for _ in range(2):
        await (await client.ws_connect("/a/x")).close()
    found = await settled(registry)
    assert not [name for name, value in found.items() if "in_progress" in name and value]


@pytest.mark.parametrize(("kind", "is_told"), [(full, False), (instrumented, True)])
async def test_a_stream_for_a_clone(aiohttp_client, registry, kind, is_told):
    """Clones have aiohttp's hook, which tells the application's receivers alone: what is not told is not invented."""
    app = kind(registry)
    app.middlewares.append(as_a_clone)
    app.router.add_get("/", stream)
    client = await aiohttp_client(app)
    for _ in range(2):
        assert await (await client.get("/")).read() == b"1234"
    found = await settled(registry)
    assert counts(generate_latest(registry).decode()) == {("GET", "/", "202"): 2}
    assert found['request_first_byte_latency_count{method="GET",path="/"}'] == 2 * is_told
    assert found['response_size_bytes_count{method="GET",path="/"}'] == 2 * is_told
    if WRITES_ARE_TOLD:
        assert found['response_size_bytes_sum{method="GET",path="/"}'] == 8 * is_told


@pytest.mark.parametrize("kind", [full, instrumented])
async def test_a_response_prepared_in_vain_before_a_websocket(aiohttp_client, registry, kind):
    """The first that a handler prepares may not be the one that it sends."""

    async def handler(request):
        await web.Response(text="never sent").prepare(request)
        return await websocket(request)

    app = kind(registry)
    app.router.add_get("/", handler)
    client = await aiohttp_client(app)
    with suppress(ClientError):  # older aiohttp sends both heads
        await client.get("/", headers={"Upgrade": "websocket", "Connection": "Upgrade"})
    found = await settled(registry)
    assert not [name for name, value in found.items() if "in_progress" in name and value]
    assert not [name for name in found if name.startswith("hr_prometheus_errors")]


async def test_a_middleware_around_ours_in_a_file_of_the_same_name(aiohttp_client, registry):
    """Who calls us is told by the module, not by its file's name: this one changes the response after us."""
    ours = hrprometheus_middleware(registry=registry)
    names = {"ours": ours}
    source = (
        "async def around(request, handler):\n"
        "    response = await ours(request, handler)\n"
        "    response.headers['X-Around'] = 'yes'\n"
        "    return response\n"
    )
    exec(compile(source, "somewhere/middleware.py", "exec"), names)  # noqa: S102  # it is ours
    app = web.Application(middlewares=[functools.wraps(ours)(names["around"])])

    async def handler(_request):
        return web.Response(text="ok")

    app.router.add_get("/", handler)
    client = await aiohttp_client(app)
    for _ in range(WARM):
        assert (await client.get("/")).headers["X-Around"] == "yes"


async def test_requests_of_another_kind(aiohttp_client, registry, monkeypatch):
    """Once there was a request whose class has a hook of its own, no response is sent before that hook was asked."""

    async def handler(_request):
        return web.Response(text="ok")

    make_own_requests(monkeypatch, lambda path: "own" in path)
    app = basic(registry)
    app.router.add_get("/", handler)
    app.router.add_get("/own", handler)
    client = await aiohttp_client(app)
    for _ in range(WARM):
        assert "X-Own" not in (await client.get("/")).headers
    for _ in range(WARM):
        assert (await client.get("/own")).headers["X-Own"] == "yes"
    for _ in range(WARM):
        assert (await client.get("/?own")).headers["X-Own"] == "yes"
    assert sum(counts(generate_latest(registry).decode()).values()) == 3 * WARM
