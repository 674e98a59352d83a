"""The meaning of SIGHUP: the terminal of a command in its foreground was closed, or a reload is requested."""

from __future__ import annotations

import asyncio
import os
import signal

_POLL_SECONDS = 1.0


class Terminal:
    """The controlling terminal of this process, as it was when the process started."""

    def __init__(self) -> None:
        #: Whether SIGHUP is ignored, as with nohup.
        self.is_ignored = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
        #: Whether the end of the terminal is the end of this process.
        self.is_shared = _is_in_foreground()

    async def watch(self) -> None:
        """Note when the terminal is gone and this process has stayed: from then on a SIGHUP is not the terminal's."""
        while self.is_shared:
            await asyncio.sleep(_POLL_SECONDS)
            if not _is_there():
                await asyncio.sleep(_POLL_SECONDS)  # its SIGHUP may be on the way
                self.is_shared = False


def _is_there() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True


def _is_in_foreground() -> bool:
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY)
    except OSError:  # there is none
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)
