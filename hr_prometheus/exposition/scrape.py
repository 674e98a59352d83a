"""The queue of scrapes: one body is rendered at a time, beside the requests, and once for all scrapes that wait for it."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from time import perf_counter
from typing import TYPE_CHECKING

from aiohttp import hdrs
from aiohttp.web import HTTPServiceUnavailable

from hr_prometheus.errors import ConfigurationError
from hr_prometheus.exposition.client_model import Piece
from hr_prometheus.exposition.collectors import LIMIT, Collectors, report_failure
from hr_prometheus.exposition.compression import gzip
from hr_prometheus.exposition.loop_turn import await_turn
from hr_prometheus.exposition.snapshot import Snapshot
from hr_prometheus.metrics import ERRORS, SCRAPE_DURATION, SCRAPE_LINES
from hr_prometheus.store.failures import failures_of
from hr_prometheus.store.store import self_store

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable
    from typing import Protocol

    from prometheus_client import CollectorRegistry

    from hr_prometheus.exposition.formats import Collectable, Format

    class Registry(Collectable, Protocol):
        """A registry that can be rendered as a whole or in part."""

        def restricted_registry(self, names: Iterable[str]) -> Collectable:
            """Return the part with these samples."""


#: Seconds of rendering after which others get their turn.
_TURN = 0.0005
#: Seconds for which a thread that renders then sleeps: without that it would often take the GIL again before another wakes up.
_REST = 0.0005
#: How many bodies may be rendered or wait for that at a time. Scrapes that share one count once.
_MOST_WAITING = 32
#: About how many bytes a part of a body has.
_PART = 65536


class Scrapes:
    """The scrapes of one registry in one event loop. It renders one at a time.

    If *gather* is given, what it returns is rendered instead, and *registry* only has the metrics of the scrapes. The loop
    may run in a thread *beside* the application's loop.
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        gather: Callable[[], Awaitable[Registry]] | None = None,
        *,
        beside: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self._registry = registry
        self._gather = gather
        self._beside = beside
        self._collectors = Collectors(registry, beside)
        self._rendering = asyncio.Lock()
        self._tasks: dict[object, asyncio.Task[list[bytes]]] = {}

    async def body(self, form: Format, names: tuple[str, ...], *, is_gzip: bool) -> list[bytes]:
        """Return the metrics, or those with *names*, in parts; scrapes that come while they are rendered share them.

        A collector that raises loses what it has not yet yielded, and nothing else; it is logged once a kind and counted.
        Raises :exc:`~aiohttp.web.HTTPServiceUnavailable` if too many that share none are waiting.
        """
        key = (form, names, is_gzip)
        task = self._tasks.get(key)
        if task is None:
            if len(self._tasks) >= _MOST_WAITING:
                raise HTTPServiceUnavailable(
                    text=f"{len(self._tasks)} scrapes of other formats or names are waiting for their metrics already. "
                    "Scrape less often, or from fewer places.\n",
                    headers={hdrs.RETRY_AFTER: "1"},
                )
            task = self._tasks[key] = asyncio.create_task(self._render(form, names, is_gzip=is_gzip))
            task.add_done_callback(lambda task: self._forget(key, task))
        return await asyncio.shield(task)  # a client that leaves takes nothing from the others

    def _forget(self, key: object, task: asyncio.Task[list[bytes]]) -> None:
        del self._tasks[key]
        if not task.cancelled() and task.exception() is not None:  # raised to all who wait, if any are left
            failures_of(self._registry).count(ERRORS, "scrape")

    async def _render(self, form: Format, names: tuple[str, ...], *, is_gzip: bool) -> list[bytes]:
        began = perf_counter()
        async with self._rendering:
            if self._beside is not None:
                await await_turn(self._beside)
            rest = 0.0 if self._beside is None else _REST
            parts, lines = await _render_in_turns(form, await self._collect(names), rest)
            if is_gzip:
                parts = [await gzip(parts)]
        with suppress(ConfigurationError, OSError):  # the application may have taken a name; a disk may be full
            store = self_store(self._registry)
            store.observe(SCRAPE_DURATION, (), perf_counter() - began)
            if not names:
                page, index = store.allocate(SCRAPE_LINES, ())
                page[index] = float(lines)
        return parts

    async def _collect(self, names: tuple[str, ...]) -> Collectable:
        """Return what can be rendered without waiting: collectors that may be slow have been asked."""
        registry: Registry = self._registry
        with suppress(ConfigurationError, OSError):  # as above
            self_store(self._registry)  # is there, so that this scrape shows what is counted during it
        if self._gather is not None:
            registry = await self._gather()
        elif (snapshot := Snapshot(self._registry, names)).calls:
            snapshot.answers = await self._collectors.ask(snapshot.calls, LIMIT)
            for collector, answer in snapshot.answers.items():
                if answer.error is not None:
                    report_failure(collector, answer.error, self._registry)
            return snapshot
        return registry.restricted_registry(names) if names else registry


async def _render_in_turns(form: Format, registry: Collectable, rest: float) -> tuple[list[bytes], int]:
    """Return a body in parts, and the number of its lines, or of its metrics. Others run after each turn, for *rest* seconds or once."""
    parts: list[bytes] = []
    part, lines = bytearray(), 0
    turn = perf_counter()
    for piece in form.pieces(registry):
        lines += piece.number if isinstance(piece, Piece) else piece.count(b"\n")
        part += piece
        if len(part) >= _PART:
            parts.append(bytes(part))
            part.clear()
        if perf_counter() - turn > _TURN:
            await asyncio.sleep(rest)
            turn = perf_counter()
    if part or not parts:
        parts.append(bytes(part))
    return parts, lines
