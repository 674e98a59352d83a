from __future__ import annotations

import json
import logging
import os
import subprocess
import sys

import pytest
from conftest import in_worker, samples
from hypothesis import given, settings
from hypothesis import strategies as st
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
from hr_prometheus.multiprocess.collector import Truth
from hr_prometheus.multiprocess.dump import dump
from hr_prometheus.multiprocess.slots import Slots

OPENMETRICS = choose_format("application/openmetrics-text; version=1.0.0; escaping=allow-utf-8")


@pytest.fixture
def slots(tmp_path):
    """A directory of a supervisor."""
    slots = Slots(str(tmp_path))
    yield slots
    slots.remove()


@pytest.fixture
def truth(slots):
    """The numbers of that supervisor's workers, and none of its own."""
    truth = Truth(slots.path)
    yield truth
    truth.close()


class Collector:
    """A custom collector of families that are given."""

    def __init__(self, *families):
        self.families = families

    def describe(self):
        return []

    def collect(self):
        return self.families


def answer(*families):
    """Return what a worker answers which has these families in a custom collector."""
    registry = CollectorRegistry()
    registry.register(Collector(*families))
    return json.loads(json.dumps(dump(registry)))


def gauge(name, value=1.0, **labels):
    """Return a family of one gauge."""
    family = GaugeMetricFamily(name, "Help", labels=list(labels))
    family.add_metric(list(labels.values()), value)
    return family


