"""Scrapes all workers: merges their numbers from four sources.

Where two sources have a family of one name, the first wins:

1. collectors of the supervisor's own;
2. the cells of the workers, summed: hr-prometheus's own metrics;
3. the files of prometheus_client: counters, summaries and histograms summed, gauges combined as their mode says;
4. the dump of each worker (:mod:`hr_prometheus.multiprocess.dump`), with the label ``worker``.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from prometheus_client import ProcessCollector
from prometheus_client.core import Metric as Family

from hr_prometheus.exposition.snapshot import select, target_family
from hr_prometheus.multiprocess.aggregate_cells import CellCollector
from hr_prometheus.multiprocess.compaction import compact
from hr_prometheus.multiprocess.dump import load
from hr_prometheus.multiprocess.function_gauges import FunctionGauges, sample_id
from hr_prometheus.multiprocess.identity import add_worker_label
from hr_prometheus.multiprocess.reader import ValueCollector
from hr_prometheus.store.exemplars import Exemplars
from hr_prometheus.store.families import StoredFamily

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

    from prometheus_client.samples import Sample

    from hr_prometheus.exposition.formats import Collectable
    from hr_prometheus.multiprocess.function_gauges import SampleId
    from hr_prometheus.store.cells import ReadableAllocator

logger = logging.getLogger("hr_prometheus")

#: The suffixes that the samples of a family add to its name, as prometheus_client's registry reserves them.
_SUFFIXES = {
    "counter": ("_total", "_created"),
    "summary": ("_sum", "_count", "_created"),
    "histogram": ("_bucket", "_sum", "_count", "_created"),
    "gaugehistogram": ("_bucket", "_gsum", "_gcount"),
    "info": ("_info",),
}
#: The label by which the samples of one group differ; in a stateset it is that of the family's name.
_GROUPED_BY = {"histogram": "le", "gaugehistogram": "le", "summary": "quantile"}


class MultiProcessCollector:
    """Collects the numbers of a supervisor and its workers.

    *directory* is that of the slots. *own* are collectors whose families have the label ``worker`` already, if they need
    it. *own_cells* are added to those of the slots. *is_compacting* says whether a scrape compacts the files of processes that have ended, for which no other process
    may read the directory.
    """

    def __init__(
        self,
        directory: str,
        own: Iterable[Collectable] = (),
        *,
        own_cells: ReadableAllocator | None = None,
        is_compacting: bool = True,
    ) -> None:
        self._directory = directory
        self._is_compacting = is_compacting
        self._cells = CellCollector(directory, own_cells)
        self._own = (*own, self._cells)
        self._values = ValueCollector(directory)
        self._function_gauges = FunctionGauges()
        #: Of all workers, also of those that have ended.
        self._exemplars = Exemplars()
        self._logged: set[object] = set()

    def scrape(self, dumps: Mapping[int, object], silent: Mapping[int, int] | None = None) -> Scrape:
        """Return a scrape, to be rendered as a registry is.

        *dumps* are those of the workers, by slot. *silent* are the pids of the workers that have sent none in time:
        their ``process_*`` samples come from the system.
        """
        return Scrape(self, dumps, silent or {})

    def keep_exemplars(self, dumped: object) -> None:
        """Keep the exemplars that a worker has left. Raises an exception of any kind if they are none."""
        self._exemplars.load(dumped)

    def look(self) -> None:
        """Look at the workers' files, so that a later removal or truncation loses nothing in silence."""
        self._cells.look()
        self._values.look()

    def close_removed(self, living: Collection[str]) -> None:
        """Close the removed files of workers that are not among the *living*, and keep their numbers."""
        self._cells.close_removed(living)

    def close(self) -> None:
        """Close the files."""
        self._cells.close()
        self._values.close()

    def families(self, dumps: Mapping[int, object], silent: Mapping[int, int]) -> Iterator[Family]:
        """Yield each family once: the supervisor's own and those of the cells in their order, then all others by name."""
        merged = _MergedFamilies(self._log_once)
        for collectable in self._own:
            for family in collectable.collect():
                merged.add(family, may_join=False)
        own = list(merged.families)
        workers = self._load(dumps)
        values: list[Family] = []
        with suppress(FileNotFoundError, NotADirectoryError):  # another process has removed the directory
            if self._is_compacting:
                compact(self._directory)
        with suppress(FileNotFoundError, NotADirectoryError):
            values = self._values.collect()
        for family in values:
            kept = self._function_gauges.remove_zeros(family, silent)
            if kept.samples:
                merged.add(kept, may_join=False)
        processes = [self._process_families(slot, pid) for slot, pid in sorted(silent.items())]
        for families in [*workers.values(), *processes]:
            for family in families:
                merged.add(family, may_join=family.name not in own)
        for name in [*own, *sorted(merged.families.keys() - set(own))]:
            family = merged.families[name]
            if isinstance(family, StoredFamily):
                family.exemplars = self._exemplars.of_export(family.export)
            yield family

    def _load(self, dumps: Mapping[int, object]) -> dict[int, list[Family]]:
        """Return the families of each worker's dump, with its label, and keep which of its gauges have functions."""
        workers: dict[int, list[Family]] = {}
        for slot, dumped in sorted(dumps.items()):
            try:
                dump = load(dumped)
                self._exemplars.load(dump.exemplars)
            except Exception as error:  # noqa: BLE001  # one worker's nonsense costs no other's numbers
                self._log_once(("dump", slot), "worker %s gave an answer that cannot be used: %r", slot, error)
                continue
            self._function_gauges.update(slot, dump)
            ids: set[SampleId] = set()
            labelled = (_add_worker(family, slot, ids) for family in [*dump.families, *dump.functions])
            workers[slot] = [family for family in labelled if family.samples]
            if dump.target and not any(family.name == "target" for each in workers.values() for family in each):
                workers[slot].append(target_family(dump.target))
        return workers

    def _process_families(self, slot: int, pid: int) -> list[Family]:
        collector = ProcessCollector(pid=lambda: pid, registry=None)
        try:
            return [_add_worker(family, slot, set()) for family in collector.collect()]
        except Exception as error:  # noqa: BLE001  # some systems' /proc lacks what prometheus_client expects
            self._log_once("process", "prometheus_client cannot read the state of process %s: %r", pid, error)
            return []

    def _log_once(self, kind: object, message: str, *values: object) -> None:
        if kind not in self._logged:
            self._logged.add(kind)
            logger.warning(message, *values)


