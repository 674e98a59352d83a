"""An application that closes the descriptors of others, as programs do that become daemons."""

import os

from aiohttp import web

os.closerange(3, 1000)


def create_app() -> web.Application:
    return web.Application()
