"""Keeps the workers running: starts, restarts, replaces, watches and ends them."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import socket
from collections import Counter
from contextlib import suppress
from itertools import count
from typing import TYPE_CHECKING, Any

from hr_prometheus.errors import ServingError
from hr_prometheus.origins import sentence_of
from hr_prometheus.server.announcer import SLOW_START
from hr_prometheus.server.target import parse_target
from hr_prometheus.settings import DEFAULT_SHUTDOWN_TIMEOUT
from hr_prometheus.workers.backoff import FIRST_PAUSE, LONGEST_PAUSE, Backoff
from hr_prometheus.workers.config import WorkerConfig
from hr_prometheus.workers.descriptors import LEAST_DESCRIPTORS, LEAST_OF_SUCCESSOR
from hr_prometheus.workers.leftovers import end_group
from hr_prometheus.workers.process import (
    EXIT,
    MAX_REQUESTS,
    RELOAD,
    REMOVE,
    SIGNAL,
    STOP,
    TIMEOUT,
    WorkerProcess,
    describe_exit_code,
)
from hr_prometheus.workers.shared_file import create_shared_file
from hr_prometheus.workers.tasks import BackgroundTasks, wait_for_any
from hr_prometheus.workers.timeouts import Timeouts
from hr_prometheus.written_forms import MOST_WORKERS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from hr_prometheus.multiprocess.slots import Slots
    from hr_prometheus.server.bind import BoundAddresses
    from hr_prometheus.settings import Settings
    from hr_prometheus.workers.acceptor import Counts
    from hr_prometheus.workers.handover import ScriptSockets

logger = logging.getLogger("hr_prometheus")

#: How many workers may end in their own time while files are saved again and again.
_MOST_DRAINING = 16


class WorkerPool:
    """Keeps workers running until they are stopped. *on_question* answers their questions.

    *on_slow_start* is called with a worker that a reload has started, if its start is slow.

    A worker has a slot, by which its numbers are kept. One that has died is started again in its slot. One that is
    replaced on purpose ends when its successor, in a free slot, serves.
    """

    def __init__(
        self,
        settings: Settings,
        addresses: BoundAddresses,
        slots: Slots,
        counts: Counts,
        on_question: Callable[[str, Any], Awaitable[bytes]],
        *,
        on_slow_start: Callable[[WorkerProcess], None],
    ) -> None:
        self._settings, self._slots, self._counts = settings, slots, counts
        #: The path labels that the workers have admitted.
        self._labels = create_shared_file("labels")
        #: Those of a script are known when its first worker serves.
        self.addresses = addresses
        self._is_script = parse_target(settings.target).attribute is None
        self._script_request: dict[str, Any] | None = None
        self._on_question, self._on_slow_start = on_question, on_slow_start
        timeout = settings.shutdown_timeout
        #: Seconds that a stop waits for requests in progress.
        self.drain_seconds = DEFAULT_SHUTDOWN_TIMEOUT if timeout is None else timeout
        #: By slot; one that has died is here until the next one in its slot is started.
        self.workers: dict[int, WorkerProcess] = {}
        #: By slot and reason.
        self.restarts: Counter[tuple[int, str]] = Counter()
        #: Why a worker could not serve, or failed while all stopped.
        self.failure: BaseException | None = None
        self.stopping = asyncio.Event()
        #: How many workers were started.
        self._starts = 0
        #: Whether the last worker that was started could not serve.
        self.has_failed = False
        #: Whether a worker's end is also that of the processes which it has started, even if it was not killed.
        self.ends_children = settings.reload
        #: In which idle connections wait for the next worker.
        self._idle = socket.socketpair() if settings.reload else ()
        self._replacing = asyncio.Lock()
        self._successor: WorkerProcess | None = None  #: the last one that was started for a worker which is replaced
        self.reload_requested = asyncio.Event()
        #: Set by the next reload.
        self._reload_began = asyncio.Event()
        self._backoff = Backoff(settings.workers or 1)
        self._timeouts = Timeouts(settings, slots.path)
        self._tasks, self._leftovers = BackgroundTasks(), BackgroundTasks()

    async def start(self, slot: int, reason: str = "") -> WorkerProcess:
        """Start a worker in a slot that is free, or whose worker has ended, for a *reason*, if there is one."""
        on_sockets = self._on_sockets if self._is_script else None
        worker = self.workers[slot] = WorkerProcess(slot, self._on_question, self._on_request_limit, on_sockets)
        if self.stopping.is_set():
            worker.reason = STOP
            worker.fail(None)
            return worker
        try:
            self._slots.reclaim(slot)
        except ServingError as error:
            worker.fail(error)
            if not any(each.is_alive for each in self.workers.values()):  # clients would wait for none
                self.failure = self.failure or error
                self.stop()
        else:
            self._starts += 1
            await worker.start(self._settings.target, self._config(slot))
            self._tasks.start(self._timeouts.watch_boot(worker))
            if reason == RELOAD:
                asyncio.get_running_loop().call_later(SLOW_START, self._check_start, worker)
        return worker

    def _check_start(self, worker: WorkerProcess) -> None:
        if not (worker.boot.done() or worker.reason):
            self._on_slow_start(worker)

    def _config(self, slot: int) -> WorkerConfig:
        settings, addresses, limit = self._settings, self.addresses, self._settings.max_requests
        return WorkerConfig(
            slot=slot,
            directory=self._slots.path,
            settings=settings.to_json(),
            sockets=[each.fileno() for each in addresses.sockets],
            idle=[each.fileno() for each in self._idle],
            script_request=self._script_request,
            counts=self._counts.descriptor,
            labels=self._labels,
            urls=addresses.urls,
            metrics_url=addresses.metrics_url,
            metrics_path=None if addresses.metrics_sockets else settings.metrics_path,
            least_descriptors=LEAST_DESCRIPTORS if self._starts <= (settings.workers or 1) else LEAST_OF_SUCCESSOR,
            # A little more for each, so that not all are replaced at a time.
            max_requests=limit and limit + random.randint(0, limit // 10),  # noqa: S311  # no secret
        )

    def keep(self, worker: WorkerProcess) -> None:
        """Start a worker again and again in the slot of this one, until it is ended on purpose."""
        self._tasks.start(self._keep(worker))

    async def _keep(self, worker: WorkerProcess) -> None:
        slot, reload_began, cause = worker.slot, self._reload_began, EXIT
        while True:
            code = await worker.end
            waits_for_save = self._settings.reload and worker.will_restart and not worker.has_served
            if worker.failure is not None and worker.reason != STOP:
                hint = ", and is started again at the next save" if waits_for_save else ""
                logger.error("Worker %d has failed%s: %s", slot, hint, self.describe(worker.failure))
            if not worker.will_restart:
                break
            if worker.failure is None and worker.reason != RELOAD:
                logger.warning("Worker %d (pid %d) has ended, by %s.", slot, worker.pid, describe_exit_code(code))
            self.has_failed = self.has_failed or waits_for_save
            # A reload may bring what it has lacked.
            await wait_for_any(self.stopping, reload_began, seconds=None if waits_for_save else self._pause(worker))
            if self.stopping.is_set() or self.workers.get(slot) is not worker:  # it was removed meanwhile
                return
            if worker.pid:
                cause = worker.reason or (EXIT if code >= 0 else SIGNAL)
            reload_began = self._reload_began
            worker = await self.start(slot, RELOAD if waits_for_save else "")
            self.restarts[slot, cause] += bool(worker.pid)
        del self.workers[slot]
        if worker.reason == STOP:
            self.failure = self.failure or worker.failure

    def _pause(self, worker: WorkerProcess) -> float:
        """Return the seconds after which a worker that has ended is started again."""
        others = (each for each in self.workers.values() if each is not worker)
        # One that is just starting may serve soon, or is tried again by itself.
        others_serve = any(each.is_alive for each in others)
        now = asyncio.get_running_loop().time()
        return self._backoff.pause(worker.slot, now, has_served=worker.has_served, others_serve=others_serve)

    async def _replace(self, old: WorkerProcess, reason: str) -> bool:
        """Start the successor of a worker and then end it. Return whether it could: else the old one goes on."""
        async with self._replacing:  # so that one slot more than there are workers is enough
            if not old.is_serving:
                return True
            if self._settings.reload:
                old.pause()
            successor = self._successor = await self.start(self._free_slot(), reason)
            self.has_failed = not await successor.boot
            if self.has_failed:
                del self.workers[successor.slot]
                if self._settings.reload:
                    old.resume()
                if successor.failure is not None:
                    hint = " until the next save" if self._settings.reload else ""
                    text = "Worker %d keeps running%s, because its successor has failed: %s"
                    logger.error(text, old.slot, hint, self.describe(successor.failure))
                return False
            self.keep(successor)
            if old.is_serving:
                self.restarts[old.slot, reason] += 1
                old.stop(reason, self.drain_seconds)
                if not self._settings.reload or len(self.workers) > _MOST_DRAINING:
                    await old.end
            else:  # it has died meanwhile, and there is another one in its slot
                successor.stop(reason, self.drain_seconds)
            return True

    async def reload(self) -> bool:
        """Replace the workers, one after the other, and return whether all were. If one was not, the others are not tried.

        If its successor has hung, it and they are tried later.
        """
        self._reload_began.set()
        self._reload_began = asyncio.Event()
        workers = list(self.workers.values())
        for number, worker in enumerate(workers):
            if not await self._replace(worker, RELOAD):
                has_hung = self._successor is not None and self._successor.reason == TIMEOUT
                if has_hung and not self._settings.reload:
                    await wait_for_any(self.stopping, self.reload_requested, seconds=FIRST_PAUSE)
                    if not self.reload_requested.is_set():
                        self._tasks.start(self._replace_in_the_end(workers[number:], RELOAD))
                return False
        logger.log(logging.DEBUG if self._settings.reload else logging.INFO, "All workers have been replaced.")
        return True

    async def _replace_in_the_end(self, workers: Sequence[WorkerProcess], reason: str) -> None:
        """Replace *workers*, trying again after longer and longer pauses. A reload gives way to a further one."""
        reload_began = self._reload_began
        for worker in workers:
            pause = FIRST_PAUSE
            while not await self._replace(worker, reason):
                await wait_for_any(self.stopping, self._reload_began, seconds=pause)
                if self.stopping.is_set() or (reason == RELOAD and reload_began.is_set()):
                    return
                pause = min(2 * pause, LONGEST_PAUSE)

    def request_reload(self) -> None:
        """Have the workers replaced. Those that are still starting begin anew, since what they start is out of date."""
        self.reload_requested.set()
        for worker in self.workers.values():
            if not worker.boot.done():
                worker.stop(RELOAD, self.drain_seconds)

    def _on_sockets(self, bound: ScriptSockets) -> None:
        """Keep the sockets of a script for the next worker, in place of those that it has asked for before."""
        self.addresses, self._script_request = bound.succeed(self.addresses), bound.request
        if self.stopping.is_set():
            for each in bound.sockets:
                each.close()

    def _on_request_limit(self, worker: WorkerProcess) -> None:
        self._tasks.start(self._replace_in_the_end([worker], MAX_REQUESTS))

    def add(self) -> None:
        """Start one more worker, if there may be one."""

        async def add() -> None:
            self.keep(await self.start(self._free_slot()))

        if len(self.workers) < MOST_WORKERS and not self.stopping.is_set():
            self._tasks.start(add())

    def remove(self) -> None:
        """End the worker with the highest slot, unless it is the last one."""
        candidates = [each for each in self.workers.values() if each.boot.done() or each is not self._successor]
        staying = [worker for worker in candidates if worker.will_restart]
        if len(staying) > 1:
            worker = max(staying, key=lambda each: each.slot)
            if worker.end.done():  # it waits to be started again
                del self.workers[worker.slot]
            worker.stop(REMOVE, self.drain_seconds)

    def _free_slot(self) -> int:
        return next(slot for slot in count() if slot not in self.workers)

    async def watch(self) -> None:
        """Kill workers that do not answer."""
        await self._timeouts.watch(self.workers.values())

    def reap(self) -> None:
        """Reap every child that has ended, and as process 1 of a container every orphan."""
        with suppress(ChildProcessError):
            while (child := os.waitpid(-1, os.WNOHANG))[0]:
                pid, status = child
                for worker in self.workers.values():
                    if worker.is_alive and worker.pid == pid:
                        worker.reap(status)
                        if self.ends_children or os.WIFSIGNALED(status):
                            self._leftovers.start(end_group(pid))
                        self._counts.clear(worker.slot)
                        with suppress(ServingError):  # the next start raises it again
                            self._slots.reclaim(worker.slot)

    def stop(self) -> None:
        """Have all workers end. Clients are refused from now on."""
        self.stopping.set()
        for each in self.addresses.sockets:
            each.close()
        for worker in self.workers.values():
            worker.stop(STOP, self.drain_seconds)

    def kill(self) -> None:
        """Kill all workers."""
        for worker in self.workers.values():
            worker.kill()

    async def close(self) -> None:
        """Stop, and wait until all workers have ended, those that are only being started, and what they leave behind."""
        self.stopping.set()
        while any(not worker.end.done() for worker in self.workers.values()):
            for worker in self.workers.values():
                worker.stop(STOP, self.drain_seconds)
            await asyncio.wait([worker.end for worker in self.workers.values()])
        if self._leftovers:
            await asyncio.wait(self._leftovers)
        for each in self._idle:
            each.close()
        os.close(self._labels)

    def describe(self, failure: BaseException) -> str:
        """Return words for what kept a worker from serving."""
        if isinstance(failure, SystemExit):
            return f"it ended with exit code {failure.code}."
        return sentence_of(failure, self._settings.origins)
