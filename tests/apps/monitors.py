"""Monitors to name on the command line."""

from prometheus_client import Counter

from hr_prometheus.monitors import BaseRequestMonitor

SEEN = Counter("seen", "Requests seen by the custom monitor", ["method", "path", "status"])


class Seen(BaseRequestMonitor):
    def update_init_metrics(self) -> None:
        pass

    def update_end_metrics(self) -> None:
        SEEN.labels(*self.request_description, self.response_status).inc()


class Unrelated:
    pass
