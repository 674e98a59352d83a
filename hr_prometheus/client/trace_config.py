"""The trace configuration that records the requests of client sessions."""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING, Any, cast
from weakref import WeakSet

from aiohttp import TraceConfig
from prometheus_client import REGISTRY

from hr_prometheus.client.calls import Call
from hr_prometheus.client.hosts import DEFAULT_HOST_BUDGET, OTHER, HostLabels
from hr_prometheus.client.records import CallRecord
from hr_prometheus.errors import ConfigurationError
from hr_prometheus.labels.methods import METHODS, UNKNOWN
from hr_prometheus.labels.served import notes, served_path
from hr_prometheus.metrics import CLIENT_CONNECT, CLIENT_CONNECTION_WAIT, CLIENT_CONNECTIONS, CLIENT_DNS
from hr_prometheus.store.failures import failures_of
from hr_prometheus.store.store import client_store

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator, Mapping
    from types import SimpleNamespace

    from prometheus_client import CollectorRegistry
    from yarl import URL

DEFAULT_CLIENT = "default"
#: The label of the request that is served meanwhile.
PATH = "path"
_EVENT = "Recording a request of the client failed; the request itself continues"

#: How many records are kept by URL. One that is not is looked up by its labels.
_MOST_RECORDS = 1024

#: The trace configurations of ours.
_configs: WeakSet[TraceConfig] = WeakSet()


def client_trace_config(
    *,
    client: str = DEFAULT_CLIENT,
    hosts: Mapping[str, str] | None = None,
    host_budget: int = DEFAULT_HOST_BUDGET,
    by_route: bool = False,
    registry: CollectorRegistry = REGISTRY,
) -> TraceConfig:
    """Make a trace configuration that records the requests of the sessions that have it.

    ``ClientSession(trace_configs=[client_trace_config()])``. Several sessions can share a configuration. *client* is a label
    of all their metrics. *hosts* maps hosts, or hosts and ports, to the names that the label ``host`` has for them. Of other hosts
    the first *host_budget* keep their own, and further ones are ``other``. With *by_route* what is sent while a request is
    served has the label ``path`` of that request, if a middleware of ours records it.

    Raises :exc:`~hr_prometheus.errors.ConfigurationError`, a :exc:`ValueError`, for arguments that cannot work.
    """
    if not isinstance(client, str) or not client:
        raise ConfigurationError(f'client is {client!r}. Expected a name, for example "payments".')
    recorder = _CallRecorder(client, HostLabels(client, hosts, host_budget), registry, by_route=by_route)
    if by_route:
        notes.are_taken = True
    # Any callable makes the context, whatever its annotation says.
    config = TraceConfig(cast("type[SimpleNamespace]", Call))
    for signal, record in (
        (config.on_request_start, recorder.begin),
        (config.on_connection_queued_start, recorder.queue),
        (config.on_connection_create_start, recorder.connect),
        (config.on_connection_create_end, recorder.connected),
        (config.on_connection_reuseconn, recorder.reuse),
        (config.on_dns_resolvehost_start, recorder.resolve),
        (config.on_dns_resolvehost_end, recorder.resolved),
        (config.on_request_redirect, recorder.redirect),
        (config.on_request_end, recorder.end),
        (config.on_request_exception, recorder.fail),
    ):
        cast("Any", signal).append(_guarded(record, recorder.failed))
    config.freeze()
    _configs.add(config)
    return config


def is_ours(config: object) -> bool:
    """Whether a trace configuration is one of :func:`client_trace_config`."""
    return isinstance(config, TraceConfig) and config in _configs


class _Done:
    """What awaits nothing: cheaper than a coroutine for each signal."""

    def __await__(self) -> Generator[None, None, None]:
        return cast("Generator[None, None, None]", iter(()))


_DONE = _Done()


