"""The middleware, which gives each request a life."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from time import perf_counter
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

from aiohttp import EMPTY_PAYLOAD
from aiohttp.web import Response, middleware

from hr_prometheus.errors import ConfigurationError
from hr_prometheus.labels import DEFAULT_PATH_BUDGET
from hr_prometheus.monitors import BaseRequestMonitor, RequestMonitor
from hr_prometheus.policies import Policies
from hr_prometheus.recorder import Recorder

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Mapping

    from aiohttp.typedefs import Handler, Middleware
    from aiohttp.web import Request, StreamResponse

    from hr_prometheus.records import RequestRecord


def hrprometheus_middleware(
    request_monitor: type[BaseRequestMonitor] | None = None,
    *,
    allow_values: Mapping[str, Mapping[str, Collection[str]]] | None = None,
    path_budget: int = DEFAULT_PATH_BUDGET,
    exclude: Iterable[str] = (),
    **monitor_args: object,
) -> Middleware:
    """Make a middleware that records every request of an application.

    *request_monitor* is the class of the monitors, by default
    :class:`~hr_prometheus.monitors.RequestMonitor`; *monitor_args* are handed to it with each request.
    Among them ``fixed_routes_parameters`` (also spelled ``fixed_routes_parameter``) maps route names to the
    parameters that the path label shows as ``{name}``, and with the default monitor ``buckets`` (seconds),
    ``metric_prefix``, ``registry`` and ``detail`` (``basic`` or ``full``) choose the metrics.

    *allow_values* maps route names to parameters and these to the values that the path label keeps; any other value
    of such a parameter is ``other``. *path_budget* is how many distinct path labels a route may have before further ones are recorded under its
    template. Requests whose path label matches one of the shell patterns in *exclude* are not recorded.

    Put it first in ``middlewares``, so that it is the outermost. Raises
    :exc:`~hr_prometheus.errors.ConfigurationError`, a :exc:`ValueError`, for arguments that cannot work.
    """
    if isinstance(path_budget, bool) or not isinstance(path_budget, int) or path_budget < 0:
        raise ConfigurationError(f"path_budget is {path_budget!r}. Expected a whole number from 0 on.")
    patterns = [] if isinstance(exclude, str) or not isinstance(exclude, Iterable) else list(exclude)
    if (exclude and not patterns) or not all(isinstance(pattern, str) for pattern in patterns):
        raise ConfigurationError(f'exclude is {exclude!r}. Expected a list of patterns, for example ["/health*"].')
    monitor = request_monitor or RequestMonitor
    arguments = _published_spelling(monitor_args)
    _check_arguments(monitor, arguments)
    policies = Policies(arguments.get("fixed_routes_parameters"), allow_values)
    recorder = Recorder(monitor, arguments, policies=policies, path_budget=path_budget, exclude=patterns)

    function: Any = middleware(_recording(recorder) if recorder.is_plain else _monitoring(recorder))
    function.hr_prometheus_recorder = recorder
    return cast("Middleware", function)


def _recording(recorder: Recorder) -> Callable[[Request, Handler], Awaitable[StreamResponse]]:  # noqa: C901, PLR0915
    """Make the middleware for the default monitor.

    This is the path of every request, so it is written out. Most responses are plain: a ``Response`` of bytes. If nothing
    stands between this middleware and aiohttp, it sends such a response itself, with the two calls that aiohttp
    would make next and which then find nothing left to do. So the end is seen here, and costs neither a callback nor
    a wait. In all other cases, and until all series of a kind of response exist, a life waits for the task's end.
    """
    constant, varying = recorder.labels.constant, recorder.labels.varying
    nothing: tuple[Any, dict[object, RequestRecord]] = (id, {})
    life_class, is_full, wait = recorder.life_class, recorder.is_full, recorder.wait

    async def record_request(request: Request, handler: Handler) -> StreamResponse:  # noqa: C901, PLR0912, PLR0915
        route = request.match_info.route
        record: RequestRecord | None = constant.get(route)
        if record is None:
            key_of, known = varying.get(route, nothing)
            record = known.get(key_of(request)) or recorder.find(request)
            if record is None:
                return await handler(request)
        began = perf_counter()
        life = None
        if recorder.is_following:
            life = life_class()
            life.recorder = recorder
            life.request = request
            life.found = record
            life.began = began
            writer = request.writer
            if getattr(writer, "on_body_write", None) is None:
                writer.on_body_write = life
            elif recorder.life_of(request) is None:
                life.follow()
            else:  # the same middleware stands in several places
                return await handler(request)
        record.progress_page[record.progress] += 1.0
        try:
            response = await handler(request)
        except BaseException as error:
            wait(life, request, record, began, error)
            raise
        body = response.body if type(response) is Response and recorder.is_outermost else None
        cells = None
        if type(body) is bytes:
            status = response.status
            cells = record.cells if status == record.status else record.others.get(status)
        writer = request.writer
        # What was written already is the head of another response; what is compressed has another size.
        if cells is None or writer.output_size or (is_full and response.compression):
            wait(life, request, record, began, response)
            return response
        try:
            if life is not None:
                life.is_plain = True
            await response.prepare(request)
            if life is not None and writer.on_body_write is life:
                writer.on_body_write = None  # it could tell nothing new
            await response.write_eof()
        except BaseException as error:  # noqa: BLE001  # none is kept
            wait(life, request, record, began, error)
            return _unsent(response, error)
        if not writer.output_size:  # it had been sent before, as an answer to another request
            wait(life, request, record, began, response)
        elif is_full:
            has_body = request.content is not EMPTY_PAYLOAD
            record.end_fully(cells, perf_counter() - began, len(body), has_body=has_body)
            if has_body:
                life.receive()
        else:
            record.end_plainly(cells, perf_counter() - began)
        return response

    return record_request


def _unsent(response: StreamResponse, error: BaseException) -> StreamResponse:
    """Return what lets aiohttp meet the *error* where it would have met it: while it sends the response."""
    if not isinstance(error, Exception):
        raise error
    if isinstance(error, ConnectionError):
        return response  # which cannot be sent by aiohttp either

    async def prepare(_request: object) -> None:
        raise error

    stand_in: Any = SimpleNamespace(prepare=prepare, status=response.status)
    return cast("StreamResponse", stand_in)


def _monitoring(recorder: Recorder) -> Callable[[Request, Handler], Awaitable[StreamResponse]]:
    """Make the middleware for monitors of the user's, and for a default one of which a half is switched off.

    It goes the same way, with a life for each request.
    """

    async def monitor_request(request: Request, handler: Handler) -> StreamResponse:
        begun = recorder.begin(request)
        if begun is None:
            return await handler(request)
        life = begun
        try:
            response = await handler(request)
        except BaseException as error:
            life.handled(error)
            raise
        body = response.body if type(response) is Response and recorder.is_outermost else None
        writer = request.writer
        if type(body) is not bytes or writer.output_size or response.compression:
            life.handled(response)
            return response
        life.is_plain = True
        try:
            await response.prepare(request)
            if getattr(writer, "on_body_write", None) is life:
                writer.on_body_write = None  # it could tell nothing new
            await response.write_eof()
        except BaseException as error:  # noqa: BLE001  # none is kept
            life.handled(error)
            return _unsent(response, error)
        if writer.output_size:
            life.sent_plainly(response, len(body))
        else:
            life.handled(response)
        return response

    return monitor_request


def _published_spelling(monitor_args: Mapping[str, object]) -> dict[str, object]:
    """Return the arguments with ``fixed_routes_parameter`` as ``fixed_routes_parameters``."""
    arguments = dict(monitor_args)
    if "fixed_routes_parameter" in arguments:
        if "fixed_routes_parameters" in arguments:
            raise ConfigurationError(
                "fixed_routes_parameters and fixed_routes_parameter are two spellings of one argument. Give one."
            )
        arguments["fixed_routes_parameters"] = arguments.pop("fixed_routes_parameter")
    return arguments


def _check_arguments(monitor: Callable[..., object], monitor_args: Mapping[str, object]) -> None:
    """Check that a monitor can be made with *monitor_args*, now rather than at the first request."""
    if not callable(monitor):
        raise ConfigurationError(f"request_monitor is {monitor!r}. Expected a class that inherits BaseRequestMonitor.")
    try:
        signature = inspect.signature(monitor)
    except ValueError:  # a callable written in C
        return
    try:
        signature.bind(None, **monitor_args)
    except TypeError as error:
        raise ConfigurationError(
            f"the monitor {getattr(monitor, '__name__', monitor)} cannot be made with these arguments: {error}."
        ) from None
