"""Collectors that take their time, and workers that do not answer: they hide nothing else, and no number is wrong."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest
from conftest import DEADLINE
from workers import MARK, ask, scrape, slots

APP = "collecting:create_app"
ARGUMENTS = (APP, "-P", "0", "--metrics-port", "0")


@pytest.fixture
def gate(tmp_path):
    """The file that the application's slow collector waits for; it is made at the end of the test."""
    path = tmp_path / "gate"
    yield path
    path.touch()


async def test_a_slow_collector_of_a_worker_hides_no_other(serve, tmp_path, gate):
    """All else is in the scrape; the slow one is named once a worker and counted; when it is ready it is shown."""
    service = serve(*ARGUMENTS, "--workers", "2", GATE=str(gate))
    scrapes = 0
    async with asyncio.timeout(DEADLINE):
        for _ in range(2):
            metrics = {}
            while not all(f'level{{worker="{worker}"}}' in metrics for worker in "01"):  # one may be busy otherwise
                metrics = await scrape(service)
                scrapes += 1
            for worker in "01":
                assert metrics[f'level{{worker="{worker}"}}'] == 42
                assert metrics[f'build_info{{version="1",worker="{worker}"}}'] == 1
                assert f'python_gc_collections_total{{generation="0",worker="{worker}"}}' in metrics
            assert not [name for name in metrics if name.startswith("slow")]
        assert 4 <= metrics['hr_prometheus_errors_total{where="collector"}'] <= 2 * scrapes
        gate.touch()
        while 'slow{worker="0"}' not in metrics or 'slow{worker="1"}' not in metrics:
            metrics = await scrape(service)
    _, _, errors = service.stop()
    assert errors.count('The collector "collecting.Slow" has not answered') == 2


async def test_a_slow_collector_of_one_process_delays_nothing_but_the_scrape(serve, gate):
    """Requests are answered while it blocks, and the scrape shows it when it is ready."""
    service = serve(*ARGUMENTS, GATE=str(gate))
    scraping = asyncio.create_task(scrape(service))
    for _ in range(10):
        assert await ask(service.url)
    assert not scraping.done()
    gate.touch()
    assert (await scraping)["slow"] == 1


async def test_a_function_of_a_worker_that_has_never_answered_is_not_zero(serve, tmp_path, gate):
    """Nor is a sum of them; a gauge that was set is shown."""
    gate.touch()
    service = serve(*ARGUMENTS, "--workers", "2", **{MARK: str(tmp_path), "GATE": str(gate)})
    workers = slots(str(tmp_path))
    for pid in workers.values():
        os.kill(pid, signal.SIGSTOP)
    try:
        metrics = await scrape(service)
    finally:
        for pid in workers.values():
            os.kill(pid, signal.SIGCONT)
    assert not [name for name in metrics if "level" in name]
    assert [metrics[f'depth{{worker="{worker}"}}'] for worker in "01"] == [3, 3]
