"""The buckets of a native histogram in its message: spans of those that count something, and the differences between them.

https://prometheus.io/docs/specs/native_histograms/#buckets
"""

from __future__ import annotations

from functools import lru_cache
from itertools import compress
from typing import TYPE_CHECKING

from hr_prometheus.exposition import wire

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from hr_prometheus.store.bounds import NativeBounds

#: Less than the index of any bucket, by more than a gap in a span.
_FAR_BELOW = -(2**20)


def native_encoder(bounds: NativeBounds) -> Callable[[list[float], list[bytes]], None]:
    """Return what adds the fields of the native buckets of some cells with these *counts*."""
    zeros = bounds.native_indexes.count(bounds.first_index)
    indexes = bounds.native_indexes[zeros:]
    head = (
        wire.tag(5, wire.VARINT)
        + wire.zigzag(bounds.native.schema)
        + wire.double(6, bounds.zero_threshold)
        + _ZERO_COUNT
    )

    def encode(counts: list[float], fields: list[bytes]) -> None:
        above = counts[zeros:]
        fields += (head, wire.varint(int(sum(counts[:zeros]))))
        deltas = _packed(_add_spans(compress(indexes, above), filter(None, above), fields))
        fields += (_DELTAS, wire.varint(len(deltas)), deltas)

    return encode


def _add_spans(indexes: Iterable[int], counts: Iterable[float], fields: list[bytes]) -> list[float]:
    """Add the fields of the spans of some buckets, and return the differences of all their counts.

    The *indexes* ascend. Where one comes again, the counts are of one bucket. One or two empty buckets take less than another
    span.
    """
    deltas: list[float] = []
    append = deltas.append
    first = end = 0  # the first bucket of this span, and the one behind the span before
    following = _FAR_BELOW
    previous = 0.0
    for index, count in zip(indexes, counts, strict=True):
        if index == following:
            append(count - previous)
        elif index == following + 1:
            deltas += (-previous, count)
        elif index == following + 2:
            deltas += (-previous, 0.0, count)
        elif index < following:
            deltas[-1] += count
            previous += count
            continue
        else:
            if deltas:
                fields.append(_span(first - end, following - first))
                end = following
            first = index
            append(count - previous)
        previous, following = count, index + 1
    if deltas:
        fields.append(_span(first - end, following - first))
    return deltas


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
_OFFSET, _LENGTH = wire.tag(1, wire.VARINT), wire.tag(2, wire.VARINT)
_ZERO_COUNT, _DELTAS = wire.tag(7, wire.VARINT), wire.tag(13, wire.BYTES)
