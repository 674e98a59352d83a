"""What a worker does for the files of its slot: it enters them at its start, and looks at them again and again."""

from __future__ import annotations

import asyncio
import atexit
import os
from typing import TYPE_CHECKING

from hr_prometheus.multiprocess.identity import identifier
from hr_prometheus.multiprocess.value_class import enter_multiprocess_mode
from hr_prometheus.multiprocess.value_file import settle_values
from hr_prometheus.store.files import file_allocator, store_in_files

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Seconds after which a worker looks at its files again.
LOOK_SECONDS = 1.0


def keep_in_files(directory: str, slot: int, *, totals_at: str) -> None:
    """Keep the numbers of this process in the files of *slot*: to be called before the application is imported.

    *totals_at* says where the numbers of all slots are served.
    """
    enter_multiprocess_mode(directory, slot)
    store_in_files(os.path.join(directory, identifier(slot)), totals_at=totals_at)
    atexit.register(lambda: list(_slices()))


async def look_at_files() -> None:
    """Write what is only in memory, as far as there is room now, and what another process has removed or truncated."""
    for _ in _slices():
        await asyncio.sleep(0)


def start_look() -> None:
    """Begin to do the same, and go on in the next turns of the event loop."""
    _go_on(_slices())


def _go_on(slices: Iterator[None]) -> None:
    for _ in slices:
        asyncio.get_running_loop().call_soon(_go_on, slices)
        return


def _slices() -> Iterator[None]:
    allocator = file_allocator()
    if allocator is not None:
        yield from allocator.keep()
    settle_values()
