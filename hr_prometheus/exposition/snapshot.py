"""The families of a registry at one moment, some of whose collectors were asked before."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client.core import Metric as Family

from hr_prometheus.exposition.collectors import may_be_slow
from hr_prometheus.store.families import StoredFamily

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from prometheus_client import CollectorRegistry
    from prometheus_client.registry import Collector

    from hr_prometheus.exposition.collectors import Answer, Calls


class Snapshot:
    """The families of a registry, or those of its samples that have these *names*."""

    def __init__(self, registry: CollectorRegistry, names: Iterable[str] = ()) -> None:
        self._registry = registry
        self._names = frozenset(names)
        everything = dict(registry._collector_to_names)  # noqa: SLF001  # nothing public lists them
        self._collectors = list(everything)
        if self._names:
            self._collectors = [each for each in everything if not self._names.isdisjoint(everything[each])]
        #: How to ask the collectors that may be slow.
        self.calls: Calls = {each: each.collect for each in self._collectors if may_be_slow(each)}
        #: Their answers; one without an answer is left out.
        self.answers: Mapping[Collector, Answer] = {}

    def collect(self) -> Iterator[Family]:
        """Yield the families. Collectors that are not slow are asked now."""
        if (target := self._registry.get_target_info()) and (not self._names or "target_info" in self._names):
            yield target_family(target)
        for collector in self._collectors:
            if collector not in self.calls:
                families: Iterable[Family] = collector.collect()
            elif collector in self.answers:
                families = self.answers[collector].families
            else:
                continue
            for family in families:
                selection = select(family, self._names) if self._names else family
                if selection is not None:
                    yield selection


def select(family: Family, names: Collection[str]) -> Family | None:
    """Return a family with its samples of these *names*, or ``None`` if it has none."""
    if isinstance(family, StoredFamily):
        return family.select(names)
    selection = Family(family.name, family.documentation, family.type, family.unit)
    selection.samples = [sample for sample in family.samples if sample.name in names]
    return selection if selection.samples else None


def target_family(labels: Mapping[str, str]) -> Family:
    """Return the family that prometheus_client's registry makes of its target's labels."""
    family = Family("target", "Target metadata", "info")
    family.add_sample("target_info", dict(labels), 1.0)
    return family
