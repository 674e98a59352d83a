"""So many requests in a time, by a bucket of tokens."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RateLimit:
    """One request in each *interval* of seconds, and a *burst* of so many at once. A burst of 0 allows none at all."""

    interval: float
    burst: int


class TokenBucket:
    """Allows requests up to a *limit*. *now* is a time in seconds, as of an event loop."""

    def __init__(self, limit: RateLimit, now: float) -> None:
        self.limit = limit
        self._tokens, self._last = float(limit.burst), now

    def take(self, now: float) -> bool:
        """Return whether one more request is allowed."""
        self._tokens = min(self._tokens + (now - self._last) / self.limit.interval, float(self.limit.burst))
        self._last = now
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True
