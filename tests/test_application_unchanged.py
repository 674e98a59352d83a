"""What an application does and gets is the same with hr-prometheus and without."""

from __future__ import annotations

import asyncio
import socket
from functools import partial

import pytest
from aiohttp import ClientConnectionResetError, FormData, web
from conftest import APPLICATIONS, DEADLINE, counted, full, instrumented, settled
from prometheus_client import CollectorRegistry
from test_exchange import chunked_for_old_clients, plain, read, refused_by_its_head, stream

from hr_prometheus.request.aiohttp_features import WRITES_ARE_REPORTED


@pytest.fixture(params=APPLICATIONS)
def app(request, registry):
    """An application with each of our ways to record."""
    return request.param(registry)


def bare(_registry):
    """An application without us."""
    return web.Application()


def undated(answer: bytes) -> bytes:
    """Return an answer without the time at which it was given."""
    return b"\n".join(line for line in answer.splitlines() if not line.startswith(b"Date:"))


async def asked(client, *requests: bytes) -> bytes:
    """Return all that a server sends on one connection for requests, the last of which the client sends no more after."""
    reader, writer = await asyncio.open_connection(client.host, client.port)
    for request in requests:
        writer.write(request)
    writer.write_eof()
    answer = await asyncio.wait_for(reader.read(), DEADLINE)
    writer.close()
    return undated(answer)


def sent_before():
    """Return a response that was made once."""
    return SENT_BEFORE[0]


SENT_BEFORE: list[web.Response] = []


@pytest.mark.parametrize(
    ("make", "version"), [(refused_by_its_head, "1.1"), (chunked_for_old_clients, "1.0"), (sent_before, "1.1")]
)
async def test_what_cannot_be_sent_ends_as_without_us(aiohttp_client, caplog, make, version):
    """The client gets, and the log says, what it would without hr-prometheus, and each request is counted once."""
    outcomes = []
    for kind in (bare, *APPLICATIONS):
        SENT_BEFORE[:] = [web.Response(text="used")]
        registry = CollectorRegistry()
        app = kind(registry)

        async def handler(request):
            return make()

        app.router.add_get("/", handler)
        app.router.add_get("/good", plain)
        client = await aiohttp_client(app)
        caplog.clear()
        got = [
            await asked(client, f"GET /{path} HTTP/{version}\r\nHost: x\r\n\r\n".encode()) for path in ("", "", "good")
        ]
        await client.close()
        outcomes.append((got, [(record.name, record.getMessage()) for record in caplog.records]))
        if kind is not bare:
            assert sum((await counted(registry)).values()) == 3
    assert outcomes[1:] == [outcomes[0]] * len(APPLICATIONS)


@pytest.mark.parametrize("error", [ConnectionResetError, BrokenPipeError, ClientConnectionResetError, ValueError])
async def test_a_signal_that_fails_ends_as_without_us(aiohttp_client, caplog, error):
    """An error while a response is prepared ends the connection without a byte, and is logged alike."""
    outcomes = []
    for kind in (bare, *APPLICATIONS):
        registry = CollectorRegistry()
        app = kind(registry)

        async def prepared(_request, _response):
            raise error("on purpose")

        app.on_response_prepare.append(prepared)
        app.router.add_get("/", plain)
        client = await aiohttp_client(app)
        caplog.clear()
        got = await asked(client, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 2)
        await client.close()
        outcomes.append((got, [(record.name, record.levelname, record.getMessage()) for record in caplog.records]))
        if kind is not bare:
            assert await counted(registry) == {("GET", "/", "499"): 1}
    assert outcomes == [(b"", outcomes[0][1])] * (1 + len(APPLICATIONS))


async def test_signals_are_sent_once(aiohttp_client, app):
    """The application hears of each response once, and what it changes is sent."""
    heard = []

    async def prepared(_request, response):
        heard.append(response.status)
        response.headers["X-Heard"] = str(len(heard))

    app.on_response_prepare.append(prepared)
    app.router.add_get("/", plain)
    client = await aiohttp_client(app)
    assert [(await client.get("/")).headers["X-Heard"] for _ in range(3)] == ["1", "2", "3"]
    assert heard == [200] * 3


