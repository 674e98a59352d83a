"""The middleware, which begins an exchange for each request."""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING, Any

from aiohttp.hdrs import UPGRADE
from aiohttp.web import Response, StreamResponse

from hr_prometheus.labels.served import note_path, notes
from hr_prometheus.request.aiohttp_features import WRITES_ARE_REPORTED
from hr_prometheus.request.connection import connections, open_connection
from hr_prometheus.request.earlier import EarlierExchange
from hr_prometheus.request.exchange import Exchange
from hr_prometheus.request.incomplete import status_of_outcome
from hr_prometheus.request.loop_time import count_loop_time
from hr_prometheus.request.websocket import expect_upgrade

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aiohttp.typedefs import Handler
    from aiohttp.web import Request

    from hr_prometheus.request.recorder import Record, Recorder
    from hr_prometheus.store.cells import Cells


class _NotRecorded:
    """The record of requests that are left out."""

    labels: tuple[str, ...] = ()
    loop_time: Cells | None = None

    def begin(self, exchange: Exchange) -> None:
        """Record nothing."""

    def end(self, exchange: Exchange, status: str, seconds: float) -> None:
        """Record nothing."""


_NOT_RECORDED: Record = _NotRecorded()


def make_middleware(recorder: Recorder) -> Callable[[Request, Handler], Awaitable[StreamResponse]]:
    """Make the function that aiohttp calls with each request.

    It is no coroutine: it notes that the request has begun and returns what the handler returns. So it has no frame
    while the handler runs, and an exception passes it for nothing.
    """
    lookup, record_of, is_full = recorder.lookup, recorder.record_of, recorder.is_full
    make_exchange = Exchange if WRITES_ARE_REPORTED else EarlierExchange

    def record_request(request: Request, handler: Handler) -> Awaitable[StreamResponse]:
        exchange: Exchange | None = None
        try:
            writer: Any = request.writer
            try:
                connection = connections[request.task]
            except (KeyError, AttributeError):
                connection = open_connection(request)
            outer = connection.exchange
            if outer is not None and outer.writer is writer:  # a middleware of ours further out has begun it
                record = _join(recorder, outer, request)
            else:
                if outer is not None:
                    outer.give_up()
                record = lookup(request) or record_of(request) or _NOT_RECORDED
                exchange = make_exchange(recorder, record, request, writer, connection)
                if is_full and UPGRADE in request.headers:
                    expect_upgrade(exchange)
                exchange.began = perf_counter()
                record.begin(exchange)
                connection.exchange = exchange
                if notes.are_taken:
                    note_path(record.labels)
        except Exception as error:  # noqa: BLE001  # nothing of ours may reach the client
            recorder.failed("begin", error)
            _abandon(exchange)
            return handler(request)
        if exchange is not None and (exchange.waits or connection.is_direct):
            return _await_response(exchange, handler)
        if is_full and record.loop_time is not None:
            return count_loop_time(handler, request, record, exchange)
        return handler(request)

    return record_request


def _abandon(exchange: Exchange | None) -> None:
    """Record no more of a request whose beginning has failed."""
    if exchange is not None:
        exchange.is_over = True
        exchange.release()


def _join(recorder: Recorder, outer: Exchange, request: Request) -> Record:
    """Record a request that another middleware of ours has begun, unless that one writes to the same numbers."""
    if any(each.recorder.records_like(recorder) for each in (outer, *outer.inner)):
        return _NOT_RECORDED
    record = recorder.record_of(request) or _NOT_RECORDED
    exchange = Exchange(recorder, record, request, outer.writer, outer.connection, outer=outer)
    if recorder.is_full and UPGRADE in request.headers:
        expect_upgrade(outer)
    exchange.began = perf_counter()
    record.begin(exchange)
    if exchange.waits:
        outer.waits = True
        outer.watch()
    outer.inner = (*outer.inner, exchange)
    return record


async def _await_response(exchange: Exchange, handler: Handler) -> StreamResponse:
    """Await the response, for a monitor that wants to see it, or because nothing else shows the end of the request."""
    try:
        response = await handler(exchange.request)
    except BaseException as error:
        _note_outcome(exchange, error)
        raise
    _note_outcome(exchange, response)
    return response


def _note_outcome(exchange: Exchange, outcome: object) -> None:
    """Take the response that the handler has returned or raised, or its error, which may be the end."""
    if exchange.connection.is_direct:
        exchange.finish(status_of_outcome(exchange, outcome), perf_counter())
    elif type(outcome) is Response or isinstance(outcome, StreamResponse):  # an abstract class, which takes long
        exchange.response, exchange.waits = outcome, False
        if exchange.is_complete and exchange.status:
            exchange.finish(exchange.status, exchange.written_at)
