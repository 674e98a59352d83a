"""What is said of an application's labels when it starts: values that are kept, and patterns that leave nothing out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import hdrs
from aiohttp.web import UrlDispatcher

from hr_prometheus.exposition.view import is_view
from hr_prometheus.labels.exclusions import idle_patterns
from hr_prometheus.labels.policies import Policies
from hr_prometheus.labels.resources import all_resources, has_start_up, parameter_names
from hr_prometheus.request.recorder import recorder_of

if TYPE_CHECKING:
    from aiohttp.web import Application

    from hr_prometheus.request.recorder import Recorder
    from hr_prometheus.settings import Settings

_MOST_NAMED = 3  # parameters, at the start


def notices(app: Application, settings: Settings) -> list[str]:
    """Return what is to be said of an instrumented application's labels when it starts: nothing, if all is well."""
    recorder = recorder_in(app)
    if recorder is None or not isinstance(app.router, UrlDispatcher):
        return []
    policies, kept, number, total = recorder.labels.policies, [], 0, 0
    for resource in all_resources(app):
        routes = [route for route in resource if route.method != hdrs.METH_HEAD and not is_view(route.handler)]
        fixed, allowed = policies.of(resource)
        names = sorted(parameter_names(resource) - fixed - allowed.keys())
        total += len(routes)
        number += len(routes) if names else 0
        kept += [f"{resource.name}.{name}" for name in names] if resource.name else [resource.canonical] * bool(names)
    found = []
    if kept:
        some = list(dict.fromkeys(kept))
        found.append(
            f"{number} of {total} routes keep{'s' * (number == 1)} parameter values in labels "
            f"({', '.join(some[:_MOST_NAMED] + ['…'] * (len(some) > _MOST_NAMED))}); --fixed-route '*' groups them; "
            f"see: hr-prometheus routes {settings.target}"
        )
    if settings.exclude == recorder.exclude:
        recorder.has_checked_exclude = True  # it is said here, and need not be said again
        see = f" See: hr-prometheus routes {settings.target}"
        found += [text + see for text in idle_exclusions(app, settings)]
    return found


def idle_exclusions(app: Application, settings: Settings) -> list[str]:
    """Return a sentence for each pattern of ``--exclude`` that leaves nothing out."""
    if not settings.exclude:
        return []
    said = idle_patterns(settings.exclude, app, policies_of(app, settings), settings.metrics_path)
    may_change = " The application's start-up may add a route for it." if has_start_up(app) and not app.frozen else ""
    origin = settings.origins["exclude"]
    typed = f"{origin.name}:" if origin.variable else origin.option
    return [f'{typed} "{pattern}" {problem}{may_change}' for pattern, problem in said.items()]


def recorder_in(app: Application) -> Recorder | None:
    """Return the recorder of the middleware that an application carries."""
    return next(filter(None, map(recorder_of, app.middlewares)), None)


def policies_of(app: Application, settings: Settings) -> Policies:
    """Return the policies that an application is measured by: its own, if it carries the middleware already."""
    recorder = recorder_in(app)
    given = settings.fixed_routes, settings.allow_values, settings.keep_values
    return Policies(*given) if recorder is None else recorder.labels.policies
