from __future__ import annotations

import math
from collections import Counter

import pytest
from aiohttp import web
from client_model import native_buckets_of, parse
from conftest import count
from hypothesis import example, given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from test_store_bounds import index_of

from hr_prometheus import ConfigurationError, hrprometheus_middleware, instrument
from hr_prometheus.exposition.formats import PROTOBUF, TEXT
from hr_prometheus.metric import LATENCY_BUCKETS, NATIVE_LATENCY_BUCKETS, NATIVE_SIZE_BUCKETS
from hr_prometheus.metrics import METRICS
from hr_prometheus.multiprocess.aggregate_cells import CellCollector
from hr_prometheus.request.records import Records
from hr_prometheus.request.websocket import WebSocketRecord
from hr_prometheus.store.files import FileAllocator
from hr_prometheus.store.store import allocators, client_store, loop_store, self_store

HISTOGRAMS = {"request_latency", "request_first_byte_latency", "request_size_bytes", "response_size_bytes"}
seconds = st.one_of(st.floats(0, 1e5), st.floats(0, 0.01), st.sampled_from([0.0, 2**-11, 0.25, 1.0, 64.0]))
sizes = st.integers(0, 2**40) | st.sampled_from([0, 1, 64, 2**40])
requests = st.lists(st.tuples(seconds, st.none() | seconds, st.none() | sizes, st.none() | sizes), max_size=30)


def record(records, made, labels=("GET", "/")):
    """Record requests: their seconds, those until the first byte, and the bytes of both bodies; ``None`` is not known."""
    for duration, first, sent, received in made:
        count(records.request(labels), 200, duration)
        records.request(labels).measure(first, sent, received)


def histograms(registry):
    """Return the histograms of a scrape, by the names of their families."""
    return {family.name: family.metric[0].histogram for family in parse(PROTOBUF.render(registry)) if family.type == 4}


#: Two of these bounds divide the bucket of zero, and seven another bucket.
FINE_BUCKETS = (0.0001, 0.0003, 0.3, 1.01, 1.02, 1.03, 1.04, 1.05, 1.06, 1.07)


@settings(max_examples=100)
@given(requests, st.sampled_from([True, "both"]), st.sampled_from([LATENCY_BUCKETS, FINE_BUCKETS]))
@example([(1.0, 1.005, 1, 0), (1.005, 1.065, 1, 0), (1.08, 2.0, 1, 0)], "both", FINE_BUCKETS)
def test_each_observation_is_in_its_bucket(made, mode, buckets):
    """Counts, sums and buckets are those of what was observed; text has the classic ones, byte for byte as without."""
    registry, plain = CollectorRegistry(), CollectorRegistry()
    record(Records(registry, detail="full", native_histograms=mode, buckets=buckets), made)
    record(Records(plain, detail="full", buckets=buckets), made)
    assert TEXT.render(registry) == TEXT.render(plain) == generate_latest(plain)
    assert generate_latest(registry) == generate_latest(plain)
    observed = (
        dict(zip(sorted(HISTOGRAMS), zip(*[(b, a, d, c) for a, b, c, d in made], strict=True), strict=False))
        if made
        else {}
    )
    found, classic = histograms(registry), histograms(plain)
    assert found.keys() == observed.keys()
    for name, known in observed.items():
        values = [value for value in known if value is not None]
        native = NATIVE_SIZE_BUCKETS if "size" in name else NATIVE_LATENCY_BUCKETS
        histogram, lowest = found[name], native.low << native.schema
        expected = Counter(index_of(value, native) for value in values if value)
        zeros = expected.pop(lowest, 0) + values.count(0)
        assert (histogram.schema, histogram.zero_threshold) == (native.schema, 2.0**native.low)
        assert (native_buckets_of(histogram), histogram.zero_count) == (expected, zeros)
        assert (histogram.sample_count, histogram.sample_sum) == (len(values), classic[name].sample_sum)
        assert list(histogram.bucket) == (list(classic[name].bucket) if mode == "both" else [])


