"""Several middlewares of ours, applications within applications, and tasks around handlers."""

from __future__ import annotations

import asyncio

import pytest
from aiohttp import ClientPayloadError, web
from conftest import APPLICATIONS, basic, counted, full, instrumented, samples, settled
from prometheus_client import CollectorRegistry, generate_latest
from test_exchange import broken, closing, echo, plain, stream

from hr_prometheus import access_log_class, instrument
from hr_prometheus.middleware import hrprometheus_middleware


@pytest.fixture(params=APPLICATIONS)
def app(request, registry):
    """An application with each of our ways to record."""
    return request.param(registry)


@web.middleware
async def in_a_task(request, handler):
    """Have the handler run in a task of its own."""
    return await asyncio.create_task(handler(request))


@web.middleware
async def out_of_sight(request, handler):
    """Have all that is further in run in a task of its own, from its beginning on."""

    async def call():
        return await handler(request)

    return await asyncio.create_task(call())


async def teapot(_request):
    """Answer with tea."""
    return web.Response(text="tea")


@web.middleware
async def replacing(request, handler):
    """Put another response in the place of the handler's."""
    response = await handler(request)
    return web.Response(status=418, text=response.text.upper())


@pytest.mark.parametrize("kind", [basic, full])
async def test_a_middleware_further_out_has_the_last_word(aiohttp_client, registry, kind):
    """What is recorded is the response that it sends."""
    app = kind(registry)
    app.middlewares.insert(0, replacing)
    app.router.add_get("/", teapot)
    client = await aiohttp_client(app)
    for _ in range(3):
        response = await client.get("/")
        assert (response.status, await response.text()) == (418, "TEA")
    assert await counted(registry) == {("GET", "/", "418"): 3}


async def test_a_middleware_around_the_part_that_is_recorded(aiohttp_client, registry):
    """A sub-application that has a middleware of ours records what the outer application sends."""
    part = basic(registry)
    part.router.add_get("/", teapot)
    app = web.Application(middlewares=[replacing])
    app.add_subapp("/part", part)
    client = await aiohttp_client(app)
    for _ in range(3):
        assert (await client.get("/part/")).status == 418
    assert await counted(registry) == {("GET", "/part/", "418"): 3}


@pytest.mark.parametrize("handler", [plain, stream, teapot])
async def test_two_that_record_elsewhere_measure_the_same(aiohttp_client, registry, app, handler):
    """An application can have two middlewares of ours with registries of their own."""
    other = CollectorRegistry()
    app.middlewares.append(hrprometheus_middleware(registry=other, detail="full"))
    app.router.add_get("/", handler)
    client = await aiohttp_client(app)
    sizes = [len(await (await client.get("/")).read()) for _ in range(3)]
    labels = '{method="GET",path="/"}'
    for each in (registry, other):
        found = await settled(each)
        assert found["request_latency_count" + labels] == 3
        if each is other or "response_size_bytes_sum" + labels in found:
            assert found["response_size_bytes_sum" + labels] == sum(sizes)
            assert found["request_first_byte_latency_count" + labels] == 3
    assert await counted(registry) == await counted(other)


async def test_two_that_record_a_stream_that_fails(aiohttp_client, registry, app):
    """The inner one knows the status that was sent, as the outer one does."""
    other = CollectorRegistry()
    app.middlewares.append(hrprometheus_middleware(registry=other, detail="full"))
    app.router.add_get("/", broken)
    client = await aiohttp_client(app)
    for _ in range(2):
        assert (await client.get("/")).status == 202
    for each in (registry, other):
        assert await counted(each) == {("GET", "/", "202"): 2}
    assert (await settled(other))['request_first_byte_latency_count{method="GET",path="/"}'] == 2


async def test_two_that_record_a_websocket(aiohttp_client, registry, app):
    """Both have it open while it is, and closed once."""
    other = CollectorRegistry()
    app.middlewares.append(hrprometheus_middleware(registry=other, detail="full"))
    app.router.add_get("/", closing)
    client = await aiohttp_client(app)
    for _ in range(2):
        await (await client.ws_connect("/")).close()
    for each in (registry, other):
        found = await settled(each)
        assert await counted(each) == {("GET", "/", "101"): 2}
        if each is other or "websocket_connection_duration_count" in "".join(found):
            assert found['websocket_connections_in_progress{path="/"}'] == 0
            assert found['websocket_closes_total{by="server",code="4xxx",path="/"}'] == 2


@pytest.mark.parametrize("handler", [stream, closing])
@pytest.mark.parametrize("kind", [full, instrumented])
@pytest.mark.parametrize("around", [in_a_task, out_of_sight])
async def test_two_that_record_around_a_task(aiohttp_client, registry, kind, handler, around):
    """Both know all, whatever is between the outer and the inner one."""
    app, other = kind(registry), CollectorRegistry()
    app.middlewares.extend([around, hrprometheus_middleware(registry=other, detail="full")])
    app.router.add_get("/", handler)
    client = await aiohttp_client(app)
    for _ in range(2):
        if handler is stream:
            assert await (await client.get("/")).read() == b"1234"
        else:
            await (await client.ws_connect("/")).close()
    for each in (registry, other):
        found = await settled(each)
        if handler is stream:
            assert await counted(each) == {("GET", "/", "202"): 2}
            assert found['response_size_bytes_sum{method="GET",path="/"}'] == 8
        else:
            assert await counted(each) == {("GET", "/", "101"): 2}
            assert found['websocket_connections_in_progress{path="/"}'] == 0


