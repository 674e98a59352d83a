from __future__ import annotations

import asyncio
import logging

import pytest
from aiohttp import web
from aiohttp.abc import AbstractMatchInfo, AbstractRouter
from conftest import DEADLINE, counts
from prometheus_client import REGISTRY

from hr_prometheus import hrprometheus_middleware, hrprometheus_view, instrument
from hr_prometheus.errors import ConfigurationError
from hr_prometheus.monitors import BaseRequestMonitor


async def ok(_request):
    return web.Response(text="ok")


def application(**arguments):
    app = web.Application(**arguments)
    app.router.add_get("/ok", ok)
    return app


async def scraped(client, path="/metrics") -> str:
    response = await client.get(path)
    assert response.status == 200
    return await response.text()


async def test_an_application_gets_middleware_and_route(aiohttp_client, registry):
    """One call does what the command does, and returns the application."""
    app = application()
    assert instrument(app, registry=registry) is app
    client = await aiohttp_client(app)
    await client.get("/ok")
    assert counts(await scraped(client)) == {("GET", "/ok", "200"): 1}


async def test_the_middleware_is_the_outermost(aiohttp_client, registry):
    """What the application's own middlewares raise is seen."""

    @web.middleware
    async def deny(request, handler):
        raise web.HTTPForbidden if request.path == "/ok" else web.HTTPNotFound

    app = instrument(application(middlewares=(deny,)), registry=registry, metrics_path=None)
    client = await aiohttp_client(app)
    await client.get("/ok")
    await client.get("/ok")
    assert registry.get_sample_value("request_count_total", {"method": "GET", "path": "/ok", "status": "403"}) >= 1


async def test_options_reach_their_place(aiohttp_client, registry):
    """Each option does what the middleware's does."""
    app = application()
    app.router.add_get("/cell/{id}/{side}", ok, name="cell")
    instrument(
        app,
        registry=registry,
        metrics_path="/internal/metrics",
        fixed_routes_parameters={"cell": ["id"]},
        path_budget=1,
        buckets=(0.5, 1),
        metric_prefix="my_",
        keep_values="all",
        exclude=["/ok"],
    )
    client = await aiohttp_client(app)
    for path in ("/ok", "/cell/1/no@th", "/cell/2/no@th", "/cell/1/south"):
        await client.get(path)
    text = await scraped(client, "/internal/metrics")
    assert 'my_request_count_total{method="GET",path="/cell/{id}/no@th",status="200"} 2.0' in text
    assert 'my_request_count_total{method="GET",path="/cell/{id}/{side}",status="200"} 1.0' in text
    assert 'my_request_latency_bucket{le="0.5",' in text
    assert 'le="0.005"' not in text
    assert 'path="/ok"' not in text


async def test_a_monitor_of_ones_own(aiohttp_client, registry):
    """With request_monitor the default metrics are not made."""
    seen = []

    class Seen(BaseRequestMonitor):
        def update_init_metrics(self):
            pass

        def update_end_metrics(self):
            seen.append((*self.request_description, self.response_status))

    client = await aiohttp_client(instrument(application(), registry=registry, request_monitor=Seen))
    await client.get("/ok")
    assert "request_count" not in await scraped(client)
    assert seen[0] == ("GET", "/ok", 200)


async def test_a_wrong_route_is_found_at_start_up(registry):
    """The names are checked when all routes are there."""
    app = application()
    app.add_subapp("/below", application())
    instrument(app, registry=registry, fixed_routes_parameters={"ok": ["x"]})
    runner = web.AppRunner(app)
    with pytest.raises(ConfigurationError, match='no route named "ok"'):
        await runner.setup()
    await runner.cleanup()


