from __future__ import annotations

from math import nan

import pytest

from hr_prometheus.event_loop.lock import Keeper, lock_keeper
from hr_prometheus.event_loop.usage import Usage


@pytest.mark.parametrize(
    ("usage", "keeper"),
    [
        ({"thread": 0.4, "others": 0.0, "slices": 1}, Keeper.LOOP),
        ({"thread": 0.4, "others": 0.0, "slices": 100}, Keeper.LOOP),  # others have interrupted it
        ({"thread": 0.4, "others": 0.02, "slices": 1}, Keeper.UNKNOWN),  # one may have come between
        ({"thread": 0.0, "others": 0.0, "slices": 1}, Keeper.LOOP),
        ({"thread": 0.0, "others": 0.4, "slices": 80}, Keeper.THREAD),
        ({"thread": 0.0, "others": 0.0, "slices": 80}, Keeper.THREAD),
        ({"thread": 0.0, "others": 0.4, "slices": nan}, Keeper.THREAD),
        ({"thread": 0.1, "others": 0.0, "slices": 80}, Keeper.THREAD),  # it may have computed before
        ({"thread": 0.0, "others": 0.0, "slices": nan}, Keeper.UNKNOWN),
        ({"thread": 0.2, "others": 0.4, "slices": 80}, Keeper.UNKNOWN),
        ({"thread": 0.0, "others": 0.0, "slices": 80, "rate": 300}, Keeper.UNKNOWN),  # it wakes as often as that
    ],
)
def test_who_has_kept_the_interpreter_lock(usage, keeper):
    """For 0.4 of 0.55 seconds. The loop's thread is said to have kept it only if it cannot have waited for it."""
    process = usage["thread"] + usage.pop("others")
    rate = usage.pop("rate", 0)
    earlier = Usage(10.0, 5.0, 7.0, 0.0, 1000.0)
    later = Usage(10.55, 5.0 + usage["thread"], 7.0 + process, 0.0, 1000.0 + usage["slices"])
    assert lock_keeper(earlier, later, 0.4, rate) is keeper
