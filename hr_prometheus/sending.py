"""Who sends a plain response, and whether anybody has to be told when it is prepared.

The middleware sees the end of a response that it sends itself. It may do so if nothing stands between it and aiohttp.
Before aiohttp writes the head of a response it awaits the hook of its request, which tells the receivers of
``on_response_prepare``. A request that has entered a middleware has a hook of its own, which tells the recorder as well. To
tell the receivers takes half as long as an empty middleware even if none of them has anything to do. Where all of them are
our own, it need not be for a plain response: then the request is given a hook that does nothing.
"""

from __future__ import annotations

import asyncio
import operator
import sys
from types import FunctionType
from typing import TYPE_CHECKING, Any

from hr_prometheus.life import REQUEST_TASK

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Sequence
    from types import FrameType

    from aiohttp.web import Application, Request, StreamResponse


class _NoLoop:
    """What a future asks a loop for that is done before anybody waits for it."""

    @staticmethod
    def get_debug() -> bool:
        """Return that nothing is debugged."""
        return False


#: What aiohttp awaits for a hook that has nothing to wait for: with Python 3.11 that is twice as fast as a coroutine.
_NOTHING: asyncio.Future[None] = asyncio.Future(loop=_NoLoop())  # type: ignore[arg-type]
_NOTHING.set_result(None)

#: What is told of the writes of a response that the middleware sends, to do nothing about it.
PLAINLY: Any = operator.is_


def quietly(_response: StreamResponse) -> Awaitable[None]:
    """Stand for the hook of a request whose response the middleware sends, with nobody to be told."""
    return _NOTHING


async def aloud(response: StreamResponse) -> None:
    """Stand for the hook of a request whose response the middleware sends, with somebody to be told."""
    request: Any = response._req  # noqa: SLF001
    request.writer.on_body_write = PLAINLY
    request.match_info.current_app = request.match_info.apps[-1]  # as aiohttp has it when it sends
    await type(request)._prepare_hook(request, response)  # noqa: SLF001


#: Who sends plain responses, in the order of what it supposes: aiohttp; the middleware, with either hook.
BY_AIOHTTP = None
WAYS: tuple[Callable[[StreamResponse], Awaitable[None]] | None, ...] = (BY_AIOHTTP, aloud, quietly)

#: The module of the middleware.
_OURS = f"{__package__}.middleware"
#: The frames between a middleware and aiohttp's task for the request, if there is nothing else.
_AIOHTTPS_OWN = [("aiohttp.web_middlewares", "impl"), ("aiohttp.web_app", "_handle")]


def way_of_sending(
    apps: Sequence[Application], needless: Collection[Callable[..., object]]
) -> Callable[[StreamResponse], Awaitable[None]] | None:
    """Return which of the :data:`WAYS` the outermost middleware, which has called this, has for requests like the present.

    *apps* are its application and the parts of that which lead to the handler, and *needless* the receivers of
    ``on_response_prepare`` that need not be told.
    """
    frame: FrameType | None = sys._getframe()  # noqa: SLF001  # of CPython and PyPy
    callers: list[tuple[str, str]] = []
    while frame is not None and frame.f_code is not REQUEST_TASK:
        callers.append((frame.f_globals.get("__name__", ""), frame.f_code.co_name))
        frame = frame.f_back
    # Nobody calls or has wrapped Application._handle.
    is_called_once = callers.count(_AIOHTTPS_OWN[-1]) == 1
    if frame is None or not is_called_once or callers[-2:] != _AIOHTTPS_OWN or callers[-3][0] != _OURS:
        return BY_AIOHTTP
    is_heard = any(receiver not in needless for app in apps for receiver in app.on_response_prepare)
    return aloud if is_heard else quietly


def can_be_hooked(kind: type[Request]) -> bool:
    """Whether requests of this kind have nothing but aiohttp's own hook, and another can be put before it."""
    hook = getattr(kind, "_prepare_hook", None)
    is_own = type(hook) is FunctionType and hook.__globals__.get("__name__") == "aiohttp.web_request"
    # When aiohttp is debugged, it warns of attributes that it does not know.
    return is_own and kind.__dictoffset__ != 0 and kind.__setattr__ is object.__setattr__
