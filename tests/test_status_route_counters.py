"""What is read from a scrape for the table of routes."""

from __future__ import annotations

import math

import hypothesis
import pytest
from conftest import count
from hypothesis import strategies
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics

from hr_prometheus.request.records import Records
from hr_prometheus.status.route_counters import (
    BUCKETS,
    REQUESTS,
    SAMPLE_NAMES,
    Route,
    find_prefix,
    is_exposition,
    read_routes,
)


def scrape(*routes: tuple[str, ...], render=generate_latest, **options) -> str:
    """Return the metrics of an application that has answered one request of each route."""
    registry = CollectorRegistry()
    records = Records(registry, **options)
    for route in routes:
        record = records.request(route)
        record.begin()
        count(record, 200, 0.02)
        record.measure(0.01, 1, 1)
    return render(registry).decode()


@hypothesis.given(path=strategies.text(strategies.characters(exclude_categories=["Cs"]), min_size=1))
def test_a_path_is_read_as_it_was(path):
    """Quotes, backslashes, braces and line feeds in a label change nothing."""
    (route,) = read_routes(scrape(("GET", path)), "")
    assert route == Route("GET", path)


@pytest.mark.parametrize("render", [generate_latest, generate_openmetrics])
def test_the_counters_of_a_route(render):
    """Requests are read by their status and latencies by their bounds, in either format."""
    routes = read_routes(scrape(("GET", "/"), ("PUT", "/x", "host", "a.example"), render=render), "")
    assert set(routes) == {Route("GET", "/"), Route("PUT", "/x", "a.example")}
    counters = routes[Route("GET", "/")].counters
    assert counters[REQUESTS, "200"] == 1
    assert (counters[BUCKETS, "0.01"], counters[BUCKETS, "0.025"], counters[BUCKETS, "+Inf"]) == (0, 1, 1)


def test_series_of_several_instances_are_added_up():
    """As a federation has them."""
    line = 'request_count_total{{method="GET",path="/",status="200",instance="{}"}} {}\n'
    routes = read_routes(line.format("a", 1) + line.format("b", "2 1700000000"), "")
    assert routes[Route("GET", "/")].counters == {(REQUESTS, "200"): 3.0}


def test_other_metrics_are_not_read():
    """Neither those with another prefix, nor those with other labels."""
    text = 'x_request_count_total{method="GET",path="/",status="200"} 1\nrequest_count_total{method="GET"} 1\n'
    assert read_routes(text, "") == {}


@pytest.mark.parametrize("prefix", ["", "app_", "a:b_"])
def test_the_prefix_is_that_of_the_latencies(prefix):
    """A histogram of that name with other labels has none."""
    other = 'http_request_latency_bucket{handler="x",le="+Inf"} 1\n'
    assert find_prefix(other + scrape(("GET", "/"), prefix=prefix)) == prefix
    assert find_prefix(other) is None


def test_the_names_are_those_of_the_metrics():
    """All that is asked for is there, where all is measured."""
    text = scrape(("GET", "/"), detail="full")
    assert [name for name in SAMPLE_NAMES if f"\n{name}{{" not in text] == []


def test_a_text_without_metrics():
    """Neither a page nor JSON is taken for metrics; a scrape without samples is one."""
    assert is_exposition(scrape(("GET", "/")))
    assert is_exposition("python_gc_total 3\n")
    assert is_exposition("x NaN\n")
    assert is_exposition("")
    assert not is_exposition("<!doctype html>\n<title>x</title>\nsome 3 words\n")
    assert not is_exposition('{"status": "ok"}')


@pytest.mark.parametrize(
    "line",
    ['requests_in_progress{method="GET",path="/"} x\n', 'request_latency_bucket{method="GET",path="/",le="x"} 1\n'],
)
def test_what_is_no_number(line):
    """Neither a value nor a bound is taken for a zero."""
    with pytest.raises(ValueError, match="x"):
        read_routes(line, "")


def test_infinity_is_a_number():
    """So a counter may be anything that Prometheus knows."""
    routes = read_routes('requests_in_progress{method="GET",path="/"} +Inf\n', "")
    assert routes[Route("GET", "/")].in_progress == math.inf
