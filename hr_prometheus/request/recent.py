"""The latest requests that failed or were slow, for a page that lists them."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from hr_prometheus.metrics import DEFAULT_SLOW, HOST, REQUEST_LATENCY
from hr_prometheus.names import named_labels
from hr_prometheus.request.body import received_size, response_size
from hr_prometheus.request.incomplete import SWITCHING_PROTOCOLS
from hr_prometheus.request.trace_context import trace_parent

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from hr_prometheus.request.exchange import Exchange

_MOST = 200


class RecentRequests:
    """The latest 200 requests in one registry that failed, or took *slow* seconds or more.

    Of a request it keeps what its metrics have, and the id of its trace. It keeps no query, header or address, and of a
    path no more than its label.
    """

    def __init__(self) -> None:
        self.slow: float = DEFAULT_SLOW
        self._requests: deque[dict[str, Any]] = deque(maxlen=_MOST)

    def add(self, exchange: Exchange, status: str, seconds: float) -> None:
        """Keep a request that has ended. A WebSocket is left out: it is open for as long as its ends like."""
        labels = exchange.record.labels
        if not labels or status == SWITCHING_PROTOCOLS:
            return
        first = exchange.first_byte_at
        parent = trace_parent(exchange.request.headers)
        self._requests.append(
            {
                "time": time.time(),
                "method": labels[0],
                "path": labels[1],
                "host": named_labels(REQUEST_LATENCY.labels, labels).get(HOST),
                "status": status,
                "seconds": seconds,
                "first_byte_seconds": first - exchange.began if first else None,
                "request_bytes": received_size(exchange.request.content),
                "response_bytes": response_size(exchange),
                "trace": parent.trace_id if parent else None,
            }
        )

    def as_list(self) -> list[dict[str, Any]]:
        """Return the requests, the latest first. ``time`` is the end, in seconds since the epoch; ``None`` is not known."""
        return [*reversed(self._requests.copy())]  # a copy: another thread may be adding


_recent: WeakKeyDictionary[CollectorRegistry, RecentRequests] = WeakKeyDictionary()


def recent_requests(registry: CollectorRegistry) -> RecentRequests:
    """Return the latest requests in *registry*."""
    return _recent.setdefault(registry, RecentRequests())
