"""The one function that puts hr-prometheus into an application."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from inspect import signature
from math import inf
from typing import TYPE_CHECKING, Any

from aiohttp import hdrs
from aiohttp.web import HTTPNotFound, Resource, UrlDispatcher
from aiohttp.web_urldispatcher import SystemRoute
from prometheus_client import REGISTRY

from hr_prometheus.errors import ConfigurationError, SettingError
from hr_prometheus.event_loop.measurement import measure_loop
from hr_prometheus.exposition.view import check_metrics_path, is_view, make_view
from hr_prometheus.labels.policies import DEFAULT_PATH_BUDGET, SAFE
from hr_prometheus.labels.resources import are_foreign
from hr_prometheus.labels.unrecorded import is_recorded
from hr_prometheus.metric import LATENCY_BUCKETS
from hr_prometheus.metrics import DEFAULT_SLOW, FULL, NO_EXEMPLARS
from hr_prometheus.names import DEFAULT_NAMES
from hr_prometheus.request.factory import hrprometheus_middleware
from hr_prometheus.request.recorder import recorder_of
from hr_prometheus.request.span import put_innermost
from hr_prometheus.settings import DEFAULT_BLOCKED_AFTER
from hr_prometheus.status.view import METRICS_PATH, add_status_routes, make_status_view

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from aiohttp.typedefs import Middleware
    from aiohttp.web import Application, Request
    from prometheus_client import CollectorRegistry

    from hr_prometheus.buckets import Buckets
    from hr_prometheus.labels.extra import Label
    from hr_prometheus.labels.policies import Policies
    from hr_prometheus.request.monitors import BaseRequestMonitor

logger = logging.getLogger("hr_prometheus")

IGNORED = "The application carries hrprometheus_middleware() already and keeps its options; ignored: %s."
_POLL_SECONDS = 0.1
#: The route of a match that has none: one without a resource.
_NO_ROUTE = SystemRoute(HTTPNotFound())


def instrument(
    app: Application,
    *,
    metrics_path: str | None = "/metrics",
    status_path: str | None = None,
    fixed_routes_parameters: Mapping[str, Collection[str]] | None = None,
    allow_values: Mapping[str, Mapping[str, Collection[str]]] | None = None,
    keep_values: str = SAFE,
    request_monitor: type[BaseRequestMonitor] | None = None,
    path_budget: int = DEFAULT_PATH_BUDGET,
    buckets: Buckets = LATENCY_BUCKETS,
    metric_prefix: str = "",
    names: Sequence[str] = DEFAULT_NAMES,
    detail: str = FULL,
    latency_by_status: bool = False,
    native_histograms: bool | str = False,
    exemplars: str = NO_EXEMPLARS,
    exclude: Iterable[str] = (),
    exclude_methods: Collection[str] = (),
    extra_labels: Mapping[str, str | Label] | None = None,
    registry: CollectorRegistry = REGISTRY,
    loop_metrics: bool | None = None,
    blocked_after: float = DEFAULT_BLOCKED_AFTER,
    slow: float = DEFAULT_SLOW,
) -> Application:
    """Put the middleware outermost and the metrics route into *app*, and return it.

    This is what ``hr-prometheus run`` does to an application. Call it before the application is started.

    Where the metrics are, and the status page:

    - *metrics_path*: the path of the metrics route, or ``None`` for no route.
    - *status_path*: the path of the status page, or ``None`` for no page.
    - *slow*: from how many seconds on the status page lists a request: 1 by default. 0 lists only those that failed.

    For the default monitor, and for one that inherits it:

    - *detail*: ``full``, the default, or ``basic``.
    - *buckets*: upper bounds of latencies in seconds. Or a mapping of route names to their bounds, in which ``*`` is every other route.
    - *latency_by_status*: gives latencies the label ``outcome``: ``error`` for a status from 500 on, else ``ok``.
    - *native_histograms*: keeps the histograms of requests as native ones as well, and with them all others of hr-prometheus in
      the registry. A scrape of protocol buffers has one series in place of each classic histogram, or both of them with ``both``.
    - *exemplars*: where the traces come from that buckets and errors lead to. ``traceparent`` is the header of sampled requests,
      ``otel`` the span of an OpenTelemetry middleware in *app*. With ``off``, the default, there are none.
    - *names*: the name sets of the request metrics: ``seed``, the default, ``http``, ``otel``.
    - *metric_prefix*: stands before their names.
    - *registry*: where the metrics are registered. With a *request_monitor* of your own, it is only what the metrics route shows.

    For the event loop:

    - *loop_metrics*: ``True`` measures the event loop while the application is up, in part by a thread. ``False`` also leaves
      out for how long requests hold it, which ``full`` counts.
    - *blocked_after*: for how many seconds one thing may hold the loop before that counts as a block of its route: a tenth
      by default. 0 counts nothing.

    :func:`~hr_prometheus.hrprometheus_middleware` describes the other options.

    An application that carries the middleware already keeps it, with its own options, and is not counted
    twice. A metrics route that it has, or a status page, is left as it is.

    Raises :exc:`~hr_prometheus.errors.ConfigurationError` if an option is wrong, if the application is frozen,
    or if the path or the name of a metric is taken. The names in *fixed_routes_parameters* and *allow_values* are
    checked at the end of the application's start-up. A wrong one is only a warning if the start-up can add routes.
    """
    if app.middlewares.frozen:
        raise ConfigurationError(
            "the application is frozen: it runs already, or is part of another application. "
            "Instrument it earlier, or instrument the outermost application."
        )
    _check_seconds(blocked_after=blocked_after, slow=slow)
    lacks_metrics = metrics_path is not None and not _has_route(app, metrics_path, _METRICS)
    lacks_page = status_path is not None and not _has_route(app, status_path, _STATUS)
    options: dict[str, Any] = {
        "fixed_routes_parameters": fixed_routes_parameters,
        "allow_values": allow_values,
        "keep_values": keep_values,
        "path_budget": path_budget,
        "exclude": exclude,
        "exclude_methods": exclude_methods,
        "extra_labels": extra_labels,
    }
    of_default_monitor: dict[str, Any] = {
        "buckets": buckets,
        "metric_prefix": metric_prefix,
        "names": names,
        "detail": detail,
        "latency_by_status": latency_by_status,
        "native_histograms": native_histograms,
        "exemplars": exemplars,
    }
    if any(recorder_of(candidate) is not None for candidate in app.middlewares):
        _warn_of_ignored(options | of_default_monitor | {"request_monitor": request_monitor})
    else:
        if not fixed_routes_parameters:  # which a monitor of the application's own may not take
            del options["fixed_routes_parameters"]
        if request_monitor is None:
            options |= of_default_monitor | {"registry": registry}
        else:
            options |= {name: of_default_monitor[name] for name in _not_default(of_default_monitor)}
        _put_outermost(app, hrprometheus_middleware(request_monitor, **options))
    for recorder in filter(None, map(recorder_of, app.middlewares)):
        recorder.recent.slow = slow or inf
        if loop_metrics is False and recorder.records is not None:
            recorder.records.has_loop_time = False
        if recorder.needs_context:
            put_innermost(app)
    if lacks_page:
        app[METRICS_PATH] = metrics_path or ""
    _add_routes(app, registry, metrics_path if lacks_metrics else None, status_path if lacks_page else None)
    if loop_metrics:
        measure_loop(app, registry, blocked_after=blocked_after)
    return app


def _check_seconds(**options: object) -> None:
    for name, value in options.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < inf:
            problem = " is not understood. Expected seconds from 0 on, for example 0.5."
            raise SettingError(name, f"{name}={value!r}", problem)


def _put_outermost(app: Application, middleware: Middleware) -> None:
    app.middlewares.insert(0, middleware)
    if not isinstance(app.router, UrlDispatcher):
        _complete_matches(app.router)
    recorder = recorder_of(middleware)
    assert recorder is not None  # noqa: S101  # it is ours
    recorder.is_instrumented = True
    _check_at_start_up(app, middleware, recorder.labels.policies)


def _add_routes(
    app: Application, registry: CollectorRegistry, metrics_path: str | None, status_path: str | None
) -> None:
    view = make_view(registry)
    if metrics_path is not None:
        app.router.add_get(metrics_path, view)
    if status_path is not None:
        add_status_routes(app, status_path, make_status_view(view, registry))


def _complete_matches(router: Any) -> None:
    """Give each match of a router of the application's own a route and a current application, if it has none.

    aiohttp asks for them only where there is a middleware: without them every request would fail.
    """
    resolve = router.resolve
    current_app = property(lambda match_info: match_info.apps[0])

    async def resolve_completely(request: Request) -> Any:
        match_info = await resolve(request)
        if getattr(match_info, "route", _NO_ROUTE) is _NO_ROUTE:
            kind: Any = type(match_info)  # the instance may have slots
            kind.route = _NO_ROUTE
            own = getattr(kind, "current_app", current_app)
            if isinstance(own, property) and (own is current_app or own.fset is None):
                kind.current_app = own.setter(lambda _match_info, _app: None)
        return match_info

    router.resolve = resolve_completely


def _check_at_start_up(app: Application, middleware: Middleware, policies: Policies) -> None:
    """At the end of the start-up, put the middleware back if it is gone, and check the names in the policies."""

    async def end_start_up(app: Application) -> None:
        if middleware not in app.middlewares:  # the application has replaced its middlewares
            app.middlewares.insert(0, middleware)
        handlers = list(app.on_startup)
        if are_foreign(handlers[handlers.index(end_start_up) :]):
            loop = asyncio.get_running_loop()
            loop.call_soon(check_when_frozen, loop)
        else:
            policies.check(app, leniently=True)

    def check_when_frozen(loop: asyncio.AbstractEventLoop) -> None:
        if not app.frozen:
            loop.call_later(_POLL_SECONDS, check_when_frozen, loop)
            return
        if middleware not in app.middlewares:
            logger.warning(
                "The application has replaced its middlewares after it was instrumented, so nothing is recorded. Add to "
                "app.middlewares instead, or call instrument() after the start-up handler that replaces them was added."
            )
        policies.check(app, leniently=True)

    app.on_startup.append(end_start_up)


def _warn_of_ignored(options: Mapping[str, Any]) -> None:
    if ignored := _not_default(options):
        logger.warning(IGNORED, ", ".join(ignored))


def _not_default(options: Mapping[str, Any]) -> list[str]:
    """Return the names of options of :func:`instrument` that have other values than by default."""
    defaults = signature(instrument).parameters
    return [
        name
        for name, value in options.items()
        if value and (tuple(value) if isinstance(value, list) else value) != defaults[name].default
    ]


@dataclass(frozen=True)
class _Route:
    """A route that is added to an application: its setting, what it serves, how it is known, and what to do if it cannot be."""

    setting: str
    what: str
    is_handled_by: Callable[[object], bool]
    elsewhere: str
    command_elsewhere: str


_METRICS = _Route(
    "metrics_path",
    "metrics",
    is_view,
    'metrics_path="/hr-metrics".',
    "--metrics-path /hr-metrics, or --metrics-port 9100 for a port of their own.",
)
_STATUS = _Route(
    "status_path",
    "status page",
    lambda handler: not is_recorded(handler),
    'status_path="/-/status".',
    "--status-path /-/status, or --metrics-port 9100, which has it at /.",
)


def _has_route(app: Application, path: str, wanted: _Route) -> bool:
    """Whether *path* is such a route already; raise if it cannot be one."""
    check_metrics_path(path, wanted.setting)
    if not isinstance(app.router, UrlDispatcher):
        raise SettingError(
            wanted.setting,
            "",
            f': the application has a router of its own, which cannot be given the route "{path}". Serve the '
            f"{wanted.what} on a port of their own: ",
            advice=f"{wanted.setting}=None, and a server for them.",
            command_advice="--metrics-port 9100.",
        )
    for resource in app.router.resources():
        taken_by = ""
        if isinstance(resource, Resource) and resource.canonical == path:
            for route in resource:
                if wanted.is_handled_by(route.handler):
                    return True
                if route.method in (hdrs.METH_GET, hdrs.METH_ANY):
                    taken_by = f"the handler {getattr(route.handler, '__qualname__', route.handler)}"
        elif not isinstance(resource, Resource) and resource.canonical == path:
            taken_by = "static files or a sub-application"
        if taken_by:
            raise SettingError(
                wanted.setting,
                "",
                f': the application serves "{path}" itself ({taken_by}). Serve the {wanted.what} elsewhere: ',
                advice=wanted.elsewhere,
                command_advice=wanted.command_elsewhere,
            )
    return False
