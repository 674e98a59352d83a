"""Signals to a supervisor and its workers."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import urllib.parse

import aiohttp
import pytest
from conftest import APPS, DEADLINE, Service, clean_environment, read_line
from workers import (
    ASKS_PATIENTLY,
    MARK,
    PATIENT,
    are_without,
    ask,
    children,
    load,
    processes,
    scrape,
    settled,
    slots,
    until,
    until_async,
    until_up,
)  # fmt: skip

VERSION = """
from aiohttp import web
from many import create_app

async def version(request):
    return web.Response(text={!r})

def create():
    app = create_app()
    app.router.add_post("/version", version)
    return app
"""


@pytest.fixture
def mark(tmp_path) -> str:
    """The mark of a test's processes."""
    return str(tmp_path)


@pytest.fixture
def versioned(serve, mark, tmp_path):
    """A service whose code can be replaced, and the file to replace it in."""
    file = tmp_path / "versioned.py"
    file.write_text(VERSION.format("old"))
    service = serve(
        f"{file}:create", "--workers", "2", "--port", "0", "--metrics-port", "0",
        **{MARK: mark, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(APPS)},
    )  # fmt: skip
    return service, file


@pytest.mark.parametrize("keep_alive", [True, False])
async def test_sighup_brings_new_code_and_no_client_notices(versioned, mark, keep_alive):
    """Worker by worker, while clients go on: nothing is refused, cut off or counted twice."""
    service, file = versioned
    old = slots(mark)
    assert await ask(service.url + "/version") == "old"
    file.write_text(VERSION.format("new"))
    async with load(service.url, keep_alive=keep_alive) as client:
        await until_async(lambda: client.answered > 20)
        service.process.send_signal(signal.SIGHUP)
        await until_async(lambda: are_without(mark, *old.values()))
        await until_up(service, 2)
    assert client.failures == []
    for _ in range(4):
        assert await ask(service.url + "/version") == "new"
    metrics = await settled(service)
    assert metrics["answered_total"] == client.answered
    assert metrics['request_count_total{method="POST",path="/",status="200"}'] == client.answered
    assert [metrics[f'hr_prometheus_worker_restarts_total{{reason="reload",worker="{slot}"}}'] for slot in old] == [
        1,
        1,
    ]
    assert service.stop()[0] == 0


async def test_sighup_with_code_that_cannot_start_changes_nothing(versioned, mark, tmp_path):
    """The old workers go on, and the log says why."""
    service, file = versioned
    old = slots(mark)
    file.write_text(f"open('{tmp_path}/imported', 'w').close()\nraise RuntimeError('half a deployment')\n")
    async with load(service.url, keep_alive=False) as client:
        service.process.send_signal(signal.SIGHUP)
        await until_async((tmp_path / "imported").exists)
        await until_async(lambda: slots(mark) == old)
    assert client.failures == []
    file.write_text(VERSION.format("new"))
    service.process.send_signal(signal.SIGHUP)
    await until_async(lambda: set(old.values()).isdisjoint(slots(mark).values()))
    await until_up(service, 2)
    assert await ask(service.url + "/version") == "new"
    code, _, error = service.stop()
    assert code == 0
    assert error.count("keeps running, because its successor has failed: ") == 1
    assert "RuntimeError: half a deployment" in error


