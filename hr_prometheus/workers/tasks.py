"""Tasks that run beside everything else."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Coroutine


async def wait_for_any(*events: asyncio.Event, seconds: float | None = None) -> None:
    """Wait until one of *events* is set, for some *seconds* at most."""
    waiting = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waiting, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for each in waiting:
            each.cancel()


class BackgroundTasks(set[asyncio.Task[None]]):
    """The tasks that were started and have not ended. asyncio itself keeps only weak references to a task."""

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Run *work* in a task."""
        task = asyncio.get_running_loop().create_task(work)
        self.add(task)
        task.add_done_callback(self.discard)
