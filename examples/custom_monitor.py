"""A monitor with metrics of its own: run it with ``python examples/custom_monitor.py``."""

import time

from aiohttp import web
from prometheus_client import Counter, Histogram

from hr_prometheus import hrprometheus_middleware, hrprometheus_view
from hr_prometheus.monitors import BaseRequestMonitor

SLOW = 0.25  # seconds


class SlowRequestMonitor(BaseRequestMonitor):
    """Count requests as the default monitor does, and those that took more than a quarter of a second."""

    REQUEST_COUNT = Counter("request_count", "Number of requests received", ["method", "path", "status"])
    SLOW_REQUESTS = Histogram("slow_request_seconds", f"Requests that took more than {SLOW} s", ["method", "path"])

    def update_init_metrics(self) -> None:
        """Nothing is counted at the beginning."""

    def update_end_metrics(self) -> None:
        """Count the request, and look at how long it took."""
        seconds = time.time() - self.init_time
        self.REQUEST_COUNT.labels(*self.request_description, self.response_status).inc()
        if seconds > SLOW:
            self.SLOW_REQUESTS.labels(*self.request_description).observe(seconds)


async def hello(request: web.Request) -> web.Response:
    """Greet somebody."""
    return web.Response(text=f"Hello, {request.match_info['name']}!\n")


app = web.Application(middlewares=[hrprometheus_middleware(SlowRequestMonitor)])
app.router.add_get("/metrics", hrprometheus_view)
app.router.add_get("/hello/{name}", hello)

if __name__ == "__main__":
    web.run_app(app, host="127.0.0.1", port=8080)
