"""What one middleware records with: the labels, the lives of the requests, and whose numbers they become."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from aiohttp import hdrs
from aiohttp.web import Response, StreamResponse
from prometheus_client import REGISTRY

from hr_prometheus.catalog import BASIC, ERRORS, FOLDED_REQUESTS, LATENCY_BUCKETS
from hr_prometheus.errors import ConfigurationError
from hr_prometheus.labels import MALFORMED, UNKNOWN, Labels
from hr_prometheus.life import (
    is_request_task,
)
from hr_prometheus.lives import BasicLife, FollowingBasicLife, FullLife, MonitoredLife, RecordedLife
from hr_prometheus.monitors import RequestMonitor
from hr_prometheus.records import Records
from hr_prometheus.series import self_store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from aiohttp.abc import AbstractMatchInfo
    from aiohttp.web import Application, Request
    from prometheus_client import CollectorRegistry

    from hr_prometheus.catalog import Metric
    from hr_prometheus.monitors import BaseRequestMonitor
    from hr_prometheus.policies import Policies

logger = logging.getLogger("hr_prometheus")


def recorder_of(candidate: object) -> Recorder | None:
    """Return what a middleware of ours records with; ``None`` for any other middleware."""
    return getattr(candidate, "hr_prometheus_recorder", None)


class Recorder:
    """What one middleware knows: its monitor, its labels and where it counts its own failures.

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
        #: Whether requests are recorded by the default monitor as it is, which needs no object for each of them.
        self.is_plain = monitor is RequestMonitor and not self.monitor_args.keys() & {"init_metrics", "end_metrics"}
        self.is_full = self.records is not None and self.records.full is not None
        self.labels: Labels[Any] = Labels(
            self.records.request if self.is_plain and self.records is not None else tuple,
            policies=policies,
            path_budget=path_budget,
            exclude=exclude,
            folded=self._folded,
            applies=self._applies,
        )
        #: The life of a request that is recorded here, made with the recorder, the request and what its labels found.
        self._life_class: type[RecordedLife] = MonitoredLife
        if self.is_plain:
            self._life_class = FullLife if self.is_full else BasicLife
        self.make_life: Callable[[Recorder, Request, Any], RecordedLife | None] = self._life_class
        self._is_checked = False
        self._logged: set[tuple[str, type[Exception]]] = set()

    def watch(self, app: Application) -> None:
        """Have *app* tell when it prepares a response, while it can still be told to.

        So are known: the head of a streamed response when it leaves, the status of one that fails in its middle,
        a WebSocket while it is open, and requests that fail before any middleware, with ``Expect``.
        """
        if self.make_life is BasicLife:
            self.make_life = FollowingBasicLife
        app.on_response_prepare.append(self._response_prepared)

    async def _response_prepared(self, request: Request, response: StreamResponse) -> None:
        try:
            life = self._life_of(request)
            if life is not None:
                life.prepared(response)
            elif hdrs.EXPECT in request.headers and is_request_task(task := asyncio.current_task()):
                # aiohttp answers an expectation that it cannot meet before any middleware is asked.
                life = self.begin(request)
                if life is not None:
                    task.add_done_callback(life.task_done)
                    life.prepared(response)
        except Exception as error:  # noqa: BLE001  # nothing of ours may reach the client
            self.failed("prepared", error)

    def _life_of(self, request: Request) -> RecordedLife | None:
        """Return the life that follows the writes of *request* and is recorded here, if there is one."""
        life = getattr(request.writer, "on_body_write", None)
        while isinstance(life, RecordedLife):
            if life.recorder is self:
                return life
            life = life.also
        return None

    def begin(self, request: Request) -> RecordedLife | None:
        """Begin the life of *request*; ``None`` if it is not to be recorded. Raises nothing."""
        where = "labels"
        try:
            found = self.labels.find(request)
            if found is None:
                return None
            where = "begin"
            return self.make_life(self, request, found)
        except Exception as error:  # noqa: BLE001  # as above
            self.failed(where, error)
            return None

    def malformed(self, response: StreamResponse, seconds: float) -> None:
        """Count a request that aiohttp's parser has refused, so that it has neither route nor method."""
        if self.records is None or self.labels.excluded(MALFORMED):
            return
        record = self.records.request((UNKNOWN, MALFORMED))
        record.count(response.status, seconds)
        if self.records.full is not None:
            body = response.body if isinstance(response, Response) else None
            record.measure(seconds, len(body) if isinstance(body, bytes) else 0)
            record.receive(0)

    def failed(self, where: str, error: Exception) -> None:
        """Count an exception that no client may see, and log it if it is the first of its kind."""
        kind = (where, type(error))
        if kind not in self._logged:
            self._logged.add(kind)
            logger.error(
                "Recording a request failed (%s); the request itself goes on. Further errors of this kind "
                "are only counted.",
                where,
                exc_info=error,
            )
        self._count(ERRORS, where)

    def _count(self, metric: Metric, label: str) -> None:
        # The application may have taken the name. Then there is no number, but neither is there an error.
        with suppress(ConfigurationError):
            page, index = self_store(self.registry).cells(metric, (label,))
            page[index] += 1.0

    def entered_monitor(self, request: Request, described: tuple[str, str]) -> BaseRequestMonitor:
        """Make and enter the monitor of a request with the labels that it is *described* by."""
        make: Any = self.monitor
        if isinstance(self.monitor, type):
            # The labels are there before __init__ runs, so that a custom one finds them as soon as it has
            # called the base class, whatever arguments it hands up.
            monitor = make.__new__(make, request, **self.monitor_args)
            monitor._described = described  # noqa: SLF001  # a monitor is ours to prepare
            monitor.__init__(request, **self.monitor_args)
        else:
            monitor = make(request, **self.monitor_args)
            monitor.request_description = described
        entered: BaseRequestMonitor = monitor.__enter__()
        return entered

    def _folded(self, template: str) -> None:
        self._count(FOLDED_REQUESTS, template)

    def _applies(self, match_info: AbstractMatchInfo) -> bool:
        """Whether this is the first middleware in a request's way that records the same numbers.

        An application can carry one of ours, and so can the application it is part of: the outermost records.
        """
        apps = match_info.apps if isinstance(match_info.apps, tuple) else ()
        alike = [
            (recorder, app)
            for app in apps
            for recorder in map(recorder_of, app.middlewares)
            if recorder is not None and recorder.records_like(self)
        ]
        if not alike:
            return True
        first, app = alike[0]
        if first is self:
            self._check_once(app)
            if sum(recorder is self for recorder, _ in alike) > 1:
                self.make_life = self._life_unless_begun
        return first is self

    def _life_unless_begun(self, _recorder: Recorder, request: Request, found: Any) -> RecordedLife | None:
        """Begin a request that may come by twice, because one middleware stands in several places."""
        if self._life_of(request) is not None:
            return None
        make = FollowingBasicLife if self._life_class is BasicLife else self._life_class
        return make(self, request, found)

    def records_like(self, other: Recorder) -> bool:
        """Whether *other* writes to the same numbers."""
        mine, theirs = (each.records.basic if each.records is not None else None for each in (self, other))
        return self.monitor is other.monitor and mine is theirs

    def _check_once(self, app: Application) -> None:
        if not self._is_checked:
            self._is_checked = True
            try:
                self.labels.policies.check(app)
            except ConfigurationError as error:
                logger.error("%s", error)  # noqa: TRY400  # the sentence says it all
