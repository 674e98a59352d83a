"""The application that a command looks at."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Any

from hr_prometheus.commands.options import settings_of
from hr_prometheus.commands.streams import say

if TYPE_CHECKING:
    from hr_prometheus.observability.promql import Source
    from hr_prometheus.observability.route_table import Row
    from hr_prometheus.settings import Settings


def route_table(settings: Settings, *, start: bool = False) -> tuple[list[Row], Settings]:
    """Return the routes of the target, and its settings, which a target that instruments itself has changed.

    Patterns that exclude nothing are warned of.
    """
    from hr_prometheus.observability import route_table as module
    from hr_prometheus.server.notices import idle_exclusions

    with contextlib.redirect_stdout(sys.stderr):  # what the application prints is no part of the output
        app = module.load_application(settings, start=start)
    table = module.rows(app, settings)
    for text in idle_exclusions(app, settings):
        say("Warning", text)
    return table, module.settings_of(app, settings)


def application_of(values: dict[str, Any]) -> tuple[Source, list[Row], Settings]:
    """Return the metrics, the routes (none without a target) and the settings of an application, by its options."""
    from hr_prometheus.metrics import FULL
    from hr_prometheus.observability.promql import Source

    settings = settings_of(values)
    table, settings = route_table(settings) if settings.target else ([], settings)
    return Source(settings.metric_prefix, detail=settings.detail or FULL), table, settings
