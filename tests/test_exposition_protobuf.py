from __future__ import annotations

import math
from collections import Counter as Multiset
from cProfile import Profile

import pytest
from aiohttp import web
from client_model import parse, samples_of
from conftest import FamiliesCollector, count
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Enum,
    Gauge,
    Histogram,
    Info,
    Summary,
    disable_created_metrics,
    enable_created_metrics,
    generate_latest,
)
from prometheus_client.core import (
    CounterMetricFamily,
    Exemplar,
    GaugeHistogramMetricFamily,
    HistogramMetricFamily,
    Metric,
    SummaryMetricFamily,
    Timestamp,
)
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.utils import floatToGoString

from hr_prometheus.exposition import wire
from hr_prometheus.exposition.formats import choose_format
from hr_prometheus.exposition.view import make_view
from hr_prometheus.metrics import ERRORS
from hr_prometheus.request.records import Records
from hr_prometheus.request.websocket import WebSocketRecord
from hr_prometheus.store.store import self_store

ACCEPT = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited"
PROTOBUF = choose_format(f"{ACCEPT};escaping=allow-utf-8")

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
numbers = st.one_of(st.floats(), st.integers(-(2**60), 2**60).map(float))
counts = st.one_of(st.integers(0, 2**53).map(float), st.floats(0, 1e18))


def texts_of(samples):
    """Return samples in a form that can be compared, each as often as it is there."""
    return Multiset(
        (name, tuple(sorted(labels.items())), floatToGoString(float(value)))
        for name, labels, value in samples
        if not name.endswith("_created")
    )


def text_of(registry):
    """Return the same of what prometheus_client says in text."""
    families = text_string_to_metric_families(generate_latest(registry, "allow-utf-8").decode())
    return texts_of((sample.name, sample.labels, sample.value) for family in families for sample in family.samples)


@st.composite
def applications(draw):
    """A registry with metrics of every kind that an application can have."""
    registry = CollectorRegistry(target_info={"env": draw(texts)})
    labels = draw(st.lists(texts, min_size=1, max_size=3, unique=True))
    for label in labels:
        for number in draw(st.lists(st.floats(0, 1e20), max_size=3)):
            Metrics.of(registry).add(label, number)
    families = [
        HistogramMetricFamily("custom.histogram", "Help\n\\", labels=["é"]),
        GaugeHistogramMetricFamily("custom_gaugehistogram", "", labels=["x"]),
        SummaryMetricFamily("custom_summary", "Help", labels=["x"]),
        CounterMetricFamily("custom", "Help", labels=["x"]),
    ]
    for label in labels:
        low, high = sorted([draw(counts), draw(counts)])
        families[0].add_metric([label], [("-1.5", low), ("+Inf", high)], sum_value=None)
        families[1].add_metric([label], [("0.5", low), ("+Inf", high)], gsum_value=draw(st.floats(0, 9)))
        families[2].add_metric([label], draw(st.integers(0, 2**53)), draw(numbers))
        families[3].add_metric([label], draw(numbers), created=draw(st.sampled_from([0, 1e9, math.nan])))
    quantiles = Metric("quantiles", "Help", "summary")
    quantiles.add_sample("quantiles", {"quantile": "0.5"}, draw(numbers))
    quantiles.add_sample("quantiles_count", {}, 3.0)
    quantiles.add_sample("quantiles_sum", {}, draw(numbers))
    odd = Metric("odd", "Help", draw(st.sampled_from(["histogram", "summary", "counter", "gauge", "unknown"])))
    for name, label, value in draw(st.lists(st.tuples(st.sampled_from(["another", "odd_x", "x_odd"]), texts, numbers))):
        odd.add_sample(name, {"quantile": label}, value)
    registry.register(FamiliesCollector(*families, quantiles, odd))
    return registry


