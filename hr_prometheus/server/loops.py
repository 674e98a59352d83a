"""The event loop: its choice, asyncio's own or uvloop's where that is installed, and its start."""

from __future__ import annotations

import os
import signal
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, TypeVar

from hr_prometheus.errors import SettingError
from hr_prometheus.server import interrupts

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Coroutine

_Result = TypeVar("_Result")

AUTO, ASYNCIO, UVLOOP = LOOPS = ("auto", "asyncio", "uvloop")


def loop_name(loop: asyncio.AbstractEventLoop) -> str:
    """Return the name of a loop's package: asyncio, uvloop, or another one."""
    return type(loop).__module__.partition(".")[0]


def loop_choice(name: str | None) -> str:
    """Return the name of the loop that :func:`loop_factory` makes."""
    if name in (None, AUTO):
        return ASYNCIO if find_spec("uvloop") is None else UVLOOP
    return str(name)


def loop_factory(name: str | None) -> Callable[[], asyncio.AbstractEventLoop]:
    """Return the function that makes a loop of this name.

    ``auto``, and ``None``, is uvloop if it is installed, else asyncio.

    Raises :exc:`~hr_prometheus.errors.ConfigurationError` if uvloop is asked for and not installed.
    """
    import asyncio  # noqa: PLC0415  # the command shows its help without it

    if loop_choice(name) == ASYNCIO:
        return asyncio.new_event_loop
    try:
        import uvloop  # noqa: PLC0415  # an extra
    except ImportError:
        raise SettingError(
            "loop", "--loop uvloop", ': uvloop is not installed. Install hr-prometheus with the extra "uvloop".'
        ) from None
    # libuv ends a process that closes one of the first three descriptors. In a process that was started without
    # standard output, a socket would be one of them.
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)
    new_event_loop: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return new_event_loop


def run_in_new_loop(main: Callable[[], Coroutine[Any, Any, _Result]]) -> _Result:
    """Do as :func:`asyncio.run` does with what *main* returns. An interruption waits until that begins."""
    import asyncio  # noqa: PLC0415  # as above

    with interrupts.Deferral() as deferral, asyncio.Runner() as runner:

        async def begin() -> _Result:
            deferral.end()
            try:
                return await main()
            finally:
                signal.set_wakeup_fd(-1)  # the loop closes it before it gives back its signals, of which one may come

        return runner.run(begin())
