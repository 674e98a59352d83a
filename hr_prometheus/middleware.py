"""The life of a request: it begins when the middleware is entered and ends exactly once.

A middleware sees the handler return, not the response leave: after it come the preparation of a file response
(which decides between 200, 206, 304, 404 and 416), the writing of the body, and the client that goes away.
aiohttp runs each request in a task of its own, which ends after all that. So the end of a request is the end
of that task, seen by a done callback, and the final response is the task's result.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from contextlib import suppress
from time import perf_counter
from typing import TYPE_CHECKING, Any

from aiohttp.web import HTTPException, RequestHandler, StreamResponse, middleware
from prometheus_client import REGISTRY

from hr_prometheus.catalog import ERRORS, FOLDED_REQUESTS, LATENCY_BUCKETS
from hr_prometheus.errors import ConfigurationError
from hr_prometheus.labels import DEFAULT_PATH_BUDGET, Labels, check_fixed_parameters, fixed_parameters
from hr_prometheus.monitors import BaseRequestMonitor, RequestMonitor
from hr_prometheus.series import request_store, self_store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from aiohttp.abc import AbstractMatchInfo
    from aiohttp.typedefs import Handler, Middleware
    from aiohttp.web import Application, Request
    from prometheus_client import CollectorRegistry

    from hr_prometheus.catalog import Metric
    from hr_prometheus.monitors import HasStatus
    from hr_prometheus.series import RequestSeries, Store

logger = logging.getLogger("hr_prometheus")

#: The status of a request whose client left before its response was complete, as nginx has it.
CLIENT_CLOSED_REQUEST = 499

# The body of the task that aiohttp makes for each request; its result is (response, has the client gone).
_REQUEST_TASK = RequestHandler._handle_request.__code__  # noqa: SLF001  # no public name tells these tasks apart


class _Outcome:
    """Stands for the response of a request that has none."""

    __slots__ = ("status",)

    def __init__(self, status: int) -> None:
        self.status = status


_CLIENT_LEFT = _Outcome(CLIENT_CLOSED_REQUEST)
_FAILED = _Outcome(500)


def hrprometheus_middleware(
    request_monitor: type[BaseRequestMonitor] | None = None,
    *,
    path_budget: int = DEFAULT_PATH_BUDGET,
    exclude: Iterable[str] = (),
    **monitor_args: object,
) -> Middleware:
    """Make a middleware that records every request of an application.

    *request_monitor* is the class of the monitors, by default
    :class:`~hr_prometheus.monitors.RequestMonitor`; *monitor_args* are handed to it with each request.
    Among them ``fixed_routes_parameters`` (also spelled ``fixed_routes_parameter``) maps route names to the
    parameters that the path label shows as ``{name}``, and with the default monitor ``buckets`` (seconds),
    ``metric_prefix`` and ``registry`` choose the metrics.

    *path_budget* is how many distinct path labels a route may have before further ones are recorded under its
    template. Requests whose path label matches one of the shell patterns in *exclude* are not recorded.

    Put it first in ``middlewares``, so that it is the outermost. Raises
    :exc:`~hr_prometheus.errors.ConfigurationError`, a :exc:`ValueError`, for arguments that cannot work.
    """
    recorder = _Recorder(request_monitor or RequestMonitor, monitor_args, path_budget=path_budget, exclude=exclude)

    @middleware
    async def hr_prometheus(request: Request, handler: Handler) -> StreamResponse:
        life = recorder.begin(request)
        if life is None:
            return await handler(request)
        task = asyncio.current_task()
        if task is not None and getattr(task.get_coro(), "cr_code", None) is _REQUEST_TASK:
            task.add_done_callback(life.task_done)
            return await handler(request)
        # A unit test awaits us directly, or another middleware gave its handler a task of its own: what
        # the handler returns is then the last that can be seen.
        try:
            response = await handler(request)
        except BaseException as error:
            life.end(_outcome(error))
            raise
        life.end(response if isinstance(getattr(response, "status", None), int) else _FAILED)
        return response

    recorder.middleware = hr_prometheus
    hr_prometheus.hr_prometheus_recorder = recorder  # type: ignore[attr-defined]
    return hr_prometheus


def recorder_of(candidate: object) -> _Recorder | None:
    """Return what a middleware made by :func:`hrprometheus_middleware` records with; ``None`` for any other."""
    return getattr(candidate, "hr_prometheus_recorder", None)


class _Recorder:
    """What one middleware knows: its monitor, its labels and where it counts its own failures."""

    def __init__(
        self,
        monitor: type[BaseRequestMonitor],
        monitor_args: Mapping[str, object],
        *,
        path_budget: int,
        exclude: Iterable[str],
    ) -> None:
        self.monitor = monitor
        self.monitor_args = _published_spelling(monitor_args)
        self.middleware: Middleware | None = None
        self.labels = Labels(
            fixed=self.monitor_args.get("fixed_routes_parameters") or {},  # type: ignore[arg-type]  # checked there
            path_budget=path_budget,
            exclude=exclude,
            folded=self._folded,
            applies=self._applies,
        )
        self.registry: CollectorRegistry = REGISTRY
        self.store: Store | None = None
        self._is_checked = False
        self._logged: set[tuple[str, type[Exception]]] = set()
        _check_arguments(monitor, self.monitor_args)
        if isinstance(monitor, type) and issubclass(monitor, RequestMonitor):
            self.registry = self.monitor_args.get("registry", REGISTRY)  # type: ignore[assignment]
            self.store = request_store(
                self.registry,
                prefix=self.monitor_args.get("metric_prefix", ""),  # type: ignore[arg-type]
                buckets=self.monitor_args.get("buckets", LATENCY_BUCKETS),  # type: ignore[arg-type]
            )
        self._is_class = isinstance(monitor, type)
        # The default monitor as it is needs no object of its own for each request.
        self._is_plain = monitor is RequestMonitor and not self.monitor_args.keys() & {"init_metrics", "end_metrics"}

    def begin(self, request: Request) -> _Life | None:
        """Begin the life of *request*; ``None`` if it is not to be recorded. Raises nothing."""
        try:
            described = self.labels.describe(request)
        except Exception as error:  # noqa: BLE001  # nothing of ours may reach the client
            self.failed("labels", error)
            return None
        if described is None:
            return None
        try:
            if self._is_plain and self.store is not None:
                return _SeriesLife(self, self.store.request(described))
            return _MonitorLife(self, self._entered_monitor(request, described))
        except Exception as error:  # noqa: BLE001  # as above
            self.failed("begin", error)
            return None

    def failed(self, where: str, error: Exception) -> None:
        """Count an exception that no client may see, and log it if it is the first of its kind."""
        kind = (where, type(error))
        if kind not in self._logged:
            self._logged.add(kind)
            logger.error(
                "Recording a request failed (%s); the request itself goes on. Further errors of this kind "
                "are only counted.",
                where,
                exc_info=error,
            )
        self._count(ERRORS, where)

    def _count(self, metric: Metric, label: str) -> None:
        # The application may have taken the name. Then there is no number, but neither is there an error.
        with suppress(ConfigurationError):
            page, index = self_store(self.registry).cells(metric, (label,))
            page[index] += 1.0

    def _entered_monitor(self, request: Request, described: tuple[str, str]) -> BaseRequestMonitor:
        make: Any = self.monitor
        if self._is_class:
            # The labels are there before __init__ runs, so that a custom one finds them as soon as it has
            # called the base class, whatever arguments it hands up.
            monitor = make.__new__(make, request, **self.monitor_args)
            monitor._described = described  # noqa: SLF001  # a monitor is ours to prepare
            monitor.__init__(request, **self.monitor_args)
        else:
            monitor = make(request, **self.monitor_args)
            monitor.request_description = described
        entered: BaseRequestMonitor = monitor.__enter__()
        return entered

    def _folded(self, template: str) -> None:
        self._count(FOLDED_REQUESTS, template)

    def _applies(self, match_info: AbstractMatchInfo) -> bool:
        """Whether this is the first middleware in a request's way that records the same numbers.

        An application can carry one of ours, and so can the application it is part of: the outermost records.
        """
        apps = match_info.apps
        for app in apps if isinstance(apps, tuple) else ():
            for candidate in app.middlewares:
                recorder = recorder_of(candidate)
                if recorder is not None and recorder.records_like(self):
                    if recorder is self:
                        self._check_once(app)
                    return recorder is self
        return True

    def records_like(self, other: _Recorder) -> bool:
        """Whether *other* writes to the same numbers."""
        return self.monitor is other.monitor and self.store is other.store

    def _check_once(self, app: Application) -> None:
        if not self._is_checked:
            self._is_checked = True
            try:
                check_fixed_parameters(app, self.labels.fixed)
            except ConfigurationError as error:
                logger.error("%s", error)  # noqa: TRY400  # the sentence says it all


class _Life:
    """One request, from :meth:`_Recorder.begin` to its only end."""

    __slots__ = ("recorder",)

    def __init__(self, recorder: _Recorder) -> None:
        self.recorder = recorder

    def task_done(self, task: asyncio.Task[Any]) -> None:
        """End with the result of aiohttp's task for the request."""
        if task.cancelled():
            self.end(_CLIENT_LEFT)
        elif (error := task.exception()) is not None:
            self.end(_outcome(error))
        else:
            response, has_client_left = task.result()
            self.end(_CLIENT_LEFT if has_client_left else response)

    def end(self, response: HasStatus) -> None:
        """End with the response that the client got. Raises nothing."""
        raise NotImplementedError