def _guarded(
    record: Callable[[Call, Any], None], failed: Callable[[BaseException], None]
) -> Callable[[object, Call, Any], Awaitable[None]]:
    """Return the receiver of a signal. An exception in it would fail the request, so it raises none."""

    def receive(_session: object, call: Call, params: Any) -> Awaitable[None]:
        try:
            record(call, params)
        except Exception as error:  # noqa: BLE001  # nothing of ours may reach the application
            call.give_up()
            failed(error)
        return _DONE

    return receive


class _CallRecorder:
    """Records what the signals say, in the series of one *client*."""

    def __init__(self, client: str, hosts: HostLabels, registry: CollectorRegistry, *, by_route: bool) -> None:
        self._client, self._hosts, self._by_route = client, hosts, by_route
        self._store = client_store(registry)
        self._report = failures_of(registry).report
        #: By method, the scheme and the host of the URL and the path of the request served; those of hosts without a place
        #: are not kept here.
        self._records: dict[tuple[str, str, str | None, str], CallRecord] = {}
        #: By labels.
        self._records_by_labels: dict[tuple[str, str, str], CallRecord] = {}
        #: The connections of the pool, and those that are made.
        self._reused = self._store.allocate(CLIENT_CONNECTIONS, (client, "reused"))
        self._new = self._store.allocate(CLIENT_CONNECTIONS, (client, "new"))

    def failed(self, error: BaseException) -> None:
        """Report an error of ours."""
        self._report("client", error, _EVENT)

    def begin(self, call: Call, params: Any) -> None:
        """Begin a request."""
        method, url = params.method, params.url
        path = served_path.get() if self._by_route else ""
        key = method, url.scheme, url.host_port_subcomponent, path
        call.begin(self._records.get(key) or self._record_of(key, url), self.failed)

    def _record_of(self, key: tuple[str, str, str | None, str], url: URL) -> CallRecord:
        method, _, _, path = key
        place = self._hosts.label(url)
        label, host = method if method in METHODS else UNKNOWN, OTHER if place is None else place
        record = self._records_by_labels.get((label, host, path))
        if record is None:
            extra = (PATH, path) if path else ()
            record = CallRecord(self._store, self._client, label, host, extra)
            self._records_by_labels[label, host, path] = record
        if place is not None and label == method:  # there is no end of others
            if len(self._records) >= _MOST_RECORDS:  # a host with a name can have any number of ports
                self._records.clear()
            self._records[key] = record
        return record

    def queue(self, call: Call, _params: object) -> None:
        """Note that a request waits for a connection: the pool may make it wait again."""
        call.waiting_since = call.waiting_since or perf_counter()

    def _leave_queue(self, call: Call) -> None:
        if call.waiting_since:
            self._store.observe(CLIENT_CONNECTION_WAIT, (self._client,), perf_counter() - call.waiting_since)
            call.waiting_since = 0.0

    def reuse(self, call: Call, _params: object) -> None:
        """Count a connection of the pool."""
        self._leave_queue(call)
        page, index = self._reused
        page[index] += 1.0

    def connect(self, call: Call, _params: object) -> None:
        """Note that a connection is being made."""
        self._leave_queue(call)
        call.connecting_since = perf_counter()

    def connected(self, call: Call, _params: object) -> None:
        """Count a connection that was made."""
        page, index = self._new
        page[index] += 1.0
        self._store.observe(CLIENT_CONNECT, (self._client,), perf_counter() - call.connecting_since)

    def resolve(self, call: Call, _params: object) -> None:
        """Note that a name is being looked up."""
        call.resolving_since = perf_counter()

    def resolved(self, call: Call, _params: object) -> None:
        """Observe a look-up."""
        self._store.observe(CLIENT_DNS, (self._client,), perf_counter() - call.resolving_since)

    def redirect(self, call: Call, _params: object) -> None:
        """Count a redirect."""
        if call.record is not None:
            call.record.redirect()

    def end(self, call: Call, params: Any) -> None:
        """Note the head of a response."""
        call.note_head(params.response)

    def fail(self, call: Call, params: Any) -> None:
        """End a request that fails without a response for its caller."""
        self._leave_queue(call)
        call.fail(params.exception)
