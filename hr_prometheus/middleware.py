"""The middleware, which gives each request a life."""

from __future__ import annotations

import inspect
from bisect import bisect_left
from collections.abc import Iterable
from time import perf_counter
from typing import TYPE_CHECKING, Any, cast

from aiohttp import EMPTY_PAYLOAD
from aiohttp.web import Response, middleware

from hr_prometheus.errors import ConfigurationError
from hr_prometheus.labels import DEFAULT_PATH_BUDGET, Varying
from hr_prometheus.life import WRITES_ARE_TOLD, received
from hr_prometheus.lives import receive
from hr_prometheus.monitors import BaseRequestMonitor, RequestMonitor
from hr_prometheus.policies import SAFE, Policies
from hr_prometheus.recorder import Recorder
from hr_prometheus.records import PLAIN_SIZE
from hr_prometheus.sending import BY_AIOHTTP, quietly

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Mapping

    from aiohttp.typedefs import Handler, Middleware
    from aiohttp.web import Request, StreamResponse


def hrprometheus_middleware(
    request_monitor: type[BaseRequestMonitor] | None = None,
    *,
    allow_values: Mapping[str, Mapping[str, Collection[str]]] | None = None,
    keep_values: str = SAFE,
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
    of such a parameter is ``other``. Of other parameters *keep_values* ``safe`` keeps what looks neither like a secret nor like
    a person and shows the rest as ``{name}``; ``all`` keeps everything. *path_budget* is how many distinct path labels a route may have before further ones are recorded under its
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
    policies = Policies(arguments.get("fixed_routes_parameters"), allow_values, keep_values)
    recorder = Recorder(monitor, arguments, policies=policies, path_budget=path_budget, exclude=patterns)

    function: Any = middleware(_recording(recorder) if recorder.is_plain else _monitoring(recorder))
    function.hr_prometheus_recorder = recorder
    return cast("Middleware", function)


def _recording(recorder: Recorder) -> Callable[[Request, Handler], Awaitable[StreamResponse]]:  # noqa: C901, PLR0915
    """Make the middleware for the default monitor.

    This is the path of every request, so it is written out. Most responses are plain: a ``Response`` of not too many
    bytes. If nothing stands between this middleware and aiohttp, it sends such a response itself, with the two calls that
    aiohttp would make next and which then find nothing left to do. So the end is seen here, and costs neither a callback
    nor a wait. In all other cases, and until all series of a kind of response exist, a life waits for the task's end. It is
    made when the handler prepares a response itself, or else when it ends.

    Some private names of aiohttp are read, since each public one is a call. Where they are missing, the other ways are
    taken. One is set, and only on the request that is being answered: its hook (see :mod:`hr_prometheus.sending`).
    """
    known: Any = recorder.labels.known
    find, wait, entered, is_full = recorder.find, recorder.wait, recorder.entered, recorder.is_full
    hook = recorder.hook
    bounds, lowest = recorder.bounds, recorder.bounds[0]

    async def record_request(request: Any, handler: Handler) -> Any:  # noqa: C901, PLR0911, PLR0912, PLR0915
        try:
            match_info = request._match_info  # noqa: SLF001
            writer = request._payload_writer  # noqa: SLF001
            record = known[match_info._route]  # noqa: SLF001
            if type(record) is Varying:
                values_of = record.values_of
                record = record.made.get(values_of(match_info) if values_of else request._rel_url.path_safe)  # noqa: SLF001
        except KeyError:
            record = None
        except (AttributeError, TypeError):  # somebody has changed what was matched
            match_info, record, writer = None, None, request.writer
            recorder.send(BY_AIOHTTP)
        if record is None:
            record = find(request)
            if record is None:
                return await recorder.leave_out(request, handler)
            if not recorder.labels.is_quick:
                return await recorder.accompany(request, handler, record)
        if (writer.on_body_write if WRITES_ARE_TOLD else getattr(writer, "on_body_write", None)) is not None:
            return await recorder.accompany(request, handler, record)
        began = perf_counter()
        writer.on_body_write = entered
        request._prepare_hook = hook  # noqa: SLF001
        page = record.page
        first = record.latency
        page[first - 1] += 1.0
        try:
            response = await handler(request)
        except BaseException as error:
            wait(request, record, began, error)
            raise
        try:
            if (
                type(response) is Response
                and type(response._body) is bytes  # noqa: SLF001
                and ((status := response._status) == record.status or status in record.others)  # noqa: SLF001
                and (request._payload is EMPTY_PAYLOAD or request._post is None)  # noqa: SLF001  # or there may be files to close
                and request._match_info is match_info  # noqa: SLF001  # else other applications may have receivers
                and writer.on_body_write is entered
                # Only if all of it leaves at once, and as it is, is it known what was sent.
                and (not is_full or ((size := len(body := response._body)) <= PLAIN_SIZE and not response._compression))  # noqa: SLF001
            ):
                way = recorder.sending
            else:
                way = BY_AIOHTTP
        except AttributeError:
            way = BY_AIOHTTP
        if way is None:
            wait(request, record, began, response)
            return response
        writer.on_body_write = None
        request._prepare_hook = way  # noqa: SLF001
        try:
            if await response.prepare(request) is not writer:
                wait(request, record, began, response)  # it has been sent before, as an answer to another request
                return response
            if is_full:
                head_at = perf_counter()
                if response._body is not body:  # noqa: SLF001  # who was told of the preparation has replaced it
                    recorder.follow(request, record, began)  # now: older aiohttp has written its head
                    wait(request, record, began, response)
                    return response
            await response.write_eof()
        except BaseException as error:  # noqa: BLE001  # none is kept
            wait(request, record, began, error, response)
            return _unsent(response, error)
        seconds = perf_counter() - began
        if status == record.status:
            record.ended_page[record.ended] += 1.0
        else:
            ended_page, ended = record.others[status]
            ended_page[ended] += 1.0
        bucket = 1 if seconds <= lowest else bisect_left(bounds, seconds) + 1
        page[first] += seconds
        page[first + bucket] += 1.0  # with which it is no longer in progress
        if is_full:
            has_none = request._payload is EMPTY_PAYLOAD  # noqa: SLF001
            record.details.measure_plainly(head_at - began, bucket, size, has_none)
            if not has_none:
                receive(record.details, request.content)
        return response

    return record_request


class _Unsent:
    """Stands for a *response* that could not be sent, so that aiohttp meets the *error* where it would have: sending it."""

    def __init__(self, response: StreamResponse, error: Exception) -> None:
        self._response = response
        self._error = error

    async def prepare(self, _request: object) -> None:
        """Fail."""
        raise self._error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._response, name)