class Metrics:
    """One metric of each of prometheus_client's classes, with a label."""

    def __init__(self, registry):
        self.counter = Counter("a.counter", "Help", ["é x"], registry=registry)
        self.gauge = Gauge("gauge", "Help", ["x"], registry=registry)
        self.histogram = Histogram("histogram", "Help", ["x"], registry=registry, unit="seconds")
        self.summary = Summary("summary", "Help", ["x"], registry=registry)
        self.info = Info("info", "Help", ["x"], registry=registry)
        self.enum = Enum("enum", "Help", ["x"], registry=registry, states=["a", "b"])
        registry.metrics = self

    @classmethod
    def of(cls, registry):
        """Return those of a registry, which the first call makes."""
        return getattr(registry, "metrics", None) or cls(registry)

    def add(self, label, number):
        """Have each metric show a number."""
        self.counter.labels(label).inc(number, exemplar={"trace_id": "1"})
        self.gauge.labels(label).set(-number)
        self.histogram.labels(label).observe(number)
        self.summary.labels(label).observe(number)
        self.info.labels(label).info({"a": label})
        self.enum.labels(label).state("b")


@settings(max_examples=40)
@given(applications())
def test_the_numbers_of_an_application_are_those_of_its_text(registry):
    """Whatever the names, labels and numbers are, no sample is lost or changed, and none is added."""
    expected = text_of(registry)
    for name, labels, _ in [*expected]:  # the text has no sum where a bucket is negative, and a message must have one
        if name == "custom.histogram_bucket" and dict(labels)["le"] == "+Inf":
            rest = tuple(pair for pair in labels if pair[0] != "le")
            expected[
                "custom.histogram_count", rest, next(v for n, each, v in expected if (n, each) == (name, labels))
            ] = 1
            expected["custom.histogram_sum", rest, "NaN"] = 1
    assert texts_of(samples_of(PROTOBUF.render(registry))) == expected


requests = st.lists(st.tuples(texts, st.sampled_from([200, 404, 101, None]), st.floats(0, 1e9), st.integers(0, 2**50)))


@settings(max_examples=40)
@given(requests, st.booleans())
def test_our_numbers_are_those_of_the_text(made, is_by_status):
    """The same for our own families, under several names, which are read from their cells."""
    registry = CollectorRegistry()
    records = Records(
        registry,
        prefix="my_",
        detail="full",
        names=["seed", "otel"],
        latency_by_status=is_by_status,
        buckets={"*": [1], "r": [2]},
    )
    for number, (path, status, duration, size) in enumerate(made):
        record = records.request(("GET", path, "ä", path), "r" if number % 2 else None)
        record.begin() if status is None else count(record, status, duration)
        record.measure(duration, size, size)
        WebSocketRecord(record).begin()
        WebSocketRecord(record).end(duration, status or 0, "server")
    assert texts_of(samples_of(PROTOBUF.render(registry))) == text_of(registry)


@pytest.mark.parametrize("escaping", ["", "allow-utf-8", "underscores", "dots", "values"])
def test_names_are_escaped_as_in_text(registry, escaping):
    """As a scraper asks for; one that asks for nothing gets underscores."""
    Counter("a.b", "Help", ["c.d"], registry=registry).labels("e.f").inc()
    self_store(registry).allocate(ERRORS, ("where",))
    form = choose_format(f"{ACCEPT};escaping={escaping}" if escaping else ACCEPT)
    families = text_string_to_metric_families(generate_latest(registry, escaping or "underscores").decode())
    expected = [(each.name, each.labels, each.value) for family in families for each in family.samples]
    assert texts_of(samples_of(form.render(registry))) == texts_of(expected)
    assert form.content_type.endswith(
        f"; encoding=delimited; escaping={escaping}" if escaping else "; encoding=delimited"
    )


