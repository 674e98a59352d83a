from __future__ import annotations

import asyncio
import threading
import zlib

import pytest
from aiohttp import web
from client_model import parse
from conftest import DEADLINE, samples
from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

from hr_prometheus.exposition import collectors, loop_turn, scrape
from hr_prometheus.exposition.formats import PROTOBUF, TEXT, choose_format
from hr_prometheus.exposition.scrape import Scrapes
from hr_prometheus.exposition.view import make_view

OPENMETRICS = choose_format("application/openmetrics-text")


class Collector:
    """Counts how often it is asked, and can fail."""

    def __init__(self):
        self.asked = 0
        self.error: Exception | None = None

    def describe(self):
        """Describe nothing."""
        return []

    def collect(self):
        """Yield nothing, or fail."""
        self.asked += 1
        if self.error is not None:
            raise self.error
        return []


@pytest.fixture
def collector(registry) -> Collector:
    """A collector in the registry, beside a gauge with a thousand series."""
    collector = Collector()
    registry.register(collector)
    gauge = Gauge("many", "Many", ["number"], registry=registry)
    for number in range(1000):
        gauge.labels(str(number)).set(number)
    return collector


async def test_scrapes_that_come_at_once_share_one_rendering(registry, collector):
    """Each format is rendered once for all scrapes that wait for it, and again for later ones."""
    scrapes = Scrapes(registry)
    bodies = await asyncio.gather(*[scrapes.body(TEXT, (), is_gzip=False) for _ in range(20)])
    assert collector.asked == 1
    assert all(body is bodies[0] for body in bodies)
    await asyncio.gather(scrapes.body(TEXT, (), is_gzip=False), scrapes.body(OPENMETRICS, (), is_gzip=False))
    assert collector.asked == 3


async def test_others_run_while_a_scrape_is_rendered(registry, collector, monkeypatch):
    """Rendering gives up its turn after each piece."""
    monkeypatch.setattr(scrape, "_TURN", -1.0)
    turns = 0

    async def other():
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    await Scrapes(registry).body(TEXT, (), is_gzip=False)
    task.cancel()
    assert turns >= 10


async def test_one_is_rendered_at_a_time(registry, monkeypatch):
    """A scrape for something else waits until it is done."""
    monkeypatch.setattr(scrape, "_TURN", -1.0)
    running, most = 0, 0

    class Slow:
        def __init__(self, number):
            self.number = number

        def pieces(self, _registry):
            nonlocal running, most
            running += 1
            most = max(most, running)
            for _ in range(10):
                yield b"# x\n"
            running -= 1

    scrapes = Scrapes(registry)
    await asyncio.gather(*[scrapes.body(Slow(number), (), is_gzip=False) for number in range(5)])
    assert most == 1


async def test_too_many_scrapes_are_refused(registry, collector, monkeypatch):
    """Those beyond the limit get a 503, unless they share a body; the others get their metrics."""
    monkeypatch.setattr(scrape, "_MOST_WAITING", 3)
    scrapes = Scrapes(registry)
    names = [("many",), ("many", "1"), ("many", "2"), ("many", "3"), ("many", "4"), *[("many",)] * 5]
    results = await asyncio.gather(*[scrapes.body(TEXT, each, is_gzip=False) for each in names], return_exceptions=True)
    refused = [result for result in results if isinstance(result, web.HTTPServiceUnavailable)]
    assert [results.index(each) for each in refused] == [3, 4]
    assert refused[0].text.startswith("3 scrapes of other formats or names are waiting for their metrics already.")
    assert refused[0].headers["Retry-After"] == "1"
    assert all(b"many" in b"".join(result) for result in results if result not in refused)
    assert await scrapes.body(TEXT, (), is_gzip=False)


async def test_a_client_that_leaves_takes_nothing_from_the_others(registry, collector):
    """A scrape whose client has gone is rendered to its end for those who share it."""
    scrapes = Scrapes(registry)
    first = asyncio.create_task(scrapes.body(TEXT, (), is_gzip=False))
    second = asyncio.create_task(scrapes.body(TEXT, (), is_gzip=False))
    await asyncio.sleep(0)
    first.cancel()
    assert b"many" in b"".join(await second)
    assert first.cancelled()


async def test_a_collector_that_fails(registry, collector, caplog):
    """It is left out, named once and counted each time; all others are there."""
    scrapes = Scrapes(registry)
    for number, collector.error in enumerate((TimeoutError("on purpose"), TimeoutError("again"), SystemExit(3)), 1):
        values = samples(b"".join(await scrapes.body(TEXT, (), is_gzip=False)).decode())
        assert values['many{number="7"}'] == 7
        assert values['hr_prometheus_errors_total{where="collector"}'] == number
    assert [record.message.partition(";")[0] for record in caplog.records] == [
        'The collector "test_exposition_scrape.Collector" has failed'
    ] * 2


