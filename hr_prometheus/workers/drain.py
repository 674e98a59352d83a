"""Announces what a stop of the workers waits for."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import TYPE_CHECKING

from hr_prometheus.server.announcer import SLOW_CLEANUP
from hr_prometheus.server.in_progress import CLEANUP, Blockers, describe_requests

if TYPE_CHECKING:
    from collections.abc import Collection

    from hr_prometheus.server.announcer import Announcer
    from hr_prometheus.server.in_progress import RequestInProgress
    from hr_prometheus.workers.process import WorkerProcess

#: Seconds that the workers have to send their requests in progress.
_ANSWER_SECONDS = 0.5
_POLL_SECONDS = 0.02


async def announce_drain(announcer: Announcer, workers: Collection[WorkerProcess], seconds: float) -> None:
    """Announce the requests in progress that a stop of *workers* waits for, and then a clean-up that is slow.

    *seconds* is how long it waits for requests. A worker that does not answer in time is blocked, or busy with the
    connections that waited for it.
    """
    workers = [worker for worker in workers if worker.is_running]
    end = monotonic() + _ANSWER_SECONDS
    silent = workers
    while silent and monotonic() < end:
        await asyncio.sleep(_POLL_SECONDS)
        silent = [worker for worker in workers if worker.draining is None and worker.is_alive]
    requests = [request for worker in workers for request in worker.draining or ()]
    reasons = [describe_requests(requests)] * bool(requests)
    reasons += [f"worker {worker.slot}, whose event loop is busy" for worker in silent]
    if reasons and seconds:
        announcer.stopping(" and ".join(reasons), seconds)
    await _announce_slow_cleanup(announcer, workers)


async def _announce_slow_cleanup(announcer: Announcer, workers: Collection[WorkerProcess]) -> None:
    """Announce a clean-up that is slow, with what the workers wait for; one whose loop is blocked does not say it."""
    time = asyncio.get_running_loop().time
    slow: list[WorkerProcess] = []
    while not slow:
        await asyncio.sleep(_POLL_SECONDS)
        began = time() - SLOW_CLEANUP
        slow = [each for each in workers if each.is_alive and each.cleanup_began <= began]
    end = time() + _ANSWER_SECONDS
    while time() < end and any(each.blockers is None for each in slow):  # noqa: ASYNC110  # of any worker
        await asyncio.sleep(_POLL_SECONDS)
    requests: list[RequestInProgress] = []
    reasons: dict[str, list[str]] = {}
    for worker in slow:
        blockers = worker.blockers or Blockers([], [CLEANUP])
        requests += blockers.requests
        for reason in blockers.reasons:
            reasons.setdefault(reason, []).append(f"worker {worker.slot}")
    texts = [f"{reason} ({', '.join(names)})" for reason, names in reasons.items()]
    announcer.stopping(Blockers(requests, texts).describe(), max(each.stop_seconds for each in slow))