@pytest.mark.parametrize("order", [("/", "/part/"), ("/part/", "/")])
async def test_signals_of_a_part_are_sent_for_its_responses(aiohttp_client, app, order):
    """While a response is prepared, request.app is the sub-application, which hears of its own responses alone."""
    heard = []

    async def prepared(request, response):
        heard.append((request.app, request.path, response.status))

    part = web.Application()
    part.on_response_prepare.append(prepared)
    part.router.add_get("/", plain)
    app.router.add_get("/", plain)
    app.add_subapp("/part", part)
    client = await aiohttp_client(app)
    for path in order * 2:
        await client.get(path)
    assert heard == [(part, "/part/", 200)] * 2


@pytest.mark.parametrize("body", [b"less", b"more" * 50_000])
async def test_a_body_that_a_signal_replaces_is_sent(aiohttp_client, registry, app, body):
    """What is counted is what was sent."""

    async def handler(_request):
        return web.Response(body=b"x" * 100)

    async def replace(_request, response):
        response.headers["Content-Length"] = str(len(body))
        response.body = body

    app.on_response_prepare.append(replace)
    app.router.add_get("/", handler)
    client = await aiohttp_client(app)
    for _ in range(2):
        assert await (await client.get("/")).read() == body
    found = await settled(registry)
    assert found.get('response_size_bytes_sum{method="GET",path="/"}', 2 * len(body)) == 2 * len(body)


async def test_files_of_a_form_are_closed_before_the_response_is_sent(aiohttp_client, app):
    """As aiohttp closes them."""
    files = []
    closed: list[bool] = []

    async def prepared(_request, _response):
        closed.append(all(file.closed for file in files))

    async def handler(request):
        files.append((await request.post())["file"].file)
        return web.Response(text="x")

    app.on_response_prepare.append(prepared)
    app.router.add_post("/", handler)
    client = await aiohttp_client(app)
    for _ in range(3):
        form = FormData()
        form.add_field("file", b"text", filename="name")
        assert (await client.post("/", data=form)).status == 200
    assert closed == [True] * 3


async def test_a_changed_match_hurts_no_request(aiohttp_client, registry, app):
    """Whatever a handler does to the values of its parameters, requests are answered and have the labels they began with."""

    async def handler(request):
        request.match_info["x"] = ["not", "hashable"]
        return web.Response(text="x")

    app.router.add_get("/a/{x}", handler)
    app.router.add_get("/b/{x}/{y}", handler)
    client = await aiohttp_client(app)
    for path in ("/a/1", "/b/1/2") * 2:
        assert (await client.get(path)).status == 200
    assert await counted(registry) == {("GET", "/a/1", "200"): 2, ("GET", "/b/1/2", "200"): 2}


