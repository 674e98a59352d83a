"""What the tests of ``--workers`` share: their processes, and a client that keeps asking."""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp
from conftest import DEADLINE, samples

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

#: The environment variable that marks the processes of a test.
MARK = "HR_TEST_MARK"
UP = "hr_prometheus_worker_up"
#: No worker is killed because it is busy.
PATIENT = ("--worker-timeout", "3600")
#: At a stop the command waits until each worker has answered what it is waited for, however busy it is.
ASKS_PATIENTLY = f"from hr_prometheus.workers import drain\ndrain._ANSWER_SECONDS = {DEADLINE}\n"


def processes(mark: str) -> dict[int, str]:
    """Return the command lines of all living processes that carry a mark, by pid."""
    commands = {}
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if entry.name.isdigit() and f"{MARK}={mark}\0".encode() in (entry / "environ").read_bytes() + b"\0":
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                if command:
                    commands[int(entry.name)] = command
    return commands


def slots(mark: str) -> dict[int, int]:
    """Return the pids of the workers that carry a mark, by slot."""
    commands = [(pid, line.split(" hr_prometheus.workers ")) for pid, line in processes(mark).items()]
    return {int(parts[1].split()[1]): pid for pid, parts in commands if len(parts) == 2}


def are_without(mark: str, *gone: int) -> bool:
    """Whether there are two workers, and none is one of these."""
    now = set(slots(mark).values())
    return len(now) == 2 and now.isdisjoint(gone)


def until(condition: Callable[[], object]) -> None:
    """Wait for a condition."""
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end, "it has not come true"
        time.sleep(0.03)


async def until_async(condition: Callable[[], object]) -> None:
    """Wait for a condition, while a client goes on."""
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end, "it has not come true"
        await asyncio.sleep(0.03)


def is_alive(pid: int) -> bool:
    """Whether a process has not ended."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def children(pid: int) -> list[int]:
    """Return the pids of a process's children, those that have ended and were not waited for among them."""
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
        return [int(child) for child in file.read().split()]


class Load:
    """A client with some connections, each of which asks again 10 ms after it is answered: it leaves the processors to others."""

    def __init__(self, url: str, tasks: asyncio.TaskGroup, *, keep_alive: bool) -> None:
        self.url, self.keep_alive = url, keep_alive
        self._tasks = tasks
        self.connections = 0
        #: How often each process has answered.
        self.answers: Counter[str] = Counter()
        self.failures: list[BaseException] = []
        self.slowest = 0.0
        self.is_over = False

    @property
    def answered(self) -> int:
        """How many answers have come."""
        return self.answers.total()

    def connect(self) -> None:
        """Ask with one more connection."""
        self.connections += 1
        self._tasks.create_task(self._ask())

    async def until_answered_by(self, *pids: int) -> None:
        """Wait until these workers have answered: with ever more connections, so that a starved one gets some."""
        async with asyncio.timeout(DEADLINE):
            while not {str(pid) for pid in pids} <= self.answers.keys():
                self.connect()
                await asyncio.sleep(0.1)

    async def _ask(self) -> None:
        connector = aiohttp.TCPConnector(limit=1, force_close=not self.keep_alive)
        timeout = aiohttp.ClientTimeout(DEADLINE)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
            while not self.is_over:
                begin = time.monotonic()
                try:
                    async with session.post(self.url) as response:  # aiohttp asks a second time with GET
                        self.answers[await response.text()] += 1
                        assert response.status == 200
                except (aiohttp.ClientError, OSError) as error:
                    self.failures.append(error)
                self.slowest = max(self.slowest, time.monotonic() - begin)
                await asyncio.sleep(0.01)


@asynccontextmanager
async def load(url: str, *, connections: int = 8, keep_alive: bool = True) -> AsyncIterator[Load]:
    """Keep asking while the block runs."""
    async with asyncio.TaskGroup() as tasks:
        client = Load(url, tasks, keep_alive=keep_alive)
        for _ in range(connections):
            client.connect()
        try:
            yield client
        finally:
            client.is_over = True


async def scrape(service) -> dict[str, float]:
    """Return the samples of a scrape."""
    async with aiohttp.ClientSession() as session, session.get(service.metrics_url) as response:
        assert response.status == 200
        return samples(await response.text())


async def settled(service) -> dict[str, float]:
    """Return the samples of the first scrape in which no request is in progress: an answer comes before its end."""
    in_progress = 'requests_in_progress{method="POST",path="/"}'
    async with asyncio.timeout(DEADLINE):
        while (answer := await scrape(service)).get(in_progress, 0.0):
            await asyncio.sleep(0.05)
    return answer


async def ask(url: str) -> str:
    """Return the text of an answer, on a connection of its own."""
    async with aiohttp.ClientSession() as session, session.post(url) as response:
        assert response.status == 200
        return await response.text()


async def until_up(service, number: int) -> None:
    """Wait until so many workers serve."""
    end = time.monotonic() + DEADLINE
    while sum(value for name, value in (await scrape(service)).items() if name.startswith(UP)) != number:
        assert time.monotonic() < end, "they do not serve"
        await asyncio.sleep(0.05)
