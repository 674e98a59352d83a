"""The buckets of a native histogram in its message: spans of those that count something, and the differences between them.

https://prometheus.io/docs/specs/native_histograms/#buckets
"""

from __future__ import annotations

from bisect import bisect_left
from functools import lru_cache
from itertools import compress, pairwise
from operator import sub
from typing import TYPE_CHECKING, NamedTuple

from hr_prometheus.exposition import wire
from hr_prometheus.exposition.classic_buckets import NO_CLASSIC_BUCKETS, ClassicBuckets, classic_buckets
from hr_prometheus.store.bounds import BOTH

if TYPE_CHECKING:
    from collections.abc import Callable

    from hr_prometheus.store.bounds import NativeBounds


class Shape(NamedTuple):
    """Which cells of a histogram count something. Many histograms have the same shape, and keep it from scrape to scrape."""

    #: How many cells belong to the bucket of zero; 0 if none of them counts anything.
    zeros: int = 0
    #: The cells from the first to the last above the bucket of zero that count something.
    cells: slice = slice(0)
    #: Those of them that share a bucket with the cell before, which a classic bound has divided; the last one first.
    seconds: tuple[int, ...] = ()
    #: The spans, as fields of the message, and which of the buckets they have.
    spans: bytes = b""
    buckets: tuple[slice, ...] = ()
    #: The classic buckets, where they are sent as well.
    classic: ClassicBuckets = NO_CLASSIC_BUCKETS


def native_encoder(bounds: NativeBounds) -> Callable[[list[float], float, Shape], tuple[bytes, Shape]]:
    """Return what encodes the fields of the native buckets of some cells with these *counts*, whose sum is *count*.

    It takes and returns the shape. That of the scrape before is taken again, unless another bucket counts something by now.
    """
    head = (
        wire.tag(5, wire.VARINT)
        + wire.zigzag(bounds.native.schema)
        + wire.double(6, bounds.zero_threshold)
        + _ZERO_COUNT
    )

    def encode(counts: list[float], count: float, shape: Shape) -> tuple[bytes, Shape]:
        zero_count, numbers = _numbers(counts, shape)
        if zero_count + sum(numbers) != count:
            shape = shape_of(bounds, tuple(compress(range(len(counts)), counts)))
            zero_count, numbers = _numbers(counts, shape)
        deltas = _packed([*map(sub, numbers, [0.0, *numbers])])
        count_of_zero, length = wire.varint(int(zero_count)), wire.varint(len(deltas))
        return b"".join((head, count_of_zero, shape.spans, _DELTAS, length, deltas)), shape

    return encode


def _numbers(counts: list[float], shape: Shape) -> tuple[float, list[float]]:
    """Return the count of the bucket of zero, and those of the buckets in spans."""
    zeros, cells, seconds, _, spans, _ = shape
    buckets = counts[cells]
    for second in seconds:
        buckets[second - 1] += buckets.pop(second)
    if len(spans) > 1:
        buckets = [count for span in spans for count in buckets[span]]
    return sum(counts[:zeros]), buckets


@lru_cache(maxsize=wire.MOST_KEPT)
def shape_of(bounds: NativeBounds, used: tuple[int, ...]) -> Shape:
    """Return the shape of a histogram whose *used* cells count something."""
    indexes, zeros = bounds.native_indexes, bounds.zero_cells
    above = used[bisect_left(used, zeros) :]
    zeros = zeros if len(above) < len(used) else 0
    # All cells of zero may count something, if one does.
    past = len(indexes)
    ends = (0 if zeros else used[0], max(used[-1], zeros - 1)) if used else (past, past)
    classic = classic_buckets(bounds, *ends) if bounds.mode == BOTH else NO_CLASSIC_BUCKETS
    if not above:
        return Shape(zeros, classic=classic)
    start, stop = above[0], above[-1] + 1
    seconds = [cell - start for cell in bounds.second_cells if start < cell < stop]
    buckets = [indexes[cell] for cell in above]
    gaps = [place for place, step in enumerate(map(sub, buckets[1:], buckets), 1) if step > _LONGEST_STEP]
    fields, spans, end = [], [], 0
    for first, past in pairwise([0, *gaps, len(buckets)]):
        index, after = buckets[first], buckets[past - 1] + 1
        fields.append(_span(index - end, after - index))
        spans.append(slice(index - buckets[0], after - buckets[0]))
        end = after
    return Shape(zeros, slice(start, stop), tuple(seconds), b"".join(fields), tuple(spans), classic)


@lru_cache(maxsize=wire.MOST_KEPT)
def _span(offset: int, length: int) -> bytes:
    """Return the field of a span; the *offset* is its distance from the one before."""
    return wire.message(12, _OFFSET + wire.zigzag(offset) + _LENGTH + wire.varint(length))


def _packed(deltas: list[float]) -> bytes:
    """Return differences of counts, one after the other."""
    try:
        return b"".join(map(_small_delta, deltas))
    except KeyError:
        return wire.zigzags(deltas)


class _SmallDeltas(dict[float, bytes]):
    """The differences that most histograms have. They come again and again."""

    def __missing__(self, delta: float) -> bytes:
        if abs(delta) > wire.MOST_KEPT // 2:
            raise KeyError(delta)
        text = self[delta] = wire.zigzag(int(delta))
        return text


_small_delta: Callable[[float], bytes] = _SmallDeltas().__getitem__
#: From a bucket that counts something to the next one in its span: one or two empty ones take less than another span.
_LONGEST_STEP = 3
_OFFSET, _LENGTH = wire.tag(1, wire.VARINT), wire.tag(2, wire.VARINT)
_ZERO_COUNT, _DELTAS = wire.tag(7, wire.VARINT), wire.tag(13, wire.BYTES)
