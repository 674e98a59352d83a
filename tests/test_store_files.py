from __future__ import annotations

import errno
import os
import shutil
import signal
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import clean_environment, count, counts, samples
from prometheus_client import REGISTRY, CollectorRegistry, generate_latest

from hr_prometheus.exposition.formats import TEXT
from hr_prometheus.metrics import REQUEST_COUNT
from hr_prometheus.multiprocess.aggregate_cells import CellCollector
from hr_prometheus.names import DEFAULT_NAMING
from hr_prometheus.request.records import Records
from hr_prometheus.store import files
from hr_prometheus.store.exemplars import trace_exemplar
from hr_prometheus.store.files import FileAllocator, store_in_files
from hr_prometheus.store.slot_files import PAGE_CELLS, InMemory
from hr_prometheus.store.slot_reader import clear_gauges
from hr_prometheus.store.slot_writer import SLICE
from hr_prometheus.store.store import allocators, basic_store, collect_hooks, dump_exemplars, loop_store, share_cells

LABELS = ("GET", "/x")


def read(directory) -> dict[str, float]:
    """Return the samples of all slots in a directory."""
    return samples(generate_latest(CellCollector(str(directory))).decode())


def test_the_next_worker_in_a_slot_goes_on_with_its_numbers(worker_records, tmp_path):
    """Files do not grow with each worker. Only what was in progress begins at zero."""
    collector = CellCollector(str(tmp_path))
    sizes = set()
    for number in range(1, 5):
        record = worker_records(0).request(LABELS)
        record.begin()
        count(record, 200, 1.0)
        numbers = samples(generate_latest(collector).decode())
        assert numbers['request_count_total{method="GET",path="/x",status="200"}'] == number
        assert numbers['requests_in_progress{method="GET",path="/x"}'] == 1
        sizes.add(tuple(sorted((path.name, path.stat().st_size) for path in tmp_path.iterdir())))
    assert len(sizes) == 1
    clear_gauges(str(tmp_path / "w0"))
    assert samples(generate_latest(collector).decode())['requests_in_progress{method="GET",path="/x"}'] == 0
    clear_gauges(str(tmp_path / "w7"))  # a slot without files


def test_a_worker_shows_the_series_of_its_predecessor(worker_records, registry, tmp_path):
    """A new process has the series of its slot before it counts anything."""
    count(worker_records(0).request(LABELS), 200, 1.0)
    records = worker_records(0, registry)
    assert 'request_count_total{method="GET",path="/x",status="200"} 1.0' in TEXT.render(registry).decode()
    count(records.request(LABELS), 200, 1.0)
    assert read(tmp_path)['request_count_total{method="GET",path="/x",status="200"}'] == 2


def test_other_registries_stay_in_memory(worker_records, tmp_path):
    """Only the numbers of a registry with an allocator are in files."""
    worker_records(0)
    count(Records(CollectorRegistry()).request(LABELS), 200, 1.0)
    assert read(tmp_path) == {}


def test_more_series_than_a_page_can_hold(worker_records, tmp_path):
    """A series that does not fit on a page is on the next one. Pages hold no more descriptors, and room only when it is needed."""
    records = worker_records(0)
    for number in range(1000):
        count(records.request(("GET", f"/{number}")), 200, number)
    assert len([path for path in Path("/proc/self/fd").iterdir() if path.resolve() == tmp_path / "w0.cells"]) == 1
    assert (tmp_path / "w0.cells").stat().st_blocks * 512 < 4 * 65536
    numbers = read(tmp_path)
    assert all(numbers[f'request_latency_sum{{method="GET",path="/{number}"}}'] == number for number in range(1000))


KILLED = """
import sys
from hr_prometheus.store.files import store_in_files
from hr_prometheus.store.slot_files import PAGE_CELLS, InMemory
store_in_files(sys.argv[1])
from prometheus_client import REGISTRY
from hr_prometheus.request.records import Records
records = Records(REGISTRY)
for number in range(100_000_000):
    record = records.request(("GET", f"/{number % 50}"))
    record.begin()
    record.finish("200", 0.0)
    print(number + 1, flush=True)
"""