@pytest.mark.parametrize("is_late", [False, True])
@pytest.mark.parametrize("name", ["added", "adde"])
async def test_a_route_that_the_start_up_adds(registry, caplog, name, is_late):
    """It may be named, whenever its handler was added; a wrong name is only a warning then."""

    async def add_route(app):
        app.router.add_get("/added/{x}", ok, name="added")

    app = application()
    if not is_late:
        app.on_startup.append(add_route)
    instrument(app, registry=registry, fixed_routes_parameters={name: ["x"]})
    if is_late:
        app.on_startup.append(add_route)
    runner = web.AppRunner(app)
    await runner.setup()
    await asyncio.sleep(0)  # the names are checked in the next turn of the loop
    assert caplog.text.count('no route named "adde". Did you mean "added"?') == (name == "adde")
    await runner.cleanup()


@pytest.mark.parametrize("when", ["now", "in the start-up"])
async def test_middlewares_that_are_replaced(aiohttp_client, registry, when):
    """Ours is put back when the application starts."""

    async def replace(app):
        app.middlewares[:] = []

    app = application()
    if when != "now":
        app.on_startup.append(replace)
    instrument(app, registry=registry)
    if when == "now":
        await replace(app)
    client = await aiohttp_client(app)
    await client.get("/ok")
    assert ("GET", "/ok", "200") in counts(await scraped(client))


async def test_middlewares_that_are_replaced_too_late(aiohttp_client, registry, caplog):
    """By a start-up handler that was added after instrument(): one warning, as soon as the application is frozen."""

    async def replace(app):
        await asyncio.sleep(0)  # so that the application is not yet frozen when it is looked at first
        app.middlewares[:] = []

    app = instrument(application(), registry=registry)
    app.on_startup.append(replace)
    client = await aiohttp_client(app)
    end = asyncio.get_running_loop().time() + DEADLINE
    while "replaced its middlewares" not in caplog.text:
        assert asyncio.get_running_loop().time() < end
        assert (await client.get("/ok")).status == 200
    assert caplog.text.count("replaced its middlewares") == 1


async def test_routes_may_come_later(registry):
    """An application can be instrumented before its routes are added."""
    app = instrument(web.Application(), registry=registry, fixed_routes_parameters={"late": ["x"]})
    app.router.add_get("/late/{x}", ok, name="late")
    runner = web.AppRunner(app)
    await runner.setup()
    await runner.cleanup()


async def test_an_application_instrumented_by_hand(aiohttp_client, caplog):
    """It keeps its middleware and its route, and is counted once; options that cannot apply are named."""
    middleware = hrprometheus_middleware()
    app = application(middlewares=[middleware])
    app.router.add_get("/metrics", hrprometheus_view)
    with caplog.at_level(logging.INFO, logger="hr_prometheus"):
        instrument(app, path_budget=5)
    assert list(app.middlewares) == [middleware]
    assert "path_budget" in caplog.text
    labels = {"method": "GET", "path": "/ok", "status": "200"}
    before = REGISTRY.get_sample_value("request_count_total", labels) or 0
    client = await aiohttp_client(app)
    await client.get("/ok")
    assert f'path="/ok",status="200"}} {before + 1}' in await scraped(client)


async def test_by_hand_without_a_route(aiohttp_client):
    """An application with only the middleware gets the route."""
    app = instrument(application(middlewares=[hrprometheus_middleware()]))
    await scraped(await aiohttp_client(app))


def static_at_metrics(tmp_path):
    app = web.Application()
    app.router.add_static("/metrics", tmp_path)
    return app


def sub_application_at_metrics(_tmp_path):
    app = web.Application()
    app.add_subapp("/metrics", web.Application())
    return app


def route_at_metrics(_tmp_path):
    app = web.Application()
    app.router.add_get("/metrics", ok)
    return app


@pytest.mark.parametrize("make", [static_at_metrics, sub_application_at_metrics, route_at_metrics])
def test_a_taken_path_is_one_sentence(registry, tmp_path, make):
    """Whatever the application serves at the metrics path is named, with the argument that cures it."""
    app = make(tmp_path)
    with pytest.raises(ConfigurationError, match=r'serves "/metrics" itself .*: metrics_path="/hr-metrics"'):
        instrument(app, registry=registry)
    assert not app.middlewares


