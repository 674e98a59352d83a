"""The same application in all the ways that are compared. The peers import their packages when they are made."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

from aiohttp import web
from aiohttp.web_log import AccessLogger
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from wire import get

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from aiohttp.abc import AbstractAccessLogger
    from aiohttp.typedefs import Handler, Middleware

#: The kinds of requests, and their headings. The first four differ in the label: of a route without parameters, with all of
#: its parameters, with one of them fixed, and over the route's budget. ``listening`` is plain, in an application that
#: listens to ``on_response_prepare``.
KINDS = {
    "plain": "plain",
    "parametrised": "parametrised",
    "fixed": "fixed",
    "folded": "folded",
    "listening": "with signal",
    "post": "POST",
    "raised": "raised",
    "stream": "stream",
    "file": "file",
}
FIXED = {"get_cell_neighbour": ["cell_id"]}
_DIRECTIONS = ("north", "east", "south", "west")
_BODY = bytes(100)
#: How many plain requests were answered, in its only item.
ANSWERED = [0]
# OpenTelemetry replaces this class.
Application = web.Application


async def plain(_request: web.Request) -> web.Response:
    """Answer as fast as aiohttp can."""
    ANSWERED[0] += 1
    return web.Response(text="ok")


async def post(request: web.Request) -> web.Response:
    """Read the request's body."""
    await request.read()
    return web.Response(text="ok")


async def raised(_request: web.Request) -> web.Response:
    """Raise the response."""
    raise web.HTTPNotFound


async def stream(request: web.Request) -> web.StreamResponse:
    """Answer with a head, a part and an end."""
    response = web.StreamResponse()
    await response.prepare(request)
    await response.write(_BODY)
    return response


async def file(_request: web.Request) -> web.FileResponse:
    """Answer with a file."""
    return web.FileResponse(__file__)


async def listen(_request: web.Request, _response: web.StreamResponse) -> None:
    """Receive the signal that a response is prepared, and do nothing."""


