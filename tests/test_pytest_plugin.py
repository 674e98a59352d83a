"""The fixture for the tests of an application's own metrics."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from pathlib import Path

import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry, Counter

from hr_prometheus import hrprometheus_middleware, instrument
from hr_prometheus.pytest_plugin import RegistryMetrics
from hr_prometheus.request.connection import exchanges_in_progress

pytest_plugins = ["pytester"]
PAGE = Path(__file__).parents[1] / "docs" / "how-to" / "testing.md"


async def answer(_request: web.Request) -> web.Response:
    return web.Response(text="ok")


def application(registry, **options) -> web.Application:
    app = web.Application()
    app.router.add_get("/cells/{cell}", answer, name="cell")
    app.router.add_get("/wait", wait)
    return instrument(app, registry=registry, **options)


async def wait(request: web.Request) -> web.Response:
    await request.config_dict[EVENT].wait()
    return web.Response(text="ok")


EVENT = web.AppKey("event", asyncio.Event)


@pytest.fixture
def metrics(registry, hr_metrics):
    return hr_metrics.of(registry)


@pytest.mark.parametrize("names", ["seed", "http"])
async def test_values_and_deltas(aiohttp_client, registry, names):
    """A value is the sum of all series with the labels; a delta is what has been added since the test began."""
    client = await aiohttp_client(application(registry, names=[names]))
    metrics = RegistryMetrics(registry)
    name = "http_requests_total" if names == "http" else "request_count_total"
    assert metrics.value(name) == 0
    for cell in (1, 2, 2):
        await client.get(f"/cells/{cell}")
    await metrics.settled()
    later = metrics.of(registry)
    await client.get("/cells/2")
    await later.settled()
    label = "handler" if names == "http" else "path"
    assert (
        metrics.value(name, method="GET", status="200") == metrics.value(name, status=200) == metrics.delta(name) == 4
    )
    assert (metrics.value(name, **{label: "/cells/2"}), later.delta(name, **{label: "/cells/2"})) == (3, 1)
    assert metrics.value(name, status="500") == later.delta(name, **{label: "/cells/1"}) == 0


async def test_what_is_in_progress(aiohttp_client, registry):
    """Nothing is settled as long as a request is in progress, and the error names it."""
    app = application(registry)
    app[EVENT] = asyncio.Event()
    client = await aiohttp_client(app)
    metrics = RegistryMetrics(registry)
    task = asyncio.create_task(client.get("/wait"))
    while not metrics.value("requests_in_progress"):
        await asyncio.sleep(0.001)
    with pytest.raises(AssertionError, match=r"requests are in progress after 0.01 s: /wait \(1\)"):
        await metrics.settled(timeout=0.01)
    await RegistryMetrics(registry).settled()  # it is that of another test
    app[EVENT].set()
    await metrics.settled()
    assert metrics.value("request_count_total") == 1
    await task


async def test_a_request_of_another_test_that_ends_meanwhile(aiohttp_client, registry):
    """It does not count for one of this test with the same labels."""
    app = application(registry)
    app[EVENT] = asyncio.Event()
    client = await aiohttp_client(app)
    earlier = asyncio.create_task(client.get("/wait"))
    while not exchanges_in_progress(registry):
        await asyncio.sleep(0.001)
    metrics = RegistryMetrics(registry)
    app[EVENT].set()
    await earlier
    await RegistryMetrics(registry).settled()
    app[EVENT].clear()
    task = asyncio.create_task(client.get("/wait"))
    while not exchanges_in_progress(registry):
        await asyncio.sleep(0.001)
    with pytest.raises(AssertionError, match=r"requests are in progress after 0 s: /wait \(1\)"):
        await metrics.settled(timeout=0)
    app[EVENT].set()
    await metrics.settled()
    assert metrics.delta("request_count_total") == 2
    await task


async def test_requests_that_are_not_recorded_here(aiohttp_client, registry):
    """Those that are left out, and those of another registry, are not waited for."""
    other = application(CollectorRegistry(), exclude=["/wait"])
    other[EVENT] = asyncio.Event()
    other.middlewares.append(hrprometheus_middleware(registry=registry))
    client = await aiohttp_client(other)
    task = asyncio.create_task(client.get("/wait"))
    while not exchanges_in_progress(registry):
        await asyncio.sleep(0.001)
    await RegistryMetrics(CollectorRegistry()).settled(timeout=0)
    other[EVENT].set()
    await task


async def test_bounded_labels(aiohttp_client, registry):
    """The error counts the labels of this test, names some, and says how to repair it."""
    client = await aiohttp_client(application(registry))
    await client.get("/cells/0")
    metrics = RegistryMetrics(registry)
    for cell in range(1, 13):
        await client.get(f"/cells/{cell}")
    await metrics.settled()
    metrics.assert_bounded(labels=12)
    with pytest.raises(
        AssertionError, match=r"12 path labels instead of at most 11: /cells/1, .*/cells/10, …. Fix param"
    ):
        metrics.assert_bounded(labels=11)


@pytest.mark.parametrize("names", ["seed", "otel"])
async def test_bounded_labels_of_upgrades(aiohttp_client, registry, names):
    """They have no latency, and are requests all the same."""

    async def talk(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.close()
        return socket

    app = application(registry, names=[names])
    app.router.add_get("/talk/{room}", talk)
    client = await aiohttp_client(app)
    metrics = RegistryMetrics(registry)
    for room in range(3):
        async with client.ws_connect(f"/talk/{room}") as socket:
            await socket.receive()
    await client.get("/cells/1")
    await metrics.settled()
    with pytest.raises(AssertionError, match="4 path labels" if names == "seed" else "1 path labels"):
        metrics.assert_bounded(labels=3 if names == "seed" else 0)


def test_wrong_names(registry, metrics):
    """A test that expects 0 of a misspelt name would always pass."""
    Counter("cats", "Cats", ["name"], registry=registry).labels("Tom").inc()
    application(registry)
    with pytest.raises(
        LookupError, match=r'no sample named "request_count_totl"\. Did you mean "request_count_total"\?'
    ):
        metrics.value("request_count_totl")
    with pytest.raises(
        LookupError, match=r'"cats_total" has no label "nam"\. Did you mean "name"\? Its labels: name\.'
    ):
        metrics.delta("cats_total", nam="Tom")
    assert metrics.value("cats_total", name="Tom") == 1
    for family in ("request_count", "request_latency", "request_count_created", "cats"):
        with pytest.raises(LookupError, match=f'no sample named "{family}"'):
            metrics.delta(family)


def test_nothing_is_imported_before_the_fixture_is_used():
    """Pytest loads the plugin in every project of an environment."""
    code = (
        "import hr_prometheus.pytest_plugin, sys; print(*sorted(sys.modules.keys() & {'aiohttp', 'prometheus_client'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "\n"


@pytest.mark.parametrize("options", [(), ("-n", "2")], ids=["alone", "xdist"])
def test_the_test_in_the_manual(pytester, options):
    """It passes as it stands, and with several processes."""
    (code,) = re.findall(r"```python\n((?:(?!```).)*hr_metrics.*?)```", PAGE.read_text(), re.DOTALL)
    pytester.makepyfile(test_shop=code)
    pytester.makeini("[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function")
    result = pytester.runpytest_subprocess(*options, "-p", "no:anyio", "-p", "no:hypothesispytest")
    result.assert_outcomes(passed=1)
