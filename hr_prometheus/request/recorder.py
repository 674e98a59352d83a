"""What one middleware records with: its labels, its metrics or monitors, and where its failures are counted."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from aiohttp.web import Response
from prometheus_client import REGISTRY

from hr_prometheus.errors import ConfigurationError
from hr_prometheus.labels.cache import LabelCache
from hr_prometheus.labels.exclusions import idle_patterns
from hr_prometheus.labels.methods import UNKNOWN
from hr_prometheus.labels.resources import MALFORMED
from hr_prometheus.metrics import BASIC, FOLDED_REQUESTS, LATENCY_BUCKETS
from hr_prometheus.request.monitors import MonitorRecord, RequestMonitor
from hr_prometheus.request.records import Records, RequestRecord
from hr_prometheus.store.failures import failures_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from aiohttp.web import Application, Request, StreamResponse
    from multidict import CIMultiDict
    from prometheus_client import CollectorRegistry

    from hr_prometheus.labels.policies import Policies
    from hr_prometheus.request.exchange import Record
    from hr_prometheus.request.monitors import BaseRequestMonitor

logger = logging.getLogger("hr_prometheus")


def recorder_of(candidate: object) -> Recorder | None:
    """Return what a middleware of ours records with; ``None`` for any other middleware."""
    return getattr(candidate, "hr_prometheus_recorder", None)


class Recorder:
    """What one middleware knows.

    *monitor* is the class of the monitors, and *monitor_args* what each is made with.
    """

    def __init__(
        self,
        monitor: type[BaseRequestMonitor],
        monitor_args: Mapping[str, Any],
        *,
        policies: Policies,
        path_budget: int,
        exclude: Iterable[str],
    ) -> None:
        self.monitor = monitor
        self.monitor_args = dict(monitor_args)
        self.registry: CollectorRegistry = REGISTRY
        self.records: Records | None = None
        if isinstance(monitor, type) and issubclass(monitor, RequestMonitor):
            self.registry = self.monitor_args.get("registry", REGISTRY)
            self.records = Records(
                self.registry,
                prefix=self.monitor_args.get("metric_prefix", ""),
                buckets=self.monitor_args.get("buckets", LATENCY_BUCKETS),
                detail=self.monitor_args.get("detail", BASIC),
            )
        self.is_full = self.records is not None and self.records.full is not None
        self.exclude = tuple(exclude)
        #: Whether it was said which patterns of these leave nothing out.
        self.has_checked_exclude = False
        failures = failures_of(self.registry)
        self.failed = failures.report
        self.labels: LabelCache[Record] = LabelCache(
            self._record,
            policies=policies,
            path_budget=path_budget,
            exclude=self.exclude,
            on_fold=lambda template: failures.count(FOLDED_REQUESTS, template),
        )
        #: Called with the status and the fields of each response's head before it is written.
        self.on_head: Callable[[str, CIMultiDict[str]], None] | None = None
        self._is_checked = False
        self.is_instrumented = False  #: whether instrument() compares the names in the settings with the routes

    def _record(self, labels: tuple[str, ...]) -> Record:
        # The default monitor as it is needs no object for each request.
        has_halves = self.monitor_args.keys() & {"init_metrics", "end_metrics"}
        if self.records is not None and self.monitor is RequestMonitor and not has_halves:
            return self.records.request(labels)
        return MonitorRecord(self.monitor, self.monitor_args, labels, self.failed)

    def find(self, request: Request) -> Record | None:
        """Return the record for the labels of *request*; ``None`` if it is not to be recorded. Raises nothing."""
        try:
            if not self._is_checked:
                self._check(request)
            return self.labels.record_of(request)
        except Exception as error:  # noqa: BLE001  # nothing of ours may reach the client
            self.failed("labels", error)
            return None

    def _count(self, record: RequestRecord, response: StreamResponse, seconds: float) -> None:
        """Count a request that aiohttp has answered before any middleware, after some *seconds*."""
        record.enter()
        record.finish(str(response.status), seconds)
        body = response.body if isinstance(response, Response) else None
        record.measure(seconds, len(body) if isinstance(body, bytes) else 0, 0)

    def malformed(self, response: StreamResponse, seconds: float) -> None:
        """Count a request that aiohttp's parser has refused, so that it has neither route nor method."""
        if self.records is not None and not self.labels.excludes(MALFORMED):
            self._count(self.records.request((UNKNOWN, MALFORMED)), response, seconds)

    def refused(self, request: Request, response: StreamResponse, seconds: float) -> None:
        """Count a request whose expectation aiohttp has refused (RFC 9110, 10.1.1)."""
        if isinstance(record := self.find(request), RequestRecord):
            self._count(record, response, seconds)

    def records_like(self, other: Recorder) -> bool:
        """Whether *other* writes to the same numbers."""
        mine, theirs = (each.records.basic if each.records is not None else None for each in (self, other))
        return self.monitor is other.monitor and mine is theirs

    def _check(self, request: Request) -> None:
        """Check the names in the settings against the routes, which are known by the first request."""
        self._is_checked = True
        apps: tuple[Application, ...] = request.match_info.apps if isinstance(request.match_info.apps, tuple) else ()
        for app in apps:
            if any(recorder_of(candidate) is self for candidate in app.middlewares):
                if not self.is_instrumented:  # else they were compared at the end of the start-up
                    try:
                        self.labels.policies.check(app)
                    except ConfigurationError as error:
                        logger.error("%s", error)  # noqa: TRY400  # the sentence says it all
                if not self.has_checked_exclude:
                    self._check_exclude(app)
                return

    def _check_exclude(self, app: Application) -> None:
        try:
            for pattern, problem in idle_patterns(self.exclude, app, self.labels.policies).items():
                logger.warning('exclude: the pattern "%s" %s', pattern, problem)
        except Exception:  # a resource of the application's own may be anything, and nothing depends on this
            logger.debug("The routes could not be looked at.", exc_info=True)
