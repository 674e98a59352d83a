"""Serves one application in one process, from its start to its stop, as ``web.run_app`` does."""

from __future__ import annotations

import asyncio
import signal
import sys
from contextlib import suppress
from math import inf
from typing import TYPE_CHECKING, Any

from aiohttp.web import GracefulExit, SockSite

from hr_prometheus.access.guard import Guard
from hr_prometheus.server import interrupts
from hr_prometheus.server.announcer import serving_line
from hr_prometheus.server.application import RUNNING
from hr_prometheus.server.inherited import largest_backlog, listens
from hr_prometheus.server.loops import loop_name
from hr_prometheus.server.metrics_routes import metrics_routes
from hr_prometheus.server.metrics_server import metrics_thread
from hr_prometheus.server.own_sockets import OwnSockets, closed_error
from hr_prometheus.server.runner import Runner
from hr_prometheus.server.shutdown import Shutdown, exit_process
from hr_prometheus.settings import DEFAULT_BACKLOG

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Coroutine

    from aiohttp.web import Application

    from hr_prometheus.server.announcer import Announcer
    from hr_prometheus.server.application import ServedApplication
    from hr_prometheus.server.bind import BoundAddresses

#: Seconds for the tasks of an application whose start was interrupted.
_LAST_SECONDS = 5.0
#: Seconds that aiohttp waits for requests in progress if a script does not say.
_DRAIN_SECONDS = 60.0
#: The exit code of an application that has failed.
_APPLICATION_FAILED = 3


