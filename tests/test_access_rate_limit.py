from __future__ import annotations

from hr_prometheus.access.rate_limit import RateLimit, TokenBucket


def test_a_burst_and_then_one_in_each_interval():
    """After a rest the burst is there again, and no more than that."""
    bucket = TokenBucket(RateLimit(2.0, 3), 100.0)
    assert [bucket.take(100.0) for _ in range(5)] == [True, True, True, False, False]
    assert [bucket.take(101.9), bucket.take(102.0), bucket.take(102.1)] == [False, True, False]
    assert [bucket.take(1000.0) for _ in range(4)] == [True, True, True, False]


def test_no_burst():
    """Nothing is allowed, as by Prometheus' exporters."""
    bucket = TokenBucket(RateLimit(1.0, 0), 0.0)
    assert not bucket.take(1000.0)
