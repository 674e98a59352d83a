"""The supervisor: boots the workers, answers signals, and renders every scrape. It imports no application."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
from typing import TYPE_CHECKING, Any

from prometheus_client import REGISTRY

from hr_prometheus.errors import ApplicationError, ServingError
from hr_prometheus.server.announcer import SLOW_START, serving_line, target_and_routes
from hr_prometheus.server.logs import log_notices
from hr_prometheus.store.bounds import OFF
from hr_prometheus.store.store import make_native
from hr_prometheus.workers.drain import announce_drain
from hr_prometheus.workers.pool import WorkerPool
from hr_prometheus.workers.process import RELOAD
from hr_prometheus.workers.reload import reload_at_saves, source_files
from hr_prometheus.workers.scrape import WorkerScrapes
from hr_prometheus.workers.tasks import BackgroundTasks, wait_for_any
from hr_prometheus.workers.terminal import Terminal

if TYPE_CHECKING:
    from hr_prometheus.multiprocess.slots import Slots
    from hr_prometheus.server.announcer import Announcer
    from hr_prometheus.server.bind import BoundAddresses
    from hr_prometheus.settings import Settings
    from hr_prometheus.workers.acceptor import Counts
    from hr_prometheus.workers.process import WorkerProcess

logger = logging.getLogger("hr_prometheus")

#: Seconds after which the supervisor looks again whether the directory of the numbers is there.
_DIRECTORY_SECONDS = 1.0


class Supervisor:
    """Boots the workers, and answers signals and scrapes, until it is stopped."""

    def __init__(
        self, settings: Settings, addresses: BoundAddresses, slots: Slots, counts: Counts, announcer: Announcer
    ) -> None:
        self._settings, self._slots, self._announcer = settings, slots, announcer
        self._announced_urls: list[str] = []
        self._pool = WorkerPool(settings, addresses, slots, counts, self._answer, on_slow_start=self._on_slow_start)
        make_native(REGISTRY, settings.native_histograms or OFF)  # for scrapes before a worker is ready
        self._scrapes = WorkerScrapes(slots.path, self._pool.workers, self._pool.restarts)
        self._tasks = BackgroundTasks()
        self._terminal = Terminal()

    @property
    def urls(self) -> list[str]:
        """Where the application is served."""
        return self._pool.addresses.urls

    @property
    def failure(self) -> BaseException | None:
        """The exception to end with; ``None`` for a stop."""
        return self._pool.failure

    async def run(self) -> None:
        """Serve until a signal."""
        handlers = {
            signal.SIGCHLD: self._reap,
            signal.SIGTERM: self._stop,
            signal.SIGINT: self._interrupt,
            signal.SIGHUP: self._hang_up,
            signal.SIGTTIN: self._pool.add,
            signal.SIGTTOU: self._pool.remove,
        }
        loop = asyncio.get_running_loop()
        self._announcer.manager.watch(loop)
        if self._terminal.is_ignored:
            del handlers[signal.SIGHUP]
        for number, handler in handlers.items():
            loop.add_signal_handler(number, handler)
        self._tasks.start(self._terminal.watch())
        if self._settings.reload:
            files = source_files(self._settings)  # before a worker reads them
            self._tasks.start(reload_at_saves(files, lambda: self._pool.has_failed, self._on_save))
        metrics = await self._scrapes.serve(
            self._settings, self._pool.addresses.metrics_sockets, self._announcer.is_serving
        )
        try:
            await self._boot()
            await self._pool.stopping.wait()
        finally:
            await self._pool.close()
            self._announcer.on_closing()
            await metrics.cleanup()
            self._scrapes.close()
        if self.failure is None and self._announcer.has_served:
            self._announcer.stopped()

    async def _boot(self) -> None:
        """Start the first worker, whose failure is an error, and then the others, which are tried again."""
        pool, number = self._pool, self._settings.workers or 1
        first = await self._boot_first()
        if first is None:
            return
        self._announcer.note_serving()
        workers = [first] + [await pool.start(slot) for slot in range(1, number)]
        for worker in workers:
            pool.keep(worker)
        self._tasks.start(pool.watch())
        self._tasks.start(self._reload())
        self._tasks.start(self._watch_directory())
        serving = sum(await asyncio.gather(*(worker.boot for worker in workers)))
        if not pool.stopping.is_set():
            count = f"{serving} of {number} workers" if serving < number else f"{number} worker{'s' * (number != 1)}"
            self._announce_serving(first, count)
            log_notices(first.notices)

    def _announce_serving(self, worker: WorkerProcess, count: str) -> None:
        what, addresses = target_and_routes(self._settings.target, worker.routes, count), self._pool.addresses
        metrics = addresses.where_metrics_are(self._settings)
        self._announced_urls = addresses.urls
        self._announcer.serving(serving_line(what, addresses.urls, metrics, worker.loop))

    async def _boot_first(self) -> WorkerProcess | None:
        """Start the first worker, whose failure is the end, unless the next save may repair it."""
        pool, reason = self._pool, ""
        while not await (worker := await pool.start(0, reason)).boot:
            if worker.reason == RELOAD:
                pool.reload_requested.clear()
                continue
            if not (self._settings.reload and isinstance(worker.failure, ApplicationError)):
                pool.failure = pool.failure or worker.failure
                pool.stopping.set()
                return None
            pool.has_failed = True
            self._announcer.note_failed_start()
            logger.error("The next save starts it again: %s", pool.describe(worker.failure))
            await wait_for_any(pool.stopping, pool.reload_requested)
            pool.reload_requested.clear()
            reason = RELOAD
        pool.has_failed = False
        return worker

    def _on_save(self, what: str) -> None:
        if not self._pool.stopping.is_set():
            self._announcer.reloading(what)
            self._pool.request_reload()

    def _on_slow_start(self, worker: WorkerProcess) -> None:
        self._announcer.reloading(
            f"waiting for the application's start-up in worker {worker.slot}, {SLOW_START:g} s so far"
        )

    async def _reload(self) -> None:
        while True:
            await self._pool.reload_requested.wait()
            self._pool.reload_requested.clear()
            self._announcer.begin_reload()
            has_failed = not await self._pool.reload()
            self._announcer.end_reload(has_failed=has_failed)
            serving = [worker for worker in self._pool.workers.values() if worker.is_serving]
            if serving and self._pool.addresses.urls != self._announced_urls:  # a script has asked for others
                self._announce_serving(serving[0], "1 worker")

    async def _watch_directory(self) -> None:
        """Make the directory of the numbers again when it was removed, and replace the workers, whose files are gone."""
        restored = 0
        while True:
            await asyncio.sleep(_DIRECTORY_SECONDS)
            try:
                self._scrapes.look()
                self._slots.restore()
                if self._slots.restored != restored:
                    restored = self._slots.restored
                    self._pool.request_reload()
            except ServingError as error:
                self._pool.failure = error
                self._pool.stop()
                return

    def _reap(self) -> None:
        self._scrapes.look()  # before the files of a worker that has ended are made fit for the next one
        self._pool.reap()
        self._scrapes.close_removed()

    def _interrupt(self) -> None:
        if not self._announcer.has_served:
            self._pool.failure = KeyboardInterrupt()
        if (
            self._terminal.is_shared
        ):  # it sends SIGINT to all that run in its foreground, but not to the workers' sessions
            self._pool.ends_children = True
        self._stop()

    def _hang_up(self) -> None:
        if not self._terminal.is_shared:
            self._pool.request_reload()
        elif not self._pool.stopping.is_set():  # the shell and the system send one each
            self._stop()

    def _stop(self) -> None:
        if self._pool.stopping.is_set():
            self._pool.kill()
        else:
            self._announcer.begin_stop()
            workers = self._pool.workers.values()
            self._tasks.start(announce_drain(self._announcer, workers, self._pool.drain_seconds))
            if not self._pool.addresses.metrics_sockets:  # else they can be reached to the end
                self._announcer.on_closing()
        self._pool.stop()

    async def _answer(self, kind: str, value: Any) -> bytes:
        if kind == "recent":
            return json.dumps(await self._scrapes.recent()).encode()
        if kind == "keep":
            self._scrapes.keep(*value)
            return b""
        return b"".join(await self._scrapes.scrape(*value))
