"""From families to the protocol buffers of a scrape, piece by piece, so that requests can be served in between.

They are messages ``io.prometheus.client.MetricFamily``, each after its length. As with Prometheus' own clients the family of
a counter has ``_total`` in its name, and the count of a histogram stands for its bucket ``+Inf``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from hr_prometheus.exposition import wire
from hr_prometheus.exposition.classic_buckets import classic_encoder, exemplar_encoder
from hr_prometheus.exposition.client_model import Names, Piece, delimited, metric
from hr_prometheus.exposition.native_buckets import native_encoder, shape_of
from hr_prometheus.exposition.protobuf_samples import families_of
from hr_prometheus.store.bounds import BOTH, NativeBounds
from hr_prometheus.store.families import StoredFamily

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from prometheus_client.core import Exemplar
    from prometheus_client.core import Metric as Family

    from hr_prometheus.exposition.classic_buckets import EncodeHistogram
    from hr_prometheus.store.cells import Page
    from hr_prometheus.store.families import Part

    #: Encodes the numbers of the series with some labels and a first cell, and its exemplars by bucket, as a field of its metric.
    Encode = Callable[[tuple[str, ...], Page, int, Mapping[int, Exemplar]], bytes]

#: Series of a family of ours in one slice; about 10 microseconds each.
_SERIES = 50

#: The tags of the value of a counter or gauge, and of the count and the sum of a histogram.
_VALUE, _COUNT, _SUM = wire.tag(1, wire.FIXED64), wire.tag(1, wire.VARINT), wire.tag(2, wire.FIXED64)
#: A gauge up to its value: the tag, the length and the tag of the value.
_GAUGE = wire.message(2, wire.double(1, 0.0)).removesuffix(wire.pack_double(0.0))


def pieces(families: Iterable[Family], escaping: str, *, with_created: bool) -> Iterator[Piece]:
    """Yield the messages of *families*, in pieces of a millisecond or less each. Some are empty.

    *escaping* is how names are rewritten that are not plain. *with_created*: families of ours have their times of creation.
    """
    names = Names(escaping)
    labels: dict[tuple[str, ...], _Labels] = {}
    for family in families:
        if isinstance(family, StoredFamily):
            own = family.export.labels
            slices = _slices(family, labels.setdefault(own, _Labels(own, names)), with_created=with_created)
            name = family.name + "_total" if family.type == "counter" else family.name
            yield from delimited(names.family(name), family.documentation, family.type, "", slices)
        else:
            yield from families_of(family, names)


class _Labels(dict[tuple[str, ...], bytes]):
    """The labels of series of ours by their values; *own* are the names of those that all series have."""

    def __init__(self, own: tuple[str, ...], names: Names) -> None:
        super().__init__()
        self._own, self.names = own, names

    def __missing__(self, values: tuple[str, ...]) -> bytes:
        own = len(self._own)  # as named_labels() has it, without its dictionaries
        names, texts = (*self._own, *values[own::2]), (*values[:own], *values[own + 1 :: 2])
        labels = self[values] = b"".join(map(self.names.label, names, texts))
        return labels


def _slices(family: StoredFamily, labels: _Labels, *, with_created: bool) -> Iterator[Piece]:
    """Yield the metrics of a family of ours, some at a time."""
    for part in family.parts:
        encode = _encoder(family, part, labels.names, with_created=with_created)
        for start in range(0, len(part.series), _SERIES):
            series = [
                (
                    values,
                    encode(values, page, first, family.exemplars_of(values, part.bounds) if family.exemplars else {}),
                )
                for values, (page, first) in part.series[start : start + _SERIES]
            ]
            yield Piece([metric(labels[values], numbers) for values, numbers in series if numbers])


def _encoder(family: StoredFamily, part: Part, names: Names, *, with_created: bool) -> Encode:
    """Return what encodes the numbers of one series; for a histogram that is left out it returns nothing."""
    if family.type == "histogram":
        return _histogram_encoder(family, part, names, with_created=with_created)
    if family.type == "gauge":
        return lambda _, page, first, __: _GAUGE + wire.pack_double(page[first])

    def encode(_: tuple[str, ...], page: Page, first: int, exemplars: Mapping[int, Exemplar]) -> bytes:
        exemplar = names.exemplar(2, exemplars[0]) if exemplars else b""
        created = wire.timestamp(3, page[first + 1]) if with_created else b""
        return wire.message(3, b"".join((_VALUE, wire.pack_double(page[first]), exemplar, created)))

    return encode


def _histogram_encoder(family: StoredFamily, part: Part, names: Names, *, with_created: bool) -> Encode:
    bounds = part.bounds
    size = len(bounds) + 2
    fields_of = (_native_encoder if isinstance(bounds, NativeBounds) else classic_encoder)(part, names)

    def encode(values: tuple[str, ...], page: Page, first: int, exemplars: Mapping[int, Exemplar]) -> bytes:
        counts = [*page[first : first + size]]  # at one moment: another thread may be writing
        total = counts.pop(0)
        count = sum(counts)
        if family.may_be_empty and not count:
            return b""
        head = b"".join((_COUNT, wire.varint(int(count)), _SUM, wire.pack_double(total)))
        fields = fields_of(values, head, count, counts, exemplars)
        if with_created:
            fields.append(wire.timestamp(15, page[first + size]))
        return wire.message(7, b"".join(fields))

    return encode


def _native_encoder(part: Part, names: Names) -> EncodeHistogram:
    """Return what encodes native buckets, and classic ones with them if there are both.

    What it returns for a series it keeps for the next scrape. Buckets only grow, so with the same count all are the same.
    """
    bounds, kept = cast("NativeBounds", part.bounds), part.kept
    has_classic, encode_buckets = bounds.mode == BOTH, native_encoder(bounds)
    classic, exemplary = classic_encoder(part, names), exemplar_encoder(bounds, names)
    nothing = b"", shape_of(bounds, ())  # what is kept of a series before its first scrape

    def encode(
        values: tuple[str, ...], head: bytes, count: float, counts: list[float], exemplars: Mapping[int, Exemplar]
    ) -> list[bytes]:
        content, shape = kept.get(values, nothing)
        if has_classic and exemplars:  # which are in the classic buckets
            buckets, shape = encode_buckets(counts, count, shape)
            kept[values] = b"", shape
            return [*classic(values, head, count, counts, exemplars), buckets]
        if not content.startswith(head):
            buckets, shape = encode_buckets(counts, count, shape)
            content = b"".join((head, shape.classic.encoded(counts, count) if has_classic else b"", buckets))
            kept[values] = content, shape
        return [content, *(exemplary(counts, exemplars) if exemplars else ())]

    return encode
