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
import traceback
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aiohttp import hdrs
from prometheus_client import REGISTRY

from hr_prometheus import errors
from hr_prometheus.errors import ApplicationError, HrPrometheusError, SettingError
from hr_prometheus.exposition import view
from hr_prometheus.exposition.collectors import SLOW, Collectors
from hr_prometheus.multiprocess.dump import dump, slow_calls
from hr_prometheus.multiprocess.identity import identifier
from hr_prometheus.multiprocess.value_class import enter_multiprocess_mode
from hr_prometheus.request.incomplete import SWITCHING_PROTOCOLS
from hr_prometheus.request.recorder import recorder_of
from hr_prometheus.server.addresses import tls_context
from hr_prometheus.server.loops import AUTO, loop_factory
from hr_prometheus.server.runner import InProgress, Runner
from hr_prometheus.server.setup import LISTENING, RUNNING, Preparation
from hr_prometheus.server.sockets import address_refused
from hr_prometheus.server.target import close_unawaited, load_target, parse_target
from hr_prometheus.settings import DEFAULT_BACKLOG, DEFAULT_KEEPALIVE_TIMEOUT, Settings
from hr_prometheus.store.files import store_in_files
from hr_prometheus.workers.acceptor import Acceptor, Counts
from hr_prometheus.workers.channel import Channel, encode, receive

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from aiohttp.web import Application
    from multidict import CIMultiDict

    from hr_prometheus.request.recorder import Recorder

#: Seconds for which the connections of a worker that is being replaced may go on until one is idle: meanwhile each
#: response tells its client to connect anew, so that no request meets a connection which is just being closed.
GENTLE_SECONDS = 1.0
#: Seconds that a worker which stops waits for TLS with the clients that it took last.
DRAIN_SECONDS = 1.0
_POLL_SECONDS = 0.02
#: Bytes of a scrape's body that are written at a time.
_PART = 65536


@dataclass(frozen=True, kw_only=True)
class Orders:
    """What the supervisor tells a worker before anything else."""

    slot: int
    directory: str
    settings: dict[str, Any]
    sockets: list[int]
    counts: int
    texts: list[str]
    shutdown_timeout: float
    max_requests: int | None = None
    metrics_path: str | None = None
    metrics_text: str = ""


def main() -> None:
    """Serve until the supervisor says otherwise, or is gone."""
    with socket.socket(fileno=int(sys.argv[1])) as connection:
        os.set_inheritable(connection.fileno(), False)
        try:
            _, orders = receive(connection)
        except EOFError:  # the supervisor is gone already
            return
        _serve(connection, orders)


def _serve(connection: socket.socket, orders: dict[str, Any]) -> None:
    try:
        _Worker(Orders(**orders), connection).run()
    except HrPrometheusError as error:
        if isinstance(error, ApplicationError) and error.__cause__ is not None:
            traceback.print_exception(error.__cause__)
        kind = next(each.__name__ for each in type(error).__mro__ if each.__module__ == errors.__name__)
        with suppress(OSError):
            connection.setblocking(True)
            arguments = error.args if type(error) is SettingError else (str(error),)
            connection.sendall(encode("failed", [kind, *arguments]))


