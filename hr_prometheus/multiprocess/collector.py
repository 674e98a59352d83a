"""One scrape of all workers: what stands in their files, and what they tell of themselves, in one set of families.

Three sources, in the order in which they win over each other where two say different things of one name:

1. collectables of the supervisor's own;
2. the files of the workers' metrics: counters, summaries and histograms added up, gauges as their mode says;
3. what each worker answers (:mod:`hr_prometheus.multiprocess.dump`), with the label ``worker``.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from prometheus_client import ProcessCollector
from prometheus_client.core import Metric as Family

from hr_prometheus.exposition.collectors import target_family
from hr_prometheus.multiprocess.dump import load, plain_gauges
from hr_prometheus.multiprocess.ended import join_ended
from hr_prometheus.multiprocess.identity import with_worker
from hr_prometheus.multiprocess.reader import Files

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from typing import TypeAlias

    from prometheus_client.samples import Sample

    from hr_prometheus.exposition.formats import Collectable

    _Series: TypeAlias = tuple[str, frozenset[tuple[str, str]]]

logger = logging.getLogger("hr_prometheus")

#: What may stand behind a family's name in those of its samples, as prometheus_client's registry sees it.
_SUFFIXES = {
    "counter": ("_total", "_created"),
    "summary": ("_sum", "_count", "_created"),
    "histogram": ("_bucket", "_sum", "_count", "_created"),
    "gaugehistogram": ("_bucket", "_gsum", "_gcount"),
    "info": ("_info",),
}
#: The label by which the samples of one series differ; in a stateset it is that of the family's name.
_APART = {"histogram": "le", "gaugehistogram": "le", "summary": "quantile"}


class Truth:
    """All numbers of a supervisor and its workers.

    *directory* is that of the slots; *own* yield families that have their labels already. *is_alone*
    says that no other process reads the same directory, so that files of processes that have ended can be joined.
    """

    def __init__(self, directory: str, own: Iterable[Collectable] = (), *, is_alone: bool = True) -> None:
        self._directory = directory
        self._is_alone = is_alone
        self._files = Files(directory)
        self._own = tuple(own)
        #: By worker, the gauges that a function gives the value of, as it last said.
        self._functions: dict[str, _Functions] = {}
        #: The gauges of which a worker has said that none of its samples comes from a function.
        self._plain: frozenset[str] = frozenset()
        self._logged: set[object] = set()

    def scrape(self, dumps: Mapping[int, object], silent: Mapping[int, int] | None = None) -> Scrape:
        """Return what can be rendered.

        *dumps* has what each worker has answered, by slot; *silent* the pids of those that have not answered in
        time, of which the system is asked what it knows: ``process_*``.
        """
        return Scrape(self, dumps, silent or {})

    def close(self) -> None:
        """Close the files."""
        self._files.close()

    def families(self, dumps: Mapping[int, object], silent: Mapping[int, int]) -> Iterator[Family]:
        """Yield each family once: those of *own* in their order, then all others by name."""
        merged = _Merged(self._log_once)
        for collectable in self._own:
            for family in collectable.collect():
                merged.add(family, may_join=False)
        own = list(merged.families)
        answers = self._answers(dumps)
        for family in self._in_files():
            kept = self._without_functions(family, silent)
            if kept is not None:
                merged.add(kept, may_join=False)
        for families in answers.values():
            for family in families:
                merged.add(family, may_join=family.name not in own)
        for worker, pid in sorted(silent.items()):
            for family in self._process(worker, pid):
                merged.add(family, may_join=family.name not in own)
        for name in [*own, *sorted(merged.families.keys() - set(own))]:
            yield merged.families[name]

    def _in_files(self) -> Iterable[Family]:
        if self._is_alone:
            join_ended(self._directory)
        return self._files.collect()

    def _answers(self, dumps: Mapping[int, object]) -> dict[int, list[Family]]:
        """Return the families of each worker, with its label, and remember which of its gauges have functions."""
        answers = {}
        for worker, dumped in sorted(dumps.items()):
            try:
                target, families, functions = load(dumped)
            except Exception as error:  # noqa: BLE001  # one worker's nonsense shall not cost the others' numbers
                self._log_once(("answer", worker), "worker %s gave an answer that cannot be used: %r", worker, error)
                continue
            self._functions[str(worker)] = _Functions.of(functions)
            self._plain = self._plain.difference(family.name for family in functions).union(plain_gauges(dumped))
            taken: set[_Series] = set()
            labelled = (_labelled(family, worker, taken) for family in [*families, *functions])
            answers[worker] = [family for family in labelled if family.samples]
            if target and not any(family.name == "target" for one in answers.values() for family in one):
                answers[worker].append(target_family(target))
        return answers

    def _without_functions(self, family: Family, silent: Mapping[int, int]) -> Family | None:
        """Return a family less the samples which are 0 because a function gives their value; ``None`` if none is left.

        Of a worker that is silent nobody knows for which of its gauges that is so, unless another answer has said it: none
        of the others is shown with 0.
        """
        is_unknown = silent and family.name not in self._plain
        functions = {worker: known for worker, known in self._functions.items() if family.name in known.names}
        if family.type != "gauge" or not (functions or is_unknown):
            return family
        kept = _like(family)
        for sample in family.samples:
            slot = sample.labels.get("worker", "").partition("-")[0]
            if not sample.value and is_unknown and (not slot.isdecimal() or int(slot) in silent):
                continue
            # A worker that has never answered is taken to be like the others.
            of_worker = [self._functions[slot]] if slot in self._functions else functions.values()
            if not any(known.has_merged(sample) for known in functions.values()) and not any(
                known.has(sample) for known in of_worker
            ):
                kept.samples.append(sample)
        return kept if kept.samples else None

    def _process(self, worker: int, pid: int) -> list[Family]:
        collector = ProcessCollector(pid=lambda: pid, registry=None)
        try:
            return [_labelled(family, worker, set()) for family in collector.collect()]
        except Exception as error:  # noqa: BLE001  # some systems' /proc lacks what prometheus_client expects
            self._log_once("process", "prometheus_client cannot read the state of process %s: %r", pid, error)
            return []

    def _log_once(self, kind: object, message: str, *values: object) -> None:
        if kind not in self._logged:
            self._logged.add(kind)
            logger.warning(message, *values)


@dataclass(frozen=True)
class Scrape:
    """The numbers of one moment, to be rendered as a registry is. They are fetched when they are collected."""

    truth: Truth
    dumps: Mapping[int, object]
    silent: Mapping[int, int]
    names: frozenset[str] | None = None

    def restricted_registry(self, names: Iterable[str]) -> Scrape:
        """Return the same scrape, of only those samples whose names are given."""
        return replace(self, names=frozenset(names))

    def collect(self) -> Iterator[Family]:
        """Yield the families."""
        for family in self.truth.families(self.dumps, self.silent):
            if self.names is None:
                yield family
                continue
            samples = [sample for sample in family.samples if sample.name in self.names]
            if samples:
                restricted = _like(family)
                restricted.samples = samples
                yield restricted


class _Merged:
    """Families by name, none of which has a name that another one's samples have."""

    def __init__(self, log_once: Callable[..., None]) -> None:
        self.families: dict[str, Family] = {}
        self._log_once = log_once
        self._owner: dict[str, str] = {}

    def add(self, family: Family, *, may_join: bool = True) -> None:
        """Add a family, or its samples to the family that it is a part of; leave it out if its name is taken."""
        known = self.families.get(family.name)
        if known is not None and known.type == family.type and may_join:
            joined = _like(known)
            joined.samples = known.samples + family.samples
            self.families[family.name] = joined
            return
        names = [family.name, *(family.name + suffix for suffix in _SUFFIXES.get(family.type, ()))]
        owners = {self._owner[name] for name in names if name in self._owner}
        if owners:
            self._log_once(
                ("name", family.name, family.type),
                'The %s "%s" is left out of the metrics: its name is taken by another metric, "%s".',
                family.type,
                family.name,
                min(owners),
            )
            return
        self._owner |= dict.fromkeys(names, family.name)
        self.families[family.name] = family


