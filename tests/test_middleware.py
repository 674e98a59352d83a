from __future__ import annotations

import asyncio
import gc
import logging
import weakref
from functools import partial
from unittest.mock import Mock

import pytest
from aiohttp import ClientError, web
from aiohttp.test_utils import TestClient, TestServer
from aiohttp.web_urldispatcher import PlainResource
from conftest import DEADLINE, counted, counts, full, samples, until
from prometheus_client import Counter, generate_latest

from hr_prometheus.errors import ConfigurationError
from hr_prometheus.middleware import hrprometheus_middleware
from hr_prometheus.monitors import BaseRequestMonitor, RequestMonitor
from hr_prometheus.request.records import Records


async def ok(_request):
    return web.Response(text="ok")


def application(registry, *routes, middlewares=(), **arguments):
    """Make an application which records into *registry*."""
    app = web.Application(middlewares=[hrprometheus_middleware(registry=registry, **arguments), *middlewares])
    app.router.add_get("/ok", ok)
    app.add_routes(routes)
    return app


def scrape(registry) -> str:
    return generate_latest(registry).decode()


def ended(registry, number=1):
    """Whether so many requests have ended."""
    return lambda: sum(counts(scrape(registry)).values()) == number


async def test_what_a_handler_returns(aiohttp_client, registry):
    """Status, number and duration of a plain request; nothing stays in progress."""
    client = await aiohttp_client(application(registry))
    assert await (await client.get("/ok")).text() == "ok"
    await until(ended(registry))
    found = samples(scrape(registry))
    assert found['request_count_total{method="GET",path="/ok",status="200"}'] == 1
    assert found['request_latency_count{method="GET",path="/ok"}'] == 1
    assert 0 < found['request_latency_sum{method="GET",path="/ok"}'] < DEADLINE
    assert found['requests_in_progress{method="GET",path="/ok"}'] == 0


async def raise_not_found(_request):
    raise web.HTTPNotFound


async def raise_found(_request):
    raise web.HTTPFound("/ok")


async def raise_error(_request):
    raise RuntimeError("on purpose")


async def raise_timeout(_request):
    raise TimeoutError


async def return_nothing(_request):
    return None


async def return_text(_request):
    return "text"


@pytest.mark.parametrize(
    ("handler", "status"),
    [
        (raise_not_found, 404),
        (raise_found, 302),
        (raise_error, 500),
        (raise_timeout, 504),
        (return_nothing, 500),
        (return_text, 500),
    ],
)
async def test_the_status_is_what_the_client_got(aiohttp_client, registry, handler, status):
    """However a handler ends, the status recorded is the client's."""
    client = await aiohttp_client(application(registry, web.get("/it", handler)))
    assert (await client.get("/it", allow_redirects=False)).status == status
    await until(ended(registry))
    assert counts(scrape(registry)) == {("GET", "/it", str(status)): 1}


async def test_files_have_the_status_that_their_preparation_finds(aiohttp_client, registry, tmp_path):
    """200, 206, 304, 404 and 416 of a file are decided after the handler has returned."""
    (tmp_path / "file.txt").write_text("0123456789")
    client = await aiohttp_client(application(registry, web.static("/files", tmp_path)))
    first = await client.get("/files/file.txt")
    for path, headers, status in [
        ("/files/file.txt", {"Range": "bytes=0-3"}, 206),
        ("/files/file.txt", {"If-None-Match": first.headers["ETag"]}, 304),
        ("/files/file.txt", {"Range": "bytes=50-60"}, 416),
        ("/files/none.txt", {}, 404),
    ]:
        assert (await client.get(path, headers=headers)).status == status
    await until(ended(registry, 5))
    assert counts(scrape(registry)) == {
        ("GET", "/files/{filename}", str(status)): 1 for status in (200, 206, 304, 404, 416)
    }


async def test_unmatched_requests(aiohttp_client, registry):
    """404 and 405 of the router are recorded under one label."""
    client = await aiohttp_client(application(registry))
    await client.get("/one")
    await client.get("/two")
    await client.post("/ok")
    await until(ended(registry, 3))
    assert counts(scrape(registry)) == {("GET", "unmatched", "404"): 2, ("POST", "unmatched", "405"): 1}


