"""How a response has ended that did not become complete: with a 499 if its client has left.

Whether a client has left is a matter of its own connection, not of an exception's type: a handler's own upstream raises
the same ones.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from aiohttp.hdrs import CONTENT_LENGTH
from aiohttp.web import HTTPException, StreamResponse

from hr_prometheus.request.body import has_no_body

if TYPE_CHECKING:
    from hr_prometheus.request.exchange import Exchange

SWITCHING_PROTOCOLS = "101"
#: The status of a request whose client left before its response was complete, as nginx has it.
CLIENT_CLOSED_REQUEST = "499"


def status_after_task(exchange: Exchange, task: asyncio.Task[Any]) -> tuple[str, bool]:
    """Return the status of a response whose last byte did not leave before *task* was done, and whether that is final.

    It is not final if the last byte may still leave: another middleware may give its handler a task of its own.
    """
    status = exchange.status or str(getattr(exchange.response, "status", "500"))
    if status == SWITCHING_PROTOCOLS:
        return status, True
    is_cancelled = task.cancelled()
    error = None if is_cancelled else task.exception()
    outcome: Any = None if is_cancelled or error is not None else task.result()
    is_own = isinstance(outcome, tuple)  # only aiohttp's own task says whether the client has left
    has_begun = exchange.sent or (exchange.status and exchange.writer.output_size > exchange.head_at)
    if not (has_begun or exchange.is_blind):
        return CLIENT_CLOSED_REQUEST, is_own
    if error is not None:
        # With handler_cancellation aiohttp cancels a handler whose client has left. It may raise something else then.
        is_lost = _has_lost_its_connection(exchange) and (task.cancelling() > 0 or _is_of_a_connection(error))
    else:
        is_lost = not is_own or outcome[1] or _has_lost_its_connection(exchange)
    return CLIENT_CLOSED_REQUEST if is_lost else status, is_own or exchange.is_blind


def response_of(task: asyncio.Task[Any]) -> StreamResponse | None:
    """Return the response that a task has made, which is aiohttp's for a request or one of another middleware."""
    if task.cancelled() or task.exception() is not None:
        return None
    outcome = task.result()
    response = outcome[0] if isinstance(outcome, tuple) else outcome
    return response if isinstance(response, StreamResponse) else None


def status_of_outcome(exchange: Exchange, outcome: object) -> str:
    """Return the status where only a handler's *outcome* can be seen, a response or an exception."""
    sent = exchange.status if exchange.writer.output_size else ""
    if isinstance(outcome, BaseException) and not isinstance(outcome, HTTPException):
        if isinstance(outcome, asyncio.CancelledError) or is_gone(exchange.request.transport):
            return sent if sent == SWITCHING_PROTOCOLS else CLIENT_CLOSED_REQUEST
        return sent or ("504" if isinstance(outcome, TimeoutError) else "500")
    if isinstance(getattr(outcome, "status", None), int):
        exchange.response = outcome  # type: ignore[assignment]  # it is a response
        return sent or str(outcome.status)  # type: ignore[attr-defined]
    return sent or "500"


def is_bodiless(exchange: Exchange) -> bool:
    """Whether the head that has left was all, although nothing has said that this was the end."""
    if not exchange.first_byte_at or exchange.status == SWITCHING_PROTOCOLS:
        return False
    if exchange.headers is not None and exchange.headers.get(CONTENT_LENGTH) == "0":
        return True
    return has_no_body(exchange.request.method, exchange.status)


def is_gone(transport: asyncio.Transport | None) -> bool:
    """Whether nothing can be written to a connection any more. With TLS it is closing for a while."""
    return transport is None or transport.is_closing() is True  # a unit test's stand-in may be neither


def _has_lost_its_connection(exchange: Exchange) -> bool:
    """Whether the connection was lost, as far as the writer can tell; aiohttp closes it for other errors as well.

    The writer counts what it cannot write to a closing connection, and does not report it.
    """
    tls = exchange.connection.tls
    if exchange.is_lost or exchange.request.transport is None or (tls is not None and tls.is_reset()):
        return True
    if exchange.is_blind or exchange.writer.on_body_write is not exchange:  # the application has its own
        return False
    return bool(exchange.writer.output_size > exchange.output_size)


def _is_of_a_connection(error: BaseException) -> bool:
    """Whether *error* comes from a write to a connection that was lost."""
    cause: BaseException | None = error
    for _ in range(10):  # there may be a circle
        # The second is what asyncio's sendfile raises.
        if isinstance(cause, ConnectionError) or (
            isinstance(cause, RuntimeError) and cause.args == ("Transport is closing",)
        ):
            return True
        if cause is None:
            break
        cause = cause.__context__
    return False
