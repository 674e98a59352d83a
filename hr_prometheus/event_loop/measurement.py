"""The metrics of the event loop that an application runs in, from its start-up to its clean-up."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary, WeakSet

from hr_prometheus.event_loop.blame import Evidence, blame
from hr_prometheus.event_loop.block_log import BlockLog
from hr_prometheus.event_loop.garbage import GarbagePauses
from hr_prometheus.event_loop.heartbeat import Heartbeat
from hr_prometheus.event_loop.long_steps import LongSteps
from hr_prometheus.event_loop.watchdog import Watchdog
from hr_prometheus.metrics import LOOP_BLOCKED, LOOP_BLOCKED_SECONDS, LOOP_TASKS
from hr_prometheus.store.computed import ComputedGauge
from hr_prometheus.store.failures import failures_of
from hr_prometheus.store.store import loop_store

if TYPE_CHECKING:
    from aiohttp.web import Application
    from prometheus_client import CollectorRegistry

    from hr_prometheus.event_loop.blame import Beat
    from hr_prometheus.event_loop.usage import Usage

logger = logging.getLogger("hr_prometheus")


def measure_loop(app: Application, registry: CollectorRegistry, *, blocked_after: float) -> None:
    """Have the event loop measured while *app* is up: from the end of its start-up to the beginning of its clean-up.

    *blocked_after* is for how many seconds one thing may hold the loop; with 0 there is no watchdog. Applications in one
    loop share the measurement, which goes on as the first one has begun it.
    """

    async def begin(_app: Application) -> None:
        loop = asyncio.get_running_loop()
        for each in [each for each in _measurements if each.is_closed()]:  # without a clean-up
            del _measurements[each]
        measurement = _measurements.setdefault(loop, {}).get(registry)
        if measurement is None:
            try:
                measurement = LoopMeasurement(loop, registry, blocked_after)
                measurement.start()
            except Exception as error:  # noqa: BLE001  # nothing of ours may keep an application from its start
                logger.warning("The event loop is not measured: %s", _reason(error))
                return
            _measurements[loop][registry] = measurement
        measurement.users.add(app)

    async def end(_app: Application) -> None:
        by_registry = _measurements.get(asyncio.get_running_loop(), {})
        measurement = by_registry.get(registry)
        if measurement is not None:
            measurement.users.discard(app)
            if not measurement.users:
                measurement.stop()
                del by_registry[registry]

    app.on_startup.append(begin)
    app.on_cleanup.insert(0, end)


def _reason(error: Exception) -> str:
    taken = getattr(error.__cause__ or error, "duplicates", None)  # of prometheus_client's registry
    return f'the application has a metric named "{min(taken)}" already.' if taken else f"{error!r}"


class LoopMeasurement:
    """Measures an event loop, in whose thread it is made, from its start until it is stopped."""

    def __init__(self, loop: asyncio.AbstractEventLoop, registry: CollectorRegistry, blocked_after: float) -> None:
        self._store = loop_store(registry)
        self._failures = failures_of(registry)
        self._blocked_after = blocked_after
        self._log = BlockLog()
        self._pauses = GarbagePauses()
        self._heart = Heartbeat(loop, self._store, self._on_beat, self._fail)
        self._long_steps = LongSteps(self._heart.usage)
        self._watchdog: Watchdog | None = None
        self._late: tuple[Beat, Usage, float] | None = None
        self._rate = 0.0  # at which the loop's thread woke until the last beat
        #: The applications that have asked for it.
        self.users: WeakSet[Application] = WeakSet()
        if blocked_after:
            self._watchdog = Watchdog(loop, self._heart, blocked_after)
        _count_tasks(loop, registry)

    def start(self) -> None:
        """Begin to measure."""
        self._heart.start()
        if self._watchdog is not None:
            self._pauses.start()
            self._long_steps.start()
            try:
                self._watchdog.start()
            except RuntimeError as error:  # there can be no more threads
                self._watchdog.error = error

    def stop(self) -> None:
        """Measure no more."""
        self._heart.stop()
        if self._watchdog is not None:
            try:
                self._blame_late(self._watchdog)
            except Exception as error:  # noqa: BLE001  # nothing of ours may reach the application
                self._report(error, "Counting a block of the event loop has failed")
            self._watchdog.stop()
            self._watchdog = None
            self._pauses.stop()
            self._long_steps.stop()

    def _on_beat(self, beat: Beat, end: Usage) -> None:
        if self._watchdog is None:
            return
        self._blame_late(self._watchdog)
        if end.at - beat.due >= self._blocked_after / 2:  # else nothing can be said of it
            self._late = beat, end, self._rate
        self._rate = (end.slices - beat.usage.slices) / (end.at - beat.usage.at)
        self._log.end_minute(end.at)
        if self._watchdog.error is not None:
            self._report(self._watchdog.error, "The watchdog of the event loop has failed and has stopped")
            self._watchdog = None
            self._pauses.stop()
            self._long_steps.stop()

    def _blame_late(self, watchdog: Watchdog) -> None:
        """Count the blocks until the beat before this one. Since then the watchdog has woken as well."""
        if self._late is None:
            return
        (beat, end, rate), self._late = self._late, None
        # Copies, because other threads add to them.
        pauses, stops, locks = list(self._pauses.pauses), list(watchdog.stops), list(watchdog.locks)
        evidence = Evidence(pauses, stops, locks, rate, self._long_steps.steps)
        for block in blame(beat, end, evidence, least=self._blocked_after):
            for metric, number in ((LOOP_BLOCKED, 1.0), (LOOP_BLOCKED_SECONDS, block.seconds)):
                page, index = self._store.allocate(metric, block.culprit.labels)
                page[index] += number
            self._log.write(block, end.at)

    def _fail(self, error: BaseException) -> None:
        self._late = None
        self._report(error, "Measuring the event loop has failed and has stopped")
        self.stop()

    def _report(self, error: BaseException, event: str) -> None:
        self._failures.report("loop", error, event)


_measurements: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[CollectorRegistry, LoopMeasurement]] = (
    WeakKeyDictionary()
)
#: The loops whose tasks are counted at a scrape.
_loops: WeakKeyDictionary[CollectorRegistry, WeakSet[asyncio.AbstractEventLoop]] = WeakKeyDictionary()


def _count_tasks(loop: asyncio.AbstractEventLoop, registry: CollectorRegistry) -> None:
    if registry not in _loops:
        loops: WeakSet[asyncio.AbstractEventLoop] = WeakSet()
        registry.register(ComputedGauge(LOOP_TASKS, lambda: _number_of_tasks(loops)))
        _loops[registry] = loops
    _loops[registry].add(loop)


def _number_of_tasks(loops: WeakSet[asyncio.AbstractEventLoop]) -> float | None:
    running = [loop for loop in loops if loop.is_running()]
    return float(sum(len(asyncio.all_tasks(loop)) for loop in running)) if running else None
