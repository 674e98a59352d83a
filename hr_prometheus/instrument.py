"""The one function that puts hr-prometheus into an application."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from aiohttp import hdrs
from aiohttp.web import Resource, UrlDispatcher
from prometheus_client import REGISTRY

from hr_prometheus.catalog import FULL, LATENCY_BUCKETS
from hr_prometheus.errors import ConfigurationError
from hr_prometheus.labels import DEFAULT_PATH_BUDGET
from hr_prometheus.middleware import hrprometheus_middleware
from hr_prometheus.policies import SAFE
from hr_prometheus.recorder import recorder_of
from hr_prometheus.view import check_metrics_path, is_view, make_view

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from aiohttp.web import Application
    from prometheus_client import CollectorRegistry

    from hr_prometheus.monitors import BaseRequestMonitor

logger = logging.getLogger("hr_prometheus")


def instrument(
    app: Application,
    *,
    metrics_path: str | None = "/metrics",
    fixed_routes_parameters: Mapping[str, Collection[str]] | None = None,
    allow_values: Mapping[str, Mapping[str, Collection[str]]] | None = None,
    keep_values: str = SAFE,
    request_monitor: type[BaseRequestMonitor] | None = None,
    path_budget: int = DEFAULT_PATH_BUDGET,
    buckets: Sequence[float] = LATENCY_BUCKETS,
    metric_prefix: str = "",
    detail: str = FULL,
    exclude: Iterable[str] = (),
    registry: CollectorRegistry = REGISTRY,
) -> Application:
    """Put the middleware outermost and the metrics route into *app*, and return it.

    This is what ``hr-prometheus run`` does to an application. Call it before the application is started.

    *metrics_path* is the path of the metrics route, or ``None`` for no route. *buckets* are upper bounds in
    seconds; *detail* is ``full`` or ``basic``. These, *metric_prefix* and *registry* belong to the default monitor; a *request_monitor* of
    your own has its own metrics, and *registry* is then only what the metrics route shows. The other options
    are those of :func:`~hr_prometheus.hrprometheus_middleware`.

    An application which carries the middleware already keeps it, with its own options, and is not counted
    twice; a metrics route it has already is left as it is.

    Raises :exc:`~hr_prometheus.errors.ConfigurationError` if an option is wrong, if the application is frozen,
    or if the path or the name of a metric is taken. The names in *fixed_routes_parameters* and *allow_values* are
    checked when the application begins to start up.
    """
    if app.middlewares.frozen:
        raise ConfigurationError(
            "the application is frozen: it runs already, or is part of another application. "
            "Instrument it earlier, or instrument the outermost application."
        )
    has_route = metrics_path is None or _has_metrics_route(app, metrics_path)
    if any(recorder_of(candidate) is not None for candidate in app.middlewares):
        _warn_of_ignored(
            fixed_routes_parameters=bool(fixed_routes_parameters),
            allow_values=bool(allow_values),
            keep_values=keep_values != SAFE,
            request_monitor=request_monitor is not None,
            path_budget=path_budget != DEFAULT_PATH_BUDGET,
            buckets=tuple(buckets) != LATENCY_BUCKETS,
            metric_prefix=bool(metric_prefix),
            detail=detail != FULL,
            exclude=bool(tuple(exclude)),
        )
    else:
        monitor_args: dict[str, object] = {}
        if fixed_routes_parameters:
            monitor_args["fixed_routes_parameters"] = fixed_routes_parameters
        if request_monitor is None:
            monitor_args |= {
                "buckets": buckets,
                "metric_prefix": metric_prefix,
                "registry": registry,
                "detail": detail,
            }
        middleware = hrprometheus_middleware(
            request_monitor,
            allow_values=allow_values,
            keep_values=keep_values,
            path_budget=path_budget,
            exclude=exclude,
            **monitor_args,
        )
        app.middlewares.insert(0, middleware)
        recorder = recorder_of(middleware)
        assert recorder is not None  # noqa: S101  # it is ours
        recorder.watch(app)
        policies = recorder.labels.policies

        async def check_routes(app: Application) -> None:
            policies.check(app)

        app.on_startup.insert(0, check_routes)
    if metrics_path is not None and not has_route:
        app.router.add_get(metrics_path, make_view(registry))
    return app


def _warn_of_ignored(**options: bool) -> None:
    ignored = [name for name, is_given in options.items() if is_given]
    if ignored:
        logger.warning(
            "The application carries hrprometheus_middleware() already and goes on with its options; ignored: %s.",
            ", ".join(ignored),
        )


def _has_metrics_route(app: Application, path: str) -> bool:
    """Whether *path* is a metrics route of ours already; raises if it can be none."""
    check_metrics_path(path)
    if not isinstance(app.router, UrlDispatcher):
        raise ConfigurationError(
            f'the application has a router of its own, which cannot be given the route "{path}". Serve the metrics on '
            "a port of their own: --metrics-port 9100 (as a library: metrics_path=None, and a server for them)."
        )
    for resource in app.router.resources():
        taken_by = ""
        if isinstance(resource, Resource) and resource.canonical == path:
            for route in resource:
                if is_view(route.handler):
                    return True
                if route.method in (hdrs.METH_GET, hdrs.METH_ANY):
                    taken_by = f"the handler {getattr(route.handler, '__qualname__', route.handler)}"
        elif not isinstance(resource, Resource) and resource.canonical == path:
            taken_by = "static files or a sub-application"
        if taken_by:
            raise ConfigurationError(
                f'the application serves "{path}" itself ({taken_by}). Serve the metrics elsewhere: '
                "--metrics-path /hr-metrics, or --metrics-port 9100 for a port of their own "
                '(as a library: metrics_path="/hr-metrics").'
            )
    return False
