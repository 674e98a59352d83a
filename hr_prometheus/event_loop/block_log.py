"""Logs what has blocked an event loop: each place in the code once, and few places in a minute."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hr_prometheus.event_loop.blame import Block

logger = logging.getLogger("hr_prometheus")

#: How many warnings there are in a minute at most.
_MOST = 5
_MINUTE = 60.0
#: How many places are remembered. There is no end of those in code that is made while it runs.
_MOST_PLACES = 1000


class BlockLog:
    """The warnings of one event loop. Times are those of :func:`time.perf_counter`."""

    def __init__(self) -> None:
        self._places: set[object] = set()
        self._minute_began = -_MINUTE
        self._logged = self._left_out = 0

    def write(self, block: Block, now: float) -> None:
        """Warn of a block, unless one at the same place was logged before."""
        culprit = block.culprit
        place = culprit.labels[1] if culprit.place is None else (culprit.place.file, culprit.place.function)
        if place in self._places or len(self._places) >= _MOST_PLACES:
            return
        self.end_minute(now)
        if self._logged >= _MOST:
            self._left_out += 1
            return
        if not self._logged:
            self._minute_began = now
        self._logged += 1
        self._places.add(place)
        where = "" if culprit.place is None else f", at {culprit.place}"
        logger.warning("The event loop was blocked for %.2f s by %s%s.", block.seconds, culprit.name, where)

    def end_minute(self, now: float) -> None:
        """Say how many warnings the last minute had too many, if it is over."""
        if self._logged and now - self._minute_began >= _MINUTE:
            if self._left_out:
                logger.warning("The event loop was also blocked at other places, %d times in a minute.", self._left_out)
            self._logged = self._left_out = 0