async def test_sigttin_adds_a_worker_and_sigttou_takes_one_away(serve, mark):
    """By one each; what the one that went has counted stays, and the last one stays."""
    service = serve("many:create_app", "--workers", "1", "--port", "0", "--metrics-port", "0", **{MARK: mark})
    assert ", 1 worker)" in service.announcement
    (first,) = slots(mark).values()
    service.process.send_signal(signal.SIGTTIN)
    await until_up(service, 2)
    added = slots(mark)[1]
    async with load(service.url) as client:
        await client.until_answered_by(first, added)
        service.process.send_signal(signal.SIGTTOU)
        await until_async(lambda: list(slots(mark).values()) == [first])
    assert client.failures == []
    assert (await scrape(service))["answered_total"] == client.answered
    service.process.send_signal(signal.SIGTTOU)
    assert await ask(service.url) == str(first)
    assert service.stop()[0] == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_stop_answers_what_was_begun(serve, mark, tmp_path, number):
    """Meanwhile the metrics are served and connections are refused; clean-up runs in each worker; the code is 0."""
    service = serve(
        "many:create_app_that_says_when_it_ends", "--workers", "2", "--port", "0", "--metrics-port", "0",
        first=ASKS_PATIENTLY, **{MARK: mark},
    )  # fmt: skip
    waiting = asyncio.create_task(ask(f"{service.url}/wait?file={tmp_path}/go"))
    assert (await asyncio.to_thread(read_line, service.process)).startswith("waiting")
    service.process.send_signal(number)
    # The other worker ends, and what the stop waits for is announced, in whichever order.
    first, second = lines = sorted([await asyncio.to_thread(read_line, service.process) for _ in range(2)])
    assert first.startswith("Stopping: waiting for 1 request (POST /wait, ")
    assert second.startswith("cleaned up ")
    with pytest.raises(aiohttp.ClientError):  # as soon as the other worker has got the message
        while True:
            await ask(service.url)
    metrics = await scrape(service)
    assert metrics["in_hands"] == 1
    up = [value for name, value in metrics.items() if name.startswith("hr_prometheus_worker_up")]
    assert set(up) == {0.0}  # of the one that has something in hands; the other one may be gone already
    (tmp_path / "go").touch()
    assert await waiting == "done"
    out, error = await asyncio.to_thread(service.process.communicate, timeout=DEADLINE)
    out = "".join(lines) + out
    assert (service.process.returncode, error) == (0, "")
    assert out.count("cleaned up") == 2
    assert out.splitlines()[-1].startswith("Stopped after ")
    assert not processes(mark)


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
async def test_a_stop_answers_connections_that_wait(serve, mark, tmp_path, loop):
    """Those that came while all workers were blocked, and that no worker has accepted yet."""
    service = serve("many:create_app", "--workers", "2", "--port", "0", "--loop", loop, *PATIENT, **{MARK: mark})
    blocked = []
    for _ in range(2):
        blocked.append(asyncio.create_task(ask(f"{service.url}/block?file={tmp_path}/go")))
        await asyncio.to_thread(read_line, service.process)
    url = urllib.parse.urlsplit(service.url)
    waiting = []
    for _ in range(20):
        reader, writer = await asyncio.open_connection(url.hostname, url.port)
        writer.write(b"POST / HTTP/1.1\r\nHost: test\r\n\r\n")
        waiting.append((reader, writer))
    service.process.send_signal(signal.SIGTERM)
    (tmp_path / "go").touch()
    assert await asyncio.gather(*blocked) == ["done"] * 2
    for reader, writer in waiting:
        assert (await asyncio.wait_for(reader.read(), DEADLINE)).startswith(b"HTTP/1.1 200")
        writer.close()
    await asyncio.to_thread(service.process.communicate, timeout=DEADLINE)
    assert service.process.returncode == 0


async def test_a_stop_does_not_wait_for_ever(serve, mark, tmp_path):
    """After --shutdown-timeout a request is given up."""
    service = serve("many:create_app", "--workers", "2", "--port", "0", "--shutdown-timeout", "0.1", **{MARK: mark})
    waiting = asyncio.create_task(ask(f"{service.url}/wait?file={tmp_path}/never"))
    await asyncio.to_thread(read_line, service.process)
    assert service.stop()[0] == 0
    with pytest.raises(Exception, match="disconnected"):
        await waiting
    assert not processes(mark)


async def test_a_second_signal_kills(serve, mark, tmp_path):
    """Even a worker that is blocked, which is named; the code is 0, as of one process."""
    service = serve("many:create_app", "--workers", "2", "--port", "0", *PATIENT, **{MARK: mark})
    blocked = asyncio.create_task(ask(f"{service.url}/block?file={tmp_path}/never"))
    _, pid = (await asyncio.to_thread(read_line, service.process)).split()
    service.process.send_signal(signal.SIGTERM)
    await until_async(lambda: list(slots(mark).values()) == [int(pid)])
    slot = next(iter(slots(mark)))
    line = await asyncio.to_thread(read_line, service.process)
    assert line.startswith("Stopping: waiting for worker ")  # the other one may be too busy to answer in time
    assert f"worker {slot}, whose event loop is busy" in line
    assert line.endswith(", at most 10 s; Ctrl-C again to stop now\n")
    assert service.stop(signal.SIGTERM)[0] == 0
    with pytest.raises(Exception, match="disconnected"):
        await blocked
    assert not processes(mark)


