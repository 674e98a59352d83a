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
