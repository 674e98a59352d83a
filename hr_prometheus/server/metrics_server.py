"""The metrics on a port of their own."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

from aiohttp.web import Application, SockSite
from prometheus_client import REGISTRY

from hr_prometheus.exposition.view import make_view
from hr_prometheus.server.bind import address_error, url_of
from hr_prometheus.server.runner import Runner
from hr_prometheus.store.failures import failures_of

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator, Callable, Iterable

    from aiohttp.typedefs import Handler
    from prometheus_client import CollectorRegistry

    from hr_prometheus.server.metrics_routes import MetricsRoutes
    from hr_prometheus.status.view import Gather

#: Seconds that a stop waits for scrapes in progress.
_DRAIN_SECONDS = 1.0
#: Seconds that a stop waits for the thread: a collector of the application's may block it.
_THREAD_SECONDS = 2.0


async def serve_metrics(
    routes: MetricsRoutes, view: Handler, sockets: Iterable[socket.socket], gather: Gather | None = None
) -> Runner:
    """Serve the *routes* of a metrics *view* on bound *sockets*, until the runner is cleaned up.

    *gather* returns the recent requests, if they are not those of this process.
    """
    app = Application()
    routes.add_to(app, view, gather)
    runner = Runner(app, access_log=None, drain_seconds=_DRAIN_SECONDS)
    await runner.setup()
    for each in sockets:
        try:
            await SockSite(runner, each).start()
        except OSError as error:
            raise address_error(url_of(each, "http"), error) from error
    return runner


@asynccontextmanager
async def metrics_thread(
    routes: MetricsRoutes, sockets: Iterable[socket.socket], registry: CollectorRegistry = REGISTRY
) -> AsyncIterator[None]:
    """Serve the *routes* of a registry on bound *sockets*, in a thread that answers while this event loop is blocked.

    If the thread fails, that is logged and counted, its port is closed, and the application goes on.
    """
    view = make_view(registry, beside=asyncio.get_running_loop())
    loop, stopping = asyncio.SelectorEventLoop(), asyncio.Event()
    serving: Future[None] = Future()
    ended: Future[None] = Future()

    async def serve() -> None:
        runner = await serve_metrics(routes, view, sockets)
        try:
            serving.set_result(None)
            await stopping.wait()
        finally:
            await runner.cleanup()

    def run() -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: loop) as runner:
                runner.run(serve())
        except BaseException as error:  # noqa: BLE001  # it ends this thread alone
            if serving.done():
                failures_of(registry).report("scrape", error, "The thread of the metrics port has ended")
            else:
                serving.set_exception(error)
        ended.set_result(None)

    threading.Thread(target=run, name="hr-prometheus-metrics", daemon=True).start()
    try:
        await asyncio.shield(asyncio.wrap_future(serving))
        yield
    finally:
        with suppress(RuntimeError):  # the thread has failed
            loop.call_soon_threadsafe(stopping.set)
        await asyncio.wait([asyncio.wrap_future(ended)], timeout=_THREAD_SECONDS)


def metrics_context(
    routes: MetricsRoutes, sockets: Iterable[socket.socket]
) -> Callable[[Application], AsyncIterator[None]]:
    """Return a context for ``Application.cleanup_ctx`` that serves the metrics as long as the application is up."""

    async def context(_app: Application) -> AsyncIterator[None]:
        async with metrics_thread(routes, sockets):
            yield

    return context