class Variant:
    """What one variant is made for: the *kind* of its requests, further routes, its budget and its registry.

    A variant may set its access log, which is that of its runner.
    """

    def __init__(self, kind: str = "plain", *, routes: int = 0, budget: int = 100) -> None:
        self.fixed: Any = {"fixed_routes_parameters": FIXED} if kind == "fixed" else {}
        self.is_listening = kind == "listening"
        self.routes = routes
        self.budget = budget
        self.registry = CollectorRegistry()
        self.access_log: logging.Logger | None = None
        self.access_log_class: type[AbstractAccessLogger] = AccessLogger

    def application(self, *middlewares: Middleware, make: type[web.Application] | None = None) -> web.Application:
        """Return the application with these middlewares and all its routes."""
        app = (make or Application)(middlewares=list(middlewares))
        for handle in (plain, raised, stream, file):
            app.router.add_get(f"/{handle.__name__}", handle)
        app.router.add_post("/post", post)
        app.router.add_get("/cell_neighbour/{cell_id}/direction/{direction}", plain, name="get_cell_neighbour")
        if self.is_listening:
            app.on_response_prepare.append(listen)
        for number in range(self.routes):
            app.router.add_get(f"/thing{number}" if number % 2 else f"/things{number}/{{id}}", plain)
        return app

    def with_view(self, app: web.Application) -> web.Application:
        """Add the metrics route that a user of prometheus_client writes."""
        registry = self.registry

        async def metrics(_request: web.Request) -> web.Response:
            return web.Response(body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

        app.router.add_get("/metrics", metrics)
        return app


def bare(variant: Variant) -> web.Application:
    """No middleware at all: what everything is compared with."""
    return variant.application()


def empty(variant: Variant) -> web.Application:
    """Add a middleware which does nothing: the unit of what a request costs."""

    @web.middleware
    async def nothing(request: web.Request, handler: Handler) -> web.StreamResponse:
        return await handler(request)

    return variant.application(nothing)


def ours(variant: Variant, detail: str) -> web.Application:
    """Return the application with our middleware alone."""
    from hr_prometheus import hrprometheus_middleware

    return variant.application(
        hrprometheus_middleware(registry=variant.registry, detail=detail, path_budget=variant.budget, **variant.fixed)
    )


def ours_run(variant: Variant, detail: str, **options: Any) -> web.Application:
    """Return the application as ``hr-prometheus run`` serves it: with its access log, which only counts."""
    from hr_prometheus import access_log_class, instrument

    options |= {"registry": variant.registry, "detail": detail, "path_budget": variant.budget}
    app = instrument(variant.application(), **options, **variant.fixed)
    variant.access_log = logging.getLogger("hr_prometheus")
    variant.access_log_class = access_log_class(app, None)
    return app


def ours_traced(variant: Variant, source: str) -> web.Application:
    """Return the same with exemplars, where each request is looked at: none has a trace, and no bucket waits after that."""
    from hr_prometheus.request import traced_records

    traced_records.MISSED_SECONDS = 0.0  # type: ignore[misc]  # else what is counted would depend on a clock
    return ours_run(variant, "full", exemplars=source)


def custom(variant: Variant) -> web.Application:
    """Return the application with the published example of a monitor: its metrics are prometheus_client's own."""
    from hr_prometheus import hrprometheus_middleware
    from hr_prometheus.monitors import BaseRequestMonitor

    class CustomMonitor(BaseRequestMonitor):
        """The monitor of the published manual."""

        COUNT = Counter("request_count", "Requests", ["method", "path", "status"], registry=variant.registry)
        LATENCY = Histogram("request_latency", "Seconds", ["method", "path"], registry=variant.registry)
        IN_PROGRESS = Gauge("requests_in_progress", "Requests", ["method", "path"], registry=variant.registry)

        def update_init_metrics(self) -> None:
            """Begin."""
            self.IN_PROGRESS.labels(*self.request_description).inc()

        def update_end_metrics(self) -> None:
            """End."""
            elapsed = time.time() - self.init_time
            self.COUNT.labels(*self.request_description, self.response_status).inc()
            self.LATENCY.labels(*self.request_description).observe(elapsed)
            self.IN_PROGRESS.labels(*self.request_description).dec()

    return variant.application(hrprometheus_middleware(CustomMonitor, **variant.fixed))


def published(variant: Variant) -> web.Application:
    """Return the application with hr-prometheus 0.2.0, which knows one registry only."""
    from hr_prometheus import hrprometheus_middleware

    variant.registry = REGISTRY
    return variant.with_view(variant.application(hrprometheus_middleware(**variant.fixed)))


def by_hand(variant: Variant) -> web.Application:
    """Return the application with prometheus_client in a middleware of its own, with our metrics and labels."""
    disable_created_metrics()  # type: ignore[no-untyped-call]  # two lines of three would have no counterpart with us
    registry = variant.registry
    count = Counter("request_count", "Requests", ["method", "path", "status"], registry=registry)
    latency = Histogram("request_latency", "Seconds", ["method", "path"], registry=registry)
    in_progress = Gauge("requests_in_progress", "Requests", ["method", "path"], registry=registry)

    @web.middleware
    async def measure(request: web.Request, handler: Handler) -> web.StreamResponse:
        method, path, status = request.method, request.path, 500
        began = time.perf_counter()
        in_progress.labels(method, path).inc()
        try:
            response = await handler(request)
            status = response.status
        except web.HTTPException as error:
            status = error.status
            raise
        finally:
            in_progress.labels(method, path).dec()
            latency.labels(method, path).observe(time.perf_counter() - began)
            count.labels(method, path, status).inc()
        return response

    return variant.with_view(variant.application(measure))


def exporter(variant: Variant) -> web.Application:
    """Return the application with aiohttp-prometheus-exporter."""
    from aiohttp_prometheus_exporter.middleware import prometheus_middleware_factory

    return variant.with_view(variant.application(prometheus_middleware_factory(registry=variant.registry)))


def opentelemetry(variant: Variant) -> web.Application:
    """Return the application with OpenTelemetry's metrics, and no traces."""
    from opentelemetry import metrics
    from opentelemetry.exporter.prometheus import PrometheusMetricReader
    from opentelemetry.instrumentation.aiohttp_server import AioHttpServerInstrumentor
    from opentelemetry.sdk.metrics import MeterProvider

    if web.Application is Application:
        metrics.set_meter_provider(MeterProvider(metric_readers=[PrometheusMetricReader()]))
        AioHttpServerInstrumentor().instrument()
    variant.registry = REGISTRY
    return variant.with_view(variant.application(make=web.Application))


_BUILDERS: dict[str, Callable[[Variant], web.Application]] = {
    "bare": bare,
    "empty": empty,
    "basic": lambda variant: ours(variant, "basic"),
    "full": lambda variant: ours(variant, "full"),
    "run-basic": lambda variant: ours_run(variant, "basic"),
    "run-full": lambda variant: ours_run(variant, "full"),
    "run-native": lambda variant: ours_run(variant, "full", native_histograms=True),
    "run-traceparent": lambda variant: ours_traced(variant, "traceparent"),
    "run-otel": lambda variant: ours_traced(variant, "otel"),
    "custom": custom,
    "by-hand": by_hand,
    "published": published,
    "published-custom": custom,
    "exporter": exporter,
    "opentelemetry": opentelemetry,
}


def make_runner(name: str, variant: Variant) -> web.AppRunner:
    """Return a runner of the application in the way *name*."""
    app = _BUILDERS[name](variant)
    return web.AppRunner(app, access_log=variant.access_log, access_log_class=variant.access_log_class)


def requests(kind: str, routes: int = 0) -> Sequence[bytes]:
    """Return the different requests of a kind.

    Beside :data:`KINDS` there are ``growth``, a request for each of so many further routes, and ``hidden``, whose label
    hides another token in each.
    """
    if kind == "post":
        return [b"POST /post HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%b" % (len(_BODY), _BODY)]
    if kind in {"plain", "raised", "stream", "file"}:
        return [get(f"/{kind}")]
    if kind == "listening":
        return [get("/plain")]
    if kind == "growth":
        return [get(f"/thing{number}" if number % 2 else f"/things{number}/7") for number in range(routes)]
    if kind == "hidden":
        return [get(f"/cell_neighbour/{cell:016x}/direction/north") for cell in range(0xABCDE0, 0xABCDE0 + 500)]
    cells = 500 if kind == "folded" else 16
    return [get(f"/cell_neighbour/{cell}/direction/{way}") for cell in range(cells) for way in _DIRECTIONS]
