"""The parts of the benchmark. The variants take turns in short rounds, so that whatever slows the machine slows them all."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections import defaultdict
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

from commands import HERE, Helper
from peers import CLIENTS, PEERS, interpreter
from variants import KINDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_REQUESTS, _AT_ONCE = 50, 3  # requests in a round, and rounds before the next environment's turn
_ROUTES = (10, 1_000, 10_000)
#: Connections, the seconds of a round with so many, and every how many turns there is one.
_LOADS = ((1, 0.15, 1), (64, 0.15, 1), (1_000, 0.4, 2))
_LINES = 10_000
_STALL_LINES = (1_000, 10_000, 100_000)
_IDLE = 0.3  # seconds
_MEMORY_PATHS = 1_000
_WARM_REQUESTS, _LONG_REQUESTS = 100_000, 1_000_000
_START_DEADLINE = 30.0  # seconds


@dataclass(frozen=True)
class Row:
    """One number; ``None`` if the variant is not installed."""

    part: str
    variant: str
    case: str
    value: float | None
    unit: str


@dataclass(frozen=True)
class Bench:
    """The options of a run: variants, those of them that are not installed, rounds, and a function that shows progress."""

    variants: Sequence[str]
    missing: Sequence[str]
    rounds: int | None
    say: Callable[[str], None]

    def chosen(self, *names: str) -> list[str]:
        """Return which of the variants are to be measured and are installed."""
        return [name for name in names if name in self.variants and name not in self.missing]

    def turns(self, part: str, default: int) -> Iterator[int]:
        """Count the rounds, and show them."""
        rounds = self.rounds or default
        for turn in range(rounds):
            self.say(f"{part}: round {turn + 1} of {rounds}")
            yield turn

    def absent(self, part: str, names: Sequence[str], cases: Sequence[str]) -> list[Row]:
        """Return the rows of the variants that are not installed."""
        return [Row(part, name, case, None, "") for name in names if name in self.missing for case in cases]


@contextmanager
def _workers(variants: Sequence[str]) -> Iterator[dict[str, tuple[Helper, list[str]]]]:
    """Start a worker for each environment of the variants; each also has the bare application and the empty middleware.

    These come last: what is measured is imported before the first request, as in a service.
    """
    by_environment: dict[str, list[str]] = {"": []}
    for name in variants:
        by_environment.setdefault(PEERS[name].environment, []).append(name)
    with ExitStack() as stack:
        yield {
            environment: (
                stack.enter_context(Helper("worker.py", interpreter(environment))),
                [*names, "bare", "empty"],
            )
            for environment, names in by_environment.items()
        }


#: The seconds of a request in each round, by environment and case and then by variant.
Times = dict[tuple[str, str], dict[str, list[float]]]


def multiples(times: Times, part: str) -> list[Row]:
    """Return the overheads over the bare application, as multiples of the empty middleware's in the same process.

    An empty middleware costs about the same in all cases, so the unit is the median over all of them: in one case
    alone, noise may be a large part of it.
    """
    over: dict[str, dict[tuple[str, str], list[float]]] = defaultdict(dict)
    for (environment, case), seconds in times.items():
        for name, values in seconds.items():
            pairs = zip(values, seconds["bare"], strict=True)
            over[environment][name, case] = [one - bare for one, bare in pairs]
    rows = []
    for environment, differences in over.items():
        unit = median([one for (name, _), values in differences.items() if name == "empty" for one in values])
        for (name, case), values in differences.items():
            if name not in ("bare", "empty"):
                rows.append(Row(part, name, case, median(values) / unit, "×"))
            elif not environment:
                seconds_each = median(times[environment, case]["bare"] if name == "bare" else values)
                rows.append(Row(part, name, case, 1e6 * seconds_each, "µs"))
    return rows


def overhead(bench: Bench) -> list[Row]:
    """What a request costs over the bare application, for each kind of request and response."""
    part, names = "overhead", [name for name in PEERS if name not in ("bare", "empty", *CLIENTS)]
    times: Times = defaultdict(lambda: defaultdict(list))
    with _workers(bench.chosen(*names)) as workers:
        for worker, variants in workers.values():
            for case in KINDS:
                for name in variants:
                    worker.call("prepare", variant=name, case=case)
        for _ in bench.turns(part, 60):
            for case in KINDS:
                for environment, (worker, _) in workers.items():
                    for name, seconds in worker.call("rounds", case=case, requests=_REQUESTS, count=_AT_ONCE).items():
                        times[environment, case][name] += seconds
    return multiples(times, part) + bench.absent(part, names, list(KINDS))


def calls(bench: Bench) -> list[Row]:
    """What an outgoing call costs over that of a bare session, to a server in the same process."""
    part = "calls"
    times: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    with _workers(bench.chosen(*CLIENTS)) as workers:
        for worker, (*names, _, _) in workers.values():
            for name in ("bare", *names):
                worker.call("prepare_calls", variant=name)
        for _ in bench.turns(part, 100):
            for environment, (worker, _) in workers.items():
                for name, seconds in worker.call("calls", requests=_REQUESTS).items():
                    times[environment][name].append(seconds)
    rows = [Row(part, "bare", "call", 1e6 * median(times[""]["bare"]), "µs")]
    for own in times.values():
        for name in own.keys() - {"bare"}:
            over = median(one - bare for one, bare in zip(own[name], own["bare"], strict=True))
            rows.append(Row(part, name, "over", 1e6 * over, "µs"))
    return rows + bench.absent(part, CLIENTS, ["over"])


def growth(bench: Bench) -> list[Row]:
    """The same with more and more routes, all of which are requested."""
    part, names = "growth", ["run-basic", "run-full", "by-hand", "published", "exporter", "opentelemetry"]
    times: Times = defaultdict(lambda: defaultdict(list))
    with _workers(bench.chosen(*names)) as workers:
        for routes in _ROUTES:
            bench.say(f"{part}: making applications with {routes} routes")
            for worker, variants in workers.values():
                for name in variants:
                    worker.call("prepare", variant=name, case=part, routes=routes)
            for _ in bench.turns(f"{part}, {routes} routes", 20):
                for environment, (worker, _) in workers.items():
                    for name, seconds in worker.call("rounds", case=part, requests=_REQUESTS, count=_AT_ONCE).items():
                        times[environment, str(routes)][name] += seconds
            for worker, _ in workers.values():
                worker.call("forget")
    return multiples(times, part) + bench.absent(part, names, [str(routes) for routes in _ROUTES])


def throughput(bench: Bench) -> list[Row]:
    """How many of the bare application's responses are left, over sockets, to a server that has a processor to itself.

    They are counted for each second of the server's processor, so that other users of the machine do not matter.
    """
    part = "throughput"
    names = ["empty", "run-basic", "run-full", "by-hand", "published", "exporter", "opentelemetry"]
    rates: dict[tuple[str, str], list[float]] = defaultdict(list)
    with ExitStack() as stack:
        load = stack.enter_context(Helper("load.py"))
        servers = []
        for name in ["bare", *bench.chosen(*names)]:
            worker = stack.enter_context(Helper("worker.py", interpreter(PEERS[name].environment)))
            worker.call("prepare", variant=name, case="plain")
            servers.append((name, worker, worker.call("serve", variant=name, case="plain")))
        for turn in bench.turns(part, 10):
            servers.append(servers.pop(0))  # so that each is first in turn
            for count, seconds in [(count, seconds) for count, seconds, every in _LOADS if turn % every == 0]:
                for name, worker, port in servers:
                    load.call("begin", port=port, path="/plain", connections=count)
                    before, worked_before = worker.call("served")
                    time.sleep(seconds)
                    after, worked = worker.call("served")
                    load.call("end")
                    rates[name, str(count)].append((after - before) / (worked - worked_before))
    rows = []
    for (name, case), values in rates.items():
        if name == "bare":
            rows.append(Row(part, name, case, median(values), "/s"))
        else:
            kept = median(one / bare for one, bare in zip(values, rates["bare", case], strict=True))
            rows.append(Row(part, name, case, 100 * kept, "%"))
    return rows + bench.absent(part, names, [str(count) for count, *_ in _LOADS])


def scrape(bench: Bench) -> list[Row]:
    """What a line of a scrape costs when every series has changed since the scrape before."""
    part, names = "scrape", bench.chosen("run-basic", "run-full", "by-hand")
    times: dict[tuple[str, str], list[float]] = defaultdict(list)
    with Helper("worker.py") as worker:
        for name in names:
            worker.call("prepare", variant=name, case="scrape")
            worker.call("fill", variant=name, number=_LINES)
        for _ in bench.turns(part, 12):
            for name in names:
                for how in ("scrape", "generate"):
                    worker.call("change", variant=name)
                    seconds, count = worker.call(how, variant=name)
                    times[name, how].append(seconds / count)
    rows = [Row(part, name, how, 1e6 * median(values), "µs") for (name, how), values in times.items()]
    if "by-hand" in names:
        unit = median(times["by-hand", "generate"])
        rows += [Row(part, name, "faster", unit / median(times[name, "scrape"]), "×") for name in names]
    return rows


def stall(bench: Bench) -> list[Row]:
    """The longest time for which a scrape keeps everything else in the process waiting."""
    part, names = "stall", ["run-full", "by-hand", "published"]
    gaps: dict[tuple[str, str], list[float]] = defaultdict(list)
    durations: dict[str, list[float]] = defaultdict(list)
    with ExitStack() as stack:
        load = stack.enter_context(Helper("load.py"))
        workers, ports, own_ports = {}, {}, {}
        for name in bench.chosen(*names):
            worker = workers[name] = stack.enter_context(Helper("worker.py", interpreter(PEERS[name].environment)))
            worker.call("prepare", variant=name, case="scrape")
            ports[name] = worker.call("serve", variant=name, case="scrape")
            if name == "run-full":
                own_ports[name] = worker.call("serve_metrics", variant=name, case="scrape")
            worker.call("watch")
        for count in _STALL_LINES:
            for name, worker in workers.items():
                bench.say(f"{part}: making {count} lines, {name}")
                worker.call("fill", variant=name, number=count)
            for _ in bench.turns(f"{part}, {count} lines", 4):
                for name, worker in workers.items():
                    worker.call("change", variant=name)
                    worker.call("longest")
                    load.call("wait", seconds=_IDLE)
                    gaps[name, "idle"].append(worker.call("longest"))
                    seconds = load.call("scrape", port=ports[name])
                    gaps[name, str(count)].append(worker.call("longest"))
                    if count == _STALL_LINES[-1]:
                        durations[name].append(seconds)
                        if name in own_ports:
                            load.call("scrape", port=own_ports[name])
                            gaps[name, "own-port"].append(worker.call("longest"))
    rows = [Row(part, name, case, 1e3 * median(values), "ms") for (name, case), values in gaps.items()]
    rows += [Row(part, name, "duration", 1e3 * median(values), "ms") for name, values in durations.items()]
    return rows + bench.absent(part, names, ["idle", *(str(count) for count in _STALL_LINES), "duration"])


def memory(bench: Bench) -> list[Row]:
    """The bytes that a series takes once it was scraped."""
    part, taken = "memory", {}
    for name in bench.chosen("run-basic", "run-full", "by-hand"):
        bench.say(f"{part}: {name}")
        with Helper("worker.py") as worker:  # a fresh process for each
            taken[name] = worker.call("memory", variant=name, count=_MEMORY_PATHS)
    rows = [Row(part, name, "series", value, "B") for name, value in taken.items()]
    if "by-hand" in taken:
        rows += [Row(part, name, "smaller", taken["by-hand"] / value, "×") for name, value in taken.items()]
    return rows


def flat(bench: Bench) -> list[Row]:
    """What a million requests leave behind, nearly all of them over their route's budget."""
    part, rows = "flat", []
    for name in bench.chosen("run-basic", "run-full"):
        bench.say(f"{part}: {_LONG_REQUESTS} requests, {name}")
        with Helper("worker.py") as worker:
            worker.call("prepare", variant=name, case="folded")
            resident, blocks = worker.call("kept", variant=name, requests=_WARM_REQUESTS)
            resident_then, blocks_then = worker.call("kept", variant=name, requests=_LONG_REQUESTS)
        rows.append(Row(part, name, "resident", resident_then - resident, "kB"))
        rows.append(Row(part, name, "blocks", blocks_then - blocks, ""))
    return rows


