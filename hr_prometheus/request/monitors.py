"""Monitors: what happens at the beginning and at the end of a request.

The middleware makes one monitor for each request, calls :meth:`~BaseRequestMonitor.update_init_metrics` when
the request begins and :meth:`~BaseRequestMonitor.update_end_metrics` when its response has left or can no
longer leave.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import lru_cache
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from aiohttp.web import HTTPException, StreamResponse
from prometheus_client import REGISTRY

from hr_prometheus.labels.policies import fixed_parameters
from hr_prometheus.labels.resources import UNMATCHED, path_with_fixed_parameters
from hr_prometheus.metric import LATENCY_BUCKETS
from hr_prometheus.metrics import BASIC, NO_EXEMPLARS
from hr_prometheus.names import DEFAULT_NAMES
from hr_prometheus.request.records import Records

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from types import TracebackType
    from typing import Protocol, Self

    from aiohttp.web import Request
    from prometheus_client import CollectorRegistry

    from hr_prometheus.buckets import Buckets
    from hr_prometheus.request.records import RequestRecord
    from hr_prometheus.request.split_record import SplitRecord

    class HasStatus(Protocol):
        """What a monitor observes: a response, or what stands for one."""

        @property
        def status(self) -> int:
            """The HTTP status."""


class BaseRequestMonitor:
    """The monitor of one request, from which custom monitors inherit.

    Override :meth:`update_init_metrics` and :meth:`update_end_metrics`; each is called once a request, with
    these attributes set:

    ``request_description``
        The tuple ``(method, path)`` to use as labels.
    ``init_time``
        When the request began, in seconds since the epoch.
    ``request``
        The :class:`aiohttp.web.Request`.
    ``response_status``
        At the end, the status that the client got, as an ``int``; 499 if it left before the response was complete.
    ``response``
        At the end, the response that was sent, or ``None`` if there was none.
    ``elapsed``, ``first_byte_elapsed``
        At the end, the seconds until the last byte of the response was handed to the transport, and until its
        head was; the latter is ``None`` if that never happened. Both come from a clock that cannot be set.
    ``request_size``, ``response_size``
        At the end, the bytes of both bodies that were received and sent: compressed, without chunk framing.
        ``response_size`` is ``None`` if it is not known, which happens when a client leaves during a file.

    Outside a middleware a monitor is a context manager: :meth:`observe` the response inside it.

    *init_metrics* and *end_metrics* switch a half off. *fixed_routes_parameters* maps route names to the
    parameters which the path shows as ``{name}``; inside a middleware, the middleware has applied it already.
    """

    #: The labels, set by the middleware before ``__init__`` runs.
    _described: tuple[str, str] | None = None
    #: The names and the values of extra labels, in turn.
    _extra: tuple[str, ...] = ()

    init_metrics: bool = True
    end_metrics: bool = True

    def __init__(
        self,
        request: Request,
        init_metrics: bool = True,  # noqa: FBT002  # published so
        end_metrics: bool = True,  # noqa: FBT002  # published so
        fixed_routes_parameters: Mapping[str, Collection[str]] | None = None,
    ) -> None:
        self.request_description = self._described or (
            request.method,
            _resolve_path(request, fixed_routes_parameters or {}),
        )
        self.request = request
        if init_metrics is not self.init_metrics:
            self.init_metrics = init_metrics
        if end_metrics is not self.end_metrics:
            self.end_metrics = end_metrics
        # Until they are known. As attributes of the class they would make each later assignment slower.
        self.init_time: float = None  # type: ignore[assignment]
        self.response_status: int = None  # type: ignore[assignment]
        self.response: StreamResponse | None = None
        self.elapsed = 0.0
        self.first_byte_elapsed: float | None = None
        self.request_size = 0
        self.response_size: int | None = 0

    def __enter__(self) -> Self:
        """Begin: set ``init_time`` and update the metrics of the beginning."""
        self.init_time = time.time()
        if self.init_metrics:
            self.update_init_metrics()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End: update the metrics of the end. An exception counts as 500, an HTTP exception as its status."""
        if exc_type is not None:
            self.response_status = exc.status if isinstance(exc, HTTPException) else 500
        elif self.response_status is None:
            raise RuntimeError("The request's response has not been observed. Call the method 'observe' with it.")
        if self.end_metrics:
            self.update_end_metrics()

    def observe(self, response: HasStatus) -> None:
        """Take ``response_status`` from *response*."""
        self.response_status = response.status

    def update_init_metrics(self) -> None:
        """Update the metrics at the beginning of the request."""
        raise NotImplementedError

    def update_end_metrics(self) -> None:
        """Update the metrics at the end of the request."""
        raise NotImplementedError


