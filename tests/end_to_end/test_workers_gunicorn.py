"""gunicorn with the hooks of the example: its workers keep their numbers as ours do."""

from __future__ import annotations

import asyncio
import os
import random
import re
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import APPS, DEADLINE, clean_environment, samples
from workers import MARK, Load, ask, children, load, processes, until, until_async

EXAMPLE = APPS.parent.parent / "examples" / "gunicorn.conf.py"
GUNICORN = [sys.executable, "-m", "gunicorn", "-c", str(EXAMPLE), "--bind", "127.0.0.1:0", "--workers", "3"]


@pytest.fixture
def gunicorn(tmp_path):
    """Start gunicorn with the example; the process, its errors as they come, and the address that it has taken."""
    errors = tmp_path / "errors"
    with errors.open("w") as file:
        process = subprocess.Popen(
            [*GUNICORN, "many:create_instrumented_app()"], cwd=APPS, stderr=file, stdout=subprocess.DEVNULL,
            env=clean_environment(**{MARK: str(tmp_path), "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}),
        )  # fmt: skip
    try:
        until(lambda: errors.read_text().count("Booting worker") == 3 or process.poll() is not None)
        yield process, errors, re.search(r"Listening at: (\S+)", errors.read_text())[1]
    finally:
        process.terminate()
        process.wait(DEADLINE)


async def scrape(url: str) -> dict[str, float]:
    """Return the samples of a scrape."""
    import aiohttp

    async with aiohttp.ClientSession() as session, session.get(f"{url}/metrics") as response:
        assert response.status == 200
        return samples(await response.text())


def is_counted(client: Load, metrics: dict[str, float], kills: int) -> bool:
    """Whether each answer is counted, and nothing else but the answers that were lost with a killed worker."""
    most = client.answered + len(client.failures)
    requests = metrics['request_count_total{method="POST",path="/",status="200"}']
    return client.answered <= metrics["answered_total"] <= most and client.answered - kills <= requests <= most


async def test_killed_workers_lose_no_number(gunicorn, tmp_path):
    """Every answer that a client got is counted, whichever worker is scraped, and nothing is in progress for ever."""
    process, errors, url = gunicorn
    await ask(url)
    async with load(url, keep_alive=False) as client:
        client.answers["before"] += 1
        for kills in range(1, 5):
            await until_async(lambda: client.answered > kills * 50)  # noqa: B023
            os.kill(random.choice(children(process.pid)), signal.SIGKILL)  # noqa: S311
            await until_async(lambda: errors.read_text().count("Booting worker") == 3 + kills)  # noqa: B023
    async with asyncio.timeout(DEADLINE):
        while (await scrape(url))['requests_in_progress{method="POST",path="/"}']:  # an answer comes before its end
            await asyncio.sleep(0.01)
    for _ in range(6):
        metrics = await scrape(url)
        assert is_counted(client, metrics, kills)
        assert metrics['requests_in_progress{method="POST",path="/"}'] == 0
    by_slot = {f"{kind}_w{slot}.db" for kind in ("counter", "gauge_livesum") for slot in range(3)}
    assert {path.name for path in Path(tmp_path).rglob("*.db")} <= by_slot
    process.terminate()
    assert process.wait(DEADLINE) == 0
    assert not list(Path(tmp_path).rglob("*.db"))
    assert not processes(str(tmp_path))


async def test_other_names(tmp_path):
    """The application alone says how its metrics are called, and the numbers of all its workers are added up under each name."""
    application = "many:create_instrumented_app(names=['http', 'otel'], latency_by_status=True, buckets={'*': [1, 9]})"
    with running(tmp_path, "-c", str(EXAMPLE), "--workers", "2", application) as (_, _, url):
        pids = [await ask(url) for _ in range(30)]
        while len(set(pids)) < 2:
            pids.append(await ask(url))
        of_otel = 'http_request_method="POST",http_response_status_code="200",http_route="/",'
        expected = {
            'http_requests_total{handler="/",method="POST",status="200"}': len(pids),
            'http_request_duration_seconds_bucket{handler="/",le="9.0",method="POST",outcome="ok"}': len(pids),
            f'http_server_request_duration_seconds_count{{{of_otel}url_scheme="http"}}': len(pids),
            'http_requests_in_progress{handler="/",method="POST"}': 0,
        }
        async with asyncio.timeout(DEADLINE):
            while not expected.items() <= (await scrape(url)).items():  # an answer comes before its request has ended
                await asyncio.sleep(0.01)
        assert not any(name.startswith("request") for name in await scrape(url) if "loop_seconds" not in name)


def test_a_preloaded_application_is_refused():
    """Its metrics would be those of the master."""
    done = subprocess.run(
        [*GUNICORN, "--preload", "many:create_instrumented_app()"], cwd=APPS, env=clean_environment(),
        capture_output=True, text=True, timeout=DEADLINE, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert "gunicorn's preload_app was set" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("hook", "arguments"), [("on_starting", "server"), ("pre_fork", "server, worker")])
def test_a_hook_that_is_missing_is_named(tmp_path, hook, arguments):
    """Where it is one that the workers cannot do without, gunicorn ends with that sentence, without a traceback.

    Gunicorn itself shows one now and then where several workers end at once.
    """
    config = tmp_path / "config.py"
    config.write_text(f"{EXAMPLE.read_text()}\ndef {hook}({arguments}):\n    pass\n")
    command = [sys.executable, "-m", "gunicorn", "-c", str(config), "--bind", "127.0.0.1:0", "--workers", "1"]
    done = subprocess.run(
        [*command, "many:create_instrumented_app()"], cwd=APPS, env=clean_environment(),
        capture_output=True, text=True, timeout=DEADLINE, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert f'a "{hook}" of its own in the place of that of hr_prometheus.workers.gunicorn. Remove it' in done.stderr
    assert "Traceback" not in done.stderr


@contextmanager
def running(tmp_path, *arguments: str, **variables: str):
    """Run gunicorn with two workers; its process, its errors as they come, and its address."""
    errors = tmp_path / "errors"
    command = [sys.executable, "-m", "gunicorn", "--bind", "127.0.0.1:0", "--workers", "2", *arguments]
    with errors.open("w") as file:
        process = subprocess.Popen(command, cwd=APPS, stderr=file, env=clean_environment(**variables))
    try:
        until(lambda: errors.read_text().count("Booting worker") == 2 or process.poll() is not None)
        yield process, errors, re.search(r"Listening at: (\S+)", errors.read_text())[1]
    finally:
        process.terminate()
        process.wait(DEADLINE)


@pytest.mark.parametrize("preload", [[], ["--preload"]])
async def test_prometheus_clients_own_mode_has_our_numbers(tmp_path, preload):
    """A view of the application's that reads a MultiProcessCollector shows the requests of all workers."""
    arguments = [*preload, "--worker-class", "aiohttp.GunicornWebWorker", "multiprocess_view:app"]
    (tmp_path / "numbers").mkdir()
    with running(tmp_path, *arguments, PROMETHEUS_MULTIPROC_DIR=str(tmp_path / "numbers")) as (_, _, url):
        pids = [await ask(url) for _ in range(30)]
        while len(set(pids)) < 2:
            pids.append(await ask(url))
        expected = {
            "answered_total": len(pids),
            'request_count_total{method="POST",path="/",status="200"}': len(pids),
            'request_latency_count{method="POST",path="/"}': len(pids),
            'requests_in_progress{method="POST",path="/"}': 0,
            'requests_in_progress{method="GET",path="/metrics"}': 1,
        }
        async with asyncio.timeout(DEADLINE):
            while not expected.items() <= (await scrape(url)).items():  # an answer comes before its request has ended
                await asyncio.sleep(0.01)
        for _ in range(6):
            metrics = await scrape(url)
            assert [metrics[name] for name in list(expected)[:4]] == [*[len(pids)] * 3, 0]


async def test_a_child_exit_after_ours(tmp_path):
    """That of prometheus_client's manual does not end the master; a sentence says what to do, and slots are used again."""
    config = tmp_path / "config.py"
    config.write_text(
        EXAMPLE.read_text()
        + """
from prometheus_client import multiprocess

def child_exit(server, worker):
    multiprocess.mark_process_dead(worker.pid)
"""
    )
    with running(tmp_path, "-c", str(config), "many:create_instrumented_app()") as (process, errors, url):
        for number in range(2):
            os.kill(int(await ask(url)), signal.SIGKILL)
            until(lambda: errors.read_text().count("Booting worker") == 3 + number)  # noqa: B023
        assert process.poll() is None
        async with asyncio.timeout(DEADLINE):
            while (await scrape(url))["answered_total"] != 2:
                await asyncio.sleep(0.01)
    text = errors.read_text()
    assert text.count("call hr_prometheus.workers.gunicorn.child_exit(server, worker) in it") == 1
    assert "Traceback" not in text


def test_a_hook_that_calls_ours_is_not_warned_of():
    """However it names it."""
    from hr_prometheus.workers import gunicorn as ours
    from hr_prometheus.workers.gunicorn import _calls, child_exit

    assert _calls(child_exit, child_exit)

    def by_module(server, worker):
        ours.child_exit(server, worker)

    def not_at_all(server, worker):
        by_module(server, worker)

    assert _calls(by_module, child_exit)
    assert not _calls(not_at_all, child_exit)