@settings(max_examples=50)
@given(st.dictionaries(st.integers(0, 148), st.integers(1, 2**40), max_size=30))
def test_large_counts_are_in_their_buckets(counts):
    """Also differences of more than one byte, and those between a bucket's two cells."""
    registry = CollectorRegistry()
    record(Records(registry, native_histograms=True), [(0.0, None, None, None)])
    family = next(family for family in registry.collect() if family.name == "request_latency")
    ((bounds, [(_, (page, first))], _),) = family.parts
    expected = Counter()
    for cell in range(len(bounds) + 1):
        page[first + 1 + cell] = float(counts.get(cell, 0))
        expected[bounds.native_indexes[cell]] += counts.get(cell, 0)
    if counts:
        histogram = histograms(registry)["request_latency"]
        assert (histogram.zero_count, histogram.sample_count) == (
            expected.pop(bounds.first_index),
            sum(counts.values()),
        )
        assert native_buckets_of(histogram) == +expected


@settings(max_examples=100)
@given(requests, requests, st.sampled_from([True, "both"]), st.sampled_from([LATENCY_BUCKETS, FINE_BUCKETS]))
@example([(0.0002, None, None, None)], [(0.0, None, None, None)], "both", FINE_BUCKETS)
@example([(0.0, None, None, None)], [(0.0004, None, None, None)], "both", FINE_BUCKETS)
def test_each_scrape_has_what_came_since_the_last(before, since, mode, buckets):
    """What is kept of a scrape for the next one is as if it were encoded anew."""
    registry = CollectorRegistry()
    for made in (before, since, []):
        record(Records(registry, detail="full", native_histograms=mode, buckets=buckets), made)
        scraped = PROTOBUF.render(registry)
        for family in registry.collect():
            for part in family.parts:
                part.kept.clear()
        assert PROTOBUF.render(registry) == scraped


@pytest.mark.parametrize("share", [0.5, 0.95, 0.99])
def test_a_quantile_is_within_five_percent(share):
    """Of any latency from half a millisecond to a minute: half the width of a bucket."""
    durations = [0.0005 * 1.3**step for step in range(44)]
    registry = CollectorRegistry()
    record(Records(registry, native_histograms=True), [(each, None, None, None) for each in durations])
    rank, passed = share * len(durations), 0
    for index, number in native_buckets_of(histograms(registry)["request_latency"]).items():
        passed += number
        if passed >= rank:
            truth = durations[math.ceil(rank) - 1]
            assert abs(2 ** ((index - 0.5) / 8) / truth - 1) < 0.05
            break
    else:
        pytest.fail("no bucket has the rank")


def test_websockets_have_native_histograms_as_well(registry):
    """For half a second to a day and a half."""
    sockets = Records(registry, detail="full", native_histograms=True).request(("GET", "/talk"))
    for duration in (0.1, 3600.0):
        WebSocketRecord(sockets).begin()
        WebSocketRecord(sockets).end(duration, 1000, "client")
    histogram = histograms(registry)["websocket_connection_duration"]
    assert (histogram.zero_count, len(native_buckets_of(histogram))) == (1, 1)
    assert b'websocket_connection_duration_bucket{le="10.0",path="/talk"} 1.0\n' in TEXT.render(registry)


