from __future__ import annotations

import gzip

import pytest
from aiohttp import web
from prometheus_client import Counter

from hr_prometheus.errors import ConfigurationError
from hr_prometheus.exposition.view import check_metrics_path, hrprometheus_view, is_view, make_view


@pytest.fixture
async def client(aiohttp_client, registry):
    """A client of an application with a metrics route and two metrics."""
    app = web.Application()
    Counter("apples", "Apples", registry=registry).inc(3)
    Counter("pears", "Pears", registry=registry).inc(4)
    app.router.add_get("/metrics", make_view(registry))
    app.router.add_route("*", "/any", make_view(registry))
    return await aiohttp_client(app, auto_decompress=False)


async def test_metrics_are_text_unless_something_else_is_preferred(client):
    """The metrics, as text, uncompressed unless asked."""
    response = await client.get("/metrics", headers={"Accept-Encoding": ""})
    text = await response.text()
    assert response.status == 200
    assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert "Content-Encoding" not in response.headers
    assert "apples_total 3.0" in text
    assert "pears_total 4.0" in text


async def test_openmetrics_is_served_when_it_is_preferred(client):
    """OpenMetrics when it is preferred."""
    response = await client.get("/metrics", headers={"Accept": "application/openmetrics-text;version=1.0.0"})
    assert response.headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")
    assert gzip.decompress(await response.read()).endswith(b"# EOF\n")


async def test_a_scrape_is_compressed_when_gzip_is_accepted(client):
    """The answer is compressed when gzip is accepted, whatever else is, and never deflate."""
    response = await client.get("/metrics", headers={"Accept-Encoding": "deflate, gzip"})
    assert response.headers["Content-Encoding"] == "gzip"
    assert b"apples_total 3.0" in gzip.decompress(await response.read())
    response = await client.get("/metrics", headers={"Accept-Encoding": "deflate, gzip;q=0"})
    assert "Content-Encoding" not in response.headers


async def test_a_scrape_can_be_restricted_to_names(client):
    """name[] selects samples, and can be repeated."""
    response = await client.get("/metrics?name[]=apples_total", headers={"Accept-Encoding": ""})
    assert "pears" not in await response.text()
    response = await client.get(
        "/metrics", params=[("name[]", "apples_total"), ("name[]", "pears_total")], headers={"Accept-Encoding": ""}
    )
    text = await response.text()
    assert "apples_total 3.0" in text
    assert "pears_total 4.0" in text


async def test_head_has_the_header_of_get(client):
    """HEAD has GET's header and no body."""
    response = await client.head("/metrics", headers={"Accept-Encoding": ""})
    assert response.status == 200
    assert int(response.headers["Content-Length"]) > 0
    assert await response.read() == b""


@pytest.mark.parametrize("path", ["/metrics", "/any"])
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
async def test_other_methods_are_refused(client, method, path):
    """Any other method is 405, on a route for GET and on a route for all."""
    response = await client.request(method, path)
    assert response.status == 405
    assert response.headers["Allow"] == "GET,HEAD"


def test_a_view_is_recognised():
    """Views differ from other handlers."""
    assert is_view(hrprometheus_view)
    assert not is_view(print)
    assert not is_view(web.Application)


@pytest.mark.parametrize("path", ["metrics", "", "/{metrics}"])
def test_a_path_that_no_route_can_have(path):
    """A metrics path begins with a slash and has no parameters."""
    with pytest.raises(ConfigurationError, match="cannot be served"):
        check_metrics_path(path)