def test_no_increment_is_lost_to_a_kill(tmp_path):
    """Each count that was printed before kill -9 is in the files, after five kills in one slot."""
    printed = 0
    for kill in range(5):
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(tmp_path / "w0")],
            stdout=subprocess.PIPE,
            env=clean_environment(),
            text=True,
        )
        lines = [process.stdout.readline() for _ in range(30 + 34 * kill)]
        process.send_signal(signal.SIGKILL)
        printed += int((lines + process.stdout.readlines())[-1])
        process.stdout.close()
        process.wait()
    counted = sum(value for name, value in read(tmp_path).items() if name.startswith("request_count_total"))
    assert printed <= counted <= printed + 5


@pytest.mark.parametrize("rest", ["", "[", '\n["request_count", "", [], ["GET", "/x", "200"], 0', "\x00\x00"])
def test_an_incomplete_line_is_skipped(worker_records, tmp_path, rest):
    """What is written after it is read."""
    count(worker_records(0).request(LABELS), 200, 1.0)
    collector = CellCollector(str(tmp_path))
    generate_latest(collector)
    with (tmp_path / "w0.series").open("a") as file:
        file.write(rest)
    generate_latest(collector)
    count(worker_records(0).request(LABELS), 404, 1.0)
    for each in (collector, CellCollector(str(tmp_path))):
        numbers = samples(generate_latest(each).decode())
        assert numbers['request_count_total{method="GET",path="/x",status="200"}'] == 1
        assert numbers['request_count_total{method="GET",path="/x",status="404"}'] == 1


