from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys

import pytest
from conftest import clean_environment, count, samples
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest

from hr_prometheus.exposition.formats import TEXT
from hr_prometheus.metrics import LATENCY_BUCKETS, REQUEST_COUNT, REQUEST_LATENCY
from hr_prometheus.request.records import Records
from hr_prometheus.store import files, store
from hr_prometheus.store.files import FilePages, Reader, clear_gauges
from hr_prometheus.store.store import basic_store

LABELS = ("GET", "/x")


@pytest.fixture
def worker(monkeypatch, tmp_path):
    """A function that makes the records of a worker with a slot, as a new process would."""

    def start(slot, **options) -> Records:
        registry = CollectorRegistry()
        monkeypatch.setattr(store, "REGISTRY", registry)
        monkeypatch.setattr(store, "pages_of_process", [FilePages(str(tmp_path / f"w{slot}"))])
        return Records(registry, **options)

    return start


def read(directory) -> dict[str, float]:
    return samples(generate_latest(Reader(str(directory))).decode())


def test_the_numbers_of_all_slots_are_added_up(worker, tmp_path):
    """Counters, histograms and gauges of the same series are one; a series of one slot is there as well."""
    for slot in range(3):
        record = worker(slot, detail="full").request(LABELS)
        record.enter()
        count(record, 200, 0.02)
        record.measure(0.001, 100, 0)
    count(worker(3).request(("GET", "/y")), 404, 1)
    found = read(tmp_path)
    assert found['request_count_total{method="GET",path="/x",status="200"}'] == 3
    assert found['request_count_total{method="GET",path="/y",status="404"}'] == 1
    assert found['requests_in_progress{method="GET",path="/x"}'] == 3
    assert found['request_latency_sum{method="GET",path="/x"}'] == pytest.approx(0.06)
    assert found['request_latency_bucket{le="0.01",method="GET",path="/x"}'] == 0
    assert found['request_latency_bucket{le="0.025",method="GET",path="/x"}'] == 3
    assert found['response_size_bytes_sum{method="GET",path="/x"}'] == 300


def test_who_takes_a_slot_over_goes_on(worker, tmp_path):
    """The files of a slot do not grow with its workers, and no number begins anew but what was in progress."""
    reader = Reader(str(tmp_path))
    sizes = set()
    for number in range(1, 5):
        record = worker(0).request(LABELS)
        record.enter()
        count(record, 200, 1.0)
        found = samples(generate_latest(reader).decode())
        assert found['request_count_total{method="GET",path="/x",status="200"}'] == number
        assert found['requests_in_progress{method="GET",path="/x"}'] == 1
        sizes.add(tuple(sorted((path.name, path.stat().st_size) for path in tmp_path.iterdir())))
    assert len(sizes) == 1
    clear_gauges(str(tmp_path / "w0"))
    assert samples(generate_latest(reader).decode())['requests_in_progress{method="GET",path="/x"}'] == 0
    clear_gauges(str(tmp_path / "w7"))  # one that never had any


def test_what_a_predecessor_counted_is_shown_before_it_is_counted_again(worker, tmp_path):
    """A new process has the series of its slot from the beginning."""
    count(worker(0).request(LABELS), 200, 1.0)
    records = worker(0)
    assert 'request_count_total{method="GET",path="/x",status="200"} 1.0' in TEXT.render(store.REGISTRY).decode()
    count(records.request(LABELS), 200, 1.0)
    assert read(tmp_path)['request_count_total{method="GET",path="/x",status="200"}'] == 2


def test_other_registries_stay_in_memory(worker, tmp_path):
    """Only what the global registry shows is shown for all workers."""
    worker(0)
    count(Records(CollectorRegistry()).request(LABELS), 200, 1.0)
    assert read(tmp_path) == {}


def test_histograms_with_other_buckets_are_others(worker, tmp_path):
    """After a change of its buckets a histogram is a new one; the same name with two sets of buckets stays apart."""
    count(worker(0, prefix="a_").request(LABELS), 200, 1.0)
    count(worker(1, prefix="b_", buckets=(1.0, 2.0)).request(LABELS), 200, 1.5)
    found = read(tmp_path)
    assert found['b_request_latency_bucket{le="1.0",method="GET",path="/x"}'] == 0
    assert found['b_request_latency_bucket{le="2.0",method="GET",path="/x"}'] == 1
    assert 'b_request_latency_bucket{le="0.005",method="GET",path="/x"}' not in found
    assert found['a_request_latency_count{method="GET",path="/x"}'] == 1


