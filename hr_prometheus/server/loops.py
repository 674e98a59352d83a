"""Which event loop serves: asyncio's own, or uvloop's where that is installed."""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import TYPE_CHECKING

from hr_prometheus.errors import SettingError

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

AUTO, ASYNCIO, UVLOOP = LOOPS = ("auto", "asyncio", "uvloop")


def loop_name(loop: asyncio.AbstractEventLoop) -> str:
    """Return the name of the package that a loop is of: asyncio, uvloop, or another one."""
    return type(loop).__module__.partition(".")[0]


def chosen_name(name: str | None) -> str:
    """Return the name of the loop that :func:`loop_factory` makes; ``None`` is ``auto``."""
    if name in (None, AUTO):
        return ASYNCIO if find_spec("uvloop") is None else UVLOOP
    return str(name)


def loop_factory(name: str) -> Callable[[], asyncio.AbstractEventLoop]:
    """Return the function that makes a loop of this name; ``auto`` is uvloop if it is installed, else asyncio.

    Raises :exc:`~hr_prometheus.errors.ConfigurationError` if uvloop is asked for and not installed.
    """
    import asyncio  # noqa: PLC0415  # the command shows its help without it

    if chosen_name(name) == ASYNCIO:
        return asyncio.new_event_loop
    try:
        import uvloop  # noqa: PLC0415  # an extra
    except ImportError:
        raise SettingError(
            "loop", "--loop uvloop", ': uvloop is not installed. Install hr-prometheus with the extra "uvloop".'
        ) from None
    # libuv ends a process that closes one of the first three descriptors, which is what a process that was started
    # without standard output would use for a socket.
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)
    new_event_loop: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return new_event_loop