def refuse(*_args):
    """Take the place of a function of the operating system that has no room."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def in_memory(directory) -> InMemory:
    """Return what is only in the memory of the worker, as its file says."""
    return InMemory(*struct.unpack("3d", (directory / "w0.cells").read_bytes()[:24]))


def allocator_of_worker() -> files.FileAllocator:
    """Return the allocator of the only worker of a test."""
    (allocator,) = [each for each in allocators.values() if isinstance(each, files.FileAllocator)]
    return allocator


@pytest.mark.parametrize("function", ["posix_fallocate", "open", "write"])
def test_series_without_room_are_counted_in_memory(worker_records, tmp_path, monkeypatch, caplog, function):
    """One look when there is room moves them: from then on each count is in the files at once, where no kill loses it."""
    monkeypatch.setattr(files.os, function, refuse)
    records = worker_records(0)
    allocator = allocator_of_worker()
    paths = "/x", "/y"
    for path in paths:
        count(records.request(("GET", path)), 200, 1.0)
    record = records.request(LABELS)
    record.begin()
    list(allocator.keep())
    assert read(tmp_path) == {}
    monkeypatch.undo()
    list(allocator.keep())
    for requests in 1, 2:
        numbers = read(tmp_path)
        for path in paths:
            labels = f'{{method="GET",path="{path}"}}'
            assert numbers[f'request_count_total{{method="GET",path="{path}",status="200"}}'] == requests
            assert numbers[f"request_latency_count{labels}"] == numbers[f"request_latency_sum{labels}"] == requests
            assert numbers[f"requests_in_progress{labels}"] == (path == "/x" and requests == 1)
        if requests == 1:
            count(records.request(("GET", "/y")), 200, 1.0)
            record.finish("200", 1.0)
    assert in_memory(tmp_path) == InMemory()
    (message,) = [each.getMessage() for each in caplog.records]
    assert message.startswith("The numbers of new series cannot be written ([Errno 28] No space left on device")


def test_many_series_without_room(worker_records, tmp_path, monkeypatch):
    """They move in slices, between which the event loop goes on, and nothing of them is moved again."""
    with monkeypatch.context() as patch:
        patch.setattr(files.os, "write", refuse)
        patch.setattr(files.os, "posix_fallocate", refuse)
        records = worker_records(0)
        for number in range(1000):
            count(records.request(("GET", f"/{number}")), 200, number)
    allocator = allocator_of_worker()
    assert len(list(allocator.keep())) == 2000 // SLICE - 1
    assert not list(allocator.keep())
    for number in range(1000):
        count(records.request(("GET", f"/{number}")), 200, number)
    numbers = read(tmp_path)
    for number in range(1000):
        assert numbers[f'request_count_total{{method="GET",path="/{number}",status="200"}}'] == 2
        assert numbers[f'request_latency_sum{{method="GET",path="/{number}"}}'] == 2 * number


@pytest.mark.parametrize("function", ["posix_fallocate", "write"])
def test_the_file_says_how_many_requests_are_only_in_memory(worker_records, tmp_path, monkeypatch, function):
    """At each moment, for a kill would end them, and once. Those that could be moved before are none of them."""
    records = worker_records(0)
    count(records.request(("GET", "/first")), 200, 1.0)
    if function == "posix_fallocate":  # it is asked for room for the next page
        allocator_of_worker()._files._next = PAGE_CELLS - 1
    with monkeypatch.context() as patch:
        patch.setattr(files.os, function, refuse)
        for requests in range(1, 4):
            for labels in (("GET", "/first"), ("GET", "/lost"), ("POST", "/lost")):
                count(records.request(labels), 200, 1.0)
            assert in_memory(tmp_path) == InMemory(4, 2 * requests, 0)
        lost = tmp_path / "killed"
        lost.mkdir()
        for suffix in (".cells", ".series"):
            shutil.copy(tmp_path / f"w0{suffix}", lost)
        assert [clear_gauges(str(lost / "w0")) for _ in range(2)] == [InMemory(4, 6, 0), InMemory()]
    list(allocator_of_worker().keep())
    count(records.request(("GET", "/lost")), 200, 1.0)
    assert in_memory(tmp_path) == InMemory()
    assert read(tmp_path)['request_count_total{method="GET",path="/lost",status="200"}'] == 4


def test_room_for_some_series(worker_records, tmp_path, monkeypatch):
    """Those whose lines are written whole are in the files, and the others still wait: none is there twice."""
    records, write = worker_records(0), os.write
    with monkeypatch.context() as patch:
        patch.setattr(files.os, "write", refuse)
        for number in range(4):
            count(records.request(("GET", f"/{number}")), 200, 1.0)
        patch.setattr(files.os, "write", lambda file, text: write(file, text[: len(text) // 2]))
        list(allocator_of_worker().keep())
        assert 0 < sum(name.startswith("request_count_total") for name in read(tmp_path)) < 4
        waiting = 4 - sum(name.startswith("request_count_total") for name in read(tmp_path))
        assert in_memory(tmp_path).requests == waiting
    list(allocator_of_worker().keep())
    for number in range(4):
        count(records.request(("GET", f"/{number}")), 200, 1.0)
        assert read(tmp_path)[f'request_count_total{{method="GET",path="/{number}",status="200"}}'] == 2


@pytest.mark.parametrize("rest", [None, 0, 20, 100])
def test_lines_that_another_process_cuts_are_written_again(worker_records, tmp_path, caplog, rest):
    """By the living worker, whose cells are as they were. A scrape has all its counts, before and after, also of new series."""
    records = worker_records(0)
    collector = CellCollector(str(tmp_path))
    path = tmp_path / "w0.series"
    counted = 'request_count_total{method="GET",path="/x",status="%d"}'
    for round_ in range(1, 4):
        count(records.request(LABELS), 200, 1.0)
        collector.look()
        if rest is None:
            path.unlink()
        else:
            os.truncate(path, rest)
        if round_ > 1:  # the supervisor may see it before the worker
            collector.look()
        count(records.request(LABELS), 200, 1.0)
        count(records.request(LABELS), 400 + round_, 1.0)
        list(allocator_of_worker().keep())
        count(records.request(LABELS), 200, 1.0)
        for each in (collector, CellCollector(str(tmp_path))):
            numbers = samples(generate_latest(each).decode())
            assert numbers[counted % 200] == 3 * round_
            assert all(numbers[counted % (400 + number)] == 1 for number in range(1, round_ + 1))
            assert numbers['request_latency_count{method="GET",path="/x"}'] == 4 * round_
    again = [each.getMessage() for each in caplog.records if "written it again" in each.getMessage()]
    assert again == [f"Another process has removed or truncated {path}. The worker has written it again."] * 3


def test_cells_whose_lines_are_gone_are_no_cells_of_the_next_worker(worker_records, tmp_path):
    """What the supervisor has read of them stays."""
    count(worker_records(0).request(LABELS), 200, 1.0)
    collector = CellCollector(str(tmp_path))
    collector.look()
    (tmp_path / "w0.series").unlink()
    count(worker_records(0).request(("GET", "/y")), 200, 1.0)
    numbers = samples(generate_latest(collector).decode())
    for path in ("/x", "/y"):
        assert numbers[f'request_count_total{{method="GET",path="{path}",status="200"}}'] == 1


def test_series_of_removed_files_move_in_slices(worker_records, tmp_path):
    """Other work goes on between them, and their counts are whole at each moment."""
    records = worker_records(0)
    collector = CellCollector(str(tmp_path))
    for number in range(300):
        count(records.request(("GET", f"/{number}")), 200, 1.0)
    collector.look()
    for path in tmp_path.iterdir():
        path.unlink()
    slices = 0
    for _ in allocator_of_worker().keep():
        slices += 1
        assert sum(counts(generate_latest(collector).decode()).values()) == 300
    assert slices == 6


@pytest.mark.parametrize("written", [5, -1])
def test_a_short_write_is_no_series(worker_records, tmp_path, monkeypatch, written):
    """It exists when its line is written whole; what it has counted until then is not lost."""
    record = worker_records(0).request(LABELS)
    allocator = allocator_of_worker()
    write = os.write
    monkeypatch.setattr(files.os, "write", lambda file, text: write(file, text[:written]))
    count(record, 200, 1.0)
    assert "request_count_total" not in " ".join(read(tmp_path))
    monkeypatch.undo()
    count(record, 200, 1.0)
    list(allocator.keep())
    numbers = read(tmp_path)
    assert numbers['request_count_total{method="GET",path="/x",status="200"}'] == 2
    assert numbers['request_latency_count{method="GET",path="/x"}'] == 2
    assert numbers['requests_in_progress{method="GET",path="/x"}'] == 0


@pytest.mark.parametrize("suffix", [".cells", ".series"])
@pytest.mark.parametrize("rest", [0, 20])
def test_a_file_that_another_process_cuts(worker_records, tmp_path, caplog, suffix, rest):
    """A scrape and the next worker begin at zero where it was cut, with one error; a killing signal would end this test."""
    count(worker_records(0).request(LABELS), 200, 1.0)
    collector = CellCollector(str(tmp_path))
    assert list(collector.collect())
    os.truncate(tmp_path / f"w0{suffix}", rest)
    counted = 'request_count_total{method="GET",path="/x",status="200"}'
    assert samples(generate_latest(collector).decode()).get(counted, 0) == 0
    (message,) = [each.getMessage() for each in caplog.records]
    assert message.startswith("Another process has truncated files of the workers' numbers")
    count(worker_records(0).request(LABELS), 200, 1.0)
    for each in (collector, CellCollector(str(tmp_path))):
        assert samples(generate_latest(each).decode())[counted] == 1
    assert len(caplog.records) == 1


def test_a_file_that_was_cut_and_has_grown_again(worker_records, tmp_path, caplog):
    """By the next worker, beyond where it was cut: each series has its own numbers, and none of another one."""
    count(worker_records(0).request(LABELS), 200, 1.0)
    collector = CellCollector(str(tmp_path))
    list(collector.collect())
    for suffix in (".cells", ".series"):
        os.truncate(tmp_path / f"w0{suffix}", 0)
    records = worker_records(0)
    for number in range(1, 5):
        for _ in range(number):
            count(records.request(("GET", f"/{number}")), 200, 1.0)
    numbers = samples(generate_latest(collector).decode())
    requests = {name: value for name, value in numbers.items() if name.startswith("request_count_total")}
    assert requests == {f'request_count_total{{method="GET",path="/{n}",status="200"}}': n for n in range(1, 5)}
    assert len(caplog.records) == 1


def test_a_worker_outlives_the_cut_of_its_file(worker_records, tmp_path):
    """From the next scrape on, which makes the file as long as it was."""
    record = worker_records(0).request(LABELS)
    count(record, 200, 1.0)
    collector = CellCollector(str(tmp_path))
    list(collector.collect())
    os.truncate(tmp_path / "w0.cells", 0)
    list(collector.collect())
    count(record, 200, 1.0)
    assert read(tmp_path)['request_count_total{method="GET",path="/x",status="200"}'] == 1


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
def test_an_invalid_line_is_skipped(worker_records, tmp_path, line):
    """Neither a scrape nor a worker's start fails, and the other lines are read."""
    count(worker_records(0).request(LABELS), 200, 1.0)
    with (tmp_path / "w0.series").open("ab") as file:
        file.write(b"\n" + line + b"\n")
    assert read(tmp_path)['request_count_total{method="GET",path="/x",status="200"}'] == 1
    count(worker_records(0).request(LABELS), 200, 1.0)
    assert read(tmp_path)['request_count_total{method="GET",path="/x",status="200"}'] == 2


