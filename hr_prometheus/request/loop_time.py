"""For how long the handler of a request holds the event loop."""

from __future__ import annotations

from time import perf_counter
from types import coroutine
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from aiohttp.typedefs import Handler
    from aiohttp.web import Request

    from hr_prometheus.store.cells import Cells


async def count_loop_time(handler: Handler, request: Request, cells: Cells) -> Any:
    """Await what a *handler* returns for a *request*, and add the seconds of each of its steps to a counter's *cells*.

    A step lasts from the moment at which a coroutine goes on until it waits again, or ends. Values, exceptions,
    cancellation and :exc:`GeneratorExit` reach it unchanged (PEP 342).
    """
    steps: Any = handler(request)
    if not hasattr(steps, "send"):  # a class-based view, for example
        steps = steps.__await__()
        if not hasattr(steps, "send"):  # any iterator will do (PEP 492), but has no steps to speak of
            return await _iterate(steps)
    send = steps.send
    page, cell = cells
    act, argument = send, None
    while True:
        began = perf_counter()
        try:
            awaited = act(argument)
        except StopIteration as end:
            page[cell] += perf_counter() - began
            argument = None  # an error that was thrown in refers to this frame by its traceback
            return end.value
        except BaseException:
            page[cell] += perf_counter() - began
            argument = None
            raise
        page[cell] += perf_counter() - began
        try:
            act, argument = send, await _suspend(awaited)
        except BaseException as error:  # noqa: BLE001  # it is handed on
            act, argument = steps.throw, error


@coroutine
def _suspend(awaited: object) -> Generator[Any, Any, Any]:
    """Have the event loop wait for what a coroutine waits for."""
    return (yield awaited)


@coroutine
def _iterate(iterator: Iterator[Any]) -> Generator[Any, Any, Any]:
    return (yield from iterator)
