from __future__ import annotations

import asyncio
import gc
import threading
import time

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from conftest import samples, until, wait_for
from prometheus_client import CollectorRegistry, Gauge, generate_latest

from hr_prometheus import instrument
from hr_prometheus.errors import ConfigurationError
from hr_prometheus.event_loop import watchdog
from hr_prometheus.request.loop_time import long_step_observers

BLOCKED = "asyncio_event_loop_blocked_total"
ERRORS = 'hr_prometheus_errors_total{where="loop"}'
LAGS = "asyncio_event_loop_lag_seconds_count"
TASKS = "asyncio_event_loop_tasks"


def scrape(registry) -> dict[str, float]:
    return samples(generate_latest(registry).decode())


def watchdogs() -> int:
    return sum(thread.name == "hr-prometheus-watchdog" for thread in threading.enumerate())


@pytest.fixture(autouse=True)
def _no_watchdog_is_left():
    """Wait for the end of the threads that a test has started."""
    yield
    wait_for(watchdogs, lambda number: not number)


def measured(registry, **options) -> web.Application:
    return instrument(web.Application(), registry=registry, loop_metrics=True, **options)


async def test_the_loop_is_measured_while_the_application_is_up(registry):
    """A thread runs from its start-up to its clean-up; without an application the tasks are those of nobody."""
    server = TestServer(measured(registry))
    assert watchdogs() == 0
    async with server:
        assert watchdogs() == 1
        await until(lambda: scrape(registry)[LAGS] > 0)
        before = scrape(registry)[TASKS]
        task = asyncio.create_task(asyncio.sleep(3600))
        assert scrape(registry)[TASKS] == before + 1
        task.cancel()
    await until(lambda: watchdogs() == 0)
    assert "GarbagePauses" not in repr(gc.callbacks)


async def test_long_steps_are_noted_while_the_application_is_up(registry):
    """Without a watchdog nobody asks for them."""
    gc.collect()
    before = len(long_step_observers)
    async with TestServer(measured(registry, blocked_after=0)):
        assert len(long_step_observers) == before
    async with TestServer(measured(CollectorRegistry())):
        assert len(long_step_observers) == before + 1
    assert len(long_step_observers) == before


async def test_a_start_up_that_blocks_is_no_block(registry):
    """While the application starts, no request waits."""

    async def start(_app: web.Application) -> None:
        time.sleep(0.3)

    app = measured(registry)
    app.on_startup.insert(0, start)
    app.on_startup.append(start)
    async with TestServer(app):
        await until(lambda: scrape(registry)[LAGS] > 2)
        assert not [name for name in scrape(registry) if BLOCKED in name]


async def test_nothing_is_measured_unless_it_is_asked_for(registry):
    """The library starts no thread by itself."""
    async with TestServer(instrument(web.Application(), registry=registry)):
        assert watchdogs() == 0
        assert LAGS not in scrape(registry)


async def test_without_a_watchdog_there_is_no_thread(registry):
    """blocked_after=0 leaves the lag, the processor time and the tasks."""
    async with TestServer(measured(registry, blocked_after=0)):
        assert watchdogs() == 0
        time.sleep(0.3)
        await until(lambda: scrape(registry)[LAGS] > 2)
        assert not [name for name in scrape(registry) if "blocked" in name]


async def test_applications_in_one_loop_share_the_measurement(registry):
    """Each block is counted once, and the last application to go ends it."""
    async with TestServer(measured(registry)):
        async with TestServer(measured(registry)):
            assert watchdogs() == 1
        assert watchdogs() == 1
        time.sleep(0.3)
        await until(lambda: any(BLOCKED in name for name in scrape(registry)))
        assert sum(value for name, value in scrape(registry).items() if BLOCKED in name) == 1
    await until(lambda: watchdogs() == 0)


async def test_a_watchdog_that_raises_stops(registry, monkeypatch, caplog):
    """It is counted and logged, the application is served, and the lag is measured all the same."""

    def fail(*_arguments):
        raise LookupError("no stack")

    monkeypatch.setattr(watchdog, "stack_of", fail)
    async with TestServer(measured(registry)):
        time.sleep(0.3)
        await until(lambda: scrape(registry).get(ERRORS) == 1)
        assert watchdogs() == 0
        lags = scrape(registry)[LAGS]
        await until(lambda: scrape(registry)[LAGS] > lags)
    assert "The watchdog of the event loop has failed and has stopped" in caplog.text


async def test_no_more_threads(registry, monkeypatch):
    """A system without another thread has no watchdog, and serves."""

    def fail(_thread):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fail)
        async with TestServer(measured(registry)):
            await until(lambda: scrape(registry).get(ERRORS) == 1)


async def test_a_heart_that_raises_stops(registry, monkeypatch, caplog):
    """It is counted and logged, and the application is served."""
    async with TestServer(measured(registry)):
        monkeypatch.setattr("hr_prometheus.event_loop.usage.UsageReader.read", lambda _reader: 1 / 0)
        await until(lambda: scrape(registry).get(ERRORS) == 1)
        await until(lambda: watchdogs() == 0)
    assert "Measuring the event loop has failed and has stopped" in caplog.text


@pytest.mark.parametrize("name", [LAGS.removesuffix("_count"), TASKS])
async def test_a_name_that_is_taken(registry, caplog, name):
    """An application with a metric of this name is served, and its loop is not measured."""
    Gauge(name, "One of the application's", registry=registry)
    async with TestServer(measured(registry)):
        assert watchdogs() == 0
    assert f'The event loop is not measured: the application has a metric named "{name}' in caplog.text


@pytest.mark.parametrize("seconds", [-1, float("nan"), float("inf"), True, "1"])
def test_a_wrong_number_of_seconds(seconds):
    """It is refused when the application is instrumented."""
    app = web.Application()
    with pytest.raises(ConfigurationError, match="blocked_after=.* is not understood. Expected seconds"):
        instrument(app, loop_metrics=True, blocked_after=seconds)
    assert not app.middlewares


async def test_a_block_before_the_clean_up_is_counted(registry):
    """The last beat may not come any more."""
    async with TestServer(measured(registry)):
        time.sleep(0.3)
        before = scrape(registry).get(LAGS, 0)
        while scrape(registry)[LAGS] == before:
            await asyncio.sleep(0)
    assert [name for name in scrape(registry) if BLOCKED in name]


def test_a_loop_that_was_closed_without_a_clean_up():
    """Its watchdog ends, and the next loop is measured."""
    registries = CollectorRegistry(), CollectorRegistry()

    async def start(registry) -> None:
        runner = web.AppRunner(measured(registry))
        await runner.setup()

    for registry in registries:
        loop = asyncio.new_event_loop()
        loop.run_until_complete(start(registry))
        loop.close()
    assert wait_for(watchdogs, lambda number: not number) == 0
    assert TASKS not in scrape(registries[1])
