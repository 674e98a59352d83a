from __future__ import annotations

from hr_prometheus.workers.backoff import FIRST_PAUSE, LONGEST_PAUSE, RESTARTS_A_SECOND, Backoff


def test_one_that_has_served_is_started_again_at_once():
    """However often it ends."""
    backoff = Backoff(2)
    assert [backoff.pause(0, now, has_served=True, others_serve=False) for now in range(50)] == [0.0] * 50


def test_restarts_a_second_are_bounded():
    """Of workers that end as soon as they serve, the first is started at once, and all within a second each."""
    for workers in (1, 2, 64):
        backoff = Backoff(workers)
        pauses = [backoff.pause(slot, 100.0, has_served=True, others_serve=False) for slot in range(workers)]
        assert pauses[0] == 0
        assert max(pauses) < 1 / RESTARTS_A_SECOND
        within_a_second = [backoff.pause(0, 200.0, has_served=True, others_serve=False) <= 1 for _ in range(1000)]
        assert abs(sum(within_a_second) - RESTARTS_A_SECOND * workers) <= 1


def test_one_that_cannot_start_waits_longer_and_longer():
    """While others serve; each slot by itself, and from the beginning once it has served."""
    backoff = Backoff(2)
    pauses = [backoff.pause(0, 0.0, has_served=False, others_serve=True) for _ in range(9)]
    assert pauses == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]
    assert LONGEST_PAUSE == 30
    assert backoff.pause(1, 0.0, has_served=False, others_serve=True) == FIRST_PAUSE
    assert backoff.pause(0, 0.0, has_served=True, others_serve=True) == 0
    assert backoff.pause(0, 0.0, has_served=False, others_serve=True) == FIRST_PAUSE


def test_never_all_wait_for_long():
    """While no other worker serves or starts, the pause stays the shortest."""
    backoff = Backoff(2)
    for _ in range(9):
        backoff.pause(0, 0.0, has_served=False, others_serve=True)
        assert backoff.pause(0, 0.0, has_served=False, others_serve=False) == FIRST_PAUSE
