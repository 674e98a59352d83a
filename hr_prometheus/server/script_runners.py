"""A script's own runners: while a script runs, ``AppRunner.setup`` instruments its application first.

So a service is reached that has more to do in its loop than to serve. Addresses and the stop are the script's own.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from prometheus_client import REGISTRY

from hr_prometheus.errors import ConfigurationError
from hr_prometheus.exposition.view import make_view
from hr_prometheus.request.recorder import recorder_of
from hr_prometheus.server import interrupts, messages
from hr_prometheus.server.addresses import serve_metrics
from hr_prometheus.server.loops import loop_name
from hr_prometheus.server.setup import Preparation
from hr_prometheus.server.sockets import bind_tcp, host_and_port, url_of
from hr_prometheus.settings import DEFAULT_HOST, sentence_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from aiohttp.web import Application, AppRunner

    from hr_prometheus.server.runner import Runner
    from hr_prometheus.settings import Settings

logger = logging.getLogger("hr_prometheus")

#: Seconds after which a script that serves nothing is worth a line.
PATIENCE = 10.0
#: Seconds between two looks for a site of a runner, at first and when it is late.
_LOOK_SECONDS = 0.05
_LATE_LOOK_SECONDS = 1.0
#: Options that a runner of the script's own has no use for.
_IGNORED = (
    "host", "port", "unix_path", "backlog", "reuse_port", "shutdown_timeout", "keepalive_timeout", "loop", "certfile",
)  # fmt: skip


class ScriptRunners:
    """The runners that a script sets up. *announce* is called with a line for each that serves."""

    def __init__(self, settings: Settings, announce: Callable[[str], None]) -> None:
        self._settings, self._announce = settings, announce
        #: Called when one of them serves.
        self.on_serving: Callable[[], None] = lambda: None
        self.are_set_up = False
        self._prepared: dict[Application, Preparation] = {}
        #: The metrics' own port, while one of the applications is up that share it.
        self._metrics: Runner | None = None
        self._metrics_url = ""
        self._sharing = 0

    async def set_up(self, runner: AppRunner, original: Callable[[AppRunner], Awaitable[None]]) -> None:
        """Take the place of ``AppRunner.setup``, the *original*."""
        self.are_set_up = True
        preparation = self._prepared.get(runner.app) or await self._prepare(runner.app)
        arguments: Any = getattr(runner, "_kwargs", None)
        if preparation is not None and isinstance(arguments, dict):  # else what the parser refuses is not counted
            arguments |= preparation.access_log(arguments)
        await original(runner)
        if preparation is not None:
            interrupts.served()
            self._look(runner, preparation, int(PATIENCE / _LOOK_SECONDS))
        else:
            self.on_serving()

    async def _prepare(self, app: Application) -> Preparation | None:
        """Instrument an application; what is wrong with any but the first one is a warning, so that the others go on."""
        settings, is_first = self._settings, not self._prepared
        if app.middlewares.frozen:
            if not any(recorder_of(candidate) for candidate in app.middlewares):
                logger.warning(
                    "An application was frozen before its AppRunner was set up, so it is served without metrics."
                )
            return None
        preparation = Preparation(settings, is_script=True)
        path, context = (settings.metrics_path, None) if settings.metrics_port is None else (None, self._share)
        try:
            await preparation.prepare(app, metrics_path=path, context=context)
        except ConfigurationError as error:
            if is_first:
                raise
            text = sentence_of(error, settings.origins)
            logger.warning("An application of the script is served without metrics: %s", text)
            return None
        self._prepared[app] = preparation
        ignored = [settings.origins[name].name for name in _IGNORED if name in settings.origins]
        if is_first and ignored:
            logger.warning(
                '%s: ignored, because "%s" serves with an AppRunner of its own, at its own addresses.',
                ", ".join(ignored),
                settings.target,
            )
        return preparation

    async def _share(self, _app: Application) -> AsyncIterator[None]:
        """Serve the metrics on their own port from the first start-up of an application to the last clean-up."""
        settings = self._settings
        if not self._sharing:
            sockets = bind_tcp(settings.metrics_host or DEFAULT_HOST, settings.metrics_port or 0)
            self._metrics_url = url_of(sockets[0], "http")
            self._metrics = await serve_metrics(settings.metrics_path, make_view(REGISTRY), sockets)
        self._sharing += 1
        yield
        self._sharing -= 1
        if not self._sharing and self._metrics is not None:
            await self._metrics.cleanup()

    def _look(self, runner: AppRunner, preparation: Preparation, times: int) -> None:
        """Say where the application is served, when its sites have been started."""
        loop = asyncio.get_running_loop()
        if runner.addresses:
            self.on_serving()
            scheme = "https" if any(site.name.startswith("https:") for site in runner.sites) else "http"
            texts = [
                f"unix:{each}" if isinstance(each, str) else f"{scheme}://{host_and_port(*each[:2])}"
                for each in runner.addresses
            ]
            where = (self._metrics_url or texts[0]) + self._settings.metrics_path
            line = f"hr-prometheus: {preparation.what()} on {', '.join(texts)}, metrics on {where}"
            self._announce(messages.serving(line, loop_name(loop)))
            preparation.say_notices()
        elif runner.server is not None:  # it has not been cleaned up
            if runner.server.requests_count:  # the script listens by itself
                self.on_serving()
            loop.call_later(
                _LOOK_SECONDS if times > 0 else _LATE_LOOK_SECONDS, self._look, runner, preparation, times - 1
            )


def say_that_nothing_is_served(target: str, *, has_runner: bool) -> None:
    """Say so on standard error."""
    why = (
        "it has an AppRunner, but no site of it has been started."
        if has_runner
        else "neither this process nor one that it has forked has called web.run_app or AppRunner.setup."
    )
    with suppress(OSError, ValueError, AttributeError):  # it may be closed
        sys.stderr.write(
            f'hr-prometheus: "{target}" has served nothing for {PATIENCE:g} s: {why} There are no metrics until then.\n'
        )
        sys.stderr.flush()
