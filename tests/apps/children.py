"""An application that shows what a program inherits which it starts."""

import asyncio

from aiohttp import web

SCRIPT = "env; ls -l /proc/self/fd"


async def inherited(_request: web.Request) -> web.Response:
    process = await asyncio.create_subprocess_shell(SCRIPT, stdout=asyncio.subprocess.PIPE, close_fds=False)
    return web.Response(body=(await process.communicate())[0])


def create_app() -> web.Application:
    app = web.Application()
    app.router.add_get("/", inherited)
    return app
