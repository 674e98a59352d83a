from __future__ import annotations

import math
from bisect import bisect_left

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hr_prometheus.metric import LATENCY_BUCKETS, NATIVE_LATENCY_BUCKETS, NATIVE_SIZE_BUCKETS, SIZE_BUCKETS
from hr_prometheus.metrics import METRICS
from hr_prometheus.store.bounds import BOTH, ONLY, cell_bounds, common_bounds, native_bounds, upper_bounds

#: ``nativeHistogramBounds`` of client_golang for the schemas 1 and 3.
MANTISSAS = {
    1: [0.5, 0.7071067811865475],
    3: [
        0.5, 0.5452538663326288, 0.5946035575013605, 0.6484197773255048,
        0.7071067811865475, 0.7711054127039704, 0.8408964152537144, 0.9170040432046711,
    ],
}  # fmt: skip
KINDS = [
    (LATENCY_BUCKETS, NATIVE_LATENCY_BUCKETS),
    (SIZE_BUCKETS, NATIVE_SIZE_BUCKETS),
    ((1e-5, 1e5), NATIVE_LATENCY_BUCKETS),
]
kinds = st.sampled_from(KINDS)


def index_of(value, native):
    """Return the index of a value's bucket as client_golang does: by the mantissa and the exponent."""
    mantissa, exponent = math.frexp(value)
    bounds = MANTISSAS[native.schema]
    index = bisect_left(bounds, mantissa) + (exponent - 1) * len(bounds)
    lowest, highest = (power << native.schema for power in (native.low, native.high))
    return min(max(index, lowest), highest + 1)


@st.composite
def values(draw, native):
    """A value anywhere, or at a bound of a bucket, or right beside it."""
    bound = draw(st.sampled_from(upper_bounds(native)))
    beside = [bound, math.nextafter(bound, 0), math.nextafter(bound, math.inf)]
    return draw(st.one_of(st.sampled_from(beside), st.floats(5e-324, 1e300)))


@given(st.data(), kinds)
def test_each_value_is_in_the_bucket_that_prometheus_expects(data, kind):
    """Exactly, also at the bounds; below and above, in the bucket of zero and in the last one."""
    classic, native = kind
    bounds = native_bounds(classic, native, ONLY)
    value = data.draw(values(native))
    cell = bisect_left(cell_bounds(bounds), value)
    assert bounds.native_indexes[cell] == index_of(value, native)
    assert bisect_left(classic, value) == bisect_left(bounds.classic_cells, cell)


def test_the_bounds_of_the_ends():
    """Nothing is lost: what is below is near zero, and what is above has a bucket of its own."""
    bounds = native_bounds(LATENCY_BUCKETS, NATIVE_LATENCY_BUCKETS, ONLY)
    assert (bounds.zero_threshold, bounds[-1]) == (2**-11, 64)
    assert [bounds.native_indexes[bisect_left(bounds, value)] for value in (0, 2**-11, 64, 65, 1e9)] == [
        -88,
        -88,
        48,
        49,
        49,
    ]


def test_histograms_have_in_common_what_all_have():
    """Of native ones their buckets as well; one that is classic makes the sum classic."""
    one, other = (
        native_bounds(classic, NATIVE_LATENCY_BUCKETS, mode) for classic, mode in (((1, 2, 3), ONLY), ((2, 3), BOTH))
    )
    assert common_bounds(one, other) == native_bounds((2, 3), NATIVE_LATENCY_BUCKETS, BOTH)
    assert common_bounds(one, (2.0, 5.0)) == (2.0,)
    assert common_bounds((2.0, 5.0), one) == (2.0,)
    assert one != native_bounds((1, 2), NATIVE_LATENCY_BUCKETS, ONLY)
    assert one != native_bounds((0.25, 1, 2, 3), NATIVE_LATENCY_BUCKETS, ONLY)  # which has the same cells
    assert hash(one) == hash(native_bounds((1, 2, 3), NATIVE_LATENCY_BUCKETS, ONLY))


@pytest.mark.parametrize("metric", [metric for metric in METRICS if metric.native], ids=lambda metric: metric.name)
def test_the_native_buckets_have_the_classic_ones_within_them(metric):
    """No classic bound is where native buckets do not tell values apart."""
    bounds = upper_bounds(metric.native)
    assert bounds[0] < metric.buckets[0]
    assert metric.buckets[-1] <= bounds[-1]
