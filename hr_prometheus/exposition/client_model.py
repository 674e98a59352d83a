"""What all messages ``io.prometheus.client`` share: https://github.com/prometheus/client_model."""

from __future__ import annotations

from functools import lru_cache, partial
from typing import TYPE_CHECKING, Final, Self

from prometheus_client.openmetrics.exposition import ALLOWUTF8, escape_label_name, escape_metric_name

from hr_prometheus.exposition import wire

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from prometheus_client.core import Exemplar

#: ``MetricType``
_TYPES: Final = {"counter": 0, "gauge": 1, "summary": 2, "untyped": 3, "histogram": 4, "gaugehistogram": 5}
_LABEL, _METRIC = wire.tag(1, wire.BYTES), wire.tag(4, wire.BYTES)


class Names:
    """Writes names of families and labels. Those that are not plain are rewritten as *escaping* says."""

    def __init__(self, escaping: str) -> None:
        self._escaping = escaping
        #: Returns a ``LabelPair`` of a name and a value, as a field of a metric or of an exemplar. Those used last are kept.
        self.label = lru_cache(maxsize=wire.MOST_KEPT)(partial(_label, escaping))

    def family(self, name: str) -> bytes:
        """Return the name of a family, as a field of it."""
        return wire.text(1, name if self._escaping == ALLOWUTF8 else escape_metric_name(name, self._escaping))

    def labels(self, labels: Mapping[str, str]) -> bytes:
        """Return several of them."""
        return b"".join(map(self.label, labels.keys(), labels.values()))

    def exemplar(self, field: int, exemplar: Exemplar) -> bytes:
        """Return an ``Exemplar``, as this field of a counter or a bucket."""
        content = self.labels(exemplar.labels) + wire.double(2, exemplar.value)
        if exemplar.timestamp is not None:
            content += wire.timestamp(3, float(exemplar.timestamp))
        return wire.message(field, content)


def _label(escaping: str, name: str, value: str) -> bytes:
    start, text = _label_name(escaping, name), value.encode()
    size = wire.varint(len(text))
    return b"".join((_LABEL, wire.varint(len(start) + len(size) + len(text)), start, size, text))


@lru_cache(maxsize=wire.MOST_KEPT)
def _label_name(escaping: str, name: str) -> bytes:
    """Return the beginning of a ``LabelPair``, up to its value."""
    return wire.text(1, name if escaping == ALLOWUTF8 else escape_label_name(name, escaping)) + wire.tag(2, wire.BYTES)


class Piece(bytes):
    """A part of a body, and the *number* of metrics in it."""

    number: int

    def __new__(cls, metrics: Sequence[bytes] = (), head: bytes = b"") -> Self:
        """Make a piece of some metrics, or of what comes before them."""
        self = super().__new__(cls, b"".join((head, *metrics)))
        self.number = len(metrics)
        return self


def metric(labels: bytes, number: bytes) -> bytes:
    """Return a ``Metric`` of its labels and its number, as a field of its family."""
    return b"".join((_METRIC, wire.varint(len(labels) + len(number)), labels, number))


def delimited(name: bytes, documentation: str, kind: str, unit: str, slices: Iterable[Piece]) -> Iterator[Piece]:
    """Yield a ``MetricFamily`` after its length, unless *slices*, which are some of its metrics each, are none.

    The length is known at the end. So there is an empty piece for each slice that is encoded, and then come all slices.
    """
    metrics = []
    for each in slices:
        metrics.append(each)
        yield Piece()
    if any(metrics):
        head = name + wire.text(2, documentation) + wire.whole(3, _TYPES[kind])
        if unit:
            head += wire.text(5, unit)
        yield Piece(head=wire.varint(len(head) + sum(map(len, metrics))) + head)
        yield from metrics
