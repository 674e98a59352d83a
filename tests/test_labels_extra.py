"""Extra labels of the request metrics: where their values come from, and that there are never more than the settings say."""

from __future__ import annotations

import asyncio
import os

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from conftest import samples, settled
from prometheus_client import CollectorRegistry, generate_latest

from hr_prometheus import ConfigurationError, Label, hrprometheus_middleware, instrument
from hr_prometheus.labels.extra import ExtraLabels
from hr_prometheus.monitors import BaseRequestMonitor
from hr_prometheus.observability.route_table import rows_of
from hr_prometheus.request.recorder import recorder_of
from hr_prometheus.settings import Settings


async def get_cell(_request: web.Request) -> web.Response:
    return web.Response(text="ok")


class Cells(web.View):
    async def get(self) -> web.Response:
        return web.Response(text="ok")


def application(registry: CollectorRegistry, **options: object) -> web.Application:
    """Make an instrumented application with a route, a view, and a handler that another one calls."""
    app = web.Application()
    app.router.add_get("/cells/{direction}", get_cell, name="get_cell")
    app.router.add_view("/cells", Cells)
    return instrument(app, registry=registry, fixed_routes_parameters={"*": ["*"]}, **options)


async def values_of(aiohttp_client, label: object, path: str = "/cells/north", **request: object) -> set[str]:
    """Return the values of an extra label after one request."""
    registry = CollectorRegistry()
    client = await aiohttp_client(application(registry, detail="basic", extra_labels={"extra": label}))
    async with client.get(path, **request) as response:
        assert await response.text() == "ok"
    await settled(registry)
    series = [sample for family in registry.collect() for sample in family.samples if "path" in sample.labels]
    assert {sample.name for sample in series} >= {"request_count_total", "request_latency_sum", "requests_in_progress"}
    return {sample.labels["extra"] for sample in series}


@pytest.mark.parametrize(
    ("source", "request_options", "value"),
    [
        ("handler", {}, f"{__name__}.get_cell"),
        ("handler", {"path": "/cells"}, f"{__name__}.Cells"),
        ("route", {}, "get_cell"),
        ("route", {"path": "/cells"}, "/cells"),
        ("const:shop", {}, "shop"),
        ("const:a:b=c", {}, "a:b=c"),
        ("env:VERSION", {}, "1.4"),
        ("env:NOT_SET", {}, "none"),
        ("env:UNDECODABLE", {}, "%FF"),
        ("header:X-Client=web,ios", {"headers": {"x-client": "ios"}}, "ios"),
        ("header:X-Client=web, ios", {"headers": {"x-client": "ios"}}, "ios"),
        ("header:X-Client=web,ios", {"headers": {"x-client": "iOS"}}, "other"),
        ("header:X-Client=web,ios", {}, "none"),
        ("query:kind=a,b", {"params": {"kind": "b"}}, "b"),
        ("query:kind=a,b", {"params": {"kind": ""}}, "other"),
        ("query:kind=a,b", {}, "none"),
        ("match:direction=north,south", {}, "north"),
        ("match:direction=south", {}, "other"),
        ("match:direction=south", {"path": "/cells"}, "none"),
        ("cookie:plan=free,paid", {"cookies": {"plan": "paid"}}, "paid"),
        ("cookie:plan=free,paid", {"cookies": {"plan": "x"}}, "other"),
        ("cookie:plan=free,paid", {}, "none"),
        ("host:a.example,b.example", {"headers": {"Host": "B.example:8080"}}, "b.example"),
        ("host:a.example,b.example", {"headers": {"Host": "c.example"}}, "other"),
        (Label(lambda request: request.path[1:6], ["cells"]), {}, "cells"),
        (Label(lambda request: request.path[:0] or None, ["cells"]), {}, "none"),
        (Label(lambda request: len(request.path), ["12"]), {}, "other"),
        (Label(lambda request: [request.path], ["12"]), {}, "other"),
        (Label(lambda request: request.there_is_no_such, ["12"]), {}, "other"),
        ("host:a.example:8080", {"headers": {"Host": "A.example:9090"}}, "a.example"),
    ],
)  # fmt: skip
async def test_where_a_value_comes_from(aiohttp_client, monkeypatch, source, request_options, value):
    """All metrics of a request have the value; one that is not in the list is other, and none at all is none."""
    monkeypatch.setenv("VERSION", "1.4")
    monkeypatch.delenv("NOT_SET", raising=False)
    monkeypatch.setitem(os.environb, b"UNDECODABLE", b"\xff")
    assert await values_of(aiohttp_client, source, **request_options) == {value}


@pytest.mark.parametrize("error", [ZeroDivisionError, asyncio.CancelledError, TimeoutError])
async def test_a_function_that_raises_is_counted(aiohttp_client, registry, error):
    """The client gets its answer, and the request is counted with other."""

    def tenant(_request: web.Request) -> str:
        raise error

    app = application(registry, extra_labels={"tenant": Label(tenant, ["a"])})
    client = await aiohttp_client(app)
    async with client.get("/cells") as response:
        assert response.status == 200
    await settled(registry)
    series = samples(generate_latest(registry).decode())
    assert series['request_count_total{method="GET",path="/cells",status="200",tenant="other"}'] == 1
    assert series['hr_prometheus_errors_total{where="label"}'] == 1