def test_a_stop_during_the_first_start(serve, mark, tmp_path):
    """It is no failure, even if the application is only being imported."""
    (tmp_path / "slow.py").write_text("import many, time\nmany.say('importing')\ntime.sleep(3600)\n")
    command = [sys.executable, "-m", "hr_prometheus", "run", f"{tmp_path}/slow.py:app", "--workers", "2", "--port", "0"]
    process = subprocess.Popen(
        command, cwd=APPS, env=clean_environment(**{MARK: mark, "PYTHONPATH": str(APPS)}),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert read_line(process).startswith("importing")
        process.terminate()
        assert Service(process, "").end() == (0, "", "")
    finally:
        process.kill()
    assert not processes(mark)


def test_a_worker_that_is_told_to_stop_is_started_again(serve, mark):
    """SIGTERM to a worker restarts it: the supervisor decides how many there are."""
    service = serve("many:create_app", "--workers", "2", "--port", "0", **{MARK: mark})
    victim = slots(mark)[0]
    os.kill(victim, signal.SIGTERM)
    until(lambda: are_without(mark, victim))
    assert "has ended, by exit code 0." in service.stop()[2]


REAPER = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(36, 1)  # PR_SET_CHILD_SUBREAPER, which makes of a process what process 1 is
os.execv(sys.executable, [sys.executable, "-m", "hr_prometheus", "run", *sys.argv[1:]])
"""


def test_orphans_are_reaped(serve, mark, tmp_path):
    """As process 1 of a container the supervisor gets each process that has lost its parent."""
    (tmp_path / "orphans.py").write_text(
        "import many, os, subprocess\n"
        "subprocess.run(['/bin/sh', '-c', 'sleep 0.1 & exit 0'])\n"
        "create_app = many.create_app\n"
    )
    service = serve(
        f"{tmp_path}/orphans.py:create_app", "--workers", "2", "--port", "0",
        command=(sys.executable, "-c", REAPER), **{MARK: mark, "PYTHONPATH": str(APPS)},
    )  # fmt: skip
    until(lambda: sorted(children(service.process.pid)) == sorted(slots(mark).values()))
    assert service.stop()[0] == 0


SLOW_SECOND = """
import time
from pathlib import Path
from aiohttp import web

first = Path(__file__).with_name("first")
if first.exists():
    first.with_name("second").touch()
    time.sleep(30)
first.touch()

def create():
    return web.Application()
"""


def test_an_interruption_while_the_first_worker_serves_alone(tmp_path):
    """It is a stop, with exit code 0, though the others have not started."""
    file = tmp_path / "slow_second.py"
    file.write_text(SLOW_SECOND)
    process = subprocess.Popen(
        [sys.executable, "-m", "hr_prometheus", "run", f"{file}:create", "--workers", "2", "--port", "0"],
        env=clean_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        until(tmp_path.joinpath("second").exists)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=DEADLINE)
    finally:
        process.kill()
    assert (process.returncode, errors) == (0, "")
    assert "Stopped after" in output


def test_a_slow_reload_is_announced(versioned, tmp_path):
    """For each worker that takes its time. The old ones serve meanwhile."""
    service, file = versioned
    slow = f"    import os, time\n    while not os.path.exists({str(tmp_path / 'go')!r}):\n        time.sleep(0.01)\n"
    file.write_text(file.read_text().replace("def create():\n", f"def create():\n{slow}"))
    service.process.send_signal(signal.SIGHUP)
    line = read_line(service.process, skip="nothing")
    assert line == "Reloading: waiting for the application's start-up in worker 2, 2 s so far\n"
    (tmp_path / "go").touch()
    assert service.stop()[:2] == (0, "")
