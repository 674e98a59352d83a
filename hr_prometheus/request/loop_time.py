"""For how long the handler of a request holds the event loop."""

from __future__ import annotations

from contextlib import suppress
from time import perf_counter
from types import coroutine
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from typing import Protocol

    from aiohttp.typedefs import Handler
    from aiohttp.web import Request

    from hr_prometheus.request.exchange import Exchange
    from hr_prometheus.request.recorder import Record

    class LongStepObserver(Protocol):
        """An object that notes long steps."""

        def note(self, labels: tuple[str, ...], began: float) -> None:
            """Note that a long step has ended in this thread, of a request with these *labels*.

            It *began* at that time of :func:`time.perf_counter`.
            """


#: A step of more seconds is long.
_LONG = 0.05
long_step_observers: WeakSet[LongStepObserver] = WeakSet()


async def count_loop_time(handler: Handler, request: Request, record: Record, exchange: Exchange | None = None) -> Any:
    """Await what a *handler* returns for a *request*, and add the seconds of each of its steps to the loop time of its *record*.

    The *exchange* gets what the handler has returned.
    A step lasts from the moment at which a coroutine goes on until it waits again, or ends. Values, exceptions,
    cancellation and :exc:`GeneratorExit` reach it unchanged (PEP 342).
    """
    steps: Any = handler(request)
    try:
        send = steps.send
    except AttributeError:  # of a class-based view, for example, which may have any iterator (PEP 492)
        steps = _iterate(steps.__await__())
        send = steps.send
    page, cell = record.loop_time  # type: ignore[misc]  # its detail is full
    act, argument = send, None
    while True:
        began = perf_counter()
        try:
            awaited = act(argument)
        except StopIteration as end:
            page[cell] += (seconds := perf_counter() - began)
            if seconds > _LONG:
                _report_long_step(record.labels, began)
            del argument  # an error that was thrown in refers to this frame by its traceback
            if exchange is not None:
                exchange.returned = end.value  # so that the end of a file need not wait for that of aiohttp's task
            return end.value
        except BaseException:
            page[cell] += (seconds := perf_counter() - began)
            if seconds > _LONG:
                _report_long_step(record.labels, began)
            del argument, exchange
            raise
        page[cell] += (seconds := perf_counter() - began)
        if seconds > _LONG:
            _report_long_step(record.labels, began)
        try:
            act, argument = send, await _suspend(awaited)
        except BaseException as error:  # noqa: BLE001  # it is handed on
            act, argument = steps.throw, error


def _report_long_step(labels: tuple[str, ...], began: float) -> None:
    with suppress(Exception):  # nothing of ours may reach the application
        for observer in long_step_observers:
            observer.note(labels, began)


@coroutine
def _suspend(awaited: object) -> Generator[Any, Any, Any]:
    """Have the event loop wait for what a coroutine waits for."""
    return (yield awaited)


@coroutine
def _iterate(iterator: Iterator[Any]) -> Generator[Any, Any, Any]:
    return (yield from iterator)
