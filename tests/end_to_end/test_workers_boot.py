"""Workers whose start hangs while others serve."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest
from conftest import DEADLINE
from workers import MARK, ask, slots, until_async, until_up

APPLICATION = """
import os, signal, time
from aiohttp import web

async def block(app):
    # The event loop does not run until SIGTERM has come.
    came, handler = [], signal.getsignal(signal.SIGTERM)
    signal.signal(signal.SIGTERM, lambda *signal: came.append(signal))
    open("blocked", "w").close()
    while not came:
        time.sleep(0.01)
    signal.signal(signal.SIGTERM, handler)

def create():
    if "{0}" == "hang":
        time.sleep(3600)
    async def version(request):
        return web.Response(text="{0}")
    app = web.Application()
    app.router.add_post("/", version)
    if "{0}" == "block":
        app.on_startup.append(block)
    return app
"""


@pytest.fixture
def mark(tmp_path) -> str:
    """The mark of a test's processes."""
    return str(tmp_path)


@pytest.fixture
def edit(tmp_path):
    """Write the application: it answers with a word, or hangs."""

    def write(word: str) -> None:
        (tmp_path / "edited.py").write_text(APPLICATION.format(word))

    return write


@pytest.fixture
def served(serve, edit, mark, tmp_path):
    """Serve it with options."""

    def start(*options: str):
        edit("old")
        return serve(
            "edited:create", "--port", "0", "--metrics-port", "0", *options, cwd=tmp_path,
            **{MARK: mark, "PYTHONDONTWRITEBYTECODE": "1"},
        )  # fmt: skip

    return start


async def until_all_answer(service, text: str) -> None:
    """Wait until there are only such answers."""
    async with asyncio.timeout(DEADLINE):
        while {await ask(service.url) for _ in range(10)} != {text}:
            await asyncio.sleep(0.05)


async def test_a_successor_that_hangs_is_killed_and_tried_again(served, edit, mark):
    """After --boot-timeout, with one line; meanwhile the old worker serves, and later the repaired code."""
    service = served("--workers", "1", "--boot-timeout", "4")
    edit("hang")
    service.process.send_signal(signal.SIGHUP)
    await until_async(lambda: len(slots(mark)) == 2)
    assert await ask(service.url) == "old"
    await until_async(lambda: len(slots(mark)) == 1)
    edit("new")
    await until_all_answer(service, "new")
    await until_up(service, 1)
    code, _, error = service.stop()
    assert code == 0
    line = 'Worker 0 keeps running, because its successor has failed: the application "edited:create" has not started within 4 s'
    assert error.count(line) == 1, error


async def test_a_further_reload_begins_anew(served, edit, mark):
    """With the present code, at once: in place of a successor that hangs, and of a worker that was started again and hangs."""
    service = served("--workers", "2", "--boot-timeout", "0")
    edit("hang")
    os.kill(slots(mark)[1], signal.SIGKILL)
    await until_async(lambda: 1 in slots(mark))
    service.process.send_signal(signal.SIGHUP)
    await until_async(lambda: 2 in slots(mark))
    edit("new")
    service.process.send_signal(signal.SIGHUP)
    await until_all_answer(service, "new")
    await until_up(service, 2)
    assert service.stop()[0] == 0


@pytest.mark.parametrize("options", [("--workers", "1"), ("--workers", "2"), ("--reload",)])
async def test_a_further_reload_during_a_start_that_blocks(served, edit, mark, tmp_path, options):
    """The worker that started meanwhile has no part in it: as many serve as before, all with the latest code."""
    service = served(*options)
    workers = int(options[1]) if len(options) == 2 else 1
    old = set(slots(mark).values())
    for word in ("block", "new"):
        edit(word)
        if "--reload" not in options:
            service.process.send_signal(signal.SIGHUP)
        if word == "block":
            await until_async((tmp_path / "blocked").exists)
    await until_async(lambda: old.isdisjoint(slots(mark).values()) and len(slots(mark)) == workers)
    await until_all_answer(service, "new")
    await until_up(service, workers)


async def test_a_worker_is_taken_away_while_another_one_is_replaced(served, edit, mark, tmp_path):
    """It is not the successor, without which the reload would fail."""
    service = served("--workers", "2")
    edit("hang")
    service.process.send_signal(signal.SIGHUP)
    await until_async(lambda: len(slots(mark)) == 3)
    service.process.send_signal(signal.SIGTTOU)
    await until_async(lambda: sorted(slots(mark)) == [0, 2])
    edit("new")
    service.process.send_signal(signal.SIGHUP)
    await until_async(lambda: len(slots(mark)) == 1)
    await until_all_answer(service, "new")
    await until_up(service, 1)
