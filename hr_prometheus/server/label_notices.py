"""The notices about labels when an application starts: values that are kept, and patterns that exclude nothing."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from aiohttp import hdrs
from aiohttp.web import UrlDispatcher
from prometheus_client import REGISTRY

from hr_prometheus.buckets import LatencyBuckets
from hr_prometheus.errors import ConfigurationError
from hr_prometheus.exposition.view import is_view
from hr_prometheus.instrumentation import IGNORED
from hr_prometheus.labels.exclusions import covers, idle_patterns
from hr_prometheus.labels.extra import ExtraLabels
from hr_prometheus.labels.policies import Policies
from hr_prometheus.labels.resources import all_resources, has_start_up
from hr_prometheus.labels.unrecorded import is_recorded
from hr_prometheus.origins import sentence_of
from hr_prometheus.request.recorder import recorder_of
from hr_prometheus.store.files import file_allocator

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aiohttp.web import Application

    from hr_prometheus.request.recorder import Recorder
    from hr_prometheus.settings import Settings

#: How many parameters are named.
_MOST_NAMED = 3
_OWN_CURE = 'fixed_routes_parameters={"*": ["*"]} in the application\'s own call'
#: The options that an application's own middleware leaves without an effect.
_MIDDLEWARE_OPTIONS = (
    "fixed_route", "allow_values", "keep_values", "monitor", "path_budget", "buckets", "metric_prefix", "detail", "exclude",
    "exclude_method", "label", "names", "latency_by_status", "native_histograms", "exemplars",
)  # fmt: skip


def label_notices(
    app: Application, settings: Settings, *, has_own_middleware: bool = False, shares_settings: bool = False
) -> list[str]:
    """Return the notices about an instrumented application's labels; none if all is well.

    An application that *has_own_middleware* goes on with its settings, so only its author can change them. What concerns
    all applications that share the settings is left to :func:`shared_notices`.
    """
    recorder = recorder_in(app)
    if recorder is None or not isinstance(app.router, UrlDispatcher):
        return []
    policies, kept, number, total = recorder.labels.policies, [], 0, 0
    for resource in all_resources(app):
        routes = [
            route
            for route in resource
            if route.method != hdrs.METH_HEAD and is_recorded(route.handler) and not is_view(route.handler)
        ]
        is_excluded = covers(recorder.exclude, resource, policies)
        names = [] if is_excluded else sorted(policies.kept(resource, recorder.labels.path_budget))
        total += len(routes)
        number += len(routes) if names else 0
        kept += [f"{resource.name}.{name}" for name in names] if resource.name else [resource.canonical] * bool(names)
    notices = []
    if kept:
        kept = list(dict.fromkeys(kept))
        cure = _OWN_CURE if has_own_middleware else "--fixed-route '*'"
        notices.append(
            f"{number} of {total} routes keep{'s' * (number == 1)} parameter values in labels "
            f"({', '.join(kept[:_MOST_NAMED] + ['…'] * (len(kept) > _MOST_NAMED))}); {cure} groups them; "
            f"see: {_see(settings)}"
        )
    if not has_own_middleware:
        recorder.has_checked_exclude = True  # so that the first request does not log the same
        if not shares_settings:
            notices += [f"{text} See: {_see(settings)}" for text in idle_exclusions([app], settings)]
    return notices


def shared_notices(apps: Sequence[Application], settings: Settings) -> list[str]:
    """Return the notices about policies and patterns that fit none of the applications which share them."""
    notices = []
    try:
        policies_of_command(settings).check_together(apps)
    except ConfigurationError as error:
        notices.append(sentence_of(error, settings.origins))
    return notices + [f"{text} See: {_see(settings)}" for text in idle_exclusions(apps, settings)]


def _see(settings: Settings) -> str:
    """Return the command that shows the labels, quoted for a shell."""
    return f"hr-prometheus routes {shlex.quote(settings.target)}"


def ignored_options(settings: Settings) -> list[str]:
    """Return a sentence that names the options which an application with its own middleware ignores, if any."""
    ignored = [settings.origins[name].name for name in _MIDDLEWARE_OPTIONS if name in settings.origins]
    return [IGNORED % ", ".join(ignored)] if ignored else []


def idle_exclusions(apps: Sequence[Application], settings: Settings) -> list[str]:
    """Return a sentence for each pattern of ``--exclude`` that excludes nothing of the applications."""
    if not settings.exclude:
        return []
    problems = idle_patterns(settings.exclude, apps, policies_of_command(settings), settings.metrics_path)
    may_start = any(has_start_up(app) and not app.frozen for app in apps)
    may_change = " The application's start-up may add a route for it." if may_start else ""
    origin = settings.origins["exclude"]
    return [
        (f'{origin.name}: "{pattern}"' if origin.variable else origin.quote(pattern)) + f" {problem}{may_change}"
        for pattern, problem in problems.items()
    ]


def hidden_registry(app: Application) -> str:
    """Return a sentence if the middleware that *app* carries records where a metrics port does not look; else nothing."""
    recorder = recorder_in(app)
    if recorder is None or recorder.registry is REGISTRY or file_allocator() is not None:
        return ""
    return (
        "The application's own middleware records in a registry of its own, which the metrics port does not show. Leave out its "
        "registry, or have the application's own route scraped."
    )


def recorder_in(app: Application) -> Recorder | None:
    """Return the recorder of the middleware that an application carries, or ``None``."""
    return next(filter(None, map(recorder_of, app.middlewares)), None)


def policies_of(app: Application, settings: Settings) -> Policies:
    """Return the policies that an application is measured by: its own, if it carries the middleware already."""
    recorder = recorder_in(app)
    if recorder is not None:
        return recorder.labels.policies
    return policies_of_command(settings)


def policies_of_command(settings: Settings) -> Policies:
    """Return the policies that the settings give an application without a middleware of its own."""
    return Policies(
        settings.fixed_routes,
        settings.allow_values,
        settings.keep_values,
        routes_with_buckets=LatencyBuckets(settings.buckets).by_route,
        label_parameters=ExtraLabels(settings.extra_labels, settings.names).parameters,
    )
