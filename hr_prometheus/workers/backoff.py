"""The pauses before a worker is started again: none if it has served, and longer and longer ones if it cannot start."""

from __future__ import annotations

from collections import defaultdict

#: Seconds after which a worker that could not start is tried again; doubled each time while others serve.
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
#: How many workers that have served are started again in a second at most, for each worker of the settings. It bounds
#: the restarts of workers that end as soon as they serve.
RESTARTS_A_SECOND = 5


class Backoff:
    """The pauses before the restarts of so many *workers*."""

    def __init__(self, workers: int) -> None:
        self._interval = 1 / (RESTARTS_A_SECOND * workers)
        self._next = 0.0
        self._failures: defaultdict[int, int] = defaultdict(int)

    def pause(self, slot: int, now: float, *, has_served: bool, others_serve: bool) -> float:
        """Return the seconds from *now* to the next start in a slot.

        A worker that could not start waits only for the first pause while no other one serves.
        """
        if has_served:
            self._failures.pop(slot, None)
            start = max(now, self._next)
            self._next = start + self._interval
            return start - now
        if not others_serve:
            return FIRST_PAUSE
        self._failures[slot] += 1
        return min(FIRST_PAUSE * 2.0 ** (self._failures[slot] - 1), LONGEST_PAUSE)
