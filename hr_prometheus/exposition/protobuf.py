"""From families to the protocol buffers of a scrape, piece by piece, so that requests can be served in between.

They are messages ``io.prometheus.client.MetricFamily``, each after its length. As with Prometheus' own clients the family of
a counter has ``_total`` in its name, and the count of a histogram stands for its bucket ``+Inf``.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from hr_prometheus.exposition import wire
from hr_prometheus.exposition.client_model import Names, Piece, delimited, metric
from hr_prometheus.exposition.native_buckets import native_encoder
from hr_prometheus.exposition.protobuf_samples import families_of
from hr_prometheus.names import named_labels
from hr_prometheus.store.bounds import BOTH, NativeBounds, classic_bounds, cumulative_counts
from hr_prometheus.store.families import StoredFamily

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from prometheus_client.core import Metric as Family

    from hr_prometheus.store.cells import Page
    from hr_prometheus.store.families import Part

    #: Encodes the numbers of one series, whose first cell is given, as a field of its metric.
    Encode = Callable[[Page, int], bytes]

#: Series of a family of ours in one slice; about 10 microseconds each.
_SERIES = 50
#: The labels of series that are kept while a scrape is encoded: several families have the same.
_MOST_LABELS = 4096

#: The tags of the value of a counter or gauge, and of the count and the sum of a histogram.
_VALUE, _COUNT, _SUM = wire.tag(1, wire.FIXED64), wire.tag(1, wire.VARINT), wire.tag(2, wire.FIXED64)


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
        self._own, self._names = own, names

    def __missing__(self, values: tuple[str, ...]) -> bytes:
        if len(self) >= _MOST_LABELS:
            self.clear()
        labels = self[values] = self._names.labels(named_labels(self._own, values))
        return labels


def _slices(family: StoredFamily, labels: _Labels, *, with_created: bool) -> Iterator[Piece]:
    """Yield the metrics of a family of ours, some at a time."""
    for part in family.parts:
        encode = _encoder(family, part, with_created=with_created)
        for start in range(0, len(part.series), _SERIES):
            series = part.series[start : start + _SERIES]
            yield Piece([metric(labels[values], numbers) for values, cells in series if (numbers := encode(*cells))])


def _encoder(family: StoredFamily, part: Part, *, with_created: bool) -> Encode:
    """Return what encodes the numbers of one series; for a histogram that is left out it returns nothing."""
    if family.type == "histogram":
        return _histogram_encoder(family, part, with_created=with_created)
    if family.type == "gauge":
        return lambda page, first: wire.message(2, _VALUE + wire.pack_double(page[first]))

    def encode(page: Page, first: int) -> bytes:
        created = wire.timestamp(3, page[first + 1]) if with_created else b""
        return wire.message(3, b"".join((_VALUE, wire.pack_double(page[first]), created)))

    return encode


def _histogram_encoder(family: StoredFamily, part: Part, *, with_created: bool) -> Encode:
    bounds = part.bounds
    size = len(bounds) + 2
    native = native_encoder(bounds) if isinstance(bounds, NativeBounds) else None
    classic = _classic_encoder(bounds) if not isinstance(bounds, NativeBounds) or bounds.mode == BOTH else None

    def encode(page: Page, first: int) -> bytes:
        cells = list(page[first : first + size])  # at one moment: another thread may be writing
        fields: list[bytes] = []
        count = 0.0
        if native is not None:
            count = native(cells, fields)
        if classic is not None:
            count = classic(cells, fields)
        if family.may_be_empty and not count:
            return b""
        if with_created:
            fields.append(wire.timestamp(15, page[first + size]))
        return wire.message(7, b"".join((_COUNT, wire.varint(int(count)), _SUM, wire.pack_double(cells[0]), *fields)))

    return encode


def _classic_encoder(bounds: tuple[float, ...]) -> Callable[[list[float], list[bytes]], float]:
    """Return what adds the fields of the classic buckets of some cells, the sum first, and returns their count."""
    template = [part for bound in classic_bounds(bounds) for part in (b"", wire.double(2, bound))]

    def encode(cells: list[float], fields: list[bytes]) -> float:
        *counts, count = cumulative_counts(bounds, islice(cells, 1, None))
        places = template.copy()
        places[::2] = map(_bucket, counts)
        fields += places
        return count

    return encode


class _Buckets(dict[float, bytes]):
    """The beginnings of buckets, up to their bounds, by count. Histograms have many that are the same."""

    def __missing__(self, count: float) -> bytes:
        if len(self) >= _MOST_COUNTS:
            self.clear()
        number = wire.whole(1, int(count))
        text = self[count] = wire.tag(3, wire.BYTES) + wire.varint(len(number) + _BOUND_BYTES) + number
        return text


_BOUND_BYTES = len(wire.double(2, 0.0))
_MOST_COUNTS = 4096
_bucket: Callable[[float], bytes] = _Buckets().__getitem__
