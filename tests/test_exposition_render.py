from __future__ import annotations

import re

import pytest
from conftest import count, in_another_thread, samples
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
from prometheus_client.core import GaugeHistogramMetricFamily, Timestamp
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics

from hr_prometheus.exposition import render
from hr_prometheus.exposition.formats import TEXT, Format
from hr_prometheus.metrics import ERRORS, METRICS, SCRAPE_DURATION, SCRAPE_LINES
from hr_prometheus.request.records import Records
from hr_prometheus.request.websocket import WebSocketRecord
from hr_prometheus.store.families import with_created
from hr_prometheus.store.store import Store, self_store

OPENMETRICS = Format(is_openmetrics=True, version="1.0.0", escaping="allow-utf-8")

labels = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
seconds = st.one_of(
    st.floats(0, 100), st.sampled_from([0.0, 1e-9, 0.005, 999999.0, 1e6, 1234567.25, 1e16, 1e22, 1e300, 5e-324])
)
# None: a request that has begun and not yet ended.
requests = st.lists(st.tuples(labels, st.sampled_from([200, 404, 500, 101, 0, None]), seconds, st.integers(0, 2**50)))


@settings(max_examples=50)
@given(requests, st.booleans())
def test_the_bytes_are_the_librarys(made, is_created_on):
    """Byte for byte, in both formats, whatever the labels and numbers are."""
    registry = CollectorRegistry()
    Gauge("own", "The application's", ["label"], registry=registry).labels("x").set(1)
    records = Records(registry, prefix="my_", detail="full")
    for path, status, duration, size in made:
        record = records.request(("GET", path))
        record.begin() if status is None else count(record, status, duration)
        record.measure(duration, size, size)
        WebSocketRecord(record).begin()
        WebSocketRecord(record).end(duration, status or 0, "server")
    store = self_store(registry)
    store.allocate(ERRORS, ("labels",))
    store.allocate(SCRAPE_LINES, ())[0][0] = 3.0
    store.observe(SCRAPE_DURATION, (), 0.5)
    (enable_created_metrics if is_created_on else disable_created_metrics)()
    token = with_created.set(is_created_on)
    try:
        assert OPENMETRICS.render(registry) == generate_openmetrics(registry, "allow-utf-8")
    finally:
        with_created.reset(token)
        enable_created_metrics()
    assert TEXT.render(registry) == generate_latest(registry)


@pytest.mark.parametrize(
    "extra",
    [(), ("able", "1"), ("zone", "2"), ("able", 'a "b\\\n,}', "zone", "%s")],
    ids=["none", "first", "last", "both"],
)
def test_every_metric_of_the_catalogue_can_be_parsed(extra):
    """Whatever labels it has, wherever they sort beside the metric's own and beside the bound of a bucket."""
    registry = CollectorRegistry()
    store = Store(METRICS)
    registry.register(store)
    for metric in METRICS:
        labels = (*metric.labels, *extra)
        if metric.type == "histogram":
            store.observe(metric, labels, 0.3)
        elif metric.ends_in is None:
            store.allocate(metric, labels)[0][0] = 3.0
    token = with_created.set(True)
    try:
        body = OPENMETRICS.render(registry)
        assert body == generate_openmetrics(registry, "allow-utf-8")
    finally:
        with_created.reset(token)
    assert TEXT.render(registry) == generate_latest(registry)
    families = {family.name: family for family in parse_openmetrics(body.decode())}
    for metric in METRICS:
        labels = dict(zip(metric.labels, metric.labels, strict=True)) | dict(zip(extra[::2], extra[1::2], strict=True))
        samples = families[metric.name].samples
        assert samples
        assert all({**sample.labels, "le": ""} == {**labels, "le": ""} for sample in samples)


NAMES = [
    "request_latency_bucket",
    "request_latency_count",
    "request_latency_sum",
    "request_count_total",
    "own",
    "nothing",
]


