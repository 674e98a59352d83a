"""The supervisor: binds the sockets, keeps the workers running, and renders every scrape. It imports no application."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import signal
from collections import Counter
from contextlib import ExitStack, suppress
from itertools import count
from typing import TYPE_CHECKING, Any

from hr_prometheus.errors import ServingError, SettingError
from hr_prometheus.exposition.view import check_metrics_path
from hr_prometheus.multiprocess.slots import Slots
from hr_prometheus.multiprocess.value_class import leave_multiprocess_mode
from hr_prometheus.server import interrupts
from hr_prometheus.server.addresses import Listening, take_addresses, tls_context
from hr_prometheus.server.loops import AUTO, chosen_name, loop_factory
from hr_prometheus.server.runner import CLEANUP_SECONDS
from hr_prometheus.server.setup import configure_logging
from hr_prometheus.server.sockets import bind_unix
from hr_prometheus.server.target import parse_target
from hr_prometheus.settings import DEFAULT_SHUTDOWN_TIMEOUT, DEFAULT_WORKER_TIMEOUT, MOST_WORKERS, sentence_of
from hr_prometheus.workers.acceptor import Counts
from hr_prometheus.workers.announcer import Announcer
from hr_prometheus.workers.backoff import FIRST_PAUSE, LONGEST_PAUSE, Pauses
from hr_prometheus.workers.process import STOP, WorkerProcess, describe_end
from hr_prometheus.workers.scrape import Scraping
from hr_prometheus.workers.terminal import Terminal

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from hr_prometheus.settings import Settings

logger = logging.getLogger("hr_prometheus")


def run(settings: Settings, announce: Callable[[str], None]) -> None:
    """Serve the target with ``settings.workers`` processes until SIGINT or SIGTERM.

    *announce* is called when all workers serve, and with a line for a slow start, for a stop that has to wait, and for
    its end. Raises what :func:`hr_prometheus.server.run.run` raises, if the first worker cannot serve or a worker fails when
    it is stopped.
    """
    if parse_target(settings.target).attribute is None:
        raise SettingError(
            "workers",
            "--workers",
            f': "{settings.target}" is a script, whose addresses are known only when it has run. Expected a '
            'target with an attribute, "module:attribute".',
        )
    check_metrics_path(settings.metrics_path)
    loop_factory(settings.loop or AUTO)
    tls_context(settings)
    configure_logging(settings.log_level)
    with interrupts.Raised(), ExitStack() as stack:
        listening = take_addresses(settings, {}, stack)
        for path in listening.paths:
            listening.sockets.append(bind_unix(path))
            stack.callback(listening.sockets[-1].close)
        counts = Counts(Counts.make())
        stack.callback(counts.close)
        slots = Slots(leave_multiprocess_mode())
        stack.callback(slots.remove)
        supervisor = Supervisor(settings, listening, slots, counts, announce)
        asyncio.run(supervisor.run())
        if supervisor.failure is not None:
            raise supervisor.failure


class Supervisor:
    """Keeps as many workers running as are wanted.

    A worker has a slot, by which its numbers are kept. One that has died is started again in its slot. One that is
    replaced on purpose ends when its successor, in a free slot, serves.
    """

    def __init__(
        self, settings: Settings, listening: Listening, slots: Slots, counts: Counts, announce: Callable[[str], None]
    ) -> None:
        self.settings, self.listening, self.announce = settings, listening, announce
        self.slots, self.counts = slots, counts
        #: By slot; one that has died is here until the next one in its slot is started.
        self.workers: dict[int, WorkerProcess] = {}
        self.restarts: Counter[tuple[int, str]] = Counter()
        self.failure: BaseException | None = None
        self.stopping, self.reloading = asyncio.Event(), asyncio.Event()
        self._scraping = Scraping(slots.path, self.workers, self.restarts)
        self._replacing = asyncio.Lock()
        self._pauses = Pauses(settings.workers or 1)
        self._tasks: set[asyncio.Task[None]] = set()
        timeout = settings.shutdown_timeout
        self._shutdown_timeout = DEFAULT_SHUTDOWN_TIMEOUT if timeout is None else timeout
        self._terminal = Terminal()

    async def run(self) -> None:
        """Serve until told to stop."""
        handlers = {
            signal.SIGCHLD: self._reap,
            signal.SIGTERM: self._stop,
            signal.SIGINT: self._interrupt,
            signal.SIGHUP: self._hang_up,
            signal.SIGTTIN: self._add,
            signal.SIGTTOU: self._remove,
        }
        if self._terminal.is_ignored:
            del handlers[signal.SIGHUP]
        for number, handler in handlers.items():
            asyncio.get_running_loop().add_signal_handler(number, handler)
        self._announcer = Announcer(self.announce, self._shutdown_timeout)
        self._spawn(self._terminal.watch())
        metrics = await self._scraping.serve(self.settings.metrics_path, self.listening.metrics_sockets)
        try:
            await self._boot()
            await self.stopping.wait()
        finally:
            self.stopping.set()
            while any(not worker.ended.done() for worker in self.workers.values()):
                for worker in self.workers.values():
                    self._end(worker, STOP)
                await asyncio.wait([worker.ended for worker in self.workers.values()])
            await metrics.cleanup()
            self._scraping.close()
        if self.failure is None:
            self._announcer.stopped()

    async def _boot(self) -> None:
        """Start the first worker, strictly, and then the others, patiently."""
        first = await self._start(0)
        if not await first.booted:
            self.failure = self.failure or first.failure
            self.stopping.set()
            return
        wanted = self.settings.workers or 1
        workers = [first] + [await self._start(slot) for slot in range(1, wanted)]
        for worker in workers:
            self._spawn(self._keep(worker))
        self._spawn(self._watch())
        self._spawn(self._reload_when_told())
        serving = sum(await asyncio.gather(*(worker.booted for worker in workers)))
        if not self.stopping.is_set():
            number = f"{serving} of {wanted} workers" if serving < wanted else f"{wanted} worker{'s' * (wanted != 1)}"
            routes = f"{first.routes} route{'s' * (first.routes != 1)}"
            line = self.listening.announcement(f"{self.settings.target} ({routes}, {number})")
            self._announcer.serving(line, chosen_name(self.settings.loop))
            for notice in first.notices:
                logger.warning("%s", notice)

    async def _start(self, slot: int) -> WorkerProcess:
        """Start a worker in a slot that is free, or whose worker has ended."""
        settings, limit = self.settings, self.settings.max_requests
        worker = self.workers[slot] = WorkerProcess(slot, self._asked, self._worn)
        if self.stopping.is_set():
            worker.reason = STOP
            worker.refuse(None)
            return worker
        sockets = [each.fileno() for each in self.listening.sockets]
        orders = {
            "slot": slot,
            "directory": self.slots.path,
            "settings": settings.to_json(),
            "sockets": sockets,
            "counts": self.counts.descriptor,
            "texts": self.listening.texts,
            "metrics_text": self.listening.metrics_text,
            "shutdown_timeout": self._shutdown_timeout,
            "max_requests": limit and limit + random.randint(0, limit // 10),  # noqa: S311  # no secret
            "metrics_path": None if self.listening.metrics_sockets else settings.metrics_path,
        }
        try:
            self.slots.reclaim(slot)
        except ServingError as error:
            worker.refuse(error)
        else:
            await worker.start(settings.target, orders, [*sockets, self.counts.descriptor])
        return worker

    async def _keep(self, worker: WorkerProcess) -> None:
        """Start a worker again and again in the slot of this one, until it is ended on purpose."""
        slot = worker.slot
        while True:
            code = await worker.ended
            if worker.failure is not None and worker.reason != STOP:
                logger.error("Worker %d has failed: %s", slot, self._describe(worker.failure))
            if worker.reason not in ("", "timeout"):
                break
            if worker.failure is None:
                logger.warning("Worker %d (pid %d) has ended, by %s.", slot, worker.pid, describe_end(code))
            pause = self._pause(worker)
            if pause > 0:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self.stopping.wait(), pause)
            if self.stopping.is_set() or self.workers.get(slot) is not worker:  # nobody wants it any more
                return
            self.restarts[slot, worker.reason or ("exit" if code >= 0 else "signal")] += 1
            worker = await self._start(slot)
        del self.workers[slot]
        if worker.reason == STOP:
            self.failure = self.failure or worker.failure

    def _pause(self, worker: WorkerProcess) -> float:
        """Return the seconds after which a worker that has ended is started again."""
        others = (each for each in self.workers.values() if each is not worker)
        # One that is just starting may serve soon, or is tried again by itself.
        others_serve = any(each.is_alive for each in others)
        now = asyncio.get_running_loop().time()
        return self._pauses.of(worker.slot, now, has_served=bool(worker.served_since), others_serve=others_serve)

    async def _replace(self, old: WorkerProcess, reason: str) -> bool:
        """Start the successor of a worker and then end it; if the successor cannot serve, nothing changes."""
        async with self._replacing:  # so that one slot more than there are workers is enough
            if not old.is_serving:
                return True
            successor = await self._start(self._free_slot())
            if not await successor.booted:
                del self.workers[successor.slot]
                if successor.failure is not None:
                    text = "Worker %d goes on, because its successor has failed: %s"
                    logger.error(text, old.slot, self._describe(successor.failure))
                return False
            self._spawn(self._keep(successor))
            if old.is_serving:
                self.restarts[old.slot, reason] += 1
                self._end(old, reason)
                await old.ended
            else:  # it has died meanwhile, and there is another one in its slot
                self._end(successor, reason)
            return True

    def _worn(self, worker: WorkerProcess) -> None:
        async def replace() -> None:
            pause = FIRST_PAUSE
            while not await self._replace(worker, "max-requests"):
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)

        self._spawn(replace())

    async def _reload_when_told(self) -> None:
        while True:
            await self.reloading.wait()
            self.reloading.clear()
            for worker in list(self.workers.values()):
                if not await self._replace(worker, "reload"):
                    break
            else:
                logger.info("All workers have been replaced.")

    async def _watch(self) -> None:
        """Replace workers which do not answer; time in which this process did not run either does not count."""
        timeout = self.settings.worker_timeout
        timeout = DEFAULT_WORKER_TIMEOUT if timeout is None else timeout
        interval = min(1.0, timeout / 4)
        while timeout:
            await asyncio.sleep(interval)
            for worker in self.workers.values():
                if worker.is_serving and worker.unanswered * interval >= timeout:
                    logger.error("Worker %d (pid %d) has not answered for %g s.", worker.slot, worker.pid, timeout)
                    worker.kill("timeout")
                elif worker.is_serving:
                    worker.ping()

    def _reap(self) -> None:
        """Reap every child, and as process 1 of a container every orphan."""
        with suppress(ChildProcessError):
            while (found := os.waitpid(-1, os.WNOHANG))[0]:
                for worker in self.workers.values():
                    if worker.is_alive and worker.pid == found[0]:
                        worker.reaped(found[1])
                        self.counts.clear(worker.slot)
                        with suppress(ServingError):  # the next start says so
                            self.slots.reclaim(worker.slot)

    def _interrupt(self) -> None:
        if not self._announcer.has_served:
            self.failure = KeyboardInterrupt()
        self._stop()

    def _hang_up(self) -> None:
        if not self._terminal.is_shared:
            self.reloading.set()
        elif not self.stopping.is_set():  # the shell and the system send one each
            self._stop()

    def _stop(self) -> None:
        if self.stopping.is_set():
            for worker in self.workers.values():
                worker.kill()
        else:
            self._spawn(self._announcer.stopping(self.workers.values()))
        self.stopping.set()
        for each in self.listening.sockets:
            each.close()
        for worker in self.workers.values():
            self._end(worker, STOP)

    def _add(self) -> None:
        async def add() -> None:
            await self._keep(await self._start(self._free_slot()))

        if len(self.workers) < MOST_WORKERS and not self.stopping.is_set():
            self._spawn(add())

    def _remove(self) -> None:
        staying = [worker for worker in self.workers.values() if worker.reason in ("", "timeout")]
        if len(staying) > 1:
            worker = max(staying, key=lambda each: each.slot)
            if worker.ended.done():  # it waits to be started again
                del self.workers[worker.slot]
            self._end(worker, "remove")

    def _end(self, worker: WorkerProcess, reason: str) -> None:
        worker.end(reason, CLEANUP_SECONDS + (self._shutdown_timeout if worker.served_since else 0.0))

    def _free_slot(self) -> int:
        return next(slot for slot in count() if slot not in self.workers)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _asked(self, _kind: str, value: Any) -> bytes:
        return b"".join(await self._scraping.scrape(*value))

    def _describe(self, failure: BaseException) -> str:
        """Return words for what became of a worker that could not serve."""
        if isinstance(failure, SystemExit):
            return f"it ended with exit code {failure.code}."
        return sentence_of(failure, self.settings.origins)
