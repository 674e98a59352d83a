"""The metrics on a port of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp.web import Application, SockSite

from hr_prometheus.server.bind import address_error, url_of
from hr_prometheus.server.runner import Runner

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator, Callable, Iterable

    from aiohttp.typedefs import Handler

#: Seconds that a stop waits for scrapes in progress.
_DRAIN_SECONDS = 1.0


async def serve_metrics(path: str, view: Handler, sockets: Iterable[socket.socket]) -> Runner:
    """Serve a metrics *view* at *path* on bound *sockets*, until the runner is cleaned up."""
    app = Application()
    app.router.add_get(path, view)
    runner = Runner(app, access_log=None, drain_seconds=_DRAIN_SECONDS)
    await runner.setup()
    for each in sockets:
        try:
            await SockSite(runner, each).start()
        except OSError as error:
            raise address_error(url_of(each, "http"), error) from error
    return runner


def metrics_context(
    path: str, view: Handler, sockets: Iterable[socket.socket]
) -> Callable[[Application], AsyncIterator[None]]:
    """Return a context for ``Application.cleanup_ctx`` that serves the metrics as long as the application is up."""

    async def context(_app: Application) -> AsyncIterator[None]:
        runner = await serve_metrics(path, view, sockets)
        yield
        await runner.cleanup()

    return context