def test_a_fork_writes_no_series_to_the_files(worker_records, tmp_path):
    """The worker, which does not see the series of its fork, could give out the same cells."""
    records = worker_records(0)
    records.request(LABELS)
    pid = os.fork()
    if not pid:
        try:
            count(records.request(("GET", "/child")), 200, 1.0)
        finally:
            os._exit(0)  # whatever happens, it runs no further tests
    os.waitpid(pid, 0)
    count(records.request(("GET", "/parent")), 200, 1.0)
    numbers = read(tmp_path)
    assert numbers['request_count_total{method="GET",path="/parent",status="200"}'] == 1
    assert 'request_count_total{method="GET",path="/child",status="200"}' not in numbers


def test_a_series_has_the_same_cells_in_the_next_worker(worker_records):
    """A store finds the series of its slot again."""
    page, first = worker_records(0).basic.allocate(REQUEST_COUNT, (*LABELS, "200"))
    page[first] += 2.0
    page, first = worker_records(0).basic.allocate(REQUEST_COUNT, (*LABELS, "200"))
    assert page[first] == 2.0


def test_the_request_metrics_of_another_registry_are_in_the_files_of_a_worker(monkeypatch, tmp_path):
    """So are their exemplars. Of two middlewares with the same names, those of the first, so that nothing is counted twice."""
    monkeypatch.setitem(allocators, REGISTRY, FileAllocator(str(tmp_path / "w0")))
    registries = [CollectorRegistry(), CollectorRegistry()]
    for registry in registries:
        records = Records(registry)
        share_cells(registry)
        count(records.request(LABELS), 200, 1.0)
        exemplars = records.basic.exemplars
        series = exemplars.of_series(REQUEST_COUNT, DEFAULT_NAMING, (*LABELS, "200"))
        exemplars.keep(series, 0, trace_exemplar("1" * 32, "2" * 16, 1.0, 1.0))
        loop_store(registry)
    counted = 'request_count_total{method="GET",path="/x",status="200"}'
    assert read(tmp_path)[counted] == 1
    assert len(dump_exemplars(REGISTRY)) == 1
    assert [samples(generate_latest(registry).decode())[counted] for registry in registries] == [1, 1]
    assert not [name for name in read(tmp_path) if name.startswith("hr_prometheus")]


