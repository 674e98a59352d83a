"""Every metric that hr-prometheus can export, described once.

Monitors, dashboards, rules, the manual's table and the tests read this module; nothing else names a metric.
"""

from __future__ import annotations

from hr_prometheus.metric import (
    CONNECTION_BUCKETS,
    LAG_BUCKETS,
    LATENCY_BUCKETS,
    NATIVE_CONNECTION_BUCKETS,
    NATIVE_LATENCY_BUCKETS,
    NATIVE_SIZE_BUCKETS,
    SCRAPE_BUCKETS,
    SIZE_BUCKETS,
    Metric,
)

#: The label for the domain of an application that was added with ``add_domain``. Other series lack it.
HOST = "host"
#: The labels by which latencies are split if that is asked for: ``ok`` or ``error``, the status, ``http`` or ``https``.
OUTCOME, STATUS, URL_SCHEME = "outcome", "status", "url_scheme"
OK, ERROR = "ok", "error"
SPLITTING_LABELS = frozenset({OUTCOME, STATUS, URL_SCHEME})

REQUEST_LATENCY = Metric(
    "request_latency",
    "histogram",
    "Seconds from the beginning of a request's handling until the last byte of its response was handed to the transport",
    "seconds",
    ("method", "path"),
    LATENCY_BUCKETS,
    native=NATIVE_LATENCY_BUCKETS,
)
REQUEST_COUNT = Metric(
    "request_count",
    "counter",
    "Requests ended, by the status that the client got; 499: the client left before the end of the response",
    "requests",
    ("method", "path", "status"),
)
REQUESTS_IN_PROGRESS = Metric(
    "requests_in_progress",
    "gauge",
    "Requests begun and not yet ended",
    "requests",
    ("method", "path"),
    ends_in=REQUEST_LATENCY,
)
REQUEST_FIRST_BYTE_LATENCY = Metric(
    "request_first_byte_latency",
    "histogram",
    "Seconds from the beginning of a request's handling until the head of its response was handed to the transport",
    "seconds",
    ("method", "path"),
    LATENCY_BUCKETS,
    native=NATIVE_LATENCY_BUCKETS,
)
REQUEST_SIZE = Metric(
    "request_size_bytes",
    "histogram",
    "Bytes of the request's body that were received, as they were sent: compressed, without chunk framing",
    "bytes",
    ("method", "path"),
    SIZE_BUCKETS,
    native=NATIVE_SIZE_BUCKETS,
)
RESPONSE_SIZE = Metric(
    "response_size_bytes",
    "histogram",
    "Bytes of the response's body that were handed to the transport: compressed, without chunk framing",
    "bytes",
    ("method", "path"),
    SIZE_BUCKETS,
    native=NATIVE_SIZE_BUCKETS,
)
REQUEST_LOOP_TIME = Metric(
    "request_loop_seconds",
    "counter",
    "Seconds for which handlers of requests held the event loop, with the middlewares inside; not tasks that they started",
    "seconds",
    ("method", "path"),
)
WEBSOCKETS_IN_PROGRESS = Metric(
    "websocket_connections_in_progress",
    "gauge",
    "WebSocket connections that are open",
    "connections",
    ("path",),
)
WEBSOCKET_DURATION = Metric(
    "websocket_connection_duration",
    "histogram",
    "Seconds for which a WebSocket connection was open",
    "seconds",
    ("path",),
    CONNECTION_BUCKETS,
    native=NATIVE_CONNECTION_BUCKETS,
)
WEBSOCKET_CLOSES = Metric(
    "websocket_closes",
    "counter",
    "WebSocket connections closed, by the close code of the side that closed first; 1006: without a close frame",
    "connections",
    ("path", "code", "by"),
)
CLIENT_REQUEST_LATENCY = Metric(
    "client_request_latency",
    "histogram",
    "Seconds from the beginning of a request that the application sends until the end of the response's body, or its failure",
    "seconds",
    ("client", "method", "host"),
    LATENCY_BUCKETS,
    native=NATIVE_LATENCY_BUCKETS,
)
CLIENT_REQUEST_FIRST_BYTE_LATENCY = Metric(
    "client_request_first_byte_latency",
    "histogram",
    "Seconds from the beginning of a request that the application sends until the head of the response, after redirects",
    "seconds",
    ("client", "method", "host"),
    LATENCY_BUCKETS,
    native=NATIVE_LATENCY_BUCKETS,
)
CLIENT_REQUEST_COUNT = Metric(
    "client_request_count",
    "counter",
    "Requests of the application ended, by the status of the response; error: without one",
    "requests",
    ("client", "method", "host", "status"),
)
CLIENT_REQUEST_ERRORS = Metric(
    "client_request_errors",
    "counter",
    "Requests of the application that failed, before the response's head or in its body, but for those with a status of 5xx",
    "requests",
    ("client", "host", "reason"),
)
CLIENT_REQUESTS_IN_PROGRESS = Metric(
    "client_requests_in_progress",
    "gauge",
    "Requests of the application begun and not yet ended",
    "requests",
    ("client", "host"),
)
CLIENT_RESPONSE_SIZE = Metric(
    "client_response_size_bytes",
    "histogram",
    "Bytes of responses' bodies that the application received, as they were sent: compressed, without chunk framing",
    "bytes",
    ("client", "method", "host"),
    SIZE_BUCKETS,
    native=NATIVE_SIZE_BUCKETS,
)
CLIENT_REDIRECTS = Metric(
    "client_redirects",
    "counter",
    "Redirects that requests of the application followed, by the host that they were sent to first",
    "redirects",
    ("client", "host"),
)
CLIENT_CONNECTION_WAIT = Metric(
    "client_connection_wait_seconds",
    "histogram",
    "Seconds that requests of the application waited for a free connection of the pool, without those that waited for none",
    "seconds",
    ("client",),
    LATENCY_BUCKETS,
    native=NATIVE_LATENCY_BUCKETS,
)
CLIENT_CONNECTIONS = Metric(
    "client_connections",
    "counter",
    "Connections that requests of the application were sent on: new ones, and reused ones of the pool",
    "connections",
    ("client", "how"),
)
CLIENT_CONNECT = Metric(
    "client_connect_seconds",
    "histogram",
    "Seconds that new connections of the application's client took, with look-up and TLS",
    "seconds",
    ("client",),
    LATENCY_BUCKETS,
    native=NATIVE_LATENCY_BUCKETS,
)
CLIENT_DNS = Metric(
    "client_dns_seconds",
    "histogram",
    "Seconds that uncached DNS look-ups of the application's client took",
    "seconds",
    ("client",),
    LATENCY_BUCKETS,
    native=NATIVE_LATENCY_BUCKETS,
)
LOOP_LAG = Metric(
    "asyncio_event_loop_lag_seconds",
    "histogram",
    "Seconds by which a timer of the event loop ran later than asked, for every tenth of a second",
    "seconds",
    (),
    LAG_BUCKETS,
    native=NATIVE_LATENCY_BUCKETS,
)
LOOP_CPU = Metric(
    "asyncio_event_loop_cpu_seconds",
    "counter",
    "Seconds of processor time that the event loop's thread has used",
    "seconds",
    (),
)
LOOP_TASKS = Metric(
    "asyncio_event_loop_tasks",
    "gauge",
    "Tasks of the event loop that are not done",
    "tasks",
    (),
)
LOOP_BLOCKED = Metric(
    "asyncio_event_loop_blocked",
    "counter",
    "Blocks of the event loop, by the route of the request that held it, or by another reason",
    "blocks",
    ("method", "path"),
)
LOOP_BLOCKED_SECONDS = Metric(
    "asyncio_event_loop_blocked_seconds",
    "counter",
    "Seconds for which the event loop was blocked, by the route of the request that held it, or by another reason",
    "seconds",
    ("method", "path"),
)
ERRORS = Metric(
    "hr_prometheus_errors",
    "counter",
    "Exceptions raised by a monitor or by hr-prometheus itself, which no client has seen",
    "errors",
    ("where",),
)
FOLDED_REQUESTS = Metric(
    "hr_prometheus_folded_requests",
    "counter",
    "Requests recorded under their route's template because the route's path budget was spent",
    "requests",
    ("route",),
)
SCRAPE_DURATION = Metric(
    "hr_prometheus_scrape_duration_seconds",
    "histogram",
    "Seconds from the arrival of a scrape until its body was rendered",
    "seconds",
    (),
    SCRAPE_BUCKETS,
    native=NATIVE_LATENCY_BUCKETS,
)
SCRAPE_LINES = Metric(
    "hr_prometheus_scrape_lines",
    "gauge",
    "Lines of the latest scrape of all metrics; of one in protocol buffers, its series",
    "lines",
    (),
)
WORKER_UP = Metric(
    "hr_prometheus_worker_up",
    "gauge",
    "Whether a worker serves (1) or not (0)",
    "workers",
    ("worker",),
)
WORKER_RESTARTS = Metric(
    "hr_prometheus_worker_restarts",
    "counter",
    "Workers that were started again, by the reason for which their predecessor ended",
    "restarts",
    ("worker", "reason"),
)

