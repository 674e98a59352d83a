"""An application with a metrics view of its own, as prometheus_client's manual writes it for several processes."""

import os

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, generate_latest, multiprocess

from hr_prometheus import hrprometheus_middleware

ANSWERED = Counter("answered", "Answers that were given")


async def pid(_request: web.Request) -> web.Response:
    ANSWERED.inc()
    return web.Response(text=str(os.getpid()))


async def metrics(_request: web.Request) -> web.Response:
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry)
    return web.Response(body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})


def create_app() -> web.Application:
    app = web.Application(middlewares=[hrprometheus_middleware(detail="full")])
    app.router.add_route("*", "/", pid)
    app.router.add_get("/metrics", metrics)
    return app


app = create_app()
