"""Makes the middleware, of arguments that it checks."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, cast

from aiohttp import __version__ as aiohttp_version
from aiohttp.web import middleware

from hr_prometheus.errors import ConfigurationError
from hr_prometheus.labels.extra import ExtraLabels
from hr_prometheus.labels.methods import check_methods
from hr_prometheus.labels.policies import ALL, DEFAULT_PATH_BUDGET, SAFE, Policies
from hr_prometheus.names import DEFAULT_NAMES
from hr_prometheus.request.aiohttp_features import MISSING_NAMES
from hr_prometheus.request.middleware import make_middleware
from hr_prometheus.request.monitors import BaseRequestMonitor, RequestMonitor
from hr_prometheus.request.recorder import Recorder

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from aiohttp.typedefs import Middleware

    from hr_prometheus.labels.extra import Label

logger = logging.getLogger("hr_prometheus")


def hrprometheus_middleware(
    request_monitor: type[BaseRequestMonitor] | None = None,
    *,
    allow_values: Mapping[str, Mapping[str, Collection[str]]] | None = None,
    keep_values: str = SAFE,
    path_budget: int = DEFAULT_PATH_BUDGET,
    exclude: Iterable[str] = (),
    exclude_methods: Collection[str] = (),
    extra_labels: Mapping[str, str | Label] | None = None,
    **monitor_args: object,
) -> Middleware:
    """Make a middleware that records every request of an application.

    What the label ``path`` shows:

    - *fixed_routes_parameters* (also spelled *fixed_routes_parameter*): maps route names to the parameters that are shown as
      ``{name}``.
    - *allow_values*: maps route names to parameters, and these to the values that are kept. Any other value is ``other``.
    - *keep_values*: ``safe``, the default, keeps other values that look neither like a secret nor like a person. ``all`` keeps everything.
    - *path_budget*: how many distinct path labels a route may have, 100 by default. Further paths are recorded under its template.

    What is recorded:

    - *exclude*: shell patterns. Requests whose path label matches one are not recorded.
    - *exclude_methods*: methods that are not recorded, such as ``OPTIONS``.
    - *extra_labels*: maps names of labels to sources, such as ``handler``, ``const:shop`` or ``header:X-Client=web,ios``, or to a
      :class:`~hr_prometheus.Label` with a function of your own. They belong to the default monitor.

    Who records:

    - *request_monitor*: the class of the monitors, by default :class:`~hr_prometheus.monitors.RequestMonitor`.
    - *monitor_args*: arguments for that class. The default one takes *detail* (here ``basic`` by default), *buckets*,
      *latency_by_status*, *native_histograms*, *exemplars*, *names*, *metric_prefix* and *registry*, as
      :func:`~hr_prometheus.instrument` does.

    Put it first in ``middlewares``, so that it is the outermost. Raises
    :exc:`~hr_prometheus.errors.ConfigurationError`, a :exc:`ValueError`, for arguments that cannot work.
    """
    if isinstance(path_budget, bool) or not isinstance(path_budget, int) or path_budget < 0:
        raise ConfigurationError(f"path_budget is {path_budget!r}. Expected a whole number from 0 on.")
    patterns = [] if isinstance(exclude, str) or not isinstance(exclude, Iterable) else list(exclude)
    if (exclude and not patterns) or not all(isinstance(pattern, str) for pattern in patterns):
        raise ConfigurationError(f'exclude is {exclude!r}. Expected a list of patterns, for example ["/health*"].')
    check_methods(exclude_methods)
    monitor = request_monitor or RequestMonitor
    arguments = _published_spelling(monitor_args)
    _check_arguments(monitor, arguments)
    is_default = isinstance(monitor, type) and issubclass(monitor, RequestMonitor)
    names = arguments.get("names", DEFAULT_NAMES) if is_default else DEFAULT_NAMES
    extra = ExtraLabels(extra_labels or {}, cast("Sequence[str]", names))
    buckets = arguments.get("buckets") if is_default else None
    policies = Policies(
        arguments.get("fixed_routes_parameters"),
        allow_values,
        keep_values,
        routes_with_buckets=buckets.keys() - {ALL} if isinstance(buckets, Mapping) else (),
        label_parameters=extra.parameters,
    )
    _warn_of_missing_names()
    if extra and not is_default:
        raise ConfigurationError(
            "extra_labels belong to the default monitor. A monitor of your own has its own labels."
        )
    recorder = Recorder(
        monitor,
        arguments,
        policies=policies,
        path_budget=path_budget,
        exclude=patterns,
        exclude_methods=exclude_methods,
        extra_labels=extra,
    )

    function: Any = middleware(make_middleware(recorder))
    function.hr_prometheus_recorder = recorder
    return cast("Middleware", function)


@cache
def _warn_of_missing_names() -> None:
    """Say once if this aiohttp is so different that less can be recorded."""
    if MISSING_NAMES:
        logger.warning(
            "This aiohttp (%s) has no %s, so not all of a request can be recorded. Use another version of aiohttp, or a "
            "newer one of hr-prometheus.",
            aiohttp_version,
            ", ".join(MISSING_NAMES),
        )


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
