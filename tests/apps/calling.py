"""An application that calls two others, with a session that it keeps and with one that it makes for a call."""

import os
from collections.abc import AsyncIterator

from aiohttp import ClientSession, web

from hr_prometheus import instrument

SESSION = web.AppKey("SESSION", ClientSession)


async def call(request: web.Request) -> web.Response:
    """Call both, one after the other."""
    for back_end in request.query.getall("url"):
        async with request.app[SESSION].get(back_end) as response:
            await response.read()
    async with ClientSession() as session, session.get(request.query["url"]) as response:
        await response.read()
    return web.Response(text=str(os.getpid()))


async def keep_session(app: web.Application) -> AsyncIterator[None]:
    async with ClientSession() as app[SESSION]:
        yield


def create_app() -> web.Application:
    app = web.Application()
    app.cleanup_ctx.append(keep_session)
    app.router.add_get("/call", call)
    return app


def native() -> web.Application:
    return instrument(create_app(), native_histograms=True)