class _SeriesLife(_Life):
    """A request recorded by the default monitor, straight into its series."""

    __slots__ = ("began", "series")

    def __init__(self, recorder: _Recorder, series: RequestSeries) -> None:
        self.recorder = recorder
        self.series = series
        series.begin()
        self.began = perf_counter()

    def end(self, response: HasStatus) -> None:
        try:
            self.series.leave()
            self.series.count(response.status, perf_counter() - self.began)
        except Exception as error:  # noqa: BLE001  # as in _Recorder.begin
            self.recorder.failed("end", error)


class _MonitorLife(_Life):
    """A request recorded by a monitor object."""

    __slots__ = ("monitor",)

    def __init__(self, recorder: _Recorder, monitor: BaseRequestMonitor) -> None:
        self.recorder = recorder
        self.monitor = monitor

    def end(self, response: HasStatus) -> None:
        try:
            self.monitor.observe(response)
            self.monitor.__exit__(None, None, None)
        except Exception as error:  # noqa: BLE001  # as in _Recorder.begin
            self.recorder.failed("end", error)


def _outcome(error: BaseException) -> HasStatus:
    """Return what the client gets, as far as it is known, when a handler ends with *error*."""
    if isinstance(error, HTTPException):
        return error
    if isinstance(error, asyncio.CancelledError | ConnectionError):
        return _CLIENT_LEFT
    return _FAILED


def _published_spelling(monitor_args: Mapping[str, object]) -> dict[str, object]:
    """Return the arguments with ``fixed_routes_parameter`` as ``fixed_routes_parameters``."""
    arguments = dict(monitor_args)
    if "fixed_routes_parameter" in arguments:
        if "fixed_routes_parameters" in arguments:
            raise ConfigurationError(
                "fixed_routes_parameters and fixed_routes_parameter are two spellings of one argument. Give one."
            )
        arguments["fixed_routes_parameters"] = arguments.pop("fixed_routes_parameter")
    fixed_parameters(arguments.get("fixed_routes_parameters") or {})
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
