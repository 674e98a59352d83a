"""An application for many workers, with metrics of its own."""

import asyncio
import ctypes
import os
import sys
import time

from aiohttp import web
from prometheus_client import Counter, Gauge, generate_latest

ANSWERED = Counter("answered", "Answers that were given")
IN_HANDS = Gauge("in_hands", "Requests that wait", multiprocess_mode="livesum")


async def pid(_request: web.Request) -> web.Response:
    ANSWERED.inc()
    return web.Response(text=str(os.getpid()))


def say(word: str) -> None:
    sys.stdout.write(f"{word} {os.getpid()}\n")
    sys.stdout.flush()


async def wait(request: web.Request) -> web.Response:
    """Answer when a file is there."""
    with IN_HANDS.track_inprogress():
        say("waiting")
        while not os.path.exists(request.query["file"]):
            await asyncio.sleep(0.01)
    return web.Response(text="done")


async def block(request: web.Request) -> web.Response:
    """Do nothing else until a file is there."""
    say("blocking")
    while not os.path.exists(request.query["file"]):
        time.sleep(0.01)
    return web.Response(text="done")


async def compute(_request: web.Request) -> web.Response:
    """Keep the GIL, in one call of C."""
    say("computing")
    return web.Response(text=str(sum(range(10**15))))


async def sleep(_request: web.Request) -> web.Response:
    """Keep the GIL, in one call of C that a signal ends."""
    say("sleeping")
    return web.Response(text=str(ctypes.PyDLL(None).sleep(600)))


async def leave(_request: web.Request) -> web.Response:
    os._exit(7)


def create_app() -> web.Application:
    app = web.Application()
    app.router.add_route("*", "/", pid)
    app.router.add_post("/wait", wait)
    app.router.add_post("/block", block)
    app.router.add_post("/compute", compute)
    app.router.add_post("/sleep", sleep)
    app.router.add_post("/exit", leave)
    return app


def create_app_with_users() -> web.Application:
    app = create_app()
    app.router.add_post("/users/{user}", pid)
    return app


def create_instrumented_app(**options: object) -> web.Application:
    from hr_prometheus import instrument

    return instrument(create_app(), **options)


async def own_metrics(_request: web.Request) -> web.Response:
    return web.Response(body=generate_latest())


def create_app_with_a_view_of_its_own() -> web.Application:
    app = create_app()
    app.router.add_get("/own", own_metrics)
    return app


async def _cleaned_up(_app: web.Application) -> None:
    say("cleaned up")


def create_app_that_says_when_it_ends() -> web.Application:
    app = create_app()
    app.on_cleanup.append(_cleaned_up)
    return app


def create_app_only_once() -> web.Application:
    """Fail in all workers but the first, which makes the file that the environment names."""
    try:
        os.close(os.open(os.environ["ONCE"], os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        raise RuntimeError("there is one already") from None
    return create_app()


def create_app_and_thread() -> web.Application:
    """Fail, and leave a thread behind."""
    import threading

    threading.Thread(target=time.sleep, args=(3600,)).start()
    raise RuntimeError("no database")


def killed_while_it_starts() -> web.Application:
    os.kill(os.getpid(), 9)
    raise AssertionError
