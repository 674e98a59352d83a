"""Applications that have metrics already."""

from collections.abc import AsyncIterator

from aiohttp import ClientSession, web
from prometheus_client import CollectorRegistry, Counter

from hr_prometheus import hrprometheus_middleware, hrprometheus_view, instrument


async def hello(_request: web.Request) -> web.Response:
    return web.Response(text="hello")


def by_hand() -> web.Application:
    app = web.Application(middlewares=[hrprometheus_middleware()])
    app.router.add_get("/", hello)
    app.router.add_get("/metrics", hrprometheus_view)
    return app


def keeps() -> web.Application:
    app = web.Application(middlewares=[hrprometheus_middleware(exclude=["/metrics"])])
    app.router.add_get("/a/{id}", hello)
    app.router.add_get("/metrics", hrprometheus_view)
    return app


def own_registry() -> web.Application:
    app = web.Application()
    app.router.add_get("/", hello)
    return instrument(app, registry=CollectorRegistry(), metrics_path="/own")


def below() -> web.Application:
    api = web.Application(middlewares=(hrprometheus_middleware(),))
    api.router.add_get("/hello", hello)
    app = web.Application()
    app.add_subapp("/api", api)
    return app


def below_with_own_registry() -> web.Application:
    api = web.Application(middlewares=(hrprometheus_middleware(registry=CollectorRegistry()),))
    api.router.add_get("/hello", hello)
    app = web.Application()
    app.add_subapp("/api", api)
    app.router.add_get("/", hello)
    return app


def path_taken() -> web.Application:
    app = web.Application()
    app.router.add_get("/metrics", hello)
    return app


def name_taken() -> web.Application:
    Counter("request_count", "The application's own", ["kind"]).labels("own").inc(7)
    app = web.Application()
    app.router.add_get("/", hello)
    return app


def client_name_taken() -> web.Application:
    async def keep_session(app: web.Application) -> AsyncIterator[None]:
        async with ClientSession() as app["session"]:
            yield

    Counter("client_request_count", "The application's own")
    app = web.Application()
    app.cleanup_ctx.append(keep_session)
    return app


def with_settings() -> web.Application:
    middleware = hrprometheus_middleware(
        metric_prefix="own_", buckets=(0.3, 1.0), names=["http"], latency_by_status=True
    )
    app = web.Application(middlewares=[middleware])
    app.router.add_get("/", hello)
    return app
