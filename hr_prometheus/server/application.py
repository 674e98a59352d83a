"""The application that is served, in one process or in a worker: how it is prepared, and how far it has come."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from aiohttp import hdrs

from hr_prometheus.errors import ConfigurationError, HrPrometheusError, SettingError, TargetError
from hr_prometheus.instrumentation import instrument
from hr_prometheus.labels.resources import all_resources, has_start_up
from hr_prometheus.metrics import FULL, KEPT_SESSIONS
from hr_prometheus.origins import sentence_of
from hr_prometheus.request.monitors import BaseRequestMonitor
from hr_prometheus.request.recorder import recorder_of
from hr_prometheus.server.announcer import target_and_routes
from hr_prometheus.server.bind import address_error
from hr_prometheus.server.client_sessions import measure_kept, prepare_metrics
from hr_prometheus.server.importer import application_error, load_attribute
from hr_prometheus.server.label_notices import (
    hidden_registry,
    ignored_options,
    label_notices,
    policies_of_command,
    recorder_in,
)
from hr_prometheus.server.logs import configure_application_logging, log_notices
from hr_prometheus.server.target import make_application, parse_target
from hr_prometheus.settings import DEFAULT_BLOCKED_AFTER
from hr_prometheus.status.view import TARGET
from hr_prometheus.store.store import share_cells

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator

    from aiohttp.web import Application

    from hr_prometheus.settings import Settings

    Context = Callable[[Application], AsyncIterator[None]]

logger = logging.getLogger("hr_prometheus")

#: The phases of an application, as an error's sentence names them.
SETTING_UP, STARTING, LISTENING, RUNNING = (
    "while it was set up",
    "while it started up",
    "listening",
    "while it ran or stopped",
)


class ServedApplication:
    """The application of a target, from its preparation to its stop. ``app`` is ``None`` until it is prepared.

    One that *shares_settings* with other applications may lack a route that the settings name.
    """

    def __init__(self, settings: Settings, *, is_script: bool = False, shares_settings: bool = False) -> None:
        self.settings = settings
        self.is_script = is_script
        self._shares_settings = shares_settings
        self.phase = SETTING_UP
        self.app: Application | None = None
        #: How many routes the application has, without the metrics route.
        self.routes = 0
        self._metrics_routes = 0
        self.has_own_middleware = False
        #: Sentences to log when the application is served; of several workers, only those of the first.
        self.notices: list[str] = []

    async def prepare(
        self, value: Application | Awaitable[object], *, metrics_path: str | None, context: Context | None = None
    ) -> Application:
        """Return the application, instrumented. Runs in the loop that serves, and so does an async factory.

        *context* is entered before the application's own start-up and left after its clean-up.
        """
        settings = self.settings
        app = await make_application(settings.target, value)
        configure_application_logging(settings, is_script=self.is_script)
        self.routes = _number_of_routes(app)
        if not (self._shares_settings or has_start_up(app)):  # else they are checked later
            policies_of_command(settings).check(app)
        self._instrument(app, metrics_path)
        prepare_metrics(settings)
        self._metrics_routes = _number_of_routes(app) - self.routes
        if context is not None:
            app.cleanup_ctx.insert(0, context)
        app.on_startup.insert(0, self._enter(STARTING))
        app.on_startup.append(self._enter(LISTENING))
        app.on_startup.append(self._find_notices)
        if settings.client_metrics == KEPT_SESSIONS:
            app.on_startup.append(self._measure_client)
        self.app = app
        return app

    def _instrument(self, app: Application, metrics_path: str | None) -> None:
        settings, monitor = self.settings, _monitor(self.settings)
        if settings.status_path is not None:
            app[TARGET] = settings.target
        others: dict[str, Any] = {
            "slow": settings.slow,
            "loop_metrics": settings.loop_metrics,
            "blocked_after": DEFAULT_BLOCKED_AFTER if settings.blocked_after is None else settings.blocked_after,
        }
        if recorder_in(app) is None:
            instrument(
                app,
                metrics_path=metrics_path,
                status_path=settings.status_path,
                request_monitor=monitor,
                **middleware_options(settings),
                **others,
            )
        else:
            self.has_own_middleware = True
            for text in ignored_options(settings):
                self.note(text)
            for recorder in filter(None, map(recorder_of, app.middlewares)):
                share_cells(recorder.registry)
            if metrics_path is None and (text := hidden_registry(app)):
                self.note(text)
            instrument(app, metrics_path=metrics_path, status_path=settings.status_path, **others)
        for recorder in filter(None, map(recorder_of, app.middlewares)):
            recorder.labels.policies.warn = self._warn
            recorder.labels.policies.is_shared = self._shares_settings and not self.has_own_middleware

    def _enter(self, phase: str) -> Callable[[Application], Awaitable[None]]:
        async def enter(app: Application) -> None:
            self.phase = phase
            self.routes = _number_of_routes(app) - self._metrics_routes

        return enter

    async def _find_notices(self, app: Application) -> None:
        try:
            of_application = {
                "has_own_middleware": self.has_own_middleware,
                "shares_settings": self._shares_settings,
            }
            for text in label_notices(app, self.settings, **of_application):
                self.note(text)
        except Exception:  # a resource of the application's own may be anything, and nothing depends on this
            logger.debug("The routes could not be looked at.", exc_info=True)

    async def _measure_client(self, app: Application) -> None:
        if notice := measure_kept(app, self.settings):
            self.note(notice)

    def _warn(self, error: ConfigurationError) -> None:
        text = sentence_of(error, self.settings.origins)
        if self.phase == RUNNING:
            logger.warning("%s", text)
        else:
            self.note(text)

    def note(self, text: str) -> None:
        """Keep a notice until the application is served. A script may start an application again before that."""
        if text not in self.notices:
            self.notices.append(text)

    def log_notices(self) -> None:
        """Log the notices, once."""
        log_notices(self.notices)
        self.notices.clear()

    def waits_for(self) -> str:
        """Return what a slow start waits for."""
        return "the application" + ("'s start-up" if self.app is not None else "")

    def describe(self) -> str:
        """Return the target and the number of its routes."""
        return target_and_routes(self.settings.target, self.routes)

    @contextmanager
    def failures(self, urls: Iterable[str]) -> Iterator[None]:
        """Raise an exception of the application's as an :exc:`~hr_prometheus.errors.ApplicationError`.

        What the operating system refuses while it begins to listen at *urls* is a
        :exc:`~hr_prometheus.errors.ServingError`.
        """
        try:
            yield
        except HrPrometheusError:
            raise
        except Exception as error:
            if isinstance(error, OSError) and self.phase == LISTENING:
                raise address_error(", ".join(urls), error) from error
            raise application_error(f'the application "{self.settings.target}" failed {self.phase}', error) from error


def _number_of_routes(app: Application) -> int:
    """Return how many routes an application has: 0 with a router of its own."""
    try:
        return sum(route.method != hdrs.METH_HEAD for resource in all_resources(app) for route in resource)
    except ConfigurationError:
        return 0


def middleware_options(settings: Settings) -> dict[str, Any]:
    """Return the options of :func:`~hr_prometheus.instrument` that an application with its own middleware ignores."""
    return {
        "fixed_routes_parameters": settings.fixed_routes,
        "allow_values": settings.allow_values,
        "keep_values": settings.keep_values,
        "path_budget": settings.path_budget,
        "buckets": settings.buckets,
        "metric_prefix": settings.metric_prefix,
        "names": settings.names,
        "latency_by_status": settings.latency_by_status,
        "native_histograms": settings.native_histograms or False,
        "exemplars": settings.exemplars,
        "detail": settings.detail or FULL,
        "exclude": settings.exclude,
        "exclude_methods": settings.exclude_methods,
        "extra_labels": settings.extra_labels,
    }


@contextmanager
def monitor_errors() -> Iterator[None]:
    """Raise an error about the target that ``--monitor`` names as one about the option."""
    try:
        yield
    except TargetError as error:
        raise SettingError("monitor", "--monitor", f": {error}") from None


def _monitor(settings: Settings) -> type[BaseRequestMonitor] | None:
    if settings.monitor is None:
        return None
    with monitor_errors():
        value = load_attribute(parse_target(settings.monitor), settings.app_dir)
    if not (isinstance(value, type) and issubclass(value, BaseRequestMonitor)):
        raise SettingError(
            "monitor",
            f'--monitor "{settings.monitor}"',
            " is not a monitor. Expected a class that inherits hr_prometheus.monitors.BaseRequestMonitor.",
        )
    return value
