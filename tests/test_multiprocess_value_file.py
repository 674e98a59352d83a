from __future__ import annotations

import errno
import os
import signal
from contextlib import closing

import pytest
from conftest import DEADLINE, count, in_worker, metrics_kept_in_files, read_files, read_line, start_worker
from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

from hr_prometheus.multiprocess import value_file
from hr_prometheus.multiprocess.collector import MultiProcessCollector
from hr_prometheus.multiprocess.reader import ValueCollector
from hr_prometheus.multiprocess.slots import Slots
from hr_prometheus.multiprocess.value_class import enter_multiprocess_mode
from hr_prometheus.multiprocess.value_file import settle_values
from hr_prometheus.request.records import Records
from hr_prometheus.store.files import FileAllocator
from hr_prometheus.store.store import allocators


def refuse(*_args):
    """Take the place of a function of the operating system that has no room."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def errors(where) -> float:
    """Return how many errors there were."""
    return REGISTRY.get_sample_value("hr_prometheus_errors_total", {"where": where}) or 0.0


@pytest.fixture
def worker(tmp_path, monkeypatch):
    """Keep metrics that are made from now on as a worker with slot 0 does."""
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", "")  # so that it is restored
    monkeypatch.setitem(allocators, REGISTRY, FileAllocator(str(tmp_path / "w0")))
    monkeypatch.setattr(value_file, "_files", [])
    with metrics_kept_in_files():
        enter_multiprocess_mode(str(tmp_path), 0)
        yield
        for file in value_file._files.copy():
            file.close()


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize("function", ["posix_fallocate", "open"])
@pytest.mark.parametrize("is_new", [True, False])
def test_values_without_room_are_counted_in_memory(tmp_path, monkeypatch, caplog, function, is_new):
    """A mapped page without room would end this test by SIGBUS. They are in the files with the first look that has room."""
    made = Counter("made", "Help", ["name"], registry=None)
    times = Histogram("times", "Help", registry=None) if not is_new else None
    names = [f"{number:0100}" for number in range(200)]  # more than the smallest file has room for
    for name in names[: 0 if is_new else 100]:
        made.labels(name).inc()
    with monkeypatch.context() as patch:
        patch.setattr(value_file.os, function, refuse)
        for name in names:
            made.labels(name).inc(2)
        if times is not None:
            times.observe(1.0)
        settle_values()
    kept = sum(value for name, value in read_files(str(tmp_path)).items() if name.startswith("made_total"))
    assert kept == 0 if is_new else kept >= 300
    (message,) = [each.getMessage() for each in caplog.records]
    assert message.startswith(f"The values of new metrics cannot be written to {tmp_path}/counter_w0.db")
    settle_values()
    for name in names:
        made.labels(name).inc()
    numbers = read_files(str(tmp_path))
    assert all(numbers[f"made_total[('name', '{name}')]"] >= 3 for name in names)
    assert sum(numbers[f"made_total[('name', '{name}')]"] for name in names) == 600 + 100 * (not is_new)


@pytest.mark.usefixtures("worker")
def test_files_take_their_room_before_they_are_mapped(tmp_path):
    """A file has no holes: no later value can end the process."""
    made = Counter("made", "Help", ["name"], registry=None)
    for number in range(300):
        made.labels(f"{number:0100}").inc()
        status = os.stat(tmp_path / "counter_w0.db")
        assert status.st_blocks * 512 >= status.st_size
    assert status.st_size > 2 * 16384


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize("cut", [None, 0, 20, 10000])
def test_files_that_are_removed_or_cut_are_written_again(tmp_path, caplog, cut):
    """With all that was counted, by the living worker: no number is lost, and none is there twice."""
    made, level = (
        Counter("made", "Help", registry=None),
        Gauge("level", "Help", registry=None, multiprocess_mode="liveall"),
    )
    times = Histogram("times", "Help", registry=None)
    collector = MultiProcessCollector(str(tmp_path))
    for rounds in range(1, 4):
        made.inc()
        times.observe(1.0)
        level.set(rounds)
        collector.look()
        for path in tmp_path.glob("*.db"):
            if cut is None:
                path.unlink()
            else:
                os.truncate(path, cut)
        if cut is None:
            made.inc()  # where the file is cut the worker may be killed by this
        collector.look()
        settle_values()
        made.inc()
        scrape = {sample.name: sample.value for family in collector.scrape({}).collect() for sample in family.samples}
        assert scrape["made_total"] == rounds * (3 if cut is None else 2)
        assert scrape["times_count"] == rounds
        assert scrape["level"] == rounds
    collector.close()
    texts = [each.getMessage() for each in caplog.records if "written it again" in each.getMessage()]
    assert len(texts) == 9


def test_a_file_of_a_worker_that_has_ended_is_written_again(tmp_path):
    """By the supervisor, for the next worker. States of the process that has ended stay away."""
    code = """
    from prometheus_client import Counter, Gauge
    Counter('made', 'Help').inc()
    Gauge('level', 'Help', multiprocess_mode='livesum').inc()
    """
    slots = Slots(str(tmp_path))
    collector = MultiProcessCollector(slots.path)
    for number in range(1, 4):
        in_worker(slots.path, 0, code)
        collector.look()
        slots.reclaim(0)
        collector.look()
        assert read_files(slots.path) == {"made_total[]": number}
        for path in os.listdir(slots.path):
            if path.endswith(".db"):
                os.remove(os.path.join(slots.path, path))
        collector.look()
    collector.close()
    slots.remove()


def test_a_removed_file_that_has_no_room_is_shown_still(tmp_path, monkeypatch):
    """It is written again when there is some."""
    slots = Slots(str(tmp_path))
    in_worker(slots.path, 0, "from prometheus_client import Counter; Counter('made', 'Help').inc()")
    path = os.path.join(slots.path, "counter_w0.db")
    with closing(ValueCollector(slots.path)) as collector:
        collector.look()
        os.remove(path)
        with monkeypatch.context() as patch:
            patch.setattr(os, "link", refuse)
            shown = [[sample.value for family in collector.collect() for sample in family.samples] for _ in range(2)]
        assert shown == [[1.0], [1.0]]
        assert not os.path.exists(path)
        collector.look()
    assert read_files(slots.path) == {"made_total[]": 1}
    slots.remove()


def test_a_worker_that_is_killed_without_its_file_loses_nothing(tmp_path):
    """The supervisor still reads what it had counted until then, in the file that was removed."""
    code = """
    from prometheus_client import Counter
    made = Counter("made", "Help")
    for _ in range(3):
        made.inc()
        print("made", flush=True)
        input()
    """
    slots = Slots(str(tmp_path))
    collector = MultiProcessCollector(slots.path)
    process = start_worker(slots.path, 0, code)
    read_line(process)
    collector.look()
    os.remove(os.path.join(slots.path, "counter_w0.db"))
    process.stdin.write("\n")
    process.stdin.flush()
    read_line(process)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=DEADLINE)
    collector.look()
    slots.reclaim(0)
    assert read_files(slots.path) == {"made_total[]": 2}
    collector.close()
    slots.remove()


def test_a_cut_file_of_a_worker_that_has_ended_is_an_error(tmp_path, caplog):
    """In the log, too. It is another file then, which begins at zero."""
    slots = Slots(str(tmp_path))
    collector = MultiProcessCollector(slots.path)
    code = "from prometheus_client import Counter; Counter('made', 'Help').inc()"
    in_worker(slots.path, 0, code)
    collector.look()
    before, path = errors("files"), os.path.join(slots.path, "counter_w0.db")
    os.truncate(path, 0)
    for _ in range(2):
        collector.look()
    slots.reclaim(0)
    assert errors("files") == before + 1
    (message,) = [each.getMessage() for each in caplog.records]
    assert message.startswith(f"Another process has truncated {path}. Values that its worker cannot write again")
    in_worker(slots.path, 0, code)
    collector.look()
    assert read_files(slots.path) == {"made_total[]": 1}
    collector.close()
    slots.remove()


@pytest.mark.usefixtures("worker")
def test_values_that_end_with_a_worker_are_an_error(tmp_path, monkeypatch, caplog):
    """The log says how many there were."""
    slots = Slots(str(tmp_path))
    monkeypatch.setitem(allocators, REGISTRY, FileAllocator(os.path.join(slots.path, "w0")))
    with monkeypatch.context() as patch:
        patch.setattr(value_file.os, "posix_fallocate", refuse)
        Counter("made", "Help", registry=None).inc()
    before = errors("memory")
    slots.reclaim(0)
    assert errors("memory") == before + 1
    assert "0 requests, in 0 series, and 1 values of the application's metrics" in caplog.records[-1].getMessage()
    slots.remove()


def test_each_request_that_ends_with_a_worker_is_an_error(tmp_path, monkeypatch, caplog):
    """So what was answered is what is counted, or among the errors."""
    slots, registry = Slots(str(tmp_path)), CollectorRegistry()
    monkeypatch.setitem(allocators, registry, FileAllocator(os.path.join(slots.path, "w0")))
    with monkeypatch.context() as patch:
        patch.setattr(value_file.os, "write", refuse)
        record = Records(registry).request(("GET", "/x"))
        for _ in range(5):
            count(record, 200, 1.0)
    before = errors("memory")
    slots.reclaim(0)
    assert errors("memory") == before + 5
    assert "5 requests, in 2 series, and 0 values" in caplog.records[-1].getMessage()
    slots.remove()
