"""The latest requests that failed or were slow."""

from __future__ import annotations

import asyncio
import math

import pytest
from aiohttp import ClientTimeout, web

from hr_prometheus import ConfigurationError, hrprometheus_middleware, instrument
from hr_prometheus.request.recent import recent_requests

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


async def ok(_request):
    return web.Response(text="ok")


async def fails(request):
    await request.read()
    raise web.HTTPBadGateway(text="four")


async def crashes(_request):
    raise ValueError


async def is_missing(_request):
    raise web.HTTPNotFound


async def endless(request):
    response = web.StreamResponse()
    await response.prepare(request)
    while True:
        await response.write(b"x" * 1000)
        await asyncio.sleep(0.01)


async def websocket(request):
    response = web.WebSocketResponse()
    await response.prepare(request)
    await response.close()
    return response


@pytest.fixture
async def client(aiohttp_client, registry):
    app = web.Application(
        middlewares=[hrprometheus_middleware(registry=registry, detail="full", exclude=["/excluded"])]
    )
    for handler in (ok, is_missing, crashes, endless, websocket):
        app.router.add_get(f"/{handler.__name__}", handler)
    app.router.add_post("/fails/{token}", fails)
    app.router.add_get("/excluded", crashes)
    return await aiohttp_client(app)


async def test_a_failed_request_is_listed_with_what_its_metrics_have(client, registry):
    """It has the label of its path, sizes, times and its trace, but no query, no header and no secret of its path."""
    parent = f"00-{TRACE}-00f067aa0ba902b7-01"
    token = "d41d8cd98f00b204e9800998ecf8427e"  # noqa: S105  # what looks like one
    await client.post(f"/fails/{token}?secret=1", data=b"12345", headers={"traceparent": parent, "Cookie": "a=b"})
    (listed,) = recent_requests(registry).as_list()
    assert listed.pop("time") > 1e9
    assert 0 < listed.pop("first_byte_seconds") <= listed.pop("seconds") < 60
    assert listed == {
        "method": "POST",
        "path": "/fails/{token}",
        "host": None,
        "status": "502",
        "request_bytes": 5,
        "response_bytes": 4,
        "trace": TRACE,
    }


async def test_only_failures_are_listed_and_the_latest_is_first(client, registry):
    """A 499 and a 5xx have failed; a 404, a WebSocket and an excluded request have not."""
    for path in ("/ok", "/is_missing", "/crashes", "/excluded", "/nowhere"):
        await client.get(path, headers={"traceparent": "nonsense"})
    async with client.ws_connect("/websocket") as connection:
        await connection.receive()
    response = await client.get("/endless")
    response.close()
    async with asyncio.timeout(10):
        while len(recent_requests(registry).as_list()) < 2:
            await asyncio.sleep(0.01)
    listed = recent_requests(registry).as_list()
    assert [(each["path"], each["status"], each["trace"]) for each in listed] == [
        ("/endless", "499", None),
        ("/crashes", "500", None),
    ]


async def test_a_slow_request_is_listed(client, registry):
    """The limit is in seconds; infinity lists no slow one."""
    recent_requests(registry).slow = 0.0
    await client.get("/ok")
    recent_requests(registry).slow = math.inf
    await client.get("/ok")
    assert [each["status"] for each in recent_requests(registry).as_list()] == ["200"]


@pytest.mark.parametrize(("slow", "expected"), [(0, []), (0.0001, ["/ok"]), (60, [])])
async def test_instrument_says_what_is_slow(aiohttp_client, registry, slow, expected):
    """In seconds; with 0 no request is."""

    async def takes_a_moment(_request):
        await asyncio.sleep(0.001)
        return web.Response()

    app = web.Application()
    app.router.add_get("/ok", takes_a_moment)
    client = await aiohttp_client(instrument(app, registry=registry, slow=slow))
    await client.get("/ok")
    assert [each["path"] for each in recent_requests(registry).as_list()] == expected


@pytest.mark.parametrize("slow", [-1, True, "1", math.nan, math.inf])
def test_what_is_slow_is_checked(slow):
    """It must be a number of seconds from 0 on."""
    with pytest.raises(ConfigurationError, match="slow=.* is not understood. Expected seconds from 0 on"):
        instrument(web.Application(), slow=slow)


async def test_the_list_is_bounded(client, registry):
    """There are 200 at most."""
    for _ in range(201):
        await client.get("/crashes")
    await client.post("/fails/1", timeout=ClientTimeout(10))
    listed = recent_requests(registry).as_list()
    assert len(listed) == 200
    assert listed[0]["path"] == "/fails/1"
