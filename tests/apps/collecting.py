"""An application with metrics that are asked of it at a scrape, one of which waits for a file."""

import os
import time

from aiohttp import web
from prometheus_client import REGISTRY, Gauge, Info
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
