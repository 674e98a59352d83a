"""aiohttp's runner with a stop that keeps to its time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from aiohttp import WSCloseCode, hdrs
from aiohttp.web import AppRunner, BaseRunner

from hr_prometheus.request.connection import open_websockets
from hr_prometheus.request.incomplete import SWITCHING_PROTOCOLS
from hr_prometheus.request.recorder import recorder_of
from hr_prometheus.server.in_progress import SHOWS_IDLE, idle_connections, is_busy, requests_in_progress

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiohttp.web import Application, Server
    from multidict import CIMultiDict

    from hr_prometheus.request.recorder import Recorder
    from hr_prometheus.server.in_progress import RequestInProgress

#: Seconds that aiohttp itself waits for requests in progress, when this runner has waited. It takes 0 as: without end.
_SHUTDOWN_TIMEOUT = 0.001
#: Seconds for the application's clean-up, after those for the requests in progress.
CLEANUP_SECONDS = 5.0
#: Turns of the event loop within which an accepted connection is set up, and a request that has arrived begins.
_TURNS = 10
_POLL_SECONDS = 0.02


class Runner(AppRunner):
    """A runner whose stop waits for requests in progress for *drain_seconds* in all.

    aiohttp alone takes up to twice its ``shutdown_timeout``, and rounds it up. It also hears nothing more on any connection,
    so that a request whose body is still arriving, or a WebSocket, waits in vain.

    *on_drain* is called with the requests in progress when the stop begins, and *on_cleanup* when only the application's
    clean-up is left. *give_idle* may take idle connections over before they are closed.
    """

    setup = BaseRunner.setup  # not that of AppRunner, which is replaced while a script runs

    def __init__(
        self,
        app: Application,
        *,
        drain_seconds: float = 0.0,
        on_drain: Callable[[list[RequestInProgress]], None] = lambda _requests: None,
        on_cleanup: Callable[[], None] = lambda: None,
        give_idle: Callable[[], None] = lambda: None,
        **arguments: Any,
    ) -> None:
        super().__init__(app, shutdown_timeout=_SHUTDOWN_TIMEOUT, **arguments)
        self._drain_seconds, self._on_drain, self._on_cleanup = drain_seconds, on_drain, on_cleanup
        self._give_idle = give_idle
        self._given_up = asyncio.Event()
        #: Whether it waits for requests in progress.
        self.is_draining = False

    def give_up_requests(self) -> None:
        """Wait no longer for requests in progress."""
        self._given_up.set()

    async def cleanup(self) -> None:
        """Stop. A request that has arrived is answered, or is arriving; idle connections are closed.

        A connection that was accepted last is set up, and its request begins, within a few turns of the event loop.
        """
        for site in self.sites:
            await site.stop()
        for _ in range(_TURNS):
            await asyncio.sleep(0)
        if self.server is not None:
            await self._end_requests(self.server)
        await super().cleanup()

    async def shutdown(self) -> None:
        """Do nothing: aiohttp calls it when it hears nothing more, and :meth:`cleanup` has done its part before."""

    async def _end_requests(self, server: Server) -> None:
        """Let the application close what it keeps open, and wait for requests in progress."""
        time = asyncio.get_running_loop().time
        end = time() + self._drain_seconds
        recorders = list(filter(None, map(recorder_of, self.app.middlewares)))
        for recorder in recorders:
            recorder.on_head = end_connection
        if SHOWS_IDLE:
            self._close_idle(server)
        else:
            server.pre_shutdown()
        self._on_drain(requests_in_progress(server))
        await super().shutdown()
        if self._drain_seconds:
            self.is_draining = True
            await self._drain(server, recorders, end)
            self.is_draining = False
        self._on_cleanup()

    async def _drain(self, server: Server, recorders: list[Recorder], end: float) -> None:
        websockets = [each for recorder in recorders for each in open_websockets(recorder)]
        closes = [asyncio.ensure_future(each.close(code=WSCloseCode.GOING_AWAY)) for each in websockets]
        ends = [asyncio.ensure_future(each) for each in (self._until_idle(server), self._given_up.wait())]
        try:
            seconds = max(0.0, end - asyncio.get_running_loop().time())
            await asyncio.wait(ends, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            tasks: list[asyncio.Future[Any]] = [*closes, *ends]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _until_idle(self, server: Server) -> None:
        """Wait for all requests in progress, and close each connection when it is idle."""
        if not SHOWS_IDLE:
            await server.shutdown(None)
            return
        self._close_idle(server)
        while is_busy(server):
            await asyncio.sleep(_POLL_SECONDS)
            self._close_idle(server)

    def _close_idle(self, server: Server) -> None:
        self._give_idle()
        for each in idle_connections(server):
            each.force_close()


def end_connection(status: str, headers: CIMultiDict[str]) -> None:
    """Tell the client in the head of its response that the connection ends with it."""
    if status != SWITCHING_PROTOCOLS:
        headers[hdrs.CONNECTION] = "close"