class Service:
    """Serves an application until it is stopped. *arguments* are those of ``run_app``, without addresses.

    *release* removes the files of the process before it is ended by force.
    """

    def __init__(
        self,
        application: ServedApplication,
        addresses: BoundAddresses,
        announcer: Announcer,
        arguments: dict[str, Any],
        release: Callable[[], None],
    ) -> None:
        self._release = release
        sockets = [*addresses.sockets, *addresses.metrics_sockets]
        self._own_sockets = OwnSockets(application.settings.target, sockets)
        self._application, self._addresses, self._announcer = application, addresses, announcer
        drain_seconds = arguments.pop("shutdown_timeout", _DRAIN_SECONDS)
        self._drain_seconds: float = inf if drain_seconds is None else drain_seconds
        self._handles_signals: bool = arguments.pop("handle_signals", True)
        self._site: dict[str, Any] = {
            name: arguments.pop(name) for name in ("ssl_context", "backlog") if name in arguments
        }
        for name in ("reuse_port", "reuse_address"):  # the sockets are bound
            arguments.pop(name, None)
        self._runner_arguments = arguments

    def run(
        self, app: Coroutine[Any, Any, Application], new_event_loop: Callable[[], asyncio.AbstractEventLoop]
    ) -> None:
        """Serve in a new loop, and close it. Raises :exc:`KeyboardInterrupt` for an interruption before it served."""
        with interrupts.Deferral() as deferral:
            loop = new_event_loop()
            asyncio.set_event_loop(loop)
            main = loop.create_task(self._serve(app, deferral))
            self._shutdown = Shutdown(main, self._announcer, self._drain_seconds, self._release)
            self._run_until_stopped(loop, main)
        if self._announcer.has_served and self._application.is_script:  # which may go on
            self._announcer.stopped()
        elif self._announcer.has_served:
            self._shutdown.finish()

    def _run_until_stopped(self, loop: asyncio.AbstractEventLoop, main: asyncio.Task[None]) -> None:
        shutdown, is_interrupted = self._shutdown, False
        try:
            self._handle(signal.SIGTERM, signal.SIGHUP)
            loop.run_until_complete(main)
        except (GracefulExit, KeyboardInterrupt) as error:
            is_interrupted = isinstance(error, KeyboardInterrupt) and not self._announcer.has_served
            if is_interrupted:
                loop.set_exception_handler(lambda _loop, _context: None)  # it would show where it was interrupted
                raise
        except asyncio.CancelledError:
            if not shutdown.requested.is_set():
                raise
        finally:
            try:
                if not (main.done() or is_interrupted):
                    main.cancel()
                    with suppress(asyncio.CancelledError):
                        loop.run_until_complete(main)
            finally:
                if shutdown.is_hurried:
                    shutdown.give_up()
                try:
                    _cancel(asyncio.all_tasks(loop), loop, _LAST_SECONDS if is_interrupted else None)
                    loop.run_until_complete(loop.shutdown_asyncgens())
                    with suppress(ValueError):  # not in this thread
                        # asyncio closes it before it gives back its signals, of which one may come.
                        signal.set_wakeup_fd(-1)
                    loop.close()
                finally:
                    shutdown.close()
                    if self._application.is_script:  # it may go on; else only threads are left
                        shutdown.forced_exit.cancel()

    async def _serve(self, prepared_app: Coroutine[Any, Any, Application], deferral: interrupts.Deferral) -> None:
        deferral.end()
        sockets = self._addresses.metrics_sockets
        if not sockets:
            await self._serve_application(prepared_app)
            return
        routes = metrics_routes(self._application.settings, sockets, self._announcer.is_serving)
        async with metrics_thread(routes, sockets, guard=Guard(self._application.settings)):
            try:
                await self._serve_application(prepared_app)
            finally:
                self._announcer.on_closing()

    async def _serve_application(self, prepared_app: Coroutine[Any, Any, Application]) -> None:
        handler = signal.getsignal(signal.SIGINT)
        app = await prepared_app
        self._announcer.manager.watch(asyncio.get_running_loop())  # logging is set up, should that be a warning
        shutdown = self._shutdown
        runner = Runner(
            app,
            drain_seconds=self._drain_seconds,
            on_drain=shutdown.on_drain,
            on_cleanup=shutdown.on_cleanup,
            **self._runner_arguments,
        )
        with self._own_sockets.watch(self._end_closed):
            await runner.setup()
        try:
            for sock in self._addresses.sockets:
                await SockSite(runner, sock, **self._site_arguments(sock)).start()
            shutdown.runner = runner
            if signal.getsignal(signal.SIGINT) in {handler, signal.SIG_IGN}:  # else the application has one of its own
                self._handle(signal.SIGINT)
            if signal.getsignal(signal.SIGTERM) == signal.SIG_IGN:  # it would outlive every stop
                self._handle(signal.SIGTERM)
            self._application.phase = RUNNING
            what, loop = self._application.describe(), loop_name(asyncio.get_running_loop())
            addresses = self._addresses
            metrics = addresses.where_metrics_are(self._application.settings)
            self._announcer.serving(serving_line(what, addresses.urls, metrics, loop))
            self._application.log_notices()
            await shutdown.requested.wait()
            self._announcer.note_stop()
            # uvloop handles a signal before it accepts, and accepts one connection in each turn: all that wait get theirs.
            for _ in range(self._site.get("backlog") or DEFAULT_BACKLOG):
                await asyncio.sleep(0)
        finally:
            self._announcer.note_stop()
            if not self._addresses.metrics_sockets:  # else they can be reached to the end
                self._announcer.on_closing()
            if shutdown.runner is not None:
                await self._accept_no_more()
            await runner.cleanup()

    def _end_closed(self) -> None:
        sys.stderr.write(f"Error: {closed_error(self._application.settings.target)}\n")
        exit_process(self._release, _APPLICATION_FAILED)

    def _site_arguments(self, sock: socket.socket) -> dict[str, Any]:
        """Return the arguments of a socket's site. The backlog of an inherited one that listens is not cut down."""
        settings = self._application.settings
        if settings.fds and settings.backlog is None and listens(sock):
            # A site always calls listen() again, and no call reads the backlog of every kind of socket.
            return self._site | {"backlog": largest_backlog()}
        return self._site

    async def _accept_no_more(self) -> None:
        """Leave connections alone that come from now on: asyncio drops those of the turn before it closes their socket."""
        for sock in self._addresses.sockets:
            asyncio.get_running_loop().remove_reader(sock)
        await asyncio.sleep(0)

    def _handle(self, *signals: int) -> None:
        if self._handles_signals:
            self._shutdown.handle(*signals)


def _cancel(tasks: set[asyncio.Task[Any]], loop: asyncio.AbstractEventLoop, seconds: float | None = None) -> None:
    for task in tasks:
        task.cancel()
    if tasks:
        loop.run_until_complete(asyncio.wait(tasks, timeout=seconds))
