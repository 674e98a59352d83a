"""What one middleware records with: the labels, the lives of the requests, and whose numbers they become."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from aiohttp import hdrs
from aiohttp.web import Response, StreamResponse
from prometheus_client import REGISTRY

from hr_prometheus.catalog import BASIC, ERRORS, FOLDED_REQUESTS, LATENCY_BUCKETS
from hr_prometheus.errors import ConfigurationError
from hr_prometheus.labels import MALFORMED, UNKNOWN, Labels
from hr_prometheus.life import SWITCHING_PROTOCOLS, is_request_task
from hr_prometheus.lives import MonitoredLife, RecordedLife, RequestLife
from hr_prometheus.monitors import RequestMonitor, entering, leaving
from hr_prometheus.records import Records
from hr_prometheus.sending import BY_AIOHTTP, WAYS, can_be_hooked, way_of_sending
from hr_prometheus.series import self_store

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    from aiohttp.typedefs import Handler
    from aiohttp.web import Application, Request
    from prometheus_client import CollectorRegistry

    from hr_prometheus.catalog import Metric
    from hr_prometheus.monitors import BaseRequestMonitor
    from hr_prometheus.policies import Policies
    from hr_prometheus.reading import Page

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
        self.enter, self.leave = entering(monitor, self.monitor_args), leaving(monitor)
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
        self.bounds = self.records.basic.latency_buckets if self.records is not None else LATENCY_BUCKETS
        self.is_full = self.records is not None and self.records.full is not None
        self.labels: Labels[Any] = Labels(
            self.records.request if self.is_plain and self.records is not None else tuple,
            policies=policies,
            path_budget=path_budget,
            exclude=exclude,
            folded=self._folded,
            applies=self._applies,
        )
        self.life_class: type[RecordedLife] = RequestLife if self.is_plain else MonitoredLife
        #: How plain responses are sent, as far as there were requests to tell: one of the ``WAYS``.
        self.sending = WAYS[-1]
        #: Receivers of ``on_response_prepare`` that need not be told of plain responses.
        self.needless: list[Callable[..., object]] = []
        #: What stands for the life of a request that has entered, until one is needed, and for that of one which is not recorded.
        self.entered: Any = {}.get
        self.left_out: Any = {}.get
        self._is_checked = False
        self._is_again = False  # whether a request that was counted is looked up once more
        self._counted: dict[tuple[Metric, str], tuple[Page, int]] = {}
        self._logged: set[tuple[str, type[Exception]]] = set()

    def watch(self, app: Application) -> None:
        """Have *app* tell when it prepares a response, while it can still be told to.

        So are known requests that fail before any middleware, with ``Expect``.
        """
        self.needless.append(self._response_prepared)
        app.on_response_prepare.append(self._response_prepared)

    def send(self, way: Callable[[StreamResponse], Awaitable[None]] | None) -> None:
        """Send plain responses in this way from now on, or go on in one that supposes less."""
        self.sending = min(self.sending, way, key=WAYS.index)

    async def hook(self, response: StreamResponse, *, others: Callable[..., Awaitable[None]] | None = None) -> None:
        """Stand for ``Request._prepare_hook`` of a request that has entered, or for the hook of *others* that have it.

        So are known: the head of a streamed response when it leaves, the status of one that fails in its middle, and
        a WebSocket while it is open.
        """
        request: Any = response._req  # noqa: SLF001
        await (others(response) if others is not None else type(request)._prepare_hook(request, response))  # noqa: SLF001
        self._prepared(request, response)

    def _prepared(self, request: Request, response: StreamResponse) -> None:
        """Take note of a response that is about to leave."""
        told = self._told(request)
        try:
            # If this is the first that it is needed for, what the life records is known when the handler ends.
            life: Any = self.follow(request, None) if told is self.entered else told
            if isinstance(life, RecordedLife):
                if life.found is None and response.status == SWITCHING_PROTOCOLS:  # a WebSocket is counted at once
                    self._is_again = True
                    life.found = self.find(request)
                    self._is_again = False
                life.prepared(response)
        except Exception as error:  # noqa: BLE001  # nothing of ours may reach the client
            self.failed("prepared", error)

    async def _response_prepared(self, request: Request, response: StreamResponse) -> None:
        """Take note of what a request's hook does not tell: a response for a clone of it, or before any middleware."""
        if self._told(request) is not None:
            self._prepared(request, response)
        elif hdrs.EXPECT in request.headers and is_request_task(asyncio.current_task()):
            # aiohttp answers an expectation that it cannot meet before any middleware is asked.
            sending = self.sending
            life = self.begin(request)
            self.sending = sending
            self.labels.forget(request)  # what stands around the middleware cannot be told from here
            if life is not None:
                life.handled(response)
                self._prepared(request, response)

    def leave_out(self, request: Request, handler: Handler) -> Awaitable[StreamResponse]:
        """Have a *request* handled that is not to be recorded."""
        if getattr(request.writer, "on_body_write", None) is None:
            request.writer.on_body_write = self.left_out
        return handler(request)

    async def accompany(self, request: Request, handler: Handler, found: Any) -> StreamResponse:
        """Have a *request* handled that has a life from its beginning, or had one before it came here again."""
        if self.has_entered(request):
            return await handler(request)
        attributes = getattr(request, "__dict__", {})  # into which it is put without the request's noticing
        attributes["_prepare_hook"] = partial(self.hook, others=attributes.get("_prepare_hook"))
        life = self._begin(request, found)
        if life is None:
            return await handler(request)
        try:
            response = await handler(request)
        except BaseException as error:
            life.handled(error)
            raise
        life.handled(response)
        return response

    def has_entered(self, request: Request) -> bool:
        """Whether *request* has been here before: the same middleware stands in several places, or it was sent round again."""
        told = self._told(request)
        return told is self.entered or told is self.left_out or isinstance(told, RecordedLife)

    def _told(self, request: Request) -> Any:
        """Return what is told of the writes of *request*, behind the lives of other recorders: a life or a mark of ours, or neither."""
        told: Any = getattr(request.writer, "on_body_write", None)
        while isinstance(told, RecordedLife) and told.recorder is not self:
            told = told.also
        return told

    def find(self, request: Request) -> Any:
        """Return what the labels of *request* have found; ``None`` if it is not to be recorded. Raises nothing."""
        try:
            return self.labels.find(request)
        except Exception as error:  # noqa: BLE001  # as above
            self.failed("labels", error)
            return None

    def follow(self, request: Request, found: Any, began: float = 0.0) -> RecordedLife:
        """Make a life for *request*, with what was *found* for it."""
        life = self.life_class()
        life.recorder = self
        life.request = request
        life.found = found
        life.began = began
        life.follow()
        return life

    def wait(
        self, request: Request, found: Any, began: float, outcome: object, response: StreamResponse | None = None
    ) -> None:
        """Let the life of a *request*, which is made if there is none, wait for the end of aiohttp's task.

        *response* is one that could not be sent, if that is the *outcome*.
        """
        life = self._told(request)
        if isinstance(life, RecordedLife):
            life.found = found
            life.began = began
        else:
            life = self.follow(request, found, began)
            if request.writer.output_size and response is None:  # else what is sent is to come
                life.is_late = not isinstance(outcome, StreamResponse) or outcome.prepared
        if response is not None:
            life.response = response
        life.handled(outcome)

    def begin(self, request: Request) -> RecordedLife | None:
        """Begin the life of *request*; ``None`` if it is not to be recorded. Raises nothing."""
        found = self.find(request)
        return None if found is None else self._begin(request, found)

    def _begin(self, request: Request, found: Any) -> RecordedLife | None:
        life = self.follow(request, found)
        try:
            life.begin()
        except Exception as error:  # noqa: BLE001  # as above
            request.writer.on_body_write = life.also or self.left_out
            self.failed("begin", error)
            return None
        return life

    def malformed(self, response: StreamResponse, seconds: float) -> None:
        """Count a request that aiohttp's parser has refused, so that it has neither route nor method."""
        if self.records is None or self.labels.excluded(MALFORMED):
            return
        record = self.records.request((UNKNOWN, MALFORMED))
        record.count(response.status, seconds)
        if record.details is not None:
            body = response.body if isinstance(response, Response) else None
            record.details.measure(seconds, len(body) if isinstance(body, bytes) else 0)
            record.details.receive(0)

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
        cells = self._counted.get((metric, label))
        if cells is None:
            # The application may have taken the name. Then there is no number, but neither is there an error.
            with suppress(ConfigurationError, OSError):  # nor is there where a disk is full
                cells = self._counted[metric, label] = self_store(self.registry).cells(metric, (label,))
        if cells is not None:
            page, index = cells
            page[index] += 1.0

    def _folded(self, template: str) -> None:
        if not self._is_again:
            self._count(FOLDED_REQUESTS, template)

    def _applies(self, request: Request) -> bool:
        """Whether this is the first middleware in a request's way that records the same numbers.

        An application can carry one of ours, and so can the application it is part of: the outermost records.
        """
        apps = request.match_info.apps if isinstance(request.match_info.apps, tuple) else ()
        alike = [
            (recorder, app)
            for app in apps
            for recorder in map(recorder_of, app.middlewares)
            if recorder is not None and recorder.records_like(self)
        ]
        if not can_be_hooked(type(request)):
            self.labels.slow_down()  # such requests have a life from their beginning
        is_first = bool(apps and apps[0].middlewares) and recorder_of(apps[0].middlewares[0]) is self
        self.send(way_of_sending(apps, self.needless) if is_first else BY_AIOHTTP)
        if not alike:
            return True
        first, app = alike[0]
        if first is self:
            self._check_once(app)
        return first is self

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
