"""The pytest plugin: the fixture ``hr_metrics``, by which an application's tests read its metrics.

pytest loads this module in every project where hr-prometheus is installed, so it imports nothing else before the fixture is used.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from prometheus_client import CollectorRegistry
    from prometheus_client.core import Sample

    from hr_prometheus.metric import Metric
    from hr_prometheus.request.exchange import Exchange

#: Seconds between two looks at what is in progress.
_PAUSE = 0.005
#: What is behind a family's name in those of its samples, by its type.
_SUFFIXES = {
    "counter": ("_total",), "histogram": ("_bucket", "_count", "_sum"), "summary": ("", "_count", "_sum"), "info": ("_info",),
}  # fmt: skip
#: How many path labels an error names.
_MOST_NAMED = 10


class RegistryMetrics:
    """The metrics of a registry, and how they have changed since this object was made."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self._before = {_key(sample): sample.value for family in registry.collect() for sample in family.samples}
        self._earlier = self._in_progress()

    def of(self, registry: CollectorRegistry) -> RegistryMetrics:
        """Return the metrics of another registry."""
        return RegistryMetrics(registry)

    def value(self, name: str, /, **labels: object) -> float:
        """Return the value of a sample such as ``request_count_total``, summed over all series that have these *labels*.

        It is 0 if there is no such series yet. Raises :exc:`LookupError` for a name that no sample has, and for a label that
        its series do not have, once there is one.
        """
        return sum(sample.value for sample in self._samples(name, labels))

    def delta(self, name: str, /, **labels: object) -> float:
        """Return by how much :meth:`value` has grown since the test began."""
        return sum(sample.value - self._before.get(_key(sample), 0.0) for sample in self._samples(name, labels))

    async def settled(self, timeout: float = 5.0) -> None:  # noqa: ASYNC109  # as asyncio.wait has it
        """Wait until no request is in progress that has begun since the test did.

        A client may have its whole answer before the request is recorded. Raises :exc:`AssertionError`, with the requests in
        progress, if some are after *timeout* seconds.
        """
        end = time.monotonic() + timeout
        while exchanges := self._in_progress() - self._earlier:
            if time.monotonic() > end:
                paths = Counter(each.record.labels[1] for each in exchanges)
                requests = ", ".join(f"{path} ({number})" for path, number in sorted(paths.items()))
                raise AssertionError(f"requests are in progress after {timeout:g} s: {requests}")
            await asyncio.sleep(_PAUSE)

    def assert_bounded(self, *, labels: int) -> None:
        """Check that the requests of this test have at most so many different *labels* ``path``."""
        from hr_prometheus.metrics import REQUEST_COUNT, REQUEST_LATENCY

        paths = {
            path: None
            for metric in (REQUEST_COUNT, REQUEST_LATENCY)  # under some names there is but one of them
            for path, sample in self._samples_of(metric)
            if sample.name.endswith(("_total", "_count")) and sample.value > self._before.get(_key(sample), 0.0)
        }
        if len(paths) > labels:
            named = ", ".join([*list(paths)[:_MOST_NAMED], *["…"] * (len(paths) > _MOST_NAMED)])
            raise AssertionError(
                f"{len(paths)} path labels instead of at most {labels}: {named}. Fix parameters with fixed_routes_parameters, or "
                "list their values with allow_values."
            )

    def _samples(self, name: str, given: Mapping[str, object]) -> Iterator[Sample]:
        labels = {label: str(value) for label, value in given.items()}
        from hr_prometheus.errors import did_you_mean

        series = [
            sample
            for family in self.registry.restricted_registry([name]).collect()
            for sample in family.samples
            if sample.name == name
        ]
        if not series and name not in (names := self._sample_names()):
            raise LookupError(f'The registry has no sample named "{name}".{did_you_mean(name, names)}')
        own = {label for sample in series for label in sample.labels}
        if series and labels.keys() - own:
            wrong = min(labels.keys() - own)
            hint = did_you_mean(wrong, own)
            raise LookupError(f'"{name}" has no label "{wrong}".{hint} Its labels: {", ".join(sorted(own)) or "none"}.')
        return (sample for sample in series if labels.items() <= sample.labels.items())

    def _sample_names(self) -> set[str]:
        """Return the names that samples have, or will have when there are some."""
        names = set()
        for collector in list(self.registry._collector_to_names):  # noqa: SLF001  # nothing public lists them
            describe = getattr(collector, "describe", collector.collect)
            for family in describe():
                names |= {family.name + suffix for suffix in _SUFFIXES.get(family.type, ("",))}
        return names

    def _in_progress(self) -> set[Exchange]:
        from hr_prometheus.request.connection import exchanges_in_progress

        return exchanges_in_progress(self.registry)

    def _samples_of(self, metric: Metric) -> Iterator[tuple[str, Sample]]:
        """Yield the samples of a metric of ours, under each of its names, with their label ``path``."""
        from hr_prometheus.store.families import StoredFamily

        for family in self.registry.collect():
            if isinstance(family, StoredFamily) and family.export.metric is metric:
                label = family.export.labels[metric.labels.index("path")]
                for sample in family.samples:
                    yield sample.labels[label], sample


def _key(sample: Sample) -> tuple[str, frozenset[tuple[str, str]]]:
    return sample.name, frozenset(sample.labels.items())


@pytest.fixture
def hr_metrics() -> RegistryMetrics:
    """Return the metrics of the global registry; ``hr_metrics.of(registry)`` has those of another one."""
    from prometheus_client import REGISTRY

    return RegistryMetrics(REGISTRY)
