from __future__ import annotations

import glob
import math
import os
import struct
import tempfile
from contextlib import closing, contextmanager

import pytest
from conftest import metrics_kept_in_files
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import Counter, Gauge, Histogram, Summary, values
from prometheus_client.mmap_dict import MmapedDict, mmap_key
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from hr_prometheus.multiprocess.identity import worker_label
from hr_prometheus.multiprocess.reader import ValueCollector

MODES = sorted(Gauge._MULTIPROC_MODES)


@contextmanager
def workers_in(directory):
    """Have the metrics made after ``use(identifier)`` keep their values in *directory*; undo that at the end."""
    classes = {}

    def use(identifier):
        if identifier not in classes:
            classes[identifier] = values.MultiProcessValue(lambda: identifier)
        values.ValueClass = classes[identifier]
        return classes

    with metrics_kept_in_files(), pytest.MonkeyPatch.context() as patch:
        patch.setenv("PROMETHEUS_MULTIPROC_DIR", directory)
        yield use


def comparable(families, *, of_prometheus_client=False):
    """Return families as something that can be compared: samples without order, numbers to the last bit."""
    result = {}
    for family in families:
        samples = []
        for sample in family.samples:
            labels = dict(sample.labels)
            if of_prometheus_client and family.type == "gauge" and "pid" in labels:
                labels["worker"] = worker_label(labels.pop("pid"))
            samples.append((sample.name, sorted(labels.items()), repr(sample.value)))
        if samples:
            result[family.name] = (family.type, family.documentation, sorted(samples))
    return result


def of_prometheus_client(directory):
    """Return what prometheus_client's own collector reads in a directory."""
    files = sorted(glob.glob(os.path.join(glob.escape(directory), "*.db")))
    return comparable(MultiProcessCollector.merge(files), of_prometheus_client=True)


label_values = st.text(st.characters(exclude_categories=["Cs"]), max_size=8) | st.sampled_from(["", "a", '"\\\n', "é"])
labels = st.dictionaries(st.sampled_from(["a", "b_c", "mode", "_"]), label_values, max_size=2)
numbers = st.floats(width=32) | st.sampled_from([0.0, -0.0, 0.1, 1e300, float("inf"), float("nan")])
changes = st.tuples(
    st.sampled_from(["w0", "w1", "w10", "w0-4711", "815"]),
    st.sampled_from(["counter", "summary", "histogram", "shared", *MODES]),
    st.sampled_from(["One help text", 'Another\n"help" text']),
    labels,
    numbers,
)
deaths = st.sampled_from(["w0", "w1"])


def change(kind, documentation, labels, number, shared_mode="sum"):
    """Make a metric as an application does, and change one of its series."""
    names = tuple(labels)
    if kind == "counter":
        metric = Counter("counter", documentation, names, registry=None)
    elif kind == "summary":
        metric = Summary("summary", documentation, names, registry=None)
    elif kind == "histogram":
        metric = Histogram("histogram", documentation, names, registry=None, buckets=(0.5, 1, 1e10))
    else:
        name, mode = ("shared", shared_mode) if kind == "shared" else (f"gauge_{kind}", kind)
        metric = Gauge(name, documentation, names, registry=None, multiprocess_mode=mode)
    series = metric.labels(**labels) if labels else metric
    if kind == "counter":
        series.inc(max(number, 0))
    elif kind in ("summary", "histogram"):
        series.observe(number)
    elif not math.isnan(number):  # a NaN stands for a gauge that is made and never set
        series.set(number)


@settings(deadline=None)
@given(st.lists(st.lists(changes | deaths, max_size=12), min_size=1, max_size=4))
def test_the_samples_are_those_of_prometheus_client(scrapes):
    """Whatever the workers do between the scrapes, each of them shows what prometheus_client's collector reads."""
    with (
        tempfile.TemporaryDirectory() as directory,
        workers_in(directory) as use,
        closing(ValueCollector(directory)) as collector,
    ):
        for events in scrapes:
            for event in events:
                if isinstance(event, str):  # this worker has died, and will come again
                    mark_process_dead(event, directory)
                    use(event).pop(event)
                    continue
                identifier, kind, *what = event
                use(identifier)
                change(kind, *what, shared_mode="all" if identifier == "w1" else "max")
            expected = of_prometheus_client(directory)
            assert comparable(collector.collect()) == expected
            with closing(ValueCollector(directory)) as another:
                assert comparable(another.collect()) == expected