@dataclass(frozen=True)
class _Functions:
    """The series of one worker's gauges whose values come from functions."""

    names: frozenset[str]
    #: The series as the file of a gauge shows them if its mode makes one number of those of all workers,
    merged: frozenset[_Series]
    #: and as it shows them otherwise, less the label of the worker.
    shown: frozenset[_Series]

    @classmethod
    def of(cls, families: list[Family]) -> _Functions:
        """Return what the families of :func:`~hr_prometheus.multiprocess.dump.load` say."""
        samples = [sample for family in families for sample in family.samples]
        labelled = [sample._replace(labels=with_worker(sample.labels, "")) for sample in samples]
        return cls(
            frozenset(sample.name for sample in samples),
            frozenset(map(_series, samples)),
            frozenset(map(_without_worker, labelled)),
        )

    def has_merged(self, sample: Sample) -> bool:
        """Whether a sample of a file is one of these, with the number of all workers."""
        return _series(sample) in self.merged

    def has(self, sample: Sample) -> bool:
        """Whether a sample of a file is one of these, with the number of one worker."""
        return _without_worker(sample) in self.shown


def _series(sample: Sample) -> _Series:
    return sample.name, frozenset(sample.labels.items())


def _without_worker(sample: Sample) -> _Series:
    return sample.name, frozenset(pair for pair in sample.labels.items() if pair[0] != "worker")


def _labelled(family: Family, worker: int, taken: set[_Series]) -> Family:
    """Return a worker's family with its label, less samples without a value and what the worker has said before.

    *taken* are the groups of samples of the worker's families before this one. OpenMetrics wants a group in one place.
    """
    labelled = _like(family)
    samples: dict[_Series, Sample] = {}
    groups = set()
    apart = family.name if family.type == "stateset" else _APART.get(family.type)
    for sample in family.samples:
        group = family.name, frozenset(pair for pair in sample.labels.items() if pair[0] != apart)
        groups.add(group)
        shown = sample._replace(labels=with_worker(sample.labels, str(worker)))
        if sample.value is not None and group not in taken:
            samples.setdefault(_series(shown), shown)
    taken |= groups
    labelled.samples = list(samples.values())
    return labelled


def _like(family: Family) -> Family:
    return Family(family.name, family.documentation, family.type, family.unit)
