"""Adds up the numbers of several files, in the way that prometheus_client's ``MultiProcessCollector`` does.

Where each number of a file goes is found once and kept in a :class:`Plan`. A scrape then takes the numbers as they
come and adds each to its place, without looking at keys or labels.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from prometheus_client.core import Metric as Family
from prometheus_client.samples import Sample
from prometheus_client.utils import floatToGoString

from hr_prometheus.multiprocess.identity import shown_as, with_worker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    Labels: TypeAlias = tuple[tuple[str, str], ...]
    #: What a scrape adds to: floats, ``None`` where there is none yet, and pairs of time and value for ``mostrecent``.
    Numbers: TypeAlias = list[Any]
    Combine: TypeAlias = Callable[[Numbers, Iterable[int], Iterable[float], Iterable[float]], None]

_go: Callable[[float], str] = floatToGoString
_INFINITY = float("inf")


@dataclass(eq=False, slots=True)
class Key:
    """The key of a number in a file: of which metric and which series it is."""

    metric: str
    sample: str
    labels: Labels
    help: str

    @classmethod
    def parsed(cls, text: bytes) -> Key:
        """Read a key as prometheus_client writes it; raises a ``ValueError`` or ``TypeError`` if it is none."""
        metric, sample, labels, documentation = json.loads(text)
        pairs = ((name, _valid(value)) for name, value in sorted(labels.items()))
        return cls(metric, sample, tuple(pairs), _valid(documentation))


@dataclass(eq=False, slots=True)
class Source:
    """The numbers of one file: of which kind and mode they are, whose, and one value for each key.

    *times* are needed of gauges only. Keys may be appended; everything else that changes makes a new source.
    """

    kind: str
    mode: str
    identifier: str
    keys: list[Key] = field(default_factory=list)
    values: Sequence[float] = ()
    times: Sequence[float] = ()


class Plan:
    """Where each number of the sources goes, kept from one scrape to the next."""

    def __init__(self) -> None:
        self._start([])

    def families(self, sources: list[Source]) -> list[Family]:
        """Return the families of which there is a sample; *sources* are in the order in which they are added up."""
        if not self._is_extended(sources):
            self._start(sources)
        numbers = self._none.copy()
        for source in sources:
            for combine, (positions, targets) in self._steps[source].items():
                values, times = source.values, source.times
                if len(positions) < len(values):
                    values, times = ([each[i] for i in positions] for each in (values, times or values))
                combine(numbers, targets, values, times)
        families = (planned.family(numbers) for planned in self._families.values())
        return [family for family in families if family is not None]

    def _is_extended(self, sources: list[Source]) -> bool:
        """Add what is new in the sources; ``False`` if that changes what was planned for others."""
        return self._steps.keys() <= set(sources) and all(map(self._extend, sources))

    def _start(self, sources: list[Source]) -> None:
        self._families: dict[tuple[str, str], _Planned] = {}
        #: What the numbers are before anything is added to them.
        self._none: Numbers = []
        self._number_of: dict[Key, int] = {}
        self._steps: dict[Source, dict[Combine, tuple[list[int], list[int]]]] = {}
        self._metrics: dict[Source, set[str]] = {}
        # As in prometheus_client, the last word on a gauge's mode is the last file's.
        modes = {key.metric: source.mode for source in sources if source.kind == "gauge" for key in source.keys}
        for source in sources:
            self._extend(source, modes)

    def _extend(self, source: Source, modes: dict[str, str] | None = None) -> bool:
        steps = self._steps.setdefault(source, {})
        metrics = self._metrics.setdefault(source, set())
        for position in range(sum(len(targets) for _, targets in steps.values()), len(source.keys)):
            key = source.keys[position]
            if key.metric not in metrics:
                if modes is None and (source.kind, key.metric) in self._families:
                    return False  # its help text or mode may now be that of this file
                metrics.add(key.metric)
            planned, number = self._placed(source, key, modes or {})
            positions, targets = steps.setdefault(planned.combine, ([], []))
            positions.append(position)
            targets.append(number)
        return True

    def _placed(self, source: Source, key: Key, modes: dict[str, str]) -> tuple[_Planned, int]:
        """Return the family of a key and the index of its number."""
        planned = self._families.get((source.kind, key.metric))
        if planned is None:
            mode = modes.get(key.metric, source.mode)
            planned = self._families[source.kind, key.metric] = _Planned(key.metric, key.help, source.kind, mode)
        number = None if source.kind == "gauge" else self._number_of.get(key)
        if number is None:
            number = planned.number(key, source.identifier, len(self._none))
            if number == len(self._none):
                self._none.append(0.0 if planned.combine is _add else None)
            self._number_of[key] = number
        return planned, number


class _Planned:
    """One family: which of the numbers are its samples, and what these are called."""

    def __init__(self, name: str, documentation: str, kind: str, mode: str) -> None:
        self.name = name
        self.help = documentation
        self.kind = kind
        self._is_per_worker = mode in ("all", "liveall")
        self.combine: Combine = _COMBINE[mode.removeprefix("live")]
        self._groups: dict[Labels, dict[str, int]] = {}
        self._buckets: dict[Labels, dict[float, int]] = {}
        self._shape: _Shape | None = None

    def number(self, key: Key, identifier: str, new: int) -> int:
        """Return the index of the number of one series; *new* if there was none."""
        labels = key.labels
        if self._is_per_worker:
            labels = tuple(with_worker(dict(labels), shown_as(identifier)).items())
        bound = _bound(labels) if self.kind == "histogram" else None
        if bound is None:
            number = self._groups.setdefault(labels, {}).setdefault(key.sample, new)
        else:
            group = tuple(pair for pair in labels if pair[0] != "le")
            number = self._buckets.setdefault(group, {}).setdefault(bound, new)
        if number == new:
            self._shape = None
        return number

    def family(self, numbers: Numbers) -> Family | None:
        """Return the family with its numbers as they are now; ``None`` if there is no sample."""
        if self._shape is None:
            self._shape = self._histogram() if self.kind == "histogram" else self._plain()
        family = PreparedFamily(self, self._shape, self._shape.values(numbers))
        if self.combine is _latest:
            family.samples = [sample for sample in family.samples if sample.value is not None]
            return family if family.samples else None
        return family if self._shape.names else None

    def _plain(self) -> _Shape:
        names: list[str] = []
        labels: list[dict[str, str]] = []
        indexes: list[int] = []
        for group, series in self._groups.items():
            names += series
            labels += [dict(group)] * len(series)
            indexes += series.values()
        if self.combine is _latest:
            return _Shape(names, labels, lambda numbers: [(numbers[index] or (0.0, None))[1] for index in indexes])
        return _Shape(names, labels, lambda numbers: [numbers[index] for index in indexes])

    def _histogram(self) -> _Shape:
        names, labels, runs = [], [], []
        for group in {**self._groups, **self._buckets}:
            buckets = sorted(self._buckets.get(group, {}).items())
            if not buckets or buckets[-1][0] != _INFINITY:
                continue
            others = {name: index for name, index in self._groups.get(group, {}).items() if buckets[0][0] >= 0}
            names += [*others, *[f"{self.name}_bucket"] * len(buckets), f"{self.name}_count"]
            labels += [dict(group)] * len(others)
            labels += [{**dict(group), "le": _go(bound)} for bound, _ in buckets]
            labels.append(dict(group))
            runs.append((list(others.values()), [index for _, index in buckets]))

        def values(numbers: Numbers) -> list[float]:
            found = []
            for others, buckets in runs:
                found += [numbers[index] for index in others]
                total = 0.0
                for index in buckets:
                    total += numbers[index]
                    found.append(total)
                found.append(total)
            return found

        return _Shape(names, labels, values)


@dataclass(slots=True)
class _Shape:
    """What the samples of a family are called, and how their values follow from the numbers."""

    names: list[str]
    labels: list[dict[str, str]]
    values: Callable[[Numbers], list[Any]]


class PreparedFamily(Family):
    """A family whose samples have the names and labels that they had at the last scrape.

    So the samples are made only if they are asked for.
    """

    def __init__(self, planned: _Planned, shape: _Shape, values: list[float]) -> None:
        super().__init__(planned.name, planned.help, planned.kind)
        self._shape: _Shape | None = shape
        self._values = values
        self._samples: list[Sample] | None = None

    @property
    def samples(self) -> list[Sample]:
        """The samples, whose labels are shared with other scrapes."""
        if self._samples is None:
            shape = self._shape
            self._samples = list(map(Sample, shape.names, shape.labels, self._values)) if shape else []
        return self._samples

    @samples.setter
    def samples(self, samples: list[Sample]) -> None:
        self._samples, self._shape = samples, None


def _add(numbers: Numbers, targets: Iterable[int], values: Iterable[float], _: Iterable[float]) -> None:
    for target, value in zip(targets, values):  # noqa: B905  # as many, and many
        numbers[target] += value


def _last(numbers: Numbers, targets: Iterable[int], values: Iterable[float], _: Iterable[float]) -> None:
    for target, value in zip(targets, values, strict=True):
        numbers[target] = value


def _least(numbers: Numbers, targets: Iterable[int], values: Iterable[float], _: Iterable[float]) -> None:
    for target, value in zip(targets, values, strict=True):
        if numbers[target] is None or value < numbers[target]:
            numbers[target] = value


def _greatest(numbers: Numbers, targets: Iterable[int], values: Iterable[float], _: Iterable[float]) -> None:
    for target, value in zip(targets, values, strict=True):
        if numbers[target] is None or value > numbers[target]:
            numbers[target] = value


def _latest(numbers: Numbers, targets: Iterable[int], values: Iterable[float], times: Iterable[float]) -> None:
    for target, value, time in zip(targets, values, times, strict=True):
        if time > (numbers[target] or (0.0,))[0]:  # one that was never set has no time
            numbers[target] = (time, value)


#: By a gauge's mode without "live"; what is no gauge has none.
_COMBINE: dict[str, Combine] = {
    "": _add,
    "sum": _add,
    "all": _last,
    "min": _least,
    "max": _greatest,
    "mostrecent": _latest,
}


def _bound(labels: Labels) -> float | None:
    """Return the upper bound of a bucket; ``None`` for any other series."""
    for name, value in labels:
        if name == "le":
            return float(value)
    return None


def _valid(text: str) -> str:
    """Return *text* as UTF-8 can encode it; prometheus_client's files can hold what no scrape can."""
    return text.encode("utf-8", "backslashreplace").decode()
