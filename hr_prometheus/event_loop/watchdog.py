"""The watchdog: a thread that looks at the stack of an event loop whose heart beats late."""

from __future__ import annotations

import threading
from collections import deque
from itertools import count
from time import perf_counter
from typing import TYPE_CHECKING

from hr_prometheus.event_loop.alarm import Alarm
from hr_prometheus.event_loop.blame import Sample
from hr_prometheus.event_loop.culprit import OTHER_THREAD, stack_of
from hr_prometheus.event_loop.usage import UsageReader

if TYPE_CHECKING:
    import asyncio

    from hr_prometheus.event_loop.blame import Beat
    from hr_prometheus.event_loop.heartbeat import Heartbeat

#: Seconds between two looks at a blocked loop: half of those after which it is blocked, within these bounds.
_SHORTEST, _LONGEST = 0.01, 0.02
#: From how many seconds on the process is said not to have run.
_STOP = 0.05
#: After how many looks at one block they become rarer: from then on each waits for this part of the time so far.
_MANY_LOOKS = 200
#: How many periods in which the process did not run are kept.
_MOST_STOPS = 20
#: Seconds for which it sleeps at most, so that it ends in time.
_NAP = 1.0


class Watchdog:
    """Adds samples to each beat of a *heartbeat* that the next one follows late. It records nothing itself.

    It is made in the loop's thread. *blocked_after* is for how many seconds one thing may hold the loop. ``error`` is the
    exception that has ended the watchdog, if any.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, heartbeat: Heartbeat, blocked_after: float) -> None:
        self._loop, self._heartbeat = loop, heartbeat
        self._patience = blocked_after / 2
        self._interval = min(max(self._patience, _SHORTEST), _LONGEST)
        self._loop_thread = threading.get_ident()
        self._steps = count()
        self._last_step: object = None
        self._is_stopped = False
        #: The latest periods in which the process did not run. Each begins when this thread went to sleep: nothing says more.
        self.stops: deque[tuple[float, float]] = deque(maxlen=_MOST_STOPS)
        self.error: BaseException | None = None

    def start(self) -> None:
        """Start the thread. Raises :exc:`RuntimeError` if there can be no more threads."""
        threading.Thread(target=self._run, name="hr-prometheus-watchdog", daemon=True).start()

    def stop(self) -> None:
        """Have the thread end within a second."""
        self._is_stopped = True

    def _run(self) -> None:
        try:
            alarm, usage = Alarm(), UsageReader()
            try:
                while not (self._is_stopped or self._loop.is_closed()):
                    self._watch(alarm, usage)
            finally:
                alarm.close()
        except BaseException as error:  # noqa: BLE001  # it is reported by the loop's next beat
            self.error = error

    def _watch(self, alarm: Alarm, own_usage: UsageReader) -> None:
        """Sleep until it is time for a look at the loop, and look if no beat has come meanwhile."""
        starved = own_usage.read().starved
        asleep_at = perf_counter()
        seconds = min(max(0.0, self._next_look(self._heartbeat.beat) - asleep_at), _NAP)
        late = alarm.wait(seconds)
        # A busy machine may let this thread wait and the loop's thread run.
        if late > _STOP and late - (own_usage.read().starved - starved) > _STOP:
            self.stops.append((asleep_at, asleep_at + seconds + late))
        beat, now = self._heartbeat.beat, perf_counter()  # a beat may have come before the loop was blocked
        if now >= self._next_look(beat) and self._loop.is_running():
            beat.samples.append(self._sample(beat, now, now - asleep_at - seconds - late))
        else:
            self._last_step = None  # which keeps objects of the application alive

    def _next_look(self, beat: Beat) -> float:
        if not beat.samples:
            return beat.due + self._patience
        last = beat.samples[-1].usage.at
        return last + max(self._interval, (last - beat.due) / _MANY_LOOKS)

    def _sample(self, beat: Beat, now: float, lock_seconds: float) -> Sample:
        """Return what the loop runs *now*. This thread has waited *lock_seconds* for the interpreter lock."""
        earlier = beat.samples[-1] if beat.samples else None
        stack = stack_of(self._loop, self._loop_thread, self._heartbeat.caller)
        is_same = earlier is not None and stack.step is self._last_step
        self._last_step = stack.step
        culprit = earlier.culprit if earlier is not None and is_same else stack.culprit()
        # This lets the loop go on, so it comes after the look.
        usage = self._heartbeat.usage.read()._replace(at=now)
        before = beat.usage if earlier is None else earlier.usage
        own = usage.thread - before.thread
        others = usage.process - before.process - own
        is_sure = lock_seconds > (now - before.at) / 2
        if is_sure and others > max(2 * own, lock_seconds / 10):
            self._last_step = None
            is_same, culprit = False, OTHER_THREAD
        step = earlier.step if earlier is not None and is_same else next(self._steps)
        return Sample(usage, step, culprit, is_sure)
