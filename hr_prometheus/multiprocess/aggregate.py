"""Sums the values of the application's metrics over the workers, as prometheus_client's ``MultiProcessCollector`` does.

Gauges are combined as their mode says. The total to which each value of a file goes is looked up once and kept, so a
scrape adds values to totals by index and looks at no keys and labels.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from prometheus_client.core import Metric as Family
from prometheus_client.samples import Sample

from hr_prometheus.multiprocess.identity import add_worker_label, worker_label
from hr_prometheus.store.families import go_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    LabelPairs: TypeAlias = tuple[tuple[str, str], ...]
    #: Floats, ``None`` before the first value, and pairs of timestamp and value for ``mostrecent``.
    Totals: TypeAlias = list[Any]
    #: Combines values, with their timestamps, with the totals of these indexes.
    Combine: TypeAlias = Callable[[Totals, Iterable[int], Iterable[float], Iterable[float]], None]

_INFINITY = float("inf")


@dataclass(eq=False, slots=True)
class SampleKey:
    """The key of a value in a file: its metric and its series."""

    metric: str
    sample: str
    labels: LabelPairs
    help: str

    @classmethod
    def parse(cls, text: bytes) -> SampleKey:
        """Read a key as prometheus_client writes it. Raises a ``ValueError`` or ``TypeError`` for anything else."""
        metric, sample, labels, documentation = json.loads(text)
        pairs = ((name, _encodable(value)) for name, value in sorted(labels.items()))
        return cls(metric, sample, tuple(pairs), _encodable(documentation))


@dataclass(eq=False, slots=True)
class FileContents:
    """The values of one file, with the kind and mode of their metrics and the identifier of their process.

    There is one value for each key, and for gauges one timestamp. Keys may be appended; any other change needs a new object.
    """

    kind: str
    mode: str
    identifier: str
    keys: list[SampleKey] = field(default_factory=list)
    values: Sequence[float] = ()
    timestamps: Sequence[float] = ()


class Aggregator:
    """Totals of several files. It keeps from one scrape to the next to which total each value goes."""

    def __init__(self) -> None:
        self._start([])

    def families(self, files: list[FileContents]) -> list[Family]:
        """Return the families that have a sample. The order of *files* decides which gauge is the last."""
        if not self._extend_all(files):
            self._start(files)
        totals = self._initial.copy()
        for file in files:
            for combine, (positions, indexes) in self._steps[file].items():
                values, timestamps = file.values, file.timestamps
                if len(positions) < len(values):
                    values, timestamps = ([each[i] for i in positions] for each in (values, timestamps or values))
                combine(totals, indexes, values, timestamps)
        families = (family.collect(totals) for family in self._families.values())
        return [family for family in families if family.samples]

    def _extend_all(self, files: list[FileContents]) -> bool:
        """Add the new keys of all files; ``False`` if a file is gone, or the new keys change what is kept of others."""
        return self._steps.keys() <= set(files) and all(map(self._extend, files))

    def _start(self, files: list[FileContents]) -> None:
        self._families: dict[tuple[str, str], _FamilyTotals] = {}
        self._initial: Totals = []
        self._index_of: dict[SampleKey, int] = {}
        #: By file, which of its values go to which totals, and how they are combined.
        self._steps: dict[FileContents, dict[Combine, tuple[list[int], list[int]]]] = {}
        self._metrics: dict[FileContents, set[str]] = {}
        # As in prometheus_client, the last file decides the mode of a gauge.
        modes = {key.metric: file.mode for file in files if file.kind == "gauge" for key in file.keys}
        for file in files:
            self._extend(file, modes)

    def _extend(self, file: FileContents, modes: dict[str, str] | None = None) -> bool:
        steps = self._steps.setdefault(file, {})
        metrics = self._metrics.setdefault(file, set())
        for position in range(sum(len(indexes) for _, indexes in steps.values()), len(file.keys)):
            key = file.keys[position]
            if key.metric not in metrics:
                if modes is None and (file.kind, key.metric) in self._families:
                    return False  # its help text or mode may now be that of this file
                metrics.add(key.metric)
            family, index = self._locate(file, key, modes or {})
            positions, indexes = steps.setdefault(family.combine, ([], []))
            positions.append(position)
            indexes.append(index)
        return True

    def _locate(self, file: FileContents, key: SampleKey, modes: dict[str, str]) -> tuple[_FamilyTotals, int]:
        """Return the family of a key and the index of its total."""
        family = self._families.get((file.kind, key.metric))
        if family is None:
            mode = modes.get(key.metric, file.mode)
            family = self._families[file.kind, key.metric] = _FamilyTotals(key.metric, key.help, file.kind, mode)
        index = None if file.kind == "gauge" else self._index_of.get(key)
        if index is None:
            index = family.index(key, file.identifier, len(self._initial))
            if index == len(self._initial):
                self._initial.append(0.0 if family.combine is _add else None)
            self._index_of[key] = index
        return family, index


class _FamilyTotals:
    """One family: which of the totals are its samples, and how these are named and labelled."""

    def __init__(self, name: str, documentation: str, kind: str, mode: str) -> None:
        self.name = name
        self.help = documentation
        self.kind = kind
        self._is_per_worker = mode in ("all", "liveall")
        self.combine: Combine = _COMBINE[mode.removeprefix("live")]
        self._indexes: dict[LabelPairs, dict[str, int]] = {}
        self._buckets: dict[LabelPairs, dict[float, int]] = {}
        self._layout: _SampleLayout | None = None

    def index(self, key: SampleKey, identifier: str, new: int) -> int:
        """Return the index of the total of a key; *new* if it had none."""
        labels = key.labels
        if self._is_per_worker:
            labels = tuple(add_worker_label(dict(labels), worker_label(identifier)).items())
        bound = _bound(labels) if self.kind == "histogram" else None
        if bound is None:
            index = self._indexes.setdefault(labels, {}).setdefault(key.sample, new)
        else:
            group = tuple(pair for pair in labels if pair[0] != "le")
            index = self._buckets.setdefault(group, {}).setdefault(bound, new)
        if index == new:
            self._layout = None
        return index

    def collect(self, totals: Totals) -> Family:
        """Return the family, which may have no samples."""
        if self._layout is None:
            self._layout = self._lay_out_histogram() if self.kind == "histogram" else self._lay_out()
        names, labels, values = self._layout
        samples = list(map(Sample, names, labels, values(totals)))
        if self.combine is _latest:
            samples = [sample for sample in samples if sample.value is not None]
        family = Family(self.name, self.help, self.kind)
        family.samples = samples
        return family

    def _lay_out(self) -> _SampleLayout:
        names: list[str] = []
        labels: list[dict[str, str]] = []
        indexes: list[int] = []
        for group, series in self._indexes.items():
            names += series
            labels += [dict(group)] * len(series)
            indexes += series.values()
        if self.combine is _latest:
            return _SampleLayout(names, labels, lambda totals: [(totals[i] or (0.0, None))[1] for i in indexes])
        return _SampleLayout(names, labels, lambda totals: [totals[i] for i in indexes])

    def _lay_out_histogram(self) -> _SampleLayout:
        names, labels, groups = [], [], []
        for group in {**self._indexes, **self._buckets}:
            buckets = sorted(self._buckets.get(group, {}).items())
            if not buckets or buckets[-1][0] != _INFINITY:
                continue
            others = {name: index for name, index in self._indexes.get(group, {}).items() if buckets[0][0] >= 0}
            names += [*others, *[f"{self.name}_bucket"] * len(buckets), f"{self.name}_count"]
            labels += [dict(group)] * len(others)
            labels += [{**dict(group), "le": go_text(bound)} for bound, _ in buckets]
            labels.append(dict(group))
            groups.append((list(others.values()), [index for _, index in buckets]))

        def values(totals: Totals) -> list[float]:
            result = []
            for others, buckets in groups:
                result += [totals[index] for index in others]
                count = 0.0
                for index in buckets:
                    count += totals[index]
                    result.append(count)
                result.append(count)
            return result

        return _SampleLayout(names, labels, values)


class _SampleLayout(NamedTuple):
    """The names and labels of a family's samples, and a function that gives their values."""

    names: list[str]
    labels: list[dict[str, str]]
    values: Callable[[Totals], list[Any]]


