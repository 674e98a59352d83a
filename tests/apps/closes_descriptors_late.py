"""An application that closes the descriptors of others when it starts, and takes their numbers."""

import os

from aiohttp import web


async def close(_app: web.Application) -> None:
    os.closerange(3, 1000)
    for _ in range(30):
        os.open(os.devnull, os.O_RDONLY)


def create_app() -> web.Application:
    app = web.Application()
    app.on_startup.append(close)
    return app
