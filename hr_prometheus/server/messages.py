"""What is said of a server's start and stop: one line each, for the person who waits."""

from __future__ import annotations

import os
import threading
from contextlib import contextmanager
from time import monotonic
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: Seconds after which a start is slow, and a clean-up.
SLOW_START = 2.0
SLOW_CLEANUP = 1.0


def serving(announcement: str, loop: str) -> str:
    """Return the line that says what is served where, by which loop and process, and how it is stopped."""
    # The space keeps a terminal, and a person who copies it, from taking the semicolon for a part of the URL.
    return f"{announcement} ; {loop}, pid {os.getpid()}, Ctrl-C to stop"


def starting(what: str) -> str:
    """Return the line for a slow start, which waits for *what*."""
    return f"Starting: waiting for {what}, {SLOW_START:g} s so far; Ctrl-C to stop"


def stopping(waited_for: str, seconds: float) -> str:
    """Return the line for a stop that has to wait."""
    return f"Stopping: waiting for {waited_for}, at most {seconds:g} s; Ctrl-C again to stop now"


def stopped(since: float, hanging: str = "") -> str:
    """Return the line for the end of a stop that began at *since*, by :func:`time.monotonic`, with what has not ended."""
    return f"Stopped after {monotonic() - since:.1f} s{f', without waiting for {hanging}' if hanging else ''}"


@contextmanager
def alarm(seconds: float, function: Callable[[], None]) -> Iterator[Callable[[], None]]:
    """Call *function* after some seconds, whatever this thread is busy with then, unless what is entered with is called before."""
    timer = threading.Timer(seconds, function)
    timer.daemon = True
    timer.start()
    try:
        yield timer.cancel
    finally:
        timer.cancel()