def _add(totals: Totals, indexes: Iterable[int], values: Iterable[float], _: Iterable[float]) -> None:
    for index, value in zip(indexes, values):  # noqa: B905  # the longest loop of a scrape; both are as long
        totals[index] += value


def _last(totals: Totals, indexes: Iterable[int], values: Iterable[float], _: Iterable[float]) -> None:
    for index, value in zip(indexes, values, strict=True):
        totals[index] = value


def _least(totals: Totals, indexes: Iterable[int], values: Iterable[float], _: Iterable[float]) -> None:
    for index, value in zip(indexes, values, strict=True):
        if totals[index] is None or value < totals[index]:
            totals[index] = value


def _greatest(totals: Totals, indexes: Iterable[int], values: Iterable[float], _: Iterable[float]) -> None:
    for index, value in zip(indexes, values, strict=True):
        if totals[index] is None or value > totals[index]:
            totals[index] = value


def _latest(totals: Totals, indexes: Iterable[int], values: Iterable[float], timestamps: Iterable[float]) -> None:
    for index, value, timestamp in zip(indexes, values, timestamps, strict=True):
        if timestamp > (totals[index] or (0.0,))[0]:  # a gauge that was never set has the timestamp 0
            totals[index] = (timestamp, value)


#: By the mode of a gauge without "live"; other metrics have no mode.
_COMBINE: dict[str, Combine] = {
    "": _add,
    "sum": _add,
    "all": _last,
    "min": _least,
    "max": _greatest,
    "mostrecent": _latest,
}


def _bound(labels: LabelPairs) -> float | None:
    """Return the upper bound of a bucket; ``None`` for any other series."""
    for name, value in labels:
        if name == "le":
            return float(value)
    return None


def _encodable(text: str) -> str:
    """Return *text* as UTF-8 can encode it; prometheus_client's files can hold what no scrape can."""
    return text.encode("utf-8", "backslashreplace").decode()
