"""The protocol buffers of families that are not ours, which have samples: the application's and those of its collectors."""

from __future__ import annotations

from math import inf, nan
from typing import TYPE_CHECKING, Final, NamedTuple

from hr_prometheus.exposition import wire
from hr_prometheus.exposition.client_model import Piece, delimited, metric

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import SupportsFloat, TypeAlias

    from prometheus_client.core import Metric as Family
    from prometheus_client.core import Sample

    from hr_prometheus.exposition.client_model import Names

    #: Seconds since the epoch.
    Timestamp: TypeAlias = SupportsFloat | None
    #: The number of a metric, as a field of it, and its timestamp.
    Encoded: TypeAlias = tuple[bytes, Timestamp]

#: Samples that are sorted into metrics at a time, and metrics that are encoded at a time; 2 and 10 microseconds each.
_SAMPLES, _METRICS = 200, 50


class _Group:
    """The samples with the same labels, by the suffixes of their names."""

    def __init__(self, labels: dict[str, str]) -> None:
        self.labels = labels
        self.samples: dict[str, list[Sample]] = {}

    def value(self, suffix: str, default: float) -> float:
        """Return the value of the sample with this suffix."""
        return self.samples[suffix][0].value if suffix in self.samples else default

    def created(self, field: int) -> bytes:
        """Return the time of creation as this field, or nothing."""
        return wire.timestamp(field, self.value("_created", 0.0)) if "_created" in self.samples else b""


def families_of(family: Family, names: Names) -> Iterator[Piece]:
    """Yield the messages of a family: its own, and one for each name of samples that its type does not have.

    Native histograms are left out, as prometheus_client's text leaves them out.
    """
    kind = _KINDS.get(family.type, _UNTYPED)
    groups: dict[frozenset[tuple[str, str]], _Group] = {}
    others: dict[str, list[_Group]] = {}
    for number, sample in enumerate(family.samples):
        if not number % _SAMPLES:
            yield Piece()
        suffix = kind.suffix_of(family, sample)
        if sample.native_histogram is not None:
            continue
        if suffix is None:
            group, suffix = _Group(sample.labels), ""
            others.setdefault(sample.name, []).append(group)
        else:
            labels = {name: value for name, value in sample.labels.items() if name != kind.bound}
            group = groups.setdefault(frozenset(labels.items()), _Group(labels))
        group.samples.setdefault(suffix, []).append(sample)
    messages: list[tuple[str, _Kind, Iterable[_Group]]] = [(family.name + kind.suffix, kind, groups.values())]
    messages += [(name, _UNTYPED, each) for name, each in others.items()]
    for name, kind, each in messages:
        slices = _slices(kind, each, names)
        yield from delimited(names.family(name), family.documentation, kind.type, family.unit, slices)


def _slices(kind: _Kind, groups: Iterable[_Group], names: Names) -> Iterator[Piece]:
    """Yield the metrics of some groups, some at a time."""
    metrics = []
    for group in groups:
        labels = names.labels(group.labels)
        for number, timestamp in kind.encode(group, names):
            time = b"" if timestamp is None else wire.whole(6, int(float(timestamp) * 1000))
            metrics.append(metric(labels, number + time))
        if len(metrics) >= _METRICS:
            yield Piece(metrics)
            metrics = []
    if metrics:
        yield Piece(metrics)


class _Kind(NamedTuple):
    """How the samples of a type of families become metrics.

    *suffixes* are what their names have after the family's. The first is that of samples with the label *bound*, if there is
    such a label. *suffix* is what the message's name has, and *encode* yields the number of each metric and its timestamp.
    """

    type: str
    encode: Callable[[_Group, Names], Iterator[Encoded]]
    suffixes: tuple[str, ...] = ("",)
    suffix: str = ""
    bound: str = ""

    def suffix_of(self, family: Family, sample: Sample) -> str | None:
        """Return the suffix of a sample, or ``None`` if it is none that this type has."""
        suffix = sample.name.removeprefix(family.name)
        if suffix not in self.suffixes or family.name + suffix != sample.name:
            return None
        if self.bound and suffix == self.suffixes[0]:
            try:
                float(sample.labels[self.bound])
            except (KeyError, ValueError):
                return None
        return suffix


def _numbers(field: int, suffix: str = "") -> Callable[[_Group, Names], Iterator[Encoded]]:
    """Return a function that encodes each sample as a number of its own, which is this field of its metric."""

    def encode(group: _Group, names: Names) -> Iterator[Encoded]:
        for sample in group.samples.get(suffix, ()):
            number = wire.double(1, sample.value)
            if suffix == "_total":
                number += names.exemplar(2, sample.exemplar) if sample.exemplar else b""
                number += group.created(3)
            yield wire.message(field, number), sample.timestamp

    return encode


def _encode_summary(group: _Group, _names: Names) -> Iterator[Encoded]:
    number = wire.whole(1, _whole(group.value("_count", 0.0))) + wire.double(2, group.value("_sum", nan))
    for sample in group.samples.get("", ()):
        quantile = wire.double(1, float(sample.labels["quantile"])) + wire.double(2, sample.value)
        number += wire.message(3, quantile)
    yield wire.message(4, number + group.created(4)), _timestamp(group)


def _encode_histogram(group: _Group, names: Names) -> Iterator[Encoded]:
    buckets = [(float(sample.labels["le"]), sample) for sample in group.samples.get("_bucket", ())]
    last = buckets[-1][1].value if buckets else 0.0
    count = group.value("_count", group.value("_gcount", last))
    number = _count(1, 4, count) + wire.double(2, group.value("_sum", group.value("_gsum", nan)))
    for bound, sample in buckets:
        if bound == inf and sample.value == count and not sample.exemplar:
            continue  # the count stands for it
        bucket = _count(1, 4, sample.value) + wire.double(2, bound)
        if sample.exemplar:
            bucket += names.exemplar(3, sample.exemplar)
        number += wire.message(3, bucket)
    yield wire.message(7, number + group.created(15)), _timestamp(group)


def _timestamp(group: _Group) -> Timestamp:
    return next(iter(group.samples.values()))[0].timestamp


def _count(field: int, float_field: int, number: float) -> bytes:
    """Return a count: in the field for whole numbers, and one that is not whole in that for floats as well."""
    whole = _whole(number)
    return wire.whole(field, whole) + (b"" if whole == number else wire.double(float_field, number))


def _whole(number: float) -> int:
    return int(number) if 0 <= number < 2**64 else 0


_UNTYPED: Final = _Kind("untyped", _numbers(5))
_KINDS: Final = {
    "counter": _Kind("counter", _numbers(3, "_total"), ("_total", "_created"), "_total"),
    "gauge": _Kind("gauge", _numbers(2)),
    "info": _Kind("gauge", _numbers(2, "_info"), ("_info",), "_info"),
    "stateset": _Kind("gauge", _numbers(2)),
    "summary": _Kind("summary", _encode_summary, ("", "_count", "_sum", "_created"), bound="quantile"),
    "histogram": _Kind("histogram", _encode_histogram, ("_bucket", "_count", "_sum", "_created"), bound="le"),
    "gaugehistogram": _Kind("gaugehistogram", _encode_histogram, ("_bucket", "_gcount", "_gsum"), bound="le"),
}
