"""Applications that say how far their start has come, and wait there until they are interrupted.

The environment variable MOMENT names the moment, and HOW says in which way it is spent.
"""

import asyncio
import os
import signal
import sys
import time

from aiohttp import web

MOMENT, HOW = os.environ["MOMENT"], os.environ.get("HOW")


class Destroyed:
    """Is interrupted where Python cannot raise anything."""

    def __del__(self) -> None:
        _wait()


class Named:
    """Is interrupted where Python before 3.12 raises another error."""

    def __set_name__(self, owner: type, name: str) -> None:
        _wait()


def _wait() -> None:
    sys.stdout.write("waiting\n")
    sys.stdout.flush()
    time.sleep(60)


def reached(moment: str) -> None:
    if moment != MOMENT:
        return
    if HOW == "destructor":
        Destroyed()
        time.sleep(60)  # because the interruption comes again
    elif HOW == "name":
        type("Owner", (), {"attribute": Named()})
    else:
        _wait()


async def reached_in_loop(moment: str) -> None:
    if moment == MOMENT and HOW == "asynchronously":
        sys.stdout.write("waiting\n")
        sys.stdout.flush()
        await asyncio.Event().wait()
    reached(moment)


async def on_startup(_app: web.Application) -> None:
    await reached_in_loop("start-up")


def create_app() -> web.Application:
    reached("factory")
    app = web.Application()
    app.on_startup.append(on_startup)
    return app


async def create_app_async() -> web.Application:
    await reached_in_loop("async factory")
    return create_app()


def create_app_with_a_handler() -> web.Application:
    """Make an application that handles the signal itself, as aiohttp lets it."""

    async def add_handler(app: web.Application) -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(
            signal.SIGINT, lambda: loop.call_soon(sys.stdout.write, "the application's own handler\n")
        )

    app = web.Application()
    app.on_startup.append(add_handler)
    return app


reached("import")
if __name__ == "__main__":
    web.run_app(create_app(), host="127.0.0.1", port=0)
