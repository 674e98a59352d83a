from __future__ import annotations

import json
import logging
import os
import re
import shutil
import subprocess
import sys
import time
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from client_model import samples_of
from conftest import FamiliesCollector, in_worker, samples
from hypothesis import given, settings
from hypothesis import strategies as st
from multidict import CIMultiDict
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    StateSetMetricFamily,
    SummaryMetricFamily,
)
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families
from prometheus_client.parser import text_string_to_metric_families as text_families

from hr_prometheus.exposition.formats import TEXT, choose_format
from hr_prometheus.multiprocess.collector import MultiProcessCollector
from hr_prometheus.multiprocess.dump import dump
from hr_prometheus.multiprocess.slots import Slots

OPENMETRICS = choose_format("application/openmetrics-text; version=1.0.0; escaping=allow-utf-8")
PROTOBUF = choose_format(
    "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited; escaping=allow-utf-8"
)


@pytest.fixture
def slots(tmp_path):
    """A directory of a supervisor."""
    slots = Slots(str(tmp_path))
    yield slots
    slots.remove()


@pytest.fixture
def collector(slots):
    """The collector of that supervisor, which has no collectors of its own."""
    collector = MultiProcessCollector(slots.path)
    yield collector
    collector.close()


def dump_of(*families):
    """Return the dump of a worker that has these families in a custom collector."""
    registry = CollectorRegistry()
    registry.register(FamiliesCollector(*families))
    return json.loads(json.dumps(dump(registry)))


def gauge(name, value=1.0, **labels):
    """Return a family of one gauge."""
    family = GaugeMetricFamily(name, "Help", labels=list(labels))
    family.add_metric(list(labels.values()), value)
    return family