def test_what_the_text_cannot_say(registry):
    """A message has the unit, the time of creation to the millisecond, exemplars and timestamps."""
    histogram = HistogramMetricFamily("sizes_bytes", "Help", unit="bytes")
    histogram.add_metric(
        [],
        [("1", 1, None), ("+Inf", 2, Exemplar({"span_id": "2"}, 7.5, Timestamp(5, 250_000_000)))],
        8.0,
        timestamp=1.5,
    )
    registry.register(FamiliesCollector(histogram))
    counter = Counter("orders", "Help", registry=registry)
    counter.inc(3, exemplar={"trace_id": "1"})
    count(Records(registry).request(("GET", "/")), 200, 1.0)
    families = {family.name: family for family in parse(PROTOBUF.render(registry))}
    sizes, orders = families["sizes_bytes"], families["orders_total"].metric[0].counter
    assert (sizes.unit, sizes.metric[0].timestamp_ms) == ("bytes", 1500)
    (bucket,) = [each for each in sizes.metric[0].histogram.bucket if each.HasField("exemplar")]
    assert (bucket.upper_bound, bucket.cumulative_count, bucket.exemplar.value) == (math.inf, 2, 7.5)
    assert [(each.name, each.value) for each in bucket.exemplar.label] == [("span_id", "2")]
    assert bucket.exemplar.timestamp.ToMilliseconds() == 5250
    assert [(each.name, each.value) for each in orders.exemplar.label] == [("trace_id", "1")]
    assert orders.exemplar.value == 3
    assert orders.created_timestamp.ToMilliseconds() == round(counter._created * 1000)
    for name in ("request_count_total", "request_latency"):
        (metric,) = families[name].metric
        number = metric.counter if name == "request_count_total" else metric.histogram
        assert abs(number.created_timestamp.ToMilliseconds() - counter._created * 1000) < 60_000


@pytest.mark.parametrize(("switch", "expected"), [(enable_created_metrics, True), (disable_created_metrics, False)])
def test_times_of_creation_follow_prometheus_clients_switch(registry, switch, expected):
    """Ours are there if the library's are."""
    count(Records(registry).request(("GET", "/")), 200, 1.0)
    switch()
    try:
        families = {family.name: family for family in parse(PROTOBUF.render(registry))}
    finally:
        enable_created_metrics()
    assert families["request_count_total"].metric[0].counter.HasField("created_timestamp") is expected
    assert families["request_latency"].metric[0].histogram.HasField("created_timestamp") is expected


def test_others_get_their_turn_while_long_families_are_encoded(registry):
    """A family is encoded in many pieces, the application's as well as ours."""
    gauge = Gauge("many", "Many", ["x"], registry=registry)
    assert len(list(PROTOBUF.pieces(registry))) < 5
    for number in range(2000):
        gauge.labels(str(number)).set(number)
    assert len(list(PROTOBUF.pieces(registry))) > 40
    records = Records(registry)
    for number in range(2000):
        count(records.request(("GET", str(number))), 200, 1.0)
    assert len(list(PROTOBUF.pieces(registry))) > 200


#: The calls for each of the basic metrics, by the mode of native histograms: in the first scrape, in one after each series has
#: counted something in the same buckets, and in one after nothing has changed.
CALLS = {False: (26, 26, 26), True: (33, 30, 25), "both": (50, 31, 25)}
MORE_CALLS = 3


@pytest.mark.parametrize(("labels", "mode"), [*((100, mode) for mode in CALLS), (wire.MOST_KEPT + 500, "both")])
def test_a_metric_costs_no_more_than_it_did(registry, labels, mode):
    """Counted rather than timed. What is kept helps any number of labels."""
    records = Records(registry, native_histograms=mode)
    for limit, has_changed in zip(CALLS[mode], (True, True, False), strict=True):
        if has_changed:
            for number in range(labels):
                count(records.request(("GET", str(number))), 200, number / 1000)
        with Profile() as profile:
            PROTOBUF.render(registry)
        assert sum(each.callcount for each in profile.getstats()) <= (limit + MORE_CALLS) * 3 * labels


async def test_the_metrics_route_serves_what_is_asked_for(registry, aiohttp_client):
    """Messages for who prefers them, gzipped or not; a selection by name[] is text, in which a histogram has parts."""
    app = web.Application()
    app.router.add_get("/metrics", make_view(registry))
    count(Records(registry).request(("GET", "/")), 200, 1.0)
    client = await aiohttp_client(app)
    for encoding in ("gzip", "identity"):
        headers = {"Accept": f"{ACCEPT};q=0.7,text/plain;q=0.3", "Accept-Encoding": encoding}
        response = await client.get("/metrics", headers=headers)
        assert response.headers["Content-Type"] == PROTOBUF.content_type.removesuffix("; escaping=allow-utf-8")
        assert "request_latency" in {family.name for family in parse(await response.read())}
        selection = await client.get("/metrics", params={"name[]": "request_latency_sum"}, headers=headers)
        assert selection.content_type == "text/plain"
        assert (await selection.text()).splitlines()[-1] == 'request_latency_sum{method="GET",path="/"} 1.0'
