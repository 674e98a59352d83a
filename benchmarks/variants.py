"""The same application in all the ways that are compared. Each is made in an environment that has what it needs."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from aiohttp import web
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

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from aiohttp.typedefs import Handler, Middleware

DIRECTIONS = ("north", "east", "south", "west")
FIXED = {"get_cell_neighbour": ["cell_id"]}
#: How many requests were answered, in its only item.
ANSWERED = [0]
# OpenTelemetry replaces this class.
Application = web.Application


async def handle(_request: web.Request) -> web.Response:
    """Answer as fast as aiohttp can."""
    ANSWERED[0] += 1
    return web.Response(text="ok")


class Variant:
    """One application in the making: what it is to be, and the registry that its metrics go to."""

    def __init__(self, *, fixed: bool = False, routes: int = 0, budget: int = 100) -> None:
        self.fixed: Any = {"fixed_routes_parameters": FIXED} if fixed else {}
        self.routes = routes
        self.budget = budget
        self.registry = CollectorRegistry()

    def application(self, *middlewares: Middleware, make: type[web.Application] | None = None) -> web.Application:
        """Return the application with these middlewares, and with as many further routes as are wanted."""
        app = (make or Application)(middlewares=list(middlewares))
        app.router.add_get("/plain", handle)
        app.router.add_get("/cell_neighbour/{cell_id}/direction/{direction}", handle, name="get_cell_neighbour")
        for number in range(self.routes):
            app.router.add_get(f"/thing{number}" if number % 2 else f"/things{number}/{{id}}", handle)
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


def ours_as_middleware(variant: Variant, detail: str) -> web.Application:
    """Return the application with our middleware alone."""
    from hr_prometheus import hrprometheus_middleware

    return variant.application(
        hrprometheus_middleware(registry=variant.registry, detail=detail, path_budget=variant.budget, **variant.fixed)
    )


def ours_instrumented(variant: Variant, detail: str) -> web.Application:
    """Return the application as ``hr-prometheus run`` has it."""
    from hr_prometheus import instrument

    return instrument(
        variant.application(),
        registry=variant.registry,
        detail=detail,
        path_budget=variant.budget,
        **variant.fixed,
    )


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


BUILDERS: dict[str, Callable[[Variant], web.Application]] = {
    "bare": bare,
    "empty": empty,
    "basic-middleware": lambda variant: ours_as_middleware(variant, "basic"),
    "basic": lambda variant: ours_instrumented(variant, "basic"),
    "full-middleware": lambda variant: ours_as_middleware(variant, "full"),
    "full": lambda variant: ours_instrumented(variant, "full"),
    "custom": custom,
    "by-hand": by_hand,
    "published": published,
    "published-custom": custom,
    "exporter": exporter,
    "opentelemetry": opentelemetry,
}


def paths(case: str, routes: int = 0) -> Sequence[str]:
    """Return the paths that are asked for, in turn."""
    if case == "plain":
        return ["/plain"]
    if case == "growth":
        return [f"/thing{number}" if number % 2 else f"/things{number}/7" for number in range(routes)]
    if case == "hidden":  # tokens, each of them new
        return [f"/cell_neighbour/{cell:016x}/direction/{DIRECTIONS[0]}" for cell in range(0xABCDE0, 0xABCDE0 + 500)]
    cells = 500 if case == "folded" else 16
    return [f"/cell_neighbour/{cell}/direction/{way}" for cell in range(cells) for way in DIRECTIONS]