async def test_the_instrument_measures_itself(registry, collector):
    """The next scrape shows how long the last one took and how many lines or series it had; a part of all has no say in that."""
    scrapes = Scrapes(registry)
    first = b"".join(await scrapes.body(TEXT, (), is_gzip=False))
    await scrapes.body(TEXT, ("many",), is_gzip=False)
    values = samples(b"".join(await scrapes.body(TEXT, (), is_gzip=False)).decode())
    assert values["hr_prometheus_scrape_lines"] == first.count(b"\n")
    assert values["hr_prometheus_scrape_duration_seconds_count"] == 2
    messages = parse(b"".join(await scrapes.body(PROTOBUF, (), is_gzip=False)))
    values = samples(b"".join(await scrapes.body(TEXT, (), is_gzip=False)).decode())
    assert values["hr_prometheus_scrape_lines"] == sum(len(family.metric) for family in messages) > 1000
    assert values["hr_prometheus_scrape_duration_seconds_sum"] > 0


@pytest.mark.parametrize("number", [1, 5000])
async def test_bodies_come_in_parts(number):
    """Long bodies are cut, so that no single write is; compressed they are one."""
    registry = CollectorRegistry()
    gauge = Gauge("many", "Many", ["number"], registry=registry)
    for each in range(number):
        gauge.labels(str(each)).set(each)
    expected = generate_latest(registry)
    parts = await Scrapes(registry).body(TEXT, (), is_gzip=False)
    assert b"".join(parts) == expected
    assert (len(parts) > 1) == (number > 1)
    assert max(map(len, parts)) < 100_000
    (compressed,) = await Scrapes(CollectorRegistry()).body(TEXT, (), is_gzip=True)
    assert zlib.decompress(compressed, 31) == b""


@pytest.fixture
def patience(monkeypatch) -> None:
    """No collector is slow, though a busy machine may keep it from its answer."""
    monkeypatch.setattr(collectors, "SLOW", DEADLINE)


@pytest.mark.usefixtures("collector", "patience")
@pytest.mark.parametrize("is_head", [False, True])
@pytest.mark.parametrize("coding", ["identity", "gzip"])
async def test_long_bodies_over_the_wire(aiohttp_client, registry, is_head, coding):
    """A body in parts has its length and arrives whole; HEAD has the length alone."""
    gauge = Gauge("more", "More", ["number"], registry=registry)
    for number in range(5000):
        gauge.labels(str(number)).set(number)
    app = web.Application()
    app.router.add_get("/metrics", make_view(registry))
    client = await aiohttp_client(app)
    expected = generate_latest(registry)
    method = client.head if is_head else client.get
    response = await method("/metrics", headers={"Accept-Encoding": coding})
    body = await response.read()
    assert body == (b"" if is_head else expected)
    assert int(response.headers["Content-Length"]) == (
        len(expected) if coding == "identity" else pytest.approx(30000, rel=0.9)
    )


async def test_others_run_while_a_long_body_is_written(aiohttp_client, monkeypatch):
    """However fast the client takes it."""
    registry = CollectorRegistry()
    gauge = Gauge("many", "Many", ["number"], registry=registry)
    for number in range(20_000):
        gauge.labels(str(number)).set(number)
    turns, seen = 0, []
    write = web.StreamResponse.write

    async def noted(response, part):
        seen.append(turns)
        await write(response, part)

    async def others():
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    monkeypatch.setattr(web.StreamResponse, "write", noted)
    app = web.Application()
    app.router.add_get("/metrics", make_view(registry))
    client = await aiohttp_client(app)
    task = asyncio.create_task(others())
    response = await client.get("/metrics", headers={"Accept-Encoding": "identity"})
    await response.read()
    task.cancel()
    assert len(seen) > 5
    assert seen == sorted(set(seen))


async def test_a_scrape_is_answered_where_it_cannot_be_counted(registry, collector, monkeypatch):
    """Neither a full disk nor a name that is taken costs the metrics."""

    def full(_registry):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(scrape, "self_store", full)
    assert b"many" in b"".join(await Scrapes(registry).body(TEXT, (), is_gzip=False))


class AskedLoop:
    """An event loop that says when another thread has asked it for something."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.call_soon = loop.call_soon
        self.is_asked = threading.Event()

    def call_soon_threadsafe(self, *arguments) -> None:
        self._loop.call_soon_threadsafe(*arguments)
        self.is_asked.set()


async def test_a_scrape_beside_the_application_waits_for_its_loop(registry, monkeypatch):
    """What clients have got is counted, although the loop's thread was about to count it when the scrape came."""
    monkeypatch.setattr(loop_turn, "_LIMIT", DEADLINE)
    counter = Counter("answered", "Help", registry=registry)
    loop = AskedLoop(asyncio.get_running_loop())

    async def body() -> bytes:
        return b"".join(await Scrapes(registry, beside=loop).body(TEXT, (), is_gzip=False))

    answer = asyncio.get_running_loop().run_in_executor(None, asyncio.run, body())
    assert loop.is_asked.wait(DEADLINE)
    counter.inc()
    assert samples((await answer).decode())["answered_total"] == 1


@pytest.mark.parametrize("is_closed", [False, True])
def test_a_scrape_beside_a_blocked_loop_goes_on(registry, is_closed):
    """A loop that does not come round, or never will, is not waited for."""
    Counter("answered", "Help", registry=registry)
    loop = asyncio.new_event_loop()  # which nothing runs
    if is_closed:
        loop.close()

    async def body() -> bytes:
        return b"".join(await Scrapes(registry, beside=loop).body(TEXT, (), is_gzip=False))

    assert samples(asyncio.run(body()).decode())["answered_total"] == 0
    loop.close()
