"""The addresses of workers, with either event loop: ports, Unix sockets, TLS, and how connections are shared."""

from __future__ import annotations

import asyncio
import os
import resource
import socket
import ssl
import sys
from collections import Counter

import aiohttp
import pytest
from conftest import APPS, DEADLINE
from workers import MARK, ask, load, scrape, slots, until_async

LOOPS = pytest.mark.parametrize("loop", ["asyncio", "uvloop"])


@pytest.fixture
def mark(tmp_path) -> str:
    """The mark of a test's processes."""
    return str(tmp_path)


async def connections(url: str, connector: aiohttp.BaseConnector | None = None) -> list[str]:
    """Return the pids of the workers that answer sixteen connections at a time."""
    async with aiohttp.ClientSession(connector=connector or aiohttp.TCPConnector(limit=0)) as session:
        responses = await asyncio.gather(*(session.post(url) for _ in range(16)))
        return [await response.text() for response in responses]


@LOOPS
async def test_each_worker_gets_its_share(serve, mark, loop):
    """Connections that come all at once are shared, where asyncio's own way gives all to the first one awake."""
    service = serve("many:create_app", "--workers", "4", "--port", "0", "--loop", loop, **{MARK: mark})
    answers: Counter[str] = Counter()
    async with asyncio.timeout(DEADLINE):
        while len(answers) < 4 or min(answers.values()) < 2:  # a worker may get no time on a busy machine
            answers = Counter(await connections(service.url))


@LOOPS
async def test_a_unix_socket(serve, mark, tmp_path, loop):
    """It is shared as well, and gone afterwards."""
    path = str(tmp_path / "socket")
    service = serve(
        "many:create_app", "--workers", "2", "--unix-path", path, "--metrics-port", "0", "--loop", loop,
        **{MARK: mark},
    )  # fmt: skip
    assert f" on unix:{path}, metrics on http://127.0.0.1:" in service.announcement
    pids = await connections("http://localhost/", aiohttp.UnixConnector(path, limit=0))
    assert set(map(int, pids)) <= set(slots(mark).values())
    assert (await scrape(service))["answered_total"] == 16
    assert service.stop()[0] == 0
    assert not os.path.exists(path)


@LOOPS
async def test_tls(serve, mark, loop):
    """Each worker speaks it; a client that does not is no harm."""
    tls = APPS.parent / "tls"  # a key for nothing but this test
    certfile = str(tls / "certificate.pem")
    service = serve(
        "many:create_app", "--workers", "2", "--port", "0", "--certfile", certfile, "--keyfile", str(tls / "key.pem"),
        "--loop", loop, **{MARK: mark},
    )  # fmt: skip
    assert service.url.startswith("https://127.0.0.1:")
    for _ in range(4):
        with socket.create_connection(service.url.removeprefix("https://").split(":")) as plain:
            plain.sendall(b"GET / HTTP/1.1\r\n\r\n")
    context = ssl.create_default_context(cafile=certfile)
    pids: list[str] = []
    async with asyncio.timeout(DEADLINE):
        while set(map(int, pids)) != set(slots(mark).values()):
            pids += await connections(service.url, aiohttp.TCPConnector(limit=0, ssl=context))
    connector = aiohttp.TCPConnector(ssl=context)
    async with aiohttp.ClientSession(connector=connector) as session, session.get(service.metrics_url) as answer:
        assert f"answered_total {float(len(pids))}" in await answer.text()
    code, _, error = service.stop()
    assert (code, error) == (0, "")


LIMITED = """
import os, resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
os.execv(sys.executable, [sys.executable, "-m", "hr_prometheus", "run", *sys.argv[1:]])
"""


@LOOPS
async def test_no_descriptors_left(serve, mark, loop):
    """A worker that can take no more connections says so once, goes on with those it has, and takes more later."""
    service = serve(
        "many:create_app_with_users", "--workers", "1", "--port", "0", "--loop", loop,
        command=(sys.executable, "-c", LIMITED), **{MARK: mark},
    )  # fmt: skip
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 100
    address = service.url.removeprefix("http://").split(":")
    async with aiohttp.ClientSession() as session:
        async with session.post(service.url) as answer:
            pid = await answer.text()
        idle = [socket.create_connection(address) for _ in range(60)]
        await until_async(lambda: len(os.listdir(f"/proc/{pid}/fd")) == 40)
        new_paths = 60
        for number in range(new_paths):
            async with session.post(f"{service.url}/users/{number}") as answer:  # on the connection that there is
                assert await answer.text() == pid
        for each in idle:
            each.close()
        assert await ask(service.url) == pid
    counted = 'request_count_total{method="POST",path="/users/'
    assert sum(value for name, value in (await scrape(service)).items() if name.startswith(counted)) == new_paths
    code, _, error = service.stop()
    assert code == 0
    assert error.count("The numbers of new series cannot be written ([Errno 24] Too many open files") == 1
    assert error.count("No connection can be accepted at present: Too many open files.") >= 1
    assert error.count("\n") < 5


async def test_every_worker_gives_the_same_metrics(serve, mark):
    """On the application's own port every worker gives the same answer."""
    service = serve("many:create_app", "--workers", "3", "--port", "0", **{MARK: mark})
    async with load(service.url) as client:
        await client.until_answered_by(*slots(mark).values())
    for _ in range(12):
        assert (await scrape(service))["answered_total"] == client.answered
    async with (
        aiohttp.ClientSession(headers={"Accept": "application/openmetrics-text; version=1.0.0"}) as session,
        session.get(service.metrics_url, params={"name[]": "answered_total"}) as answer,
    ):
        assert answer.content_type == "application/openmetrics-text"
        lines = (await answer.text()).splitlines()
    assert lines[-2:] == [f"answered_total {float(client.answered)}", "# EOF"]


async def test_a_view_of_the_applications_own_is_warned_of(serve, mark):
    """It shows one worker's share: one warning names the place where all numbers are."""
    service = serve(
        "many:create_app_with_a_view_of_its_own", "--workers", "2", "--port", "0", "--metrics-port", "0", **{MARK: mark}
    )
    async with aiohttp.ClientSession() as session:
        await scrape(service)
        answers = await asyncio.gather(*(session.get(service.url + "/own") for _ in range(16)))
        assert {answer.status for answer in answers} == {200}
    _, _, errors = service.stop()
    assert errors.count("these are the numbers of one worker. Those of all workers are at http://127.0.0.1:") == 1
    assert service.metrics_url.removesuffix("/metrics") in errors
