"""Asks collectors that may be slow, beside the event loop, and no longer than a scrape may wait.

A collector that is not prometheus_client's own may ask a database, or sleep; so may the function of a gauge. Each is called
in a thread, or awaited if it is asynchronous. The next one begins when the last has answered, or has had its time. One that
never answers keeps one thread, because it is not called again before it has answered.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from contextlib import suppress
from contextvars import copy_context
from inspect import isawaitable
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from prometheus_client import (
    Counter,
    Enum,
    Gauge,
    GCCollector,
    Histogram,
    Info,
    PlatformCollector,
    ProcessCollector,
    Summary,
)
from prometheus_client.metrics import MetricWrapperBase

from hr_prometheus.exposition.loop_turn import await_turn
from hr_prometheus.metrics import ERRORS
from hr_prometheus.store.computed import ComputedGauge
from hr_prometheus.store.failures import failures_of
from hr_prometheus.store.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from prometheus_client import CollectorRegistry
    from prometheus_client.core import Metric as Family
    from prometheus_client.registry import Collector

    #: How to ask each collector: by its method ``collect``, as a rule.
    Calls = Mapping[Collector, Callable[[], object]]

logger = logging.getLogger("hr_prometheus")

#: Seconds after which a collector is slow, which is logged and counted.
SLOW = 0.4
#: Seconds that a scrape of one process waits for its collectors: a little less than Prometheus does by default.
LIMIT = 9.0
#: Seconds after which the next collector is asked although the one before it has not answered.
_PATIENCE = 0.05
#: From how many seconds on by which the event loop is late no collector is said to be slow.
_LATE = SLOW / 2
#: Seconds between two warnings of one slow collector.
_SILENCE = 300.0

#: The methods of collectors that have their numbers at hand.
_QUICK: Final = (
    MetricWrapperBase.collect,
    Store.collect,
    ComputedGauge.collect,
    ProcessCollector.collect,
    PlatformCollector.collect,
    GCCollector.collect,
)


#: Collectors of exactly these types need no second look.
_QUICK_TYPES: Final = frozenset(
    {Counter, Enum, Histogram, Info, Summary, Store, ProcessCollector, PlatformCollector, GCCollector}
)

#: The exceptions by which asyncio and sqlite refuse a wrong thread, and how their messages begin. An application's own
#: errors may speak of threads and event loops, too.
_NEEDS_LOOP: Final[Mapping[str, tuple[str, ...]]] = {
    "builtins.RuntimeError": ("no running event loop", "There is no current event loop in thread"),
    "sqlite3.ProgrammingError": ("SQLite objects created in a thread can only be used in that same thread",),
}


class Answer(NamedTuple):
    """The families that a collector has yielded, and the exception that ended it."""

    families: list[Family]
    error: BaseException | None


def may_be_slow(collector: object) -> bool:
    """Whether it takes more than a look at numbers to collect from *collector*."""
    if type(collector) in _QUICK_TYPES:
        return False
    if isinstance(collector, Gauge) and with_functions(collector):
        return True
    return getattr(type(collector), "collect", None) not in _QUICK


def with_functions(gauge: Gauge) -> dict[tuple[str, ...], Gauge]:
    """Return the series of a gauge that get their numbers from a function, by the values of their labels.

    ``set_function`` replaces a method of the one object, which nothing public shows.
    """
    children: dict[tuple[str, ...], Gauge] = dict(getattr(gauge, "_metrics", {}))  # a copy: others may add to it
    children[()] = gauge
    return {labels: child for labels, child in children.items() if "_child_samples" in vars(child)}


class Collectors:
    """The collectors of one registry, asked in one event loop.

    If that runs in a thread *beside* the application's loop, collectors that need an event loop are called in the latter.
    """

    def __init__(self, registry: CollectorRegistry, beside: asyncio.AbstractEventLoop | None = None) -> None:
        self._failures = failures_of(registry)
        self._beside = beside
        self._pending: dict[Collector, asyncio.Task[Answer]] = {}
        #: Those that cannot be called in a thread.
        self._in_loop: set[Collector] = set()
        #: When each slow one was last warned of, by the loop's clock.
        self._warned_at: dict[Collector, float] = {}

    async def ask(self, calls: Calls, seconds: float) -> dict[Collector, Answer]:
        """Return the answers that come within so many *seconds*, by collector.

        While the application's event loop is blocked, no collector is said to be slow: it may need that loop.
        """
        loop = asyncio.get_running_loop()
        begin, late = loop.time(), 0.0
        tasks: dict[Collector, asyncio.Task[Answer]] = {}
        for collector, call in calls.items():
            tasks[collector] = self._pending.get(collector) or self._start(collector, call)
            late += await _wait([tasks[collector]], min(begin + seconds, loop.time() + _PATIENCE))
        late += await _wait(tasks.values(), begin + min(SLOW, seconds))
        if late < _LATE and (self._beside is None or await await_turn(self._beside)):
            for collector in [collector for collector, task in tasks.items() if not task.done()]:
                self._note_slow(collector, loop.time())
        await _wait(tasks.values(), begin + seconds)
        return {collector: task.result() for collector, task in tasks.items() if task.done()}

    def _start(self, collector: Collector, call: Callable[[], object]) -> asyncio.Task[Answer]:
        task = self._pending[collector] = asyncio.create_task(self._answer(collector, call))
        task.add_done_callback(lambda _: self._pending.pop(collector))
        return task

    async def _answer(self, collector: Collector, call: Callable[[], object]) -> Answer:
        result: object = None
        if collector not in self._in_loop:
            families: list[Family] = []
            result, error = await _call_in_thread(call, families)
            if result is None and not needs_loop(error):
                return Answer(families, error)
        answer = self._answer_in_loop(collector, call, result)
        if self._beside is None:
            return await answer
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(answer, self._beside))

    async def _answer_in_loop(self, collector: Collector, call: Callable[[], object], result: Any) -> Answer:
        """Await what a collector has returned; if that is nothing, call it here."""
        families: list[Family] = []
        error: BaseException | None = None
        if result is None:
            result, error = _call(call, families)
            if error is None:
                self._in_loop.add(collector)
        try:
            if isawaitable(result):
                result = await result
            if hasattr(result, "__aiter__"):
                async for family in result:
                    families.append(family)  # noqa: PERF401  # what was yielded before an exception stays
            elif result is not None:
                families += result
        except Exception as raised:  # noqa: BLE001  # of the application's
            error = raised
        return Answer(families, error)

    def _note_slow(self, collector: Collector, now: float) -> None:
        if now - self._warned_at.get(collector, -_SILENCE) >= _SILENCE:
            self._warned_at[collector] = now
            logger.warning(
                "%s has not answered a scrape within %g s. Until it has, its samples are late or left out; "
                "the others are shown. Have it keep its numbers at hand.",
                _describe(collector),
                SLOW,
            )
        self._failures.count(ERRORS, "collector")


def report_failure(collector: object, error: BaseException, registry: CollectorRegistry) -> None:
    """Count an exception of a collector, and log it if it is the first of its kind."""
    failures_of(registry).report("collector", error, f"{_describe(collector)} has failed; its samples are missing")


def needs_loop(error: BaseException | None) -> bool:
    """Whether a collector has failed because it was called in a thread of its own, by the words of asyncio and sqlite."""
    kind = type(error)
    return str(error).startswith(_NEEDS_LOOP.get(f"{kind.__module__}.{kind.__qualname__}", ()))


def answer_of(call: Callable[[], object]) -> Answer:
    """Make a call here and now, and return its answer."""
    families: list[Family] = []
    _, error = _call(call, families)
    return Answer(families, error)


async def _wait(tasks: Iterable[asyncio.Task[Answer]], end: float) -> float:
    """Wait for *tasks* until *end*, and return by how many seconds this event loop has gone on too late."""
    time = asyncio.get_running_loop().time
    end = max(end, time())
    pending = [task for task in tasks if not task.done()]
    if pending:
        await asyncio.wait(pending, timeout=end - time())
    return max(0.0, time() - end)


def _call(call: Callable[[], object], families: list[Family]) -> tuple[object, BaseException | None]:
    """Call a collector and put what it yields into *families*. Return what has yet to be awaited, and its exception."""
    try:
        result: Any = call()
        if isawaitable(result) or hasattr(result, "__aiter__"):
            return result, None
        for family in result:
            families.append(family)  # noqa: PERF402  # one by one: what was yielded before an exception stays
    except BaseException as error:  # noqa: BLE001  # of the application's
        return None, error
    return None, None


async def _call_in_thread(call: Callable[[], object], families: list[Family]) -> tuple[object, BaseException | None]:
    """Do the same in a thread of its own, for which the process does not wait at its end."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[tuple[object, BaseException | None]] = loop.create_future()

    def settle(outcome: tuple[object, BaseException | None]) -> None:
        if not future.done():
            future.set_result(outcome)

    def run() -> None:
        outcome = _call(call, families)
        with suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(settle, outcome)

    try:
        threading.Thread(target=copy_context().run, args=(run,), name="hr-prometheus-collector", daemon=True).start()
    except RuntimeError:  # there can be no more threads
        return _call(call, families)
    return await future


def _describe(collector: object) -> str:
    if isinstance(collector, Gauge):
        return f'The function of the gauge "{next(iter(collector.describe())).name}"'
    kind = type(collector)
    return f'The collector "{kind.__module__}.{kind.__qualname__}"'