async def test_a_lazily_sent_body_belongs_to_the_request(aiohttp_client, registry):
    """The duration reaches to the end of the body, which is sent after the handler has returned."""
    pause = asyncio.Event()

    async def body():
        yield b"one"
        await pause.wait()
        yield b"two"

    async def handler(_request):
        return web.Response(body=body())

    client = await aiohttp_client(application(registry, web.get("/lazy", handler)))
    response = await client.get("/lazy")
    assert samples(scrape(registry))['requests_in_progress{method="GET",path="/lazy"}'] == 1
    assert not counts(scrape(registry))
    pause.set()
    assert await response.read() == b"onetwo"
    await until(ended(registry))


async def test_a_client_that_leaves_early(aiohttp_client, registry):
    """A request whose client is gone before the answer is a 499, and no longer in progress."""
    arrived, go_on = asyncio.Event(), asyncio.Event()

    async def handler(_request):
        arrived.set()
        await go_on.wait()
        return web.Response(text="too late")

    client = await aiohttp_client(application(registry, web.get("/wait", handler)))
    task = asyncio.create_task(client.get("/wait"))
    await arrived.wait()
    task.cancel()
    with pytest.raises((asyncio.CancelledError, ClientError)):
        await task
    await client.session.close()
    await asyncio.sleep(0.01)  # the server's loop is this one: let it read the end of the connection
    go_on.set()
    await until(ended(registry))
    assert counts(scrape(registry)) == {("GET", "/wait", "499"): 1}
    assert samples(scrape(registry))['requests_in_progress{method="GET",path="/wait"}'] == 0


async def test_what_other_middlewares_do_is_seen(aiohttp_client, registry):
    """A middleware below ours that raises or replaces the response decides what is recorded."""

    @web.middleware
    async def deny(request, handler):
        await handler(request)
        raise web.HTTPForbidden

    client = await aiohttp_client(application(registry, middlewares=[deny]))
    assert (await client.get("/ok")).status == 403
    await until(ended(registry))
    assert counts(scrape(registry)) == {("GET", "/ok", "403"): 1}


async def test_innermost_is_true_as_well(aiohttp_client, registry):
    """Appended to the list, as published, it still records what the client gets in the end."""

    @web.middleware
    async def replace(request, handler):
        await handler(request)
        return web.Response(status=418)

    app = web.Application(middlewares=[replace])
    app.middlewares.append(hrprometheus_middleware(registry=registry))
    app.router.add_get("/ok", ok)
    client = await aiohttp_client(app)
    assert (await client.get("/ok")).status == 418
    await until(ended(registry))
    assert counts(scrape(registry)) == {("GET", "/ok", "418"): 1}


async def test_a_handler_in_a_task_of_its_own(aiohttp_client, registry):
    """Where another middleware gives its handler a task, the request ends when the handler returns."""

    @web.middleware
    async def own_task(request, handler):
        return await asyncio.create_task(handler(request))

    app = web.Application(middlewares=[own_task, hrprometheus_middleware(registry=registry)])
    app.router.add_get("/ok", ok)
    app.router.add_get("/missing", raise_not_found)
    client = await aiohttp_client(app)
    await client.get("/ok")
    await client.get("/missing")
    await until(ended(registry, 2))
    assert counts(scrape(registry)) == {("GET", "/ok", "200"): 1, ("GET", "/missing", "404"): 1}


async def test_an_application_and_the_one_it_is_part_of(aiohttp_client, registry):
    """Each request is counted once, though both applications carry the middleware."""
    below = application(registry)
    app = application(registry)
    app.add_subapp("/below", below)
    client = await aiohttp_client(app)
    for path in ("/ok", "/below/ok", "/below/missing"):
        await client.get(path)
    await until(ended(registry, 3))
    assert counts(scrape(registry)) == {
        ("GET", "/ok", "200"): 1,
        ("GET", "/below/ok", "200"): 1,
        ("GET", "unmatched", "404"): 1,
    }


@pytest.mark.parametrize("detail", ["basic", "full"])
async def test_one_middleware_in_several_places(aiohttp_client, registry, detail):
    """The same object twice, or in an application and one below it, counts each request once."""
    middleware = hrprometheus_middleware(registry=registry, detail=detail)
    below = web.Application(middlewares=[middleware])
    below.router.add_get("/ok", ok)
    app = web.Application(middlewares=[middleware, middleware])
    app.router.add_get("/ok", ok)
    app.add_subapp("/below", below)
    client = await aiohttp_client(app)
    for path in ("/ok", "/below/ok", "/ok", "/nowhere"):
        await client.get(path)
    await until(ended(registry, 4))
    assert counts(scrape(registry)) == {
        ("GET", "/ok", "200"): 2,
        ("GET", "/below/ok", "200"): 1,
        ("GET", "unmatched", "404"): 1,
    }