def rendered(scrape):
    """Return the samples of a scrape, as its text says them; OpenMetrics must say the same."""
    body = TEXT.render(scrape).decode()
    text = samples(body)
    assert len(text) == sum(not line.startswith("#") for line in body.splitlines())  # none is there twice
    found = {}
    for family in openmetrics_families(OPENMETRICS.render(scrape).decode()):
        for sample in family.samples:
            labels = ",".join(f'{name}="{value}"' for name, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    assert found.keys() == text.keys()
    for name, value in found.items():
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


def of_application(found):
    """Return a scrape's samples without those which prometheus_client has of the process."""
    return {name: value for name, value in found.items() if not name.startswith(("process_", "python_"))}


def test_everything_an_application_has_appears_once(slots, truth):
    """What has a sum is summed, and the rest has the label of its worker."""
    answers = {slot: json.loads(in_worker(slots.path, slot, APPLICATION.format(number=slot + 1))) for slot in (0, 1)}
    found = rendered(truth.scrape(answers))
    assert (
        of_application(found)
        == {
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
        | {}
    )
    for worker in "01":
        assert found[f'process_resident_memory_bytes{{worker="{worker}"}}'] > 1e6
        assert f'python_gc_collections_total{{generation="0",worker="{worker}"}}' in found
    assert len([name for name in found if name.startswith("python_info")]) == 2


def test_promtool_finds_nothing_wrong(slots, truth, component):
    """The real linter reads what an application's workers export."""
    answers = {slot: json.loads(in_worker(slots.path, slot, APPLICATION.format(number=slot + 1))) for slot in (0, 1)}
    text = TEXT.render(truth.scrape(answers, {2: os.getpid()}))
    command = [component("promtool"), "check", "metrics"]
    result = subprocess.run(command, input=text, capture_output=True, check=False)
    assert (result.returncode, result.stdout + result.stderr) == (0, b"")


def test_a_silent_worker_shows_what_the_system_knows(slots, truth):
    """Its counts are in the files; /proc has its process_*; a function's wrong 0 is not shown for it."""
    answers = {slot: json.loads(in_worker(slots.path, slot, APPLICATION.format(number=slot + 1))) for slot in (0, 1)}
    found = rendered(truth.scrape({0: answers[0]}, {1: os.getpid()}))
    assert found['orders_total{kind="tea"}'] == 3
    assert found['process_start_time_seconds{worker="1"}'] == pytest.approx(
        next(
            family.samples[0].value
            for family in ProcessCollector(registry=None).collect()
            if family.name == "process_start_time_seconds"
        )
    )
    assert [name for name in found if "answer" in name] == [
        'answer{worker="0"}',
        'summed_answer{worker="set"}',
        'summed_answer{exported_worker="of the application",worker="0"}',
    ]
    assert not [name for name in found if name.startswith("python_") and 'worker="1"' in name]


def test_a_function_of_one_worker_hides_no_number_of_another(slots, truth):
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
    answers = {slot: json.loads(in_worker(slots.path, slot, code.format(act=act))) for slot, act in acts.items()}
    expected = {'gauge{worker="0"}': 5, 'gauge{worker="1"}': 6}
    assert of_application(rendered(truth.scrape(answers))) == expected
    # And from now on it is known, whether the workers answer or not.
    assert of_application(rendered(truth.scrape({}))) == {'gauge{worker="1"}': 6}


def test_a_gauge_that_nobody_knows_of_is_not_zero(slots, truth):
    """A worker that has not yet answered may have functions; what was set to anything else is shown."""
    code = """
    from prometheus_client import Gauge
    for mode in ("all", "livesum", "max"):
        Gauge(f"{mode}_function", "Help", multiprocess_mode=mode).set_function(lambda: 5)
        Gauge(f"{mode}_set", "Help", multiprocess_mode=mode).set(6)
    """
    in_worker(slots.path, 0, code)
    found = of_application(rendered(truth.scrape({}, {0: os.getpid()})))
    assert found == {'all_set{worker="0"}': 6, "livesum_set": 6, "max_set": 6}


def test_a_gauge_that_is_known_is_zero(slots, truth):
    """What one worker has said of its gauges holds for those that have not answered."""
    code = """
    import json
    from prometheus_client import Gauge
    from hr_prometheus.multiprocess.dump import dump
    Gauge("all", "Help"), Gauge("sum", "Help", multiprocess_mode="livesum")
    print(json.dumps(dump()))
    """
    answers = [json.loads(in_worker(slots.path, slot, code)) for slot in (0, 1)]
    found = of_application(rendered(truth.scrape({0: answers[0]}, {1: os.getpid()})))
    assert found == {'all{worker="0"}': 0, 'all{worker="1"}': 0, "sum": 0}


def test_a_process_that_is_gone_has_no_numbers(truth):
    """It has ended since the supervisor last looked."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    assert rendered(truth.scrape({}, {0: process.pid})) == {}


def test_a_system_that_prometheus_client_cannot_read_costs_nothing_else(truth, monkeypatch, caplog):
    """Some /proc has no line that it relies on."""
    monkeypatch.setattr(ProcessCollector, "collect", lambda _: 1 / 0)
    for _ in range(2):
        assert rendered(truth.scrape({0: answer(gauge("g"))}, {1: 1})) == {'g{worker="0"}': 1}
    assert len(caplog.records) == 1


def test_nonsense_of_one_worker_costs_no_other(truth, caplog):
    """An answer that cannot be used is left out, and logged once."""
    for _ in range(2):
        assert rendered(truth.scrape({0: {"families": 3}, 1: answer(gauge("g"))})) == {'g{worker="1"}': 1}
    (record,) = caplog.records
    assert "worker 0 gave an answer that cannot be used" in record.getMessage()


def test_workers_need_not_have_the_same_families(truth):
    """A family is written once, with the samples of those that have it."""
    scrape = truth.scrape({0: answer(gauge("a"), gauge("b", 2)), 2: answer(gauge("b", 3)), 1: answer(gauge("c", 4))})
    assert rendered(scrape) == {
        'a{worker="0"}': 1,
        'b{worker="0"}': 2,
        'b{worker="2"}': 3,
        'c{worker="1"}': 4,
    }
    assert [family.name for family in scrape.collect()] == ["a", "b", "c"]


def test_a_type_is_that_of_the_first_worker(truth, caplog):
    """While a new version is rolled out, a family may have two types, and only one can be shown."""
    for _ in range(2):
        scrape = truth.scrape({0: answer(gauge("x")), 1: answer(CounterMetricFamily("x", "Help", value=5))})
        assert rendered(scrape) == {'x{worker="0"}': 1}
    (record,) = caplog.records
    assert record.getMessage() == (
        'The counter "x" is left out of the metrics: its name is taken by another metric, "x".'
    )


@pytest.mark.parametrize("late", [gauge("x_total"), gauge("x"), SummaryMetricFamily("x", "Help", 1, 1)])
def test_a_name_that_anothers_samples_have_is_taken(late, truth, caplog):
    """As a registry refuses it in one process."""
    scrape = truth.scrape({0: answer(CounterMetricFamily("x", "Help", value=5)), 1: answer(late)})
    assert rendered(scrape) == {'x_total{worker="0"}': 5}
    assert len(caplog.records) == 1


def test_the_supervisors_own_come_first_and_are_not_added_to(slots):
    """Families are in the order of the supervisor's own, and then of their names."""
    own = [Collector(gauge("z", 1, worker="0")), Collector(gauge("a", 2))]
    truth = Truth(slots.path, own)
    answers = {0: answer(gauge("z", 7), gauge("m", 8), gauge("b", 9))}
    assert rendered(truth.scrape(answers)) == {'z{worker="0"}': 1, "a": 2, 'm{worker="0"}': 8, 'b{worker="0"}': 9}
    assert [family.name for family in truth.scrape(answers).collect()] == ["z", "a", "b", "m"]
    assert [len(family.samples) for family in truth.scrape(answers).collect()] == [1] * 4
    truth.close()


def test_what_a_worker_says_twice_is_shown_once(truth):
    """Two collectors may yield one series; a scrape in which one is twice is none."""
    assert rendered(truth.scrape({0: answer(gauge("g", 1, a="b"), gauge("g", 2, a="b"), gauge("g", 3, a="c"))})) == {
        'g{a="b",worker="0"}': 1,
        'g{a="c",worker="0"}': 3,
    }


def test_the_target_is_one_for_all_workers(truth):
    """Its labels are those of the whole, so it has no worker."""
    registry = CollectorRegistry(target_info={"env": "test"})
    assert rendered(truth.scrape({0: dump(registry), 1: dump(registry)})) == {'target_info{env="test"}': 1}


def test_chosen_samples(slots, truth):
    """As a registry does it for name[]."""
    in_worker(slots.path, 0, "from prometheus_client import Summary; Summary('s', 'Help').observe(2)")
    scrape = truth.scrape({0: answer(gauge("a"), gauge("b"))})
    assert rendered(scrape.restricted_registry(["s_sum", "b", "missing"])) == {"s_sum": 2, 'b{worker="0"}': 1}


def test_samples_of_a_dead_worker(slots, truth):
    """Its live gauges go when its slot is reclaimed; its counts stay."""
    in_worker(slots.path, 0, APPLICATION.format(number=1))
    assert of_application(rendered(truth.scrape({})))["livesum_depth"] == 1
    slots.reclaim(0)
    found = of_application(rendered(truth.scrape({})))
    assert "livesum_depth" not in found
    assert found['orders_total{kind="tea"}'] == 1


def test_scrapes_keep_the_files_few(slots, truth):
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
    assert rendered(truth.scrape({})) == {"tasks_total": 3}
    assert sorted(os.listdir(slots.path)) == ["counter_ended.db", "counter_w0.db"]


def test_what_belongs_together_stays_together(truth):
    """A series is not split by what another collector says of it later: no reader of OpenMetrics takes that."""
    first, second = (CounterMetricFamily("x", "Help", labels=["a"]) for _ in range(2))
    first.add_metric(["one"], 1)
    first.add_metric(["two"], 2)
    second.add_metric(["one"], 3, created=4)
    second.add_metric(["three"], 5, created=6)
    found = rendered(truth.scrape({0: answer(first, second)}))
    assert found == {
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
    """A directory in which an application's worker has left files."""
    slots = Slots(str(tmp_path_factory.mktemp("used")))
    in_worker(slots.path, 0, APPLICATION.format(number=1))
    yield slots.path
    slots.remove()


@settings(deadline=None)
@given(workers=st.dictionaries(st.integers(0, 3), st.lists(custom_families(), max_size=4), max_size=3))
def test_every_scrape_can_be_read(workers, used):
    """Whatever the workers say, both formats are valid, no family is there twice, and the files' numbers are in it."""
    logging.getLogger("hr_prometheus").disabled = True
    truth = Truth(used)
    scrape = truth.scrape({worker: answer(*families) for worker, families in workers.items()})
    for form, parse in ((TEXT, text_families), (OPENMETRICS, openmetrics_families)):
        text = form.render(scrape).decode()
        families = list(parse(text))
        names = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")]
        assert len(names) == len(set(names))
        series = [(sample.name, *sorted(sample.labels.items())) for family in families for sample in family.samples]
        assert len(series) == len(set(series))
        assert ("orders_total", ("kind", "tea")) in series
    truth.close()
    logging.getLogger("hr_prometheus").disabled = False