def _unsent(response: StreamResponse, error: BaseException) -> StreamResponse:
    if isinstance(error, Exception):
        return cast("StreamResponse", _Unsent(response, error))
    raise error


def _monitoring(recorder: Recorder) -> Callable[[Request, Handler], Awaitable[StreamResponse]]:  # noqa: C901, PLR0915
    """Make the middleware for monitors of the user's, and for a default one of which a half is switched off.

    It goes the same way, with a monitor for each request.
    """
    known: Any = recorder.labels.known
    find, wait, entered, hook = recorder.find, recorder.wait, recorder.entered, recorder.hook
    enter, leave = recorder.enter, recorder.leave

    async def monitor_request(request: Any, handler: Handler) -> Any:  # noqa: C901, PLR0911, PLR0912, PLR0915
        try:
            match_info = request._match_info  # noqa: SLF001
            writer = request._payload_writer  # noqa: SLF001
            labels = known[match_info._route]  # noqa: SLF001
            if type(labels) is Varying:
                values_of = labels.values_of
                labels = labels.made.get(values_of(match_info) if values_of else request._rel_url.path_safe)  # noqa: SLF001
        except KeyError:
            labels = None
        except (AttributeError, TypeError):
            match_info, labels, writer = None, None, request.writer
            recorder.send(BY_AIOHTTP)
        if labels is None:
            labels = find(request)
            if labels is None:
                return await recorder.leave_out(request, handler)
            if not recorder.labels.is_quick:
                return await recorder.accompany(request, handler, labels)
        if (writer.on_body_write if WRITES_ARE_TOLD else getattr(writer, "on_body_write", None)) is not None:
            return await recorder.accompany(request, handler, labels)
        writer.on_body_write = entered
        request._prepare_hook = hook  # noqa: SLF001
        began = perf_counter()
        try:
            monitor = enter(request, labels)
        except Exception as error:  # noqa: BLE001  # nothing of a monitor's may reach the client
            writer.on_body_write = recorder.left_out
            recorder.failed("begin", error)
            return await handler(request)
        try:
            response = await handler(request)
        except BaseException as error:
            wait(request, monitor, began, error)
            raise
        try:
            if (
                type(response) is Response
                and type(body := response._body) is bytes  # noqa: SLF001
                and len(body) <= PLAIN_SIZE
                and recorder.sending is quietly
                and (request._payload is EMPTY_PAYLOAD or request._post is None)  # noqa: SLF001
                and not response._compression  # noqa: SLF001
                and response._must_be_empty_body is None  # noqa: SLF001  # not yet known
                and writer.on_body_write is entered
                and request._match_info is match_info  # noqa: SLF001
            ):
                is_plain = True
            else:
                is_plain = False
        except AttributeError:
            is_plain = False
        if not is_plain:
            wait(request, monitor, began, response)
            return response
        writer.on_body_write = None
        request._prepare_hook = quietly  # noqa: SLF001
        try:
            if await response.prepare(request) is not writer:
                wait(request, monitor, began, response)
                return response
            head_at = perf_counter()
            await response.write_eof()
        except BaseException as error:  # noqa: BLE001  # none is kept
            wait(request, monitor, began, error, response)
            return _unsent(response, error)
        try:
            monitor.elapsed = perf_counter() - began
            monitor.first_byte_elapsed = head_at - began
            monitor.response = response
            monitor.response_size = 0 if response._must_be_empty_body else len(body)  # type: ignore[arg-type]  # noqa: SLF001  # it is bytes
            has_none = request._payload is EMPTY_PAYLOAD  # noqa: SLF001
            monitor.request_size = 0 if has_none else received(request.content)
            leave(monitor, response)
        except Exception as error:  # noqa: BLE001  # as above
            recorder.failed("end", error)
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
