"""Exemplars in the formats of a scrape."""

from __future__ import annotations

from math import inf

import client_model
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.exposition import generate_latest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from hr_prometheus.exposition.formats import TEXT, Format, choose_format
from hr_prometheus.metric import LATENCY_BUCKETS
from hr_prometheus.metrics import BASIC_METRICS, OUTCOME, REQUEST_COUNT, REQUEST_LATENCY
from hr_prometheus.names import Naming
from hr_prometheus.store.bounds import BOTH, OFF, ONLY
from hr_prometheus.store.exemplars import trace_exemplar
from hr_prometheus.store.store import Store

OPENMETRICS = Format(is_openmetrics=True, version="1.0.0")
PROTOBUF = choose_format("application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited")
TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SERIES = "GET", "/cells"


def stored(registry, *, naming=None, native=OFF):
    """Return a registered store of the basic metrics."""
    store = Store(BASIC_METRICS, naming=naming or Naming(), native=native)
    registry.register(store)
    return store


def observe(store, labels, seconds, timestamp):
    """Observe a request, and keep its exemplar."""
    store.observe(REQUEST_LATENCY, labels, seconds)
    series = store.exemplars.of_series(REQUEST_LATENCY, store.naming, labels)
    index = (*LATENCY_BUCKETS, inf).index(bucket(seconds))
    store.exemplars.keep(series, index, trace_exemplar(TRACE, SPAN, seconds, timestamp))


def count_error(store, labels, timestamp):
    """Count an error, and keep its exemplar."""
    page, first = store.allocate(REQUEST_COUNT, labels)
    page[first] += 1.0
    series = store.exemplars.of_series(REQUEST_COUNT, store.naming, labels)
    store.exemplars.keep(series, 0, trace_exemplar(TRACE, SPAN, 1.0, timestamp))


def parsed(text):
    """Return the exemplars of a body in OpenMetrics, by the name and the bound of their sample."""
    return {
        (sample.name, sample.labels.get("le")): (sample.exemplar.value, sample.exemplar.timestamp)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.exemplar
    }


@given(st.dictionaries(st.floats(0, 100), st.floats(1e9, 2e9).map(lambda time: round(time, 3)), max_size=20))
def test_openmetrics_has_the_bytes_of_prometheus_client(observed):
    """The same samples have the same exemplars behind them, whoever renders them."""
    registry = CollectorRegistry()
    store = stored(registry)
    for seconds, timestamp in observed.items():
        observe(store, SERIES, seconds, timestamp)
        count_error(store, (*SERIES, "503"), timestamp)
    theirs = generate_latest(registry).decode()
    ours = b"".join(line + b"\n" for line in OPENMETRICS.render(registry).splitlines() if b"_created" not in line)
    assert ours.decode() == theirs
    assert len(parsed(theirs)) == len({*map(bucket, observed)}) + bool(observed)


def bucket(seconds):
    return next(bound for bound in (*LATENCY_BUCKETS, inf) if seconds <= bound)


def test_protocol_buffers_have_them_in_their_buckets(registry):
    """In a bucket in the middle, in the last one, and at a counter; the counts are what they are without."""
    store = stored(registry)
    for seconds in (0.3, 0.003, 30.0):
        observe(store, SERIES, seconds, 1e9 + 0.25)
    count_error(store, (*SERIES, "503"), 1e9)
    latency, count, _ = client_model.parse(PROTOBUF.render(registry))
    buckets = {each.upper_bound: each for each in latency.metric[0].histogram.bucket}
    assert [*buckets] == [*LATENCY_BUCKETS, inf]
    assert [each.cumulative_count for each in buckets.values()][-3:] == [2, 2, 3]
    kept = {bound: each.exemplar for bound, each in buckets.items() if each.HasField("exemplar")}
    assert {bound: each.value for bound, each in kept.items()} == {0.005: 0.003, 0.5: 0.3, inf: 30.0}
    assert {each.timestamp.ToMilliseconds() for each in kept.values()} == {int(1e12) + 250}
    labels = {label.name: label.value for label in count.metric[0].counter.exemplar.label}
    assert labels == {"trace_id": TRACE, "span_id": SPAN}


def test_the_text_format_has_none(registry):
    """It would not be valid there."""
    store = stored(registry)
    before = TEXT.render(registry)
    observe(store, SERIES, 0.3, 1e9)
    count_error(store, (*SERIES, "503"), 1e9)
    assert TEXT.render(registry) != before
    assert TRACE not in TEXT.render(registry).decode()


@pytest.mark.parametrize("escaping", ["underscores", "dots"])
def test_a_selection_has_those_of_its_samples(registry, escaping):
    """Also where prometheus_client renders it."""
    observe(stored(registry), SERIES, 0.3, 1e9)
    form = Format(is_openmetrics=True, version="1.0.0", escaping=escaping)
    text = form.render(registry.restricted_registry(["request_latency_bucket"])).decode()
    assert text.count(TRACE) == 1
    assert text.count(" # {") == text.count('le="0.5"') == 1


def test_of_several_series_that_are_added_up_the_newest_is_shown(registry):
    """The name set http tells outcomes apart, and otel adds them up."""
    store = stored(registry, naming=Naming("", ("http", "otel")))
    observe(store, (*SERIES, OUTCOME, "ok"), 0.3, 2e9)
    observe(store, (*SERIES, OUTCOME, "error"), 0.4, 1e9)
    observe(store, (*SERIES, OUTCOME, "error"), 4.0, 1e9)
    shown = [*OPENMETRICS.render(registry).decode().splitlines()]
    exemplars = [line.partition(" # ") for line in shown if " # " in line]
    values = [(line.partition("{")[0], float(text.split()[1])) for line, _, text in exemplars]
    assert values == [
        ("http_request_duration_seconds_bucket", 0.3),
        ("http_request_duration_seconds_bucket", 0.4),
        ("http_request_duration_seconds_bucket", 4.0),
        ("http_server_request_duration_seconds_bucket", 0.3),
        ("http_server_request_duration_seconds_bucket", 4.0),
    ]


@pytest.mark.parametrize(("mode", "bounds"), [(ONLY, [0.5, inf, 0.005]), (BOTH, [*LATENCY_BUCKETS, inf])])
def test_a_native_histogram_has_them_in_classic_buckets(registry, mode, bounds):
    """Prometheus looks for them there. Where these buckets are sent for nothing else, that of the newest comes first."""
    store = stored(registry, native=mode)
    for seconds, timestamp in ((0.3, 3e9), (0.003, 1e9), (30.0, 2e9)):
        observe(store, SERIES, seconds, timestamp)
    PROTOBUF.render(registry)  # what it keeps for the next one is not the exemplar
    series = store.exemplars.of_series(REQUEST_LATENCY, store.naming, SERIES)
    store.exemplars.keep(series, 0, trace_exemplar(TRACE, SPAN, 0.004, 1e9))
    latency, *_ = client_model.parse(PROTOBUF.render(registry))
    histogram = latency.metric[0].histogram
    assert [each.upper_bound for each in histogram.bucket] == bounds
    counts = {each.exemplar.value: each.cumulative_count for each in histogram.bucket if each.HasField("exemplar")}
    assert counts == {0.004: 1, 0.3: 2, 30.0: 3}
    assert (histogram.schema, histogram.sample_count) == (3, 3)
    assert parsed(OPENMETRICS.render(registry).decode()).keys() == {
        ("request_latency_bucket", bound) for bound in ("0.005", "0.5", "+Inf")
    }
