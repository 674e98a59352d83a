from __future__ import annotations

import asyncio
import logging
import sqlite3
import threading
import time

import pytest
from conftest import DEADLINE, samples
from prometheus_client import Counter, Enum, Gauge, Histogram, Info, PlatformCollector, ProcessCollector
from prometheus_client.core import GaugeMetricFamily

from hr_prometheus.exposition import collectors
from hr_prometheus.exposition.collectors import Collectors, may_be_slow
from hr_prometheus.exposition.formats import TEXT
from hr_prometheus.exposition.scrape import Scrapes
from hr_prometheus.exposition.snapshot import Snapshot
from hr_prometheus.metrics import BASIC_METRICS
from hr_prometheus.store.store import Store


class Collector:
    """A collector whose samples come from a function, as those of any application's do."""

    def __init__(self, name, value=lambda: 1.0):
        self.name, self.value = name, value
        self.calls = 0

    def describe(self):
        return []

    def collect(self):
        self.calls += 1
        yield self.family(self.value())

    def family(self, value):
        return GaugeMetricFamily(self.name, "Help", value=value)


class Asynchronous(Collector):
    async def collect(self):
        await asyncio.sleep(0)
        yield self.family(len(asyncio.all_tasks()))


class Awaitable(Collector):
    async def collect(self):
        await asyncio.sleep(0)
        return [self.family(self.value())]


@pytest.fixture
def gate():
    """An event that a slow collector waits for; the end of the test sets it."""
    gate = threading.Event()
    yield gate
    gate.set()


def slow(name, gate):
    """Return a collector that waits for a gate."""
    return Collector(name, lambda: float(gate.wait(DEADLINE)))


async def collect(asking, registry, seconds=0.0):
    """Return the samples of the collectors that answer within so many seconds."""
    snapshot = Snapshot(registry)
    snapshot.answers = await asking.ask(snapshot.calls, seconds)
    return samples(TEXT.render(snapshot).decode())


def threads():
    """Return how many threads there are in which a collector is called."""
    return sum(thread.name == "hr-prometheus-collector" for thread in threading.enumerate())


async def until(condition):
    """Wait for a condition while the loop runs."""
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end
        await asyncio.sleep(0.001)


def test_which_collectors_may_be_slow(registry, tmp_path):
    """Those of prometheus_client and hr-prometheus are not; functions and all other collectors are."""
    labelled = Gauge("labelled", "Help", ["a"], registry=registry)
    labelled.labels("b").set_function(lambda: 1)
    function = Gauge("function", "Help", registry=registry)
    function.set_function(lambda: 1)
    assert all(map(may_be_slow, [labelled, function, Collector("x"), Asynchronous("y")]))
    for kind in (Counter, Gauge, Histogram, Info):
        assert not may_be_slow(kind(kind.__name__.lower(), "Help", registry=registry))
    own = [Enum("e", "Help", states=["a"], registry=None), Store(BASIC_METRICS), ProcessCollector(registry=None)]
    assert not any(map(may_be_slow, [*own, PlatformCollector(registry=None)]))


async def test_a_slow_collector_hides_no_other(registry, gate, caplog, monkeypatch):
    """The others are there; the slow one is named once, counted each time, and there when it is ready."""
    monkeypatch.setattr(collectors, "_PATIENCE", 0.01)
    for each in (Collector("first"), slow("slow", gate), Asynchronous("last")):
        registry.register(each)
    asking = Collectors(registry)
    ready = asyncio.get_running_loop().create_task(collect(asking, registry, DEADLINE))
    await until(lambda: threads() == 1)
    values, end = {}, time.monotonic() + DEADLINE
    # On a busy machine this loop may be late, and then no collector is said to be slow.
    while values.get('hr_prometheus_errors_total{where="collector"}', 0) < 2 or not values.keys() >= {"first", "last"}:
        assert time.monotonic() < end
        values = await collect(asking, registry, 0.1)
        assert "slow" not in values
    assert values["first"] == 1
    assert values["last"] > 0
    gate.set()
    assert (await ready)["slow"] == 1
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.message.startswith('The collector "test_exposition_collectors.Collector" has not answered a scrape')


def test_a_blocked_loop_makes_no_collector_slow(registry, caplog):
    """One that is awaited in the application's loop cannot answer meanwhile, beside which the metrics are served."""
    registry.register(Awaitable("awaited"))
    loop = asyncio.new_event_loop()  # which nothing runs

    async def scrape() -> dict[str, float]:
        return await collect(Collectors(registry, loop), registry, 0.1)

    values = asyncio.run(scrape())
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    assert "awaited" not in values
    assert 'hr_prometheus_errors_total{where="collector"}' not in values
    assert not caplog.records


async def test_no_collector_is_slow_while_its_own_loop_is_blocked(registry, caplog):
    """It had no time to answer."""
    collector = Asynchronous("x")
    collector.collect = asyncio.Event().wait
    registry.register(collector)
    asyncio.get_running_loop().call_later(0.01, time.sleep, collectors.SLOW)
    values = await collect(Collectors(registry), registry, 0.1)
    assert 'hr_prometheus_errors_total{where="collector"}' not in values
    assert not caplog.records


