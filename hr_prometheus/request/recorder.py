"""What one middleware records with: its labels, and its metrics or monitors."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from prometheus_client import REGISTRY

from hr_prometheus.labels.cache import LabelCache
from hr_prometheus.metrics import FOLDED_REQUESTS, OTEL_SPANS
from hr_prometheus.request.monitor_record import MonitorRecord
from hr_prometheus.request.monitors import RequestMonitor
from hr_prometheus.request.recent import recent_requests
from hr_prometheus.request.records import Records
from hr_prometheus.request.settings_check import check_settings
from hr_prometheus.store.failures import failures_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping
    from typing import Protocol

    from aiohttp.web import Request
    from multidict import CIMultiDict
    from prometheus_client import CollectorRegistry

    from hr_prometheus.labels.extra import ExtraLabels
    from hr_prometheus.labels.policies import Policies
    from hr_prometheus.request.exchange import Exchange
    from hr_prometheus.request.monitors import BaseRequestMonitor
    from hr_prometheus.store.cells import Cells

    class Record(Protocol):
        """Where the beginnings and ends of requests with the same labels are recorded."""

        #: Method, path, and names and values of extra labels; empty for requests that are left out.
        labels: tuple[str, ...]
        #: The counter of the seconds for which handlers hold the event loop.
        loop_time: Cells | None

        def begin(self, exchange: Exchange) -> None:
            """Record that a request has begun. If :meth:`end` needs the response, the exchange ``waits`` for it."""

        def end(self, exchange: Exchange, status: str, seconds: float) -> None:
            """Record that a request has ended after some *seconds*."""


class RecordsByExtraLabel(dict[str, Any]):
    """The records of requests with the same *labels*, by the value of the next extra label.

    *names* are those of the extra labels that differ from request to request. With more than one there are such records by
    the value after the next.
    """

    def __init__(
        self, make: Callable[[tuple[str, ...]], Record], labels: tuple[str, ...], names: tuple[str, ...]
    ) -> None:
        self.labels = labels
        self._make = make
        self._name, self._others = names[0], names[1:]

    def __missing__(self, value: str) -> Any:
        labels, others = (*self.labels, self._name, value), self._others
        record = self[value] = RecordsByExtraLabel(self._make, labels, others) if others else self._make(labels)
        return record


#: The arguments of the default monitor that :class:`Records` takes, and its names for them.
_RECORD_OPTIONS = {
    "metric_prefix": "prefix", "buckets": "buckets", "detail": "detail", "names": "names",
    "latency_by_status": "latency_by_status", "native_histograms": "native_histograms", "exemplars": "exemplars",
}  # fmt: skip


def recorder_of(middleware: object) -> Recorder | None:
    """Return the recorder of a middleware that this package has made; ``None`` for any other middleware."""
    return getattr(middleware, "hr_prometheus_recorder", None)


class Recorder:
    """The settings of one middleware, and the records of its requests by their labels.

    *monitor* is the class of the monitors, and *monitor_args* are the arguments of each.
    """

    def __init__(
        self,
        monitor: type[BaseRequestMonitor],
        monitor_args: Mapping[str, Any],
        *,
        policies: Policies,
        path_budget: int,
        exclude: Iterable[str],
        exclude_methods: Collection[str],
        extra_labels: ExtraLabels,
    ) -> None:
        self.monitor = monitor
        self.monitor_args = dict(monitor_args)
        self.registry: CollectorRegistry = REGISTRY
        self.records: Records | None = None
        if isinstance(monitor, type) and issubclass(monitor, RequestMonitor):
            self.registry = self.monitor_args.get("registry", REGISTRY)
            options = {option: monitor_args[name] for name, option in _RECORD_OPTIONS.items() if name in monitor_args}
            self.records = Records(self.registry, **options)
        self.recent = recent_requests(self.registry)
        self.is_full = self.records is not None and self.records.full is not None
        #: Whether that of :func:`~hr_prometheus.request.span.keep_context` has to be the innermost middleware.
        self.needs_context = self.records is not None and self.records.exemplars == OTEL_SPANS
        self.exclude = tuple(exclude)
        self.exclude_methods = tuple(exclude_methods)
        #: Whether the patterns that match no label have been reported.
        self.has_checked_exclude = False
        failures = failures_of(self.registry)
        self.failed = failures.report
        self.extra_labels = extra_labels
        self.labels: LabelCache[Any] = LabelCache(  # of records, or of records by extra labels
            self._records_by_extra_label if extra_labels.varying else self._record,
            policies=policies,
            path_budget=path_budget,
            exclude=self.exclude,
            exclude_methods=self.exclude_methods,
            fold_counter=partial(failures.counter, FOLDED_REQUESTS),
            extra=extra_labels,
        )
        #: Returns the record of a request if a few look-ups are enough, else ``None``.
        self.lookup: Callable[[Request], Record | None] = self.labels.lookup
        if extra_labels.varying:
            self.lookup = self._lookup_by_extra_label
        self._readers = [label.reader(self.failed) for label in extra_labels.varying.values()]
        #: Called with the status and the fields of each response's head before it is written.
        self.on_head: Callable[[str, CIMultiDict[str]], None] | None = None
        self._is_checked = False
        self.is_instrumented = False  #: whether instrument() compares the names in the settings with the routes

    def _records_by_extra_label(self, labels: tuple[str, ...], route: str | None) -> RecordsByExtraLabel:
        make = partial(self._record, route=route)
        return RecordsByExtraLabel(make, labels, tuple(self.extra_labels.varying))

    def _lookup_by_extra_label(self, request: Request) -> Record | None:
        return self._select(self.labels.lookup(request), request)

    def _select(self, record: Any, request: Request) -> Record | None:
        """Return the record for the extra labels of *request*, of those for its other labels."""
        if record is not None:
            for value_of in self._readers:
                record = record[value_of(request)]
        return record  # type: ignore[no-any-return]

    def _record(self, labels: tuple[str, ...], route: str | None) -> Record:
        # The default monitor as it is needs no object for each request.
        has_halves = self.monitor_args.keys() & {"init_metrics", "end_metrics"}
        if self.records is not None and self.monitor is RequestMonitor and not has_halves:
            return self.records.request(labels, route)
        return MonitorRecord(self.monitor, self.monitor_args, labels, self.failed)

    def record_of(self, request: Request) -> Record | None:
        """Return the record for the labels of *request*; ``None`` if it is not to be recorded. Raises nothing."""
        try:
            if not self._is_checked:
                self._is_checked = True
                check_settings(self, request)
            return self._select(self.labels.record_of(request), request)
        except Exception as error:  # noqa: BLE001  # nothing of ours may reach the client
            self.failed("labels", error)
            return None

    def records_like(self, other: Recorder) -> bool:
        """Whether *other* writes to the same numbers."""
        mine, theirs = (each.records.basic if each.records is not None else None for each in (self, other))
        return self.monitor is other.monitor and mine is theirs
