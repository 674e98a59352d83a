"""Counts the requests that aiohttp's parser refuses, which reach no middleware.

They do reach the access log. So the class made here, given to aiohttp's runner as ``access_log_class``, counts
them and leaves everything else to the class in whose place it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import hdrs
from aiohttp.abc import AbstractAccessLogger
from aiohttp.web import Application, Request
from aiohttp.web_log import AccessLogger

from hr_prometheus.exposition.view import is_view
from hr_prometheus.labels.unrecorded import is_recorded
from hr_prometheus.request.recorder import recorder_of
from hr_prometheus.request.refused import record_malformed, record_unmet_expectation

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable

    from aiohttp.abc import AbstractMatchInfo
    from aiohttp.web import BaseRequest, StreamResponse


class QuietAccessLogger(AccessLogger):
    """aiohttp's own access logger, without a line for scrapes and for the status page."""

    def log(self, request: BaseRequest, response: StreamResponse, time: float) -> None:
        """Log a request, unless it only shows the metrics."""
        match = _match(request)
        if match is None or (is_recorded(match.handler) and not is_view(match.handler)):
            super().log(request, response, time)


def access_log_class(
    app: Application | Callable[[], Application | None], base: type[AbstractAccessLogger] | None = AccessLogger
) -> type[AbstractAccessLogger]:
    """Make an ``access_log_class`` for *app* which also counts malformed requests, as ``path="malformed"``.

    Pass it to ``web.run_app`` or ``web.AppRunner``, whose *access_log* must not be ``None``. *base* decides what is
    logged; ``None`` logs nothing. *app* is an application that carries the middleware by the time it serves, or a
    function that returns it then.
    """
    served_app = app if callable(app) and not isinstance(app, Application) else lambda: app

    class RecordingAccessLogger(AbstractAccessLogger):
        def __init__(self, logger: logging.Logger, log_format: str) -> None:
            super().__init__(logger, log_format)
            self._base = base(logger, log_format) if base is not None else None

        @property
        def enabled(self) -> bool:
            return True

        def log(self, request: BaseRequest, response: StreamResponse, time: float) -> None:
            if getattr(request.writer, "on_body_write", None) is None:
                _count_unseen(served_app(), request, response, time)
            if self._base is not None and self._base.enabled:
                self._base.log(request, response, time)

    return RecordingAccessLogger


def _count_unseen(app: Application | None, request: BaseRequest, response: StreamResponse, seconds: float) -> None:
    """Count a request that aiohttp has answered before any middleware of *app*."""
    for candidate in app.middlewares if app is not None else ():
        recorder = recorder_of(candidate)
        if recorder is None:
            continue
        if _match(request) is None:
            record_malformed(recorder, request, response, seconds)
        elif (
            hdrs.EXPECT in request.headers  # which aiohttp cannot meet
            and isinstance(request, Request)
            and hasattr(request.writer, "__dict__")  # else the middleware could not mark what it has seen
        ):
            record_unmet_expectation(recorder, request, response, seconds)


def _match(request: BaseRequest) -> AbstractMatchInfo | None:
    """Return the router's match for *request*; ``None`` if the parser has refused it before."""
    try:
        return getattr(request, "match_info", None)
    except AssertionError:  # aiohttp's sign of it
        return None
