"""Applications whose stop hangs: in a request, in the clean-up, or in a thread."""

import asyncio
import atexit
import contextlib
import signal
import sys
import threading
import time

from aiohttp import web


async def stuck(_request: web.Request) -> web.Response:
    """Ignore every cancellation."""
    sys.stdout.write("stuck request begun\n")
    while True:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(3600)


async def fail(_request: web.Request) -> web.Response:
    raise RuntimeError("no answer")


async def in_a_thread(_request: web.Request) -> web.Response:
    sys.stdout.write("thread request begun\n")
    await asyncio.to_thread(time.sleep, 3600)
    return web.Response()


async def block(_request: web.Request) -> web.Response:
    sys.stdout.write("blocking request begun\n")
    time.sleep(3600)


async def ignores(_app: web.Application) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


async def waits(_app: web.Application) -> None:
    await asyncio.sleep(3600)


async def blocks(_app: web.Application) -> None:
    time.sleep(3600)


def fails() -> web.Application:
    app = web.Application()
    app.router.add_get("/", fail)
    return app


def requests() -> web.Application:
    app = web.Application()
    app.router.add_get("/stuck", stuck)
    app.router.add_get("/thread", in_a_thread)
    app.router.add_get("/block", block)
    return app


def ignoring() -> web.Application:
    app = web.Application()
    app.on_startup.append(ignores)
    return app


def shutdown() -> web.Application:
    app = web.Application()
    app.on_shutdown.append(waits)
    return app


def cleanup() -> web.Application:
    app = web.Application()
    app.on_cleanup.append(waits)
    return app


def blocked_cleanup() -> web.Application:
    app = web.Application()
    app.on_cleanup.append(blocks)
    return app


def exit_function() -> web.Application:
    atexit.register(time.sleep, 3600)
    return web.Application()


def thread() -> web.Application:
    threading.Thread(target=time.sleep, args=(3600,), name="endless").start()
    return web.Application()


def short_thread() -> web.Application:
    ends = threading.Event()

    async def end(_app: web.Application) -> None:
        threading.Timer(0.3, ends.set).start()

    threading.Thread(target=ends.wait).start()
    app = web.Application()
    app.on_cleanup.append(end)
    return app