class _Worker:
    def __init__(self, orders: Orders, connection: socket.socket) -> None:
        self.orders = orders
        self.settings = Settings.from_json(orders.settings)
        self.preparation = Preparation(self.settings)
        # The channel has a duplicate, so that a failure can still be told when the event loop is closed.
        self.connection = connection
        self.channel = Channel(self._notified, self._asked, self.stop)
        self.stopping = asyncio.Event()
        self.is_gentle = False
        self.booting: asyncio.Task[None] | None = None
        self.max_requests = orders.max_requests
        self.recorders: list[Recorder] = []
        self.collectors = Collectors(REGISTRY)

    def run(self) -> None:
        """Import the application and serve it."""
        settings = self.settings
        target = parse_target(settings.target)
        slot, directory = self.orders.slot, self.orders.directory
        enter_multiprocess_mode(directory, slot)
        store_in_files(os.path.join(directory, identifier(slot)), totals_at=self.orders.metrics_text)
        view.forward_to(self._scrape)
        value = load_target(target, settings.arguments, settings.app_dir)
        try:
            with asyncio.Runner(loop_factory=loop_factory(settings.loop or AUTO)) as loop:
                loop.run(self._main(value))
        finally:
            close_unawaited(value)

    async def _main(self, value: Application | Awaitable[object]) -> None:
        loop = asyncio.get_running_loop()
        await self.channel.connect(self.connection.dup())
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        serving = loop.create_task(self._serve(value))
        self.booting = serving
        try:
            await serving
        except HrPrometheusError:
            raise
        except asyncio.CancelledError:
            if not self.stopping.is_set():
                raise
        except Exception as error:
            if isinstance(error, OSError) and self.preparation.phase == LISTENING:
                raise address_refused(", ".join(self.orders.texts), error) from error
            raise self.preparation.failed(error) from error
        finally:
            self.channel.close()

    async def _serve(self, value: Application | Awaitable[object]) -> None:
        settings, orders = self.settings, self.orders
        app = await self.preparation.prepare(value, metrics_path=orders.metrics_path)
        self.recorders = [recorder for recorder in map(recorder_of, app.middlewares) if recorder is not None]
        if self.max_requests is not None:
            self._watch_heads()
        runner = Runner(
            app,
            patience=orders.shutdown_timeout,
            on_stop=self._draining,
            on_cleanup=lambda: self.channel.send("cleaning"),
            keepalive_timeout=(
                DEFAULT_KEEPALIVE_TIMEOUT if settings.keepalive_timeout is None else settings.keepalive_timeout
            ),
            **self.preparation.access_log({"access_log": None}),
        )
        await runner.setup()
        assert runner.server is not None  # noqa: S101  # it is set up
        self.server = runner.server
        try:
            acceptor = self._acceptor()
            self.booting = None
            self.preparation.phase = RUNNING
            acceptor.start()
            self.channel.send("ready", [self.preparation.routes, self.preparation.notices])
            await self.stopping.wait()
            if self.is_gentle:  # others take those that wait
                acceptor.stop()
                await self._last_responses(acceptor)
            else:
                await acceptor.drain(min(DRAIN_SECONDS, orders.shutdown_timeout))
        finally:
            await runner.cleanup()

    def _draining(self, requests: list[InProgress]) -> None:
        self.channel.send("draining", requests)

    async def _last_responses(self, acceptor: Acceptor) -> None:
        time = asyncio.get_running_loop().time
        end = time() + min(GENTLE_SECONDS, self.orders.shutdown_timeout)
        while acceptor.connections and time() < end:  # noqa: ASYNC110  # aiohttp has no event for it
            await asyncio.sleep(_POLL_SECONDS)

    def _acceptor(self) -> Acceptor:
        """Listen, which is when clients are no longer refused."""
        tls = tls_context(self.settings)
        sockets = [socket.socket(fileno=descriptor) for descriptor in self.orders.sockets]
        for each in sockets:
            os.set_inheritable(each.fileno(), False)
            each.setblocking(False)
            each.listen(self.settings.backlog or DEFAULT_BACKLOG)
        counts = Counts(self.orders.counts)
        return Acceptor(self.server, sockets, counts, self.orders.slot, tls)

    def _watch_heads(self) -> None:
        for recorder in self.recorders:
            recorder.on_head = self._on_head

    def _on_head(self, status: str, headers: CIMultiDict[str]) -> None:
        if self.is_gentle:
            if status != SWITCHING_PROTOCOLS:
                headers[hdrs.CONNECTION] = "close"
        elif self.max_requests is not None and self.server.requests_count >= self.max_requests:
            self.max_requests = None
            self.channel.send("worn")

    def stop(self) -> None:
        """Serve the requests in progress and end; called by signals, the supervisor, and its absence."""
        self.stopping.set()
        if self.booting is not None:
            self.booting.cancel()

    def _notified(self, kind: str, _value: Any) -> None:
        if kind == "ping":
            self.channel.send("pong")
        elif kind in ("stop", "replace"):
            self.is_gentle = kind == "replace"
            self._watch_heads()
            self.stop()

    async def _asked(self, _kind: str, _value: Any) -> bytes:
        answers = await self.collectors.ask(slow_calls(), SLOW)  # a little less than the supervisor waits
        return json.dumps(dump(answers=answers)).encode()

    async def _scrape(self, accept: str, names: tuple[str, ...], is_gzip: bool) -> list[bytes]:
        body = await self.channel.ask("scrape", [accept, names, is_gzip])
        return [body[begin : begin + _PART] for begin in range(0, len(body), _PART)] or [body]