async def test_uploads_that_nobody_reads_are_let_go(aiohttp_client, registry):
    """When the rest of a body has arrived, nothing of the request is kept."""
    kept = weakref.WeakSet()

    async def refuse(request):
        kept.add(request)
        return web.Response(status=413)

    client = await aiohttp_client(application(registry, web.post("/up", refuse), detail="full"))
    for _ in range(5):
        await client.post("/up", data=b"x" * 300_000)
    await until(
        lambda: registry.get_sample_value("request_size_bytes_sum", {"method": "POST", "path": "/up"}) == 5 * 300_000
    )
    await client.get("/ok")
    gc.collect()
    assert len(kept) <= 1  # aiohttp's own protocol may hold the last one


def test_a_status_of_the_clients_choice(registry):
    """A handler that answers with any number a client names makes no series without end."""
    record = Records(registry).request(("GET", "/{status}"))
    for status in (200, 599, 600, 99, 12345):
        record.begin()
        record.finish(str(status), 0.0)
    found = counts(scrape(registry))
    assert found == {("GET", "/{status}", status): n for status, n in {"200": 1, "599": 1, "other": 3}.items()}


async def test_two_different_monitors_both_record(aiohttp_client, registry):
    """A custom monitor beside the default one is no second counting."""
    seen = []

    class Custom(BaseRequestMonitor):
        def update_init_metrics(self):
            pass

        def update_end_metrics(self):
            seen.append((self.request_description, self.response_status))

    client = await aiohttp_client(application(registry, middlewares=[hrprometheus_middleware(Custom)]))
    await client.get("/ok")
    await until(ended(registry))
    assert seen == [(("GET", "/ok"), 200)]


@pytest.mark.parametrize("where", ["begin", "end"])
async def test_a_broken_monitor_hurts_nobody(aiohttp_client, caplog, where):
    """The client gets its response; the error is logged once with its traceback and counted each time."""

    class BrokenError(Exception):
        """A kind of error that no other test has, since each is logged once in a registry."""

    class Breaking(BaseRequestMonitor):
        def update_init_metrics(self):
            if where == "begin":
                raise BrokenError

        def update_end_metrics(self):
            assert where == "end", "must not be called"
            raise BrokenError

    middleware = hrprometheus_middleware(Breaking)
    app = web.Application(middlewares=[middleware])
    app.router.add_get("/ok", ok)
    client = await aiohttp_client(app)
    before = _errors(where)
    with caplog.at_level(logging.ERROR, logger="hr_prometheus"):
        for _ in range(3):
            assert (await client.get("/ok")).status == 200
        await until(lambda: _errors(where) == before + 3)
    (record,) = [record for record in caplog.records if record.name == "hr_prometheus"]
    assert record.exc_info is not None


def _errors(where) -> float:
    from prometheus_client import REGISTRY  # a custom monitor's errors are counted globally

    return REGISTRY.get_sample_value("hr_prometheus_errors_total", {"where": where}) or 0.0


async def test_labels_that_fail_hurt_nobody(aiohttp_client, registry, monkeypatch):
    """A bug in our own labels is counted too, and the request goes on."""
    app = application(registry)
    recorder = app.middlewares[0].hr_prometheus_recorder
    monkeypatch.setattr(recorder.labels, "record_of", Mock(side_effect=LookupError))
    client = await aiohttp_client(app)
    assert (await client.get("/ok")).status == 200
    assert registry.get_sample_value("hr_prometheus_errors_total", {"where": "labels"}) == 1


async def test_a_taken_name_of_our_own_errors_hurts_nobody(aiohttp_client, registry):
    """If the application has a metric called as our count of errors, there is none, and no error either."""
    Counter("hr_prometheus_errors", "The application's", registry=registry)
    app = application(registry, web.get("/a/{x}", ok), path_budget=0)
    client = await aiohttp_client(app)
    assert (await client.get("/a/1")).status == 200
    await until(ended(registry))


