"""Count what a request and a scrape cost, where no clock has a say: instructions, calls, bytes.

What is printed is what tests/test_cost.py compares with its table.
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

from variants import BUILDERS, Variant, paths
from wire import Wire, get, lines

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import FrameType

_VARIANTS = ("empty", "basic-middleware", "full-middleware", "basic", "full")
_CASES = ("plain", "parametrised", "fixed", "folded", "hidden")
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
    found = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return found


async def requests(case: str, variant: str, routes: int = 0) -> list[int]:
    """Return the instructions, calls and bytes of a request that is not the first of its path."""
    wire = await Wire.to(BUILDERS[variant](Variant(fixed=case == "fixed", routes=routes)))
    asked = [get(path) for path in paths(case)]
    await wire.exchange(asked * 2)
    gc.collect()
    gc.disable()
    last = asked[-1:]
    found = [
        min([await measure(lambda: wire.exchange(last)) for _ in range(_REPEATED)])
        for measure in (instructions, calls, peak)
    ]
    gc.enable()
    await wire.runner.cleanup()
    return found


async def kept(variant: str) -> int:
    """Return how many blocks of memory are in use that were not before a thousand requests."""
    wire = await Wire.to(BUILDERS[variant](Variant()))
    asked = [get(paths("plain")[0])] * _KEPT_REQUESTS
    found = []
    for _ in range(3):
        await wire.exchange(asked)
        gc.collect()
        found.append(sys.getallocatedblocks())
    await wire.runner.cleanup()
    return found[2] - found[1]


async def scrape(variant: str) -> float:
    """Return the calls for each line of a scrape, when all has changed since the one before."""
    wire = await Wire.to(BUILDERS[variant](Variant(budget=_SCRAPED_PATHS)))
    asked = [get(f"/cell_neighbour/{cell}/direction/north") for cell in range(_SCRAPED_PATHS)]
    await wire.exchange(asked)
    count = lines(await wire.scrape())
    await wire.exchange(asked)
    found = await calls(wire.scrape)
    await wire.runner.cleanup()
    return found / count


async def main() -> None:
    """Print the counts, one line each: of requests over the bare application's, of scrapes a line."""
    found: dict[str, Any] = {}
    for case in _CASES:
        bare = await requests(case, "bare")
        for variant in _VARIANTS:
            over = zip(await requests(case, variant), bare, strict=True)
            found[f"{variant}, {case}"] = [mine - its for mine, its in over]
    routes = 1000
    bare = await requests("plain", "bare", routes)
    over = zip(await requests("plain", "full", routes), bare, strict=True)
    found[f"full, plain, {routes} routes"] = [mine - its for mine, its in over]
    for variant in ("basic", "full"):
        found[f"{variant}, kept"] = await kept(variant)
        found[f"{variant}, scrape"] = round(await scrape(variant), 1)
    sys.stdout.write(
        "{\n" + ",\n".join(f'    "{name}": {json.dumps(count)}' for name, count in found.items()) + "\n}\n"
    )


if __name__ == "__main__":
    logging.getLogger("hr_prometheus").setLevel(logging.ERROR)  # it warns of the budget that is meant to be spent
    asyncio.run(main())