@pytest.mark.parametrize("case", [(plain, 200), (stream, 202), (broken, 202), (closing, 101), (echo, 101)])
@pytest.mark.parametrize("kind", APPLICATIONS)
@pytest.mark.parametrize("around", [in_a_task, out_of_sight])
async def test_a_task_around_ours(aiohttp_client, registry, kind, case, around):
    """Where the request's own task is out of sight, its status is that of the head, or of what the handler returned."""
    handler, status = case
    app = kind(registry)
    app.middlewares.insert(0, around)
    app.router.add_get("/", handler)
    client = await aiohttp_client(app)
    for _ in range(2):
        if status == 101:
            await (await client.ws_connect("/")).close()
            continue
        response = await client.get("/")
        assert response.status == status
        if handler is broken:
            with pytest.raises(ClientPayloadError):
                await response.read()
    found = await settled(registry)
    assert await counted(registry) == {("GET", "/", str(status)): 2}
    assert not [name for name, value in found.items() if "in_progress" in name and value]


@pytest.mark.parametrize("around", [in_a_task, out_of_sight])
async def test_a_task_around_ours_and_an_expectation(registry, around):
    """It is one request, also where the access log looks for those that reach no middleware."""

    async def read(request):
        return web.Response(body=await request.read())

    app = instrumented(registry)
    app.middlewares.insert(0, around)
    app.router.add_post("/", read)
    runner = web.AppRunner(app, access_log_class=access_log_class(app))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    reader, writer = await asyncio.open_connection(*runner.addresses[0])
    for _ in range(3):
        writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"12")
        assert (await reader.readuntil(b"\r\n\r\n12")).startswith(b"HTTP/1.1 200 OK")
    writer.close()
    await runner.cleanup()
    assert await counted(registry) == {("POST", "/", "200"): 3}


@pytest.mark.parametrize("around", [in_a_task, out_of_sight])
@pytest.mark.parametrize("kind", [full, instrumented])
async def test_a_websocket_that_is_prepared_after_the_end_that_was_seen(aiohttp_client, registry, kind, around):
    """With a task in between, a handler's end is the last that is seen; a WebSocket that begins then is never open."""

    async def unprepared(_request):
        return web.WebSocketResponse()

    app = kind(registry)
    app.middlewares.insert(0, around)
    app.router.add_get("/", unprepared)
    client = await aiohttp_client(app)
    for _ in range(2):
        await (await client.ws_connect("/")).close()
    found = await settled(registry)
    assert await counted(registry) == {("GET", "/", "101"): 2}
    assert not [name for name, value in found.items() if "in_progress" in name and value]


@pytest.mark.parametrize("detail", ["basic", "full"])
async def test_a_part_that_has_a_middleware_of_ours_takes_nothing_from_the_outermost(
    aiohttp_client, registry, app, detail
):
    """Where both write to the same numbers, each request is counted once, with the status that was sent."""
    app.router.add_get("/", broken)
    outer = instrument(web.Application(), registry=registry, metrics_path=None, detail=detail)
    outer.add_subapp("/part", app)
    client = await aiohttp_client(outer)
    for _ in range(3):
        assert (await client.get("/part/")).status == 202
    assert await counted(registry) == {("GET", "/part/", "202"): 3}


@pytest.mark.parametrize("path", ["/part/", "/part/stream"])
@pytest.mark.parametrize("exclude", [[], ["*"]])
async def test_one_middleware_in_two_places_behind_another(aiohttp_client, registry, app, path, exclude):
    """It records each request once, though the other was there before."""
    part = web.Application(middlewares=[app.middlewares[0]])
    part.router.add_get("/", plain)
    part.router.add_get("/stream", stream)
    app.middlewares.insert(0, hrprometheus_middleware(registry=CollectorRegistry(), exclude=exclude))
    app.add_subapp("/part", part)
    client = await aiohttp_client(app)
    for _ in range(3):
        await (await client.get(path)).read()
    assert sum((await counted(registry)).values()) == 3


async def test_what_one_leaves_out_the_other_records(aiohttp_client, registry, app):
    """Each has its own rule of what it leaves out."""
    other = CollectorRegistry()
    app.middlewares.insert(0, hrprometheus_middleware(registry=other, exclude=["/"], detail="full"))
    app.router.add_get("/", plain)
    client = await aiohttp_client(app)
    for _ in range(3):
        await (await client.get("/")).read()
    assert await counted(registry) == {("GET", "/", "200"): 3}
    assert not samples(generate_latest(other).decode())


@pytest.mark.parametrize("answer", [plain, echo])
async def test_a_request_that_does_not_reach_the_inner_one_is_none_of_its(aiohttp_client, registry, answer):
    """A middleware between the two may answer itself."""

    @web.middleware
    async def serving(request, handler):  # which it does not call
        return await answer(request)

    app, other = instrumented(registry), CollectorRegistry()
    app.middlewares.insert(0, serving)
    app.middlewares.insert(0, hrprometheus_middleware(registry=other))
    app.router.add_get("/", plain)
    client = await aiohttp_client(app)
    if answer is echo:
        await (await client.ws_connect("/")).close()
    else:
        await client.get("/")
    assert await counted(other) == {("GET", "/", "101" if answer is echo else "200"): 1}
    assert not samples(generate_latest(registry).decode())
