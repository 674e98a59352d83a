"""From settings to one running process that serves an application and its metrics."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from threading import current_thread, main_thread
from typing import TYPE_CHECKING, Any

from hr_prometheus.access.guard import check_access
from hr_prometheus.server import interrupts, script_runners
from hr_prometheus.server.announcer import Announcer, start_timer
from hr_prometheus.server.application import ServedApplication
from hr_prometheus.server.bind import bind_addresses
from hr_prometheus.server.client_sessions import measure_all
from hr_prometheus.server.forks import ServingProcesses
from hr_prometheus.server.logs import prepare_logging
from hr_prometheus.server.loops import loop_factory
from hr_prometheus.server.metrics_routes import check_paths
from hr_prometheus.server.own_sockets import OwnSockets
from hr_prometheus.server.pid_file import hold_pid_file
from hr_prometheus.server.run_app_arguments import DEFAULTS, run_app_arguments
from hr_prometheus.server.script import run_script
from hr_prometheus.server.service import Service
from hr_prometheus.server.shutdown import exit_at_signals
from hr_prometheus.server.target import Target, close_unawaited, load_target, parse_target
from hr_prometheus.server.target_file import TargetFile

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aiohttp.web import Application, AppRunner

    from hr_prometheus.settings import Settings


def run(settings: Settings, announce: Callable[[str], None]) -> None:
    """Serve the target and its metrics until SIGINT or SIGTERM; return when all requests have been drained.

    *announce* is called with a line that says what is served where, when both can be reached, and with one for a slow
    start, for a stop that has to wait, and for its end.

    Raises one of the exceptions in :mod:`hr_prometheus.errors`, and :exc:`KeyboardInterrupt` if it is interrupted before
    it serves. Addresses are bound before anything is imported, so a used one is an error before the application has done anything.
    """
    target = parse_target(settings.target)
    check_paths(settings)
    check_access(settings)
    prepare_logging(settings)
    with measure_all(settings):
        if target.attribute is None:
            _ScriptRun(settings, announce).run(target)
        else:
            _serve(settings, announce, None, lambda: load_target(target, settings.arguments, settings.app_dir))


class _ScriptRun:
    """One run of a script: what its calls of ``run_app`` and ``AppRunner.setup`` do, and signals meanwhile."""

    def __init__(self, settings: Settings, announce: Callable[[str], None]) -> None:
        self._settings, self._announce = settings, announce
        self._runners = script_runners.ScriptRunners(settings, announce)
        self._processes = ServingProcesses(settings.target)
        self._signals = ExitStack()

    def run(self, target: Target) -> None:
        """Run the script to its end."""
        settings, runners = self._settings, self._runners
        with interrupts.DefaultHandler(), hold_pid_file(settings.pid_file), self._signals:
            self._handle_signals()
            self._warning = start_timer(script_runners.SERVES_NOTHING_SECONDS, self._warn)
            runners.on_serving = self._warning.cancel
            try:
                run_script(
                    target,
                    settings.arguments,
                    settings.app_dir,
                    self._run_app,
                    self._set_up,
                    others_serve=lambda: self._processes.others_serve,
                )
            finally:
                self._warning.cancel()
                runners.target_file.remove()
                runners.check_settings()

    def _run_app(self, app: Application | Awaitable[Application], **arguments: Any) -> None:
        # The stop has handlers of its own, which only the main thread can set.
        is_stopped = arguments.get("handle_signals", True) and current_thread() is main_thread()
        try:
            self._warning.cancel()
            if is_stopped:
                self._signals.close()
            _serve(self._begin_serving(), self._announce, arguments, lambda: app)
        finally:
            close_unawaited(app)
            if is_stopped:
                self._handle_signals()

    async def _set_up(self, runner: AppRunner, original: Callable[[AppRunner], Awaitable[None]]) -> None:
        self._runners.settings = self._begin_serving()
        await self._runners.set_up(runner, original)

    def _begin_serving(self) -> Settings:
        """Note that this process serves, and return its settings."""
        settings = self._settings
        is_first = self._processes.note_serving()
        # The port of the metrics is that of the first process. The others announce a free one.
        return settings if is_first or settings.metrics_port is None else replace(settings, metrics_port=0)

    def _handle_signals(self) -> None:
        remove = self._runners.target_file.remove
        self._signals.enter_context(exit_at_signals(remove, serves=lambda: self._processes.any_serves))

    def _warn(self) -> None:
        if not self._processes.others_serve:
            script_runners.warn_of_no_server(self._settings.target, has_runner=self._runners.has_runner)


def _serve(
    settings: Settings,
    announce: Callable[[str], None],
    script_arguments: dict[str, Any] | None,
    load: Callable[[], Application | Awaitable[object]],
) -> None:
    """Bind the addresses, *load* the application and serve it.

    *script_arguments* are those with which a script called ``run_app``; without a script they are ``None``.
    """
    application = ServedApplication(settings, is_script=script_arguments is not None)
    arguments = run_app_arguments(application, DEFAULTS if script_arguments is None else script_arguments)
    loop = arguments.pop("loop", None)
    new_event_loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
    if settings.loop is not None or not application.is_script:
        new_event_loop = loop_factory(settings.loop)
    elif loop is not None:
        new_event_loop = lambda: loop  # noqa: E731
    with (
        interrupts.DefaultHandler(),
        ExitStack() as stack,
        Announcer(announce, application.waits_for) as announcer,
    ):
        if not application.is_script:  # which may serve again
            stack.enter_context(hold_pid_file(settings.pid_file))
        addresses = bind_addresses(settings, arguments, stack, is_script=application.is_script)
        if settings.file_sd is not None:
            file = stack.enter_context(TargetFile(settings.file_sd, addresses.metrics_url))
            announcer.on_serving, announcer.on_closing = file.publish, file.withdraw
        own_sockets = OwnSockets(settings.target, [*addresses.sockets, *addresses.metrics_sockets])
        with nullcontext() if application.is_script else exit_at_signals(stack.close):
            try:
                value = load()
            finally:
                own_sockets.check()
        metrics_path = None if addresses.metrics_sockets else settings.metrics_path
        app = application.prepare(value, metrics_path=metrics_path)
        try:
            with application.failures(addresses.urls):
                Service(application, addresses, announcer, arguments, stack.close).run(app, new_event_loop)
        finally:
            close_unawaited(app)
            close_unawaited(value)
