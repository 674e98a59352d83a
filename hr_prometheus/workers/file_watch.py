"""Waits for changes of files: with watchfiles where that is installed, else by looks at their times."""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing
from importlib.util import find_spec
from time import monotonic, thread_time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from hr_prometheus.workers.source_files import Saves, SourceFiles

logger = logging.getLogger("hr_prometheus")

#: Seconds between two looks at the newest files.
_STEP = 0.25
#: Looks at all files take at most this share of a processor, but not for some seconds after a save, when the next one is likely.
_SHARE, _LONGEST_PAUSE, _BUSY_SECONDS = 0.0015, 10.0, 60.0
#: Seconds without a change after which changes are one save, such as those of a ``git checkout``; and how long that may take.
_QUIET_SECONDS, _LONGEST_UNREST = 0.1, 3.0
#: Seconds after which files are looked at without a notification, which some file systems do not give.
_NOTIFICATION_SECONDS = 5.0
#: Milliseconds after which watchfiles passes a notification on, and between its looks for one.
_NOTIFICATION_DELAY, _NOTIFICATION_STEP = 50, 50


class FileWatch:
    """Waits for changes of *files*."""

    def __init__(self, files: SourceFiles) -> None:
        self._files = files
        #: When all files are looked at again, without a notification.
        self._next_look = 0.0
        self._last_save = -_BUSY_SECONDS

    async def saves(self) -> AsyncGenerator[Saves]:
        """Yield what is saved; many files that are saved together are one item."""
        async with aclosing(self._moments()) as moments:
            async for _ in moments:
                if await asyncio.to_thread(self._look):
                    await self._wait_for_quiet()
                    self._last_save = monotonic()
                    yield await asyncio.to_thread(self._files.take_saves)

    async def _moments(self) -> AsyncGenerator[None]:
        """Yield whenever it is worth a look."""
        if find_spec("watchfiles") is not None:
            try:
                async with aclosing(self._notifications()) as notifications:
                    async for _ in notifications:
                        yield
            except Exception as error:  # noqa: BLE001  # of several types; the system may allow no more watches
                logger.warning("watchfiles has failed, so files are polled instead: %s", error)
        while True:
            await asyncio.sleep(_STEP)
            now = monotonic()
            is_due = now >= self._next_look or now - self._last_save < _BUSY_SECONDS
            if is_due or await asyncio.to_thread(self._files.newest_differ):
                yield

    async def _notifications(self) -> AsyncGenerator[None]:
        from watchfiles import awatch  # noqa: PLC0415  # an extra

        logging.getLogger("watchfiles").setLevel(logging.WARNING)  # else it logs each notification
        while True:
            directories = self._files.directories
            events = awatch(
                *directories,
                watch_filter=None,
                recursive=False,  # which spares those that are left out
                debounce=_NOTIFICATION_DELAY,
                step=_NOTIFICATION_STEP,
                rust_timeout=int(1000 * _NOTIFICATION_SECONDS),
                yield_on_timeout=True,
            )
            async with aclosing(events):
                async for _ in events:
                    yield
                    if self._files.directories != directories:
                        break

    def _look(self) -> bool:
        began = thread_time()
        differs = self._files.look()
        self._next_look = monotonic() + min((thread_time() - began) / _SHARE, _LONGEST_PAUSE)
        return differs

    async def _wait_for_quiet(self) -> None:
        deadline = monotonic() + _LONGEST_UNREST
        await asyncio.sleep(_QUIET_SECONDS)
        # A look goes on in its thread when it is not waited for any more, and then meets the next one. So it has no timeout.
        while await asyncio.to_thread(self._files.look) and monotonic() < deadline:  # noqa: ASYNC110  # files have no event
            await asyncio.sleep(_QUIET_SECONDS)
