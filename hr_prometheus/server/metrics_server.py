"""The metrics on a port of their own."""

from __future__ import annotations

import asyncio
import errno
import logging
import threading
from concurrent.futures import Future
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

from aiohttp.web import Application, HTTPRequestEntityTooLarge, middleware
from prometheus_client import REGISTRY

from hr_prometheus.exposition.view import make_view
from hr_prometheus.metrics import ERRORS
from hr_prometheus.server.listener import Listener, connection_of
from hr_prometheus.server.port_logger import PortLogger
from hr_prometheus.server.runner import Runner
from hr_prometheus.store.failures import failures_of

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator, Iterable

    from aiohttp.typedefs import Handler
    from aiohttp.web import Request, StreamResponse
    from prometheus_client import CollectorRegistry

    from hr_prometheus.access.guard import Guard
    from hr_prometheus.server.metrics_routes import MetricsRoutes
    from hr_prometheus.status.view import Gather

logger = logging.getLogger("hr_prometheus")

#: Seconds for which a connection may be idle between two requests.
_KEEP_ALIVE_SECONDS = 60.0
#: Seconds that a stop waits for scrapes in progress.
_DRAIN_SECONDS = 1.0
#: Seconds that a stop waits for the thread: a collector of the application's may block it.
_THREAD_SECONDS = 2.0


async def serve_metrics(
    routes: MetricsRoutes,
    view: Handler,
    sockets: Iterable[socket.socket],
    gather: Gather | None = None,
    guard: Guard | None = None,
) -> Runner:
    """Serve the *routes* of a metrics *view* on bound *sockets*, until the runner is cleaned up.

    *gather* returns the recent requests, if they are not those of this process. A *guard* decides who may come.
    """
    app = Application(middlewares=[_let_in, _refuse_body])
    app.on_response_prepare.append(_let_next_come)
    routes.add_to(app, view, gather)
    if guard is not None:
        guard.add_to(app)
    app.middlewares.insert(0, _begin)
    runner = MetricsRunner(app, sockets, guard)
    await runner.setup()
    return runner


class MetricsRunner(Runner):
    """The runner of the metrics port: a :class:`~hr_prometheus.server.listener.Listener` has its connections."""

    def __init__(self, app: Application, sockets: Iterable[socket.socket], guard: Guard | None) -> None:
        self._logger = PortLogger()
        super().__init__(
            app,
            access_log=None,
            drain_seconds=_DRAIN_SECONDS,
            keepalive_timeout=_KEEP_ALIVE_SECONDS,
            lingering_time=0,  # the body of a refused request is not read
            logger=self._logger,
        )
        self._sockets, self._guard = list(sockets), guard
        self._listener: Listener | None = None

    async def setup(self) -> None:
        """Serve. Raises :exc:`~hr_prometheus.errors.ServingError` for an address that the operating system refuses."""
        await super().setup()
        assert self.server is not None  # noqa: S101  # it is set up
        tls = None if self._guard is None else self._guard.tls
        self._listener = Listener(self.server, self._sockets, tls, self._logger.log_handshake)
        self._listener.start()

    async def cleanup(self) -> None:
        """Accept no more connections, and stop as other runners do."""
        if self._listener is not None:
            self._listener.close()
        await super().cleanup()


@middleware
async def _let_in(request: Request, handler: Handler) -> StreamResponse:
    """Note that the guard, if there is one, has let a request in."""
    if (connection := connection_of(request.transport)) is not None:
        connection.let_in()
    return await handler(request)


@middleware
async def _refuse_body(request: Request, handler: Handler) -> StreamResponse:
    """Answer a request that has a body with 413, and close its connection: nothing here takes one."""
    if not request.body_exists:
        return await handler(request)
    text = "The metrics port takes no body of a request.\n"
    error = HTTPRequestEntityTooLarge(0, 0, text=text)
    error.force_close()
    raise error


@middleware
async def _begin(request: Request, handler: Handler) -> StreamResponse:
    """Note that there is a request."""
    if (connection := connection_of(request.transport)) is not None:
        connection.begin()
    return await handler(request)


async def _let_next_come(request: Request, response: StreamResponse) -> None:
    """Let the next request of a connection come, unless the connection ends with this one."""
    if response.keep_alive and not request.body_exists and (connection := connection_of(request.transport)) is not None:
        connection.go_on()


@asynccontextmanager
async def metrics_thread(
    routes: MetricsRoutes,
    sockets: Iterable[socket.socket],
    registry: CollectorRegistry = REGISTRY,
    guard: Guard | None = None,
) -> AsyncIterator[None]:
    """Serve the *routes* of a registry on bound *sockets*, in a thread that answers while this event loop is blocked.

    If the thread fails, that is logged and counted, its port is closed, and the application goes on.
    """
    view = make_view(registry, beside=asyncio.get_running_loop())
    loop, stopping = asyncio.SelectorEventLoop(), asyncio.Event()
    serving: Future[None] = Future()
    ended: Future[None] = Future()

    async def serve() -> None:
        runner = await serve_metrics(routes, view, sockets, guard=guard)
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
            if serving.done() and isinstance(error, OSError) and error.errno in {errno.EBADF, errno.EINVAL}:
                logger.error("The thread of the metrics port has ended: descriptors that it needs were closed.")  # noqa: TRY400
                failures_of(registry).count(ERRORS, "scrape")
            elif serving.done():
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