async def test_folded_requests_are_counted(aiohttp_client, registry):
    """A request under its route's template is counted with the template."""
    client = await aiohttp_client(application(registry, web.get("/a/{x}", ok), path_budget=1))
    for number in range(3):
        await client.get(f"/a/{number}")
    await until(ended(registry, 3))
    assert counts(scrape(registry)) == {("GET", "/a/0", "200"): 1, ("GET", "/a/{x}", "200"): 2}
    assert registry.get_sample_value("hr_prometheus_folded_requests_total", {"route": "/a/{x}"}) == 2


async def test_a_wrong_route_name_is_said(aiohttp_client, registry, caplog):
    """A name that no route has is reported once, at the first request, with what there is."""
    app = application(registry, fixed_routes_parameters={"nobody": ["x"]})
    client = await aiohttp_client(app)
    for _ in range(2):
        assert (await client.get("/ok")).status == 200
    (record,) = [record for record in caplog.records if record.name == "hr_prometheus"]
    assert 'the application has no route named "nobody"' in record.message


@pytest.mark.parametrize("spelling", ["fixed_routes_parameters", "fixed_routes_parameter"])
async def test_both_spellings_of_fixed_parameters(aiohttp_client, registry, spelling):
    """The published manual spells the keyword in two ways."""
    app = web.Application(middlewares=[hrprometheus_middleware(registry=registry, **{spelling: {"cell": ["id"]}})])
    app.router.add_get("/cell/{id}/{direction}", ok, name="cell")
    client = await aiohttp_client(app)
    await client.get("/cell/1948/north")
    await client.get("/cell/874/north")
    await until(ended(registry, 2))
    assert counts(scrape(registry)) == {("GET", "/cell/{id}/north", "200"): 2}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"fixed_routes_parameters": ["cell"]}, "Expected a mapping"),
        ({"fixed_routes_parameter": {"cell": 16}}, "Expected a list"),
        ({"fixed_routes_parameter": {"a": ["b"]}, "fixed_routes_parameters": {"a": ["b"]}}, "Give one"),
        ({"fixed_route_parameters": {}}, "unexpected keyword argument"),
        ({"request_monitor": "RequestMonitor"}, "inherits BaseRequestMonitor"),
        ({"request_monitor": BaseRequestMonitor, "buckets": (1, 2)}, "unexpected keyword argument"),
        ({"buckets": [2, 1]}, r"buckets=\[2, 1\]: invalid buckets"),
        ({"buckets": "fast"}, "buckets='fast': invalid buckets"),
        ({"buckets": 5}, "buckets=5: invalid buckets"),
        ({"metric_prefix": 5}, "metric_prefix=5 cannot begin"),
        ({"path_budget": "5"}, "Expected a whole number"),
        ({"path_budget": -1}, "Expected a whole number"),
        ({"exclude": "/health"}, "Expected a list of patterns"),
        ({"exclude": [1]}, "Expected a list of patterns"),
        ({"exclude_methods": "OPTIONS"}, "exclude_methods='OPTIONS' is not understood. Expected methods in capitals"),
        (
            {"exclude_methods": ["options"]},
            r"exclude_methods=\['options'\] is not understood. Expected methods in capitals",
        ),
        ({"exclude_methods": [1]}, r"exclude_methods=\[1\] is not understood. Expected methods in capitals"),
        ({"allow_values": {"cell": {"id": [1]}}}, "Expected a mapping"),
        ({"fixed_routes_parameters": {1: ["x"]}}, "Expected a list"),
        ({"registry": 3}, "registry is 3. Expected a prometheus_client.CollectorRegistry"),
        ({"registry": None}, "registry is None. Expected a prometheus_client.CollectorRegistry"),
        ({"detail": 3}, "Expected one of "),
        ({"detail": "fulll"}, 'detail="fulll": unknown detail level. Did you mean "full"'),
    ],
)
def test_wrong_arguments_are_refused_when_the_middleware_is_made(arguments, words):
    """Nothing is left to fail at the first request."""
    with pytest.raises(ValueError, match=words):
        hrprometheus_middleware(**arguments)
    with pytest.raises(ConfigurationError):
        hrprometheus_middleware(**arguments)


