from __future__ import annotations

import threading

from hr_prometheus.event_loop.long_steps import LongSteps
from hr_prometheus.event_loop.usage import UsageReader
from hr_prometheus.request.loop_time import long_step_observers

A, B = ("GET", "/a"), ("GET", "/b")


def test_it_notes_the_steps_of_its_thread():
    """Another thread may have an event loop of its own."""
    long_steps = LongSteps(UsageReader())
    thread = threading.Thread(target=long_steps.note, args=(A, 10.0))
    thread.start()
    thread.join()
    long_steps.note(B, 11.0)
    ((labels, began, end),) = long_steps.steps
    assert (labels, began) == (B, 11.0)
    assert end.thread > 0


def test_of_steps_in_each_other_the_outermost_is_kept():
    """Two middlewares time one step, and the one further in notes it first."""
    long_steps = LongSteps(UsageReader())
    for labels, began in ((A, 9.0), (B, 11.0), (B, 10.5), (A, 10.0)):
        long_steps.note(labels, began)
    assert [(step.labels, step.began) for step in long_steps.steps] == [(A, 9.0), (A, 10.0)]


def test_it_notes_until_it_is_stopped():
    """Afterwards nothing calls it any more; to stop it twice does no harm."""
    long_steps = LongSteps(UsageReader())
    long_steps.start()
    assert long_steps in long_step_observers
    for _ in range(2):
        long_steps.stop()
    assert long_steps not in long_step_observers
