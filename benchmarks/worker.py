"""The process in which variants are measured: each environment has its own, and so its own bare application."""

from __future__ import annotations

import asyncio
import gc
import logging
import random
import socket
import sys
import time
import tracemalloc
from contextlib import AsyncExitStack
from dataclasses import dataclass
from itertools import cycle, islice
from typing import TYPE_CHECKING

from aiohttp import web
from calls import Calls
from commands import obey
from prometheus_client import generate_latest
from variants import ANSWERED, Variant, make_runner, requests
from wire import Loop, Wire, get, lines

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from prometheus_client import CollectorRegistry

_TICK = 0.001  # seconds
_WARM = 10  # requests before those that are measured


@dataclass
class Subject:
    """A running variant: a connection to it, its different requests, and these again and again."""

    wire: Wire
    registry: CollectorRegistry
    different: Sequence[bytes]
    endless: Iterator[bytes]


class Worker:
    """The methods that a driver calls. Times are of the processor, so that a busy neighbour is not measured."""

    def __init__(self) -> None:
        self._subjects: dict[tuple[str, str], Subject] = {}
        self._calls: dict[str, Calls] = {}
        self._random = random.Random(1)  # noqa: S311  # it orders rounds
        self._longest = 0.0
        self._ticker: asyncio.Task[None] | None = None
        self._stack = AsyncExitStack()

    async def prepare(self, variant: str, case: str, routes: int = 0) -> None:
        """Start a variant, and send each of its requests once."""
        options = Variant(case, routes=routes, budget=10**6 if case == "scrape" else 100)
        wire = await Wire.to(make_runner(variant, options))
        different = [] if case == "scrape" else requests(case, routes)
        self._subjects[variant, case] = Subject(wire, options.registry, different, cycle(different))
        await wire.exchange(different)

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
            gc.freeze()  # so that a collection between the rounds is short
            gc.disable()
        order = [(variant, subject) for (variant, of), subject in self._subjects.items() if of == case]
        times: dict[str, list[float]] = {variant: [] for variant, _ in order}
        for _ in range(count):
            self._random.shuffle(order)  # each leaves traces in the processor's caches for the next
            for variant, subject in order:
                await subject.wire.exchange(islice(subject.endless, _WARM))
                batch = list(islice(subject.endless, requests))
                began = time.process_time()
                await subject.wire.exchange(batch)
                times[variant].append((time.process_time() - began) / requests)
            gc.collect()
        return times

    async def prepare_calls(self, variant: str) -> None:
        """Start a client, and send its first request."""
        calls = self._calls[variant] = await Calls.prepare(variant)
        await calls.send(_WARM)

    async def calls(self, requests: int) -> dict[str, float]:
        """Return the seconds that a request takes with each client, in one round."""
        times = {}
        for variant, calls in self._random.sample(list(self._calls.items()), len(self._calls)):
            await calls.send(_WARM)
            began = time.process_time()
            await calls.send(requests)
            times[variant] = (time.process_time() - began) / requests
        return times

    async def fill(self, variant: str, number: int) -> None:
        """Request more and more paths until a scrape has about that number of lines."""
        subject = self._subjects[variant, "scrape"]
        count = max(10, len(subject.different))
        for _ in range(3):  # each path has about as many lines
            subject.different = [get(f"/cell_neighbour/{cell}/direction/north") for cell in range(count)]
            await subject.wire.exchange(subject.different)
            count = max(count, round(count * number / lines(await subject.wire.scrape())))

    async def change(self, variant: str) -> None:
        """Request each path once, so that every series differs from the last scrape's."""
        subject = self._subjects[variant, "scrape"]
        await subject.wire.exchange(subject.different)

    async def scrape(self, variant: str) -> tuple[float, int]:
        """Return the seconds of a GET of the metrics, and its lines."""
        wire = self._subjects[variant, "scrape"].wire
        began = time.process_time()
        body = await wire.scrape()
        return time.process_time() - began, lines(body)

    async def generate(self, variant: str) -> tuple[float, int]:
        """Return the seconds in which prometheus_client renders the registry as text, and its lines."""
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

    async def serve_metrics(self, variant: str, case: str) -> int:
        """Serve the metrics of a prepared variant on loopback as --metrics-port does, and return the port."""
        from hr_prometheus.server.metrics_routes import MetricsRoutes
        from hr_prometheus.server.metrics_server import metrics_thread

        sock = socket.create_server(("127.0.0.1", 0))
        registry = self._subjects[variant, case].registry
        await self._stack.enter_async_context(metrics_thread(MetricsRoutes("/metrics", lambda: True), [sock], registry))
        port: int = sock.getsockname()[1]
        return port

    async def served(self) -> tuple[int, float]:
        """Return how many requests were answered so far, and the seconds that the process has worked."""
        return ANSWERED[0], time.process_time()

    async def watch(self) -> None:
        """Begin to note the longest gap between two turns of the loop."""

        async def tick() -> None:
            last = time.perf_counter()
            while True:
                await asyncio.sleep(_TICK)
                now = time.perf_counter()
                self._longest, last = max(self._longest, now - last), now

        self._ticker = asyncio.create_task(tick())

    async def longest(self) -> float:
        """Return the longest gap since the last call, in seconds; about a millisecond is the ticker's own."""
        await asyncio.sleep(2 * _TICK)  # so that a gap which has not ended counts
        longest, self._longest = self._longest, 0.0
        return longest

    async def memory(self, variant: str, count: int) -> float:
        """Return the bytes that *count* further paths take, for each line of a scrape that they add."""
        warm, new = ([get(f"/cell_neighbour/{cell}/direction/{way}") for cell in range(count)] for way in "ab")
        wires = [await Wire.to(make_runner(name, Variant(budget=10**6))) for name in ("bare", variant)]
        for wire in wires:
            await wire.exchange(warm[:100])
        before = lines(await wires[1].scrape())
        tracemalloc.start()
        await wires[0].exchange(new)  # aiohttp keeps the latest URLs, with and without metrics
        gc.collect()
        began = tracemalloc.get_traced_memory()[0]
        await wires[1].exchange(new)
        after = lines(await wires[1].scrape())
        gc.collect()
        taken = tracemalloc.get_traced_memory()[0] - began
        tracemalloc.stop()
        return taken / (after - before)

    async def kept(self, variant: str, requests: int) -> tuple[int, int]:
        """Answer that many requests, most of them over the budget; return the memory (kB) and the blocks in use."""
        subject = self._subjects[variant, "folded"]
        for _ in range(requests // 1000):
            await subject.wire.exchange(islice(subject.endless, 1000))
        gc.collect()
        return _resident(), sys.getallocatedblocks()


def _resident() -> int:
    """Return the memory of this process, in kB."""
    with open("/proc/self/status", encoding="ascii") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))


if __name__ == "__main__":
    logging.getLogger("hr_prometheus").setLevel(
        logging.ERROR
    )  # no warning that a budget is spent, as it is meant to be
    with asyncio.Runner(loop_factory=Loop) as runner:
        runner.run(obey(Worker()))
