"""The span of OpenTelemetry that a request is served in, which an inner middleware of the application's begins.

The outermost middleware cannot see it. So another one of ours, innermost, keeps the context of the handler. The span is looked up
there at the end of the request, and only if its trace is wanted.
"""

from __future__ import annotations

from contextvars import copy_context
from typing import TYPE_CHECKING, Any

from aiohttp.web import middleware

from hr_prometheus.errors import SettingError
from hr_prometheus.metrics import OTEL_SPANS
from hr_prometheus.request.connection import connections

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aiohttp.typedefs import Handler
    from aiohttp.web import Application, Request, StreamResponse


@middleware
def keep_context(request: Request, handler: Handler) -> Awaitable[StreamResponse]:  # no coroutine, as the outermost
    """Keep the context in which the handler of a request runs: to look a span up in it would take longer."""
    try:
        exchange: Any = connections[request.task].exchange
        exchange.context = copy_context()
    except (KeyError, AttributeError):  # it is not recorded, or is one of a unit test
        pass
    return handler(request)


def put_innermost(app: Application) -> None:
    """Have *app* keep the contexts of its requests, in a middleware that goes behind all others when the application starts.

    A sub-application has the middlewares that it had when it was added to another one.
    """
    if keep_context in app.middlewares:
        return
    app.middlewares.append(keep_context)

    async def move_last(app: Application) -> None:
        if keep_context in app.middlewares and not app.middlewares.frozen:
            app.middlewares.remove(keep_context)
            app.middlewares.append(keep_context)

    app.on_startup.append(move_last)


def span_finder() -> Callable[[Any], tuple[str, str] | None]:
    """Return what finds the ids of the trace and the span of an exchange, if the span is recorded and sampled.

    Raises :exc:`~hr_prometheus.errors.ConfigurationError` if opentelemetry-api is not installed.
    """
    try:
        from opentelemetry.context import Context, get_current  # noqa: PLC0415  # an extra
        from opentelemetry.trace import (  # noqa: PLC0415
            INVALID_SPAN,
            TraceFlags,
            format_span_id,
            format_trace_id,
            set_span_in_context,
        )
    except ModuleNotFoundError as error:
        if str(error.name).partition(".")[0] != "opentelemetry":
            raise
        problem = ' needs opentelemetry-api, which is not installed. Install hr-prometheus with the extra "otel".'
        raise SettingError("exemplars", f'exemplars="{OTEL_SPANS}"', problem) from None
    (key,) = set_span_in_context(INVALID_SPAN, Context())  # of a span in a context; get_current_span() is slower

    def find(exchange: Any) -> tuple[str, str] | None:
        context = getattr(exchange, "context", None)  # a monitor has none
        span = context.run(get_current).get(key) if context else None
        if span is None:
            return None
        span_context = span.get_span_context()
        if not (span_context.trace_flags & TraceFlags.SAMPLED and span_context.is_valid):
            return None
        return format_trace_id(span_context.trace_id), format_span_id(span_context.span_id)

    return find