@dataclass(frozen=True)
class Scrape:
    """One scrape of all workers, with the interface of a registry. The numbers are read when they are collected."""

    collector: MultiProcessCollector
    dumps: Mapping[int, object]
    silent: Mapping[int, int]
    names: frozenset[str] | None = None

    def restricted_registry(self, names: Iterable[str]) -> Scrape:
        """Return the same scrape with only the samples of these *names*."""
        return replace(self, names=frozenset(names))

    def collect(self) -> Iterator[Family]:
        """Yield the families."""
        for family in self.collector.families(self.dumps, self.silent):
            selection = family if self.names is None else select(family, self.names)
            if selection is not None:
                yield selection


class _MergedFamilies:
    """Families by name. No name of a family or its samples belongs to two of them."""

    def __init__(self, log_once: Callable[..., None]) -> None:
        self.families: dict[str, Family] = {}
        self._log_once = log_once
        self._owner: dict[str, str] = {}

    def add(self, family: Family, *, may_join: bool = True) -> None:
        """Add a family, or its samples to the family of its name and type; leave it out if its name is taken."""
        present = self.families.get(family.name)
        if present is not None and present.type == family.type and may_join:
            self.families[family.name] = _with_samples(present, present.samples + family.samples)
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


def _add_worker(family: Family, slot: int, groups: set[SampleId]) -> Family:
    """Return a worker's family with its label, without samples that have no value or are there twice.

    *groups* are those of the families before, to which this one's are added. A group that is there already is left out:
    OpenMetrics wants its samples in one place.
    """
    samples: dict[SampleId, Sample] = {}
    own_groups = set()
    grouped_by = family.name if family.type == "stateset" else _GROUPED_BY.get(family.type)
    for sample in family.samples:
        labelled = sample._replace(labels=add_worker_label(sample.labels, str(slot)))
        # Two labels of the application's may have become one.
        group = family.name, frozenset(pair for pair in labelled.labels.items() if pair[0] != grouped_by)
        own_groups.add(group)
        if sample.value is not None and group not in groups:
            samples.setdefault(sample_id(labelled), labelled)
    groups |= own_groups
    return _with_samples(family, list(samples.values()))


def _with_samples(family: Family, samples: list[Sample]) -> Family:
    """Return a family that differs from *family* in its samples only."""
    copy = Family(family.name, family.documentation, family.type, family.unit)
    copy.samples = samples
    return copy
