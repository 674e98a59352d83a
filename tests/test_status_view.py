from __future__ import annotations

import logging
from importlib.resources import files

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from conftest import counts
from prometheus_client import REGISTRY, Counter, generate_latest

from hr_prometheus import hrprometheus_middleware, hrprometheus_status_view, instrument
from hr_prometheus.exposition.view import make_view
from hr_prometheus.observability.route_table import rows_of
from hr_prometheus.server.access_log import QuietAccessLogger
from hr_prometheus.settings import Settings
from hr_prometheus.status.view import METRICS_PATH, TARGET, add_status_routes, make_status_view

logger = logging.getLogger("aiohttp.access")

POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; frame-ancestors 'none'"
#: The names by which the page asks for what it is made of, and what each begins with.
FILES = {
    "": "<!doctype html>",
    "?file=status.js": "/* The status page of hr-prometheus.",
    "?file=status.css": "/* The status page.",
    "?file=uPlot.iife.min.js": "/*! https://github.com/leeoniya/uPlot",
    "?file=uPlot.min.css": ".uplot",
    "?file=uPlot.LICENSE": "The MIT License (MIT)",
}


@pytest.fixture
async def client(aiohttp_client, registry):
    """A client of an instrumented application with the page at ``/-/status``."""
    app = instrument(web.Application(), registry=registry)
    app[TARGET], app[METRICS_PATH] = "shop:create_app", "/metrics"
    add_status_routes(app, "/-/status", make_status_view(make_view(registry), registry))

    async def fails(_request):
        raise ValueError

    app.router.add_get("/fails", fails)
    return await aiohttp_client(app)


@pytest.mark.parametrize(("query", "beginning"), FILES.items())
async def test_the_files(client, query, beginning):
    """Each has the policy, its type, and a tag by which it is fetched once."""
    response = await client.get(f"/-/status{query}")
    assert response.status == 200
    assert (await response.text()).startswith(beginning)
    assert response.headers["Content-Security-Policy"] == POLICY
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["Cache-Control"] == "no-cache"
    again = await client.get(f"/-/status{query}", headers={"If-None-Match": response.headers["ETag"]})
    assert (again.status, await again.read()) == (304, b"")
    assert again.headers["ETag"] == response.headers["ETag"]
    assert again.headers["Content-Security-Policy"] == POLICY
    other = await client.get(f"/-/status{query}", headers={"If-None-Match": '"another"'})
    assert other.status == 200


async def test_the_types(client):
    """With nosniff a browser takes a script and a style sheet by their types only."""
    for query, kind in [("", "text/html"), ("?file=status.js", "text/javascript"), ("?file=status.css", "text/css")]:
        response = await client.get(f"/-/status{query}")
        assert response.headers["Content-Type"] == f"{kind}; charset=utf-8"


async def test_what_the_page_has_to_know_of_its_server(client):
    """The target, the version, and a link to the metrics that holds behind a prefix as well."""
    response = await client.get("/-/status?file=config.json")
    config = await response.json()
    assert config["target"] == "shop:create_app"
    assert config["metrics"] == "./../metrics"
    assert config["version"]
    assert response.headers["Cache-Control"] == "no-store"


async def test_the_data_are_a_scrape(client):
    """With names as on the metrics route, and with the page's headers."""
    await client.get("/nowhere")
    response = await client.get("/-/status?file=metrics&name[]=request_count_total")
    assert counts(await response.text()) == {("GET", "unmatched", "404"): 1}
    assert "request_latency" not in await response.text()
    assert response.headers["Content-Security-Policy"] == POLICY
    assert "request_latency" in await (await client.get("/-/status?file=metrics")).text()


async def test_recent_requests(client):
    """Those that have failed, the latest first, below the page's path as well as by query."""
    await client.get("/fails?secret=1")
    response = await client.get("/-/status/recent.json")
    (listed,) = await response.json()
    assert (listed["method"], listed["path"], listed["status"]) == ("GET", "/fails", "500")
    assert response.headers["Cache-Control"] == "no-store"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert await (await client.get("/-/status?file=recent.json")).json() == [listed]


async def test_its_requests_are_not_counted(client):
    """Neither the page's nor its polls'; so it shows the traffic of others only."""
    for query in ["", "?file=status.js", "?file=metrics", "?file=nothing", "/recent.json"]:
        await client.get(f"/-/status{query}")
    await client.head("/-/status")
    await client.post("/-/status")
    text = await (await client.get("/metrics")).text()
    assert counts(text) == {("POST", "unmatched", "405"): 1}
    assert "/-/status" not in text


async def test_what_it_does_not_have(client):
    """404 for another file, whatever it is called, and 405 for another method."""
    for name in ["nothing", "../view.py", "vendor/README.txt", "index.html/", "%00"]:
        assert (await client.get("/-/status", params={"file": name})).status == 404
    assert (await client.post("/-/status")).status == 405
    assert (await client.head("/-/status")).status == 200


async def test_the_public_view_shows_the_global_registry(aiohttp_client):
    """It is added to a router as hrprometheus_view is."""
    app = web.Application()
    app.router.add_get("/status", hrprometheus_status_view)
    apples = Counter("status_apples", "Apples")
    try:
        client = await aiohttp_client(app)
        response = await client.get("/status?file=metrics&name[]=status_apples_total")
        assert "status_apples_total 0.0" in await response.text()
        assert (await (await client.get("/status?file=config.json")).json())["target"] == ""
        assert isinstance(await (await client.get("/status?file=recent.json")).json(), list)
    finally:
        REGISTRY.unregister(apples)


async def test_it_is_in_no_access_log(aiohttp_client, caplog):
    """A page that asks each second would fill it."""
    caplog.set_level(logging.INFO)
    app = web.Application()
    app.router.add_get("/status", hrprometheus_status_view)
    server = TestServer(app)
    await server.start_server(access_log_class=QuietAccessLogger, access_log=logger)
    client = await aiohttp_client(server)
    await client.get("/status")
    await client.get("/other")
    lines = [record.getMessage() for record in caplog.records if record.name == logger.name]
    assert len(lines) == 1
    assert "GET /other" in lines[0]


async def test_it_makes_no_series(registry):
    """The table of routes does not reckon with it."""
    app = web.Application(middlewares=[hrprometheus_middleware(registry=registry)])
    app.router.add_get("/status", hrprometheus_status_view)
    assert [row.label for row in rows_of(app, Settings(target="x"))] == ["unmatched", "malformed"]
    assert b"status" not in generate_latest(registry).replace(b'status="', b"")


def test_the_chart_library_is_shipped_with_its_licence_and_version():
    """Its version is written beside it, and in the file itself."""
    vendor = files("hr_prometheus.status") / "static" / "vendor"
    version = (vendor / "README.txt").read_text().split()[1].rstrip(",")
    assert f"(v{version})" in (vendor / "uPlot.iife.min.js").read_text()[:100]
    assert "Permission is hereby granted" in (vendor / "uPlot.LICENSE").read_text()