def test_a_gauge_has_the_mode_of_the_last_file(worker, collector, tmp_path):
    """As in prometheus_client, while workers of an old and a new version of the application live side by side."""
    worker("w0", "all", {}, 1)
    for identifier, number in (("w1", 5), ("w0", 7), ("w1", 6)):  # in w1 its mode is "all", in the others "max"
        worker(identifier, "shared", {}, number, shared_mode="all" if identifier == "w1" else "max")
        worker(identifier, "all", {}, number)
        assert comparable(collector.collect()) == of_prometheus_client(str(tmp_path))
    assert read(collector) == {"shared[]": 7, "gauge_all[('worker', '0')]": 7, "gauge_all[('worker', '1')]": 6}


@pytest.fixture
def worker(tmp_path):
    """Change a metric as the worker whose identifier is given."""
    with workers_in(str(tmp_path)) as use:

        def act(identifier, kind, labels, number, documentation="Help", **more):
            use(identifier)
            change(kind, documentation, labels, number, **more)

        yield act


@pytest.fixture
def collector(tmp_path):
    """A collector of the directory of the test."""
    collector = ValueCollector(str(tmp_path))
    yield collector
    collector.close()


def read(collector):
    """Return the samples as text and number."""
    return {
        f"{sample.name}{sorted(sample.labels.items())}": sample.value
        for family in collector.collect()
        for sample in family.samples
    }


def test_a_repeated_scrape_parses_nothing(worker, collector, monkeypatch):
    """Only keys that are new since the last scrape are parsed: its cost does not depend on history."""
    for number in range(200):  # more than one page
        worker("w0", "counter", {"a": str(number)}, 1)
    assert len(read(collector)) == 200
    parsed = []
    monkeypatch.setattr("hr_prometheus.multiprocess.aggregate.json.loads", lambda text: parsed.append(text) or 1 / 0)
    worker("w0", "counter", {"a": "0"}, 5)
    assert read(collector)["counter_total[('a', '0')]"] == 6
    assert not parsed
    monkeypatch.undo()
    worker("w0", "counter", {"a": "new"}, 7)
    assert read(collector)["counter_total[('a', 'new')]"] == 7


def test_the_samples_of_a_file_that_is_gone_are_gone(worker, collector, tmp_path):
    """Series that only it had are no longer shown, and no descriptor stays open for it."""
    worker("w0", "liveall", {}, 1)
    worker("w1", "liveall", {}, 2)
    assert read(collector) == {"gauge_liveall[('worker', '0')]": 1, "gauge_liveall[('worker', '1')]": 2}
    before = len(os.listdir("/proc/self/fd"))
    (tmp_path / "gauge_liveall_w1.db").unlink()
    assert read(collector) == {"gauge_liveall[('worker', '0')]": 1}
    assert len(os.listdir("/proc/self/fd")) == before - 1


def test_a_file_that_is_replaced_is_read_again(worker, collector, tmp_path):
    """A later file of the same name has other keys at the same positions."""
    worker("w0", "counter", {"a": "one"}, 1)
    assert read(collector) == {"counter_total[('a', 'one')]": 1}
    (tmp_path / "counter_w0.db").unlink()
    with workers_in(str(tmp_path)) as use:
        use("w0")
        change("counter", "Help", {"a": "two"}, 5)
        assert read(collector) == {"counter_total[('a', 'two')]": 5}


def test_a_directory_that_is_gone_is_an_error(tmp_path):
    """A scrape that fails differs from an application that has counted nothing."""
    with pytest.raises(FileNotFoundError):
        ValueCollector(str(tmp_path / "gone")).collect()