def test_one_warning_of_numbers_that_are_read_alone(monkeypatch, tmp_path, caplog):
    """An application that collects the numbers of one worker is warned once, whichever worker it is, restarted or not."""
    monkeypatch.setitem(allocators, REGISTRY, None)  # so that it is restored
    for slot in (0, 1, 0):
        store_in_files(str(tmp_path / f"w{slot}"), totals_at="http://metrics")
        list(basic_store(CollectorRegistry()).collect())
        assert not collect_hooks
    (record,) = caplog.records
    assert record.message.endswith("Those of all workers are at http://metrics.")


@pytest.mark.parametrize("rest", [[], [".cells"], [".series"]], ids=["both", "series", "cells"])
def test_files_that_are_removed_are_written_anew(worker_records, tmp_path, rest):
    """What was counted, before and while they were gone, is in a scrape once, also when the worker is killed then."""
    records = worker_records(0)
    allocator = allocator_of_worker()
    record = records.request(LABELS)
    collector = CellCollector(str(tmp_path))
    counted = 'request_count_total{method="GET",path="/x",status="%s"}'
    for round_ in (1, 2):
        count(record, 200, 1.0)
        assert samples(generate_latest(collector).decode())[counted % 200] == round_ * 4 - 3
        for suffix in {".cells", ".series"}.difference(rest):
            os.remove(tmp_path / f"w0{suffix}")
        count(record, 200, 1.0)
        assert samples(generate_latest(collector).decode())[counted % 200] == round_ * 4 - 2
        count(record, 503, 1.0)  # a new series
        list(allocator.keep())
        count(record, 200, 1.0)  # into what is still mapped
        list(allocator.keep())
        count(record, 200, 1.0)
        numbers = samples(generate_latest(collector).decode())
        assert numbers[counted % 200] == round_ * 4
        assert numbers[counted % 503] == round_
    waiting = ".cells" not in rest  # for the next scrape
    assert read(tmp_path)[counted % 200] == 8 - waiting