def test_what_is_in_progress_counts_whatever_the_buckets(worker, tmp_path):
    """After a reload workers may have other buckets than those they replace; the gauge is one, of all of them."""
    for slot, buckets in enumerate([(1.0,), (1.0, 2.0), (1.0,)]):
        record = worker(slot, buckets=buckets).request(LABELS)
        record.enter()
        count(record, 200, 0.5)
    assert read(tmp_path)['requests_in_progress{method="GET",path="/x"}'] == 3
    record = worker(0, buckets=(5.0,)).request(LABELS)  # it takes over a slot, of which nothing is in progress any more
    record.enter()
    record.enter()
    reader = Reader(str(tmp_path))
    (gauge,) = [family for family in reader.collect() if family.name == "requests_in_progress"]
    assert [sample.value for sample in gauge.samples] == [4]


def test_other_buckets_do_not_take_the_name_before_anything_ended_in_them(worker, tmp_path):
    """What has only begun in a worker with older buckets hides no latencies of its successors."""
    worker(0, buckets=(0.1,)).request(LABELS).enter()
    count(worker(1, buckets=(0.5,)).request(LABELS), 200, 0.2)
    (latency,) = [family for family in Reader(str(tmp_path)).collect() if family.name == "request_latency"]
    assert latency.bounds == (0.5,)


def test_more_series_than_a_page_has_room_for(worker, tmp_path):
    """The cells go on on the next page, and no series is on two."""
    records = worker(0)
    for number in range(1000):
        count(records.request(("GET", f"/{number}")), 200, number)
    assert (tmp_path / "w0.cells").stat().st_size == 3 * 65536
    found = read(tmp_path)
    assert all(found[f'request_latency_sum{{method="GET",path="/{number}"}}'] == number for number in range(1000))


KILLED = """
import sys
from hr_prometheus.store import files
files.use(sys.argv[1])
from prometheus_client import REGISTRY
from hr_prometheus.request.records import Records
records = Records(REGISTRY)
for number in range(100_000_000):
    record = records.request(("GET", f"/{number % 50}"))
    record.enter()
    record.finish("200", 0.0)
    print(number + 1, flush=True)
"""


def test_no_increment_is_lost_to_a_kill(tmp_path):
    """What was counted before kill -9 is there afterwards, many times over, at one increment's precision."""
    told = 0
    for kill in range(10):
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(tmp_path / "w0")],
            stdout=subprocess.PIPE,
            env=clean_environment(),
            text=True,
        )
        lines = [process.stdout.readline() for _ in range(30 + 17 * kill)]
        process.send_signal(signal.SIGKILL)
        told += int((lines + process.stdout.readlines())[-1])
        process.stdout.close()
        process.wait()
    counted = sum(value for name, value in read(tmp_path).items() if name.startswith("request_count_total"))
    assert told <= counted <= told + 10


@pytest.mark.parametrize("rest", ["", "[", '\n["request_count", "", [], ["GET", "/x", "200"], 0', "\x00\x00"])
def test_a_line_that_was_not_written_to_its_end(worker, tmp_path, rest):
    """It is passed over, and what is written behind it is read."""
    count(worker(0).request(LABELS), 200, 1.0)
    reader = Reader(str(tmp_path))
    generate_latest(reader)
    with (tmp_path / "w0.series").open("a") as file:
        file.write(rest)
    generate_latest(reader)
    count(worker(0).request(LABELS), 404, 1.0)
    for each in (reader, Reader(str(tmp_path))):
        found = samples(generate_latest(each).decode())
        assert found['request_count_total{method="GET",path="/x",status="200"}'] == 1
        assert found['request_count_total{method="GET",path="/x",status="404"}'] == 1


def test_a_file_that_was_cut_hurts_no_scrape(worker, tmp_path):
    """What can be read is shown: of the other slots, and later of this one."""
    count(worker(0).request(LABELS), 200, 1.0)
    count(worker(1).request(LABELS), 200, 1.0)
    os.truncate(tmp_path / "w0.cells", 0)
    assert read(tmp_path)['request_count_total{method="GET",path="/x",status="200"}'] == 1
    count(worker(0).request(LABELS), 200, 1.0)
    assert read(tmp_path)['request_count_total{method="GET",path="/x",status="200"}'] == 2


