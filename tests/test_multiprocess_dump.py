from __future__ import annotations

import json
import math

import pytest
from conftest import FamiliesCollector, count
from prometheus_client import Counter, Enum, Gauge, Histogram, Info, Summary
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.core import Metric as Family
from prometheus_client.mmap_dict import MmapedDict, mmap_key
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.samples import BucketSpan, Exemplar, NativeHistogram, Timestamp

from hr_prometheus.metrics import ERRORS
from hr_prometheus.multiprocess.dump import dump, dump_without_calls, load
from hr_prometheus.request.records import Records
from hr_prometheus.store.store import self_store


def sent(registry):
    """Return the dump of a registry as the supervisor loads it."""
    return load(json.loads(json.dumps(dump(registry))))


def errors(registry):
    """Return how many failures of collectors were counted."""
    page, index = self_store(registry).allocate(ERRORS, ("collector",))
    return page[index]


def test_what_is_in_no_file_is_sent(registry):
    """Custom collectors, Info and Enum arrive as they were collected, with their types and units."""
    custom = CounterMetricFamily("custom_seconds", "A counter", labels=["a"], unit="seconds", created=None)
    custom.add_metric(["x"], 3.5, created=7.0, timestamp=1.5)
    histogram = HistogramMetricFamily("custom_histogram", "A histogram")
    histogram.add_metric([], [("1.0", 2), ("+Inf", 3)], 9)
    registry.register(FamiliesCollector(custom, histogram))
    Info("build", "Build", registry=registry).info({"version": "1"})
    Enum("state", "State", states=["up", "down"], registry=registry).state("down")
    expected = list(registry.collect())
    assert sent(registry).families == expected
    assert sent(registry).functions == []


def test_what_is_in_files_is_not_sent(registry, tmp_path):
    """Counters, gauges, histograms, summaries and hr-prometheus's own metrics are not counted twice."""
    for kind in (Counter, Gauge, Histogram, Summary):
        kind(kind.__name__.lower(), "Help", registry=registry)
        kind(f"labelled_{kind.__name__.lower()}", "Help", ["a"], registry=registry).labels("b")
    count(Records(registry).request(("GET", "/")), 200, 0.1)
    file = MmapedDict(str(tmp_path / "gauge_all_w0.db"))
    file.write_value(mmap_key("in_file", "in_file", [], [], "Help"), 1.0, 0.0)
    file.close()
    collector = MultiProcessCollector(registry, str(tmp_path))
    assert len(list(collector.collect())) == 1
    assert sent(registry) == ({}, [], [], {"gauge", "labelled_gauge"}, [])


def test_gauges_with_functions_have_a_list_of_their_own(registry):
    """The supervisor has to know which series have a meaningless 0 in the files."""
    Gauge("alone", "Help", registry=registry).set_function(lambda: 5)
    both = Gauge("both", "Help", ["a"], registry=registry)
    both.labels("function").set_function(lambda: 6)
    both.labels("number").set(7)
    Gauge("number", "Help", registry=registry).set(8)
    _, families, functions, plain_gauges, _ = sent(registry)
    assert families == []
    assert plain_gauges == {"number"}
    assert [(family.name, family.type, family.documentation) for family in functions] == [
        ("alone", "gauge", "Help"),
        ("both", "gauge", "Help"),
    ]
    assert [sample[:3] for family in functions for sample in family.samples] == [
        ("alone", {}, 5),
        ("both", {"a": "function"}, 6),
    ]


def test_a_collector_that_fails_loses_no_other(registry, caplog):
    """What it has yielded stays. The failure is logged once a kind, and counted."""
    first = GaugeMetricFamily("first", "Help", value=1)
    registry.register(FamiliesCollector(first, ValueError("broken"), GaugeMetricFamily("never", "Help", value=1)))
    registry.register(FamiliesCollector(GaugeMetricFamily("second", "Help", value=2)))
    for times in (1, 2):
        assert [family.name for family in sent(registry).families] == ["first", "second"]
        assert errors(registry) == times
    (record,) = caplog.records
    assert record.exc_info[1].args == ("broken",)


def test_a_function_that_fails_loses_its_own_value_only(registry, caplog):
    """The supervisor still learns that the series has a function."""
    gauge = Gauge("gauge", "Help", ["a"], registry=registry)
    gauge.labels("broken").set_function(lambda: 1 / 0)
    gauge.labels("whole").set_function(lambda: 1)
    (family,) = sent(registry).functions
    assert [(sample.labels["a"], sample.value) for sample in family.samples] == [("broken", None), ("whole", 1)]
    assert errors(registry) == 1
    assert len(caplog.records) == 1


def test_a_failure_is_not_counted_under_a_taken_name(registry):
    """The application has the name, which is no failure either."""
    Counter("hr_prometheus_errors", "The application's", registry=registry)
    registry.register(FamiliesCollector(ValueError()))
    assert sent(registry) == ({}, [], [], set(), [])


def test_odd_values_become_text_and_floats(registry):
    """Labels may not be text, text may not be UTF-8, and values may not be floats or finite."""
    family = Family("odd", "\udc80", "unknown")
    family.add_sample("odd", {"a": 1, "b": "\udc81"}, True, timestamp=Timestamp(1, 500_000_000))
    family.add_sample("odd", {"a": None}, math.inf)
    family.add_sample("odd", {}, math.nan)
    registry.register(FamiliesCollector(family))
    (arrived,) = sent(registry).families
    assert arrived.documentation == "\\udc80"
    first, second, third = arrived.samples
    assert first[:4] == ("odd", {"a": "1", "b": "\\udc81"}, 1.0, 1.5)
    assert (second.labels, second.value) == ({"a": "None"}, math.inf)
    assert math.isnan(third.value)


def test_exemplars_are_sent_and_native_histograms_are_not(registry):
    """OpenMetrics 1.0.0 has the first and not the second."""
    family = HistogramMetricFamily("h", "Help")
    family.add_metric([], [("1.0", 2, Exemplar({"trace": "x"}, 0.5, 1.25)), ("+Inf", 3)], 9)
    plain = list(family.samples)
    spans = [BucketSpan(0, 1)]
    family.add_sample("h", {}, None, native_histogram=NativeHistogram(1, 1, 0, 0.1, 0, spans, None, [1], None))
    registry.register(FamiliesCollector(family))
    assert sent(registry).families[0].samples == plain


def test_a_dump_without_calls_names_the_functions(registry):
    """Under gunicorn no collector is called; the dump still names the series whose zeros are meaningless."""
    Gauge("gauge", "Help", registry=registry).set_function(lambda: 1 / 0)
    registry.register(FamiliesCollector(ValueError()))
    (family,) = load(dump_without_calls(registry)).functions
    assert [sample[:3] for sample in family.samples] == [("gauge", {}, None)]


def test_the_target_info_is_sent(registry):
    """It has the labels that the application has given to the whole target."""
    registry.set_target_info({"env": "test"})
    assert sent(registry).target == {"env": "test"}


@pytest.mark.parametrize("nonsense", [None, {}, [], {"target": {}, "families": [{}], "functions": []}, "text"])
def test_an_invalid_dump_is_refused(nonsense):
    """The supervisor expects an exception then."""
    with pytest.raises((TypeError, KeyError, AttributeError)):
        load(nonsense)
