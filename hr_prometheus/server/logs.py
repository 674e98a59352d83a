"""Logging to standard error, where the application has set up none."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from aiohttp.log import access_logger

from hr_prometheus.server.access_log import QuietAccessLogger
from hr_prometheus.settings import DEFAULT_LOG_LEVEL

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hr_prometheus.settings import Settings

logger = logging.getLogger("hr_prometheus")

_FORMATTER = logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")


def configure_logging(level: str | None) -> None:
    """Log to standard error, unless logging is set up already. ``None`` is the default level."""
    logging.basicConfig(level=(level or DEFAULT_LOG_LEVEL).upper(), handlers=[_stream_handler()])


def _stream_handler() -> logging.Handler:
    handler = logging.StreamHandler()
    handler.setFormatter(_FORMATTER)
    return handler


def configure_application_logging(settings: Settings, *, is_script: bool) -> None:
    """Set up the logging of an application. A script's logging is its own, unless a level is given.

    An access log that is asked for is written all the same.
    """
    level = settings.log_level
    if level is not None or not is_script:
        configure_logging(level)
    if level is not None:
        logging.getLogger().setLevel(level.upper())
    if settings.access_log:
        access_logger.setLevel(logging.INFO)
        if not access_logger.hasHandlers():
            handler = _stream_handler()
            handler.addFilter(lambda _record: not logging.getLogger().handlers)  # a script may set up logging later
            access_logger.addHandler(handler)


def log_notices(notices: Iterable[str]) -> None:
    """Log each notice as a warning."""
    for notice in notices:
        logger.warning("%s", notice)


class DefaultAccessLogger(QuietAccessLogger):
    """The access logger of ``--access-log``: its lines leave out the time where our formatter writes it."""

    def __init__(self, log: logging.Logger, log_format: str) -> None:
        if any(handler.formatter is _FORMATTER for handler in logging.getLogger().handlers or log.handlers):
            log_format = log_format.replace("%t ", "") if log_format == self.LOG_FORMAT else log_format
        super().__init__(log, log_format)
