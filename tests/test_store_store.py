from __future__ import annotations

import gc
from itertools import islice

import pytest
from conftest import count, in_another_thread
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    enable_created_metrics,
    generate_latest,
)

from hr_prometheus.errors import ConfigurationError
from hr_prometheus.exposition.formats import TEXT
from hr_prometheus.metrics import BASIC_METRICS, REQUEST_COUNT
from hr_prometheus.names import Naming
from hr_prometheus.request.records import Records
from hr_prometheus.store.cells import PAGE_CELLS, in_progress
from hr_prometheus.store.families import with_created
from hr_prometheus.store.store import Store, basic_store, full_store, self_store

GET = ("GET", "/")


def same_in_prometheus_client(requests, buckets):
    """Return the text that prometheus_client's own metrics give for the same requests."""
    registry = CollectorRegistry()
    by_name = {metric.name: metric for metric in BASIC_METRICS}
    latency, count, progress = (by_name[name] for name in ("request_latency", "request_count", "requests_in_progress"))
    latency = Histogram(latency.name, latency.help, latency.labels, buckets=buckets, registry=registry)
    count = Counter(count.name, count.help, count.labels, registry=registry)
    progress = Gauge(progress.name, progress.help, progress.labels, registry=registry)
    for method, path, status, seconds in requests:
        progress.labels(method, path).set(0)
        latency.labels(method, path).observe(seconds)
        count.labels(method, path, status).inc()
    disable_created_metrics()
    try:
        return generate_latest(registry).decode()
    finally:
        enable_created_metrics()


requests = st.lists(
    st.tuples(
        st.sampled_from(["GET", "POST"]),
        st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
        st.sampled_from([200, 404, 500]),
        st.floats(min_value=0, max_value=20, allow_nan=False),
    ),
    max_size=30,
)


@given(requests, st.sampled_from([(0.5,), (0.005, 0.1, 1.0, 10.0)]))
def test_a_store_exports_what_prometheus_client_would(requests, buckets):
    """The text is that of prometheus_client's own metrics, byte for byte, for the same requests."""
    registry = CollectorRegistry()
    records = Records(registry, buckets=buckets)
    for method, path, status, seconds in requests:
        record = records.request((method, path))
        record.begin()
        record.leave()
        count(record, status, seconds)
    expected = same_in_prometheus_client(requests, buckets)
    if not requests:
        expected = ""  # families without a series are left out
    assert generate_latest(registry).decode() == expected


def test_a_bound_belongs_to_its_own_bucket(registry):
    """A duration equal to a bucket's upper bound is counted in it: "le" means less or equal."""
    count(Records(registry, buckets=(0.1, 0.2)).request(GET), 200, 0.1)
    assert registry.get_sample_value("request_latency_bucket", {"method": "GET", "path": "/", "le": "0.1"}) == 1


def test_in_progress_is_what_has_not_ended(registry):
    """Each end counts: observed, upgraded or abandoned. An end without a beginning leaves the gauge alone."""
    records = Records(registry, buckets=(0.1, 0.2))
    seen = []
    for end in (
        lambda record: record.finish("200", 0.05),
        lambda record: record.finish("101", 0.05),
        lambda record: record.finish("500", 0.15),
        lambda record: count(record, 404, 5),
        lambda record: record.finish("404", 5),
        lambda record: record.leave(),
    ):
        records.request(GET).begin()
        end(records.request(GET))
        records.request(GET).begin()
        seen.append(registry.get_sample_value("requests_in_progress", {"method": "GET", "path": "/"}))
    assert seen == [1, 2, 3, 5, 6, 7]
    assert registry.get_sample_value("request_latency_count", {"method": "GET", "path": "/"}) == 4
    assert registry.get_sample_value("request_latency_sum", {"method": "GET", "path": "/"}) == pytest.approx(10.2)


@pytest.mark.parametrize(("meanwhile", "expected"), [(0, {3}), (1, {3}), (5, {3}), (10**9, {0, 1, 2, 3})])
def test_in_progress_is_true_of_one_moment(meanwhile, expected):
    """The cells are read again if another thread or process begins requests meanwhile."""

    class Busy(list):
        left = meanwhile

        def __getitem__(self, index):
            if isinstance(index, slice) and self.left:
                self.left -= 1
                self[0] += 1.0
                self[2] += 1.0
            return super().__getitem__(index)

    # Begun, then a sum, two buckets and the time of creation.
    assert in_progress(Busy([5.0, 0.7, 1.0, 1.0, 0.0]), 1, 1) in expected


