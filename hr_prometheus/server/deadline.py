"""The end of a process whose stop takes too long, whatever it is that does not end: a task, a thread, or the event loop."""

from __future__ import annotations

import os
import sys
import threading
from contextlib import suppress
from math import inf
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Deadline:
    """The time at which this process ends, with exit code 0, when *say* has been called."""

    def __init__(self, say: Callable[[], None]) -> None:
        self._say = say
        self._timer: threading.Timer | None = None

    def set(self, seconds: float) -> None:
        """Let the process end after these seconds from now, instead of at another time; ``inf`` is never."""
        self.lift()
        if seconds < inf:
            self._timer = threading.Timer(seconds, self._end)
            self._timer.daemon = True
            self._timer.start()

    def lift(self) -> None:
        """Let the process go on."""
        if self._timer is not None:
            self._timer.cancel()

    def _end(self) -> None:
        try:
            self._say()
            for stream in (sys.stdout, sys.stderr):
                with suppress(OSError, ValueError, AttributeError):  # the application may have closed or replaced it
                    stream.flush()
        finally:
            os._exit(0)