def start(bench: Bench) -> list[Row]:
    """The time from a command to its first answer."""
    part, module = "start", [sys.executable, "-m", "aiohttp.web", "-H", "127.0.0.1", "-P"]
    ours = os.path.join(os.path.dirname(sys.executable), "hr-prometheus")
    commands = {
        "bare": lambda port: [*module, port, "served:bare"],
        "by-hand": lambda port: [*module, port, "served:by_hand"],
        "run-full": lambda port: [ours, "run", "-P", port, "served:bare"],
    }
    times: dict[str, list[float]] = defaultdict(list)
    for turn in bench.turns(part, 16):
        for name in ["bare", *bench.chosen("by-hand", "run-full")]:
            seconds = _start(commands[name])
            if turn or bench.rounds == 1:  # the first may have to compile
                times[name].append(seconds)
    rows = [Row(part, name, "answer", 1e3 * median(values), "ms") for name, values in times.items()]
    return rows + [
        Row(part, name, "compared", median(values) / median(times["bare"]), "×") for name, values in times.items()
    ]


def _start(command: Callable[[str], Sequence[str]]) -> float:
    """Return the seconds until a command answers a request."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    began = time.perf_counter()
    process = subprocess.Popen(command(str(port)), cwd=HERE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # noqa: S603
    try:
        while time.perf_counter() - began < _START_DEADLINE:
            try:
                with socket.create_connection(("127.0.0.1", port), timeout=_START_DEADLINE) as connection:
                    connection.sendall(b"GET /plain HTTP/1.1\r\nHost: localhost\r\n\r\n")
                    if b" 200 " in connection.recv(1000):
                        return time.perf_counter() - began
            except OSError:
                time.sleep(0.002)
    finally:
        process.kill()
        process.wait()
    raise RuntimeError(f"{command(str(port))} does not answer")


PARTS: dict[str, Callable[[Bench], list[Row]]] = {
    "overhead": overhead,
    "calls": calls,
    "growth": growth,
    "throughput": throughput,
    "scrape": scrape,
    "stall": stall,
    "memory": memory,
    "flat": flat,
    "start": start,
}