async def test_one_that_never_answers_has_one_thread(registry, gate):
    """It is not called again before it has answered."""
    collector = slow("slow", gate)
    registry.register(collector)
    asking = Collectors(registry)
    for _ in range(5):
        await collect(asking, registry)
    assert collector.calls == threads() == 1
    gate.set()
    await until(lambda: not threads())
    assert (await collect(asking, registry, DEADLINE))["slow"] == 1


async def test_the_loop_runs_while_collectors_block(registry):
    """A scrape of one process waits for a collector and for the function of a gauge, and nothing else does."""
    loop = asyncio.get_running_loop()

    def value():
        """Block until the loop has run."""
        return asyncio.run_coroutine_threadsafe(asyncio.sleep(0, 7.0), loop).result(DEADLINE)

    registry.register(Collector("blocking", value))
    Gauge("function", "Help", registry=registry).set_function(value)
    values = samples(b"".join(await Scrapes(registry).body(TEXT, (), is_gzip=False)).decode())
    assert values["blocking"] == values["function"] == 7


async def test_asynchronous_collectors_are_awaited(registry):
    """As generators and as coroutines, by themselves and by name."""
    registry.register(Asynchronous("generator"))
    registry.register(Awaitable("coroutine"))
    Gauge("gauge", "Help", registry=registry).set_function(lambda: 3)
    scrapes = Scrapes(registry)
    values = samples(b"".join(await scrapes.body(TEXT, (), is_gzip=False)).decode())
    assert values["generator"] > 0
    assert (values["coroutine"], values["gauge"]) == (1, 3)
    assert b"".join(await scrapes.body(TEXT, ("gauge",), is_gzip=False)).endswith(b"\ngauge 3.0\n")


async def test_what_a_thread_cannot_do_is_done_in_the_loop(registry):
    """Collectors that ask for the running loop, or that sqlite keeps in their thread, go on working."""
    database = sqlite3.connect(":memory:")
    registry.register(Collector("sqlite", lambda: database.execute("SELECT 5").fetchone()[0]))
    Gauge("tasks", "Help", registry=registry).set_function(lambda: len(asyncio.all_tasks()))
    asking = Collectors(registry)
    for _ in range(2):
        values = await collect(asking, registry, DEADLINE)
        assert values["sqlite"] == 5
        assert values["tasks"] > 0
    database.close()


async def test_beside_the_application_its_loop_is_the_one_that_collectors_need(registry):
    """A scrape in another thread calls those that need an event loop, or its thread, in the application's."""
    loop = asyncio.get_running_loop()
    database = sqlite3.connect(":memory:")
    registry.register(Collector("sqlite", lambda: database.execute("SELECT 5").fetchone()[0]))
    registry.register(Awaitable("awaited", lambda: asyncio.get_running_loop() is loop))
    Gauge("running", "Help", registry=registry).set_function(lambda: asyncio.get_running_loop() is loop)

    async def scrape() -> bytes:
        return b"".join(await Scrapes(registry, beside=loop).body(TEXT, (), is_gzip=False))

    values = samples((await asyncio.to_thread(asyncio.run, scrape())).decode())
    assert (values["sqlite"], values["awaited"], values["running"]) == (5, 1, 1)
    database.close()


@pytest.mark.parametrize(
    "error",
    [
        ConnectionError("worker thread did not answer"),
        TimeoutError("no running event loop"),
        RuntimeError("can't start new thread"),
        RuntimeError("the event loop of the driver is closed"),
        sqlite3.ProgrammingError("Cannot operate on a closed database of another thread"),
    ],
)
async def test_a_collector_is_not_called_again_for_its_own_errors(registry, error):
    """Its message may speak of threads and event loops; the second call would hold up every request."""

    def fail():
        raise error

    collector = Collector("x", fail)
    registry.register(collector)
    await collect(Collectors(registry), registry, DEADLINE)
    assert collector.calls == 1


async def test_without_a_thread_a_collector_is_called_in_the_loop(registry, monkeypatch):
    """There may be no more threads."""

    def start(_thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    registry.register(Collector("x"))
    assert (await collect(Collectors(registry), registry, DEADLINE))["x"] == 1


async def test_target_information_stays(registry):
    """As without a collector that may be slow."""
    registry.set_target_info({"env": "test"})
    registry.register(Collector("x"))
    scrapes = Scrapes(registry)
    assert b'target_info{env="test"} 1.0\n' in b"".join(await scrapes.body(TEXT, (), is_gzip=False))
    assert b"".join(await scrapes.body(TEXT, ("target_info",), is_gzip=False)).endswith(
        b'target_info{env="test"} 1.0\n'
    )


async def test_an_asynchronous_collector_that_raises(registry):
    """The families that it has yielded stay, and so do the others."""
    collector = Collector("x")

    async def fail():
        yield collector.family(1.0)
        raise KeyError("on purpose")

    collector.collect = fail
    registry.register(collector)
    registry.register(Collector("y"))
    values = samples(b"".join(await Scrapes(registry).body(TEXT, (), is_gzip=False)).decode())
    assert values["x"] == values["y"] == values['hr_prometheus_errors_total{where="collector"}'] == 1
