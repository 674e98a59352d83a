from __future__ import annotations

import os

import pytest
from conftest import count, samples
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import REGISTRY, CollectorRegistry, generate_latest

from hr_prometheus.metrics import REQUEST_COUNT
from hr_prometheus.multiprocess.aggregate_cells import CellCollector
from hr_prometheus.names import DEFAULT_NAMING
from hr_prometheus.request.records import Records
from hr_prometheus.store.cells import ReadableAllocator, SeriesId
from hr_prometheus.store.families import with_created
from hr_prometheus.store.files import FileAllocator
from hr_prometheus.store.store import allocators

LABELS = ("GET", "/x")


def read(directory) -> dict[str, float]:
    """Return the samples of all slots in a directory."""
    return samples(generate_latest(CellCollector(str(directory))).decode())


def test_the_numbers_of_all_slots_are_summed(worker_records, tmp_path):
    """Counters, histograms and gauges of one series are one sample; a series of one slot is shown, too."""
    for slot in range(3):
        record = worker_records(slot, detail="full").request(LABELS)
        record.begin()
        count(record, 200, 0.02)
        record.measure(0.001, 100, 0)
    count(worker_records(3).request(("GET", "/y")), 404, 1)
    sums = read(tmp_path)
    assert sums['request_count_total{method="GET",path="/x",status="200"}'] == 3
    assert sums['request_count_total{method="GET",path="/y",status="404"}'] == 1
    assert sums['requests_in_progress{method="GET",path="/x"}'] == 3
    assert sums['request_latency_sum{method="GET",path="/x"}'] == pytest.approx(0.06)
    assert sums['request_latency_bucket{le="0.01",method="GET",path="/x"}'] == 0
    assert sums['request_latency_bucket{le="0.025",method="GET",path="/x"}'] == 3
    assert sums['response_size_bytes_sum{method="GET",path="/x"}'] == 300


def test_cells_of_the_reader_itself_are_added(worker_records, tmp_path):
    """They are in no file, and outlive the cut of those of the workers."""
    own, records = ReadableAllocator(), worker_records(0)
    collector = CellCollector(str(tmp_path), own)
    counted = SeriesId(REQUEST_COUNT, DEFAULT_NAMING, (), ("GET", "/x", "200"))
    for total in (2, 1):
        count(records.request(LABELS), 200, 1.0)
        if total == 2:
            page, first = own.allocate(counted)
            page[first] += 1.0
        else:
            os.truncate(tmp_path / "w0.cells", 0)
        sums = samples(generate_latest(collector).decode())
        assert sums['request_count_total{method="GET",path="/x",status="200"}'] == total


def test_histograms_with_different_buckets_are_not_mixed(worker_records, tmp_path):
    """Each has the counts of its own workers."""
    count(worker_records(0, prefix="a_").request(LABELS), 200, 1.0)
    count(worker_records(1, prefix="b_", buckets=(1.0, 2.0)).request(LABELS), 200, 1.5)
    sums = read(tmp_path)
    assert sums['b_request_latency_bucket{le="1.0",method="GET",path="/x"}'] == 0
    assert sums['b_request_latency_bucket{le="2.0",method="GET",path="/x"}'] == 1
    assert 'b_request_latency_bucket{le="0.005",method="GET",path="/x"}' not in sums
    assert sums['a_request_latency_count{method="GET",path="/x"}'] == 1


def test_in_progress_is_summed_over_all_buckets(worker_records, tmp_path):
    """After a reload workers may have other buckets than those they replace; the gauge is the sum of all."""
    for slot, buckets in enumerate([(1.0,), (1.0, 2.0), (1.0,)]):
        record = worker_records(slot, buckets=buckets).request(LABELS)
        record.begin()
        count(record, 200, 0.5)
    assert read(tmp_path)['requests_in_progress{method="GET",path="/x"}'] == 3
    record = worker_records(0, buckets=(5.0,)).request(LABELS)  # nothing of its predecessor is in progress
    record.begin()
    record.begin()
    assert read(tmp_path)['requests_in_progress{method="GET",path="/x"}'] == 4


def test_workers_with_other_buckets_add_up_over_the_bounds_in_common(worker_records, tmp_path):
    """After a reload no latency is lost: neither of old nor of new workers, nor what is summed over all."""
    seconds = [0.05, 0.2, 0.7, 3.0, 9.0]
    for slot, buckets in enumerate([(0.1, 0.5, 1.0), (0.5, 1.0, 5.0), (0.1, 1.0)]):
        for number in seconds:
            count(worker_records(slot, buckets=buckets).request(LABELS), 200, number)
    sums = read(tmp_path)
    labels = '{le="%s",method="GET",path="/x"}'
    buckets = {name: value for name, value in sums.items() if name.startswith("request_latency_bucket")}
    assert buckets == {f"request_latency_bucket{labels % bound}": n for bound, n in {"1.0": 9, "+Inf": 15}.items()}
    assert sums['request_latency_count{method="GET",path="/x"}'] == 15
    assert sums['request_latency_sum{method="GET",path="/x"}'] == pytest.approx(3 * sum(seconds))


