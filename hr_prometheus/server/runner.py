"""aiohttp's runner with a stop that keeps to its time, and knows what it waits for."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any, NamedTuple

from aiohttp.web import AppRunner, BaseRunner

from hr_prometheus.labels.resources import UNMATCHED, template

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from aiohttp.web import Application, Request, Server

#: aiohttp's own time for requests in progress, which begins when ours has ended. It takes 0 as: without end.
_NEXT_TO_NOTHING = 0.001
#: Seconds for the application's clean-up, behind those for the requests in progress.
CLEANUP_SECONDS = 5.0
#: How many requests in progress are named.
_NAMED = 3
#: Turns of the event loop within which a connection that was taken is set up, and a request that has arrived begins.
_TURNS = 10


class InProgress(NamedTuple):
    """A request in progress: its method, its route's template, and its age in seconds if that is known."""

    method: str
    path: str
    age: float | None


class Runner(AppRunner):
    """A runner of ours. Its stop waits for requests in progress for *patience* seconds in all, or until it is hurried.

    aiohttp alone takes up to twice its ``shutdown_timeout``, and rounds it up. *on_stop* is called when the stop begins,
    with the requests that it waits for, and *on_cleanup* when only the application's clean-up is left.
    """

    setup = BaseRunner.setup  # not that of AppRunner, which is replaced while a script runs

    def __init__(
        self,
        app: Application,
        *,
        patience: float = 0.0,
        on_stop: Callable[[list[InProgress]], None] = lambda _requests: None,
        on_cleanup: Callable[[], None] = lambda: None,
        **arguments: Any,
    ) -> None:
        super().__init__(app, shutdown_timeout=_NEXT_TO_NOTHING, **arguments)
        self._patience, self._on_stop, self._on_cleanup = patience, on_stop, on_cleanup
        self._hurried = asyncio.Event()
        self.is_waiting = False

    def hurry(self) -> None:
        """Give up the requests in progress."""
        self._hurried.set()

    async def cleanup(self) -> None:
        """Stop. What was taken last is answered, if it has arrived; idle connections are closed.

        A connection that aiohttp closes before it is set up stays open, and is waited for in vain.
        """
        for site in self.sites:
            await site.stop()
        for _ in range(_TURNS):
            await asyncio.sleep(0)
        await super().cleanup()

    async def shutdown(self) -> None:
        """Let the application close what it keeps open, and wait for requests in progress."""
        assert self.server is not None  # noqa: S101  # it is set up
        time = asyncio.get_running_loop().time
        end = time() + self._patience
        self._on_stop(requests_in_progress(self.server))
        await super().shutdown()
        if self._patience:
            self.is_waiting = True
            await self._wait(self.server, max(0.0, end - time()))
            self.is_waiting = False
        self._on_cleanup()

    async def _wait(self, server: Server, seconds: float) -> None:
        tasks = [asyncio.ensure_future(each) for each in (server.shutdown(None), self._hurried.wait())]
        try:
            await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


def requests_in_progress(server: Server) -> list[InProgress]:
    """Return the requests that a server has begun to answer, the oldest first.

    They are read from aiohttp's connections: it has no public place for them, and to note each when it begins would
    cost every request. What another aiohttp does not show is left out.
    """
    now = asyncio.get_running_loop().time()
    found = []
    for connection in server.connections:
        if getattr(connection, "_request_in_progress", False):
            try:
                variables = connection._task_handler.get_coro().cr_frame.f_locals  # type: ignore[union-attr]  # noqa: SLF001
                request, start = variables["request"], variables["start"]
            except (AttributeError, KeyError):
                request, start = getattr(connection, "_current_request", None), None
            found.append(_in_progress(request, start, now))
    return sorted(found, key=lambda each: -(each.age or 0.0))


def _in_progress(request: Any, start: float | None, now: float) -> InProgress:
    method = str(getattr(request, "method", "a request"))
    return InProgress(method, _template(request), None if start is None else now - start)


def hanging(loop: asyncio.AbstractEventLoop) -> str:
    """Return words for what keeps a loop, or this process, from its end. It may be called in another thread."""
    requests, parts = [], []
    for task in asyncio.all_tasks(loop):
        coroutine: Any = task.get_coro()
        frame = getattr(coroutine, "cr_frame", None)
        module = "" if frame is None else str(frame.f_globals.get("__name__"))
        variables = {} if frame is None else frame.f_locals
        if module.startswith("aiohttp."):
            if "request" in variables and "start" in variables:  # the task of a connection
                requests.append(_in_progress(variables["request"], variables["start"], loop.time()))
        elif module.startswith("hr_prometheus."):
            parts.append("the application's clean-up")
        elif not module.startswith("asyncio."):
            parts.append(f"the task {getattr(coroutine, '__qualname__', task.get_name())}")
    parts = [described(requests)] * bool(requests) + list(dict.fromkeys(parts))
    if not parts:
        main = threading.main_thread()
        parts = [f"the thread {each.name}" for each in threading.enumerate() if not (each.daemon or each is main)]
    return " and ".join(parts[:_NAMED]) or "the application"


def _template(request: Request) -> str:
    try:
        resource = request.match_info.route.resource
        return UNMATCHED if resource is None else template(resource)
    except Exception:  # noqa: BLE001  # a router of the application's own, or a request that has met none
        return UNMATCHED


def described(requests: Iterable[InProgress]) -> str:
    """Return words for requests in progress: how many, and the oldest by name."""
    texts = [
        f"{each.method} {each.path}" + ("" if each.age is None else f", {each.age:.0f} s")
        for each in sorted(requests, key=lambda each: -(each.age or 0.0))
    ]
    named = "; ".join(texts[:_NAMED]) + ("; …" if len(texts) > _NAMED else "")
    return f"{len(texts)} request{'s' * (len(texts) != 1)} ({named})"
