"""The settings of a middleware against the routes of its application, which are known by the first request."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from hr_prometheus.errors import ConfigurationError
from hr_prometheus.labels.exclusions import idle_patterns
from hr_prometheus.request.span import keep_context

if TYPE_CHECKING:
    from aiohttp.web import Application, Request

    from hr_prometheus.request.recorder import Recorder

logger = logging.getLogger("hr_prometheus")


def check_settings(recorder: Recorder, request: Request) -> None:
    """Log the names and patterns in the settings of *recorder* that fit no route."""
    apps = request.match_info.apps
    for app in apps if isinstance(apps, tuple) else ():  # a unit test's stand-in has none
        if any(getattr(middleware, "hr_prometheus_recorder", None) is recorder for middleware in app.middlewares):
            if not recorder.is_instrumented:  # else they were compared at the end of the start-up
                try:
                    recorder.labels.policies.check(app)
                except ConfigurationError as error:
                    logger.error("%s", error)  # noqa: TRY400  # the sentence says it all
            if recorder.needs_context and keep_context not in app.middlewares:
                logger.warning('exemplars="otel": this middleware alone sees no span. Add it with instrument(app).')
            if not recorder.has_checked_exclude:
                _check_exclude(recorder, app)
            return


def _check_exclude(recorder: Recorder, app: Application) -> None:
    try:
        for pattern, problem in idle_patterns(recorder.exclude, [app], recorder.labels.policies).items():
            logger.warning('exclude: the pattern "%s" %s', pattern, problem)
    except Exception:  # a resource of the application's own may be anything, and nothing depends on this
        logger.debug("The routes could not be looked at.", exc_info=True)
