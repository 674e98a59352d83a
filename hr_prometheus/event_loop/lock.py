"""Which thread has kept Python's interpreter lock, by what the event loop's thread has used meanwhile.

A thread that waits for the lock wakes once in each switch interval to ask for it, and uses next to no processor time.

| Meanwhile the loop's thread | and the other threads | so the lock was kept by |
|---|---|---|
| has not computed, and has woken in each interval, besides its usual wakes before | | another thread |
| has not computed | have computed | another thread |
| has hardly woken | have done nothing | the loop's thread |
| has computed, even if it did so all the time before | have done nothing | the loop's thread |
| anything else | | one or the other |

If other threads have done a little, one may have had the lock for a moment after the loop's thread had kept it. Then the loop has
gone on before this was noticed, and what is seen of it is not what has kept the lock.
"""

from __future__ import annotations

import sys
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hr_prometheus.event_loop.usage import Usage

#: Processor time, in seconds and as a part of the time, that threads use which only wait: the watchdog is one of them.
_NOTHING, _PART_OF_WAIT = 0.005, 0.02


class Keeper(Enum):
    """Who has kept the lock."""

    LOOP = "the event loop's thread"
    THREAD = "another thread"
    UNKNOWN = "one or the other"


def lock_keeper(earlier: Usage, later: Usage, seconds: float, rate: float) -> Keeper:
    """Return who has kept the lock for so many *seconds* between two readings of the loop's usage.

    *rate* is how many times a second its thread wakes as a rule.
    """
    half = seconds / 2
    own = later.thread - earlier.thread
    others = later.process - earlier.process - own
    before = later.at - earlier.at - seconds - (later.starved - earlier.starved)
    wakes = later.slices - earlier.slices
    waits = half / sys.getswitchinterval()
    if own < half and (wakes - rate * before > waits or others > half):
        return Keeper.THREAD
    if others < _NOTHING + _PART_OF_WAIT * seconds and (wakes < waits or own - before > half / 2):
        return Keeper.LOOP
    return Keeper.UNKNOWN


def longest_wait(earlier: Usage, later: Usage) -> float:
    """Return for how many seconds between two readings the thread can have waited for the lock; not a number if that is unknown."""
    return (later.slices - earlier.slices) * sys.getswitchinterval()
