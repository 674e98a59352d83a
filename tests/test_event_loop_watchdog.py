from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace

import pytest

from hr_prometheus.event_loop.blame import Beat
from hr_prometheus.event_loop.usage import Usage
from hr_prometheus.event_loop.watchdog import Watchdog

WAIT = 0.2


class LateAlarm:
    """An alarm that comes in time, as far as the system knows; but its thread runs only some time later."""

    def wait(self, seconds) -> float:
        time.sleep(seconds + WAIT)
        return 0.0


@pytest.mark.parametrize(("slices", "is_stop"), [(1, True), (WAIT / 0.005, False), (float("nan"), False)])
async def test_a_stopped_process_is_no_wait_for_the_interpreter_lock(slices, is_stop):
    """The watchdog may be awake when the process is stopped. To wait for the lock it wakes in each switch interval."""
    now = Usage(time.perf_counter(), 0.0, 0.0, 0.0, 0.0)
    dog = Watchdog(asyncio.get_running_loop(), SimpleNamespace(beat=Beat(now, now.at + 60)), 0.1)
    dog._heartbeat.beat.due = now.at - dog._patience
    dog._look = lambda *_, **__: None
    reader = SimpleNamespace(read=lambda: now._replace(at=time.perf_counter(), slices=slices))
    dog._watch(LateAlarm(), reader, now)
    ((begin, end),) = dog.stops if is_stop else dog.locks
    assert end - begin >= WAIT * 0.9
    assert not (dog.locks if is_stop else dog.stops)