async def test_what_a_custom_monitor_is_told(aiohttp_client):
    """A monitor knows the request, the response that was sent, the times and the sizes; each half runs once."""
    told = []

    class Told(BaseRequestMonitor):
        def update_init_metrics(self):
            told.append(("begin", self.request.path))

        def update_end_metrics(self):
            told.append(self)

    async def echo(request):
        return web.Response(body=await request.read() * 2)

    app = web.Application(middlewares=[hrprometheus_middleware(Told)])
    app.router.add_post("/echo", echo)
    client = await aiohttp_client(app)
    await client.post("/echo", data=b"12345")
    await until(lambda: len(told) == 2)
    assert told[0] == ("begin", "/echo")
    monitor = told[1]
    assert monitor.response_status == monitor.response.status == 200
    assert 0 < monitor.first_byte_elapsed <= monitor.elapsed < DEADLINE
    assert (monitor.request_size, monitor.response_size) == (5, 10)


async def test_a_custom_monitor_declares_what_it_is_told(aiohttp_client):
    """In its class, in a slot, or when it is made: at the end it is told all the same, also of a response to HEAD."""
    told = []

    class Declared(BaseRequestMonitor):
        __slots__ = ("response_size",)
        init_metrics = False  # the argument is what counts
        elapsed = 0.0

        def __init__(self, request):
            super().__init__(request)
            self.response = None

        def update_init_metrics(self):
            told.append(self.init_metrics)

        def update_end_metrics(self):
            told.append((self.response.status, self.elapsed > 0, self.response_size))

    async def hello(_request):
        return web.Response(text="hello")

    app = web.Application(middlewares=[hrprometheus_middleware(Declared)])
    app.router.add_get("/hello", hello)
    client = await aiohttp_client(app)
    await client.get("/hello")
    await client.head("/hello")
    await until(lambda: len(told) == 4)
    assert told == [True, (200, True, 5), True, (200, True, 0)]


class Telling(BaseRequestMonitor):
    """A monitor that tells which of its methods are called."""

    told: list[str]

    def update_init_metrics(self):
        self.told.append("begin")

    def update_end_metrics(self):
        self.told.append(f"end {self.response_status}")


def _telling(name):
    """Return a method that tells its name, and does what it would without."""

    def method(self, *args, **arguments):
        Telling.told.append(name)
        return getattr(BaseRequestMonitor, name)(self, *args, **arguments)

    return method


def _new(cls, _request, **_arguments):
    Telling.told.append("__new__")
    return object.__new__(cls)


@pytest.mark.parametrize(
    ("own", "arguments", "expected"),
    [
        ({}, {}, ["begin", "end 200"]),
        ({"__init__": _telling("__init__")}, {}, ["__init__", "begin", "end 200"]),
        ({"__new__": _new}, {}, ["__new__", "begin", "end 200"]),
        ({"__enter__": _telling("__enter__")}, {}, ["__enter__", "begin", "end 200"]),
        ({"observe": _telling("observe")}, {}, ["begin", "observe", "end 200"]),
        ({"__exit__": _telling("__exit__")}, {}, ["begin", "__exit__", "end 200"]),
        # An argument has the last word, and its default is that both halves are on.
        ({"init_metrics": False}, {}, ["begin", "end 200"]),
        ({"end_metrics": False}, {}, ["begin", "end 200"]),
        ({}, {"init_metrics": False}, ["end 200"]),
        ({}, {"end_metrics": False}, ["begin"]),
        ({}, {"fixed_routes_parameters": {"*": ["x"]}}, ["begin", "end 200"]),
    ],
)
async def test_what_a_custom_monitor_overrides_is_called(aiohttp_client, monkeypatch, own, arguments, expected):
    """Each method once a request, whatever else the class has of its own."""
    monkeypatch.setattr(Telling, "told", [], raising=False)
    app = web.Application(middlewares=[hrprometheus_middleware(type("Own", (Telling,), own), **arguments)])
    app.router.add_get("/", ok)
    client = await aiohttp_client(app)
    for _ in range(2):
        await client.get("/")
    assert Telling.told == expected * 2


async def test_a_custom_monitor_and_a_client_that_left(aiohttp_client):
    """Its status is 499, and there is no response that was sent."""
    told = []

    class Told(BaseRequestMonitor):
        def update_init_metrics(self):
            pass

        def update_end_metrics(self):
            told.append((self.response_status, self.response_size, self.first_byte_elapsed))

    async def leave(request):
        request.transport.abort()
        await asyncio.sleep(0)
        return web.Response(text="too late")

    app = web.Application(middlewares=[hrprometheus_middleware(Told)])
    app.router.add_get("/", leave)
    client = await aiohttp_client(app)
    with pytest.raises(ClientError):
        await client.get("/")
    await until(lambda: told)
    assert told == [(499, 0, None)]


