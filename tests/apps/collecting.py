"""An application with metrics that are asked of it at a scrape, one of which waits for a file."""

import os
import threading
import time

from aiohttp import web
from prometheus_client import REGISTRY, Gauge, Info, generate_latest
from prometheus_client.core import GaugeMetricFamily


class Slow:
    def describe(self):
        return []

    def collect(self):
        while not os.path.exists(os.environ["GATE"]):
            time.sleep(0.01)
        yield GaugeMetricFamily("slow", "Help", value=1)


REGISTRY.register(Slow())
Info("build", "Build").info({"version": "1"})
Gauge("level", "Level").set_function(lambda: 42)
Gauge("summed_level", "Level", multiprocess_mode="livesum").set_function(lambda: 42)
Gauge("depth", "Depth").set(3)


async def pid(_request: web.Request) -> web.Response:
    return web.Response(text=str(os.getpid()))


def create_app() -> web.Application:
    app = web.Application()
    app.router.add_route("*", "/", pid)
    return app


class Exits(Gauge):
    """Ends the thread that reads it, if that is not the main one."""

    def _child_samples(self):
        if threading.current_thread() is not threading.main_thread():
            raise SystemExit(3)
        return super()._child_samples()


async def own_metrics(_request: web.Request) -> web.Response:
    return web.Response(body=generate_latest())


def create_app_with_a_metric_that_exits() -> web.Application:
    Exits("exits", "Help")
    app = create_app()
    app.router.add_get("/own", own_metrics)
    return app
