"""The buckets of a native histogram in its message: spans of those that count something, and the differences between them.

https://prometheus.io/docs/specs/native_histograms/#buckets
"""

from __future__ import annotations

from functools import lru_cache
from itertools import compress, pairwise
from operator import sub
from typing import TYPE_CHECKING, NamedTuple

from hr_prometheus.exposition import wire

if TYPE_CHECKING:
    from collections.abc import Callable

    from hr_prometheus.store.bounds import NativeBounds


class Spans(NamedTuple):
    """The spans of a histogram's buckets: their fields, and which buckets they have, of those above that of zero."""

    fields: bytes
    buckets: tuple[slice, ...]


#: Those of a histogram that counts nothing.
NO_SPANS = Spans(b"", ())


def native_encoder(bounds: NativeBounds) -> Callable[[list[float], float, Spans], tuple[bytes, Spans]]:
    """Return what encodes the fields of the native buckets of some cells with these *counts*, whose sum is *count*.

    It takes and returns the spans. Those of the scrape before are taken again, unless another bucket counts something by now.
    """
    zeros = bounds.native_indexes.count(bounds.first_index)
    above = bounds.native_indexes[zeros:]
    # A classic bound may divide a bucket. The last of the cells that share one with the cell before comes first.
    seconds = [cell for cell in range(len(above) - 1, 0, -1) if above[cell] == above[cell - 1]]
    head = (
        wire.tag(5, wire.VARINT)
        + wire.zigzag(bounds.native.schema)
        + wire.double(6, bounds.zero_threshold)
        + _ZERO_COUNT
    )

    def encode(counts: list[float], count: float, spans: Spans) -> tuple[bytes, Spans]:
        zero_count, buckets = sum(counts[:zeros]), counts[zeros:]
        for second in seconds:
            buckets[second - 1] += buckets.pop(second)
        numbers = _numbers(buckets, spans)
        if sum(numbers) != count - zero_count:
            spans = _spans(bounds.first_index + 1, tuple(compress(range(len(buckets)), buckets)))
            numbers = _numbers(buckets, spans)
        deltas = _packed([*map(sub, numbers, [0.0, *numbers])])
        count_of_zero, length = wire.varint(int(zero_count)), wire.varint(len(deltas))
        return b"".join((head, count_of_zero, spans.fields, _DELTAS, length, deltas)), spans

    return encode


def _numbers(buckets: list[float], spans: Spans) -> list[float]:
    numbers: list[float] = []
    for each in spans.buckets:
        numbers += buckets[each]
    return numbers


@lru_cache(maxsize=wire.MOST_KEPT)
def _spans(first_index: int, used: tuple[int, ...]) -> Spans:
    """Return the spans for the buckets that are *used*, by their places. The first of all has the *first_index*."""
    starts = [place for place, step in enumerate(map(sub, used[1:], used), 1) if step > _LONGEST_STEP]
    fields, slices = [], []
    end = -first_index
    for start, stop in pairwise([0, *starts, len(used)] if used else ()):
        first, after = used[start], used[stop - 1] + 1
        fields.append(_span(first - end, after - first))
        slices.append(slice(first, after))
        end = after
    return Spans(b"".join(fields), tuple(slices))


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