def test_a_series_without_observations_has_no_samples(registry):
    """A request in progress has no latency yet, and an upgrade never has."""
    records = Records(registry)
    records.request(("GET", "/begun")).begin()
    count(records.request(("GET", "/upgraded")), 101, 1.0)
    count(records.request(("GET", "/ended")), 200, 1.0)
    latencies = {
        sample.labels["path"] for family in registry.collect() for sample in family.samples if "latency" in sample.name
    }
    assert latencies == {"/ended"}
    assert TEXT.render(registry) == generate_latest(registry)


def test_created_samples_are_for_openmetrics_only(registry):
    """Without OpenMetrics no _created sample is collected; with it there is one a counter and histogram."""
    count(Records(registry).request(GET), 200, 0.1)
    token = with_created.set(True)
    try:
        created = [s.name for family in registry.collect() for s in family.samples if s.name.endswith("_created")]
    finally:
        with_created.reset(token)
    assert created == ["request_latency_created", "request_count_created"]
    assert not any(s.name.endswith("_created") for family in registry.collect() for s in family.samples)


def test_more_series_than_a_page_can_hold():
    """Series on several pages keep their own numbers."""
    store = Store(BASIC_METRICS)
    for number in range(PAGE_CELLS):
        page, index = store.allocate(REQUEST_COUNT, ("GET", str(number), "200"))
        page[index] += number
    (family,) = store.collect()
    assert {sample.labels["path"]: sample.value for sample in family.samples} == {
        str(number): number for number in range(PAGE_CELLS)
    }


def test_one_registry_has_one_store(registry):
    """Two applications in one registry write to the same series."""
    assert basic_store(registry) is basic_store(registry)
    assert basic_store(registry, naming=Naming("other_")) is not basic_store(registry)
    assert full_store(registry) is full_store(registry)
    assert self_store(registry) is self_store(registry)


def test_a_store_returns_to_a_registry_that_was_emptied(registry):
    """Tests like to unregister everything: the next use registers the store again, with its numbers."""
    count(Records(registry).request(GET), 200, 0.1)
    store = basic_store(registry)
    registry.unregister(store)
    assert not list(registry.collect())
    assert basic_store(registry) is store
    assert len(list(registry.collect())) == len(BASIC_METRICS)


def test_a_taken_name_is_refused(registry):
    """The error names the application's metric, and the setting that repairs it."""
    Counter("request_count", "The application's", registry=registry)
    with pytest.raises(ConfigurationError, match=r'already has a metric named "request_count".*metric_prefix="myapp_"'):
        basic_store(registry)
    assert basic_store(registry, naming=Naming("my_"))


def test_other_buckets_for_the_same_metric_are_refused(registry):
    """One metric has one set of buckets."""
    basic_store(registry, buckets=(1, 2))
    with pytest.raises(ConfigurationError, match='exists already with the buckets "1,2"'):
        basic_store(registry, buckets=(1, 3))


@pytest.mark.parametrize("buckets", [(), (2, 1), (1, 1), (0, 1), (-1,), (float("nan"),), (float("inf"),)])
def test_invalid_buckets_are_refused(registry, buckets):
    """Bounds must be positive, finite and ascending."""
    with pytest.raises(ConfigurationError, match="invalid buckets"):
        Records(registry, buckets=buckets)


def test_the_bucket_of_infinity_is_implied(registry):
    """A final +Inf changes nothing; prometheus_client accepts it, too."""
    assert Records(registry, buckets=(1, float("inf"))).buckets.others == (1.0,)


@pytest.mark.parametrize("prefix", ["9_", "my-app_", "a b", "ü_"])
def test_a_prefix_must_begin_a_name(registry, prefix):
    """A prefix with which no metric's name can begin is refused."""
    with pytest.raises(ConfigurationError, match="metric_prefix"):
        Records(registry, prefix=prefix)


@pytest.fixture
def eventful_gc():
    """A garbage collector that calls Python, as it does for the destructors and weak references of an application."""

    def call(*_args):
        for _ in range(50):
            pass

    gc.callbacks.append(call)
    yield
    gc.callbacks.remove(call)


@pytest.mark.usefixtures("eventful_gc")
def test_series_are_born_while_others_are_read():
    """Also where Python 3.11 collects garbage in the middle of that, so that another thread runs."""
    for _ in range(10):
        store, numbers = Store(BASIC_METRICS), iter(range(3000))

        def allocate(store=store, numbers=numbers):
            for number in islice(numbers, 1):
                store.allocate(REQUEST_COUNT, ("GET", str(number), "200"))

        born = 0
        with in_another_thread(allocate):
            while born < 3000:
                born = sum(len(part.series) for family in store.collect() for part in family.parts)
