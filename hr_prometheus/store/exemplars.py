"""The exemplars of series: for each bucket of a histogram, and for a counter, a request whose trace can be looked at."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Any, NamedTuple

from prometheus_client.core import Exemplar

from hr_prometheus.metrics import METRICS_BY_NAME
from hr_prometheus.names import Naming, checked_names, exports_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import TypeAlias

    from hr_prometheus.metric import Metric
    from hr_prometheus.names import Export

    #: By the labels of an exported series: the exemplars of each series that it is the sum of.
    ExportedExemplars: TypeAlias = Mapping[tuple[str, ...], Sequence[Mapping[int, Exemplar]]]

TRACE_ID, SPAN_ID = "trace_id", "span_id"

_serials = count(1)


class SeriesExemplars(NamedTuple):
    """The exemplars of one series, by the index of their bucket; of a counter by 0.

    *due* is when each cell may bring its bucket another one, by the clock of those who keep them.
    """

    metric: Metric
    naming: Naming
    labels: tuple[str, ...]
    latest: dict[int, Exemplar]
    due: list[float]


class Exemplars:
    """The exemplars of some series, by what these are exported as."""

    def __init__(self) -> None:
        self._series: dict[tuple[Metric, Naming, tuple[str, ...]], SeriesExemplars] = {}
        self._exported: dict[Export, dict[tuple[str, ...], list[dict[int, Exemplar]]]] = {}
        #: When each was kept, by a number that grows, the latest last.
        self._kept: dict[tuple[Metric, Naming, tuple[str, ...], int], int] = {}

    def of_series(self, metric: Metric, naming: Naming, labels: tuple[str, ...], cells: int = 0) -> SeriesExemplars:
        """Return the exemplars of a series. Each of so many *cells* brings one only when it is due."""
        key = metric, naming, labels
        if key not in self._series:
            series = SeriesExemplars(*key, {}, [0.0] * cells)
            if self._series.setdefault(key, series) is series:  # else another thread was faster
                for export in exports_of(metric, naming):
                    of_labels = self._exported.setdefault(export, {})
                    of_labels.setdefault(export.labels_of(labels), []).append(series.latest)
        return self._series[key]

    def of_export(self, export: Export) -> ExportedExemplars:
        """Return the exemplars of a family."""
        return self._exported.get(export, {})

    def keep(self, series: SeriesExemplars, bucket: int, exemplar: Exemplar) -> None:
        """Keep an exemplar of a series in the place of the one that its *bucket* has."""
        series.latest[bucket] = exemplar
        key = *series[:3], bucket
        self._kept.pop(key, None)
        self._kept[key] = next(_serials)

    def dump(self, since: int) -> list[list[object]]:
        """Return what was kept after the number *since*, the latest first, in a form that JSON can carry."""
        dumped: list[list[object]] = []
        for (metric, naming, labels, bucket), serial in reversed(list(self._kept.items())):
            if serial <= since:
                break
            exemplar = self._series[metric, naming, labels].latest[bucket]
            ids = exemplar.labels[TRACE_ID], exemplar.labels[SPAN_ID]
            names = naming.prefix, *naming.sets
            dumped.append([serial, metric.name, names, labels, bucket, *ids, exemplar.value, exemplar.timestamp])
        return dumped

    def load(self, dumped: Any) -> None:
        """Keep what :meth:`dump` has returned in other processes, of each bucket the newest.

        Raises an exception of any kind if it is anything else.
        """
        for _, name, (prefix, *sets), labels, bucket, *numbers in dumped:
            series = self.of_series(METRICS_BY_NAME[name], Naming(prefix, checked_names(sets)), tuple(labels))
            exemplar = trace_exemplar(*numbers)
            if bucket not in series.latest or time_of(series.latest[bucket]) <= time_of(exemplar):
                series.latest[bucket] = exemplar


def trace_exemplar(trace_id: str, span_id: str, value: float, timestamp: float) -> Exemplar:
    """Return an exemplar with the ids of a span and its trace. The *timestamp* is in seconds since the epoch."""
    return Exemplar({TRACE_ID: trace_id, SPAN_ID: span_id}, float(value), float(timestamp))


def time_of(exemplar: Exemplar) -> float:
    """Return the time of one of our exemplars, in seconds since the epoch."""
    return float(exemplar.timestamp or 0.0)
