"""The requests in progress of a server, and what else keeps a process from its end: for the lines of a stop."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any, NamedTuple

from aiohttp.web import RequestHandler

from hr_prometheus.labels.resources import UNMATCHED, template

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aiohttp.web import Request, Server

#: How many requests in progress, or other reasons, are named.
_MOST_NAMED = 3
CLEANUP = "the application's clean-up"
#: Whether this version of aiohttp shows which connections are idle.
SHOWS_IDLE = all(hasattr(RequestHandler, name) for name in ("_waiter", "_messages", "_request_in_progress"))
#: The connections that have received only a part of a request's head, where that is watched.
partial_heads: set[RequestHandler] = set()


class RequestInProgress(NamedTuple):
    """A request in progress: its method, its route's template, and its age in seconds if that is known."""

    method: str
    path: str
    age: float | None


class Blockers(NamedTuple):
    """What keeps a process from its end: requests in progress, and words for anything else."""

    requests: list[RequestInProgress]
    reasons: list[str]

    def describe(self) -> str:
        """Return words for all of it."""
        texts = [describe_requests(self.requests)] * bool(self.requests) + self.reasons
        return " and ".join(texts[:_MOST_NAMED]) or "the application"


def requests_in_progress(server: Server) -> list[RequestInProgress]:
    """Return the requests that a server has begun to answer.

    They are read from aiohttp's connections: it has no public place for them, and to note each when it begins would
    cost every request. What another version of aiohttp does not show is left out.
    """
    now = asyncio.get_running_loop().time()
    requests = []
    for connection in server.connections:
        if getattr(connection, "_request_in_progress", False):
            try:
                variables = connection._task_handler.get_coro().cr_frame.f_locals  # type: ignore[union-attr]  # noqa: SLF001
                request, start = variables["request"], variables["start"]
            except (AttributeError, KeyError):
                request, start = getattr(connection, "_current_request", None), None
            requests.append(_in_progress(request, start, now))
    return requests


def is_waiting(connection: RequestHandler) -> bool:
    """Whether a connection waits for a request, or for the rest of its head.

    aiohttp has no public place for that either; in another version of it no connection may seem to. A request that has
    arrived is no longer among the messages, and not yet in progress, until its task runs; but then nothing waits for it.
    """
    waiter = getattr(connection, "_waiter", None)
    return waiter is not None and not waiter.done() and not getattr(connection, "_messages", True)


def idle_connections(server: Server) -> list[RequestHandler]:
    """Return the connections that wait for a request, their first or the next one, and have nothing left to send."""
    return [
        each
        for each in server.connections
        if is_waiting(each)
        and each not in partial_heads
        and each.transport is not None
        and not each.transport.get_write_buffer_size()
    ]


def is_busy(server: Server) -> bool:
    """Whether a server has connections that are open, or requests whose clients have left."""
    return any(
        each.transport is not None or getattr(each, "_request_in_progress", False) for each in server.connections
    )


def describe_requests(requests: Iterable[RequestInProgress]) -> str:
    """Return words for requests in progress: how many, and the oldest by name."""
    texts = [
        f"{each.method} {each.path}" + ("" if each.age is None else f", {each.age:.0f} s")
        for each in sorted(requests, key=lambda each: -(each.age or 0.0))
    ]
    named = "; ".join(texts[:_MOST_NAMED]) + ("; …" if len(texts) > _MOST_NAMED else "")
    return f"{len(texts)} request{'s' * (len(texts) != 1)} ({named})"


def blockers_of(loop: asyncio.AbstractEventLoop) -> Blockers:
    """Return what keeps a loop, or this process, from its end. It may be called in another thread."""
    requests, reasons = [], []
    for task in asyncio.all_tasks(loop):
        coroutine: Any = task.get_coro()
        frame = getattr(coroutine, "cr_frame", None)
        module = str(getattr(frame, "f_globals", {}).get("__name__") or getattr(coroutine, "__module__", ""))
        variables = {} if frame is None else frame.f_locals
        if module.startswith("aiohttp."):
            if "request" in variables and "start" in variables:  # the task of a connection
                requests.append(_in_progress(variables["request"], variables["start"], loop.time()))
        elif module.startswith("hr_prometheus."):
            reasons.append(CLEANUP)
        elif not module.startswith(("asyncio.", "uvloop.")):
            reasons.append(f"the task {getattr(coroutine, '__qualname__', task.get_name())}")
    if not (requests or reasons):
        threads = [each for each in threading.enumerate() if not (each.daemon or each is threading.main_thread())]
        # By this one the loop itself waits for the others.
        reasons = [f"the thread {each.name}" for each in threads if not each.name.endswith("(_do_shutdown)")]
    return Blockers(requests, list(dict.fromkeys(reasons)))


def _in_progress(request: Any, start: float | None, now: float) -> RequestInProgress:
    method = str(getattr(request, "method", "a request"))
    return RequestInProgress(method, _template(request), None if start is None else now - start)


def _template(request: Request) -> str:
    try:
        resource = request.match_info.route.resource
        return UNMATCHED if resource is None else template(resource)
    except Exception:  # noqa: BLE001  # a router of the application's own, or a request that has met none
        return UNMATCHED
