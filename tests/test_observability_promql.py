from __future__ import annotations

import re

import pytest
from aiohttp import web

from hr_prometheus import metrics
from hr_prometheus.buckets import LatencyBuckets
from hr_prometheus.observability.promql import ApplicationMetrics, example_label, route_matchers
from hr_prometheus.observability.route_table import rows_of
from hr_prometheus.settings import Settings


async def handler(_request):
    return web.Response()


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
    assert list(route_matchers(row, table)) == matchers


def test_an_example_is_matched_by_its_regex(table):
    """The template is a label that a folded request has."""
    assert example_label(table[0]) == "/{tail}"
    for row in table:
        assert re.fullmatch(row.regex, example_label(row))


def test_an_earlier_route_with_the_same_beginning_comes_first():
    """Of two patterns that aiohttp looks for in one place, the first one takes the request."""
    app = web.Application()
    app.router.add_get("/x/{a}.json", handler, name="json", allow_head=False)
    app.router.add_get("/x/{b}", handler, name="all", allow_head=False)
    app.router.add_get("/x/{c}.txt", handler, name="late", allow_head=False)
    matchers = {
        row.name: route_matchers(row, rows_of(app, Settings(target="x"))) for row in rows_of(app, Settings(target="x"))
    }
    assert matchers["json"] == (r'path=~"/x/[^/]+\\.json"', 'method=~"GET"')
    assert matchers["all"] == ('path=~"/x/[^/]+"', r'path!~"/x/[^/]+\\.json"', 'method=~"GET"')


def test_names():
    """The prefix is that of the request metrics; a counter's samples end in _total."""
    application = ApplicationMetrics("app_", ('job="x"',))
    assert application.selector(metrics.REQUEST_COUNT) == 'app_request_count_total{job="x"}'
    assert application.selector(metrics.RESPONSE_SIZE, "_sum") == 'app_response_size_bytes_sum{job="x"}'
    assert application.selector(metrics.ERRORS) == 'hr_prometheus_errors_total{job="x"}'


def test_the_level_of_detail():
    """With the basic level there are no sizes, and still the metrics of the instrument."""
    basic = ApplicationMetrics(detail="basic")
    assert [metric for metric in metrics.METRICS if not basic.has(metric)] == list(metrics.FULL_METRICS)
    assert all(ApplicationMetrics().has(metric) for metric in metrics.METRICS)


@pytest.mark.parametrize(
    ("names", "count", "by", "bucket", "sizes"),
    [
        ("seed", "app_request_count_total", "path, status", "app_request_latency_bucket", "app_response_size_bytes_sum"),
        ("http", "app_http_requests_total", "handler, status", "app_http_request_duration_seconds_bucket",
         "app_http_response_size_bytes_sum"),
        ("otel", "app_http_server_request_duration_seconds_count", "http_route, http_response_status_code",
         "app_http_server_request_duration_seconds_bucket", "app_response_size_bytes_sum"),
    ],
)  # fmt: skip
def test_names_of_others(names, count, by, bucket, sizes):
    """Metrics and labels have the names of their set; what the set has no name for keeps its own."""
    application = ApplicationMetrics("app_", ('job="x"', 'path=~"/a|/b"'), names=(names,))
    route = by.partition(",")[0]
    rate = application.rate(metrics.REQUEST_COUNT, "5m", ["path", "status"])
    assert rate == f'sum by ({by}) (rate({count}{{job="x",{route}=~"/a|/b"}}[5m]))'
    assert f'{bucket}{{job="x",{route}=~"/a|/b"}}' in application.quantile(0.5, metrics.REQUEST_LATENCY, "5m")
    kept = route if sizes.startswith("app_http") else "path"
    assert application.selector(metrics.RESPONSE_SIZE, "_sum") == f'{sizes}{{job="x",{kept}=~"/a|/b"}}'
    several = ApplicationMetrics(names=("otel", "http")).selector(metrics.RESPONSE_SIZE, "_sum")
    assert several == "http_response_size_bytes_sum{}"
    assert application.selector(metrics.LOOP_BLOCKED) == 'asyncio_event_loop_blocked_total{job="x",path=~"/a|/b"}'


@pytest.mark.parametrize(
    ("names", "matcher"),
    [("seed", 'outcome="ok"'), ("http", 'outcome="ok"'), ("otel", 'http_response_status_code!~"5.."')],
)
def test_latencies_without_errors(names, matcher):
    """They are told apart only if that is asked for."""
    latency = metrics.REQUEST_LATENCY
    assert matcher not in ApplicationMetrics(names=(names,)).outcome("ok").quantile(0.5, latency, "5m")
    assert matcher in ApplicationMetrics(names=(names,), latency_by_status=True).outcome("ok").quantile(
        0.5, latency, "5m"
    )


@pytest.mark.parametrize("names", ["seed", "otel"])
def test_native_histograms_need_no_buckets(names):
    """Quantiles, counts and sums are taken from the histogram itself, whatever classic bounds routes have."""
    buckets = LatencyBuckets({"*": [0.5, 1, 2], "report": [1, 2, 60]})
    application = ApplicationMetrics(names=(names,), native_histograms=True, buckets=buckets)
    latency, count = metrics.REQUEST_LATENCY, metrics.REQUEST_COUNT
    family, route = application.family(latency), application.label(latency, "path")
    assert application.route_labels == ("path",)
    assert application.quantile(0.5, latency, "5m", ["path"]) == (
        f"histogram_quantile(0.5, sum by ({route}) (rate({family}{{}}[5m])))"
    )
    sizes = application.selector(metrics.RESPONSE_SIZE)
    assert application.rate(metrics.RESPONSE_SIZE, "5m", suffix="_sum") == f"sum (histogram_sum(rate({sizes}[5m])))"
    assert (
        application.rate(count, "5m")
        == {
            "seed": "sum (rate(request_count_total{}[5m]))",
            "otel": f"sum (histogram_count(rate({family}{{}}[5m])))",
        }[names]
    )
    for metric in metrics.METRICS:
        assert metric.type != "histogram" or "_bucket" not in application.bucket_rate(metric, "5m")


def test_routes_with_bounds_of_their_own():
    """Together they have the bounds in common; each by itself has its own."""
    buckets = LatencyBuckets({"*": [0.5, 1, 2], "report": [1, 2, 60]})
    application, latency = ApplicationMetrics(buckets=buckets), metrics.REQUEST_LATENCY
    common = r'{le=~"1\\.0|2\\.0|\\+Inf"}'
    assert f"request_latency_bucket{common}" in application.quantile(0.5, latency, "5m")
    assert f"request_first_byte_latency_bucket{common}" in application.bucket_rate(
        metrics.REQUEST_FIRST_BYTE_LATENCY, "5m"
    )
    assert application.route_labels == ("host", "method", "path")
    assert common[1:-1] in application.quantile(0.5, latency, "5m", ["path"])  # methods may have different bounds
    assert ApplicationMetrics().route_labels == ("path",)
    for of_routes in (
        application.quantile(0.5, latency, "5m", application.route_labels),
        application.of_route('path="/report"').quantile(0.5, latency, "5m"),
        application.quantile(0.5, metrics.RESPONSE_SIZE, "5m"),
        ApplicationMetrics().quantile(0.5, latency, "5m"),
    ):
        assert "le=~" not in of_routes
