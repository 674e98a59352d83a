"""What is read from a scrape for the table of routes."""

from __future__ import annotations

import math

import hypothesis
import pytest
from conftest import count
from hypothesis import strategies
from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics

from hr_prometheus.names import DEFAULT_NAMING, NAME_SETS, Naming
from hr_prometheus.request.records import Records
from hr_prometheus.status.route_counters import (
    BUCKETS,
    BYTES_IN,
    BYTES_OUT,
    IN_PROGRESS,
    LOOP_SECONDS,
    REQUESTS,
    Route,
    find_naming,
    is_exposition,
    read_routes,
    samples_of,
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
    (route,) = read_routes(scrape(("GET", path)), DEFAULT_NAMING)
    assert route == Route("GET", path)


@pytest.mark.parametrize("render", [generate_latest, generate_openmetrics])
def test_the_counters_of_a_route(render):
    """Requests are read by their status and latencies by their bounds, in either format."""
    routes = read_routes(scrape(("GET", "/"), ("PUT", "/x", "host", "a.example"), render=render), DEFAULT_NAMING)
    assert set(routes) == {Route("GET", "/"), Route("PUT", "/x", "a.example")}
    counters = routes[Route("GET", "/")].counters
    assert counters[REQUESTS, "200"] == 1
    assert (counters[BUCKETS, "0.01"], counters[BUCKETS, "0.025"], counters[BUCKETS, "+Inf"]) == (0, 1, 1)


def test_series_of_several_instances_are_added_up():
    """As a federation has them."""
    line = 'request_count_total{{method="GET",path="/",status="200",instance="{}"}} {}\n'
    routes = read_routes(line.format("a", 1) + line.format("b", "2 1700000000"), DEFAULT_NAMING)
    assert routes[Route("GET", "/")].counters == {(REQUESTS, "200"): 3.0}


def test_other_metrics_are_not_read():
    """Neither those with another prefix, nor those with other labels."""
    text = 'x_request_count_total{method="GET",path="/",status="200"} 1\nrequest_count_total{method="GET"} 1\n'
    assert read_routes(text, DEFAULT_NAMING) == {}


@pytest.mark.parametrize("prefix", ["", "app_", "a:b_"])
@pytest.mark.parametrize("names", NAME_SETS)
def test_the_names_are_those_of_the_latencies(names, prefix):
    """A prefix is part of them. A histogram of that name with other labels has none."""
    other = "".join(
        f'http_{name}_bucket{{code="x",le="+Inf"}} 1\n'
        for name in ("request_latency", "request_duration_seconds", "server_request_duration_seconds")
    )
    assert find_naming(other + scrape(("GET", "/"), prefix=prefix, names=[names])) == Naming(prefix, (names,))
    assert find_naming(other) is None


def test_an_application_may_have_such_metrics_of_its_own():
    """Ours are those with our help text, whatever comes first."""
    own = Histogram("http_request_duration_seconds", "The application's", ["method", "handler"], registry=None)
    own.labels("GET", "api").observe(0.1)
    registry = CollectorRegistry()
    registry.register(own)
    theirs = generate_latest(registry).decode()
    assert find_naming(theirs + scrape(("GET", "/"), names=["otel"])) == Naming(sets=("otel",))
    assert find_naming(theirs) == Naming(sets=("http",))  # a proxy may leave out the help


def test_of_several_name_sets_one_is_read():
    """So nothing is counted twice."""
    text = scrape(("GET", "/"), prefix="app_", names=["otel", "http", "seed"])
    naming = find_naming(text)
    assert naming == Naming("app_", ("seed",))
    assert read_routes(text, naming)[Route("GET", "/")].counters[REQUESTS, "200"] == 1
    assert find_naming(scrape(("GET", "/"), names=["otel", "http"])) == Naming(sets=("http",))


@pytest.mark.parametrize("names", NAME_SETS)
def test_every_name_set_has_the_same_numbers(names):
    """Also those for which it has no name of its own."""
    naming = Naming("app_", (names,))
    text = scrape(("GET", "/"), ("PUT", "/x", "host", "a.example"), detail="full", prefix="app_", names=[names])
    routes = read_routes(text, naming)
    assert set(routes) == {Route("GET", "/"), Route("PUT", "/x", "a.example")}
    seed = scrape(("GET", "/"), ("PUT", "/x", "host", "a.example"), detail="full")
    assert routes == read_routes(seed, DEFAULT_NAMING)
    kinds = {name for name, _ in routes[Route("GET", "/")].counters}
    assert kinds | {IN_PROGRESS} == {REQUESTS, BUCKETS, IN_PROGRESS, LOOP_SECONDS, BYTES_IN, BYTES_OUT}


@pytest.mark.parametrize("names", NAME_SETS)
def test_latencies_that_are_told_apart_are_added_up(names):
    """Those of a route are of all its statuses, whatever labels tell them apart."""
    registry = CollectorRegistry()
    record = Records(registry, names=[names], latency_by_status=True).request(("GET", "/"))
    for status in (200, 200, 404, 503):
        count(record, status, 0.02)
    record.begin()
    (counted,) = read_routes(generate_latest(registry).decode(), Naming(sets=(names,))).values()
    statuses = {status: number for (name, status), number in counted.counters.items() if name == REQUESTS}
    assert {status: number for status, number in statuses.items() if number} == {"200": 2, "404": 1, "503": 1}
    assert (counted.counters[BUCKETS, "0.01"], counted.counters[BUCKETS, "0.025"]) == (0, 4)
    assert counted.in_progress == 1


def test_the_buckets_of_a_route_are_those_that_all_its_series_have():
    """As several instances may have different ones."""
    line = 'request_latency_bucket{{method="GET",path="/",instance="{}",le="{}"}} 1\n'
    text = "".join(line.format(*each) for each in [("a", "1"), ("a", "+Inf"), ("b", "1"), ("b", "5"), ("b", "+Inf")])
    (counted,) = read_routes(text, DEFAULT_NAMING).values()
    assert counted.counters == {(BUCKETS, "1"): 2, (BUCKETS, "+Inf"): 2}


@pytest.mark.parametrize("names", NAME_SETS)
def test_the_names_are_those_of_the_metrics(names):
    """All that is asked for is there, where all is measured."""
    text = scrape(("GET", "/"), detail="full", names=[names])
    assert [name for name in samples_of(Naming(sets=(names,))) if f"\n{name}{{" not in text] == []


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
        read_routes(line, DEFAULT_NAMING)


def test_infinity_is_a_number():
    """So a counter may be anything that Prometheus knows."""
    routes = read_routes('requests_in_progress{method="GET",path="/"} +Inf\n', DEFAULT_NAMING)
    assert routes[Route("GET", "/")].in_progress == math.inf
