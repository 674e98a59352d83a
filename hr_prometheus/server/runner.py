"""aiohttp's runner with a stop that keeps to its time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from aiohttp.web import AppRunner, BaseRunner

from hr_prometheus.server.in_progress import requests_in_progress

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiohttp.web import Application, Server

    from hr_prometheus.server.in_progress import RequestInProgress

#: Seconds that aiohttp itself waits for requests in progress, when this runner has waited. It takes 0 as: without end.
_SHUTDOWN_TIMEOUT = 0.001
#: Seconds for the application's clean-up, after those for the requests in progress.
CLEANUP_SECONDS = 5.0
#: Turns of the event loop within which an accepted connection is set up, and a request that has arrived begins.
_TURNS = 10


class Runner(AppRunner):
    """A runner whose stop waits for requests in progress for *drain_seconds* in all.

    aiohttp alone takes up to twice its ``shutdown_timeout``, and rounds it up. *on_drain* is called with the requests in
    progress when the stop begins, and *on_cleanup* when only the application's clean-up is left.
    """

    setup = BaseRunner.setup  # not that of AppRunner, which is replaced while a script runs

    def __init__(
        self,
        app: Application,
        *,
        drain_seconds: float = 0.0,
        on_drain: Callable[[list[RequestInProgress]], None] = lambda _requests: None,
        on_cleanup: Callable[[], None] = lambda: None,
        **arguments: Any,
    ) -> None:
        super().__init__(app, shutdown_timeout=_SHUTDOWN_TIMEOUT, **arguments)
        self._drain_seconds, self._on_drain, self._on_cleanup = drain_seconds, on_drain, on_cleanup
        self._given_up = asyncio.Event()
        #: Whether it waits for requests in progress.
        self.is_draining = False

    def give_up_requests(self) -> None:
        """Wait no longer for requests in progress."""
        self._given_up.set()

    async def cleanup(self) -> None:
        """Stop. A request that has arrived is answered; idle connections are closed.

        aiohttp leaves a connection open that it closes before it is set up, and waits for it in vain. So those that
        were accepted last are given a few turns of the event loop.
        """
        for site in self.sites:
            await site.stop()
        for _ in range(_TURNS):
            await asyncio.sleep(0)
        await super().cleanup()

    async def shutdown(self) -> None:
        """Let the application close what it keeps open, and wait for requests in progress."""
        assert self.server is not None  # noqa: S101  # it is set up
        time = asyncio.get_running_loop().time
        end = time() + self._drain_seconds
        self._on_drain(requests_in_progress(self.server))
        await super().shutdown()
        if self._drain_seconds:
            self.is_draining = True
            await self._drain(self.server, max(0.0, end - time()))
            self.is_draining = False
        self._on_cleanup()

    async def _drain(self, server: Server, seconds: float) -> None:
        tasks = [asyncio.ensure_future(each) for each in (server.shutdown(None), self._given_up.wait())]
        try:
            await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
