"""A script which serves nothing."""

from aiohttp import web

application = web.Application()
