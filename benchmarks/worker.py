"""The process in which variants are measured: each environment has its own, and so its own bare application."""

from __future__ import annotations

import asyncio
import gc
import logging
import random
import sys
import time
import tracemalloc
from dataclasses import dataclass
from itertools import cycle, islice
from typing import TYPE_CHECKING

from aiohttp import web
from commands import obey
from prometheus_client import generate_latest
from variants import ANSWERED, BUILDERS, Variant, paths
from wire import Wire, get, lines

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from prometheus_client import CollectorRegistry

_TICK = 0.001  # seconds
_WARM = 10  # requests before those that are measured


@dataclass
class Subject:
    """A running variant, its connection, and what it is asked."""

    wire: Wire
    requests: Iterator[bytes]
    registry: CollectorRegistry
    asked: Sequence[bytes] = ()


class Worker:
    """What a driver can ask for. Times are of the processor, so that a busy neighbour is not measured."""

    def __init__(self) -> None:
        self._subjects: dict[tuple[str, str], Subject] = {}
        self._chance = random.Random(1)  # noqa: S311  # it orders rounds
        self._longest = 0.0
        self._ticker: asyncio.Task[None] | None = None

    async def prepare(self, variant: str, case: str, routes: int = 0) -> None:
        """Start a variant, and ask it once for each of its paths."""
        what = Variant(fixed=case == "fixed", routes=routes, budget=10**6 if case == "scrape" else 100)
        wire = await Wire.to(BUILDERS[variant](what))
        asked = [] if case == "scrape" else [get(path) for path in paths(case, routes)]
        self._subjects[variant, case] = Subject(wire, cycle(asked), what.registry, asked)
        await wire.exchange(asked)

    async def forget(self) -> None:
        """Stop all variants."""
        for subject in self._subjects.values():
            await subject.wire.runner.cleanup()
        self._subjects.clear()
        gc.enable()
        gc.unfreeze()

    async def rounds(self, case: str, requests: int, count: int) -> dict[str, list[float]]:
        """Return the seconds that a request takes in each of *count* rounds, for each variant of a case."""
        if gc.isenabled():
            gc.collect()
            gc.freeze()  # what is there stays there, and a collection between the rounds is short
            gc.disable()
        order = [(variant, subject) for (variant, of), subject in self._subjects.items() if of == case]
        found: dict[str, list[float]] = {variant: [] for variant, _ in order}
        for _ in range(count):
            self._chance.shuffle(order)  # whoever comes before leaves its traces in the caches
            for variant, subject in order:
                await subject.wire.exchange(islice(subject.requests, _WARM))
                batch = list(islice(subject.requests, requests))
                began = time.process_time()
                await subject.wire.exchange(batch)
                found[variant].append((time.process_time() - began) / requests)
            gc.collect()
        return found

    async def fill(self, variant: str, wanted: int) -> int:
        """Make paths known until a scrape has that many lines, and return how many it has."""
        subject = self._subjects[variant, "scrape"]
        count, found = max(10, len(subject.asked)), 0
        for _ in range(3):  # a path more is so many lines more, roughly
            subject.asked = [get(f"/cell_neighbour/{cell}/direction/north") for cell in range(count)]
            await subject.wire.exchange(subject.asked)
            found = lines(await subject.wire.scrape())
            count = max(count, round(count * wanted / found))
        return found

    async def change(self, variant: str) -> None:
        """Ask once for each path, so that no series is as the last scrape had it."""
        subject = self._subjects[variant, "scrape"]
        await subject.wire.exchange(subject.asked)

    async def scrape(self, variant: str) -> tuple[float, int]:
        """Return the seconds of a GET of the metrics, and its lines."""
        wire = self._subjects[variant, "scrape"].wire
        began = time.process_time()
        body = await wire.scrape()
        return time.process_time() - began, lines(body)

    async def generate(self, variant: str) -> tuple[float, int]:
        """Return the seconds that prometheus_client needs for the text of the registry, and its lines."""
        registry = self._subjects[variant, "scrape"].registry
        began = time.process_time()
        body = generate_latest(registry)
        return time.process_time() - began, lines(body)

    async def serve(self, variant: str, case: str) -> int:
        """Serve a prepared variant on loopback, and return the port."""
        site = web.TCPSite(self._subjects[variant, case].wire.runner, "127.0.0.1", 0, backlog=1024)
        await site.start()
        port: int = self._subjects[variant, case].wire.runner.addresses[0][1]
        return port

    async def served(self) -> tuple[int, float]:
        """Return how many requests were answered so far, and the seconds that the process has worked."""
        return ANSWERED[0], time.process_time()

    async def watch(self) -> None:
        """Begin to look for the longest gap between two turns of the loop."""

        async def tick() -> None:
            last = time.perf_counter()
            while True:
                await asyncio.sleep(_TICK)
                now = time.perf_counter()
                self._longest, last = max(self._longest, now - last), now

        self._ticker = asyncio.create_task(tick())

    async def longest(self) -> float:
        """Return the longest gap since the last call, in seconds; about a millisecond is the ticker's own."""
        await asyncio.sleep(2 * _TICK)  # a gap which has not ended counts
        found, self._longest = self._longest, 0.0
        return found

    async def memory(self, variant: str, count: int) -> float:
        """Return the bytes that a series takes: those that *count* paths more are kept in, for each line of a scrape."""
        warm, asked = ([get(f"/cell_neighbour/{cell}/direction/{way}") for cell in range(count)] for way in "ab")
        wires = [await Wire.to(BUILDERS[name](Variant(budget=10**6))) for name in ("bare", variant)]
        for wire in wires:
            await wire.exchange(warm[:100])
        before = lines(await wires[1].scrape())
        tracemalloc.start()
        await wires[0].exchange(asked)  # aiohttp keeps the latest URLs, with and without metrics
        gc.collect()
        began = tracemalloc.get_traced_memory()[0]
        await wires[1].exchange(asked)
        after = lines(await wires[1].scrape())
        gc.collect()
        taken = tracemalloc.get_traced_memory()[0] - began
        tracemalloc.stop()
        return taken / (after - before)

    async def kept(self, variant: str, requests: int) -> tuple[int, int]:
        """Answer that many requests, most of them over the budget; return the memory (kB) and the blocks in use."""
        subject = self._subjects[variant, "folded"]
        for _ in range(requests // 1000):
            await subject.wire.exchange(islice(subject.requests, 1000))
        gc.collect()
        return _resident(), sys.getallocatedblocks()


def _resident() -> int:
    """Return the memory of this process, in kB."""
    with open("/proc/self/status", encoding="ascii") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))


if __name__ == "__main__":
    logging.getLogger("hr_prometheus").setLevel(logging.ERROR)  # it warns of the budget that is meant to be spent
    asyncio.run(obey(Worker()))
