"""The classic buckets of a histogram in its message: each with its cumulative count and its upper bound."""

from __future__ import annotations

from functools import lru_cache
from itertools import accumulate
from math import inf
from typing import TYPE_CHECKING, NamedTuple

from hr_prometheus.exposition import wire
from hr_prometheus.exposition.exemplars import bucket_message
from hr_prometheus.store.bounds import NativeBounds, classic_bounds, cumulative_counts
from hr_prometheus.store.exemplars import time_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from prometheus_client.core import Exemplar

    from hr_prometheus.exposition.client_model import Names
    from hr_prometheus.store.families import Part

    #: Encodes the buckets of the histogram with some labels, after the *head* with the fields of its count and its sum, from its count,
    #: the counts of its cells, and its exemplars by bucket.
    EncodeHistogram = Callable[[tuple[str, ...], bytes, float, list[float], Mapping[int, Exemplar]], list[bytes]]


def classic_encoder(part: Part, names: Names) -> EncodeHistogram:
    """Return what encodes all buckets but ``+Inf``, for which the count stands."""
    bounds = part.bounds
    buckets = (*classic_bounds(bounds), inf)
    template = [part for bound in buckets[:-1] for part in (b"", _bound(bound))]

    def encode(
        _values: tuple[str, ...], head: bytes, _count: float, counts: list[float], exemplars: Mapping[int, Exemplar]
    ) -> list[bytes]:
        cumulative = cumulative_counts(bounds, counts)
        places = template.copy()
        places[::2] = map(_bucket, cumulative[:-1])
        for index, exemplar in exemplars.items():
            message = bucket_message(cumulative[index], buckets[index], exemplar, names)
            places[2 * index : 2 * index + 2] = message, b""  # that of the bucket +Inf is added
        return [head, *places]

    return encode


def exemplar_encoder(
    bounds: tuple[float, ...], names: Names
) -> Callable[[list[float], Mapping[int, Exemplar]], Iterator[bytes]]:
    """Return what encodes the classic buckets with exemplars only.

    Prometheus looks there for the exemplars of a native histogram. 2.42 takes only the first one of a scrape, so the newest
    comes first. Later versions take all, in the order of their times.
    """
    buckets = (*classic_bounds(bounds), inf)

    def encode(counts: list[float], exemplars: Mapping[int, Exemplar]) -> Iterator[bytes]:
        cumulative = cumulative_counts(bounds, counts)
        for index, exemplar in sorted(exemplars.items(), key=lambda item: time_of(item[1]), reverse=True):
            yield bucket_message(cumulative[index], buckets[index], exemplar, names)

    return encode


class ClassicBuckets(NamedTuple):
    """The classic buckets of a histogram that is a native one as well, by which of its cells count something.

    *cells* are those from the first to the last that do. The buckets *below* end before, and count nothing. Those inside end with
    the cells *ends*, from the first of *cells* on, and have these *bounds*. *above* is nothing, and then the bounds of those
    that count everything.
    """

    cells: slice
    below: bytes
    ends: tuple[int, ...]
    bounds: tuple[bytes, ...]
    above: tuple[bytes, ...]

    def encoded(self, counts: list[float], count: float) -> bytes:
        """Return the buckets of all cells with these *counts*, whose sum is *count*."""
        cumulative = [*accumulate(counts[self.cells])]
        inside = [
            text
            for end, bound in zip(self.ends, self.bounds, strict=True)
            for text in (_bucket(cumulative[end]), bound)
        ]
        return b"".join((self.below, *inside, _bucket(count).join(self.above)))


NO_CLASSIC_BUCKETS = ClassicBuckets(slice(0), b"", (), (), ())


@lru_cache(maxsize=wire.MOST_KEPT)
def classic_buckets(bounds: NativeBounds, start: int, last: int) -> ClassicBuckets:
    """Return the classic buckets of a histogram whose cells count something from *start* to *last*."""
    ends = [(cell, _bound(bound)) for cell, bound in zip(bounds.classic_cells, bounds.classic, strict=False)]
    inside = [(cell - start, bound) for cell, bound in ends if start <= cell <= last]
    return ClassicBuckets(
        slice(start, last + 1),
        b"".join([_bucket(0.0) + bound for cell, bound in ends if cell < start]),
        tuple(end for end, _ in inside),
        tuple(bound for _, bound in inside),
        (b"", *(bound for cell, bound in ends if cell > last)),
    )


def _bound(bound: float) -> bytes:
    return wire.double(2, bound)


class _Buckets(dict[float, bytes]):
    """The beginnings of buckets, up to their bounds, by count. Those of small counts are kept: many histograms have them."""

    def __missing__(self, count: float) -> bytes:
        number = wire.varint(int(count))
        text = _BUCKETS[len(number)] + number
        if count < wire.MOST_KEPT:
            self[count] = text
        return text


#: The tag of a bucket, its length and the tag of its count, by the length of the latter.
_BUCKETS = [
    wire.tag(3, wire.BYTES) + wire.varint(1 + length + len(wire.double(2, 0.0))) + wire.tag(1, wire.VARINT)
    for length in range(11)
]
_bucket: Callable[[float], bytes] = _Buckets().__getitem__