async def test_several_labels(aiohttp_client, registry):
    """Each is there, whether it is constant, of the route or of the request, on counters and histograms of all kinds."""
    extra = {"zone": "const:%s", "a": "handler", "client": "header:X-Client=web", "kind": "query:kind=a,b"}
    client = await aiohttp_client(application(registry, extra_labels=extra))
    for headers, kind in (
        ({}, "a"),
        ({"X-Client": "web"}, "a"),
        ({"X-Client": "web"}, "b"),
        ({"X-Client": "web"}, "b"),
    ):
        async with client.get("/cells", params={"kind": kind}, headers=headers) as response:
            assert response.status == 200
    async with client.get("/none") as response:
        assert response.status == 404
    await settled(registry)
    series = samples(generate_latest(registry).decode())
    for where, labels, number in (
        ("/cells", f'a="{__name__}.Cells",client="none",kind="a"', 1),
        ("/cells", f'a="{__name__}.Cells",client="web",kind="a"', 1),
        ("/cells", f'a="{__name__}.Cells",client="web",kind="b"', 2),
        ("unmatched", 'a="none",client="none",kind="none"', 1),
    ):
        for name in ("request_latency", "request_first_byte_latency", "response_size_bytes"):
            assert series[f'{name}_count{{{labels},method="GET",path="{where}",zone="%s"}}'] == number


def test_hostile_values_make_no_series(registry):
    """Fifty thousand values that are in no list share one series."""
    values = (f"{number}\0" for number in range(100_000))
    extra = {
        "tenant": Label(lambda _request: next(values), ["a"]),
        "client": Label(lambda _request: next(values), ["b"]),
    }
    recorder = recorder_of(hrprometheus_middleware(registry=registry, extra_labels=extra))
    request = make_mocked_request("GET", "/")
    for _ in range(50_000):
        record = recorder.lookup(request) or recorder.record_of(request)
        record.begin()
        record.finish("200", 0.1)
    counts = {key: value for key, value in samples(generate_latest(registry).decode()).items() if "_total" in key}
    assert counts == {'request_count_total{client="other",method="GET",path="/",status="200",tenant="other"}': 50_000}


async def test_a_host_of_ones_own_takes_the_place_of_the_domain(aiohttp_client, registry):
    """An application with domains has one label host, not two."""
    app, below = web.Application(), web.Application()
    below.router.add_get("/", get_cell)
    app.add_domain("*.example", below)
    instrument(app, registry=registry, extra_labels={"host": "host:a.example,b.example"})
    client = await aiohttp_client(app)
    for host in ("a.example", "c.example"):
        async with client.get("/", headers={"Host": host}) as response:
            assert response.status == 200
    await settled(registry)
    series = samples(generate_latest(registry).decode())
    for host in ("a.example", "other"):
        assert series[f'request_count_total{{host="{host}",method="GET",path="/",status="200"}}'] == 1


@pytest.mark.parametrize("paths", [["/cells", "/nowhere"], ["/nowhere", "/cells"]])
async def test_a_request_that_no_handler_gets(aiohttp_client, registry, paths):
    """It has no handler, whatever was asked for before: neither a 404 nor the 405 of a view."""
    client = await aiohttp_client(application(registry, extra_labels={"handler": "handler", "route": "route"}))
    for path, status in zip(paths * 2, [405 if path == "/cells" else 404 for path in paths] * 2, strict=True):
        async with client.post(path) as response:
            assert response.status == status
    await settled(registry)
    series = samples(generate_latest(registry).decode())
    for status in (404, 405):
        labels = f'handler="none",method="POST",path="unmatched",route="unmatched",status="{status}"'
        assert series[f"request_count_total{{{labels}}}"] == 2


async def test_a_preflight_has_the_route_that_it_asks_about(aiohttp_client, registry):
    """No handler of the route gets it."""
    client = await aiohttp_client(application(registry, extra_labels={"handler": "handler", "route": "route"}))
    headers = {"Origin": "http://a.example", "Access-Control-Request-Method": "GET"}
    async with client.options("/cells/north", headers=headers) as response:
        assert response.status == 405
    await settled(registry)
    labels = 'handler="none",method="OPTIONS",path="/cells/{direction}",route="get_cell",status="405"'
    assert samples(generate_latest(registry).decode())[f"request_count_total{{{labels}}}"] == 1


def test_a_request_without_a_host():
    """HTTP/1.0 needs none (RFC 9112, 3.2)."""
    label = ExtraLabels({"host": "host:a.example"}).varying["host"]
    value_of = label.reader(pytest.fail)
    assert value_of(make_mocked_request("GET", "/", headers={})) == "none"
    assert value_of(make_mocked_request("GET", "/", headers={"Host": "a.example"})) == "a.example"