def test_a_truncated_file_hides_no_other_slot(worker_records, tmp_path):
    """A scrape shows what can be read: of the other slots, and of this one once its next worker has repaired the file."""
    count(worker_records(0).request(LABELS), 200, 1.0)
    count(worker_records(1).request(LABELS), 200, 1.0)
    os.truncate(tmp_path / "w0.cells", 0)
    assert read(tmp_path)['request_count_total{method="GET",path="/x",status="200"}'] == 1
    count(worker_records(0).request(LABELS), 200, 1.0)
    assert read(tmp_path)['request_count_total{method="GET",path="/x",status="200"}'] == 2


def test_a_cut_while_a_scrape_is_rendered_ends_no_reader(worker_records, tmp_path):
    """The scrape has the numbers of its beginning. Reading a mapped page would end this test by SIGBUS."""
    count(worker_records(0).request(LABELS), 200, 1.0)
    families = list(CellCollector(str(tmp_path)).collect())
    os.truncate(tmp_path / "w0.cells", 0)
    counted = {sample.name: sample.value for family in families for sample in family.samples}
    assert counted["request_count_total"] == 1


def test_a_cut_before_the_first_scrape_is_an_error(worker_records, tmp_path, caplog):
    """It is in the log, and counted: the series say how long the file was. The numbers of its first scrape begin at zero."""
    count(worker_records(0).request(LABELS), 200, 1.0)
    errors = REGISTRY.get_sample_value("hr_prometheus_errors_total", {"where": "files"}) or 0.0
    os.truncate(tmp_path / "w0.cells", 0)
    collector = CellCollector(str(tmp_path))
    for _ in range(2):
        collector.look()
    (message,) = [each.getMessage() for each in caplog.records]
    assert message.startswith("Another process has truncated files of the workers' numbers")
    assert REGISTRY.get_sample_value("hr_prometheus_errors_total", {"where": "files"}) == errors + 1


def test_files_that_are_removed_again_keep_their_numbers(worker_records, tmp_path):
    """Those of workers that have ended, too, if somebody has looked at them."""
    collector = CellCollector(str(tmp_path))
    for slot in range(3):
        count(worker_records(slot).request(LABELS), 200, 1.0)
        collector.look()
        for path in tmp_path.iterdir():
            path.unlink()
    sums = samples(generate_latest(collector).decode())
    assert sums['request_count_total{method="GET",path="/x",status="200"}'] == 3


def removed_files(directory) -> list[str]:
    """Return the removed files that this process has open, but not those that it has only mapped."""
    links = (f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd"))
    files = [os.readlink(link) for link in links if os.path.islink(link)]
    return [name for name in files if name.startswith(str(directory)) and name.endswith(".series (deleted)")]


def test_removed_files_are_closed_when_their_workers_have_ended(worker_records, tmp_path):
    """Their counts stay, with the time of the first one, and without what was in progress."""
    collector, times = CellCollector(str(tmp_path)), set()
    for removals in range(1, 4):
        record = worker_records(0).request(LABELS)
        record.begin()
        count(record, 200, 0.5)
        collector.look()
        for path in tmp_path.iterdir():
            path.unlink()
        collector.look()
        collector.close_removed(["w1"])
        assert not removed_files(tmp_path)
        token = with_created.set(True)
        sums = samples(generate_latest(collector).decode())
        with_created.reset(token)
        assert sums['request_count_total{method="GET",path="/x",status="200"}'] == removals
        assert sums['request_latency_bucket{le="0.5",method="GET",path="/x"}'] == removals
        assert sums['requests_in_progress{method="GET",path="/x"}'] == 0
        times.add(sums['request_count_created{method="GET",path="/x",status="200"}'])
    assert len(times) == 1


def test_removed_files_of_a_living_worker_go_on(worker_records, tmp_path):
    """It counts there until it has others, and what it has counted stays when it has ended."""
    collector, record = CellCollector(str(tmp_path)), worker_records(0).request(LABELS)
    count(record, 200, 0.5)
    collector.look()
    for path in tmp_path.iterdir():
        path.unlink()
    for living in (["w0"], []):
        count(record, 200, 0.5)
        collector.look()
        collector.close_removed(living)
        assert bool(removed_files(tmp_path)) == bool(living)
    sums = samples(generate_latest(collector).decode())
    assert sums['request_count_total{method="GET",path="/x",status="200"}'] == 3


paths = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 3), paths, st.floats(0, 20), st.sampled_from([200, 404]))))
def test_the_sum_is_that_of_one_process(tmp_path_factory, requests):
    """However requests are spread over workers, the numbers are those of one process that got them all."""
    directory = tmp_path_factory.mktemp("slots")
    one_process = CollectorRegistry()
    alone, workers = Records(one_process), {}
    with pytest.MonkeyPatch.context() as patch:
        for slot in range(4):
            registry = CollectorRegistry()
            patch.setitem(allocators, registry, FileAllocator(str(directory / f"w{slot}")))
            workers[slot] = Records(registry)
    for slot, path, seconds, status in requests:
        for records in (alone, workers[slot]):
            records.request(("GET", path)).begin()
            records.request(("GET", path)).finish(str(status), seconds)
    assert read(directory) == pytest.approx(samples(generate_latest(one_process).decode()))
