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
from hr_prometheus.request.trace_context import TRACEPARENT_HEADER, trace_parent
from hr_prometheus.store.bounds import cells_of_bucket
from hr_prometheus.store.exemplars import trace_exemplar

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    from hr_prometheus.names import Naming
    from hr_prometheus.store.cells import Page
    from hr_prometheus.store.exemplars import Exemplars

    #: Returns the ids of the trace and the span of what stands for a request, if it is sampled.
    FindTrace: TypeAlias = Callable[[Any], tuple[str, str] | None]

#: Seconds for which a bucket keeps its exemplar.
KEPT_SECONDS: Final = 10.0
#: Seconds after a request without a trace for which its bucket does not look for one, so that most requests need not.
MISSED_SECONDS: Final = 0.01
_LEAST_ERROR = "500"


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
    parent = trace_parent(headers)
    if parent is None or not parent.is_sampled or len(headers.getall(TRACEPARENT_HEADER)) > 1:
        return None
    return parent.trace_id, parent.span_id


@cache
def traced(kind: type[Any]) -> type[Any]:
    """Return the class of records of a *kind* that keep exemplars as well."""
    names = {"end": _Traced.count} if kind.end is kind.count else {}
    return type(f"Traced{kind.__name__}", (_Traced, kind), names)


class _Traced:
    """What a record does besides, if it keeps exemplars.

    A bucket of the latencies keeps its own for ten seconds. The counter of a status from 500 on always has the latest.
    """

    # Those of the record.
    page: Page
    latency: int
    statuses: dict[str, tuple[Page, int]]
    bounds: tuple[float, ...]
    classic: tuple[float, ...]
    labels: tuple[str, ...]
    leave: Callable[[], None]

    def __init__(
        self, records: Any, labels: tuple[str, ...], bounds: tuple[float, ...], split: tuple[str, ...]
    ) -> None:
        super().__init__(records, labels, bounds, split)  # type: ignore[call-arg]  # that of the record
        self.find_trace: FindTrace = records.find_trace
        self._exemplars: Exemplars = records.basic.exemplars
        self._naming: Naming = records.naming
        cells = len(self.bounds) + 1
        self._latency = self._exemplars.of_series(REQUEST_LATENCY, self._naming, labels + split, cells)
        self._due = self._latency.due

    def count(self, exchange: Any, status: str, seconds: float) -> None:
        """Count a request in progress as ended, and look for its trace if that of its bucket is due.

        It counts as a record without exemplars does. To call that, and search the bucket again, would cost most requests more
        than the rest.
        """
        try:
            page, cell = self.statuses[status]
        except BaseException:
            self.leave()
            raise
        page[cell] += 1.0
        if status == SWITCHING_PROTOCOLS:
            self.leave()
            return
        page, first = self.page, self.latency
        cell = bisect_left(self.bounds, seconds)
        page[first] += seconds  # as there
        page[first + 1 + cell] += 1.0
        if exchange.began >= self._due[cell] or status >= _LEAST_ERROR:
            self._look(exchange, status, seconds, exchange.began)

    def finish(self, status: str, seconds: float, exchange: Any = None) -> None:
        """Do the same without an exchange."""
        super().finish(status, seconds)  # type: ignore[misc]  # as above
        if exchange is not None and status != SWITCHING_PROTOCOLS:
            self._look(exchange, status, seconds, perf_counter() - seconds)

    def _look(self, holder: Any, status: str, seconds: float, began: float) -> None:
        """Keep the trace of a request if it has one."""
        trace, cell = self.find_trace(holder), bisect_left(self.bounds, seconds)
        is_due = began >= self._due[cell]
        if trace is None:
            if is_due:
                self._due[cell] = began + MISSED_SECONDS
            return
        timestamp = round(time.time(), 3)
        if is_due:
            bucket = bisect_left(self.classic, seconds)
            self._exemplars.keep(self._latency, bucket, trace_exemplar(*trace, seconds, timestamp))
            cells = cells_of_bucket(self.bounds, self.classic, bucket)
            self._due[cells] = [began + KEPT_SECONDS] * (cells.stop - cells.start)
        if status >= _LEAST_ERROR and status_label(status) == status:
            own, extra = self.labels[:2], self.labels[2:]
            counter = self._exemplars.of_series(REQUEST_COUNT, self._naming, (*own, status, *extra))
            self._exemplars.keep(counter, 0, trace_exemplar(*trace, 1.0, timestamp))
