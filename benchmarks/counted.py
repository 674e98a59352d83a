"""Count what a request and a scrape cost, without a clock: instructions, calls, bytes.

tests/test_cost.py compares the output with its table.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import sys
import threading
import tracemalloc
from typing import TYPE_CHECKING, Any

from variants import KINDS, Variant, make_runner, requests
from wire import Loop, Wire, get, lines

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable
    from types import FrameType

_OURS = ("run-basic", "run-full")  # with all that the middleware alone does
_OPTIONS = ("run-native", "run-traceparent", "run-otel")  # detail is full
_REPEATED = 7  # times, of which the least counts: once a second aiohttp formats a date
_SCRAPED_PATHS = 100
_KEPT_REQUESTS = 1000


async def instructions(act: Callable[[], Awaitable[object]]) -> int:
    """Return how many instructions of the interpreter *act* takes in this thread."""
    count = 0

    def counted(*_: object) -> None:
        nonlocal count
        count += 1

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        frame.f_trace_lines, frame.f_trace_opcodes = False, True
        if event == "opcode":
            counted()
        return trace

    if sys.version_info >= (3, 12):
        watch, event = sys.monitoring, sys.monitoring.events.INSTRUCTION
        watch.use_tool_id(watch.PROFILER_ID, __name__)
        watch.register_callback(watch.PROFILER_ID, event, counted)
        watch.set_events(watch.PROFILER_ID, event)
        await act()
        watch.free_tool_id(watch.PROFILER_ID)
    else:
        sys.settrace(trace)
        await act()
        sys.settrace(None)
    return count


async def calls(act: Callable[[], Awaitable[object]]) -> int:
    """Return how many calls *act* makes, of functions of Python and of C, in this thread and in those that it starts."""
    count = 0

    def profile(_frame: FrameType, event: str, _: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    threading.setprofile(profile)
    sys.setprofile(profile)
    await act()
    sys.setprofile(None)
    threading.setprofile(None)
    return count


async def peak(act: Callable[[], Awaitable[object]]) -> int:
    """Return how many bytes *act* needs at once."""
    tracemalloc.start()
    await act()
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak_bytes


async def costs(variant: str, kind: str, routes: int = 0) -> list[int]:
    """Return the instructions, calls and bytes of a request that is not the first of its path."""
    wire = await Wire.to(make_runner(variant, Variant(kind, routes=routes)))
    different = requests(kind)
    await wire.exchange([*different, *different])
    gc.collect()
    gc.disable()
    last = different[-1:]
    counts = [
        min([await count(lambda: wire.exchange(last)) for _ in range(_REPEATED)])
        for count in (instructions, calls, peak)
    ]
    gc.enable()
    await wire.runner.cleanup()
    return counts


async def costs_over_bare(variants: Iterable[str], kind: str, routes: int = 0) -> dict[str, list[int]]:
    """Return what a request costs more than in the bare application, by variant."""
    bare, over = await costs("bare", kind, routes), {}
    for variant in variants:  # no comprehension, whose own frame would count
        own = await costs(variant, kind, routes)
        over[variant] = [mine - its for mine, its in zip(own, bare, strict=True)]
    return over


async def kept(variant: str) -> int:
    """Return how many more blocks of memory are in use after a thousand requests."""
    wire = await Wire.to(make_runner(variant, Variant()))
    thousand = [*requests("plain")] * _KEPT_REQUESTS
    blocks = []
    for _ in range(3):
        await wire.exchange(thousand)
        gc.collect()
        blocks.append(sys.getallocatedblocks())
    await wire.runner.cleanup()
    return blocks[2] - blocks[1]


async def scrape(variant: str) -> float:
    """Return the calls for each line of a scrape, when all has changed since the one before."""
    wire = await Wire.to(make_runner(variant, Variant(budget=_SCRAPED_PATHS)))
    different = [get(f"/cell_neighbour/{cell}/direction/north") for cell in range(_SCRAPED_PATHS)]
    await wire.exchange(different)
    count = lines(await wire.scrape())
    await wire.exchange(different)
    made = await calls(wire.scrape)
    await wire.runner.cleanup()
    return made / count


async def main() -> None:
    """Print the counts, one line each: of requests over the bare application's, of scrapes a line."""
    counts: dict[str, Any] = {}
    for kind in (*KINDS, "hidden"):
        for variant, cost in (await costs_over_bare(["empty", *_OURS], kind)).items():
            counts[f"{variant}, {kind}"] = cost
    for variant, cost in (await costs_over_bare(_OPTIONS, "plain")).items():
        counts[f"{variant}, plain"] = cost
    counts["run-full, plain, 1000 routes"] = (await costs_over_bare(["run-full"], "plain", 1000))["run-full"]
    for variant in _OURS:
        counts[f"{variant}, kept"] = await kept(variant)
        counts[f"{variant}, scrape"] = round(await scrape(variant), 1)
    sys.stdout.write(
        "{\n" + ",\n".join(f'    "{name}": {json.dumps(count)}' for name, count in counts.items()) + "\n}\n"
    )


if __name__ == "__main__":
    logging.getLogger("hr_prometheus").setLevel(
        logging.ERROR
    )  # no warning that a budget is spent, as it is meant to be
    with asyncio.Runner(loop_factory=Loop) as runner:
        runner.run(main())