@given(st.sets(st.sampled_from(NAMES), min_size=1), st.booleans())
def test_a_selection_has_the_samples_of_its_names(names, is_openmetrics):
    """name[] of families of ours gives those lines of the whole scrape, and no others."""
    registry = CollectorRegistry()
    Gauge("own", "The application's", registry=registry).set(1)
    records = Records(registry, detail="full")
    for path in ("/a", "/b"):
        count(records.request(("GET", path)), 200, 0.3)
    form = OPENMETRICS if is_openmetrics else TEXT
    lines = form.render(registry).decode().splitlines()
    selection = form.render(registry.restricted_registry(names)).decode().splitlines()
    expected = [line for line in lines if line[0] != "#" and re.split("[{ ]", line)[0] in names]
    assert sorted(line for line in selection if line[0] != "#") == sorted(expected)


@pytest.mark.parametrize("escaping", ["allow-utf-8", "underscores", "dots", "values"])
@pytest.mark.parametrize("prefix", ["", "shop_", "shop:"])
def test_names_are_escaped_as_the_library_does(escaping, prefix):
    """Whatever a scraper asks for, in both formats."""
    registry = CollectorRegistry()
    record = Records(registry, prefix=prefix, detail="full").request(("GET", "/"))
    count(record, 200, 1.0)
    record.measure(0.1, 5, None)
    text = Format(version="1.0.0", escaping=escaping)
    assert text.render(registry) == generate_latest(registry, escaping)
    openmetrics = Format(is_openmetrics=True, version="1.0.0", escaping=escaping)
    token = with_created.set(True)
    try:
        assert openmetrics.render(registry) == generate_openmetrics(registry, escaping)
    finally:
        with_created.reset(token)


class Odd:
    """A collector of what is rare."""

    def collect(self):
        """Yield a gauge histogram and nothing else."""
        family = GaugeHistogramMetricFamily("odd", "Odd", labels=["x"])
        for number in range(5):
            family.add_metric([str(number)], [("1", 2), ("+Inf", 3)], 4, Timestamp(5, 0))
        yield family


@pytest.mark.parametrize("length", [1, 2, 3, 7, 1000])
def test_long_families_are_rendered_in_parts(monkeypatch, length):
    """The library's own families come out the same, in however many parts."""
    monkeypatch.setattr(render, "_SAMPLES", length)
    monkeypatch.setattr(render, "_SERIES", length)
    registry = CollectorRegistry(target_info={"env": "test"})
    registry.register(Odd())
    counter = Counter("counter", "A counter", ["x"], registry=registry)
    histogram = Histogram("histogram", "A\nhistogram\\", ["x"], registry=registry, unit="seconds")
    summary = Summary("summary", "A summary", ["x"], registry=registry)
    for number in range(5):
        counter.labels(str(number)).inc(number, exemplar={"trace": "t"})
        histogram.labels(str(number)).observe(number)
        summary.labels(str(number)).observe(number)
    Info("info", "Info", registry=registry).info({"a": "b"})
    Enum("enum", "Enum", states=["a", "b"], registry=registry)
    records = Records(registry)
    for number in range(5):
        count(records.request(("GET", str(number))), 200, number)
    token = with_created.set(True)
    try:
        assert OPENMETRICS.render(registry) == generate_openmetrics(registry, "allow-utf-8")
    finally:
        with_created.reset(token)
    assert TEXT.render(registry) == generate_latest(registry)
    assert length == 1000 or len(list(TEXT.pieces(registry))) > 30


def test_the_kept_texts_of_numbers_are_few(monkeypatch):
    """However many numbers are rendered, the memory for them has an end."""
    monkeypatch.setattr(render, "_MOST_COUNTS", 10)
    counts = render._Counts()
    assert [counts[float(number)] for number in range(100)] == [f"{number}.0" for number in range(100)]
    assert len(counts) <= 10


@pytest.mark.parametrize("generate", [TEXT.render, generate_latest])
def test_a_histogram_is_read_at_one_moment(registry, generate):
    """Its sum and its count belong together, though another thread observes meanwhile."""
    store = self_store(registry)
    name = "hr_prometheus_scrape_duration_seconds"
    with in_another_thread(lambda: store.observe(SCRAPE_DURATION, (), 1.0)):
        for _ in range(200):
            values = samples(generate(registry).decode())
            assert values.get(f"{name}_sum") == values.get(f"{name}_count") == values.get(f'{name}_bucket{{le="+Inf"}}')
