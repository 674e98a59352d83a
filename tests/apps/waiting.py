"""An application whose start-up waits for a file."""

import asyncio
import os

from aiohttp import web


async def wait(_app: web.Application) -> None:
    while not os.path.exists(os.environ["WAIT_FOR"]):
        await asyncio.sleep(0.01)


def create_app() -> web.Application:
    app = web.Application()
    app.on_startup.append(wait)
    return app


async def clean_up(app: web.Application) -> None:
    print("cleaning up", flush=True)  # noqa: T201  # for the test
    await wait(app)


def create_app_with_cleanup() -> web.Application:
    app = web.Application()
    app.on_cleanup.append(clean_up)
    return app