@pytest.mark.parametrize("detail", ["basic", "full"])
async def test_the_levels_of_detail(aiohttp_client, registry, detail):
    """Basic adds no series to those of 0.2.0; full has first byte and sizes; a subclass has them too."""

    class Mine(RequestMonitor):
        pass

    app = web.Application(
        middlewares=[
            hrprometheus_middleware(registry=registry, detail=detail),
            hrprometheus_middleware(Mine, registry=registry, detail=detail, metric_prefix="mine_"),
        ]
    )
    app.router.add_get("/ok", ok)
    client = await aiohttp_client(app)
    await client.get("/ok")
    await until(ended(registry))
    found = samples(scrape(registry))
    names = {key.partition("{")[0] for key in found if not key.startswith("mine_")}
    basic = {f"request_latency{suffix}" for suffix in ("_bucket", "_count", "_sum")}
    basic |= {"request_count_total", "requests_in_progress"}
    assert (names == basic) is (detail == "basic")
    if detail == "full":
        assert found['response_size_bytes_sum{method="GET",path="/ok"}'] == 2
        assert found['mine_response_size_bytes_sum{method="GET",path="/ok"}'] == 2
        assert found['mine_request_size_bytes_count{method="GET",path="/ok"}'] == 1
    assert found['mine_request_latency_count{method="GET",path="/ok"}'] == 1


class WithOwnArguments(BaseRequestMonitor):
    seen: list

    def __init__(self, request, seen, fixed_routes_parameters=None):
        super().__init__(request)
        seen.append((self.request_description, fixed_routes_parameters))

    def update_init_metrics(self):
        pass

    def update_end_metrics(self):
        pass


@pytest.mark.parametrize("wrap", [lambda kind: kind, partial])
async def test_arguments_are_handed_to_the_monitor(aiohttp_client, wrap):
    """A class, or whatever makes monitors, gets the arguments; its labels are there inside its __init__."""
    seen = []
    fixed = {"cell": ["id"]}
    middleware = hrprometheus_middleware(wrap(WithOwnArguments), seen=seen, fixed_routes_parameters=fixed)
    app = web.Application(middlewares=[middleware])
    app.router.add_get("/cell/{id}", ok, name="cell")
    client = await aiohttp_client(app)
    await client.get("/cell/1")
    label = "/cell/{id}" if wrap is not partial else "/cell/1"  # only a class can be prepared
    assert seen == [(("GET", label), fixed)]


async def test_a_direct_call_ends_once(registry):
    """A unit test that awaits the middleware itself, with a stand-in request, sees one whole life."""
    middleware = hrprometheus_middleware(registry=registry)
    request = Mock(method="GET", path="/path")

    async def handler(_request):
        assert registry.get_sample_value("requests_in_progress", {"method": "GET", "path": "/path"}) == 1
        return Mock(status=201)

    await middleware(request, handler)
    assert counts(scrape(registry)) == {("GET", "/path", "201"): 1}
    for error, status in [(web.HTTPFound("/"), "302"), (RuntimeError(), "500"), (asyncio.CancelledError(), "499")]:
        with pytest.raises(type(error)):
            await middleware(request, Mock(side_effect=error))
        assert counts(scrape(registry))["GET", "/path", status] == 1
    assert registry.get_sample_value("requests_in_progress", {"method": "GET", "path": "/path"}) == 0


async def test_a_direct_call_that_returns_no_response(registry):
    """What is no response is left alone and recorded as what aiohttp would make of it."""

    async def handler(_request):
        return None

    middleware = hrprometheus_middleware(registry=registry)
    assert await middleware(Mock(method="GET", path="/path"), handler) is None
    assert counts(scrape(registry)) == {("GET", "/path", "500"): 1}


async def test_the_default_monitor_with_a_half_switched_off(aiohttp_client, registry):
    """init_metrics=False leaves the gauge alone, as a monitor object would."""
    client = await aiohttp_client(application(registry, init_metrics=False))
    await client.get("/ok")
    await until(ended(registry))
    assert registry.get_sample_value("requests_in_progress", {"method": "GET", "path": "/ok"}) == 0


