"""A module whose name the standard library has taken."""

from aiohttp import web

app = web.Application()
