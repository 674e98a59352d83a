"""The heartbeat of an event loop: a timer, by which it measures how late it is and what it uses."""

from __future__ import annotations

import sys
from bisect import bisect_left
from math import ceil
from time import perf_counter
from typing import TYPE_CHECKING

from hr_prometheus.event_loop.blame import Beat
from hr_prometheus.event_loop.usage import UsageReader
from hr_prometheus.metrics import LOOP_CPU, LOOP_LAG
from hr_prometheus.store.bounds import cell_bounds

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable
    from types import CodeType

    from hr_prometheus.event_loop.usage import Usage
    from hr_prometheus.store.store import Store

#: Seconds between two beats.
BEAT = 0.1
#: If the loop's thread wakes more often between two beats, its usage is read so many times before the next one.
_MANY_WAKES, _LOOKS = 10, 4


class Heartbeat:
    """Beats in a *loop*, in whose thread it is made, once it is started, and records the lag and the processor time.

    *on_beat* is called with each beat that is over and the usage at its end. *on_error* is called with an exception, after
    which the heart beats no more.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        store: Store,
        on_beat: Callable[[Beat, Usage], None],
        on_error: Callable[[BaseException], None],
    ) -> None:
        self._loop, self._on_beat, self._on_error = loop, on_beat, on_error
        self._lag, bounds = store.allocate_histogram(LOOP_LAG, ())
        self._bounds = cell_bounds(bounds)
        self._cpu = store.allocate(LOOP_CPU, ())
        self.usage = UsageReader()
        self.beat = Beat(self.usage.read(), perf_counter() + BEAT)
        #: The code by which the loop calls its callbacks.
        self.caller: CodeType = sys._getframe().f_code  # noqa: SLF001  # public for all but the linter
        self._timers: list[asyncio.Handle] = []

    def start(self) -> None:
        """Begin to beat in the loop's next turn, when the callers have done what else they do."""
        self._timers = [self._loop.call_soon(self._run, True)]

    def stop(self) -> None:
        """Beat no more."""
        for timer in self._timers:
            timer.cancel()

    def _run(self, is_first: bool = False) -> None:  # noqa: FBT002  # the loop hands it on
        try:
            self.caller = sys._getframe(1).f_code  # noqa: SLF001  # as above
            usage = self.usage.read()
            if not is_first:
                self._record(self.beat, usage)
                self._on_beat(self.beat, usage)
            wakes_often = usage.slices - self.beat.usage.slices > _MANY_WAKES
            self.beat = Beat(usage, perf_counter() + BEAT)
            self._timers = [self._loop.call_later(BEAT, self._run)]
            if wakes_often:
                looks = range(1, _LOOKS + 1)
                self._timers += [self._loop.call_later(BEAT * each / (_LOOKS + 1), self._look) for each in looks]
        except Exception as error:  # noqa: BLE001  # nothing of ours may reach the application
            self._on_error(error)

    def _look(self) -> None:
        """Read the usage between two beats: wakes before a block look like those of a wait for the interpreter lock."""
        try:
            usage = self.usage.read()
            if usage.at < self.beat.due:  # else there was a block meanwhile
                self.beat.latest = usage
        except Exception as error:  # noqa: BLE001  # as above
            self._on_error(error)

    def _record(self, beat: Beat, usage: Usage) -> None:
        page, index = self._cpu
        page[index] += usage.thread - beat.usage.thread
        # Every timer that was asked for meanwhile, one for each tenth of a second, would have run as late as it is now. The
        # one alone that was would make a loop look well most of the time that is blocked half of the time.
        page, first = self._lag
        late = max(0.0, usage.at - beat.due)
        number = int(late / BEAT) + 1
        page[first] += number * (late - BEAT * (number - 1) / 2)
        while number:
            bucket = bisect_left(self._bounds, late)
            of_bucket = number
            if bucket:
                of_bucket = min(number, max(1, ceil((late - self._bounds[bucket - 1]) / BEAT)))
            page[first + 1 + bucket] += of_bucket
            number -= of_bucket
            late -= BEAT * of_bucket
