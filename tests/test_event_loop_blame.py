from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hr_prometheus.event_loop.blame import Beat, Evidence, Sample, blame
from hr_prometheus.event_loop.culprit import BACKGROUND, BUSY, GARBAGE, STOPPED, THREAD, Culprit
from hr_prometheus.event_loop.long_steps import LongStep
from hr_prometheus.event_loop.place import Place
from hr_prometheus.event_loop.usage import Usage

BEGIN, DUE = 10.0, 10.1
A, B, C = (Culprit(("GET", path), f"GET {path}") for path in ("/a", "/b", "/c"))


#: The usages of a loop that has slept, has computed, and has waited for the interpreter lock.
SLEPT, COMPUTED, WAITED = {"slices": 1}, {"thread": 0.4, "process": 0.4}, {"slices": 80}


def at(time, **usage) -> Usage:
    return Usage(**{"at": time, "thread": 0.0, "process": 0.0, "starved": 0.0, "slices": 0.0, **usage})


def usage_of(time) -> Usage:
    return time if isinstance(time, Usage) else at(time)


def long_step(culprit, began, end) -> LongStep:
    return LongStep(culprit.labels, began, usage_of(end))


def blamed(*samples, end, pauses=(), stops=(), locks=(), rate=0.0, long_steps=(), least=0.1) -> dict[str, float]:
    """Return the seconds of each path. A sample is a time, a step, a culprit and whether it may have kept the lock."""
    beat = Beat(at(BEGIN), DUE, [Sample(usage_of(time), *rest) for time, *rest in samples])
    blocks = blame(beat, usage_of(end), Evidence(pauses, stops, locks, rate, long_steps), least=least)
    return {block.culprit.labels[1]: pytest.approx(block.seconds) for block in blocks}


def test_a_beat_in_time_is_no_block():
    """Neither is one that is late by less than what is asked for: a short step may have begun at any time."""
    assert blamed(end=10.1) == blamed((10.15, 1, A), (10.17, 1, A), end=10.19) == {}


def test_one_step_has_all_of_the_time():
    """It begins in the middle between the beat and the next one, if nothing else is known."""
    assert blamed((10.2, 1, A), (10.3, 1, A), end=10.45) == {"/a": 0.4}
    assert blamed((10.15, 1, A._replace(since=10.05)), (10.17, 1, A), end=10.19) == {}  # it may have waited since


def test_a_request_that_has_begun_meanwhile_says_when():
    """It has not held the loop before it began."""
    assert blamed((10.2, 1, A._replace(since=10.09)), (10.3, 1, A), end=10.39) == {"/a": 0.3}
    assert blamed((10.3, 1, A._replace(since=10.25)), (10.35, 1, A), end=10.45) == {BUSY: 0.2, "/a": 0.2}


def test_steps_that_follow_each_other_share_the_time():
    """Each has what is between its samples, and half of what is between the last of one and the first of the other."""
    samples = [(10.2, 1, A), (10.3, 1, A), (10.4, 2, B), (10.5, 2, B)]
    assert blamed(*samples, end=10.6) == {"/a": 0.3, "/b": 0.25}


