"""Tasks that run beside everything else."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine


async def wait_for_any(*events: asyncio.Event, seconds: float | None = None) -> None:
    """Wait until one of *events* is set, for some *seconds* at most."""
    waiting = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waiting, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for each in waiting:
            each.cancel()


def call_every(seconds: float, function: Callable[[], None]) -> None:
    """Call a *function* now, and again every so many *seconds*, as long as the event loop runs."""
    function()
    asyncio.get_running_loop().call_later(seconds, call_every, seconds, function)


class BackgroundTasks(set[asyncio.Task[None]]):
    """The tasks that were started and have not ended. asyncio itself keeps only weak references to a task."""

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Run *work* in a task."""
        task = asyncio.get_running_loop().create_task(work)
        self.add(task)
        task.add_done_callback(self.discard)
