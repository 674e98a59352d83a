"""--client-metrics: a service that calls two back ends, one of which is slow."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest
from aiohttp import web
from workers import scrape


@pytest.mark.parametrize(("option", "calls"), [("--client-metrics", 1), ("--client-metrics=all", 2)])
async def test_workers_show_together_which_back_end_is_slow(serve, aiohttp_server, option, calls):
    """The calls of all workers are added up by route and host; with ``all`` those of sessions that nothing keeps, too."""
    urls = []
    for delay in (0, 0.2):

        async def answer(_request, delay=delay):
            await asyncio.sleep(delay)
            return web.Response(text="x" * 10)

        app = web.Application()
        app.router.add_get("/", answer)
        urls.append(str((await aiohttp_server(app)).make_url("/")))
    service = await asyncio.to_thread(
        serve, option, "calling:create_app", "--client-by-route", "--workers", "2", "--port", "0"
    )
    pids: set[str] = set()
    requests = 0
    while len(pids) < 2:
        async with aiohttp.ClientSession() as session:
            answers = await asyncio.gather(
                *(session.get(f"{service.url}/call", params=[("url", url) for url in urls]) for _ in range(8))
            )
            pids |= {await answer.text() for answer in answers}
            requests += len(answers)
    numbers = await scrape(service)
    fast, slow = (
        f'client="default",host="{url.removeprefix("http://").rstrip("/")}",method="GET",path="/call"' for url in urls
    )
    assert numbers[f'client_request_count_total{{{fast},status="200"}}'] == requests * calls
    assert numbers[f'client_request_count_total{{{slow},status="200"}}'] == requests
    assert (
        numbers[f"client_request_latency_sum{{{slow}}}"] >= 0.19 * requests
    )  # uvloop's clock counts whole milliseconds
    assert numbers[f"client_response_size_bytes_sum{{{slow}}}"] == 10 * requests
    progress = [value for name, value in numbers.items() if name.startswith("client_requests_in_progress")]
    assert progress == [0, 0]
    code, _output, error = await asyncio.to_thread(service.stop)
    assert code == 0
    assert error.count("1 client session is measured.") == (2 if calls == 1 else 0)
