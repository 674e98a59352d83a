"""What a supervisor says of its workers' start and stop."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import TYPE_CHECKING

from hr_prometheus.server import interrupts, messages
from hr_prometheus.server.runner import CLEANUP_SECONDS, described

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from hr_prometheus.workers.process import WorkerProcess

#: Seconds for which the workers are given time to say what they wait for.
_ANSWER_SECONDS = 0.5
_POLL_SECONDS = 0.02


class Announcer:
    """Says the lines of :mod:`hr_prometheus.server.messages`; *seconds* is how long a stop waits for requests in progress."""

    def __init__(self, announce: Callable[[str], None], seconds: float) -> None:
        self._announce, self._seconds = announce, seconds
        self._stopping_since: float | None = None
        #: Whether it was said that the application is served.
        self.has_served = False
        what = "the application's start-up"
        loop = asyncio.get_running_loop()
        self._slow = loop.call_later(messages.SLOW_START, lambda: announce(messages.starting(what)))

    def serving(self, announcement: str, loop: str) -> None:
        """Say that all workers serve."""
        self._slow.cancel()
        self.has_served = True
        interrupts.served()
        self._announce(messages.serving(announcement, loop))

    async def stopping(self, workers: Collection[WorkerProcess]) -> None:
        """Say what a stop waits for, if there is anything and it waits at all."""
        self._slow.cancel()
        self._stopping_since = monotonic()
        end = self._stopping_since + _ANSWER_SECONDS
        asked = [worker for worker in workers if worker.is_running]
        silent = asked
        while silent and monotonic() < end:
            await asyncio.sleep(_POLL_SECONDS)
            silent = [worker for worker in asked if worker.draining is None and worker.is_running]
        requests = [request for worker in asked for request in worker.draining or ()]
        parts = [described(requests)] * bool(requests)
        parts += [f"worker {worker.slot}, which does not answer" for worker in silent]
        if parts and self._seconds:
            self._announce(messages.stopping(" and ".join(parts), self._seconds))
        await self._say_slow_cleanup(asked)

    async def _say_slow_cleanup(self, workers: Collection[WorkerProcess]) -> None:
        time = asyncio.get_running_loop().time
        slow: list[str] = []
        while not slow:
            await asyncio.sleep(_POLL_SECONDS)
            since = time() - messages.SLOW_CLEANUP
            slow = [f"worker {each.slot}" for each in workers if each.is_alive and each.cleaning_since <= since]
        self._announce(messages.stopping(f"the application's clean-up ({', '.join(slow)})", CLEANUP_SECONDS))

    def stopped(self) -> None:
        """Say that all workers have ended, if they ever served."""
        if self.has_served and self._stopping_since is not None:
            self._announce(messages.stopped(self._stopping_since))
