"""The stacks and the requests of a worker that does not answer, for the log before it is killed.

At a signal of the supervisor's, faulthandler writes the stacks of all threads to a file. It does so in the signal's own
handler, so even while a C call holds the GIL.
"""

from __future__ import annotations

import asyncio
import faulthandler
import os
import signal
from contextlib import closing, suppress
from textwrap import indent
from time import monotonic
from typing import TYPE_CHECKING

from hr_prometheus.event_loop.place import place_in
from hr_prometheus.metrics import IN_PROGRESS
from hr_prometheus.server.in_progress import RequestInProgress, describe_requests
from hr_prometheus.store.cells import in_progress
from hr_prometheus.store.slot_reader import SlotReader

if TYPE_CHECKING:
    from collections.abc import Sequence

_IS_POSSIBLE = all(map(hasattr, (faulthandler, signal, os), ("register", "SIGRTMIN", "memfd_create")))
#: A real-time signal: those have no other meaning.
_SIGNAL = signal.SIGRTMIN + 13 if _IS_POSSIBLE else None
#: Seconds that a worker has to write its stacks.
_SECONDS = 1.0
_POLL_SECONDS = 0.05


class StackFile:
    """The file of one worker, in memory. Raises :exc:`OSError` if there are no more descriptors."""

    def __init__(self) -> None:
        self.descriptor = os.open(os.devnull, os.O_RDWR) if _SIGNAL is None else os.memfd_create("hr-prometheus-stacks")

    async def ask(self, pid: int) -> str:
        """Return the stacks, that of the main thread first; empty if there are none within a second.

        Raises :exc:`OSError` if the process ends meanwhile.
        """
        if _SIGNAL is None:
            return ""
        os.kill(pid, _SIGNAL)
        end, size, last_size = monotonic() + _SECONDS, 0, 0
        while monotonic() < end and (not size or size != last_size):  # until it grows no more
            await asyncio.sleep(_POLL_SECONDS)
            last_size, size = size, os.fstat(self.descriptor).st_size
        # The system hands a signal to the main thread, which faulthandler calls the current one and writes last.
        threads = os.pread(self.descriptor, size, 0).decode(errors="replace").strip().split("\n\n")
        return "\n\n".join(sorted(threads, key=lambda text: not text.startswith("Current thread")))

    def close(self) -> None:
        """Remove the file."""
        os.close(self.descriptor)
        self.descriptor = -1


def write_stacks_to(descriptor: int) -> None:
    """Have this process write its stacks to a file with that *descriptor* whenever it is asked for them."""
    os.set_inheritable(descriptor, False)
    if _SIGNAL is not None:
        faulthandler.register(_SIGNAL, descriptor, all_threads=True, chain=False)


def requests_in_progress(files: str) -> list[RequestInProgress]:
    """Return the requests in progress as the *files* of a slot have them.

    To be called before its worker is asked for its stacks: the signal may end the call that blocks it.
    """
    requests: list[RequestInProgress] = []
    with suppress(OSError), closing(SlotReader(files)) as reader:
        for series, (page, first) in reader.read():
            if series.metric in IN_PROGRESS:
                method, path, *_ = series.labels
                number = int(in_progress(page, first, len(series.bounds)))
                requests += [RequestInProgress(method, path, None)] * number
    return requests


def describe_blocked(requests: Sequence[RequestInProgress], stacks: str) -> str:
    """Return words for the *stacks* of a worker and its requests in progress."""
    text = f"In progress: {describe_requests(requests)}. " if requests else ""
    if not stacks:
        return f"{text}It has not written its stacks; a stopped process cannot."
    return f"{text}Its stacks:\n{indent(stacks, '    ')}"


def describe_place(stacks: str) -> str:
    """Return a clause for where the main thread of a worker is: in the application's code, or in the event loop."""
    if not stacks:
        return ""
    place = place_in(stacks.partition("\n\n")[0])
    return "; it waits in its event loop" if place is None else f"; it is at {place}"
