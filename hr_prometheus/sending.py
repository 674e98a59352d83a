"""Who sends a plain response, and whether anybody has to be told when it is prepared.

The middleware sees the end of a response that it sends itself. It may do so if nothing stands between it and aiohttp.
Before aiohttp writes the head of a response it awaits the hook of its request, which tells the receivers of
``on_response_prepare``. A request that has entered a middleware has a hook of its own, which tells the recorder as well. To
tell the receivers takes half as long as an empty middleware even if none of them has anything to do. Where all of them are
our own, it need not be for a plain response: then the request is given a hook that does nothing.
"""

from __future__ import annotations

import operator
import os
import sys
from types import FunctionType
from typing import TYPE_CHECKING, Any

from hr_prometheus.life import REQUEST_TASK

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Sequence
    from types import FrameType

    from aiohttp.web import Application, Request, StreamResponse

#: How plain responses are sent: by aiohttp; by the middleware, as aiohttp would; by the middleware, with nobody being told.
BY_AIOHTTP, ALOUD, QUIETLY = 0, 1, 2


class Nothing(tuple[()]):
    """What a receiver of a signal returns to have waited for nothing: it is awaited without a coroutine."""

    __slots__ = ()
    __await__ = tuple.__iter__


NOTHING = Nothing()

#: What is told of the writes of a response that the middleware sends, to do nothing about it.
PLAINLY: Any = operator.is_

#: The frames between a middleware and aiohttp's task for the request, if there is nothing else.
_AIOHTTPS_OWN = [("web_middlewares.py", "impl"), ("web_app.py", "_handle")]


def way_of_sending(request: Request, apps: Sequence[Application], needless: Collection[Callable[..., object]]) -> int:
    """Return how the outermost middleware, which has called this, may send plain responses to requests like this.

    *apps* are its application and the parts of that which lead to the handler, and *needless* the receivers of
    ``on_response_prepare`` that need not be told.
    """
    frame: FrameType | None = sys._getframe()  # noqa: SLF001  # of CPython and PyPy
    callers: list[tuple[str, str]] = []
    while frame is not None and frame.f_code is not REQUEST_TASK:
        callers.append((os.path.basename(frame.f_code.co_filename), frame.f_code.co_name))
        frame = frame.f_back
    # Nobody calls or has wrapped Application._handle.
    is_called_once = callers.count(_AIOHTTPS_OWN[-1]) == 1
    if frame is None or not is_called_once or callers[-2:] != _AIOHTTPS_OWN or callers[-3][0] != "middleware.py":
        return BY_AIOHTTP
    is_heard = any(receiver not in needless for app in apps for receiver in app.on_response_prepare)
    return ALOUD if is_heard or not can_be_hooked(type(request)) else QUIETLY


def can_be_hooked(kind: type[Request]) -> bool:
    """Whether requests of this kind have nothing but aiohttp's own hook, and another can be put before it."""
    hook = getattr(kind, "_prepare_hook", None)
    is_own = type(hook) is FunctionType and os.path.basename(hook.__code__.co_filename) == "web_request.py"
    # When aiohttp is debugged, it warns of attributes that it does not know.
    return is_own and kind.__dictoffset__ != 0 and kind.__setattr__ is object.__setattr__


def tell_nobody(_response: StreamResponse) -> Awaitable[None]:
    """Stand for ``Request._prepare_hook``, which tells the receivers of ``on_response_prepare``."""
    return NOTHING  # type: ignore[return-value]
