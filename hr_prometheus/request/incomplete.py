"""How a response has ended that did not become complete: with a 499 if its client has left.

Whether a client has left is a matter of its own connection, not of an exception's type: a handler's own upstream raises
the same ones.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from aiohttp.web import HTTPException, StreamResponse

from hr_prometheus.request.body import has_no_body

if TYPE_CHECKING:
    from hr_prometheus.request.exchange import Exchange

SWITCHING_PROTOCOLS = "101"
#: The status of a request whose client left before its response was complete, as nginx has it.
CLIENT_CLOSED_REQUEST = "499"


def status_after_task(exchange: Exchange, task: asyncio.Task[Any]) -> str | None:
    """Return the status of a response whose last byte did not leave before *task* was done.

    It is ``None`` if that may still happen: another middleware may give its handler a task of its own.
    """
    status = exchange.status or str(getattr(exchange.response, "status", "500"))
    if status == SWITCHING_PROTOCOLS:
        return status
    is_cancelled = task.cancelled()
    error = None if is_cancelled else task.exception()
    outcome = None if is_cancelled or error is not None else task.result()
    has_left: bool | None = outcome[1] if isinstance(outcome, tuple) else None  # only aiohttp's own task says so
    if not (exchange.is_blind or exchange.writer.output_size):  # nothing was sent
        return None if has_left is None else CLIENT_CLOSED_REQUEST
    if error is not None:
        is_lost = _has_lost_its_connection(exchange) and _is_of_a_connection(error)
    elif has_left is not None:
        is_lost = has_left or _has_lost_its_connection(exchange)
    elif is_cancelled:
        is_lost = True
    else:
        return None
    return CLIENT_CLOSED_REQUEST if is_lost else status


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
    return has_no_body(exchange.request.method, exchange.status)


def is_gone(transport: asyncio.Transport | None) -> bool:
    """Whether nothing can be written to a connection any more. With TLS it is closing for a while."""
    return transport is None or transport.is_closing() is True  # a unit test's stand-in may be neither


def _has_lost_its_connection(exchange: Exchange) -> bool:
    """Whether the connection was lost, as far as the writer can tell; aiohttp closes it for other errors as well.

    The writer counts what it cannot write to a closing connection, and does not report it.
    """
    if exchange.is_lost or exchange.request.transport is None:
        return True
    return not exchange.is_blind and bool(exchange.writer.output_size > exchange.output_size)


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