async def test_all_requests_of_a_connection_have_one_task(aiohttp_client):
    """That the task of a request is aiohttp's for its connection is what the end of an incomplete response is seen by."""
    tasks = []

    async def handler(request):
        tasks.append(request.task)
        return web.Response()

    app = web.Application()
    app.router.add_get("/", handler)
    client = await aiohttp_client(app)
    for _ in range(3):
        await client.get("/")
    assert len(set(tasks)) == 1
    assert isinstance(tasks[0], asyncio.Task)
    assert tasks[0] is not asyncio.current_task()


async def test_the_middleware_names_its_handler_as_aiohttp_wants(registry):
    """Aiohttp passes the handler by name."""
    assert hrprometheus_middleware(registry=registry).__code__.co_varnames[:2] == ("request", "handler")
    assert issubclass(RequestMonitor, BaseRequestMonitor)


async def test_a_handler_that_raises_at_once_is_called_once(aiohttp_client, registry):
    """A handler or middleware that is no coroutine may raise when it is called; that is no error of ours."""
    called = []

    @web.middleware
    def refuse(_request, handler):
        called.append(handler)
        raise web.HTTPForbidden

    app = web.Application(middlewares=[hrprometheus_middleware(registry=registry), refuse])
    app.router.add_get("/", ok)
    client = await aiohttp_client(app)
    assert (await client.get("/")).status == 403
    await until(ended(registry))
    assert len(called) == 1
    assert counts(scrape(registry)) == {("GET", "/", "403"): 1}
    assert registry.get_sample_value("hr_prometheus_errors_total", {"where": "begin"}) is None


@web.middleware
async def cors(request, handler):
    """Answer preflights, as middlewares for CORS do."""
    if request.method == "OPTIONS":
        return web.Response(headers={"Access-Control-Allow-Origin": "*"})
    return await handler(request)


async def test_a_preflight_that_a_middleware_answers(aiohttp_client, registry):
    """It is counted with the route that it asks about; an OPTIONS that is none stays unmatched."""
    app = application(registry, web.put("/reports/{id}", ok), middlewares=[cors])
    client = await aiohttp_client(app)
    for path in ("/reports/1", "/reports/2"):
        await client.options(path, headers={"Access-Control-Request-Method": "PUT", "Origin": "http://a.example"})
    await client.options("/reports/3")
    await until(ended(registry, 3))
    assert counts(scrape(registry)) == {("OPTIONS", "/reports/{id}", "200"): 2, ("OPTIONS", "unmatched", "200"): 1}


@pytest.mark.parametrize("patterns", [["/okay"], ["/okay", "/ok", "/cell/1", "unmatched", "/*"]])
async def test_a_pattern_that_leaves_nothing_out_is_warned_of(aiohttp_client, registry, caplog, patterns):
    """Once, at the first request: the pattern matches no label of any route."""
    app = application(registry, web.get("/cell/{id}", ok), exclude=patterns)
    client = await aiohttp_client(app)
    for _ in range(2):
        assert (await client.get("/ok")).status == 200
    assert caplog.messages == [
        'exclude: the pattern "/okay" matches no path label, so it leaves nothing out. Did you mean "/ok"?'
    ]


async def test_exclude_with_resources_of_the_applications_own(aiohttp_client, registry):
    """Whatever they are, the requests are answered and counted."""

    class Odd(PlainResource):
        canonical = property(lambda _self: 1 / 0)

    app = application(registry, exclude=["/x"])
    client = await aiohttp_client(app)
    app.router.resources()._resources.append(Odd("/odd"))
    assert (await client.get("/ok")).status == 200
    await until(ended(registry))
    assert counts(scrape(registry)) == {("GET", "/ok", "200"): 1}


@pytest.mark.parametrize("path", ["/v", "/v/{number}"])
async def test_a_method_that_a_class_based_view_lacks(registry, path):
    """Its 405 is unmatched, as every other one; the view's own methods have its path."""

    class View(web.View):
        async def get(self):
            return web.Response()

    app = full(registry)
    app.router.add_view(path, View)
    asked = path.format(number=1)
    async with TestClient(TestServer(app)) as client:
        for method in ("DELETE", "GET", "DELETE", "OPTIONS"):
            await client.request(method, asked)
        assert await counted(registry) == {
            ("GET", asked, "200"): 1,
            ("DELETE", "unmatched", "405"): 2,
            ("OPTIONS", "unmatched", "405"): 1,
        }