@pytest.mark.parametrize("is_first", [True, False])
@pytest.mark.parametrize("mode", [False, True, "both"])
def test_the_other_histograms_are_as_those_of_requests(registry, mode, is_first):
    """Those of scrapes, of the event loop and of the client, whichever store is made first; text is as without."""
    plain, stores = CollectorRegistry(), (self_store, loop_store, client_store)
    others = [metric for metric in METRICS if metric.type == "histogram" and metric.name not in HISTOGRAMS]
    if is_first:
        Records(registry, native_histograms=mode)
    every = [[store(each) for store in stores] for each in (registry, plain)]
    Records(registry, native_histograms=mode)
    Records(registry, prefix="other_", native_histograms=False)  # changes nothing
    observed = {
        metric.name: (metric, store)
        for both in zip(*every, strict=True)
        for store in both
        for metric in set(both[0].metrics).intersection(others)
        for value in (0.0, 0.001, 3.0, 1e6)
        if store.observe(metric, metric.labels, value) is None
    }
    assert len(observed) == 8
    found, classic = histograms(registry), histograms(plain)
    assert found.keys() == classic.keys() == observed.keys()
    for name, (metric, _) in observed.items():
        values = Counter(index_of(value, metric.native) for value in (0.001, 3.0, 1e6))
        zeros = values.pop(metric.native.low << metric.native.schema, 0) + 1
        histogram = found[name]
        if mode:
            assert (histogram.schema, native_buckets_of(histogram), histogram.zero_count) == (
                1 if name.endswith("bytes") else 3, values, zeros,
            )  # fmt: skip
        else:
            assert not histogram.HasField("schema")
        assert list(histogram.bucket) == ([] if mode is True else list(classic[name].bucket))
        assert (histogram.sample_count, histogram.sample_sum) == (4, 1000003.001)
    assert TEXT.render(registry) == TEXT.render(plain)


@pytest.mark.parametrize(
    ("detail", "loop_metrics", "number"), [("basic", None, 3), ("full", None, 7), ("full", False, 6)]
)
async def test_a_label_has_few_series(registry, aiohttp_client, detail, loop_metrics, number):
    """Latency, count and requests in progress; in full the first byte, both sizes and, if wanted, the loop's seconds."""
    app = instrument(
        web.Application(), detail=detail, native_histograms=True, registry=registry, loop_metrics=loop_metrics
    )
    assert (await (await aiohttp_client(app)).get("/")).status == 404
    assert sum(len(family.metric) for family in parse(PROTOBUF.render(registry))) == number


@pytest.mark.parametrize(("modes", "is_native"), [((True, True), True), ((True, "both"), True), ((True, False), False)])
def test_the_numbers_of_workers_add_up(tmp_path, modes, is_native):
    """Also of those with another mode, and of one without, which leaves the classic buckets; a successor goes on."""
    made = [(0.25, 0.125, 500, 5), (72.0, None, 0, 0)]  # whose sums are exact
    for slot, mode in enumerate((*modes, modes[0])):
        registry = CollectorRegistry()
        allocators[registry] = FileAllocator(str(tmp_path / str(slot % 2)))
        record(Records(registry, detail="full", native_histograms=mode), made)
        del allocators[registry]  # which is for what is registered later
    alone = CollectorRegistry()
    record(Records(alone, detail="full", native_histograms=True), made * 3)
    collector = CellCollector(str(tmp_path))
    assert TEXT.render(collector) == TEXT.render(alone)
    for name, histogram in histograms(collector).items():
        expected = histograms(alone)[name]
        assert (histogram.sample_count, histogram.sample_sum) == (expected.sample_count, expected.sample_sum)
        assert native_buckets_of(histogram) == (native_buckets_of(expected) if is_native else {})
        assert bool(histogram.bucket) == (modes[1] is not True)


def test_wrong_modes():
    """They are refused when the middleware is made, as are two modes for the same metrics."""
    with pytest.raises(
        ConfigurationError, match=r"native_histograms='yes' is not understood. Expected True, False or \"both\"."
    ):
        hrprometheus_middleware(registry=CollectorRegistry(), native_histograms="yes")
    registry = CollectorRegistry()
    hrprometheus_middleware(registry=registry, native_histograms=True)
    with pytest.raises(
        ConfigurationError, match=r"exists already with native histograms \(only\), so it cannot have none"
    ):
        hrprometheus_middleware(registry=registry)
