"""The metrics port of one process: a thread of its own answers, whatever the application's event loop does."""

from __future__ import annotations

import asyncio
import signal
import socket
import threading
from contextlib import suppress
from itertools import pairwise

import pytest
from conftest import DEADLINE, read_line, start_command, until, wait_for
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


@pytest.mark.parametrize("workers", [(), ("--workers", "2")], ids=["one process", "workers"])
def test_the_probes(serve, tmp_path, workers):
    """The process is healthy as long as it lives, and ready from its announcement until it begins to stop."""
    service = serve("served:app", *ARGUMENTS, *workers)
    port = service.metrics_url.removesuffix("/metrics")
    assert get(f"{port}/-/healthy") == (200, "Healthy.\n")
    assert get(f"{port}/-/ready") == (200, "Ready.\n")
    assert get(f"{service.url}/-/ready")[0] == 404
    thread = threading.Thread(target=get, args=[f"{service.url}/slow?file={tmp_path}/go"])
    thread.start()
    read_line(service.process)
    service.process.send_signal(signal.SIGTERM)
    assert read_line(service.process).startswith("Stopping: ")
    assert get(f"{port}/-/healthy") == (200, "Healthy.\n")
    assert get(f"{port}/-/ready") == (503, "Not ready: the application starts or stops.\n")
    (tmp_path / "go").touch()
    thread.join(DEADLINE)
    assert service.process.wait(DEADLINE) == 0


@pytest.mark.parametrize("workers", [(), ("--workers", "1")], ids=["one process", "workers"])
async def test_a_flood_of_connections(serve, workers):
    """They wait for their turn, and the oldest ones are closed for those that are too many. A scrape is answered."""
    service = serve("served:app", *ARGUMENTS, *workers, is_measured=False)
    port = int(service.metrics_url.removesuffix("/metrics").rpartition(":")[2])
    clients = [await asyncio.open_connection("127.0.0.1", port) for _ in range(300)]
    ends = [asyncio.create_task(reader.read()) for reader, _ in clients]
    assert (await asyncio.to_thread(get, service.metrics_url))[0] == 200
    await until(lambda: sum(each.done() for each in ends) > 100)
    assert not all(each.done() for each in ends)
    for _, writer in clients:
        writer.close()
    await asyncio.gather(*ends, return_exceptions=True)


@pytest.mark.parametrize("workers", [(), ("--workers", "1")], ids=["one process", "workers"])
def test_the_probes_during_the_clean_up(serve, tmp_path, workers):
    """The process is healthy and not ready until all of it is over. Prometheus learns of the end before the port is closed."""
    file, targets = tmp_path / "go", tmp_path / "targets"
    targets.mkdir()
    service = serve(
        "waiting:create_app_with_cleanup", *ARGUMENTS, "--file-sd", str(targets), *workers, WAIT_FOR=str(file)
    )
    port = service.metrics_url.removesuffix("/metrics")
    service.process.send_signal(signal.SIGTERM)
    while read_line(service.process) != "cleaning up\n":
        pass
    assert status_of(f"{port}/-/healthy") == status_of(service.metrics_url) == 200
    assert status_of(f"{port}/-/ready") == 503
    file.touch()
    while status_of(f"{port}/-/healthy"):
        pass
    assert not list(targets.iterdir())
    assert service.process.wait(DEADLINE) == 0


@pytest.mark.parametrize("path", ["/-/healthy", "/-/ready"])
def test_metrics_in_the_place_of_a_probe(serve, path):
    """They have the path that they were given."""
    service = serve("served:app", *ARGUMENTS, "--metrics-path", path)
    assert "# TYPE " in get(service.metrics_url)[1]


@pytest.mark.parametrize("workers", [(), ("--workers", "1")], ids=["one process", "workers"])
def test_an_application_that_starts_is_not_ready(tmp_path, workers):
    """Its port answers before it is announced."""
    port, file = free_port(), tmp_path / "go"
    process = start_command(
        "run", "waiting:create_app", "--port", "0", "--metrics-port", str(port), *workers, WAIT_FOR=str(file)
    )
    ready = f"http://127.0.0.1:{port}/-/ready"
    try:
        assert wait_for(lambda: status_of(ready), lambda status: status != 0) == 503
        file.touch()
        read_line(process)
        assert status_of(ready) == 200
    finally:
        process.terminate()
        process.communicate()


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def status_of(url: str) -> int:
    """Return the status of an answer; 0 if there is none."""
    with suppress(OSError):
        return get(url)[0]
    return 0


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
