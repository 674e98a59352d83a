from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hr_prometheus.event_loop.blame import Beat, Sample, blame
from hr_prometheus.event_loop.culprit import BACKGROUND, BUSY, GARBAGE, STOPPED, Culprit
from hr_prometheus.event_loop.usage import Usage

BEGIN, DUE = 10.0, 10.1
A, B = (Culprit(("GET", path), f"GET {path}") for path in ("/a", "/b"))


def at(time, starved=0.0) -> Usage:
    return Usage(time, 0.0, 0.0, starved)


def blamed(*samples, end, pauses=(), stops=(), least=0.1) -> dict[str, float]:
    """Return the seconds of each path. A sample is a time, a step, a culprit and whether it is sure."""
    beat = Beat(at(BEGIN), DUE, [Sample(at(sample[0]), *sample[1:]) for sample in samples])
    blocks = blame(beat, end if isinstance(end, Usage) else at(end), pauses=pauses, stops=stops, least=least)
    return {block.culprit.labels[1]: pytest.approx(block.seconds) for block in blocks}


def test_a_beat_in_time_is_no_block():
    """Neither is one that is late by less than what is asked for: a short step may have begun at any time."""
    assert blamed(end=10.1) == blamed((10.15, 1, A), (10.17, 1, A), end=10.19) == {}


def test_one_step_has_all_of_the_time():
    """It begins in the middle between the beat and the next one, if nothing else is known."""
    assert blamed((10.2, 1, A), (10.3, 1, A), end=10.45) == {"/a": 0.4}
    assert blamed((10.2, 1, A), end=10.25) == {"/a": 0.2}
    assert blamed((10.15, 1, A._replace(since=10.05)), end=10.19) == {}  # it may have waited since


def test_a_request_that_has_begun_meanwhile_says_when():
    """It has not held the loop before it began."""
    assert blamed((10.2, 1, A._replace(since=10.09)), end=10.39) == {"/a": 0.3}
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


def test_a_sample_that_was_late_for_the_interpreter_lock_is_sure():
    """The step that it sees has kept the lock, as a function in C may do, though others follow."""
    assert blamed((10.5, 1, A, True), (10.55, 2, B), end=10.56) == {"/a": 0.475}


def test_code_of_the_loop_is_in_the_background():
    """Such as a callback that is written in C."""
    assert blamed((10.2, 1, None), (10.3, 1, None), end=10.45) == {BACKGROUND: 0.4}


def test_garbage_collection_is_blamed_on_nobody():
    """Its time is known to the moment, and what is left of a short block is too short to blame."""
    assert blamed((10.45, 1, A, True), end=10.46, pauses=[(9.0, 9.9), (10.06, 10.44)]) == {GARBAGE: 0.38}
    assert blamed((10.3, 1, A), (10.4, 1, A), end=10.55, pauses=[(10.2, 10.35)]) == {GARBAGE: 0.15, "/a": 0.35}


def test_a_stopped_process_is_blamed_on_nobody():
    """It may have been stopped before, during or after a step."""
    assert blamed(end=12.0, stops=[(10.02, 12.0)]) == {STOPPED: 1.95}
    assert blamed((10.2, 1, A), (12.2, 1, A), end=12.25, stops=[(10.25, 12.2)]) == {STOPPED: 1.95, "/a": 0.25}


def test_a_process_without_a_processor_is_stopped():
    """The system counts for how long the loop's thread was ready to run."""
    assert blamed((10.2, 1, A), end=at(10.55, starved=0.3)) == {STOPPED: 0.3, "/a": 0.2}


def test_nothing_short_is_blamed():
    """A block that nothing has held for long is one of several steps."""
    assert blamed((10.3, 1, A), (10.4, 1, A), (10.45, 2, B), (10.46, 2, B), end=10.47) == {"/a": 0.375}
    assert blamed((10.2, 1, A), end=10.26, pauses=[(10.1, 10.21)], least=0.15) == {BUSY: 0.16}


culprits = st.sampled_from([A, B, None])


@given(
    steps=st.lists(st.tuples(st.floats(0.001, 1.0), st.integers(0, 2), culprits, st.booleans())),
    pauses=st.lists(st.tuples(st.floats(9.0, 15.0), st.floats(0.0, 1.0))),
    stops=st.lists(st.tuples(st.floats(9.0, 15.0), st.floats(0.0, 1.0)), max_size=1),
    tail=st.floats(0.0, 1.0),
)
def test_never_more_than_the_time_that_has_passed(steps, pauses, stops, tail):
    """Whatever was seen: of the time between two beats none is blamed twice."""
    samples, time = [], DUE
    for wait, step, culprit, is_sure in steps:
        time += wait
        samples.append((time, step, culprit, is_sure))
    end = time + tail
    # Collections follow each other, and so do stops.
    periods = []
    last = 0.0
    for begin, length in sorted(pauses):
        if begin >= last:
            periods.append((begin, last := begin + length))
    beat = Beat(at(BEGIN), DUE, [Sample(at(sample[0]), *sample[1:]) for sample in samples])
    blocks = blame(beat, at(end), pauses=periods, stops=[(a, a + b) for a, b in stops], least=0.1)
    assert sum(block.seconds for block in blocks) <= end - BEGIN + 1e-6
    assert all(block.seconds >= 0 for block in blocks)
