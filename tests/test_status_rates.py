"""What happened between two scrapes."""

from __future__ import annotations

from math import inf

import pytest

from hr_prometheus.status.rates import compare, histogram_quantile
from hr_prometheus.status.route_counters import BUCKETS, BYTES_OUT, LOOP_SECONDS, REQUESTS, Route, RouteCounters

ROUTE = Route("GET", "/")


def counted(in_progress: float = 0, buckets: dict[str, float] | None = None, **numbers: float) -> RouteCounters:
    """Return counters; ``status_200=3`` are three requests."""
    counters = {(REQUESTS, name.removeprefix("status_")): value for name, value in numbers.items()}
    counters |= {(BUCKETS, bound): value for bound, value in (buckets or {}).items()}
    return RouteCounters(counters, in_progress)


# Of Prometheus: promql/promqltest/testdata/histograms.test, testhistogram and testhistogram2.
POSITIVE = {0.1: 5, 0.2: 7, 1.0: 11, inf: 12}
NEGATIVE = {-0.2: 1, -0.1: 2, 0.3: 2, inf: 3}
MIDDLES = {0.0: 0, 2.0: 1, 4.0: 2, 6.0: 3, inf: 3}


@pytest.mark.parametrize(
    ("quantile", "buckets", "expected"),
    [
        (0.2, POSITIVE, 0.048), (0.5, POSITIVE, 0.15), (0.8, POSITIVE, 0.72), (1, POSITIVE, 1.0),
        (0.2, NEGATIVE, -0.2), (0.5, NEGATIVE, -0.15), (0.8, NEGATIVE, 0.3),
        (1 / 6, MIDDLES, 1), (0.5, MIDDLES, 3), (5 / 6, MIDDLES, 5),
    ],
)  # fmt: skip
def test_quantiles_are_those_of_prometheus(quantile, buckets, expected):
    """Its own tests give the same values."""
    assert histogram_quantile(quantile, buckets) == pytest.approx(expected)


@pytest.mark.parametrize("buckets", [{}, {inf: 3}, {0.1: 0, inf: 0}, {0.1: 3, 0.2: 3}])
def test_a_quantile_of_nothing(buckets):
    """Where Prometheus has NaN there is none."""
    assert histogram_quantile(0.5, buckets) is None


def test_a_bucket_that_was_read_too_early():
    """One that is lower than the bucket below it counts as that one, as in Prometheus."""
    assert histogram_quantile(0.9, {0.1: 5, 0.2: 4, 0.4: 10, inf: 10}) == pytest.approx(0.36)


def test_rates_are_by_class_of_status():
    """A 499 is no 4xx."""
    before = counted(status_200=10, status_404=1, status_499=0, status_503=2)
    after = counted(status_200=30, status_404=5, status_499=6, status_503=10, status_500=2, in_progress=7)
    (row,) = compare({ROUTE: before}, {ROUTE: after}, seconds=2).routes
    assert (row.requests, row.server_errors, row.client_errors, row.abandoned) == (20, 5, 2, 3)
    assert row.in_progress == 7


def test_a_route_that_is_new_began_at_zero():
    """So its first requests are seen."""
    comparison = compare({}, {ROUTE: counted(status_200=4)}, seconds=2)
    assert comparison.routes[0].requests == 2
    assert not comparison.is_reset


def test_a_counter_that_is_lower_was_reset():
    """All of its route are then counted from zero: no rate is negative, and no bucket keeps a part of what was before."""
    before = counted(status_200=100, buckets={"0.1": 2, "0.2": 100, "+Inf": 100})
    after = counted(status_200=4, status_500=2, buckets={"0.1": 3, "0.2": 6, "+Inf": 6})
    comparison = compare({ROUTE: before}, {ROUTE: after}, seconds=1)
    assert comparison.is_reset
    assert (comparison.total.requests, comparison.total.server_errors) == (6, 2)
    assert comparison.total.p50 == pytest.approx(0.1)


def test_a_route_that_is_gone_was_reset():
    """A server that was started again has served nothing of it yet."""
    assert compare({ROUTE: counted(status_200=4)}, {}, seconds=1).is_reset


