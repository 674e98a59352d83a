"""For how long the handlers of requests hold the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import weakref
from collections.abc import Coroutine
from types import SimpleNamespace, coroutine

import pytest
from aiohttp import web
from conftest import samples
from prometheus_client import generate_latest

from hr_prometheus import hrprometheus_middleware
from hr_prometheus.request import loop_time
from hr_prometheus.request.loop_time import count_loop_time


class Clock:
    """A clock that only goes on while something works, or while all wait."""

    now = 0.0

    def __call__(self) -> float:
        return self.now

    def work(self, seconds: float) -> None:
        """Hold the event loop."""
        self.now += seconds

    async def wait(self, seconds: float) -> None:
        """Let the event loop go on, which comes back after some seconds."""
        asyncio.get_running_loop().call_soon(self.work, seconds)
        await asyncio.sleep(0)


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(loop_time, "perf_counter", clock)
    return clock


async def waits_and_works(clock: Clock) -> None:
    clock.work(0.02)
    await clock.wait(5.0)
    clock.work(0.03)


async def in_a_timeout(clock: Clock) -> None:
    async with asyncio.timeout(3600):
        await waits_and_works(clock)


async def runs_into_a_timeout(clock: Clock) -> None:
    clock.work(0.02)
    try:
        async with asyncio.timeout(0):
            await asyncio.get_running_loop().create_future()
    except TimeoutError:
        clock.work(0.03)


async def is_cancelled_inside(clock: Clock) -> None:
    clock.work(0.02)
    inner = asyncio.create_task(clock.wait(5.0))
    asyncio.get_running_loop().call_soon(inner.cancel)
    try:
        await inner
    except asyncio.CancelledError:
        clock.work(0.03)


async def starts_a_task(clock: Clock) -> None:
    async def elsewhere() -> None:
        clock.work(7.0)

    clock.work(0.02)
    await asyncio.create_task(elsewhere())
    clock.work(0.03)


async def raises(clock: Clock) -> None:
    await waits_and_works(clock)
    raise web.HTTPNotFound


@pytest.mark.parametrize(
    "body", [waits_and_works, in_a_timeout, runs_into_a_timeout, is_cancelled_inside, starts_a_task, raises]
)
async def test_it_is_the_time_between_the_waits(aiohttp_client, registry, clock, body):
    """Neither waiting nor other tasks count, but middlewares inside and what follows a cancellation do."""

    @web.middleware
    async def inner(request, handler):
        clock.work(0.1)
        return await handler(request)

    async def handle(_request):
        await body(clock)
        return web.Response()

    app = web.Application(middlewares=[hrprometheus_middleware(registry=registry, detail="full"), inner])
    app.router.add_get("/{name}", handle)
    client = await aiohttp_client(app)
    for _ in range(2):
        await client.get("/a")
    name = 'request_loop_seconds_total{method="GET",path="/a"}'
    assert samples(generate_latest(registry).decode())[name] == pytest.approx(2 * 0.15)


async def test_a_stream_counts_while_it_goes_on(aiohttp_client, registry, clock):
    """The seconds of each step are there when it waits, not only at the end of the request."""
    is_over = asyncio.Event()

    async def handle(request):
        response = web.StreamResponse()
        await response.prepare(request)
        clock.work(0.5)
        await is_over.wait()
        return response

    app = web.Application(middlewares=[hrprometheus_middleware(registry=registry, detail="full")])
    app.router.add_get("/", handle)
    client = await aiohttp_client(app)
    await client.get("/")
    assert samples(generate_latest(registry).decode())['request_loop_seconds_total{method="GET",path="/"}'] == 0.5
    is_over.set()


RECORD = SimpleNamespace(loop_time=([0.0], 0), labels=("GET", "/a"))


class Observer:
    """Something that notes long steps."""

    def __init__(self) -> None:
        self.noted: list[object] = []

    def note(self, labels, began) -> None:
        self.noted.append((labels[:2], began))


@pytest.mark.parametrize("error", [None, web.HTTPNotFound])
async def test_a_long_step_is_noted(aiohttp_client, registry, clock, error):
    """At its end, with the labels of the request and when it began; those that wait, and short ones, are not."""

    async def handle(_request):
        clock.work(0.06)
        await clock.wait(5.0)
        clock.work(0.04)
        await clock.wait(1.0)
        clock.work(0.2)
        if error is not None:
            raise error
        return web.Response()

    observer = Observer()
    loop_time.long_step_observers.add(observer)
    app = web.Application(middlewares=[hrprometheus_middleware(registry=registry, detail="full")])
    app.router.add_get("/a", handle)
    await (await aiohttp_client(app)).get("/a")
    assert observer.noted == [(("GET", "/a"), 0.0), (("GET", "/a"), pytest.approx(6.1))]


async def test_an_observer_that_raises(clock):
    """The handler goes on."""

    class Broken(Observer):
        def note(self, *_):
            raise LookupError

    async def handle() -> str:
        clock.work(1.0)
        return "result"

    observer = Broken()
    loop_time.long_step_observers.add(observer)
    assert await timed(handle()) == "result"


def timed(awaitable):
    """Return what drives the awaitable of a handler."""
    return count_loop_time(lambda _request: awaitable, None, RECORD)


@coroutine
def suspend(value):
    """Wait for what is sent."""
    return (yield value)


async def conversation(log: list[object]) -> str:
    """Wait thrice, and survive an error."""
    log.append(await suspend(1))
    try:
        await suspend(2)
    except KeyError as error:
        log.append(error)
    log.append(await suspend(3))
    return "result"


def act(steps, log: list[object]) -> None:
    """Drive a coroutine with values and an error, and note what it answers."""
    log += [steps.send(None), steps.send("a"), steps.throw(KeyError("b"))]
    with pytest.raises(StopIteration) as end:
        steps.send("c")
    log.append(end.value.value)


def test_values_and_errors_reach_the_handler_unchanged():
    """What is sent and thrown into the coroutine, and what it yields and returns, is as without us."""
    logs: list[list[str]] = []
    for wrap in (lambda steps: steps, timed):
        log: list[object] = []
        act(wrap(conversation(log)), log)
        logs.append([repr(each) for each in log])
    assert logs[0] == logs[1]


@pytest.mark.parametrize("is_stubborn", [False, True])
def test_a_coroutine_that_is_closed_ends_as_it_would(is_stubborn):
    """GeneratorExit runs its clean-up, and one that goes on all the same is an error."""
    log: list[object] = []

    async def handle() -> None:
        try:
            await suspend(1)
        except GeneratorExit:
            log.append("closed")
            if is_stubborn:
                await suspend(2)
            raise

    steps = timed(handle())
    steps.send(None)
    if is_stubborn:
        with pytest.raises(RuntimeError, match="ignored GeneratorExit"):
            steps.close()
    else:
        steps.close()
    assert log == ["closed"]


class Iterated:
    """What may be awaited at the least: an object with an iterator."""

    def __await__(self):
        return iter(())


async def test_what_is_no_coroutine_is_awaited_as_it_is():
    """A handler may return a future, or whatever else can be awaited."""
    future = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(future.set_result, "result")
    assert await timed(future) == "result"
    assert await timed(Iterated()) is None


async def test_a_class_based_view_counts(aiohttp_client, registry, clock):
    """Aiohttp awaits it, but it is no coroutine."""

    class View(web.View):
        async def get(self):
            await waits_and_works(clock)
            return web.Response()

    app = web.Application(middlewares=[hrprometheus_middleware(registry=registry, detail="full")])
    app.router.add_view("/", View)
    await (await aiohttp_client(app)).get("/")
    name = 'request_loop_seconds_total{method="GET",path="/"}'
    assert samples(generate_latest(registry).decode())[name] == pytest.approx(0.05)


def test_it_is_a_coroutine():
    """asyncio.create_task takes nothing else from Python 3.12 on. One that is closed before it begins has not begun anything."""
    steps = count_loop_time(lambda _: conversation([]), None, RECORD)
    assert isinstance(steps, Coroutine)
    steps.close()


@pytest.mark.parametrize("is_caught", [False, True])
def test_an_error_is_not_kept_alive(is_caught):
    """No reference cycle is left behind, whether the handler catches what was thrown into it or not."""

    class Error(Exception):
        """One that can be referred to weakly."""

    async def handle() -> None:
        try:
            await suspend(1)
        except Error as error:
            thrown.append(weakref.ref(error))
            if not is_caught:
                raise

    thrown: list[weakref.ref[Error]] = []
    steps = timed(handle())
    steps.send(None)
    gc.disable()
    try:
        with contextlib.suppress(Error, StopIteration):
            steps.throw(Error())
        assert thrown[0]() is None
    finally:
        gc.enable()
