"""A script that serves one application until it is asked to leave, and then another one."""

import asyncio

from aiohttp import web
from aiohttp.web_runner import GracefulExit


def end() -> None:
    raise GracefulExit


def application(text: str) -> web.Application:
    async def answer(_request: web.Request) -> web.Response:
        return web.Response(text=text)

    async def leave(_request: web.Request) -> web.Response:
        asyncio.get_running_loop().call_soon(end)
        return web.Response()

    app = web.Application()
    app.router.add_get("/", answer)
    app.router.add_get("/leave", leave)
    return app


for name in ("first", "second"):
    web.run_app(application(name), host="192.0.2.1", port=1, print=None)
