from __future__ import annotations

import re

import pytest
from aiohttp import web

from hr_prometheus import metrics
from hr_prometheus.observability.promql import Source, example, of_route
from hr_prometheus.observability.route_table import rows
from hr_prometheus.settings import Settings


async def handler(_request):
    return web.Response()


@pytest.fixture
def table(tmp_path):
    """The route table of an application with odd routes."""
    app = web.Application()
    app.router.add_get("/{tail:.*}", handler, name="rest", allow_head=False)
    app.router.add_get("/cells/{cell}", handler, name="cell", allow_head=False)
    app.router.add_get("/cells/first", handler, name="first", allow_head=False)
    app.router.add_put("/cells/last", handler, name="last")
    app.router.add_get(r"/num/{n:\d+}/{side}", handler, name="side", allow_head=False)
    app.router.add_get("/a.b|c (d)/%22%5C%22", handler, name="odd", allow_head=False)
    app.router.add_route("*", "/any/<x>", handler, name="any")
    app.router.add_static("/static", tmp_path, name="static")
    below = web.Application()
    below.router.add_get("/{user}", handler, name="user", allow_head=False)
    app.add_subapp("/users", below)
    settings = Settings(
        target="x",
        fixed_routes={"cell": frozenset({"cell"})},
        allow_values={"side": {"side": frozenset({"a.b", "c"})}},
    )
    return rows(app, settings)


@pytest.mark.parametrize(
    ("name", "matchers"),
    [
        ("cell", ['path="/cells/{cell}"', 'method=~"GET"']),
        ("side", [r'path=~"/num/.*/(a\\.b|c|other|\\{side\\})"', 'method=~"GET"']),
        ("odd", [r'path="/a.b|c (d)/\"\\\""', 'method=~"GET"']),
        ("any", ['path="/any/<x>"']),
        ("static", ['path="/static/{filename}"', 'method=~"GET|HEAD"']),
        ("user", ['path=~"/users/[^/]+"', 'method=~"GET"']),
        (
            "rest",
            [
                'path=~"/.*"',
                r'path!~"/cells/\\{cell\\}|/cells/first|/num/.*/(a\\.b|c|other|\\{side\\})|/a\\.b\\|c \\(d\\)/\"\\\\\"'
                r'|/any/<x>|/static/\\{filename\\}|/users/[^/]+"',
                'method=~"GET"',
            ],
        ),
    ],
)
def test_the_matchers_of_a_route(table, name, matchers):
    """Constant, fixed, allowed and kept labels, without those of routes which aiohttp asks before."""
    (row,) = [row for row in table if row.name == name]
    assert list(of_route(row, table)) == matchers


def test_an_example_is_matched_by_its_regex(table):
    """The template is a label that a folded request has."""
    assert example(table[0]) == "/{tail}"
    for row in table:
        assert re.fullmatch(row.regex, example(row))


def test_an_earlier_route_with_the_same_beginning_comes_first():
    """Of two patterns that aiohttp looks for in one place, the first one takes the request."""
    app = web.Application()
    app.router.add_get("/x/{a}.json", handler, name="json", allow_head=False)
    app.router.add_get("/x/{b}", handler, name="all", allow_head=False)
    app.router.add_get("/x/{c}.txt", handler, name="late", allow_head=False)
    found = {row.name: of_route(row, rows(app, Settings(target="x"))) for row in rows(app, Settings(target="x"))}
    assert found["json"] == (r'path=~"/x/[^/]+\\.json"', 'method=~"GET"')
    assert found["all"] == ('path=~"/x/[^/]+"', r'path!~"/x/[^/]+\\.json"', 'method=~"GET"')


def test_names():
    """The prefix is that of the request metrics; a counter's samples end in _total."""
    source = Source("app_", ('job="x"',))
    assert source.series(metrics.REQUEST_COUNT) == 'app_request_count_total{job="x"}'
    assert source.series(metrics.RESPONSE_SIZE, "_sum") == 'app_response_size_bytes_sum{job="x"}'
    assert source.series(metrics.ERRORS) == 'hr_prometheus_errors_total{job="x"}'


def test_the_level_of_detail():
    """With the basic level there are no sizes, and still the metrics of the instrument."""
    basic = Source(detail="basic")
    assert [metric for metric in metrics.METRICS if not basic.has(metric)] == list(metrics.FULL_METRICS)
    assert all(Source().has(metric) for metric in metrics.METRICS)