@pytest.mark.parametrize("handler", [plain, lambda _request: refused_by_its_head()])
async def test_the_match_of_a_request_stays(aiohttp_client, registry, app, handler):
    """A request that is kept has its application, when the response was sent and when it could not be."""
    requests = []

    async def keeping(request):
        requests.append(request)
        response = handler(request)
        return await response if asyncio.iscoroutine(response) else response

    app.router.add_get("/{any}", keeping)
    client = await aiohttp_client(app)
    for _ in range(2):
        await asked(client, b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n")
    await settled(registry)
    assert [request.app for request in requests] == [app] * 2


async def test_a_task_that_outlives_its_handler_sees_the_request_as_it_was(aiohttp_client, app):
    """At any time, also while a large body is sent."""
    seen, requests = set(), []

    async def watching(request):
        while "is_sent" not in request:
            seen.add(request.app)
            await asyncio.sleep(0)

    async def handler(request):
        response = web.Response(body=b"x" * 1_000_000)
        response.enable_compression(web.ContentCoding.gzip)  # in a thread
        requests.append(request)
        request["watching"] = asyncio.create_task(watching(request))
        return response

    app.router.add_get("/", handler)
    client = await aiohttp_client(app)
    for _ in range(2):
        assert len(await (await client.get("/")).read()) == 1_000_000
    for request in requests:
        request["is_sent"] = True
        await request["watching"]
    assert seen == {app}


@pytest.mark.parametrize("way", ["wraps", "calls"])
async def test_who_wraps_the_application_has_the_last_word(aiohttp_client, registry, monkeypatch, app, way):
    """A tool that wraps the application, or calls it, can change its responses."""
    handle = web.Application._handle

    async def changing(app, request):
        response = await handle(app, request)
        response.headers["X-Changed"] = "yes"
        return response

    app.router.add_get("/", plain)
    if way == "wraps":
        monkeypatch.setattr(web.Application, "_handle", changing)
    else:
        monkeypatch.setattr(app, "_handle", partial(changing, app), raising=False)
    client = await aiohttp_client(app)
    assert [(await client.get("/")).headers.get("X-Changed") for _ in range(2)] == ["yes"] * 2
    assert await counted(registry) == {("GET", "/", "200"): 2}


@pytest.mark.parametrize("name", ["prepare", "_start", "_write_headers"])
async def test_who_replaces_a_step_of_the_preparation_sees_the_request(aiohttp_client, monkeypatch, app, name):
    """A tool that puts a function of its own in the place of aiohttp's can look at the application."""
    step = getattr(web.Response, name)
    requests: list[web.Request] = []

    async def stepping(response, *of):
        response.headers["X-Application"] = requests[-1].app["name"]
        return await step(response, *of)

    async def handler(request):
        requests.append(request)
        return web.Response(text="four")

    monkeypatch.setattr(web.Response, name, stepping)
    app["name"] = "mine"
    app.router.add_get("/", handler)
    client = await aiohttp_client(app)
    assert [(await client.get("/")).headers["X-Application"] for _ in range(2)] == ["mine"] * 2


async def upgraded(request):
    """Serve a WebSocket, and close it."""
    connection = web.WebSocketResponse()
    await connection.prepare(request)
    await connection.close()
    return connection


@pytest.mark.parametrize("way", ["class", "patch"])
async def test_a_request_with_a_hook_of_its_own_keeps_it(aiohttp_client, registry, monkeypatch, app, way):
    """A class of requests, or a tool, may do something when a response is prepared, of upgrades as well."""
    hook = web.Request._prepare_hook

    async def hooking(request, response):
        response.headers["X-Hook"] = "mine"
        await hook(request, response)

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
    app.router.add_get("/websocket", upgraded)
    client = await aiohttp_client(app)
    for _ in range(2):
        assert (await client.get("/")).headers["X-Hook"] == "mine"
        connection = await client.ws_connect("/websocket")
        assert connection._response.headers["X-Hook"] == "mine"
        await connection.close()
    assert await counted(registry) == {("GET", "/", "200"): 2, ("GET", "/websocket", "101"): 2}


async def test_requests_that_watch_their_attributes_get_none_of_ours(aiohttp_client, registry, monkeypatch, app):
    """As aiohttp's do when it is debugged, where each new attribute would be a warning."""
    added = []

    def watch(request, name, value):
        if name not in request.ATTRS:
            added.append(name)
        object.__setattr__(request, name, value)

    monkeypatch.setattr(web.Request, "__setattr__", watch)
    app.router.add_get("/", stream)
    app.router.add_get("/websocket", upgraded)
    client = await aiohttp_client(app)
    assert (await client.get("/")).status == 202
    await (await client.ws_connect("/websocket")).close()
    await settled(registry)
    assert not added


@pytest.mark.parametrize("is_clone", [True, False])
async def test_a_request_that_is_sent_round_again(aiohttp_client, registry, app, is_clone):
    """It is one request, with the labels that it began with; the middleware that sent it has the last word."""

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

    app.middlewares.append(redirect)
    app.router.add_get("/alias", plain)
    app.router.add_get("/plain", plain)
    client = await aiohttp_client(app)
    for _ in range(2):
        assert (await client.get("/plain")).headers.get("X-After") is None
        response = await client.get("/alias")
        assert (await response.text(), response.headers.get("X-After")) == ("four", "yes")
    assert await counted(registry) == {("GET", "/plain", "200"): 2, ("GET", "/alias", "200"): 2}


@pytest.mark.parametrize("kind", [full, instrumented])
async def test_a_response_to_a_clone_is_measured(aiohttp_client, registry, kind):
    """A clone has the writer of its request."""

    @web.middleware
    async def as_a_clone(request, handler):
        return await handler(request.clone())

    app = kind(registry)
    app.middlewares.append(as_a_clone)
    app.router.add_get("/", stream)
    client = await aiohttp_client(app)
    for _ in range(2):
        assert await (await client.get("/")).read() == b"1234"
    found = await settled(registry)
    assert await counted(registry) == {("GET", "/", "202"): 2}
    assert found['response_size_bytes_sum{method="GET",path="/"}'] == 8
    assert found['request_first_byte_latency_count{method="GET",path="/"}'] == 2


@pytest.mark.parametrize("handler", [plain, stream])
async def test_another_application_that_answers_hears_of_it(aiohttp_client, registry, app, handler):
    """Receivers of an application that is no part of ours hear of its responses, which are measured as ours."""
    heard = []

    async def listening(_request, response):
        heard.append(response.status)

    other = web.Application()
    other.on_response_prepare.append(listening)
    other.router.add_get("/", handler)
    other.freeze()
    app.router.add_get("/", other._handle)
    client = await aiohttp_client(app)
    sizes = [len(await (await client.get("/")).read()) for _ in range(2)]
    assert len(heard) == 2
    found = await settled(registry)
    assert found['request_latency_count{method="GET",path="/"}'] == 2
    assert found.get('response_size_bytes_sum{method="GET",path="/"}', sum(sizes)) == sum(sizes)


async def test_an_application_that_calls_an_instrumented_one_has_the_last_word(aiohttp_client, registry):
    """Its middlewares stand around ours."""

    @web.middleware
    async def outer(request, handler):
        response = await handler(request)
        response.headers["X-Outer"] = "yes"
        return response

    inner = full(registry)
    inner.router.add_get("/", plain)
    inner.freeze()
    app = web.Application(middlewares=[outer])

    async def delegate(request):
        return await inner._handle(request.clone())

    app.router.add_get("/", delegate)
    client = await aiohttp_client(app)
    assert [(await client.get("/")).headers.get("X-Outer") for _ in range(2)] == ["yes"] * 2
    assert await counted(registry) == {("GET", "/", "200"): 2}


@pytest.mark.skipif(not WRITES_ARE_REPORTED, reason="aiohttp reports writes from 3.14.4 on")
@pytest.mark.parametrize("handler", [plain, stream])
async def test_an_application_that_wants_each_write_reported_gets_it(aiohttp_client, registry, app, handler):
    """The handler may set the writer's callback itself, which is asked beside ours."""
    reported = []

    async def listening(request):
        request.writer.on_body_write = lambda size, _output_size: reported.append(size)
        return await handler(request)

    app.router.add_get("/", listening)
    client = await aiohttp_client(app)
    for _ in range(3):
        assert len(await (await client.get("/")).text()) == 4
    found = await settled(registry)
    assert reported == [4] * 3
    assert found.get('response_size_bytes_sum{method="GET",path="/"}', 12) == 12


async def test_what_a_handler_writes_itself_does_no_harm(aiohttp_client, registry, app):
    """Bytes that come from no response are the handler's own business."""

    async def raw(request):
        await request.writer.write(b"HTTP/1.1 299 Mine\r\nContent-Length: 2\r\n\r\nok")
        return web.Response(text="never")

    app.router.add_get("/", raw)
    client = await aiohttp_client(app)
    with socket.create_connection((client.host, client.port)) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = await asyncio.to_thread(connection.recv, 1000)
    assert answer.startswith(b"HTTP/1.1 299 Mine")
    assert sum((await counted(registry)).values()) == 1


async def test_an_expectation_that_the_application_meets_itself(aiohttp_client, registry):
    """What it writes for that is no part of the response, which is measured as a whole."""

    async def meet(request):
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    app = instrumented(registry)
    app.router.add_post("/", read, expect_handler=meet)
    client = await aiohttp_client(app)
    for _ in range(3):
        async with client.post("/", data=b"12", expect100=True) as response:
            assert await response.text() == "four"
    found = await settled(registry)
    assert await counted(registry) == {("POST", "/", "200"): 3}
    assert found['response_size_bytes_sum{method="POST",path="/"}'] == 12
    assert found['request_first_byte_latency_count{method="POST",path="/"}'] == 3
