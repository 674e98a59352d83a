"""Kills workers that do not start, or do not answer, in time; the log says what each of them was doing."""

from __future__ import annotations

import asyncio
import logging
import os
from typing import TYPE_CHECKING

from hr_prometheus.errors import ApplicationError
from hr_prometheus.multiprocess.identity import identifier
from hr_prometheus.settings import DEFAULT_BOOT_TIMEOUT, DEFAULT_WORKER_TIMEOUT
from hr_prometheus.workers.stacks import describe_blocked, describe_place, requests_in_progress
from hr_prometheus.workers.tasks import BackgroundTasks

if TYPE_CHECKING:
    from collections.abc import Collection

    from hr_prometheus.settings import Settings
    from hr_prometheus.workers.process import WorkerProcess

logger = logging.getLogger("hr_prometheus")


class Timeouts:
    """Those of *settings*, for workers whose numbers are in a *directory*. By default ``--reload`` has none: a debugger blocks."""

    def __init__(self, settings: Settings, directory: str) -> None:
        self._target, self._directory = settings.target, directory
        boot, worker = settings.boot_timeout, settings.worker_timeout
        self._boot_seconds = (0.0 if settings.reload else DEFAULT_BOOT_TIMEOUT) if boot is None else boot
        self._worker_seconds = (0.0 if settings.reload else DEFAULT_WORKER_TIMEOUT) if worker is None else worker
        self._tasks = BackgroundTasks()

    async def watch_boot(self, worker: WorkerProcess) -> None:
        """Fail a worker that does not serve in time, and kill it."""
        seconds = self._boot_seconds
        if not seconds:
            return
        await asyncio.wait([worker.boot], timeout=seconds)
        if worker.boot.done() or worker.reason or worker.failure is not None:
            return
        try:
            worker.failure = self._slow_boot_error("")  # it may end before it has written its stacks
            worker.failure = self._slow_boot_error(describe_place(await worker.give_up()))
        finally:
            worker.kill()

    def _slow_boot_error(self, place: str) -> ApplicationError:
        return ApplicationError(
            f'the application "{self._target}" has not started within {self._boot_seconds:g} s{place}. --boot-timeout allows '
            "more."
        )

    async def watch(self, workers: Collection[WorkerProcess]) -> None:
        """Kill *workers* that do not answer. Time in which this process did not run either does not count."""
        timeout = self._worker_seconds
        interval = min(1.0, timeout / 4)
        while timeout:
            await asyncio.sleep(interval)
            for worker in workers:
                if worker.is_serving and worker.unanswered * interval >= timeout:
                    self._tasks.start(self._kill_blocked(worker, timeout))
                elif worker.is_serving:
                    worker.ping()

    async def _kill_blocked(self, worker: WorkerProcess, seconds: float) -> None:
        try:
            requests = requests_in_progress(os.path.join(self._directory, identifier(worker.slot)))
            stacks = await worker.give_up()
            text = "Worker %d (pid %d) has not answered for %g s. %s"
            logger.error(text, worker.slot, worker.pid, seconds, describe_blocked(requests, stacks))
        finally:
            worker.kill()
