"""The long steps of requests, as those have timed them."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from hr_prometheus.request.loop_time import long_step_observers

if TYPE_CHECKING:
    from hr_prometheus.event_loop.usage import Usage, UsageReader

#: How many are kept at most.
_MOST = 100


class LongStep(NamedTuple):
    """From when it *began* until the usage at its *end*, the loop's thread was in one step of a request with these *labels*."""

    labels: tuple[str, ...]
    began: float
    end: Usage


class LongSteps:
    """The latest long ``steps``, in order, in the event loop whose thread makes this object. *reader* reads its usage.

    There are none where loop time is not counted.
    """

    def __init__(self, reader: UsageReader) -> None:
        self.steps: deque[LongStep] = deque(maxlen=_MOST)
        self._reader = reader
        self._thread = threading.get_ident()

    def start(self) -> None:
        """Begin to note them."""
        long_step_observers.add(self)

    def stop(self) -> None:
        """End it."""
        long_step_observers.discard(self)

    def note(self, labels: tuple[str, ...], began: float) -> None:
        """Note a long step that has just ended, if it is one of this loop."""
        if threading.get_ident() != self._thread:
            return
        while self.steps and self.steps[-1].began >= began:  # a middleware of ours further in has timed a part of it
            self.steps.pop()
        self.steps.append(LongStep(labels, began, self._reader.read()))