#: The metrics of the default monitor with either level of detail. A metric prefix applies to these and to the next three.
BASIC_METRICS = (REQUEST_LATENCY, REQUEST_COUNT, REQUESTS_IN_PROGRESS)
#: The metrics of requests, and of WebSockets, that ``detail="full"`` adds.
DETAIL_METRICS = (REQUEST_FIRST_BYTE_LATENCY, REQUEST_SIZE, RESPONSE_SIZE)
WEBSOCKET_METRICS = (WEBSOCKETS_IN_PROGRESS, WEBSOCKET_DURATION, WEBSOCKET_CLOSES)
FULL_METRICS = (*DETAIL_METRICS, REQUEST_LOOP_TIME, *WEBSOCKET_METRICS)
#: The metrics of the requests that the application sends: those of each request, and those of connections.
CLIENT_REQUEST_METRICS = (
    CLIENT_REQUEST_LATENCY, CLIENT_REQUEST_FIRST_BYTE_LATENCY, CLIENT_REQUEST_COUNT, CLIENT_REQUEST_ERRORS,
    CLIENT_REQUESTS_IN_PROGRESS, CLIENT_RESPONSE_SIZE, CLIENT_REDIRECTS,
)  # fmt: skip
CLIENT_CONNECTION_METRICS = (CLIENT_CONNECTION_WAIT, CLIENT_CONNECTIONS, CLIENT_CONNECT, CLIENT_DNS)
CLIENT_METRICS = CLIENT_REQUEST_METRICS + CLIENT_CONNECTION_METRICS
#: The metrics of the event loop: those that are counted, and the one that is looked up at a scrape.
COUNTED_LOOP_METRICS = (LOOP_LAG, LOOP_CPU, LOOP_BLOCKED, LOOP_BLOCKED_SECONDS)
LOOP_METRICS = (*COUNTED_LOOP_METRICS, LOOP_TASKS)
#: The metrics of hr-prometheus itself. Each appears when it has a series.
SELF_METRICS = (ERRORS, FOLDED_REQUESTS)
#: The metrics of its scrapes.
SCRAPE_METRICS = (SCRAPE_DURATION, SCRAPE_LINES)
#: The metrics of its workers, if it has any.
WORKER_METRICS = (WORKER_UP, WORKER_RESTARTS)
METRICS = BASIC_METRICS + FULL_METRICS + CLIENT_METRICS + LOOP_METRICS + SELF_METRICS + SCRAPE_METRICS + WORKER_METRICS
METRICS_BY_NAME = {metric.name: metric for metric in METRICS}
#: The gauges of things in progress, by the histogram that observes their end.
IN_PROGRESS = {metric.ends_in: metric for metric in METRICS if metric.ends_in is not None}

#: The levels of detail: the first is the middleware's default, the second the command's.
BASIC, FULL = DETAILS = ("basic", "full")

#: Which client sessions the command measures: those that the application keeps, or all.
KEPT_SESSIONS, ALL_SESSIONS = CLIENT_SESSIONS = ("kept", "all")

#: Where the traces of requests are taken from that are exemplars: nowhere, a header, or the current span of OpenTelemetry.
NO_EXEMPLARS, TRACEPARENT, OTEL_SPANS = EXEMPLAR_SOURCES = ("off", "traceparent", "otel")

#: The reason of those requests of the client that failed because the application cancelled them.
CANCELLED = "cancelled"

#: From how many seconds on a request is slow, by default.
DEFAULT_SLOW = 1.0
