from __future__ import annotations

import asyncio

import pytest
from conftest import samples, until
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest

from hr_prometheus.event_loop.blame import Beat
from hr_prometheus.event_loop.heartbeat import BEAT, Heartbeat
from hr_prometheus.metric import LAG_BUCKETS
from hr_prometheus.store.bounds import OFF, ONLY
from hr_prometheus.store.store import loop_store, make_native


def scrape(registry) -> dict[str, float]:
    return samples(generate_latest(registry).decode())


def heart_of(loop, registry) -> Heartbeat:
    return Heartbeat(loop, loop_store(registry), lambda _beat, _usage: None, lambda _error: None)


@given(late=st.floats(-0.01, 100.0) | st.sampled_from(LAG_BUCKETS), mode=st.sampled_from([OFF, ONLY]))
def test_a_late_beat_stands_for_those_that_it_has_delayed(late, mode):
    """Each timer asked for in the meantime, one for every tenth of a second, is observed as late as it would have run."""
    registry, loop = CollectorRegistry(), asyncio.new_event_loop()
    make_native(registry, mode)
    try:
        heart = heart_of(loop, registry)
        beat = Beat(heart.usage.read(), 50.0)
        heart._record(beat, beat.usage._replace(at=50.0 + late))
        scraped = scrape(registry)
    finally:
        loop.close()
    late = max(0.0, 50.0 + late - 50.0)
    lags = [late - BEAT * number for number in range(int(late / BEAT) + 1)]
    assert scraped["asyncio_event_loop_lag_seconds_count"] == len(lags)
    assert scraped["asyncio_event_loop_lag_seconds_sum"] == pytest.approx(sum(lags), abs=1e-6)
    for bound in LAG_BUCKETS:
        bucket = scraped[f'asyncio_event_loop_lag_seconds_bucket{{le="{bound}"}}']
        near = sum(abs(lag - bound) < 1e-6 for lag in lags)
        assert abs(bucket - sum(lag <= bound for lag in lags)) <= near


class Timers:
    """An event loop that has only timers, and no clock."""

    def __init__(self) -> None:
        self.calls: dict[float, object] = {}

    def call_later(self, seconds, call):
        self.calls[seconds] = call


@pytest.mark.parametrize("wakes", [0, 1000])
def test_a_loop_that_wakes_often_is_looked_at_between_beats(registry, monkeypatch, wakes):
    """Then less is unknown of what it did before a block. A look that was due before a block says nothing after it."""
    timers = Timers()
    heart = heart_of(timers, registry)
    usage = heart.beat.usage
    monkeypatch.setattr(heart.usage, "read", lambda: usage._replace(slices=usage.slices + wakes))
    heart._run()
    assert len(timers.calls) == (5 if wakes else 1)
    if wakes:
        *looks, _beat = sorted(timers.calls)
        earlier = heart.beat.usage
        for late, latest in ((0.01, True), (1.0, False)):
            later = earlier._replace(at=heart.beat.due - BEAT + looks[0] + late)
            monkeypatch.setattr(heart.usage, "read", lambda: later)  # noqa: B023  # it is called at once
            timers.calls[looks[0]]()
            assert (heart.beat.latest is later) is latest
        assert heart.beat.usage is earlier


async def test_it_beats_until_it_is_stopped(registry):
    """Each beat is observed, with the processor time that the thread has used."""
    heart = heart_of(asyncio.get_running_loop(), registry)
    heart.start()
    await until(lambda: scrape(registry)["asyncio_event_loop_lag_seconds_count"] >= 2)
    heart.stop()
    scraped = scrape(registry)
    assert scraped["asyncio_event_loop_cpu_seconds_total"] > 0
    await asyncio.sleep(2 * BEAT)
    assert scrape(registry) == scraped
