"""A worker that does not start in time."""

from __future__ import annotations

import asyncio

from hr_prometheus.settings import Settings
from hr_prometheus.workers.timeouts import Timeouts

STACKS = (
    'Current thread 0x00007f2cbfeadb80 (most recent call first):\n  File "/srv/myproj/app.py", line 41 in connect\n'
    '  File "/srv/myproj/app.py", line 12 in <module>\n  File "<frozen runpy>", line 88 in _run_code\n\n'
    'Thread 0x00007f2cbfeadb81 (most recent call first):\n  File "/srv/myproj/other.py", line 7 in run'
)
WAITING = (
    f'Current thread 0x00007f2c (most recent call first):\n  File "{asyncio.__path__[0]}/runners.py", line 1 in run'
)


class Worker:
    """A worker that starts: it writes these stacks, and serves after some seconds, if ever."""

    reason, failure, is_killed = "", None, False

    def __init__(self, stacks: str = "", seconds: float | None = None) -> None:
        self.stacks, self.boot = stacks, asyncio.get_running_loop().create_future()
        if seconds is not None:
            asyncio.get_running_loop().call_later(seconds, self.boot.set_result, True)

    async def give_up(self) -> str:
        assert self.failure is not None  # it may end at the signal that asks for them
        return self.stacks

    def kill(self) -> None:
        self.is_killed = True


async def watched(worker: Worker, **settings) -> Worker:
    """Return a worker that was watched until it served or its time was over."""
    await Timeouts(Settings(target="myproj.app:create", **settings), "").watch_boot(worker)
    return worker


async def test_a_start_that_hangs_is_a_failure_that_names_the_place():
    """In the application's own code; what waits for a coroutine has none."""
    for stacks, place in (
        (STACKS, "; it is at app.py:41 in connect"),
        (WAITING, "; it waits in its event loop"),
        ("", ""),
    ):
        worker = await watched(Worker(stacks), workers=2, boot_timeout=0.01)
        assert str(worker.failure) == (
            f'the application "myproj.app:create" has not started within 0.01 s{place}. --boot-timeout allows more.'
        )
        assert worker.is_killed


async def test_a_start_in_time_is_left_alone():
    """By default it has a minute."""
    worker = await watched(Worker(seconds=0.01), workers=2)
    assert (worker.failure, worker.is_killed) == (None, False)


async def test_a_start_may_last_for_ever():
    """With --boot-timeout 0, and by default with --reload: a debugger blocks."""
    for settings in ({"workers": 2, "boot_timeout": 0.0}, {"reload": True}):
        worker = await watched(Worker(), **settings)
        assert (worker.failure, worker.is_killed) == (None, False)