def test_percentiles_are_of_the_requests_in_between():
    """What was before the first scrape is not in them; without a request there are none."""
    before = counted(buckets={"0.1": 1000, "0.2": 1000, "+Inf": 1000})
    after = counted(buckets={"0.1": 1000, "0.2": 1010, "+Inf": 1010})
    row = compare({ROUTE: before}, {ROUTE: after}, seconds=1).routes[0]
    assert (row.p50, row.p95, row.longest) == (pytest.approx(0.15), pytest.approx(0.195), 0.2)
    assert compare({ROUTE: after}, {ROUTE: after}, seconds=1).routes[0].p99 is None


def test_the_total_is_of_all_routes():
    """Its percentiles are of all requests, not means of percentiles."""
    quick = counted(status_200=99, buckets={"0.1": 99, "10.0": 99, "+Inf": 99}, in_progress=1)
    slow = counted(status_200=1, buckets={"0.1": 0, "10.0": 1, "+Inf": 1}, in_progress=2)
    total = compare({}, {ROUTE: quick, Route("GET", "/slow"): slow}, seconds=1).total
    assert (total.route, total.requests, total.in_progress) == (None, 100, 3)
    assert total.p99 == pytest.approx(0.1)


def test_percentiles_are_of_the_bounds_of_a_route():
    """Those of all routes together are of the bounds that all routes have, with which every sum is right."""
    quick = counted(status_200=99, buckets={"0.1": 99, "1.0": 99, "+Inf": 99})
    slow = counted(status_200=1, buckets={"1.0": 0, "30.0": 1, "+Inf": 1})
    idle = counted(in_progress=1)
    routes = {ROUTE: quick, Route("GET", "/slow"): slow, Route("GET", "/idle"): idle}
    comparison = compare({}, routes, seconds=1)
    assert [row.longest for row in comparison.routes] == [1, 30, inf]
    assert comparison.routes[1].p50 == pytest.approx(15.5)
    total = comparison.total
    assert (total.p50, total.p99, total.longest) == (pytest.approx(0.505, abs=0.001), 1.0, 1.0)


def test_percentiles_of_routes_without_a_common_bound():
    """There are none: of a sum of buckets that differ nothing is known but the number of requests."""
    quick, slow = counted(buckets={"0.1": 1, "+Inf": 1}), counted(buckets={"30.0": 1, "+Inf": 1})
    comparison = compare({}, {ROUTE: quick, Route("GET", "/slow"): slow}, seconds=1)
    assert [row.p50 for row in comparison.routes] == [pytest.approx(0.05), pytest.approx(15)]
    assert (comparison.total.p50, comparison.total.p99) == (None, None)


def test_routes_that_come_and_go():
    """The percentiles of all routes are of the bounds of those that there are."""
    quick, slow = counted(buckets={"0.1": 1, "+Inf": 1}), counted(buckets={"30.0": 1, "+Inf": 1})
    slow_too = counted(buckets={"30.0": 2, "+Inf": 2})
    both = {ROUTE: quick, Route("GET", "/slow"): slow}
    assert compare({ROUTE: quick}, both, seconds=1).total.p50 is None
    assert compare(both, {Route("GET", "/slow"): slow_too}, seconds=1).total.p50 == pytest.approx(15)


def test_bounds_that_change():
    """A bucket counts from when all series of the route have it: what it had before is not known."""
    common = counted(buckets={"1.0": 10, "+Inf": 110})
    alone = counted(buckets={"0.1": 9, "1.0": 11, "5.0": 111, "+Inf": 111})
    (row,) = compare({ROUTE: common}, {ROUTE: alone}, seconds=1).routes
    assert (row.p50, row.longest) == (pytest.approx(0.5), 1.0)
    (row,) = compare({ROUTE: alone}, {ROUTE: counted(buckets={"1.0": 13, "+Inf": 113})}, seconds=1).routes
    assert row.p50 == pytest.approx(0.5)


def test_detail_is_shown_where_it_is_measured():
    """Else it is None, which is not zero."""
    basic = counted(status_200=1)
    full = RouteCounters({**basic.counters, (LOOP_SECONDS, ""): 0.5, (BYTES_OUT, ""): 100.0})
    (row,) = compare({ROUTE: basic}, {ROUTE: full}, seconds=2).routes
    assert (row.loop, row.bytes_out, row.bytes_in) == (0.25, 50, None)
    assert compare({}, {ROUTE: basic}, seconds=1).total.loop is None
