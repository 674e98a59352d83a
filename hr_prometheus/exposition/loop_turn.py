"""A turn of the application's event loop, as another thread waits for it."""

from __future__ import annotations

import asyncio
from contextlib import suppress

#: Seconds for which it is waited for.
_LIMIT = 0.1


async def await_turn(loop: asyncio.AbstractEventLoop) -> bool:
    """Wait until another thread's *loop* has done what was ready, and return whether it has. A blocked one has not.

    A request is recorded right after its last byte has left, so a client may have the response a moment before.
    """
    here, has_come = asyncio.get_running_loop(), asyncio.Event()

    def answer() -> None:
        with suppress(RuntimeError):  # this loop is closed
            here.call_soon_threadsafe(has_come.set)

    with suppress(RuntimeError, TimeoutError):  # the other loop is closed, or blocked
        loop.call_soon_threadsafe(loop.call_soon, answer)
        async with asyncio.timeout(_LIMIT):
            await has_come.wait()
    return has_come.is_set()
