"""An open WebSocket: how long it is open, and who closes it with which code."""

from __future__ import annotations

import sys
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Any

from aiohttp import WebSocketError, WSCloseCode, hdrs
from aiohttp.web import WebSocketResponse

from hr_prometheus.metrics import WEBSOCKET_CLOSES, WEBSOCKET_DURATION, WEBSOCKETS_IN_PROGRESS

if TYPE_CHECKING:
    from aiohttp.web import Request, StreamResponse

    from hr_prometheus.request.exchange import Exchange
    from hr_prometheus.store.store import Store

#: Who sent the first close frame, or let the connection go without one.
SERVER, CLIENT, UNKNOWN = "server", "client", "unknown"
#: The code of a connection that was closed without a close frame (RFC 6455, 7.1.5).
_ABNORMAL = 1006


class WebSocketRecord:
    """The numbers of the WebSockets with one path, and the extra labels of their requests."""

    __slots__ = ("_labels", "_progress", "_store")

    def __init__(self, record: Any) -> None:
        self._store: Store = record.store
        self._labels: tuple[str, ...] = record.labels[1:]  # without the method
        self._progress = self._store.allocate(WEBSOCKETS_IN_PROGRESS, self._labels)

    def begin(self) -> None:
        """Count one connection more that is open."""
        page, index = self._progress
        page[index] += 1.0

    def leave(self) -> None:
        """Count one connection less that is open."""
        page, index = self._progress
        page[index] -= 1.0

    def end(self, seconds: float, code: int, by: str) -> None:
        """Count a connection that was open for some *seconds* and was closed with *code* by the server or the client."""
        self.leave()
        self._store.observe(WEBSOCKET_DURATION, self._labels, seconds)
        path, *extra = self._labels
        page, index = self._store.allocate(WEBSOCKET_CLOSES, (path, _code_label(code), by, *extra))
        page[index] += 1.0


def _code_label(code: int) -> str:
    """Return the label of a close code; those that a peer may invent have one for each thousand.

    The registered codes are 1000 to 1015, 3000 to 3999 belong to libraries and 4000 to 4999 to applications
    (RFC 6455, 7.4). aiohttp has 0 for a close frame without a code, which is 1005 (7.1.5).
    """
    if code == 0:
        return "1005"
    if 1000 <= code <= 1015:
        return str(code)
    return f"{code // 1000}xxx" if 3000 <= code <= 4999 else "other"


class WebSocketConnection:
    """One WebSocket, from its head on.

    *response* takes this object's :meth:`close` in place of its own while it is open. aiohttp calls that for the
    application and for the client alike, and forgets afterwards which code the server has sent. Without a response
    only its final code can be known, and not who closed.
    """

    def __init__(self, record: WebSocketRecord, request: Request, response: WebSocketResponse | None) -> None:
        self._record = record
        self._request = request
        #: ``None`` where it is not known.
        self.response = response
        self._began = perf_counter()
        self._is_open = True
        #: The code that the first call of :meth:`close` has sent, and who closes; ``None`` before it.
        self._first_close: tuple[int | None, str] | None = None
        record.begin()
        if response is not None:
            # Another middleware of ours may have put its own there.
            self._close = vars(response).get("close") or partial(type(response).close, response)
            vars(response)["close"] = self.close

    async def close(self, *args: Any, **options: Any) -> Any:
        """Close the WebSocket as its own method does, and note who began it."""
        response: Any = self.response
        if self._first_close is None:  # aiohttp calls it again at the end of a handler, while another task may close
            transport = self._request.transport
            is_connected = transport is not None and not transport.is_closing()
            is_breach = isinstance(sys.exc_info()[1], WebSocketError)  # of the protocol, which aiohttp answers
            is_ours = is_breach or (is_connected and response.close_code is None)
            sent = args[0] if args else options.get("code", WSCloseCode.OK)
            self._first_close = (sent, SERVER) if is_ours else (None, CLIENT)
        code, by = self._first_close
        try:
            return await self._close(*args, **options)
        finally:
            self.end(response.close_code if code is None else code, by)

    def finish(self, response: object) -> None:
        """Record the end of a WebSocket that was not closed, now that its handler has ended with *response* or an error."""
        code: int | None = getattr(response, "close_code", None)
        if self.response is None:
            self.end(code, UNKNOWN)
        else:
            self.end(code, SERVER if self._request.transport is not None else CLIENT)

    def abandon(self) -> None:
        """Forget a WebSocket whose preparation failed."""
        if self._is_open:
            self._is_open = False
            self._record.leave()

    def end(self, code: int | None, by: str) -> None:
        """Record the end, the first time."""
        if self._is_open:
            self._is_open = False
            if self.response is not None:
                self.response.__dict__.pop("close", None)
            self._record.end(perf_counter() - self._began, _ABNORMAL if code is None else code, by)


def expect_upgrade(exchange: Exchange) -> None:
    """Have the response to an upgrade known when it is prepared, so that its close can be seen.

    aiohttp has no public name for this moment that costs other requests nothing. Where it has no private one any more
    either, it stays unknown who closes a WebSocket.
    """
    request: Any = exchange.request
    original = getattr(request, "_prepare_hook", None)
    attributes = vars(request)  # past what warns of unknown attributes while aiohttp is debugged
    if original is None or "_prepare_hook" in attributes:
        return

    async def prepare_hook(response: StreamResponse) -> None:
        exchange.response = response
        attributes.pop("_prepare_hook", None)
        await original(response)

    attributes["_prepare_hook"] = prepare_hook


def begin_websocket(exchange: Exchange, outermost: Exchange) -> None:
    """Count a request as an open WebSocket if it has become one, now that the *outermost* exchange has seen its head."""
    record, headers = exchange.record, outermost.headers
    is_detailed = getattr(record, "store", None) is not None
    if not is_detailed or headers is None or exchange.websocket is not None:
        return
    if headers.get(hdrs.UPGRADE, "").lower() == "websocket":
        response = outermost.response if isinstance(outermost.response, WebSocketResponse) else None
        exchange.websocket = WebSocketConnection(WebSocketRecord(record), exchange.request, response)
