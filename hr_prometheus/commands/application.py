"""The application that a command describes."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING

from hr_prometheus.commands.streams import print_warning
from hr_prometheus.metrics import FULL

if TYPE_CHECKING:
    from hr_prometheus.observability.promql import ApplicationMetrics
    from hr_prometheus.observability.route_table import Row
    from hr_prometheus.settings import Settings


def load_routes(settings: Settings, *, start: bool = False) -> tuple[list[Row], Settings]:
    """Return the routes of the target, and the settings: an application that instruments itself has its own.

    Warns of options that the application ignores, of patterns that exclude nothing, and of applications that are not shown.
    """
    from hr_prometheus.observability.dry_run import load_application
    from hr_prometheus.observability.route_table import OF_ANOTHER, rows_of, settings_of
    from hr_prometheus.server.label_notices import idle_exclusions, ignored_options, recorder_in

    with contextlib.redirect_stdout(sys.stderr):  # what the application prints is not the command's output
        app, shares_settings = load_application(settings, start=start)
    rows = rows_of(app, settings, shares_settings=shares_settings)
    if shares_settings:
        script = f'"{settings.target}" serves with an AppRunner of its own'
        print_warning(f"{script}: only the first application that it sets up is shown.")
    if recorder_in(app) is not None:
        notices = ignored_options(settings)
    else:
        notices = [text + OF_ANOTHER * shares_settings for text in idle_exclusions([app], settings)]
    for text in notices:
        print_warning(text)
    return rows, settings_of(app, settings)


def load_metrics(settings: Settings) -> tuple[ApplicationMetrics, list[Row], Settings]:
    """Return an application's metrics, its routes and its settings. Without a target it has no routes."""
    from hr_prometheus.buckets import LatencyBuckets
    from hr_prometheus.observability.promql import ApplicationMetrics

    rows, settings = load_routes(settings) if settings.target else ([], settings)
    application = ApplicationMetrics(
        settings.metric_prefix,
        detail=settings.detail or FULL,
        has_loop_metrics=settings.loop_metrics,
        has_client_metrics=settings.client_metrics is not None,
        has_calls_by_route=settings.client_by_route,
        names=settings.names,
        buckets=LatencyBuckets(settings.buckets),
        latency_by_status=settings.latency_by_status,
        native_histograms=bool(settings.native_histograms),
    )
    for name, bounds in application.buckets.by_route.items():
        if not application.native_histograms and not set(bounds).intersection(application.buckets.others):
            print_warning(
                f'The buckets of the route "{name}" have no bound in common with those of other routes, so there are '
                "no quantiles of several routes together. Keep some bounds in common."
            )
    return application, rows, settings
