"""Applications that work, in each form that a target can have."""

import asyncio
import os
import sys

from aiohttp import web


async def hello(request: web.Request) -> web.Response:
    return web.json_response({"arguments": request.app["arguments"], **request.match_info})


async def slow(request: web.Request) -> web.Response:
    """Answer when a file is there."""
    sys.stdout.write("slow request begun\n")
    while not os.path.exists(request.query["file"]):
        await asyncio.sleep(0.01)
    return web.Response(text="done")


async def endless(_request: web.Request) -> web.Response:
    sys.stdout.write("endless request begun\n")
    await asyncio.Event().wait()
    return web.Response(text="never")


async def missing(_request: web.Request) -> web.Response:
    raise web.HTTPNotFound


async def broken(_request: web.Request) -> web.Response:
    raise RuntimeError("broken on purpose")


def create_app(arguments=None) -> web.Application:
    app = web.Application()
    app["arguments"] = arguments
    app.router.add_get("/", hello, name="root")
    app.router.add_get("/slow", slow)
    app.router.add_get("/endless", endless)
    app.router.add_get("/missing", missing)
    app.router.add_get("/broken", broken)
    app.router.add_get("/cell_neighbour/{cell_id}/direction/{direction}", hello, name="get_cell_neighbour")
    return app


def with_arguments(argv: list[str]) -> web.Application:
    return create_app(argv)


async def create_app_async() -> web.Application:
    app = create_app()
    app["loop"] = asyncio.get_running_loop()

    async def check_loop(app: web.Application) -> None:
        assert app["loop"] is asyncio.get_running_loop()

    app.on_startup.append(check_loop)
    return app


class Holder:
    app = create_app()


app = create_app()
