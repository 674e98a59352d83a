"""The middleware, which gives each request a life."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Iterable
from typing import TYPE_CHECKING

from aiohttp.web import middleware

from hr_prometheus.errors import ConfigurationError
from hr_prometheus.labels import DEFAULT_PATH_BUDGET
from hr_prometheus.life import REQUEST_TASK
from hr_prometheus.monitors import BaseRequestMonitor, RequestMonitor
from hr_prometheus.policies import Policies
from hr_prometheus.recorder import Recorder

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Mapping

    from aiohttp.typedefs import Handler, Middleware
    from aiohttp.web import Request, StreamResponse


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

    constant, begin, current_task = recorder.labels.constant, recorder.begin, asyncio.current_task

    # The path of every request. It is no coroutine function, because there is nothing to wait for: the end comes by
    # itself, with the end of the task.
    @middleware
    def hr_prometheus(request: Request, handler: Handler) -> Awaitable[StreamResponse]:
        try:
            found = constant.get(request.match_info.route)
            life = begin(request) if found is None else recorder.make_life(recorder, request, found)
        except Exception as error:  # noqa: BLE001  # nothing of ours may reach the client
            recorder.failed("begin", error)
            life = None
        if life is None:
            return handler(request)
        task = current_task()
        if task is not None and getattr(task.get_coro(), "cr_code", None) is REQUEST_TASK:
            task.add_done_callback(life.task_done)
            return handler(request)
        return life.directly(handler)

    hr_prometheus.hr_prometheus_recorder = recorder  # type: ignore[attr-defined]
    return hr_prometheus


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
