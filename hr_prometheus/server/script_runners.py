"""A script's own runners: while a script runs, ``AppRunner.setup`` instruments its application first.

So a script is measured that does more in its event loop than to serve. Addresses and the stop are the script's own.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from contextlib import AsyncExitStack, suppress
from time import monotonic
from typing import TYPE_CHECKING, Any

from hr_prometheus.access.access import metrics_scheme
from hr_prometheus.access.guard import Guard
from hr_prometheus.errors import ConfigurationError, HrPrometheusError
from hr_prometheus.origins import sentence_of
from hr_prometheus.request.recorder import recorder_of
from hr_prometheus.server import interrupts
from hr_prometheus.server.announcer import STOP_KEY, serving_line, with_seconds
from hr_prometheus.server.application import ServedApplication
from hr_prometheus.server.bind import bind_tcp, host_and_port, url_of
from hr_prometheus.server.label_notices import shared_notices
from hr_prometheus.server.logs import log_notices
from hr_prometheus.server.loops import loop_name
from hr_prometheus.server.metrics_routes import metrics_routes, where_metrics_are
from hr_prometheus.server.metrics_server import metrics_thread
from hr_prometheus.server.notify import ServiceManager
from hr_prometheus.server.run_app_arguments import runner_arguments
from hr_prometheus.server.target_file import ScriptTargetFile
from hr_prometheus.settings import DEFAULT_HOST

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator, Awaitable, Callable

    from aiohttp.web import Application, AppRunner

    from hr_prometheus.settings import Settings

logger = logging.getLogger("hr_prometheus")

#: Seconds after which a script that serves nothing is worth a line.
SERVES_NOTHING_SECONDS = 10.0
#: Seconds between two looks for a site of a runner, at first and when it is late.
_POLL_SECONDS = 0.05
_LATE_POLL_SECONDS = 1.0
#: Options that a script's own runner has no use for.
_UNUSED_OPTIONS = (
    "host", "port", "unix_path", "unix_mode", "fd", "backlog", "reuse_port", "shutdown_timeout", "keepalive_timeout", "loop",
    "certfile", "keyfile",
)  # fmt: skip


class ScriptRunners:
    """The runners that a script sets up. *announce* is called with a line for each that serves."""

    def __init__(self, settings: Settings, announce: Callable[[str], None]) -> None:
        self.settings, self._announce = settings, announce
        #: Called when one of them serves.
        self.on_serving: Callable[[], None] = lambda: None
        #: Whether one has been set up.
        self.has_runner = False
        self._applications: dict[Application, ServedApplication] = {}
        self._has_checked = False
        #: The metrics' own port, while one of the applications is up.
        self._metrics = AsyncExitStack()
        self._metrics_url = ""
        self._metrics_sockets: list[socket.socket] = []
        self._metrics_users = 0
        self._is_serving = False
        self.target_file = ScriptTargetFile(settings.file_sd)
        self._manager = ServiceManager()

    async def set_up(self, runner: AppRunner, original: Callable[[AppRunner], Awaitable[None]]) -> None:
        """Take the place of ``AppRunner.setup``, the *original*."""
        self.has_runner, began = True, monotonic()
        application = self._applications.get(runner.app) or await self._instrument(runner.app)
        self._manager.watch(asyncio.get_running_loop())  # logging is set up, should that be a warning
        arguments: Any = getattr(runner, "_kwargs", None)
        if application is not None and isinstance(arguments, dict):  # else what the parser refuses is not counted
            arguments |= runner_arguments(application, arguments)
        await original(runner)
        if application is not None:
            interrupts.note_serving()
            self._announce_sites(runner, application, began, int(SERVES_NOTHING_SECONDS / _POLL_SECONDS))
        else:
            self.on_serving()

    async def _instrument(self, app: Application) -> ServedApplication | None:
        """Instrument an application. An error of any but the first is a warning, so that the others go on."""
        settings, is_first = self.settings, not self._applications
        if app.middlewares.frozen:
            if not any(recorder_of(candidate) for candidate in app.middlewares):
                logger.warning(
                    "An application was frozen before its AppRunner was set up, so it is served without metrics."
                )
            return None
        application = ServedApplication(settings, is_script=True, shares_settings=True)
        path = settings.metrics_path if settings.metrics_port is None else None
        context = None if settings.metrics_port is None and settings.file_sd is None else self._share_metrics
        try:
            await application.prepare(app, metrics_path=path, context=context)
        except ConfigurationError as error:
            if is_first:
                raise
            text = sentence_of(error, settings.origins)
            logger.warning("An application of the script is served without metrics: %s", text)
            return None
        if is_first:
            asyncio.get_running_loop().call_later(SERVES_NOTHING_SECONDS, self.check_settings)
        self._applications[app] = application
        given = [settings.origins[name] for name in _UNUSED_OPTIONS if name in settings.origins]
        # The script may serve on the sockets that systemd has passed.
        unused = [origin.name for origin in given if origin.variable != "LISTEN_FDS"]
        if is_first and unused:
            logger.warning(
                '%s: ignored, because "%s" serves with an AppRunner of its own, at its own addresses.',
                ", ".join(unused),
                settings.target,
            )
        return application

    def check_settings(self) -> None:
        """Warn of routes and patterns in the settings that none of the applications has; only the first call counts."""
        apps = [app for app, application in self._applications.items() if not application.has_own_middleware]
        if self._has_checked or not apps:
            return
        self._has_checked = True
        try:
            log_notices(shared_notices(apps, self.settings))
        except Exception:  # a resource of the application's own may be anything, and nothing depends on this
            logger.debug("The routes could not be looked at.", exc_info=True)

    async def _share_metrics(self, _app: Application) -> AsyncIterator[None]:
        """Serve the metrics, on their own port if they have one, from the first start-up of an application to the last clean-up."""
        settings = self.settings
        if not self._metrics_users and settings.metrics_port is not None:
            sockets = bind_tcp(settings.metrics_host or DEFAULT_HOST, settings.metrics_port)
            self._metrics_url, self._metrics_sockets = url_of(sockets[0], metrics_scheme(settings)), sockets
            routes = metrics_routes(settings, sockets, lambda: self._is_serving)
            await self._metrics.enter_async_context(metrics_thread(routes, sockets, guard=Guard(settings)))
        self._metrics_users += 1
        yield
        self._metrics_users -= 1
        if not self._metrics_users:
            self.target_file.remove()
            await self._metrics.aclose()

    def _announce_sites(self, runner: AppRunner, application: ServedApplication, began: float, polls: int) -> None:
        """Announce where the application is served, as soon as its sites have been started; poll for them."""
        loop = asyncio.get_running_loop()
        if runner.addresses:
            self.on_serving()
            self._is_serving = True
            scheme = "https" if any(site.name.startswith("https:") for site in runner.sites) else "http"
            urls = [
                f"unix:{each}" if isinstance(each, str) else f"{scheme}://{host_and_port(*each[:2])}"
                for each in runner.addresses
            ]
            own_urls = [self._metrics_url] if self._metrics_url else urls
            metrics_urls = [url + self.settings.metrics_path for url in own_urls]
            try:
                self.target_file.publish(metrics_urls)
            except HrPrometheusError as error:
                logger.warning("%s", sentence_of(error, self.settings.origins))
            metrics = where_metrics_are(self.settings, urls[0], metrics_urls[0], self._metrics_sockets)
            line = with_seconds(serving_line(application.describe(), urls, metrics, loop_name(loop)), began)
            self._manager.ready(line)
            self._announce(line + STOP_KEY)
            application.log_notices()
        elif runner.server is not None:  # it has not been cleaned up
            if runner.server.requests_count:  # the script listens by itself
                self.on_serving()
            seconds = _POLL_SECONDS if polls > 0 else _LATE_POLL_SECONDS
            loop.call_later(seconds, self._announce_sites, runner, application, began, polls - 1)


def warn_of_no_server(target: str, *, has_runner: bool) -> None:
    """Write to standard error that a script serves nothing yet, and why."""
    reason = (
        "it has an AppRunner, but no site of it has been started."
        if has_runner
        else "neither this process nor its forks have called web.run_app or AppRunner.setup."
    )
    with suppress(OSError, ValueError, AttributeError):  # it may be closed
        sys.stderr.write(
            f'hr-prometheus: "{target}" has served nothing for {SERVES_NOTHING_SECONDS:g} s: {reason} '
            "There are no metrics until then.\n"
        )
        sys.stderr.flush()