def test_labels_without_a_list_cost_a_request_nothing(registry):
    """A request with constants, its handler and its route finds its record as one without extra labels does."""
    extra = {"team": "const:shop", "handler": "handler", "route": "route", "version": "env:VERSION"}
    recorder = recorder_of(hrprometheus_middleware(registry=registry, extra_labels=extra))
    assert recorder.lookup == recorder.labels.lookup


@pytest.mark.parametrize(
    ("labels", "sentence"),
    [
        ({"path": "const:x"}, "extra_labels={'path': 'const:x'}: the metrics have a label path already. Choose another name."),
        ({"le": "const:x"}, "extra_labels={'le': 'const:x'}: the metrics have a label le already. Choose another name."),
        ({"host": "const:x"}, "extra_labels={'host': 'const:x'}: the metrics have a label host already. Choose another name."),
        ({"9x": "handler"}, "extra_labels={'9x': 'handler'} cannot be the name of a label. Expected letters, digits and underscores, with no digit first."),
        ({"__x": "handler"}, "extra_labels={'__x': 'handler'} cannot be the name of a label. Expected letters, digits and underscores, with no digit first."),
        ({"x": "handlr"}, "extra_labels={'x': 'handlr'} is not understood. Did you mean \"handler\"? Expected handler, route, const:VALUE, env:VARIABLE, or header:X-Client=web,ios; query, match and cookie are like header, and host:a.example is a list alone."),
        ({"x": "const:"}, "extra_labels={'x': 'const:'} is not understood. Expected handler, route, const:VALUE, env:VARIABLE, or header:X-Client=web,ios; query, match and cookie are like header, and host:a.example is a list alone."),
        ({"x": "query:kind"}, "extra_labels={'x': 'query:kind'} has no list of values. Clients choose what they send, so the number of series would have no bound. Expected, for example, x=query:kind=web,ios."),
        ({"x": "cookie:plan=a,,b"}, "extra_labels={'x': 'cookie:plan=a,,b'} has no list of values. Clients choose what they send, so the number of series would have no bound. Expected, for example, x=cookie:plan=web,ios."),
        ({"x": "host:"}, "extra_labels={'x': 'host:'} has no list of values. Clients choose what they send, so the number of series would have no bound. Expected, for example, x=host:a.example,b.example."),
        ({"x": 1}, "extra_labels={'x': 1} is 1. Expected a source, for example const:shop, or a Label."),
        (["x"], "extra_labels is ['x']. Expected a mapping of names to sources, for example {\"team\": \"const:shop\"}."),
    ],
)  # fmt: skip
def test_labels_that_cannot_be(labels, sentence):
    """The error says what was given, what was expected and how to repair it."""
    with pytest.raises(ConfigurationError) as error:
        hrprometheus_middleware(registry=CollectorRegistry(), extra_labels=labels)
    assert str(error.value) == sentence


async def tenant(_request: web.Request) -> str:
    return "a"


@pytest.mark.parametrize(
    ("function", "allowed", "words"),
    [
        ("no function", ["a"], "Expected a function, not a coroutine"),
        (tenant, ["a"], "Expected a function, not a coroutine"),
        (str, [], "Expected a list of texts"),
        (str, "abc", "Expected a list of texts"),
        (str, [1], "Expected a list of texts"),
    ],
)
def test_a_label_that_cannot_be(function, allowed, words):
    """A function that gives no text, and a list that is none, are refused where they are written."""
    with pytest.raises(ConfigurationError, match=words):
        Label(function, allowed)


def test_a_monitor_of_ones_own_has_its_own_labels(registry):
    """Extra labels with a monitor that could not have them are refused."""
    with pytest.raises(ConfigurationError, match="A monitor of your own has its own labels"):
        hrprometheus_middleware(BaseRequestMonitor, extra_labels={"team": "const:shop"})


def test_the_route_table_multiplies_the_series(registry):
    """At worst each path label has each value of the list, other and none; the numbers are those of a real scrape."""
    app, settings = web.Application(), Settings(target="x", detail="basic")
    app.router.add_get("/", get_cell, allow_head=False)
    before = rows_of(app, settings)
    extra = {"client": "header:X-Client=web,ios", "team": "const:shop", "handler": "handler"}
    after = rows_of(app, Settings(target="x", detail="basic", extra_labels=extra))
    assert after[0].series == 4 * before[0].series
    assert after[0].bytes > 4 * before[0].bytes
    assert after[-1].series == before[-1].series  # what the parser refuses has no header
    own = instrument(app, registry=registry, metrics_path=None, detail="basic", extra_labels=extra)
    assert rows_of(own, settings) == after


def test_malformed_requests_have_the_constants():
    """A request that could not be read has what all requests have, and none of the rest."""
    extra = ExtraLabels({"team": "const:shop", "handler": "handler", "route": "route", "client": "header:X=a"})
    assert extra.without_request("malformed") == (
        "team", "shop", "handler", "none", "route", "malformed", "client", "none",
    )  # fmt: skip
