"""Sub-applications that are nested deeply."""

from aiohttp import web

DEPTH = 270


async def hello(_request: web.Request) -> web.Response:
    return web.Response()


def create_app() -> web.Application:
    app = web.Application()
    app.router.add_get("/{value}", hello)
    for _ in range(DEPTH):
        outer = web.Application()
        outer.add_subapp("/a", app)
        app = outer
    return app
