"""One worker: a fresh process that serves the application on sockets which the supervisor has bound.

The supervisor starts it as ``python -m hr_prometheus.workers CONTROL SLOT TARGET``. CONTROL is the descriptor of its
control channel; the other two are for people who look at a list of processes.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from contextlib import suppress
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any, NoReturn

from prometheus_client import REGISTRY

from hr_prometheus import errors
from hr_prometheus.errors import ApplicationError, HrPrometheusError, ServingError, SettingError, TargetError
from hr_prometheus.exposition import view
from hr_prometheus.exposition.collectors import SLOW, Collectors
from hr_prometheus.labels.fold import share_labels
from hr_prometheus.multiprocess.dump import dump, slow_calls
from hr_prometheus.multiprocess.upkeep import LOOK_SECONDS, keep_in_files, look_at_files, start_look
from hr_prometheus.request.recent import recent_requests
from hr_prometheus.request.recorder import recorder_of
from hr_prometheus.server.application import RUNNING, ServedApplication
from hr_prometheus.server.client_sessions import measure_all
from hr_prometheus.server.inherited import listens
from hr_prometheus.server.logs import note_worker, prepare_logging, print_failure
from hr_prometheus.server.loops import loop_factory, loop_name
from hr_prometheus.server.own_sockets import OwnSockets
from hr_prometheus.server.run_app_arguments import DEFAULTS, run_app_arguments
from hr_prometheus.server.runner import Runner, end_connection
from hr_prometheus.server.script import run_script
from hr_prometheus.server.target import close_unawaited, load_target, parse_target
from hr_prometheus.settings import DEFAULT_BACKLOG, DEFAULT_SHUTDOWN_TIMEOUT, Settings
from hr_prometheus.status.view import gather_recent_with
from hr_prometheus.store.store import dump_exemplars, native_mode
from hr_prometheus.workers.acceptor import Acceptor, Counts
from hr_prometheus.workers.channel import Channel, encode, receive
from hr_prometheus.workers.config import DISCONNECTED, WorkerConfig
from hr_prometheus.workers.descriptors import check_descriptors
from hr_prometheus.workers.handover import take_script_addresses
from hr_prometheus.workers.head_watch import watch_heads
from hr_prometheus.workers.idle_connections import IdleConnections
from hr_prometheus.workers.stacks import write_stacks_to
from hr_prometheus.workers.stop_reports import StopReports
from hr_prometheus.workers.tasks import call_every

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aiohttp.web import Application, AppRunner
    from multidict import CIMultiDict

#: Seconds for which the connections of a worker that is replaced may go on until they are idle. Meanwhile each response
#: tells its client to connect anew, so that no request meets a connection that is being closed.
REPLACE_SECONDS = 1.0
#: Seconds that a worker which stops waits for TLS with the clients that it has accepted last.
HANDSHAKE_SECONDS = 1.0
_POLL_SECONDS = 0.02
#: Bytes of a scrape's body that are written at a time.
_PART = 65536


def main() -> None:
    """Serve until the supervisor stops this worker, or is gone."""
    with socket.socket(fileno=int(sys.argv[1])) as connection:
        os.set_inheritable(connection.fileno(), False)
        try:
            _, config = receive(connection)
        except EOFError:  # the supervisor is gone already
            return
        _run(WorkerConfig(**config), connection)


def _run(config: WorkerConfig, connection: socket.socket) -> None:
    try:
        _Worker(config, connection).run()
    except HrPrometheusError as error:
        if isinstance(error, ApplicationError):
            print_failure(error, Settings.from_json(config.settings))
        if connection.fileno() < 0:
            raise SystemExit(DISCONNECTED) from None
        with suppress(OSError):
            connection.setblocking(True)
            _send_failure(connection, error)


def _send_failure(connection: socket.socket, error: HrPrometheusError) -> None:
    kind = next(each.__name__ for each in type(error).__mro__ if each.__module__ == errors.__name__)
    arguments = error.args if type(error) is SettingError else (str(error),)
    connection.sendall(encode("failed", [kind, *arguments]))


class _Worker:
    """Serves the application, and answers the supervisor."""

    def __init__(self, config: WorkerConfig, connection: socket.socket) -> None:
        self.config, self.pid = config, os.getpid()
        self.settings = Settings.from_json(config.settings)
        self.target = parse_target(self.settings.target)
        self.application = ServedApplication(self.settings, is_script=self.target.attribute is None)
        #: Those of ``run_app``.
        self.arguments: dict[str, Any] = dict(DEFAULTS)
        # The channel has a duplicate, so that a failure can still be sent when the event loop is closed.
        self.connection = connection
        self.own_sockets = OwnSockets(self.target.text, [connection])
        self.channel = Channel(self._on_message, self._on_question, self.stop)
        self.stopping, self.is_replaced = asyncio.Event(), False
        #: Whether its successor starts, and may take its place.
        self.is_paused = False
        self.idle: IdleConnections | None = None
        #: Until it serves.
        self.start_up: asyncio.Task[None] | None = None
        self.max_requests = config.max_requests
        self.collectors = Collectors(REGISTRY)
        #: The number of the latest exemplar that the supervisor has.
        self.latest_exemplar = 0

    def run(self) -> None:
        """Import the application and serve it, or run the script that serves it."""
        settings, config = self.settings, self.config
        write_stacks_to(config.stacks)
        note_worker(config.slot)
        prepare_logging(settings)
        check_descriptors(config.least_descriptors)  # and again when the application has opened its own files
        keep_in_files(config.directory, config.slot, totals_at=config.metrics_url)
        share_labels(config.labels)
        view.forward_to(self._scrape)
        gather_recent_with(self._recent)
        with measure_all(settings):
            if self.application.is_script:
                run_script(self.target, settings.arguments, settings.app_dir, self._run_app, self._refuse_runner)
            else:
                try:
                    value = load_target(self.target, settings.arguments, settings.app_dir)
                finally:
                    self.own_sockets.check()
                self._run(value, loop_factory(settings.loop))

    def _run_app(self, app: Application | Awaitable[Application], **arguments: Any) -> None:
        """Take the place of ``web.run_app`` in a script."""
        if os.getpid() != self.pid:
            close_unawaited(app)
            self._refuse(
                "serves in a process that it has forked, which --reload cannot replace. Expected a script that serves itself"
            )
        loop = arguments.pop("loop", None)
        try:
            self.own_sockets.check()
            self.config = take_script_addresses(self.config, self.settings, arguments)
            self.arguments = arguments
            new_event_loop = (lambda: loop) if loop is not None else asyncio.new_event_loop
            self._run(app, new_event_loop if self.settings.loop is None else loop_factory(self.settings.loop))
        finally:
            close_unawaited(app)

    async def _refuse_runner(self, _runner: AppRunner, _original: Callable[[AppRunner], Awaitable[None]]) -> None:
        """Take the place of ``AppRunner.setup`` in a script."""
        self._refuse(
            "sets up an AppRunner itself, whose addresses --reload cannot keep for the next process. Expected a script that calls "
            "web.run_app"
        )

    def _refuse(self, problem: str) -> NoReturn:
        """Fail because of the script, also in a process that it has forked, whose exception would be a traceback."""
        error = TargetError(
            f'the script "{self.target.text}" {problem}, or a target with an attribute, "module:attribute".'
        )
        if os.getpid() == self.pid:
            raise error
        with suppress(OSError):
            _send_failure(self.connection, error)
        os._exit(1)

    def _run(
        self, value: Application | Awaitable[object], new_event_loop: Callable[[], asyncio.AbstractEventLoop]
    ) -> None:
        try:
            with asyncio.Runner(loop_factory=new_event_loop) as runner:
                runner.get_loop()  # before there is a coroutine that would not be awaited
                runner.run(self._main(value))
        except HrPrometheusError:
            raise
        except OSError as error:
            raise ServingError(f"cannot start a worker: {error.strerror or error}.") from error
        finally:
            close_unawaited(value)

    async def _main(self, value: Application | Awaitable[object]) -> None:
        loop = asyncio.get_running_loop()
        await self.channel.connect(self.connection.dup())
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        serving = self.start_up = loop.create_task(self._serve(value))
        try:
            with self.application.failures(self.config.urls):
                await serving
        except asyncio.CancelledError:
            if not self.stopping.is_set():
                raise
        finally:
            self.channel.close()

    async def _serve(self, value: Application | Awaitable[object]) -> None:
        app = await self.application.prepare(value, metrics_path=self.config.metrics_path)
        arguments = run_app_arguments(self.application, self.arguments)
        tls, backlog = arguments.pop("ssl_context", None), arguments.pop("backlog", DEFAULT_BACKLOG)
        drain_seconds = arguments.pop("shutdown_timeout", DEFAULT_SHUTDOWN_TIMEOUT)
        drain_seconds = inf if drain_seconds is None else drain_seconds
        for name in ("handle_signals", "reuse_address", "reuse_port"):
            arguments.pop(name, None)
        reports = StopReports(self.channel, self.connection)
        runner = Runner(
            app,
            drain_seconds=drain_seconds,
            on_drain=reports.on_drain,
            on_cleanup=reports.on_cleanup,
            give_idle=self._give_idle,
            **arguments,
        )
        with self.own_sockets.watch(partial(os._exit, DISCONNECTED)):
            await runner.setup()
        assert runner.server is not None  # noqa: S101  # it is set up
        self.server = runner.server
        try:
            sockets = self._listen(backlog)
            check_descriptors(self.config.least_descriptors)
            factory = self.server if self.idle is None else watch_heads(self.server)
            acceptor = self.acceptor = Acceptor(factory, sockets, Counts(self.config.counts), self.config.slot, tls)
            self.start_up = None
            self.application.phase = RUNNING
            if self.max_requests is not None:
                self._watch_heads()
            acceptor.start()
            call_every(LOOK_SECONDS, start_look)
            loop = loop_name(asyncio.get_running_loop())
            self.channel.send("ready", [self.application.routes, self.application.notices, loop, native_mode(REGISTRY)])
            await self.stopping.wait()
            if self.is_replaced:  # other workers accept the connections that wait
                acceptor.stop()
                await acceptor.until_empty(min(REPLACE_SECONDS, drain_seconds))
            else:
                await acceptor.drain(min(HANDSHAKE_SECONDS, drain_seconds))
        finally:
            await runner.cleanup()
            with suppress(ConnectionError):
                kept = dump_exemplars(REGISTRY, self.latest_exemplar), recent_requests(REGISTRY).as_list()
                await self.channel.ask("keep", kept)

    def _listen(self, backlog: int) -> list[socket.socket]:
        """Listen: from now on clients are no longer refused."""
        # Without the option an inherited socket keeps the backlog that it was given.
        keeps_backlog = bool(self.settings.fds) and self.settings.backlog is None
        sockets = [socket.socket(fileno=descriptor) for descriptor in self.config.sockets]
        if self.config.idle:
            self.idle = IdleConnections(*self.config.idle)
            sockets.append(self.idle)
        for each in sockets:
            os.set_inheritable(each.fileno(), False)
            each.setblocking(False)
            if not (keeps_backlog and listens(each)):
                each.listen(backlog)
        return sockets

    def _watch_heads(self) -> None:
        app = self.application.app
        for recorder in filter(None, map(recorder_of, app.middlewares if app is not None else ())):
            recorder.on_head = self._on_head

    def _on_head(self, status: str, headers: CIMultiDict[str]) -> None:
        if self.is_replaced or self.is_paused:
            end_connection(status, headers)
        elif self.max_requests is not None and self.server.requests_count >= self.max_requests:
            self.max_requests = None
            self.channel.send("request limit reached")

    def _pause(self) -> None:
        """Accept no connections. They wait for the successor, and so do those that are idle, or are so later."""
        self.is_paused = True
        self._watch_heads()
        self.acceptor.pause()
        self._poll_idle()

    def _poll_idle(self) -> None:
        self._give_idle()
        if self.is_paused:
            asyncio.get_running_loop().call_later(_POLL_SECONDS, self._poll_idle)

    def _give_idle(self) -> None:
        if self.is_paused and self.idle is not None:
            self.idle.take_from(self.server)

    def stop(self) -> None:
        """Serve the requests in progress and end; called by signals, the supervisor, and its absence."""
        self.stopping.set()
        if self.start_up is not None:
            self.start_up.cancel()

    def _on_message(self, kind: str, _value: Any) -> None:
        if kind == "ping":
            self.channel.send("pong")
        elif kind == "pause" and not self.stopping.is_set():
            self._pause()
        elif kind == "resume" and not self.stopping.is_set():
            self.is_paused = False
            self.acceptor.start()
        elif kind in {"stop", "replace"}:
            self.is_replaced = kind == "replace"
            self.is_paused = self.is_paused and self.is_replaced  # else there is no successor that serves
            self._watch_heads()
            self.stop()

    async def _on_question(self, kind: str, value: Any) -> bytes:
        if kind == "recent":
            return json.dumps(recent_requests(REGISTRY).as_list()).encode()
        self.latest_exemplar = value
        await look_at_files()
        answers = await self.collectors.ask(slow_calls(), SLOW)  # a little less than the supervisor waits
        return json.dumps(dump(answers=answers, since=value)).encode()

    async def _recent(self) -> list[dict[str, Any]]:
        requests: list[dict[str, Any]] = json.loads(await self.channel.ask("recent"))
        return requests

    async def _scrape(self, accept: str, names: tuple[str, ...], is_gzip: bool) -> list[bytes]:
        body = await self.channel.ask("scrape", [accept, names, is_gzip])
        return [body[begin : begin + _PART] for begin in range(0, len(body), _PART)] or [body]
