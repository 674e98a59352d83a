"""Records that keep the traces of some requests as exemplars."""

from __future__ import annotations

import time
from bisect import bisect_left
from functools import cache
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final

from hr_prometheus.errors import SettingError, did_you_mean
from hr_prometheus.labels.statuses import status_label
from hr_prometheus.metrics import EXEMPLAR_SOURCES, NO_EXEMPLARS, OTEL_SPANS, REQUEST_COUNT, REQUEST_LATENCY
from hr_prometheus.request.incomplete import SWITCHING_PROTOCOLS
from hr_prometheus.request.span import span_finder
from hr_prometheus.request.trace_context import TRACEPARENT_HEADER, parse_trace_parent
from hr_prometheus.store.exemplars import trace_exemplar

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    from hr_prometheus.names import Naming
    from hr_prometheus.store.exemplars import Exemplars, SeriesExemplars

    #: Returns the ids of the trace and the span of what stands for a request, if it is sampled.
    FindTrace: TypeAlias = Callable[[Any], tuple[str, str] | None]

#: Seconds for which a bucket keeps its exemplar.
KEPT_SECONDS: Final = 10.0
_LEAST_ERROR = "500"
#: The digit of a header with the flags, and those with the flag for a sampled trace.
_FLAGS, _ODD = slice(54, 55), frozenset("13579bdf")


def trace_finder(exemplars: object) -> FindTrace | None:
    """Return what finds the trace of a request, for one of the sources of exemplars; ``None`` for ``off``.

    Raises :exc:`~hr_prometheus.errors.ConfigurationError` if there is no such source, or it lacks a package.
    """
    if exemplars not in EXEMPLAR_SOURCES:
        problem = f": unknown source.{did_you_mean(exemplars, EXEMPLAR_SOURCES)} Expected one of {', '.join(EXEMPLAR_SOURCES)}."
        raise SettingError("exemplars", f"exemplars={exemplars!r}", problem)
    if exemplars == NO_EXEMPLARS:
        return None
    return span_finder() if exemplars == OTEL_SPANS else _find_parent


def _find_parent(holder: Any) -> tuple[str, str] | None:
    headers = holder.request.headers
    text = headers.get(TRACEPARENT_HEADER)
    if text is None or text[_FLAGS] not in _ODD:  # most are not sampled, and need no closer look
        return None
    parent = parse_trace_parent(text)
    if parent is None or len(headers.getall(TRACEPARENT_HEADER)) > 1:
        return None
    return parent.trace_id, parent.span_id


@cache
def traced(kind: type[Any]) -> type[Any]:
    """Return the class of records of a *kind* that keep exemplars as well."""
    return type(f"Traced{kind.__name__}", (_Traced, kind), {"count": kind.end})


class _Traced:
    """What a record does besides, if it keeps exemplars.

    A bucket of the latencies keeps its own for ten seconds. The counter of a status from 500 on always has the latest.
    """

    #: The method ``end`` of a record that keeps no exemplars, because it is quicker to call so.
    count: Callable[[Any, str, float], None]
    classic: tuple[float, ...]
    labels: tuple[str, ...]

    def __init__(
        self, records: Any, labels: tuple[str, ...], bounds: tuple[float, ...], split: tuple[str, ...]
    ) -> None:
        super().__init__(records, labels, bounds, split)  # type: ignore[call-arg]  # that of the record
        self.find_trace: FindTrace = records.find_trace
        self._exemplars: Exemplars = records.basic.exemplars
        self._naming: Naming = records.naming
        buckets = len(self.classic) + 1
        latency = self._exemplars.of_series(REQUEST_LATENCY, self._naming, labels + split, buckets)
        self._latency: SeriesExemplars = latency
        self._due = latency.due

    def end(self, exchange: Any, status: str, seconds: float) -> None:
        """Count a request in progress as ended, and keep its trace if that of its bucket is due."""
        self.count(exchange, status, seconds)
        now = exchange.began + seconds
        if now >= self._due[bisect_left(self.classic, seconds)] or status >= _LEAST_ERROR:
            self._keep(exchange, status, seconds, now)

    def finish(self, status: str, seconds: float, exchange: Any = None) -> None:
        """Do the same without an exchange."""
        super().finish(status, seconds, exchange)  # type: ignore[misc]  # as above
        if exchange is not None:
            self._keep(exchange, status, seconds, perf_counter())

    def _keep(self, holder: Any, status: str, seconds: float, now: float) -> None:
        trace = self.find_trace(holder)
        if trace is None:
            return
        timestamp = round(time.time(), 3)
        bucket = bisect_left(self.classic, seconds)
        if now >= self._due[bucket] and status != SWITCHING_PROTOCOLS:
            self._exemplars.keep(self._latency, bucket, trace_exemplar(*trace, seconds, timestamp))
            self._due[bucket] = now + KEPT_SECONDS
        if status >= _LEAST_ERROR and status_label(status) == status:
            own, extra = self.labels[:2], self.labels[2:]
            counter = self._exemplars.of_series(REQUEST_COUNT, self._naming, (*own, status, *extra))
            self._exemplars.keep(counter, 0, trace_exemplar(*trace, 1.0, timestamp))
