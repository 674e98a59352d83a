"""Applications whose start-up or clean-up says so, or fails."""

import sys

from aiohttp import web


def _app(startup=None, cleanup=None) -> web.Application:
    app = web.Application()

    async def on_startup(_app: web.Application) -> None:
        sys.stdout.write("the application starts up\n")
        if startup is not None:
            raise startup

    async def on_cleanup(_app: web.Application) -> None:
        sys.stdout.write("the application cleans up\n")
        if cleanup is not None:
            raise cleanup

    app.on_startup.append(on_startup)
    app.on_cleanup.append(on_cleanup)
    return app


def works() -> web.Application:
    if "chatty" in sys.argv:
        sys.stdout.write("the application is made\n")
    return _app()


def startup_fails() -> web.Application:
    return _app(startup=ConnectionRefusedError(111, "the database is down"))


def cleanup_fails() -> web.Application:
    return _app(cleanup=RuntimeError("cannot flush"))
