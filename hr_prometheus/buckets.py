"""The buckets of latency histograms: those of all routes, and those of routes by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TypeAlias

from hr_prometheus.errors import SettingError
from hr_prometheus.metric import LATENCY_BUCKETS

#: Upper bounds in seconds, or a mapping of route names to theirs, in which ``*`` is every other route.
Buckets: TypeAlias = Sequence[float] | Mapping[str, Sequence[float]]

#: In a mapping, the routes that have no buckets of their own.
OTHERS = "*"


class LatencyBuckets:
    """The upper bounds of latency histograms, in seconds, without the implied ``+Inf``.

    Raises :exc:`~hr_prometheus.errors.ConfigurationError` unless all bounds are positive and ascending numbers.
    """

    def __init__(self, buckets: Buckets = LATENCY_BUCKETS) -> None:
        named = buckets if isinstance(buckets, Mapping) else {OTHERS: buckets}
        self.by_route = {name: _checked(name, bounds, buckets) for name, bounds in named.items()}
        self.others = self.by_route.pop(OTHERS, LATENCY_BUCKETS)

    def of(self, route: str | None) -> tuple[float, ...]:
        """Return the bounds for the route of a name; ``None`` is a route without one."""
        return self.others if route is None else self.by_route.get(route, self.others)

    def as_mapping(self) -> dict[str, tuple[float, ...]]:
        """Return the bounds by route name, as this class takes them."""
        return {OTHERS: self.others, **self.by_route}

    @property
    def common(self) -> tuple[float, ...]:
        """The bounds that all routes have. Only they have a meaning for several routes together."""
        return tuple(bound for bound in self.others if all(bound in bounds for bounds in self.by_route.values()))


def _checked(name: object, bounds: object, buckets: object) -> tuple[float, ...]:
    """Return the bounds without a final ``+Inf``; they must be finite, positive and ascending."""
    try:
        numbers = tuple(float(bound) for bound in bounds)  # type: ignore[attr-defined]  # a TypeError
    except (TypeError, ValueError):  # not numbers
        numbers = ()
    if numbers and numbers[-1] == float("inf"):
        numbers = numbers[:-1]
    ascending = all(low < high for low, high in pairwise((0.0, *numbers, float("inf"))))  # also false for NaN
    if not numbers or not ascending or not isinstance(name, str) or isinstance(bounds, str):
        raise SettingError(
            "buckets",
            f"buckets={buckets!r}",
            ": invalid buckets. Expected upper bounds in seconds, greater than 0 and ascending, for example ",
            (name,) if isinstance(name, str) else (),
            advice="[0.05, 0.1, 0.5, 1, 5].",
            command_advice="0.05,0.1,0.5,1,5.",
        )
    return numbers


DEFAULT_BUCKETS = LatencyBuckets()
