from __future__ import annotations

import asyncio
import sys
import weakref

from hr_prometheus.event_loop.culprit import Stack


class Thing:
    """A thing that a function has for a while."""


async def test_a_look_at_a_stack_keeps_nothing_alive():
    """What a task lets go of afterwards is gone, also before Python 3.13, where a look may keep it to the task's end."""

    async def work(_queue) -> object:
        thing = Thing()
        gone = weakref.ref(thing)
        assert Stack(object(), [sys._getframe()], task=asyncio.current_task()).culprit().labels == ("", "background")
        del thing
        return gone()

    assert await work(None) is None
