"""The body of a request, which may still arrive when its response has left."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from aiohttp import EMPTY_PAYLOAD

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiohttp import StreamReader

#: For how many seconds a request's body may still arrive after the response has left. aiohttp's server reads and
#: discards it for 10 by default.
_LINGERING = 11.0


def received(content: StreamReader) -> int:
    """Return the bytes of a request's body received so far: as sent, without chunk framing."""
    if content is EMPTY_PAYLOAD:
        return 0
    size = getattr(content, "total_raw_bytes", content.total_bytes)
    return size if isinstance(size, int) else 0  # a unit test's stand-in has none


def receive(content: StreamReader, count: Callable[[int], None], *, is_over: bool) -> None:
    """Call *count* with a body's bytes, once all of it has arrived or none of it can arrive any more, which *is_over* says."""
    if is_over or content.is_eof():
        count(received(content))
        return

    def arrived() -> None:  # keeps nothing of the request but the rest of its body
        if not given_up.cancelled():
            given_up.cancel()
            count(received(content))

    given_up = asyncio.get_running_loop().call_later(_LINGERING, arrived)
    content.on_eof(arrived)
