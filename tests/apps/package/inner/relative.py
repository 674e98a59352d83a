"""A module of a package, which imports relatively."""

from ..settings import NAME
from aiohttp import web


async def name(_request: web.Request) -> web.Response:
    return web.Response(text=NAME)


app = web.Application()
app.router.add_get("/", name)
