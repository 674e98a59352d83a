"""Ends the processes that a worker has started and left behind in its process group."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import suppress

#: Seconds that these processes have between SIGTERM and SIGKILL.
_SECONDS = 1.0
_POLL_SECONDS = 0.02


async def end_group(group: int) -> None:
    """End all processes of a process group, whose leader has ended. One with a session of its own has another group."""
    time = asyncio.get_running_loop().time
    end = time() + _SECONDS
    with suppress(ProcessLookupError, PermissionError):  # there is none, or none of ours
        os.killpg(group, signal.SIGTERM)
        while time() < end:  # the number of the group is not looked at longer than it is in use
            await asyncio.sleep(_POLL_SECONDS)
            os.killpg(group, 0)
        os.killpg(group, signal.SIGKILL)
