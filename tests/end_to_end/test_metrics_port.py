"""The metrics port of one process: a thread of its own answers, whatever the application's event loop does."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest
from conftest import DEADLINE, read_line, wait_for
from test_serving import get
from workers import ask, load, scrape, settled

ARGUMENTS = ("--port", "0", "--metrics-port", "0")
LOOPS = pytest.mark.parametrize("loop", ["asyncio", "uvloop"])


@LOOPS
async def test_a_scrape_is_answered_while_the_event_loop_is_blocked(serve, tmp_path, loop):
    """It shows the request that blocks as in progress, and afterwards as ended."""
    service = serve("many:create_app", *ARGUMENTS, "--loop", loop)
    blocked = asyncio.create_task(ask(f"{service.url}/block?file={tmp_path}/go"))
    assert await asyncio.to_thread(read_line, service.process) == f"blocking {service.process.pid}\n"
    in_progress = 'requests_in_progress{method="POST",path="/block"}'
    metrics = await scrape(service)
    assert metrics[in_progress] == 1
    assert not blocked.done()
    (tmp_path / "go").touch()
    assert await blocked == "done"
    async with asyncio.timeout(DEADLINE):
        while metrics[in_progress]:
            metrics = await scrape(service)
    assert metrics['request_latency_count{method="POST",path="/block"}'] == 1
    assert service.stop() == (0, "", "")


@LOOPS
async def test_scrapes_beside_requests_lose_none(serve, loop):
    """Whatever is scraped meanwhile, counts never fall, and in the end they are the answers that clients have got."""
    service = serve("many:create_app", *ARGUMENTS, "--loop", loop, is_measured=False)
    names = [
        'request_count_total{method="POST",path="/",status="200"}',
        'request_latency_count{method="POST",path="/"}',
        "answered_total",
    ]
    async with load(service.url) as client, asyncio.timeout(DEADLINE):
        scrapes = [await scrape(service) for _ in range(100)]
    metrics = await settled(service)
    assert [metrics[name] for name in names] == [client.answered] * 3
    assert not client.failures
    for name in names:
        assert all(earlier.get(name, 0) <= later.get(name, 0) for earlier, later in pairwise([*scrapes, metrics]))
    assert metrics["hr_prometheus_scrape_duration_seconds_count"] >= 100


@LOOPS
def test_the_thread_ends_with_the_application(serve, loop):
    """It leaves no socket and no event loop open."""
    service = serve("many:create_app", *ARGUMENTS, "--loop", loop, PYTHONWARNINGS="always::ResourceWarning")
    assert get(service.metrics_url, Connection="keep-alive")[0] == 200
    assert service.stop() == (0, "", "")


def test_an_application_outlives_the_thread(serve):
    """The end of the thread is logged and counted, and closes its port."""
    service = serve("collecting:create_app_with_a_metric_that_exits", *ARGUMENTS, GATE="/")
    with pytest.raises(OSError, match="closed|reset|refused"):
        get(service.metrics_url)
    errors = 'hr_prometheus_errors_total{where="scrape"}'
    assert wait_for(lambda: get(f"{service.url}/own")[1], lambda text: errors in text)
    with pytest.raises(OSError, match="refused"):
        get(service.metrics_url)
    code, _, log = service.stop()
    assert code == 0
    assert "The thread of the metrics port has ended" in log
