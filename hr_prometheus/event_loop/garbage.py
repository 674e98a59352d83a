"""The pauses of garbage collection."""

from __future__ import annotations

import gc
from collections import deque
from contextlib import suppress
from time import perf_counter

#: Shorter ones, in seconds, are not kept.
_LEAST = 0.001
#: How many are kept at most.
_MOST = 1000


class GarbagePauses:
    """The latest ``pauses``, as beginnings and ends on the clock of :func:`time.perf_counter`.

    A collection in any thread keeps the interpreter lock, and so pauses all.
    """

    def __init__(self) -> None:
        self.pauses: deque[tuple[float, float]] = deque(maxlen=_MOST)
        self._began = 0.0

    def start(self) -> None:
        """Begin to note pauses."""
        gc.callbacks.append(self._note)

    def stop(self) -> None:
        """End it."""
        with suppress(ValueError):  # the application may have emptied the list
            gc.callbacks.remove(self._note)

    def _note(self, phase: str, _info: dict[str, int]) -> None:
        if phase == "start":
            self._began = perf_counter()
        elif (now := perf_counter()) - self._began >= _LEAST:
            self.pauses.append((self._began, now))
