"""A script which serves itself, at import."""

import sys

from aiohttp import web


async def hello(_request: web.Request) -> web.Response:
    return web.json_response({"name": __name__, "argv": sys.argv[1:]})


async def create_app() -> web.Application:
    app = web.Application()
    app.router.add_get("/", hello)
    return app


web.run_app(create_app(), host="127.0.0.1", port=0, print=None)
sys.stdout.write("the script goes on\n")
