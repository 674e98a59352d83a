from __future__ import annotations

from hr_prometheus.workers.backoff import FIRST_PAUSE, LONGEST_PAUSE, RESTARTS_A_SECOND, Pauses


def test_one_that_has_served_is_started_again_at_once():
    """However often it ends."""
    pauses = Pauses(2)
    assert [pauses.of(0, now, has_served=True, others_serve=False) for now in range(50)] == [0.0] * 50


def test_restarts_a_second_are_bounded():
    """Of workers that end as soon as they serve, the first is started at once, and all within a second each."""
    for workers in (1, 2, 64):
        pauses = Pauses(workers)
        found = [pauses.of(slot, 100.0, has_served=True, others_serve=False) for slot in range(workers)]
        assert found[0] == 0
        assert max(found) < 1 / RESTARTS_A_SECOND
        within_a_second = [pauses.of(0, 200.0, has_served=True, others_serve=False) <= 1 for _ in range(1000)]
        assert abs(sum(within_a_second) - RESTARTS_A_SECOND * workers) <= 1


def test_one_that_cannot_start_waits_longer_and_longer():
    """While others serve; each slot by itself, and from the beginning once it has served."""
    pauses = Pauses(2)
    found = [pauses.of(0, 0.0, has_served=False, others_serve=True) for _ in range(9)]
    assert found == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]
    assert LONGEST_PAUSE == 30
    assert pauses.of(1, 0.0, has_served=False, others_serve=True) == FIRST_PAUSE
    assert pauses.of(0, 0.0, has_served=True, others_serve=True) == 0
    assert pauses.of(0, 0.0, has_served=False, others_serve=True) == FIRST_PAUSE


def test_never_all_wait_for_long():
    """While no other worker serves or starts, the pause stays the shortest."""
    pauses = Pauses(2)
    for _ in range(9):
        pauses.of(0, 0.0, has_served=False, others_serve=True)
        assert pauses.of(0, 0.0, has_served=False, others_serve=False) == FIRST_PAUSE