def rendered(scrape):
    """Return the samples of a scrape in the text format; the other formats must have the same."""
    body = TEXT.render(scrape).decode()
    text = samples(body)
    assert len(text) == sum(not line.startswith("#") for line in body.splitlines())  # none is in it twice
    openmetrics = {}
    for family in openmetrics_families(OPENMETRICS.render(scrape).decode()):
        for sample in family.samples:
            labels = ",".join(f'{name}="{value}"' for name, value in sorted(sample.labels.items()))
            openmetrics[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    protobuf = {}
    for name, each, value in (
        samples_of(PROTOBUF.render(scrape)) if scrape.names is None else ()
    ):  # it has no selections
        labels = ",".join(f'{label}="{text}"' for label, text in sorted(each.items()))
        protobuf[f"{name}{{{labels}}}" if labels else name] = value
    plain = {name for name in text if "_created" not in name}
    assert openmetrics.keys() == text.keys()
    assert protobuf.keys() == (plain if scrape.names is None else set())
    for name, value in [*openmetrics.items(), *protobuf.items()]:
        if not name.startswith("process_"):  # time goes on
            assert repr(value) == repr(text[name])
    return text


APPLICATION = """
import json
from prometheus_client import Counter, Enum, Gauge, Histogram, Info, Summary
from hr_prometheus.multiprocess.dump import dump

Counter("orders", "Orders taken", ["kind"]).labels("tea").inc({number})
Summary("wait_seconds", "Seconds waited").observe({number})
Histogram("weight_grams", "Grams weighed", buckets=(1, 5)).observe({number})
for mode in ("all", "livesum", "max"):
    Gauge(mode + "_depth", "Depth", multiprocess_mode=mode).set({number})
Gauge("answer", "The answer").set_function(lambda: 40 + {number})
summed = Gauge("summed_answer", "The answers", ["worker"], multiprocess_mode="livesum")
summed.labels("of the application").set_function(lambda: {number})
summed.labels("set").set({number})
Info("build", "Build").info({{"version": "{number}"}})
Enum("state", "State", states=["up", "down"]).state("down")
print(json.dumps(dump()))
"""


class Traced:
    """Stands for a request with a trace."""

    def __init__(self, trace):
        self.headers = CIMultiDict({"traceparent": f"00-{trace * 32}-{'1' * 16}-01"})
        self.request = self


@pytest.fixture
def traced_workers(worker_records):
    """Two workers that keep exemplars: their registries, and a function that counts a request of one of them."""
    registries = [CollectorRegistry(), CollectorRegistry()]
    options = {"exemplars": "traceparent", "latency_by_status": True}
    records = [worker_records(slot, registry, **options) for slot, registry in enumerate(registries)]

    def count_request(slot, status, seconds, trace):
        record = records[slot].request(("GET", "/"))
        record.begin()
        record.finish(status, seconds, Traced(trace))

    return registries, count_request


def traces(body):
    """Return the traces of the exemplars in OpenMetrics, by the bound or the status of their sample."""
    return {
        sample.labels.get("le", sample.labels.get("status")): sample.exemplar.labels["trace_id"][0]
        for family in openmetrics_families(body.decode())
        for sample in family.samples
        if sample.exemplar
    }


def test_of_the_exemplars_of_all_workers_the_newest_are_shown(tmp_path, traced_workers):
    """Those that have arrived once are there although their worker is not; one that sends nonsense loses only its own."""
    registries, count_request = traced_workers
    count_request(1, "200", 0.3, "a")
    count_request(1, "200", 3.0, "b")
    time.sleep(0.002)  # times are to the millisecond
    count_request(0, "200", 0.4, "c")
    count_request(0, "503", 30.0, "d")
    dumps = {slot: json.loads(json.dumps(dump(registry))) for slot, registry in enumerate(registries)}
    every, of_one = {"0.5": "c", "5.0": "b", "+Inf": "d", "503": "d"}, {"0.5": "a", "5.0": "b"}
    with closing(MultiProcessCollector(str(tmp_path))) as collector:
        nonsense = {**dumps[0], "exemplars": [["nonsense"]]}
        assert traces(OPENMETRICS.render(collector.scrape({0: nonsense, 1: dumps[1]}))) == of_one
        assert traces(OPENMETRICS.render(collector.scrape(dumps))) == every
        assert traces(OPENMETRICS.render(collector.scrape({}))) == every
        assert PROTOBUF.render(collector.scrape(dumps)).count(b"trace_id") == 4
        assert b"trace_id" not in TEXT.render(collector.scrape(dumps))


def test_an_exemplar_is_sent_once(traced_workers):
    """What has arrived is left out of the next dump, unless it was replaced."""
    registries, count_request = traced_workers
    for seconds in (0.3, 3.0):
        count_request(0, "503", seconds, "a")
    first = dump(registries[0])["exemplars"]
    latest = max(each[0] for each in first)
    assert len(first) == 3
    assert dump(registries[0], since=latest)["exemplars"] == []
    count_request(0, "503", 3.0, "b")
    assert [each[1] for each in dump(registries[0], since=latest)["exemplars"]] == ["request_count"]


def of_application(numbers):
    """Return a scrape's samples without those which prometheus_client has of the process."""
    return {name: value for name, value in numbers.items() if not name.startswith(("process_", "python_"))}


def test_everything_an_application_has_appears_once(slots, collector):
    """Metrics that have a sum are summed, and the others have the label of their worker."""
    dumps = {slot: json.loads(in_worker(slots.path, slot, APPLICATION.format(number=slot + 1))) for slot in (0, 1)}
    numbers = rendered(collector.scrape(dumps))
    assert of_application(numbers) == {
        'orders_total{kind="tea"}': 3,
        "wait_seconds_count": 2,
        "wait_seconds_sum": 3,
        'weight_grams_bucket{le="1.0"}': 1,
        'weight_grams_bucket{le="5.0"}': 2,
        'weight_grams_bucket{le="+Inf"}': 2,
        "weight_grams_count": 2,
        "weight_grams_sum": 3,
        'all_depth{worker="0"}': 1,
        'all_depth{worker="1"}': 2,
        "livesum_depth": 3,
        "max_depth": 2,
        'answer{worker="0"}': 41,
        'answer{worker="1"}': 42,
        'summed_answer{exported_worker="of the application",worker="0"}': 1,
        'summed_answer{exported_worker="of the application",worker="1"}': 2,
        'summed_answer{worker="set"}': 3,
        'build_info{version="1",worker="0"}': 1,
        'build_info{version="2",worker="1"}': 1,
        'state{state="up",worker="0"}': 0,
        'state{state="down",worker="0"}': 1,
        'state{state="up",worker="1"}': 0,
        'state{state="down",worker="1"}': 1,
    }
    for worker in "01":
        assert numbers[f'process_resident_memory_bytes{{worker="{worker}"}}'] > 1e6
        assert f'python_gc_collections_total{{generation="0",worker="{worker}"}}' in numbers
    assert len([name for name in numbers if name.startswith("python_info")]) == 2


def test_promtool_accepts_a_scrape(slots, collector, component):
    """The real linter reads what an application's workers export."""
    dumps = {slot: json.loads(in_worker(slots.path, slot, APPLICATION.format(number=slot + 1))) for slot in (0, 1)}
    text = TEXT.render(collector.scrape(dumps, {2: os.getpid()}))
    command = [component("promtool"), "check", "metrics"]
    result = subprocess.run(command, input=text, capture_output=True, check=False)
    assert (result.returncode, result.stdout + result.stderr) == (0, b"")


def test_a_silent_worker_shows_what_the_system_knows(slots, collector):
    """Its counts are in the files and its process_* in /proc; the wrong 0 of its functions is not shown."""
    dumps = {slot: json.loads(in_worker(slots.path, slot, APPLICATION.format(number=slot + 1))) for slot in (0, 1)}
    numbers = rendered(collector.scrape({0: dumps[0]}, {1: os.getpid()}))
    assert numbers['orders_total{kind="tea"}'] == 3
    assert numbers['process_start_time_seconds{worker="1"}'] == pytest.approx(
        next(
            family.samples[0].value
            for family in ProcessCollector(registry=None).collect()
            if family.name == "process_start_time_seconds"
        )
    )
    assert [name for name in numbers if "answer" in name] == [
        'answer{worker="0"}',
        'summed_answer{worker="set"}',
        'summed_answer{exported_worker="of the application",worker="0"}',
    ]
    assert not [name for name in numbers if name.startswith("python_") and 'worker="1"' in name]


def test_a_function_of_one_worker_hides_no_number_of_another(slots, collector):
    """A gauge may have a function in one worker and be set in the others."""
    code = """
    import json
    from prometheus_client import Gauge
    from hr_prometheus.multiprocess.dump import dump
    gauge = Gauge("gauge", "Help")
    {act}
    print(json.dumps(dump()))
    """
    acts = {0: "gauge.set_function(lambda: 5)", 1: "gauge.set(6)"}
    dumps = {slot: json.loads(in_worker(slots.path, slot, code.format(act=act))) for slot, act in acts.items()}
    expected = {'gauge{worker="0"}': 5, 'gauge{worker="1"}': 6}
    assert of_application(rendered(collector.scrape(dumps))) == expected
    # The next scrapes know it, too, whether the workers send a dump or not.
    assert of_application(rendered(collector.scrape({}))) == {'gauge{worker="1"}': 6}


def test_a_zero_of_an_unknown_gauge_is_not_shown(slots, collector):
    """A worker that has sent no dump yet may have functions; any other value was set, and is shown."""
    code = """
    from prometheus_client import Gauge
    for mode in ("all", "livesum", "max"):
        Gauge(f"{mode}_function", "Help", multiprocess_mode=mode).set_function(lambda: 5)
        Gauge(f"{mode}_set", "Help", multiprocess_mode=mode).set(6)
    """
    in_worker(slots.path, 0, code)
    numbers = of_application(rendered(collector.scrape({}, {0: os.getpid()})))
    assert numbers == {'all_set{worker="0"}': 6, "livesum_set": 6, "max_set": 6}


def test_a_zero_of_a_plain_gauge_is_shown(slots, collector):
    """A dump that names a gauge as plain counts for the workers that have sent none."""
    code = """
    import json
    from prometheus_client import Gauge
    from hr_prometheus.multiprocess.dump import dump
    Gauge("all", "Help"), Gauge("sum", "Help", multiprocess_mode="livesum")
    print(json.dumps(dump()))
    """
    dumps = [json.loads(in_worker(slots.path, slot, code)) for slot in (0, 1)]
    numbers = of_application(rendered(collector.scrape({0: dumps[0]}, {1: os.getpid()})))
    assert numbers == {'all{worker="0"}': 0, 'all{worker="1"}': 0, "sum": 0}


def test_a_process_that_has_ended_has_no_samples(collector):
    """It has ended since the supervisor last looked."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    assert rendered(collector.scrape({}, {0: process.pid})) == {}


def test_a_proc_that_cannot_be_read_loses_nothing_else(collector, monkeypatch, caplog):
    """Some systems' /proc lacks a line that prometheus_client expects."""
    monkeypatch.setattr(ProcessCollector, "collect", lambda _: 1 / 0)
    for _ in range(2):
        assert rendered(collector.scrape({0: dump_of(gauge("g"))}, {1: 1})) == {'g{worker="0"}': 1}
    assert len(caplog.records) == 1


def test_an_invalid_dump_of_one_worker_loses_no_other(collector, caplog):
    """A dump that cannot be used is left out, and logged once."""
    for _ in range(2):
        assert rendered(collector.scrape({0: {"families": 3}, 1: dump_of(gauge("g"))})) == {'g{worker="1"}': 1}
    (record,) = caplog.records
    assert "worker 0 gave an answer that cannot be used" in record.getMessage()


def test_workers_need_not_have_the_same_families(collector):
    """A family is written once, with the samples of those that have it."""
    scrape = collector.scrape(
        {0: dump_of(gauge("a"), gauge("b", 2)), 2: dump_of(gauge("b", 3)), 1: dump_of(gauge("c", 4))}
    )
    assert rendered(scrape) == {
        'a{worker="0"}': 1,
        'b{worker="0"}': 2,
        'b{worker="2"}': 3,
        'c{worker="1"}': 4,
    }
    assert [family.name for family in scrape.collect()] == ["a", "b", "c"]


def test_a_type_is_that_of_the_first_worker(collector, caplog):
    """While a new version is rolled out, a family may have two types, and only one can be shown."""
    for _ in range(2):
        scrape = collector.scrape({0: dump_of(gauge("x")), 1: dump_of(CounterMetricFamily("x", "Help", value=5))})
        assert rendered(scrape) == {'x{worker="0"}': 1}
    (record,) = caplog.records
    assert record.getMessage() == (
        'The counter "x" is left out of the metrics: its name is taken by another metric, "x".'
    )


@pytest.mark.parametrize("late", [gauge("x_total"), gauge("x"), SummaryMetricFamily("x", "Help", 1, 1)])
def test_a_name_of_another_familys_samples_is_taken(late, collector, caplog):
    """A registry in one process refuses it, too."""
    scrape = collector.scrape({0: dump_of(CounterMetricFamily("x", "Help", value=5)), 1: dump_of(late)})
    assert rendered(scrape) == {'x_total{worker="0"}': 5}
    assert len(caplog.records) == 1


def test_the_supervisors_own_families_come_first(slots):
    """They keep their order and get no samples from others, which are sorted by name."""
    own = [FamiliesCollector(gauge("z", 1, worker="0")), FamiliesCollector(gauge("a", 2))]
    collector = MultiProcessCollector(slots.path, own)
    dumps = {0: dump_of(gauge("z", 7), gauge("m", 8), gauge("b", 9))}
    assert rendered(collector.scrape(dumps)) == {'z{worker="0"}': 1, "a": 2, 'm{worker="0"}': 8, 'b{worker="0"}': 9}
    assert [family.name for family in collector.scrape(dumps).collect()] == ["z", "a", "b", "m"]
    assert [len(family.samples) for family in collector.scrape(dumps).collect()] == [1] * 4
    collector.close()


def test_a_series_that_a_worker_sends_twice_is_shown_once(collector):
    """Two collectors may yield one series; Prometheus refuses a scrape that has one twice."""
    assert rendered(
        collector.scrape({0: dump_of(gauge("g", 1, a="b"), gauge("g", 2, a="b"), gauge("g", 3, a="c"))})
    ) == {
        'g{a="b",worker="0"}': 1,
        'g{a="c",worker="0"}': 3,
    }


def test_the_target_info_is_one_for_all_workers(collector):
    """Its labels describe the whole application, so it has no label worker."""
    registry = CollectorRegistry(target_info={"env": "test"})
    assert rendered(collector.scrape({0: dump(registry), 1: dump(registry)})) == {'target_info{env="test"}': 1}


def test_a_scrape_can_be_restricted_to_names(slots, collector):
    """A scrape with name[] has only those samples, as of a registry."""
    in_worker(slots.path, 0, "from prometheus_client import Summary; Summary('s', 'Help').observe(2)")
    scrape = collector.scrape({0: dump_of(gauge("a"), gauge("b"))})
    assert rendered(scrape.restricted_registry(["s_sum", "b", "missing"])) == {"s_sum": 2, 'b{worker="0"}': 1}


def test_a_dead_worker_keeps_its_counts(slots, collector):
    """Its live gauges are removed when its slot is reclaimed."""
    in_worker(slots.path, 0, APPLICATION.format(number=1))
    assert of_application(rendered(collector.scrape({})))["livesum_depth"] == 1
    slots.reclaim(0)
    numbers = of_application(rendered(collector.scrape({})))
    assert "livesum_depth" not in numbers
    assert numbers['orders_total{kind="tea"}'] == 1


@pytest.mark.parametrize("is_read", [False, True])
@pytest.mark.parametrize("is_file", [False, True])
def test_a_directory_that_is_gone_fails_no_scrape(slots, collector, is_read, is_file):
    """What is known without it is shown, until it is made again."""
    in_worker(slots.path, 0, "from prometheus_client import Counter; Counter('made', 'Help').inc()")
    if is_read:
        rendered(collector.scrape({}))
    shutil.rmtree(slots.path)
    if is_file:
        Path(slots.path).touch()
    made = {"made_total": 1.0} if is_read else {}
    assert rendered(collector.scrape({0: dump_of(gauge("a"))})) == {'a{worker="0"}': 1, **made}


def test_scrapes_keep_the_files_few(slots, collector):
    """An application that forks for each task leaves its counts, and no more files than it has kinds of metrics."""
    code = """
    import os
    from prometheus_client import Counter
    tasks = Counter("tasks", "Help")
    for _ in range(3):
        if not os.fork():
            tasks.inc()
            os._exit(0)
        os.wait()
    """
    in_worker(slots.path, 0, code)
    assert len(os.listdir(slots.path)) == 4
    assert rendered(collector.scrape({})) == {"tasks_total": 3}
    assert sorted(os.listdir(slots.path)) == ["counter_ended.db", "counter_w0.db"]


def test_a_group_of_samples_is_in_one_place(collector):
    """A later collector does not split a series, which no parser of OpenMetrics accepts."""
    first, second = (CounterMetricFamily("x", "Help", labels=["a"]) for _ in range(2))
    first.add_metric(["one"], 1)
    first.add_metric(["two"], 2)
    second.add_metric(["one"], 3, created=4)
    second.add_metric(["three"], 5, created=6)
    numbers = rendered(collector.scrape({0: dump_of(first, second)}))
    assert numbers == {
        'x_total{a="one",worker="0"}': 1,
        'x_total{a="two",worker="0"}': 2,
        'x_total{a="three",worker="0"}': 5,
        'x_created{a="three",worker="0"}': 6,
    }


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
label_names = st.sampled_from(["a", "b", "worker", "exported_worker", "pid"])
label_sets = st.dictionaries(label_names, texts, max_size=3)
finite = st.floats(min_value=0, max_value=1e9)
cumulated = st.lists(st.integers(0, 99), min_size=3, max_size=3).map(sorted)


@st.composite
def custom_families(draw):
    """Draw a family as a custom collector may yield it, with names that others have."""
    name = draw(st.sampled_from(["x", "x_total", "x_count", "y", "build", "orders"]))
    labels = draw(label_sets)
    add = {
        CounterMetricFamily: lambda: (draw(finite), draw(st.none() | finite)),
        GaugeMetricFamily: lambda: (draw(st.floats(allow_nan=True)),),
        HistogramMetricFamily: lambda: (list(zip(["0.5", "1.0", "+Inf"], draw(cumulated), strict=True)), draw(finite)),
        InfoMetricFamily: lambda: ({"version": draw(texts)},),
        StateSetMetricFamily: lambda: ({"up": draw(st.booleans()), "down": draw(st.booleans())},),
        SummaryMetricFamily: lambda: (draw(st.integers(0, 99)), draw(finite)),
    }
    kind = draw(st.sampled_from(list(add)))
    family = kind(name, draw(texts), labels=list(labels))
    family.add_metric(list(labels.values()), *add[kind]())
    if labels:
        family.add_metric([draw(texts) for _ in labels], *add[kind]())
    return family


@pytest.fixture(scope="module")
def used(tmp_path_factory):
    """A directory with the files of an application's worker."""
    slots = Slots(str(tmp_path_factory.mktemp("used")))
    in_worker(slots.path, 0, APPLICATION.format(number=1))
    yield slots.path
    slots.remove()


@settings(deadline=None)
@given(workers=st.dictionaries(st.integers(0, 3), st.lists(custom_families(), max_size=4), max_size=3))
def test_every_scrape_can_be_read(workers, used):
    """Whatever the workers send, both formats are valid, no family is in it twice, and the files' values are in it."""
    with closing(MultiProcessCollector(used)) as collector, silenced(logging.getLogger("hr_prometheus")):
        scrape = collector.scrape({worker: dump_of(*families) for worker, families in workers.items()})
        for form, parse in ((TEXT, text_families), (OPENMETRICS, openmetrics_families)):
            text = form.render(scrape).decode()
            families = list(parse(text))
            names = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")]
            assert len(names) == len(set(names))
            series = [(sample.name, *sorted(sample.labels.items())) for family in families for sample in family.samples]
            assert len(series) == len(set(series))
            assert ("orders_total", ("kind", "tea")) in series


@contextmanager
def silenced(logger):
    """Have a logger log nothing."""
    logger.disabled = True
    try:
        yield
    finally:
        logger.disabled = False


def test_labels_that_become_one(used):
    """A label "worker" of the application's may be renamed to another one that it has; each series is there once."""
    families = []
    for labels in ({"exported_worker": ""}, {"worker": ""}):
        families.append(CounterMetricFamily("x", ""))
        families[-1].add_sample("x_total", labels, 1.0)
    with closing(MultiProcessCollector(used)) as collector:
        text = TEXT.render(collector.scrape({0: dump_of(*families)})).decode()
    assert re.findall(r"^x_total\{.*", text, re.MULTILINE) == ['x_total{exported_worker="",worker="0"} 1.0']
