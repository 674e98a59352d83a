"""What the requests of each route were like between two scrapes: rates, latencies, requests in progress."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hr_prometheus.status.route_counters import (
    BUCKETS,
    BYTES_IN,
    BYTES_OUT,
    INFINITY,
    LOOP_SECONDS,
    REQUESTS,
    RouteCounters,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hr_prometheus.status.route_counters import Route

    #: As in RouteCounters.
    Counters = Mapping[tuple[str, str], float]

_QUANTILES = (0.5, 0.95, 0.99)
_ABANDONED = "499"  # of a client that left before the end of the response


@dataclass(frozen=True)
class RouteRates:
    """One route, or all of them (*route* is None), between two scrapes.

    *requests*, *server_errors* (5xx), *client_errors* (4xx without 499), *abandoned* (499), *bytes_in* and *bytes_out* are
    rates per second. *p50*, *p95* and *p99* are seconds, or None if no request ended. *longest* is the highest bound of the
    histogram but infinity: a percentile of this value may be greater. *loop* is the share of the time for which handlers held
    the event loop. What the server does not measure is None.
    """

    route: Route | None
    requests: float
    server_errors: float
    client_errors: float
    abandoned: float
    p50: float | None
    p95: float | None
    p99: float | None
    in_progress: float
    longest: float = math.inf
    loop: float | None = None
    bytes_in: float | None = None
    bytes_out: float | None = None


@dataclass(frozen=True)
class Comparison:
    """Two scrapes, compared: the rates of all routes together, and of each.

    *is_reset*: a counter was lower than before, or a route is gone.
    """

    total: RouteRates
    routes: tuple[RouteRates, ...]
    is_reset: bool


def compare(
    earlier: Mapping[Route, RouteCounters], later: Mapping[Route, RouteCounters], *, seconds: float
) -> Comparison:
    """Return what has happened in the *seconds* between two scrapes.

    A route that is new has begun at zero. So has one with a counter that is lower than before: it was reset. The percentiles
    of all routes together are of the buckets that all routes have.
    """
    sums: defaultdict[tuple[str, str], float] = defaultdict(float)
    routes: Counter[tuple[str, str]] = Counter()
    rows = []
    is_reset = not earlier.keys() <= later.keys()
    for route, counted in later.items():
        before = earlier.get(route, RouteCounters()).counters
        if any(counted.counters.get(key, value) < value for key, value in before.items()):
            before, is_reset = {}, True
        increase = _increase(before, counted.counters)
        routes.update(increase.keys())
        for key, value in increase.items():
            sums[key] += value
        rows.append(_rates(route, increase, counted.in_progress, seconds))
    have_buckets = routes[BUCKETS, INFINITY]
    summed = {key: value for key, value in sums.items() if key[0] != BUCKETS or routes[key] >= have_buckets}
    total = _rates(None, summed, sum(counted.in_progress for counted in later.values()), seconds)
    return Comparison(total, tuple(rows), is_reset)


def histogram_quantile(quantile: float, buckets: Mapping[float, float]) -> float | None:
    """Return a quantile, greater than 0, of cumulative counts by upper bound, as PromQL's ``histogram_quantile`` does.

    It is interpolated linearly within its bucket; the lowest begins at zero if its bound is positive. A quantile in the
    bucket of infinity is the highest other bound. None where PromQL has NaN: without observations, or without that bucket.
    https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_quantile
    """
    bounds = sorted(buckets)
    if len(bounds) < 2 or bounds[-1] != math.inf or not buckets[math.inf] > 0:
        return None
    rank = quantile * buckets[math.inf]
    start, below = 0.0, 0.0
    for index, bound in enumerate(bounds[:-1]):
        count = max(buckets[bound], below)  # two scrapes of a server that is busy may differ in a bucket
        if count >= rank:
            is_negative = index == 0 and bound <= 0
            return bound if is_negative else start + (bound - start) * (rank - below) / (count - below)
        start, below = bound, count
    return bounds[-2]


def _increase(before: Counters, after: Counters) -> Counters:
    """Return what counters have grown by, without buckets whose bounds the series did not all have before."""
    had_buckets = (BUCKETS, INFINITY) in before
    return {
        key: value - before.get(key, 0.0)
        for key, value in after.items()
        if key in before or key[0] != BUCKETS or not had_buckets
    }


def _rates(route: Route | None, increase: Counters, in_progress: float, seconds: float) -> RouteRates:
    classes: defaultdict[str, float] = defaultdict(float)
    buckets: dict[float, float] = {}
    for (name, key), value in increase.items():
        if name == REQUESTS:
            classes[key if key == _ABANDONED else key[:1]] += value
        elif name == BUCKETS:
            buckets[float(key)] = value
    p50, p95, p99 = (histogram_quantile(quantile, buckets) for quantile in _QUANTILES)

    def rate(name: str) -> float | None:
        return increase[name, ""] / seconds if (name, "") in increase else None

    return RouteRates(
        route=route,
        requests=sum(classes.values()) / seconds,
        server_errors=classes["5"] / seconds,
        client_errors=classes["4"] / seconds,
        abandoned=classes[_ABANDONED] / seconds,
        p50=p50,
        p95=p95,
        p99=p99,
        in_progress=in_progress,
        longest=max((bound for bound in buckets if bound < math.inf), default=math.inf),
        loop=rate(LOOP_SECONDS),
        bytes_in=rate(BYTES_IN),
        bytes_out=rate(BYTES_OUT),
    )
