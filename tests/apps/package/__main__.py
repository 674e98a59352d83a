"""A package which serves itself."""

from aiohttp import web

from .inner.relative import app

web.run_app(app, host="127.0.0.1", port=0)
