from __future__ import annotations

import pytest
from conftest import count
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import (
    CollectorRegistry,
    Counter,
    disable_created_metrics,
    enable_created_metrics,
    generate_latest,
)
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from prometheus_client.parser import text_string_to_metric_families as text_families

from hr_prometheus.exposition.formats import TEXT, accepts_gzip, choose_format
from hr_prometheus.request.records import Records

OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
TEXT_0 = "text/plain; version=0.0.4; charset=utf-8"
MESSAGES = "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"
TEXT_1 = "text/plain; version=1.0.0; charset=utf-8"

# As the servers send them (scrape/scrape.go of Prometheus 2.53 and 3.5).
PROMETHEUS_2 = (
    "application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,"
    "text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)
PROMETHEUS_3 = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;q=0.5,"
    "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)
PROMETHEUS_3_TEXT = "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.6,text/plain;version=0.0.4;q=0.5,*/*;q=0.2"
PROTOBUF = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.7,"


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("", TEXT_0),
        ("*/*", TEXT_0),
        ("text/html,application/xhtml+xml,*/*;q=0.8", TEXT_0),
        ("image/png", TEXT_0),
        (PROMETHEUS_2, f"{OPENMETRICS}; escaping=underscores"),
        (PROMETHEUS_3, f"{OPENMETRICS}; escaping=allow-utf-8"),
        (PROTOBUF + PROMETHEUS_2, MESSAGES),
        (PROTOBUF.replace("q=", "escaping=allow-utf-8;q=") + PROMETHEUS_3, f"{MESSAGES}; escaping=allow-utf-8"),
        (PROTOBUF.replace("0.7", "0.1") + PROMETHEUS_3, f"{OPENMETRICS}; escaping=allow-utf-8"),
        (PROTOBUF.replace("delimited", "text") + PROMETHEUS_2, f"{OPENMETRICS}; escaping=underscores"),
        (PROTOBUF.replace("io.prometheus", "io.other") + PROMETHEUS_2, f"{OPENMETRICS}; escaping=underscores"),
        (PROMETHEUS_3_TEXT, f"{TEXT_1}; escaping=allow-utf-8"),
        ("application/openmetrics-text", OPENMETRICS),
        ("application/openmetrics-text;version=1.0.0;escaping=strange", f"{OPENMETRICS}; escaping=underscores"),
        ("application/openmetrics-text;version=abc", TEXT_0),
        ("application/openmetrics-text;version=2.0.0,text/plain;version=0.0.4;q=0.1", TEXT_0),
        ("application/openmetrics-text;q=0.1,text/plain;q=0.9", TEXT_0),
        ("text/plain,application/openmetrics-text", TEXT_0),
        ("application/openmetrics-text;q=0", TEXT_0),
        ("application/openmetrics-text;q=nonsense", TEXT_0),
        ("Application/OpenMetrics-Text; Version=1.0.0; Q=1", f"{OPENMETRICS}; escaping=underscores"),
        (";;;,,=,q", TEXT_0),
    ],
)
def test_the_format_follows_accept(accept, content_type):
    """The highest quality among what can be served wins, then the first; otherwise it is text."""
    assert choose_format(accept).content_type == content_type


@pytest.mark.parametrize(
    ("accept_encoding", "expected"),
    [
        ("", False),
        ("gzip", True),
        ("GZip", True),
        ("x-gzip", True),
        ("deflate, gzip;q=0.1", True),
        ("gzip;q=0", False),
        ("*", True),
        ("*;q=0", False),
        ("gzip;q=0, *", False),
        ("deflate, br", False),
        ("identity", False),
    ],
)
def test_gzip_follows_accept_encoding(accept_encoding, expected):
    """A quality of 0 refuses, a star includes."""
    assert accepts_gzip(accept_encoding) is expected


def test_the_bodies_are_those_of_prometheus_client(registry):
    """Each format's body is the library's."""
    Counter("own", "The application's", registry=registry).inc()
    count(Records(registry).request(("GET", '/"\\\n')), 200, 0.1)
    assert TEXT.render(registry) == generate_latest(registry)
    openmetrics = choose_format(PROMETHEUS_3).render(registry).decode()
    families = {family.name: family for family in text_string_to_metric_families(openmetrics)}
    assert set(families) == {"own", "request_latency", "request_count", "requests_in_progress"}
    assert families["request_count"].samples[0].labels["path"] == '/"\\\n'


@pytest.mark.parametrize(("switch", "expected"), [(enable_created_metrics, True), (disable_created_metrics, False)])
def test_created_samples_follow_prometheus_clients_switch_in_openmetrics(registry, switch, expected):
    """Text never has them; OpenMetrics has them if prometheus_client's own metrics do."""
    count(Records(registry).request(("GET", "/")), 200, 0.1)
    switch()
    try:
        openmetrics = choose_format("application/openmetrics-text").render(registry).decode()
    finally:
        enable_created_metrics()
    assert ("request_count_created" in openmetrics) is expected
    assert "_created" not in TEXT.render(registry).decode()


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=30))
def test_any_label_parses_back_from_both_formats(path):
    """A scrape gives back a label as it was recorded, whatever its text."""
    registry = CollectorRegistry()
    count(Records(registry).request(("GET", path)), 200, 0.1)
    for form, parse in [
        (TEXT, text_families),
        (choose_format("application/openmetrics-text;version=1.0.0"), text_string_to_metric_families),
    ]:
        families = {family.name: family for family in parse(form.render(registry).decode())}
        (sample,) = [each for each in families["request_count"].samples if each.name == "request_count_total"]
        assert sample.labels == {"method": "GET", "path": path, "status": "200"}
        assert sample.value == 1
