"""An application that shows what a program inherits which it starts."""

import subprocess

from aiohttp import web


def inherited() -> bytes:
    command = ["sh", "-c", "env; ls -l /proc/self/fd"]
    return subprocess.run(command, stdout=subprocess.PIPE, check=True, close_fds=False).stdout


async def show(_request: web.Request) -> web.Response:
    return web.Response(body=inherited())


def create_app() -> web.Application:
    app = web.Application()
    app.router.add_get("/", show)
    return app