def test_an_empty_file_hides_nothing_else(worker, collector, tmp_path, caplog):
    """A worker that is killed while it makes a file leaves it empty: the scrape goes on without a warning."""
    (tmp_path / "counter_w1.db").touch()
    worker("w0", "counter", {}, 1)
    assert read(collector) == {"counter_total[]": 1}
    assert not caplog.records
    worker("w1", "counter", {}, 2)
    assert read(collector) == {"counter_total[]": 3}


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-8],  # cut off in its last number
        lambda data: data[:3],
        lambda data: data[:8] + struct.pack("i", -28) + data[12:],  # a length that leads back to the same entry
        lambda data: data[:8] + struct.pack("i", 1 << 30) + data[12:],
        lambda data: struct.pack("i", 1 << 30) + data[4:],
        lambda data: struct.pack("i", -1) + data[4:],
        lambda data: data[:12] + b"\xff" * 20 + data[32:],  # a key that is no text
        lambda data: data[:12] + b'{"not":"a key"}     ' + data[32:],
    ],
)
def test_a_damaged_file_hides_nothing_else(damage, worker, collector, tmp_path, caplog):
    """The damaged entries are left out and logged once; every scrape has the rest."""
    worker("w0", "counter", {}, 1)
    path = tmp_path / "counter_w1.db"
    worker("w1", "summary", {"a": "whole"}, 1)
    data = (tmp_path / "summary_w1.db").read_bytes()
    (used,) = struct.unpack_from("i", data)
    (tmp_path / "summary_w1.db").unlink()
    path.write_bytes(damage(data[:used]))
    for _ in range(3):
        assert read(collector)["counter_total[]"] == 1
    assert [record.getMessage().startswith(str(path)) for record in caplog.records] in ([True], [])


def test_the_entries_before_the_damage_are_kept(worker, collector, tmp_path, caplog):
    """prometheus_client's reader takes over, and its entries up to the damage count."""
    worker("w0", "summary", {}, 3)
    path = tmp_path / "summary_w0.db"
    (used,) = struct.unpack_from("i", data := path.read_bytes())
    path.write_bytes(data[: used - 4])
    assert read(collector) == {"summary_count[]": 1}
    assert read(collector) == {"summary_count[]": 1}
    (record,) = caplog.records
    assert record.getMessage().startswith(f"{path} cannot be read beyond its entry 1: ")


def test_an_unknown_format_is_left_to_prometheus_client(worker, collector, monkeypatch):
    """If a later prometheus_client writes other files, its own reader reads them at every scrape."""
    worker("w0", "counter", {}, 1)
    monkeypatch.setattr("hr_prometheus.multiprocess.reader.used_bytes", lambda _: 1 / 0)
    key = mmap_key("other", "other_total", ["a"], ["b"], "Help")
    monkeypatch.setattr(MmapedDict, "read_all_values_from_file", lambda _: iter([(key, 5.0, 0.0, 8)]))
    assert read(collector) == {"other_total[('a', 'b')]": 5}


def test_other_files_are_not_read(collector, tmp_path):
    """Only files with the names of prometheus_client's are read."""
    for name in ("cells-0.bin", "unknown_w0.db", "counter.db", "lock", "gauge_w0.db"):
        (tmp_path / name).write_bytes(b"\1\2\3\4\5\6\7\x08" * 9)
    assert read(collector) == {}


def test_an_identifier_with_underscores_is_a_label_as_a_whole(worker, collector):
    """prometheus_client's collector takes the first part of such a name, less three characters, for the process."""
    worker("my_own_name", "all", {}, 1)
    assert read(collector) == {"gauge_all[('worker', 'pid-my_own_name')]": 1}


def test_labels_named_worker_and_pid_survive(worker, collector):
    """prometheus_client's collector loses a label "pid" of a gauge's."""
    worker("w0", "all", {"pid": "1", "worker": "me", "exported_worker": "you"}, 1)
    worker("w0", "sum", {"pid": "1", "worker": "me"}, 2)
    assert read(collector) == {
        "gauge_all[('exported_exported_worker', 'me'), ('exported_worker', 'you'), ('pid', '1'), ('worker', '0')]": 1,
        "gauge_sum[('pid', '1'), ('worker', 'me')]": 2,
    }


