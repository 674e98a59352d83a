"""A wait that says whether the process has run meanwhile."""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

#: The precision of what a wait says, in seconds.
_TICK = 0.01


class Alarm:
    """Waits in one thread, with a timer of Linux's.

    A thread that wakes late may have waited for Python's interpreter lock, or the process may have been stopped. The
    clock cannot tell these apart. A timer that goes on ticking can: the system counts its ticks up to the moment in which it
    wakes the thread, which is before the thread waits for the lock.
    """

    def __init__(self) -> None:
        self._timer = -1
        with suppress(OSError, AttributeError, ImportError):  # another system, or one without this call
            self._timer = _functions()[0](time.CLOCK_MONOTONIC)

    def wait(self, seconds: float) -> float:
        """Wait for some *seconds*, and return by how many seconds the system has woken this thread too late.

        That is 0.0 where the system has no such timer.
        """
        seconds = max(seconds, 1e-4)  # 0 would disarm it
        if self._timer < 0:
            time.sleep(seconds)
            return 0.0
        _functions()[1](self._timer, seconds)
        ticks = int.from_bytes(os.read(self._timer, 8), sys.byteorder)
        return (ticks - 1) * _TICK

    def close(self) -> None:
        """Give the timer back."""
        if self._timer >= 0:
            os.close(self._timer)
            self._timer = -1


@cache
def _functions() -> tuple[Callable[[int], int], Callable[[int, float], None]]:
    """Return the functions that make a timer and set it.

    They keep the interpreter lock, which Python's own let go of (from 3.13 on): to wait for it then would look like a stop.
    """
    import ctypes  # noqa: PLC0415  # it takes its time, and this is called in a thread

    libc = ctypes.PyDLL(None, use_errno=True)

    class TimerSpec(ctypes.Structure):
        """Linux's ``struct itimerspec``: seconds and nanoseconds of the interval and of the first expiration."""

        _fields_ = [(name, ctypes.c_long) for name in ("interval", "interval_ns", "value", "value_ns")]

    def check(result: int) -> int:
        if result < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        return result

    def create(clock: int) -> int:
        return check(libc.timerfd_create(clock, os.O_CLOEXEC))

    def set_time(timer: int, seconds: float) -> None:
        spec = TimerSpec(0, int(_TICK * 1e9), int(seconds), int(seconds % 1 * 1e9))
        check(libc.timerfd_settime(timer, 0, ctypes.byref(spec), None))

    return create, set_time
