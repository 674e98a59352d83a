"""From a target's value to an application that is ready to be served, in this process or in a worker."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from aiohttp import hdrs
from aiohttp.log import access_logger
from aiohttp.web import Application, UrlDispatcher
from aiohttp.web_log import AccessLogger

from hr_prometheus.errors import SettingError, TargetError
from hr_prometheus.instrumentation import instrument
from hr_prometheus.labels.policies import Policies
from hr_prometheus.labels.resources import has_start_up
from hr_prometheus.metrics import FULL
from hr_prometheus.request.monitors import BaseRequestMonitor
from hr_prometheus.request.recorder import recorder_of
from hr_prometheus.server.access_log import QuietAccessLogger, access_log_class
from hr_prometheus.server.notices import ignored_options, notices, recorder_in
from hr_prometheus.server.target import application_error, load_attribute, make_application, parse_target
from hr_prometheus.settings import DEFAULT_LOG_LEVEL, sentence_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from hr_prometheus.errors import ApplicationError, ConfigurationError
    from hr_prometheus.settings import Settings

    Context = Callable[[Application], AsyncIterator[None]]

logger = logging.getLogger("hr_prometheus")

_FORMATTER = logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
STARTING, LISTENING, RUNNING = "while it started up", "listening", "while it ran or stopped"


class Preparation:
    """The way of one application to being served, and how far it has come: its ``phase``, for errors."""

    def __init__(self, settings: Settings, *, is_script: bool = False) -> None:
        self.settings = settings
        self.is_script = is_script
        self.phase = "while it was set up"
        self.app: Application | None = None
        self._has_own_middleware = False
        self.routes = self._own_routes = 0
        #: What is logged when the application can be reached; of several workers, only those of the first.
        self.notices: list[str] = []

    async def prepare(
        self, value: Application | Awaitable[object], *, metrics_path: str | None, context: Context | None = None
    ) -> Application:
        """Return the application, instrumented. Runs in the loop which serves, and so does an async factory.

        *context* is entered before the application's own start-up and left after its clean-up.
        """
        settings = self.settings
        app = await make_application(settings.target, value)
        self._configure_logging()
        self.routes = _number_of_routes(app)
        if not has_start_up(app):  # else at the end of that
            Policies(settings.fixed_routes, settings.allow_values).check(app)
        self._instrument(app, metrics_path)
        self._own_routes = _number_of_routes(app) - self.routes
        if context is not None:
            app.cleanup_ctx.insert(0, context)
        app.on_startup.insert(0, self._entering(STARTING))
        app.on_startup.append(self._entering(LISTENING))
        app.on_startup.append(self._look_at_labels)
        self.app = app
        return app

    def _instrument(self, app: Application, metrics_path: str | None) -> None:
        settings, monitor = self.settings, _monitor(self.settings)
        if recorder_in(app) is None:
            instrument(
                app,
                metrics_path=metrics_path,
                fixed_routes_parameters=settings.fixed_routes,
                allow_values=settings.allow_values,
                keep_values=settings.keep_values,
                request_monitor=monitor,
                path_budget=settings.path_budget,
                buckets=settings.buckets,
                metric_prefix=settings.metric_prefix,
                detail=settings.detail or FULL,
                exclude=settings.exclude,
            )
        else:
            self._has_own_middleware = True
            for text in ignored_options(settings):
                self._note(text)
            instrument(app, metrics_path=metrics_path)
        for recorder in filter(None, map(recorder_of, app.middlewares)):
            recorder.labels.policies.warn = self._warn

    @property
    def waits_for(self) -> str:
        """What a slow start waits for."""
        return "the application" + ("'s start-up" if self.app is not None else "")

    async def _look_at_labels(self, app: Application) -> None:
        try:
            for text in notices(app, self.settings, has_own_middleware=self._has_own_middleware):
                self._note(text)
        except Exception:  # a resource of the application's own may be anything, and nothing depends on this
            logger.debug("The routes could not be looked at.", exc_info=True)

    def _warn(self, error: ConfigurationError) -> None:
        text = sentence_of(error, self.settings.origins)
        if self.phase == RUNNING:
            logger.warning("%s", text)
        else:
            self._note(text)

    def _note(self, text: str) -> None:
        """Keep a notice until the application can be reached. A script may start an application again before that."""
        if text not in self.notices:
            self.notices.append(text)

    def say_notices(self) -> None:
        """Say once what is to be said when the application can be reached."""
        while self.notices:
            logger.warning("%s", self.notices.pop(0))

    def what(self, more: str = "") -> str:
        """Return the target and the number of its routes, for the announcement."""
        return f"{self.settings.target} ({self.routes} route{'s' * (self.routes != 1)}{more})"

    def failed(self, error: Exception) -> ApplicationError:
        """Return the error for an application that raised *error*."""
        return application_error(f'the application "{self.settings.target}" failed {self.phase}', error)

    def access_log(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Return the access log's arguments for aiohttp's runner, made from those which it was to be given.

        The access log is where aiohttp shows the requests that its parser refuses. With access logs off it is
        given a logger that nothing is logged to.
        """
        log = arguments.get("access_log", access_logger)
        if self.settings.access_log is not None:
            log = access_logger if self.settings.access_log else None
        base = arguments.get("access_log_class", AccessLogger) if log else None
        if base is AccessLogger:
            base = _AccessLogger
        return {
            "access_log": logger if base is None else log,
            "access_log_class": access_log_class(lambda: self.app, base),
        }

    def _entering(self, phase: str) -> Callable[[Application], Awaitable[None]]:
        async def enter(app: Application) -> None:
            self.phase = phase
            self.routes = _number_of_routes(app) - self._own_routes

        return enter

    def _configure_logging(self) -> None:
        """Set up logging where the application has not; a script's logging is its own."""
        level = self.settings.log_level
        if level is not None or not self.is_script:
            configure_logging(level)
        if level is not None:
            logging.getLogger().setLevel(level.upper())
        if self.settings.access_log:
            access_logger.setLevel(logging.INFO)


def _number_of_routes(app: Application) -> int:
    """Return how many routes there are; none in a router of the application's own."""
    routes = app.router.routes() if isinstance(app.router, UrlDispatcher) else ()
    return sum(route.method != hdrs.METH_HEAD for route in routes)


def configure_logging(level: str | None) -> None:
    """Set up logging to standard error, where nobody else has."""
    handler = logging.StreamHandler()
    handler.setFormatter(_FORMATTER)
    logging.basicConfig(level=(level or DEFAULT_LOG_LEVEL).upper(), handlers=[handler])


class _AccessLogger(QuietAccessLogger):
    """One that leaves the time to our own logging, where that is what writes."""

    def __init__(self, log: logging.Logger, log_format: str) -> None:
        if any(handler.formatter is _FORMATTER for handler in logging.getLogger().handlers):
            log_format = log_format.replace("%t ", "") if log_format == self.LOG_FORMAT else log_format
        super().__init__(log, log_format)


def _monitor(settings: Settings) -> type[BaseRequestMonitor] | None:
    if settings.monitor is None:
        return None
    try:
        value = load_attribute(parse_target(settings.monitor), settings.app_dir)
    except TargetError as error:
        raise SettingError("monitor", "--monitor", f": {error}") from None
    if not (isinstance(value, type) and issubclass(value, BaseRequestMonitor)):
        raise SettingError(
            "monitor",
            f'--monitor "{settings.monitor}"',
            " is no monitor. Expected a class that inherits hr_prometheus.monitors.BaseRequestMonitor.",
        )
    return value
