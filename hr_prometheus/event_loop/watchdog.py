"""The watchdog: a thread that looks at the stack of an event loop whose heart beats late."""

from __future__ import annotations

import sys
import threading
from collections import deque
from itertools import count
from time import perf_counter
from typing import TYPE_CHECKING

from hr_prometheus.event_loop.alarm import Alarm
from hr_prometheus.event_loop.blame import Sample
from hr_prometheus.event_loop.culprit import stack_of
from hr_prometheus.event_loop.usage import UsageReader

if TYPE_CHECKING:
    import asyncio

    from hr_prometheus.event_loop.blame import Beat
    from hr_prometheus.event_loop.heartbeat import Heartbeat
    from hr_prometheus.event_loop.usage import Usage

#: Seconds between two looks at a blocked loop: half of those after which it is blocked, within these bounds.
_SHORTEST, _LONGEST = 0.01, 0.02
#: From how many seconds on the process is said not to have run, or the interpreter lock to have been kept.
_LEAST = 0.05
#: After how many looks at one block they become rarer: from then on each waits for this part of the time so far.
_MANY_LOOKS = 200
#: How many periods of either kind are remembered.
_MOST_PERIODS = 20
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
        #: The latest periods in which the process did not run. Each begins when this thread last slept or woke: nothing says more.
        self.stops: deque[tuple[float, float]] = deque(maxlen=_MOST_PERIODS)
        #: The latest periods in which this thread waited for the interpreter lock.
        self.locks: deque[tuple[float, float]] = deque(maxlen=_MOST_PERIODS)
        self.error: BaseException | None = None

    def start(self) -> None:
        """Start the thread. Raises :exc:`RuntimeError` if there can be no more threads."""
        threading.Thread(target=self._run, name="hr-prometheus-watchdog", daemon=True).start()

    def stop(self) -> None:
        """Have the thread end within a second."""
        self._is_stopped = True

    def _run(self) -> None:
        try:
            alarm, reader = Alarm(), UsageReader()
            usage = reader.read()
            try:
                while not (self._is_stopped or self._loop.is_closed()):
                    usage = self._watch(alarm, reader, usage)
            finally:
                alarm.close()
        except BaseException as error:  # noqa: BLE001  # it is reported by the loop's next beat
            self.error = error

    def _watch(self, alarm: Alarm, reader: UsageReader, earlier: Usage) -> Usage:
        """Sleep until it is time for a look at the loop, and look if no beat has come meanwhile.

        *earlier* is what this thread had used before; return what it has used since.
        """
        asleep_at = perf_counter()
        seconds = min(max(0.0, self._next_look(self._heartbeat.beat) - asleep_at), _NAP)
        late = alarm.wait(seconds)
        woke_at, awake_at = asleep_at + seconds + late, perf_counter()
        beat = self._heartbeat.beat  # it may have come before the loop was blocked
        if awake_at >= self._next_look(beat) and self._loop.is_running():
            self._look(beat, awake_at, has_waited=awake_at - woke_at > _least_wait())
        else:
            self._last_step = None  # which keeps objects of the application alive
        usage = reader.read()  # this lets the loop go on, so it comes after the look
        while perf_counter() - usage.at > _least_wait():  # what it has waited for meanwhile is not in it
            usage = reader.read()
        starved = usage.starved - earlier.starved  # a busy machine may have let this thread wait, and the loop's run
        if late - starved > _LEAST:
            self.stops.append((asleep_at, woke_at))
        if (waited := usage.at - woke_at - starved) > _least_wait():
            # A thread that waits for the lock wakes in each switch interval. That of a process that was stopped does not.
            is_stop = (usage.slices - earlier.slices) * sys.getswitchinterval() < waited / 2
            (self.stops if is_stop else self.locks).append((woke_at, usage.at))
        return usage

    def _next_look(self, beat: Beat) -> float:
        if not beat.samples:
            return beat.due + self._patience
        last = beat.samples[-1].usage.at
        return last + max(self._interval, (last - beat.due) / _MANY_LOOKS)

    def _look(self, beat: Beat, now: float, *, has_waited: bool) -> None:
        """Add a sample of what the loop runs *now*, when this thread *has_waited* for the interpreter lock, or has not."""
        earlier = beat.samples[-1] if beat.samples else None
        stack = stack_of(self._loop, self._loop_thread, self._heartbeat.caller)
        is_same = earlier is not None and stack.step is self._last_step
        culprit = earlier.culprit if earlier is not None and is_same else stack.culprit()
        # This lets the loop go on, so it comes after the look.
        usage = self._heartbeat.usage.read()
        if usage.at - now > _SHORTEST:  # the loop had the lock meanwhile, so these are of two moments
            return
        step = earlier.step if earlier is not None and is_same else next(self._steps)
        self._last_step = stack.step
        beat.samples.append(Sample(usage._replace(at=now), step, culprit, has_waited and stack.is_in_call))


def _least_wait() -> float:
    """Return after how many seconds of waiting for the interpreter lock that was kept, and not handed on in turns.

    Who has waited for more than a switch interval gets it as soon as a function in C returns.
    """
    return max(_LEAST, 2 * sys.getswitchinterval())
