from __future__ import annotations

import os

import pytest
from conftest import metrics_kept_in_files, samples
from prometheus_client import CollectorRegistry, generate_latest, values
from prometheus_client.multiprocess import MultiProcessCollector

from hr_prometheus.metrics import REQUEST_LATENCY, SCRAPE_LINES
from hr_prometheus.store.store import basic_store, self_store

LABELS = ("GET", "/")
COUNT = 'request_latency_count{method="GET",path="/"}'
IN_PROGRESS = 'requests_in_progress{method="GET",path="/"}'


@pytest.fixture
def process(tmp_path, monkeypatch):
    """Enter prometheus_client's multi-process mode; a list of one, the identifier of this process."""
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    names = ["1"]
    with metrics_kept_in_files():
        values.ValueClass = values.MultiProcessValue(lambda: names[0])
        yield names


def of_all_processes(tmp_path) -> dict[str, float]:
    """Return the samples that a MultiProcessCollector collects of all processes."""
    registry = CollectorRegistry()
    MultiProcessCollector(registry, str(tmp_path))
    return samples(generate_latest(registry).decode())


def test_the_numbers_are_in_the_files_of_prometheus_client(registry, tmp_path, process):
    """Histograms, what is in progress and gauges are; the process itself shows the same."""
    store = basic_store(registry)
    page, first = store.allocate(REQUEST_LATENCY, LABELS)
    page[first - 1] += 3.0  # three have begun,
    store.observe(REQUEST_LATENCY, LABELS, 0.02)  # one has ended,
    page[first - 1] -= 1.0  # and one ends without being observed
    lines, index = self_store(registry).allocate(SCRAPE_LINES, ())
    lines[index] = 7.0
    own = samples(generate_latest(registry).decode())
    for numbers in (of_all_processes(tmp_path), own):
        assert (numbers[COUNT], numbers[IN_PROGRESS], numbers["hr_prometheus_scrape_lines"]) == (1, 1, 7)
        assert numbers['request_latency_bucket{le="0.025",method="GET",path="/"}'] == 1
        assert numbers['request_latency_bucket{le="0.01",method="GET",path="/"}'] == 0
        assert numbers['request_latency_sum{method="GET",path="/"}'] == 0.02


def test_there_are_no_native_histograms(registry, tmp_path, process):
    """Others read the files, and they know none: asked for, they are left out."""
    store = basic_store(registry, native="only")
    store.observe(REQUEST_LATENCY, LABELS, 0.02)
    own = samples(generate_latest(registry).decode())
    for numbers in (of_all_processes(tmp_path), own):
        assert len([name for name in numbers if name.startswith("request_latency_bucket")]) == 15
        assert numbers['request_latency_bucket{le="0.025",method="GET",path="/"}'] == 1


def test_a_forked_process_begins_at_zero(registry, tmp_path, process, monkeypatch):
    """Its numbers are in files of its own, and no request of its parent is in progress in it."""
    store = basic_store(registry)
    page, first = store.allocate(REQUEST_LATENCY, LABELS)
    page[first - 1] += 2.0
    store.observe(REQUEST_LATENCY, LABELS, 0.02)
    process[0] = "2"
    monkeypatch.setattr(os, "getpid", lambda: -1)
    page[first - 1] += 1.0
    assert samples(generate_latest(registry).decode())[IN_PROGRESS] == 1
    store.observe(REQUEST_LATENCY, LABELS, 0.02)
    numbers = of_all_processes(tmp_path)
    assert (numbers[COUNT], numbers[IN_PROGRESS]) == (2, 1)


def test_a_missing_directory_loses_no_request(registry, process, monkeypatch, caplog):
    """The numbers are in memory then, and one warning says so."""
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", "/nowhere/at/all")
    store = basic_store(registry)
    for path in ("/a", "/b"):
        store.observe(REQUEST_LATENCY, ("GET", path), 0.02)
    assert samples(generate_latest(registry).decode())['request_latency_count{method="GET",path="/b"}'] == 1
    (record,) = caplog.records
    assert "cannot keep numbers in PROMETHEUS_MULTIPROC_DIR" in record.message