def test_long_steps_of_one_route_add_up():
    """Each request of many may hold the loop for a while. Those that are short by themselves are not blamed."""
    samples = [(10.2, 1, A), (10.3, 1, A), (10.4, 2, A), (10.5, 2, A)]
    assert blamed(*samples, end=10.6) == {"/a": 0.55}
    samples = [(10.14 + number * 0.02, 1 + number // 3, A) for number in range(9)]
    assert blamed(*samples, end=10.32) == {BUSY: 0.27}


def test_short_steps_are_not_blamed():
    """A step that was seen once, beside others, may have been any of many."""
    samples = [(10.2 + number / 20, number, (A, B)[number % 2]) for number in range(8)]
    assert blamed(*samples, end=10.65) == {BUSY: 0.6}


def test_a_step_that_was_seen_once_is_not_blamed():
    """Although nothing else was seen, it may have begun a moment before."""
    assert blamed((10.2, 1, A), end=10.25) == {BUSY: 0.2}


@pytest.mark.parametrize("usage", [SLEPT, COMPUTED])
def test_a_step_that_has_kept_the_interpreter_lock_was_seen_once(usage):
    """A function in C may do so. It is blamed if it was seen in a call, and not for the time before its request began."""
    seen, locks = at(10.5, **usage), [(10.15, 10.5)]
    assert blamed((seen, 1, A, True), (10.55, 2, B), end=at(10.56, **usage), locks=locks) == {"/a": 0.475}
    assert blamed((seen, 1, A, False), end=at(10.56, **usage), locks=locks) == {BUSY: 0.51}
    late = A._replace(since=10.45)
    assert blamed((seen, 1, late, True), end=at(10.56, **usage), locks=locks) == {BUSY: 0.4, "/a": 0.11}


@pytest.mark.parametrize("usage", [WAITED, {"process": 0.4, "slices": float("nan")}])
def test_another_thread_that_has_kept_the_interpreter_lock(usage):
    """Whatever the loop's thread does when it has the lock at last has only waited, whether that was seen or not."""
    locks = [(10.15, 10.5)]
    assert blamed((at(10.5, **usage), 1, A, True), end=at(10.51, **usage), locks=locks) == {THREAD: 0.45}
    assert blamed(end=at(10.5, **usage), locks=locks) == {THREAD: 0.45}


def test_a_kept_interpreter_lock_of_which_nothing_else_is_known():
    """It is blamed on nobody, unless one step was seen before and after it."""
    usage, locks = {"slices": float("nan")}, [(10.2, 10.5)]
    seen = at(10.5, **usage)
    assert blamed((seen, 1, A, True), end=at(10.51, **usage), locks=locks) == {BUSY: 0.46}
    assert blamed((10.2, 1, A), (seen, 1, A), end=at(10.51, **usage), locks=locks) == {"/a": 0.46}
    assert blamed((10.2, 1, A), (seen, 2, B, True), end=at(10.51, **usage), locks=locks) == {BUSY: 0.46}


def test_code_of_the_loop_is_in_the_background():
    """Such as a callback that is written in C."""
    assert blamed((10.2, 1, None), (10.3, 1, None), end=10.45) == {BACKGROUND: 0.4}


def test_garbage_collection_is_blamed_on_nobody():
    """Its time is known to the moment, and what is left of a short block is too short to blame."""
    collected = [(9.0, 9.9), (10.06, 10.44)]
    assert blamed((10.45, 1, A, True), end=10.46, pauses=collected, locks=[(10.15, 10.45)]) == {GARBAGE: 0.38}
    assert blamed((10.3, 1, A), (10.4, 1, A), end=10.55, pauses=[(10.2, 10.35)]) == {GARBAGE: 0.15, "/a": 0.35}


def test_a_stopped_process_is_blamed_on_nobody():
    """It may have been stopped before, during or after a step."""
    assert blamed(end=12.0, stops=[(10.02, 12.0)]) == {STOPPED: 1.95}
    assert blamed((10.2, 1, A), (12.2, 1, A), end=12.25, stops=[(10.25, 12.2)]) == {STOPPED: 1.95, "/a": 0.25}


def test_a_process_without_a_processor_is_stopped():
    """The system counts for how long the loop's thread was ready to run."""
    assert blamed((10.2, 1, A), (10.25, 1, A), end=at(10.55, starved=0.3)) == {STOPPED: 0.3, "/a": 0.2}


def test_nothing_short_is_blamed():
    """A block that nothing has held for long is one of several steps."""
    assert blamed((10.3, 1, A), (10.4, 1, A), (10.45, 2, B), (10.46, 2, B), end=10.47) == {"/a": 0.375}
    assert blamed((10.2, 1, A), end=10.26, pauses=[(10.1, 10.21)], least=0.15) == {BUSY: 0.16}


@pytest.mark.parametrize("seen", [[], [(at(10.5, process=0.04, slices=3), 1, A)], [(at(10.51, process=0.04), 2, B)]])
def test_a_long_step_that_has_kept_the_interpreter_lock(seen):
    """Other threads may run before the watchdog sees anything, and the loop may have gone on."""
    step = long_step(A, 10.12, at(10.505, process=0.04, slices=3))
    ends = {"end": at(10.52, process=0.04, slices=4), "locks": [(10.15, 10.5)]}
    assert blamed(*seen, **ends) == {BUSY: 0.47}
    assert blamed(*seen, **ends, long_steps=[step]) == {"/a": 0.385 - 3 * sys.getswitchinterval()}


def test_a_long_step_that_has_waited_for_the_interpreter_lock():
    """It is not blamed: it has woken in each switch interval, or may have, as the loop's thread wakes often anyway."""
    step = long_step(A, 10.12, at(10.505, process=0.01, slices=80))
    ends = {"end": at(10.52, process=0.01, slices=82), "locks": [(10.15, 10.5)], "long_steps": [step]}
    assert blamed(**ends) == {THREAD: 0.455}
    assert blamed(**ends, rate=400) == {BUSY: 0.47}


def test_a_long_step_that_has_computed():
    """That counts as much as to be seen twice, unless the thread may have computed before the step, or in a collection."""
    step = long_step(A, 10.06, at(10.4, thread=0.2, process=0.2, starved=0.14))
    end = at(10.42, thread=0.21, process=0.21, starved=0.14)
    assert blamed(end=end) == {BUSY: 0.23, STOPPED: 0.14}
    assert blamed(end=end, long_steps=[step]) == {STOPPED: 0.14, "/a": 0.2}
    assert "/a" not in blamed(end=end, long_steps=[step._replace(end=at(10.4, thread=0.15, process=0.15))])
    assert "/a" not in blamed(end=end, long_steps=[step], pauses=[(10.2, 10.25)])


def test_a_long_step_that_may_have_waited_or_been_stopped():
    """One that was seen once, and has not computed, is not blamed."""
    assert blamed((10.2, 1, A), end=10.25, long_steps=[long_step(A, 10.06, 10.24)]) == {BUSY: 0.19}


def test_a_long_step_has_its_own_time():
    """It is known when it began and when it ended, also if others were seen before and after it."""
    samples = [(10.15, 1, B), (10.2, 1, B), (10.3, 2, A), (10.4, 2, A), (10.6, 3, B), (10.7, 3, B)]
    steps = [long_step(A, 10.21, 10.45)]
    assert blamed(*samples, end=10.8, long_steps=steps) == {"/a": 0.24, "/b": 0.275, BUSY: 0.235}
    assert blamed(*samples[2:4], end=10.6, long_steps=steps) == {"/a": 0.24, BUSY: 0.31}


def test_what_interrupts_a_long_step_is_blamed_in_its_place():
    """A handler of a signal, for example."""
    signal = Culprit(("", BACKGROUND), "a signal handler")
    samples = [(10.14 + number * 0.02, 1, signal) for number in range(8)]
    assert blamed(*samples, end=10.31, long_steps=[long_step(A, 10.06, 10.3)]) == {BACKGROUND: 0.23}


def test_a_long_step_has_its_place_from_what_was_seen():
    """So that the warning names it."""
    seen = A._replace(place=Place("app.py", 3, "work"))
    beat = Beat(at(BEGIN), DUE, [Sample(at(10.2), 1, seen), Sample(at(10.3), 1, seen)])
    (block,) = blame(beat, at(10.5), Evidence(long_steps=[long_step(A, 10.05, 10.45)]), least=0.1)
    assert block.culprit.place is seen.place
    assert block.seconds == pytest.approx(0.4)


culprits = st.sampled_from([A, B, None])


@given(
    steps=st.lists(st.tuples(st.floats(0.001, 1.0), st.integers(0, 2), culprits, st.booleans())),
    pauses=st.lists(st.tuples(st.floats(9.0, 15.0), st.floats(0.0, 1.0))),
    stop_and_lock=st.tuples(*[st.tuples(st.floats(9.0, 15.0), st.floats(0.0, 1.0))] * 2),
    usage=st.sampled_from([SLEPT, COMPUTED, WAITED]),
    tail_and_notes=st.tuples(st.floats(0.0, 1.0), st.lists(st.tuples(st.floats(0.0, 0.5), st.floats(0.05, 1.0)))),
)
def test_never_more_than_the_time_that_has_passed(steps, pauses, stop_and_lock, usage, tail_and_notes):
    """Whatever was seen: of the time between two beats none is blamed twice, and on a long step no more than it lasted."""
    samples, time, (tail, notes) = [], DUE, tail_and_notes
    for wait, step, culprit, may_keep_lock in steps:
        time += wait
        samples.append(Sample(at(time, **usage), step, culprit, may_keep_lock))
    end = time + tail
    # Collections follow each other, and so do stops.
    periods = []
    last = 0.0
    for begin, length in sorted(pauses):
        if begin >= last:
            periods.append((begin, last := begin + length))
    long_steps = []
    time = BEGIN
    for wait, length in notes:
        long_steps.append(LongStep(C.labels, time + wait, at(time + wait + length, **usage)))
        time += wait + length
    evidence = Evidence(periods, *([(begin, begin + length)] for begin, length in stop_and_lock), 0.0, long_steps)
    blocks = blame(Beat(at(BEGIN), DUE, samples), at(end, **usage), evidence, least=0.1)
    of_long_steps = sum(block.seconds for block in blocks if block.culprit.labels == C.labels)
    assert of_long_steps <= sum(step.end.at - step.began for step in long_steps) + 1e-6
    assert sum(block.seconds for block in blocks) <= end - BEGIN + 1e-6
    assert all(block.seconds >= 0 for block in blocks)
