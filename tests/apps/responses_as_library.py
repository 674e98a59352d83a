"""The same application, instrumented and served by itself."""

import logging
import socket

from aiohttp import web
from responses import create_app

from hr_prometheus import access_log_class, instrument

logging.basicConfig(level=logging.CRITICAL)


def create_instrumented_app() -> web.Application:
    return instrument(create_app())


if __name__ == "__main__":
    app = create_instrumented_app()
    # A socket, because aiohttp before 3.14 does not print which port it has got for 0.
    web.run_app(app, sock=socket.create_server(("127.0.0.1", 0)), access_log_class=access_log_class(app))