def test_text_that_is_not_utf8_is_escaped(worker, collector):
    """A lone surrogate, as undecodable bytes become, does not make every later scrape fail."""
    worker("w0", "counter", {"a": "\udc80"}, 1, documentation="\udc81")
    (family,) = collector.collect()
    assert family.documentation == "\\udc81"
    assert family.samples[0].labels == {"a": "\\udc80"}


def test_a_histogram_that_is_just_being_made_is_left_out(worker, collector, tmp_path):
    """A series without the bucket +Inf is not shown; the other series are."""
    worker("w0", "histogram", {"a": "whole"}, 1)
    file = MmapedDict(str(tmp_path / "histogram_w0.db"))
    file.write_value(mmap_key("histogram", "histogram_sum", ["a"], ["half"], "Help"), 1.0, 0.0)
    file.write_value(mmap_key("histogram", "histogram_bucket", ["a", "le"], ["half", "0.5"], "Help"), 1.0, 0.0)
    file.close()
    assert {sample.labels["a"] for family in collector.collect() for sample in family.samples} == {"whole"}


def test_a_histogram_of_negative_numbers_has_no_sum(tmp_path, collector):
    """As in one process: the sum can fall, so it is not a counter."""
    with workers_in(str(tmp_path)) as use:
        use("w0")
        Histogram("below", "Help", buckets=(-1, 1), registry=None).observe(-2)
        assert [sample.name for family in collector.collect() for sample in family.samples] == [
            *["below_bucket"] * 3,
            "below_count",
        ]


def test_two_metrics_of_one_name_and_two_types_stay_two(tmp_path, collector):
    """The numbers are not mixed; which of the two is shown is decided elsewhere."""
    with workers_in(str(tmp_path)) as use:
        use("w0")
        Counter("both", "Help", registry=None).inc(1)
        use("w1")
        Gauge("both", "Help", registry=None, multiprocess_mode="sum").set(2)
        values_by_type = {family.type: [sample.value for sample in family.samples] for family in collector.collect()}
    assert values_by_type == {"counter": [1], "gauge": [2]}


def test_a_damaged_file_does_not_make_each_scrape_expensive(worker, collector, tmp_path):
    """It may stay for as long as its worker runs. The labels of the other files are made once all the same."""
    worker("w0", "counter", {}, 1)
    (tmp_path / "counter_w1.db").touch()
    (tmp_path / "counter_w2.db").write_bytes((tmp_path / "counter_w0.db").read_bytes()[:50])
    (first,), (second,) = collector.collect(), collector.collect()
    assert first.samples == second.samples
    assert first.samples[0].labels is second.samples[0].labels


def test_a_file_that_grows_while_it_is_read_is_whole(worker, collector, monkeypatch):
    """The reader takes the entries that were in use when it first looked."""
    for number in range(100):
        worker("w0", "counter", {"a": str(number)}, 1)
    pread, calls = os.pread, []

    def growing(*arguments):
        data = pread(*arguments)
        if not calls:
            worker("w0", "counter", {"a": "new"}, 1)
        calls.append(data)
        return data

    monkeypatch.setattr(os, "pread", growing)
    assert len(read(collector)) == 100
    assert len(calls) == 2
    assert len(read(collector)) == 101


def test_a_file_that_is_repaired_is_read_as_usual(worker, collector, tmp_path):
    """A file that was damaged for a moment is not counted twice."""
    worker("w0", "counter", {}, 1)
    path = tmp_path / "counter_w0.db"
    data = path.read_bytes()
    (end,) = struct.unpack_from("i", data)
    with path.open("r+b") as file:
        file.write(struct.pack("i", end + 16) + data[4:])
        file.flush()
        assert read(collector) == {"counter_total[]": 1}
        file.seek(0)
        file.write(data)
    assert read(collector) == {"counter_total[]": 1}
    worker("w0", "counter", {"a": "new"}, 2)
    assert read(collector) == {"counter_total[]": 1, "counter_total[('a', 'new')]": 2}
