"""``--client-metrics``: the client sessions that are measured."""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import TYPE_CHECKING

from hr_prometheus.client.sessions import kept_sessions, measure_new_sessions, measure_session
from hr_prometheus.client.trace_config import client_trace_config
from hr_prometheus.metrics import ALL_SESSIONS

if TYPE_CHECKING:
    from aiohttp import TraceConfig
    from aiohttp.web import Application

    from hr_prometheus.settings import Settings

logger = logging.getLogger("hr_prometheus")


def measure_all(settings: Settings) -> AbstractContextManager[None]:
    """Measure all sessions that are made in the block, if the settings ask for that.

    The metrics are registered with the first, or by :func:`prepare_metrics`.
    """
    if settings.client_metrics != ALL_SESSIONS:
        return nullcontext()
    return measure_new_sessions(cache(lambda: _config(settings)))


def prepare_metrics(settings: Settings) -> None:
    """Register the metrics of all sessions, if the settings ask for that, once the application has registered its own.

    Raises :exc:`~hr_prometheus.errors.ConfigurationError` if it has one with the name of one of these.
    """
    if settings.client_metrics == ALL_SESSIONS:
        _config(settings)


def measure_kept(app: Application, settings: Settings) -> str | None:
    """Measure the sessions that a started application keeps, and log how many.

    Return a notice if there is none, or for a script that has set up no logging.
    """
    name = settings.origins["client_metrics"].name if "client_metrics" in settings.origins else "--client-metrics"
    sessions = kept_sessions(app)
    if not sessions:
        return (
            f"{name}: the application keeps no ClientSession under its keys after its start-up, so none is measured. "
            f"Keep one as app[KEY], or measure all: --client-metrics={ALL_SESSIONS}."
        )
    config = _config(settings)
    measured = [session for session in sessions if measure_session(session, config)]
    counted = f"{name}: {len(measured)} client session{' is' if len(measured) == 1 else 's are'} measured."
    is_shown = logger.hasHandlers()
    if is_shown:
        logger.info("%s", counted)
    if others := len(sessions) - len(measured):
        logger.warning(
            "%s: %d client session%s not measured: the trace_configs are not a list, so that none can be added. "
            "Use a list, or --client-metrics=%s.",
            name,
            others,
            " is" if others == 1 else "s are",
            ALL_SESSIONS,
        )
    return None if is_shown else counted


def _config(settings: Settings) -> TraceConfig:
    return client_trace_config(by_route=settings.client_by_route)
