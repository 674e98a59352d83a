"""A script which serves what is no application."""

from aiohttp import web

web.run_app(None)
