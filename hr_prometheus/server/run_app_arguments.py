"""The arguments of ``web.run_app`` that an application is served with."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from aiohttp.log import access_logger
from aiohttp.web_log import AccessLogger

from hr_prometheus.server.access_log import access_log_class
from hr_prometheus.server.forwarded import TrustedPeers, log_clients
from hr_prometheus.server.inherited import foreign_socket_notices
from hr_prometheus.server.logs import DefaultAccessLogger, SchemeAccessLogger
from hr_prometheus.server.tls import tls_context
from hr_prometheus.settings import DEFAULT_BACKLOG, DEFAULT_KEEPALIVE_TIMEOUT, DEFAULT_SHUTDOWN_TIMEOUT

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hr_prometheus.server.application import ServedApplication
    from hr_prometheus.settings import Settings

DEFAULTS = {
    "backlog": DEFAULT_BACKLOG,
    "shutdown_timeout": DEFAULT_SHUTDOWN_TIMEOUT,
    "keepalive_timeout": DEFAULT_KEEPALIVE_TIMEOUT,
    "access_log": None,
}


def run_app_arguments(application: ServedApplication, arguments: Mapping[str, Any] = DEFAULTS) -> dict[str, Any]:
    """Return *arguments*, changed by the settings, and with the access log that counts.

    *arguments* are those of a script, or else the launcher's defaults.
    """
    settings = application.settings
    options = {
        "backlog": settings.backlog,
        "shutdown_timeout": settings.shutdown_timeout,
        "keepalive_timeout": settings.keepalive_timeout,
        "ssl_context": tls_context(settings),
    }
    result = {**arguments, **{name: value for name, value in options.items() if value is not None}}
    result.pop("print", None)
    if settings.forwarded_allow_ips and not _access_log(settings, result):
        option = settings.origins["forwarded_allow_ips"].name
        application.note(f"{option}: ignored, because there is no access log. Give --access-log for one.")
    if not settings.fds:
        for notice in foreign_socket_notices():
            application.note(notice)
    return result | runner_arguments(application, result)


def runner_arguments(application: ServedApplication, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return those arguments of a runner that the settings change. It was to be given *arguments*.

    The access log is where aiohttp shows the requests that its parser refuses. With access logs off it gets a logger
    that nothing is logged to.
    """
    settings = application.settings
    log = _access_log(settings, arguments)
    base = arguments.get("access_log_class", AccessLogger) if log else None
    if base is AccessLogger:
        shows_scheme = settings.forwarded_allow_ips or settings.log_format == "json"
        base = SchemeAccessLogger if shows_scheme else DefaultAccessLogger
    if base is not None and settings.forwarded_allow_ips:
        base = log_clients(base, TrustedPeers(settings.forwarded_allow_ips))
    result = {
        "access_log": logging.getLogger("hr_prometheus") if base is None else log,
        "access_log_class": access_log_class(lambda: application.app, base),
    }
    options = {
        "access_log_format": settings.access_log_format,
        "handler_cancellation": settings.handler_cancellation,
    }
    return result | {name: value for name, value in options.items() if value is not None}


def _access_log(settings: Settings, arguments: Mapping[str, Any]) -> Any:
    """Return the logger of the access log; ``None`` if there is none."""
    if settings.wants_access_log is None:
        return arguments.get("access_log", access_logger)
    return access_logger if settings.wants_access_log else None
