"""A gauge of ours that is not kept in cells, but computed at a scrape."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client.core import Metric as Family

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from hr_prometheus.metric import Metric


class ComputedGauge:
    """A gauge without labels, as a collector for a registry. *compute* is quick, and returns ``None`` for no sample.

    It may be called in any thread. With workers each one has its own.
    """

    def __init__(self, metric: Metric, compute: Callable[[], float | None]) -> None:
        self._metric, self._compute = metric, compute

    def describe(self) -> Iterator[Family]:
        """Yield the family without its sample."""
        yield Family(self._metric.name, self._metric.help, "gauge")

    def collect(self) -> Iterator[Family]:
        """Yield the family, if it has a sample."""
        value = self._compute()
        if value is not None:
            family = Family(self._metric.name, self._metric.help, "gauge")
            family.add_sample(self._metric.name, {}, value)
            yield family
