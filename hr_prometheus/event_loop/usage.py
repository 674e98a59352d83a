"""What the thread of an event loop has used, as any thread can read it."""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress
from math import nan
from typing import NamedTuple


class Usage(NamedTuple):
    """Seconds, at one moment: *at* of :func:`time.perf_counter`, the others since the beginning of the thread or process."""

    at: float
    #: Processor time of the thread.
    thread: float
    #: Processor time of all threads of the process.
    process: float
    #: For how long the thread was ready to run and had no processor.
    starved: float
    #: How many times the thread was given a processor, which it is each time that it wakes; not a number where that is unknown.
    slices: float = nan


class UsageReader:
    """Reads the usage of the thread that makes this object.

    Where the system does not tell it (Linux does), the thread's processor time is that of the process, and it is never
    starved.
    """

    def __init__(self) -> None:
        self._clock: int | None = None
        self._schedstat = -1
        if hasattr(time, "pthread_getcpuclockid"):
            self._clock = time.pthread_getcpuclockid(threading.get_ident())
        with suppress(OSError):
            self._schedstat = os.open(f"/proc/self/task/{threading.get_native_id()}/schedstat", os.O_RDONLY)

    def read(self) -> Usage:
        """Return the usage now. Raises :exc:`OSError` if the thread has ended."""
        process = time.process_time()
        thread = process if self._clock is None else time.clock_gettime(self._clock)
        at, starved, slices = time.perf_counter(), 0.0, nan
        if self._schedstat >= 0:  # another thread may run until this returns
            _, waited, number = os.pread(self._schedstat, 64, 0).split()
            starved, slices = int(waited) / 1e9, float(number)
        return Usage(at, thread, process, starved, slices)

    def __del__(self) -> None:
        """Close the file, which two threads read: when both have let go of this object."""
        if self._schedstat >= 0:
            os.close(self._schedstat)
