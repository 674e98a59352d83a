"""Keeps the wrong zeros of gauges with ``set_function`` out of a scrape.

A function gives such a gauge its value, so the value in the worker's file stays 0. What the functions give comes with the
worker's dump.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from prometheus_client.core import Metric as Family

from hr_prometheus.multiprocess.identity import add_worker_label

if TYPE_CHECKING:
    from collections.abc import Container

    from prometheus_client.samples import Sample

    from hr_prometheus.multiprocess.dump import WorkerDump

#: The name and the labels of a sample.
SampleId: TypeAlias = tuple[str, frozenset[tuple[str, str]]]


class FunctionGauges:
    """The gauges with functions of all workers, as each worker's last dump names them."""

    def __init__(self) -> None:
        self._workers: dict[str, _WorkerFunctions] = {}
        #: The gauges that a dump has named as plain, and no later dump as having functions.
        self._plain: frozenset[str] = frozenset()

    def update(self, worker: int, dump: WorkerDump) -> None:
        """Replace the functions of a worker by those of its latest dump."""
        self._workers[str(worker)] = _WorkerFunctions.of(dump.functions)
        self._plain = (self._plain - {family.name for family in dump.functions}) | dump.plain_gauges

    def remove_zeros(self, family: Family, silent: Container[int]) -> Family:
        """Return a family of the files without the values that functions give. It may have no samples left.

        *silent* are the workers that have sent no dump to this scrape. Which of their zeros are meant is unknown, so they
        are left out, unless another dump has named the gauge as plain.
        """
        is_unknown = bool(silent) and family.name not in self._plain
        workers = {slot: functions for slot, functions in self._workers.items() if family.name in functions.names}
        if family.type != "gauge" or not (workers or is_unknown):
            return family
        kept = Family(family.name, family.documentation, family.type, family.unit)
        for sample in family.samples:
            slot = sample.labels.get("worker", "").partition("-")[0]
            if not sample.value and is_unknown and (not slot.isdecimal() or int(slot) in silent):
                continue
            # A worker that has sent no dump yet is taken to be like the others.
            of_slot = [self._workers[slot]] if slot in self._workers else workers.values()
            if not any(functions.has_total(sample) for functions in workers.values()) and not any(
                functions.has_own(sample) for functions in of_slot
            ):
                kept.samples.append(sample)
        return kept


class _WorkerFunctions(NamedTuple):
    """The series of one worker's gauges that have functions."""

    names: frozenset[str]
    #: The samples of the files in which they are, if the gauge's mode makes one total of all workers,
    totals: frozenset[SampleId]
    #: and if it keeps the workers apart; without the label of the worker.
    own: frozenset[SampleId]

    @classmethod
    def of(cls, families: list[Family]) -> _WorkerFunctions:
        """Return what the functions of a dump say."""
        samples = [sample for family in families for sample in family.samples]
        labelled = [sample._replace(labels=add_worker_label(sample.labels, "")) for sample in samples]
        return cls(
            frozenset(sample.name for sample in samples),
            frozenset(map(sample_id, samples)),
            frozenset(map(_id_without_worker, labelled)),
        )

    def has_total(self, sample: Sample) -> bool:
        """Whether a sample of the files is the total of one of these."""
        return sample_id(sample) in self.totals

    def has_own(self, sample: Sample) -> bool:
        """Whether a sample of the files is one of these."""
        return _id_without_worker(sample) in self.own


def sample_id(sample: Sample) -> SampleId:
    """Return the identity of a sample in a scrape."""
    return sample.name, frozenset(sample.labels.items())


def _id_without_worker(sample: Sample) -> SampleId:
    return sample.name, frozenset(pair for pair in sample.labels.items() if pair[0] != "worker")
