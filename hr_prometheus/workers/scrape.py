"""Answers scrapes in the supervisor: those of its own port, and those that the workers forward."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from aiohttp.web import AppRunner, HTTPServiceUnavailable
from prometheus_client import REGISTRY
from prometheus_client.core import Metric as Family

from hr_prometheus.access.guard import Guard
from hr_prometheus.exposition.formats import choose_format
from hr_prometheus.exposition.scrape import Scrapes
from hr_prometheus.exposition.view import make_view
from hr_prometheus.metrics import WORKER_RESTARTS, WORKER_UP
from hr_prometheus.multiprocess.collector import MultiProcessCollector
from hr_prometheus.multiprocess.identity import identifier
from hr_prometheus.server.metrics_routes import metrics_routes
from hr_prometheus.server.metrics_server import serve_metrics
from hr_prometheus.store.cells import ReadableAllocator
from hr_prometheus.store.store import allocators

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from hr_prometheus.metric import Metric
    from hr_prometheus.multiprocess.collector import Scrape
    from hr_prometheus.settings import Settings
    from hr_prometheus.workers.process import WorkerProcess

#: Seconds that a scrape waits for the workers' answers.
ANSWER_SECONDS = 0.5
#: How many requests a list of recent ones has, as in one process.
_MOST_RECENT = 200


class WorkerScrapes:
    """The scrapes of all *workers*, by slot, and of their *restarts*, by slot and reason."""

    def __init__(
        self, directory: str, workers: Mapping[int, WorkerProcess], restarts: Mapping[tuple[int, str], int]
    ) -> None:
        self._workers, self._restarts = workers, restarts
        # The supervisor's own counts are added to those of the workers.
        own_cells = allocators[REGISTRY] = ReadableAllocator()
        self._collector = MultiProcessCollector(directory, [self], own_cells=own_cells)
        self._scrapes = Scrapes(REGISTRY, self._gather)
        self._questions: dict[WorkerProcess, asyncio.Task[Any]] = {}
        #: The latest slow and failed requests of workers that have ended.
        self._recent: list[dict[str, Any]] = []

    def collect(self) -> Iterator[Family]:
        """Yield the metrics of the workers as the supervisor sees them."""
        up = _family(WORKER_UP)
        for slot, worker in sorted(self._workers.items()):
            up.add_sample(WORKER_UP.exported_name, {"worker": str(slot)}, float(worker.is_serving))
        yield up
        restarts = _family(WORKER_RESTARTS)
        for (slot, reason), number in sorted(self._restarts.items()):
            restarts.add_sample(WORKER_RESTARTS.exported_name, {"worker": str(slot), "reason": reason}, float(number))
        yield restarts

    async def scrape(self, accept: str, names: Collection[str], is_gzip: bool) -> list[bytes]:
        """Return the body of a scrape, in parts; raise :exc:`ConnectionError` if too many are waiting."""
        try:
            return await self._scrapes.body(choose_format(accept, names), tuple(names), is_gzip=is_gzip)
        except HTTPServiceUnavailable as error:
            raise ConnectionError((error.text or "").rstrip(".\n")) from None

    async def serve(
        self, settings: Settings, sockets: Sequence[socket.socket], is_serving: Callable[[], bool]
    ) -> AppRunner:
        """Serve scrapes on sockets of their own, until the result is cleaned up. *is_serving*: no stop has begun."""

        def is_ready() -> bool:
            return is_serving() and any(worker.is_serving for worker in self._workers.values())

        view = make_view(REGISTRY, self.scrape)
        routes = metrics_routes(settings, sockets, is_ready)
        return await serve_metrics(routes, view, sockets, self.recent, Guard(settings))

    async def recent(self) -> list[dict[str, Any]]:
        """Return the latest slow and failed requests, the latest first: of workers that have ended, or answer in time."""
        questions = [
            asyncio.ensure_future(worker.ask("recent")) for worker in self._workers.values() if worker.is_running
        ]
        answers: list[dict[str, Any]] = []
        if questions:
            done, late = await asyncio.wait(questions, timeout=ANSWER_SECONDS)
            for each in late:
                each.cancel()
            for each in done:
                with suppress(ConnectionError):
                    answers += json.loads(each.result())
        return _latest([*answers, *self._recent])

    def keep(self, exemplars: list[Any], requests: list[dict[str, Any]]) -> None:
        """Keep what a worker leaves: the exemplars that no scrape has asked for, and its latest slow and failed requests."""
        self._collector.keep_exemplars(exemplars)
        self._recent = _latest([*requests, *self._recent])

    def look(self) -> None:
        """Look at the workers' files: to be called every second, and when a worker has ended."""
        with suppress(OSError):  # the next scrape says what is wrong
            self._collector.look()

    def close_removed(self) -> None:
        """Close the removed files of workers that have ended: to be called when one was waited for."""
        self._collector.close_removed({identifier(each.slot) for each in self._workers.values() if each.is_alive})

    def close(self) -> None:
        """Close the files."""
        self._collector.close()

    async def _gather(self) -> Scrape:
        return self._collector.scrape(*await self._ask())

    async def _ask(self) -> tuple[dict[int, object], dict[int, int]]:
        """Return the workers' dumps by slot, and the pids of those that do not answer in time, or not yet.

        A worker that has not yet answered the last scrape is not asked again.
        """
        questions = {worker: self._question(worker) for worker in self._workers.values() if worker.is_running}
        if questions:
            await asyncio.wait(questions.values(), timeout=ANSWER_SECONDS)
        silent = {worker.slot: worker.pid for worker in self._workers.values() if worker.is_alive}
        dumps = {}
        for worker, question in questions.items():
            with suppress(asyncio.InvalidStateError, ConnectionError):
                dumps[worker.slot] = dump = json.loads(question.result())
                worker.latest_exemplar = max([worker.latest_exemplar, *(each[0] for each in dump["exemplars"])])
                silent.pop(worker.slot, None)
        return dumps, silent

    def _question(self, worker: WorkerProcess) -> asyncio.Task[bytes]:
        def forget(question: asyncio.Task[bytes]) -> None:
            del self._questions[worker]
            with suppress(asyncio.CancelledError):
                question.exception()  # retrieved, in case no scrape waits for it any more

        if worker not in self._questions:
            self._questions[worker] = question = asyncio.ensure_future(worker.ask("dump", worker.latest_exemplar))
            question.add_done_callback(forget)
        return self._questions[worker]


def _latest(requests: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the latest requests, the latest first. A worker that leaves may have answered with some before."""
    different = {json.dumps(each): each for each in requests}
    return sorted(different.values(), key=itemgetter("time"), reverse=True)[:_MOST_RECENT]


def _family(metric: Metric) -> Family:
    return Family(metric.name, metric.help, metric.type)
