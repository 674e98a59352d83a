"""The bounds of a histogram's cells, where it is a native histogram as well.

There is one cell between each two bounds, of whichever kind they are: those of the native buckets and those of the classic
ones. So an observation is one search and one addition, as without native histograms, and both kinds are sums of cells.
"""

from __future__ import annotations

from bisect import bisect_left
from functools import cached_property, lru_cache
from itertools import accumulate
from math import inf, ldexp
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hr_prometheus.metric import NativeBuckets

#: Those of schema 3 from 0.5 on, of which schemas below have some: powers of two, of which a few differ from Python's in the
#: last bit. https://github.com/prometheus/client_golang/blob/main/prometheus/histogram.go (``nativeHistogramBounds``)
_MANTISSAS: Final = (
    0.5, 0.5452538663326288, 0.5946035575013605, 0.6484197773255048,
    0.7071067811865475, 0.7711054127039704, 0.8408964152537144, 0.9170040432046711,
)  # fmt: skip
#: The modes of native histograms: in protocol buffers they replace the classic ones, or are sent with them.
ONLY, BOTH = MODES = ("only", "both")
#: The mode of stores without.
OFF: Final = ""


class NativeBounds(tuple[float, ...]):  # noqa: SLOT001  # a tuple with attributes cannot
    """The upper bounds of the cells of a histogram that has *classic* bounds and *native* buckets, in one of the modes.

    *plain* are the same, as a tuple that is searched five times as fast.
    """

    plain: tuple[float, ...]
    classic: tuple[float, ...]
    native: NativeBuckets
    mode: str
    _hash: int  # each scrape looks bounds up, for each series

    def __new__(cls, classic: tuple[float, ...], native: NativeBuckets, mode: str) -> Self:
        """Make the bounds. Use :func:`native_bounds`, which keeps them."""
        self = super().__new__(cls, sorted({*classic, *upper_bounds(native)}))
        self.plain, self.classic, self.native, self.mode = tuple(self), classic, native, mode
        self._hash = hash((classic, native, mode))
        return self

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, NativeBounds):
            return False
        return (self.classic, self.native, self.mode) == (other.classic, other.native, other.mode)

    def __ne__(self, other: object) -> bool:
        return not self == other  # tuples have one of their own

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def classic_cells(self) -> list[int]:
        """The last cell of each classic bucket."""
        return [*map(self.index, self.classic), len(self)]

    @cached_property
    def native_indexes(self) -> list[int]:
        """The index of each cell's native bucket. The bucket with the first one is that of zero."""
        bounds = upper_bounds(self.native)
        return [self.first_index + bisect_left(bounds, bound) for bound in (*self, inf)]

    @cached_property
    def zero_cells(self) -> int:
        """How many cells belong to the bucket of zero."""
        return self.native_indexes.count(self.first_index)

    @cached_property
    def second_cells(self) -> list[int]:
        """The cells above the bucket of zero that share a bucket with the cell before, as a classic bound divides it; last first."""
        indexes = self.native_indexes
        return [cell for cell in range(len(indexes) - 1, self.zero_cells, -1) if indexes[cell] == indexes[cell - 1]]

    @property
    def first_index(self) -> int:
        """The index that the bucket of zero would have if it were like the others."""
        return self.native.low << self.native.schema

    @property
    def zero_threshold(self) -> float:
        """The upper bound of the bucket of zero."""
        return ldexp(1.0, self.native.low)


#: Returns the bounds of cells, the same object for the same arguments.
native_bounds = lru_cache(maxsize=1024)(NativeBounds)


@lru_cache(maxsize=16)
def upper_bounds(native: NativeBuckets) -> tuple[float, ...]:
    """Return the upper bounds of native buckets, from that of zero on, exactly as Prometheus has them."""
    mantissas = _MANTISSAS[:: len(_MANTISSAS) >> native.schema]
    bounds = [ldexp(mantissa, power + 1) for power in range(native.low, native.high) for mantissa in mantissas]
    return (*bounds, ldexp(1.0, native.high))


def cell_bounds(bounds: tuple[float, ...]) -> tuple[float, ...]:
    """Return the upper bounds of cells as a tuple to search."""
    return bounds.plain if isinstance(bounds, NativeBounds) else bounds


def classic_bounds(bounds: tuple[float, ...]) -> tuple[float, ...]:
    """Return the upper bounds of the buckets of a histogram whose cells have these *bounds*."""
    return bounds.classic if isinstance(bounds, NativeBounds) else bounds


def cells_of_bucket(bounds: tuple[float, ...], classic: tuple[float, ...], bucket: int) -> slice:
    """Return which cells, of those with these *bounds*, a bucket of the *classic* ones consists of."""
    first = bounds.index(classic[bucket - 1]) + 1 if bucket else 0
    last = bounds.index(classic[bucket]) if bucket < len(classic) else len(bounds)
    return slice(first, last + 1)


def cumulative_counts(bounds: tuple[float, ...], counts: Iterable[float]) -> list[float]:
    """Return the cumulative counts of the buckets, ``+Inf`` last, of a histogram whose cells have these *bounds*."""
    cumulative = [*accumulate(counts)]
    return [cumulative[cell] for cell in bounds.classic_cells] if isinstance(bounds, NativeBounds) else cumulative


def common_bounds(ones: tuple[float, ...], others: tuple[float, ...]) -> tuple[float, ...]:
    """Return the bounds that two histograms have in common. They are native if both are so in the same way."""
    own = set(classic_bounds(others))
    common = tuple(bound for bound in classic_bounds(ones) if bound in own)
    if isinstance(ones, NativeBounds) and isinstance(others, NativeBounds) and ones.native == others.native:
        return native_bounds(common, ones.native, max(ones.mode, others.mode, key=MODES.index))
    return common