def test_a_full_file_system_is_an_error_and_no_signal(worker, tmp_path, monkeypatch):
    """Room for cells is taken before they are written to, so that a lack of it is an exception."""
    records = worker(0)

    def full(*_args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files.os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space left"):
        records.request(LABELS)
    monkeypatch.undo()
    records.request(LABELS).enter()


@pytest.mark.parametrize("written", [5, -1])
def test_half_a_line_is_an_error(worker, tmp_path, monkeypatch, written):
    """A series of which the line could not be written whole is none, and its cells are used for the next."""
    record = worker(0).request(LABELS)
    write = os.write
    monkeypatch.setattr(files.os, "write", lambda file, text: write(file, text[:written]))
    with pytest.raises(OSError, match="No space left"):
        count(record, 200, 1.0)
    monkeypatch.undo()
    count(record, 200, 1.0)
    found = read(tmp_path)
    assert found['request_count_total{method="GET",path="/x",status="200"}'] == 1
    assert found['request_latency_count{method="GET",path="/x"}'] == 1
    assert found['requests_in_progress{method="GET",path="/x"}'] == 0


@pytest.mark.parametrize(
    "line",
    [
        b"\x00" * 20,
        b"\xff\xfe",
        b"5",
        b"[]",
        b'["unheard_of", "", [], ["GET"], 0, 2]',
        b'["request_count", "", [], ["GET", "/", "200"], -5, 2]',
        b'["request_count", "", [], ["GET", "/", "200"], 8191, 2]',
        b'["request_latency", "", [], ["GET", "/z"], 100, 17]',
        b'["requests_in_progress", "", [], ["GET", "/z"], 100, 2]',
    ],
)
def test_a_line_that_is_none_is_passed_over(worker, tmp_path, line):
    """Whatever stands in a file, neither a scrape nor a worker's start fails, and the rest of it is read."""
    count(worker(0).request(LABELS), 200, 1.0)
    with (tmp_path / "w0.series").open("ab") as file:
        file.write(b"\n" + line + b"\n")
    assert read(tmp_path)['request_count_total{method="GET",path="/x",status="200"}'] == 1
    count(worker(0).request(LABELS), 200, 1.0)
    assert read(tmp_path)['request_count_total{method="GET",path="/x",status="200"}'] == 2


def test_a_fork_gives_no_cells_away(worker, tmp_path):
    """A process that the application forks cannot make a series of which the worker does not know."""
    records = worker(0)
    records.request(LABELS)
    pid = os.fork()
    if not pid:
        try:
            count(records.request(("GET", "/child")), 200, 1.0)
        finally:
            os._exit(0)  # whatever happens, it runs no further tests
    os.waitpid(pid, 0)
    count(records.request(("GET", "/parent")), 200, 1.0)
    found = read(tmp_path)
    assert found['request_count_total{method="GET",path="/parent",status="200"}'] == 1
    assert 'request_count_total{method="GET",path="/child",status="200"}' not in found


paths = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 3), paths, st.floats(0, 20), st.sampled_from([200, 404]))))
def test_the_sum_is_that_of_one_process(tmp_path_factory, made):
    """However requests are spread over workers, the numbers are those of one process that got them all."""
    directory = tmp_path_factory.mktemp("slots")
    alone, registries = Records(CollectorRegistry()), {}
    together = CollectorRegistry()
    alone = Records(together)
    with pytest.MonkeyPatch.context() as patch:
        for slot in range(4):
            registry = CollectorRegistry()
            patch.setattr(store, "REGISTRY", registry)
            patch.setattr(store, "pages_of_process", [FilePages(str(directory / f"w{slot}"))])
            registries[slot] = Records(registry)
    for slot, path, seconds, status in made:
        for records in (alone, registries[slot]):
            records.request(("GET", path)).enter()
            records.request(("GET", path)).finish(str(status), seconds)
    found = read(directory)
    expected = samples(generate_latest(together).decode())
    assert found == pytest.approx(expected)


def test_the_cells_of_a_file_are_cells(worker):
    """A store in a file gives out what a store in memory does."""
    page, first = worker(0).basic.cells(REQUEST_COUNT, (*LABELS, "200"))
    page[first] += 2.0
    again, index = worker(0).basic.cells(REQUEST_COUNT, (*LABELS, "200"))
    assert again[index] == 2.0
    opened = basic_store(store.REGISTRY)
    assert opened.buckets(REQUEST_LATENCY) == LATENCY_BUCKETS


def test_one_worker_of_all_warns_of_numbers_that_are_read_alone(monkeypatch, tmp_path, caplog):
    """Also where it has been started again."""
    for slot in (0, 1, 0):
        monkeypatch.setattr(files, "pages_of_process", [])
        files.use(str(tmp_path / f"w{slot}"), shown_at="http://metrics")
        (notice,) = store.read_alone
        notice()
        assert not store.read_alone
    (record,) = caplog.records
    assert record.message.endswith("Those of all workers are at http://metrics.")