async def test_only_what_answers_a_get_takes_the_path(aiohttp_client, registry):
    """A POST to the same path, and a route for any path, leave room."""
    app = web.Application()
    app.router.add_post("/metrics", ok)
    app.router.add_get("/{anything}", ok)
    client = await aiohttp_client(instrument(app, registry=registry))
    assert (await client.post("/metrics")).status == 200
    assert "# HELP" in await scraped(client) or "# HELP" in await scraped(client)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"metrics_path": 5}, 'metrics_path="5" cannot be served'),
        ({"request_monitor": BaseRequestMonitor, "registry": 3}, "registry is 3. Expected a prometheus_client."),
    ],
)
def test_wrong_arguments_are_refused(arguments, words):
    """Nothing is left to fail at the first scrape."""
    with pytest.raises(ConfigurationError, match=words):
        instrument(web.Application(), **arguments)


async def test_a_frozen_application_is_refused(registry):
    """Nothing can be added to an application that runs."""
    runner = web.AppRunner(web.Application())
    await runner.setup()
    with pytest.raises(ConfigurationError, match="frozen"):
        instrument(runner.app, registry=registry)
    await runner.cleanup()


class OwnRouter(AbstractRouter):
    """A router that knows nothing but how to resolve, which is all that aiohttp asks of one."""

    def __init__(self):
        super().__init__()
        self.inner = web.UrlDispatcher()
        self.inner.add_get("/ok", ok)

    async def resolve(self, request):
        return await self.inner.resolve(request)


@pytest.mark.filterwarnings("ignore:router argument is deprecated")
async def test_a_router_of_the_applications_own(aiohttp_client, registry):
    """It is asked for nothing that it need not have; only a route cannot be given to it."""
    app = web.Application(router=OwnRouter())
    with pytest.raises(ConfigurationError, match="a router of its own.*: metrics_path=None"):
        instrument(app, registry=registry)
    client = await aiohttp_client(instrument(app, registry=registry, metrics_path=None))
    for _ in range(2):
        assert (await client.get("/ok")).status == 200
    labels = {"method": "GET", "path": "/ok", "status": "200"}
    assert registry.get_sample_value("request_count_total", labels) >= 1
    assert registry.get_sample_value("hr_prometheus_errors_total", {"where": "labels"}) is None


class Match(AbstractMatchInfo):
    """All that aiohttp asks of a match where there is no middleware; it can be given nothing more."""

    __slots__ = ("_apps",)
    handler = staticmethod(ok)
    http_exception = expect_handler = None

    def __init__(self):
        self._apps = ()

    @property
    def apps(self):
        return self._apps

    def add_app(self, app):
        self._apps = (app,)

    def freeze(self):
        pass

    def get_info(self):
        return {}


class MatchWithAttributes(Match):
    """One that can be given anything."""


class MatchWithApp(Match):
    """One that knows the application, but not how to change it."""

    @property
    def current_app(self):
        return self._apps[0]


@pytest.mark.filterwarnings("ignore:router argument is deprecated")
@pytest.mark.parametrize("match", [Match, MatchWithAttributes, MatchWithApp])
async def test_a_router_without_routes(aiohttp_client, registry, match):
    """Its requests are answered as without us, and recorded as unmatched."""

    class Router(AbstractRouter):
        async def resolve(self, _request):
            return match()

    app = web.Application(router=Router())
    client = await aiohttp_client(instrument(app, registry=registry, metrics_path=None))
    for _ in range(3):
        response = await client.get("/anything")
        assert (response.status, await response.text()) == (200, "ok")
    labels = {"method": "GET", "path": "unmatched", "status": "200"}
    assert registry.get_sample_value("request_count_total", labels) == 3
    assert registry.get_sample_value("hr_prometheus_errors_total", {"where": "labels"}) is None
