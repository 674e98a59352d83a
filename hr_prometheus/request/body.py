"""The bytes of bodies: of requests that arrive, and of responses that are compressed while they leave."""

from __future__ import annotations

import asyncio
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from aiohttp import EMPTY_PAYLOAD, hdrs
from aiohttp.web import FileResponse

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiohttp import StreamReader
    from multidict import CIMultiDict

    from hr_prometheus.request.exchange import Exchange

#: For how many seconds a request's body may still arrive after the response has left. aiohttp's server reads and
#: discards it for 10 by default.
_LINGERING = 11.0
#: What ends a chunked body (RFC 9112, 7.1).
_LAST_CHUNK = len("0\r\n\r\n")


def received_size(content: StreamReader) -> int:
    """Return the bytes of a request's body received so far: as sent, without chunk framing."""
    if content is EMPTY_PAYLOAD:
        return 0
    try:
        size = content.total_raw_bytes
    except AttributeError:
        size = content.total_bytes
    return size if isinstance(size, int) else 0  # a unit test's stand-in has none


def await_body(content: StreamReader, count: Callable[[int], None]) -> None:
    """Call *count* with a body's bytes, once all of it has arrived or none of it can arrive any more."""

    def arrived() -> None:  # keeps nothing of the request but the rest of its body
        if not given_up.cancelled():
            given_up.cancel()
            count(received_size(content))

    given_up = asyncio.get_running_loop().call_later(_LINGERING, arrived)
    content.on_eof(arrived)


class EncodedBody:
    """A response's body that may be compressed while it is written, so that its size follows from the *writer*'s output."""

    def __init__(self, writer: Any, head_at: int, status_line: str, headers: CIMultiDict[str]) -> None:
        self._writer = writer
        self._counted = head_at + _head_size(status_line, headers)

    def written(self, output_size: int, *, is_last: bool) -> int:
        """Return the bytes that have left since the latest part, without the framing of chunks (RFC 9112, 7.1)."""
        part = output_size - self._counted
        if part <= 0:  # the compressor has kept it
            return 0
        self._counted = output_size
        if getattr(self._writer, "chunked", False):
            return _unframed(part - _LAST_CHUNK if is_last else part)
        return part


def _head_size(status_line: str, headers: CIMultiDict[str]) -> int:
    """Return the bytes of a response's head, as aiohttp writes it (RFC 9112, 2.1)."""
    fields = sum(len(name.encode()) + len(value.encode()) + 4 for name, value in headers.items())
    return len(status_line.encode()) + fields + 4


def _unframed(part: int) -> int:
    """Return the bytes inside a chunk that takes *part* bytes: its length in hexadecimal and four more (RFC 9112, 7.1)."""
    for digits in range(1, 9):
        size = part - digits - 4
        if size > 0 and len(f"{size:x}") == digits:
            return size
    return 0


@lru_cache(maxsize=256)
def status_in(status_line: str) -> str:
    """Return the status in the first line of a response. There are few different lines, so each is taken apart once."""
    return status_line[9:13].rstrip()


#: The statuses of responses without a body (RFC 9110, 6.4.1).
NO_BODY = frozenset({"100", "101", "102", "103", "204", "304"})


def has_no_body(method: str, status: str) -> bool:
    """Whether a response has no body, whatever its handler made (RFC 9110, 6.4.1)."""
    if method == hdrs.METH_HEAD or (method == hdrs.METH_CONNECT and status.startswith("2")):
        return True
    return status in NO_BODY or status.startswith("1")


def response_size(exchange: Exchange) -> int | None:
    """Return the bytes of a response's body that were handed to the transport; ``None`` if that is not known.

    Unknown is what the operating system has sent of a file (sendfile) when the transfer is cut off.
    """
    if exchange.sent or exchange.headers is None:
        return None if exchange.connection.is_direct and not exchange.sent else exchange.sent
    if exchange.writer.on_body_write is not exchange:  # the application has put its own in our place
        return None
    length = exchange.headers.get(hdrs.CONTENT_LENGTH, "0")
    response = exchange.response
    may_be_file = exchange.task is not None and (response is None or isinstance(response, FileResponse))
    if not may_be_file or length == "0" or has_no_body(exchange.request.method, exchange.status):
        return 0
    return int(length) if exchange.is_complete else None