class RequestMonitor(BaseRequestMonitor):
    """The default monitor: ``request_latency``, ``request_count`` and ``requests_in_progress``.

    The metrics are registered with *registry* when they are first needed. *names* chooses their name sets, and
    *metric_prefix* goes before each name. *buckets* are the upper bounds of the latencies in seconds, or a mapping
    of route names to theirs. *latency_by_status* splits latencies by outcome. With *native_histograms*, ``True`` or ``both``,
    histograms are native ones as well. *exemplars* is where traces are taken from, as for :func:`~hr_prometheus.instrument`.
    With *detail* ``full`` there are the first byte and the sizes; only the middleware knows WebSockets from other requests.
    """

    _entered = 0  # how often it was counted as in progress

    def __init__(
        self,
        request: Request,
        init_metrics: bool = True,  # noqa: FBT002  # as in the base class
        end_metrics: bool = True,  # noqa: FBT002  # as in the base class
        fixed_routes_parameters: Mapping[str, Collection[str]] | None = None,
        *,
        registry: CollectorRegistry = REGISTRY,
        metric_prefix: str = "",
        buckets: Buckets = LATENCY_BUCKETS,
        detail: str = BASIC,
        names: Sequence[str] = DEFAULT_NAMES,
        latency_by_status: bool = False,
        native_histograms: bool | str = False,
        exemplars: str = NO_EXEMPLARS,
    ) -> None:
        super().__init__(request, init_metrics, end_metrics, fixed_routes_parameters)
        route: Any = None
        hashable: tuple[Any, ...] = tuple(buckets)
        if isinstance(buckets, Mapping):
            route = request.match_info.route.name
            hashable = tuple((name, tuple(bounds)) for name, bounds in buckets.items())
        self._records = _records(
            registry, hashable, prefix=metric_prefix, detail=detail, names=tuple(names),
            latency_by_status=latency_by_status, native_histograms=native_histograms, exemplars=exemplars,
        )  # fmt: skip
        self._record = _record(self._records, self.request_description + self._extra, route)
        self._began = time.perf_counter()

    def update_init_metrics(self) -> None:
        """Count the request as in progress."""
        self._record.begin(self)
        self._entered += 1

    def update_end_metrics(self) -> None:
        """Count the request with its status and its duration."""
        if not self._entered:
            self._record.begin(self)
        else:
            self._entered -= 1
        self._record.finish(str(self.response_status), self.elapsed or time.perf_counter() - self._began, self)
        if self.response_status != HTTPStatus.SWITCHING_PROTOCOLS:
            self._record.measure(self.first_byte_elapsed, self.response_size, self.request_size)

    def _leave(self) -> None:
        for _ in range(self._entered):
            self._record.leave(self)
        self._entered = 0


@lru_cache(maxsize=32)
def _records(registry: CollectorRegistry, buckets: tuple[Any, ...], **options: Any) -> Records:
    is_by_route = bool(buckets) and isinstance(buckets[0], tuple)
    return Records(registry, buckets=dict(buckets) if is_by_route else buckets, **options)


@lru_cache(maxsize=4096)
def _record(records: Records, labels: tuple[str, ...], route: str | None) -> RequestRecord | SplitRecord:
    return records.request(labels, route)


# The label of a monitor that is made without a middleware, as unit tests do. These two names are not public,
# but tests modelled on those of hr-prometheus 0.2.0 use them.


def _resolve_path(request: Request, fixed_routes_parameters: Mapping[str, Collection[str]]) -> str:
    fixed = fixed_parameters(fixed_routes_parameters)
    match_info: Any = request.match_info
    if isinstance(getattr(match_info, "http_exception", None), HTTPException):
        return UNMATCHED
    parameters = fixed.get(match_info.route.name)
    return _path_with_fixed_parameters(request, parameters) if parameters else request.path


def _path_with_fixed_parameters(request: Request, fixed_parameters: Collection[str]) -> str:
    match_info: Any = request.match_info
    resource = match_info.route.resource
    if "formatter" not in resource.get_info():  # a route without parameters
        return request.path
    return path_with_fixed_parameters(resource, match_info, fixed_parameters)
