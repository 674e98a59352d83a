"""The buckets of a native histogram in its message: spans of those that count something, and the differences between them.

https://prometheus.io/docs/specs/native_histograms/#buckets
"""

from __future__ import annotations

from itertools import compress, islice
from typing import TYPE_CHECKING

from hr_prometheus.exposition import wire

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hr_prometheus.store.bounds import NativeBounds

#: So many empty buckets take less than another span.
_SHORT_GAP = 2
#: A distance at which buckets are in no span with others.
_FAR = 10
_MOST_KEPT = 4096


def native_encoder(bounds: NativeBounds) -> Callable[[list[float], list[bytes]], float]:
    """Return what adds the fields of the native buckets of some cells, the sum first, and returns their count."""
    first = 1 + bounds.native_indexes.count(bounds.first_index)  # of those above zero
    indexes = bounds.native_indexes[first - 1 :]
    head = (
        wire.tag(5, wire.VARINT)
        + wire.zigzag(bounds.native.schema)
        + wire.double(6, bounds.zero_threshold)
        + _ZERO_COUNT
    )

    def encode(cells: list[float], fields: list[bytes]) -> float:
        zero = sum(cells[1:first])
        counts = [*filter(None, islice(cells, first, None))]
        spans, deltas = _spans([*compress(indexes, islice(cells, first, None))], counts)
        body = b"".join(map(_delta, deltas))
        fields += (head, wire.varint(int(zero)), *map(_span, spans), _DELTAS, wire.varint(len(body)), body)
        return zero + sum(counts)

    return encode


def _spans(indexes: Sequence[int], counts: Sequence[float]) -> tuple[list[tuple[int, int]], list[float]]:
    """Return the spans of buckets, each with its distance from the one before, and the differences of all their counts.

    The *indexes* ascend. Where one comes again, the counts are of one bucket.
    """
    spans: list[tuple[int, int]] = []
    deltas: list[float] = []
    first = last = base = indexes[0] - _FAR if indexes else 0
    previous = 0.0
    for index, count in zip(indexes, counts, strict=True):
        distance = index - last
        if distance == 1:
            deltas.append(count - previous)
        elif distance == 0:
            deltas[-1] += count
            previous += count
            continue
        elif distance <= 1 + _SHORT_GAP:
            deltas += (-previous, 0.0)[: distance - 1]
            deltas.append(count)
        else:
            if deltas:
                spans.append((first - base, last + 1 - first))
            base, first = (last + 1, index) if deltas else (0, index)
            deltas.append(count - previous)
        previous, last = count, index
    if deltas:
        spans.append((first - base, last + 1 - first))
    return spans, deltas


class _Spans(dict[tuple[int, int], bytes]):
    """The fields of spans. Histograms have many that are the same."""

    def __missing__(self, span: tuple[int, int]) -> bytes:
        if len(self) >= _MOST_KEPT:
            self.clear()
        offset, length = span
        content = b"".join((_OFFSET, wire.zigzag(offset), _LENGTH, wire.varint(length)))
        field = self[span] = wire.message(12, content)
        return field


class _Deltas(dict[float, bytes]):
    """Differences of counts, in the same way."""

    def __missing__(self, delta: float) -> bytes:
        if len(self) >= _MOST_KEPT:
            self.clear()
        text = self[delta] = wire.zigzag(int(delta))
        return text


_OFFSET, _LENGTH = wire.tag(1, wire.VARINT), wire.tag(2, wire.VARINT)
_ZERO_COUNT, _DELTAS = wire.tag(7, wire.VARINT), wire.tag(13, wire.BYTES)
_span: Callable[[tuple[int, int]], bytes] = _Spans().__getitem__
_delta: Callable[[float], bytes] = _Deltas().__getitem__
