"""Who holds an event loop: the request, the task or the callback that is on the stack of its thread."""

from __future__ import annotations

import asyncio
import signal
import sys
from functools import partial
from opcode import opname
from types import FunctionType, MethodType
from typing import TYPE_CHECKING, Any, NamedTuple

from aiohttp.abc import AbstractView
from aiohttp.web import BaseRequest

from hr_prometheus.event_loop.place import place_of
from hr_prometheus.request.connection import connections
from hr_prometheus.request.recorder import recorder_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import CodeType, FrameType

    from hr_prometheus.event_loop.place import Place

#: The labels ``path`` of what is no request. A route's begins with a slash, or is one of another few words.
BACKGROUND, BUSY, GARBAGE, STOPPED, THREAD = "background", "busy", "gc", "stopped", "thread"
#: How many frames are searched for a request.
_MOST_FRAMES = 30


class Culprit(NamedTuple):
    """Who holds the event loop: the *labels* of its metrics, its *name* in a sentence, and its *place* in the code.

    *since*, on the clock of :func:`time.perf_counter`, is when it can have begun at the earliest.
    """

    labels: tuple[str, ...]
    name: str
    place: Place | None = None
    since: float = 0.0

    @classmethod
    def reason(cls, path: str, name: str) -> Culprit:
        """Return what is no request."""
        return cls(("", path), name)

    @classmethod
    def request(cls, labels: tuple[str, ...], place: Place | None = None, since: float = 0.0) -> Culprit:
        """Return a request with these labels."""
        return cls(labels, f"{labels[0]} {labels[1]}", place, since)


class Stack(NamedTuple):
    """What an event loop runs at one moment: the *frames* of its thread, from the innermost on, and its *task*.

    *step* is the same object as long as it is the same call of the loop's, and ``None`` if it runs no Python code but the loop's own.
    If it *is_in_call*, the innermost frame, which may be the loop's, has called something that is written in C.
    """

    step: object
    frames: Sequence[FrameType]
    is_in_call: bool = False
    task: asyncio.Task[Any] | None = None
    is_of_signal: bool = False

    def culprit(self) -> Culprit | None:
        """Return who it is that runs; ``None`` if it is the loop."""
        if self.step is None:
            return None
        place = place_of(self.frames)
        if self.is_of_signal:
            return Culprit(("", BACKGROUND), "a signal handler", place)
        if self.task is None:
            return Culprit(("", BACKGROUND), "a callback", place)
        labels, since = _of_request(self.frames)
        if labels:
            return Culprit.request(labels, place, since)
        function = getattr(self.task.get_coro(), "__qualname__", "")
        return Culprit(("", BACKGROUND), f'the task "{self.task.get_name()}" ({function})', place)


def stack_of(loop: asyncio.AbstractEventLoop, thread: int, caller: CodeType) -> Stack:
    """Return what a *loop* in another *thread* runs. *caller* is the code by which it calls its callbacks."""
    frame: FrameType | None = sys._current_frames().get(thread)  # noqa: SLF001  # public for all but the linter
    is_in_call = frame is not None and "CALL" in opname[frame.f_code.co_code[frame.f_lasti]]
    task = asyncio.current_task(loop)
    frames = []
    while frame is not None and frame.f_code is not caller:
        frames.append(frame)
        frame = frame.f_back
    handlers = _signal_handlers()
    for number, each in enumerate(frames):
        if each.f_code in handlers:  # it runs in the midst of anything
            return Stack(each, frames[: number + 1], is_in_call, is_of_signal=True)
    return Stack(frames[-1] if frame is not None and frames else None, frames, is_in_call, task)


def _of_request(frames: Sequence[FrameType]) -> tuple[tuple[str, ...], float]:
    """Return the labels of the request that a stack serves, and when it began; no labels if it serves none.

    aiohttp's own task for a request has it in its first frame. A task that another middleware has made has it in another.
    """
    is_of_aiohttp = str(frames[-1].f_globals.get("__name__")).startswith("aiohttp.")
    for request in _requests(frames):
        connection = connections.get(request.task)
        exchange = None if connection is None else connection.exchange
        if exchange is not None and exchange.writer is request.writer:
            return exchange.record.labels, exchange.began
        if is_of_aiohttp:  # what comes after the last byte
            return _labels_after_end(request), 0.0
    return (), 0.0


def _requests(frames: Sequence[FrameType]) -> Iterator[BaseRequest]:
    """Yield the requests that a stack serves, from its beginning.

    They are local variables of aiohttp's functions and of ours, and arguments of the function that a task of the
    application's was made of. Others are not looked at: a task may have a request in hand that only waits for it.
    """
    for frame in frames[: -_MOST_FRAMES - 1 : -1]:
        names: Sequence[str] = frame.f_code.co_varnames
        if not str(frame.f_globals.get("__name__")).startswith(("aiohttp.", "hr_prometheus.")):
            names = names[: frame.f_code.co_argcount] if frame is frames[-1] else ()
            # To read them keeps all variables of the function alive until its end.
            if sys.version_info < (3, 13) and not any("req" in name for name in names):
                names = ()
        values = frame.f_locals if names else {}
        for value in [values[name] for name in names if name in values]:
            if issubclass(type(value), BaseRequest):  # isinstance would ask an object of the application
                yield value
            elif issubclass(type(value), AbstractView):
                yield value.request


def _labels_after_end(request: Any) -> tuple[str, ...]:
    try:
        apps = request.match_info.apps
    except AssertionError:  # aiohttp's sign that the parser has refused it
        return ()
    for middleware in apps[0].middlewares:
        recorder = recorder_of(middleware)
        record = None if recorder is None else recorder.labels.lookup(request)
        if record is not None:
            labels: tuple[str, ...] = record.labels
            return labels
    return ()


def _signal_handlers() -> set[object]:
    """Return the codes of the application's handlers of signals."""
    codes: set[object] = set()
    for number in signal.valid_signals():
        handler: Any = signal.getsignal(number)
        if isinstance(handler, partial):
            handler = handler.func
        if isinstance(handler, FunctionType | MethodType):
            codes.add(handler.__code__)
        elif callable(handler):
            codes.add(getattr(type(handler).__call__, "__code__", None))
    return codes - {None}
