"""The trace configuration of client sessions: its arguments, its labels, and that it hurts nothing."""

from __future__ import annotations

import asyncio
import logging
import tracemalloc
from contextlib import suppress
from types import SimpleNamespace

import pytest
from aiohttp import ClientSession, TCPConnector, web
from aiohttp.abc import AbstractResolver
from conftest import samples
from prometheus_client import CollectorRegistry, Counter, generate_latest
from yarl import URL

from hr_prometheus import ConfigurationError, client_trace_config, hrprometheus_middleware
from hr_prometheus.client import trace_config
from hr_prometheus.labels.served import notes
from hr_prometheus.metrics import CLIENT_METRICS


def hosts_of(registry):
    """Return the requests counted for each host."""
    lines = samples(generate_latest(registry).decode()).items()
    return {
        key.split('host="')[1].split('"')[0]: value for key, value in lines if key.startswith("client_request_count")
    }


class NoNames(AbstractResolver):
    """Knows no host."""

    async def resolve(self, *_host, **_family):
        raise OSError

    async def close(self):
        pass


@pytest.fixture
async def url(aiohttp_server):
    async def ok(_request):
        return web.Response(text="ok")

    app = web.Application()
    app.router.add_route("*", "/", ok)
    return (await aiohttp_server(app)).make_url("/")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"client": ""}, "client is ''. Expected a name, for example \"payments\"."),
        ({"client": None}, "client is None. Expected a name"),
        ({"hosts": ["a.example"]}, r"hosts is \['a.example'\]. Expected names by hosts, for example"),
        ({"hosts": {"a.example": 1}}, "hosts is {'a.example': 1}. Expected names by hosts"),
        (
            {"hosts": {"http://a.example": "a"}},
            '"http://a.example" in hosts is not a host. Expected a host, with a port or without',
        ),
        ({"hosts": {"a.example:x": "a"}}, '"a.example:x" in hosts is not a host'),
        ({"host_budget": -1}, "host_budget is -1. Expected a whole number from 0 on."),
        ({"host_budget": True}, "host_budget is True"),
        ({"registry": 1}, "registry is 1. Expected a prometheus_client.CollectorRegistry"),
    ],
)
def test_wrong_arguments_are_refused_at_once(arguments, message):
    """The error names the argument, what was given and what was expected."""
    with pytest.raises(ConfigurationError, match=message):
        client_trace_config(**({"registry": CollectorRegistry()} | arguments))


def test_a_name_that_is_taken_is_refused(registry):
    """The application may have a metric with one of the names."""
    Counter("client_request_count", "taken", registry=registry)
    with pytest.raises(ConfigurationError, match='already has a metric named "client_.*registry='):
        client_trace_config(registry=registry)


async def test_nothing_is_registered_before_it_is_used(registry, url):
    """The metrics are made with the configuration, and several have them in common."""
    assert not generate_latest(registry)
    for client in ("one", "two", "two"):
        async with ClientSession(trace_configs=[client_trace_config(client=client, registry=registry)]) as session:
            await session.get(url)
            await session.options(url)
    numbers = samples(generate_latest(registry).decode())
    names = {key.partition("{")[0] for key in numbers}
    exported = {metric.exported_name for metric in CLIENT_METRICS}
    assert exported & names >= {"client_request_count_total", "client_requests_in_progress", "client_connections_total"}
    label = f'host="127.0.0.1:{url.port}",method="OPTIONS",status="200"'
    assert numbers[f'client_request_count_total{{client="one",{label}}}'] == 1
    assert numbers[f'client_request_count_total{{client="two",{label}}}'] == 2


async def test_hosts_have_the_names_that_they_are_given(registry, url):
    """A name is for a host with any port, or for one with this port; others keep theirs and their port."""
    hosts = {f"127.0.0.1:{url.port}": "here", "LOCALHOST": "local", "localhost:1": "closed"}
    config = client_trace_config(hosts=hosts, host_budget=0, registry=registry)
    async with ClientSession(trace_configs=[config]) as session:
        for each in (
            url,
            url.with_host("localhost"),
            url.with_host("localhost").with_port(1),
            url.with_host("127.0.0.2"),
        ):
            await _try(session, each)
    assert hosts_of(registry) == {"here": 1, "local": 1, "closed": 1, "other": 1}


async def test_the_usual_port_of_either_scheme_can_have_a_name(registry):
    """And a host is the same with the dot of the root."""
    config = client_trace_config(hosts={"a.example:443": "safe", "a.example:80": "plain"}, registry=registry)
    async with ClientSession(trace_configs=[config], connector=TCPConnector(resolver=NoNames())) as session:
        for url in (
            "http://a.example",
            "https://a.example",
            "http://a.example.",
            "https://a.example.",
            "http://a.example",
        ):
            await _try(session, url)
    assert hosts_of(registry) == {"plain": 3, "safe": 2}


async def test_a_named_host_can_have_any_number_of_ports(registry, monkeypatch):
    """What is kept for their URLs has an end."""
    monkeypatch.setattr(trace_config, "_MOST_RECORDS", 10)
    config = client_trace_config(hosts={"a.example": "here"}, registry=registry)

    async def call(ports):
        for port in ports:
            params = SimpleNamespace(method="GET", url=URL(f"http://a.example:{port}"), exception=OSError())
            context = config.trace_config_ctx()
            await config.on_request_start.send(None, context, params)
            await config.on_request_exception.send(None, context, params)

    tracemalloc.start()
    try:
        await call(range(1, 1000))  # until the caches of others are full
        before = tracemalloc.get_traced_memory()[0]
        await call(range(1000, 3000))
        assert tracemalloc.get_traced_memory()[0] - before < 50 * 2000  # bytes
    finally:
        tracemalloc.stop()
    assert hosts_of(registry) == {"here": 2999}


async def test_hosts_without_a_name_have_a_budget(registry, url, caplog):
    """When it is spent, further hosts share a label, and one warning says how to cure that."""
    async with ClientSession(trace_configs=[client_trace_config(host_budget=2, registry=registry)]) as session:
        for number in (1, 2, 3, 4, 1, 3):
            await _try(session, url.with_host(f"127.0.0.{number}"))
    port = url.port
    assert hosts_of(registry) == {f"127.0.0.1:{port}": 2, f"127.0.0.2:{port}": 1, "other": 3}
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert 'The client "default" has used its budget of 2 hosts; further ones are recorded as other.' in record.message


async def test_methods_that_are_not_registered_share_a_label(registry, url):
    """A client can send any method, and each would be a series."""
    async with ClientSession(trace_configs=[client_trace_config(registry=registry)]) as session:
        for method in ("GET", "MADE", "UP"):
            await session.request(method, url)
    text = generate_latest(registry).decode()
    assert text.count("client_request_count_total{") == 2
    assert 'method="unknown",status="400"} 2.0' in text  # aiohttp's server refuses them


async def test_an_error_of_ours_is_no_error_of_the_request(registry, url, caplog, monkeypatch):
    """It is counted, logged once with its traceback, and nothing stays in progress."""

    def fail(*_arguments):
        raise ArithmeticError("ours")

    for name in ("status_label", "received_size"):
        with monkeypatch.context() as patch:
            patch.setattr(f"hr_prometheus.client.calls.{name}", fail)
            async with ClientSession(trace_configs=[client_trace_config(registry=registry)]) as session:
                for _ in range(2):
                    async with session.get(url) as response:
                        assert await response.text() == "ok"
    numbers = samples(generate_latest(registry).decode())
    assert numbers['hr_prometheus_errors_total{where="client"}'] == 4
    assert numbers[f'client_requests_in_progress{{client="default",host="127.0.0.1:{url.port}"}}'] == 0
    (record,) = caplog.records
    assert record.message.startswith("Recording a request of the client failed; the request itself continues.")
    assert record.exc_info[0] is ArithmeticError


async def test_a_configuration_can_be_added_to_a_session(registry, url):
    """It is frozen, as a session's are, and a session's list of them is its own to change."""
    async with ClientSession() as session:
        config = client_trace_config(registry=registry)
        session.trace_configs.append(config)
        await session.get(url)
    assert hosts_of(registry) == {f"127.0.0.1:{url.port}": 1}
    assert trace_config.is_ours(config)


async def test_calls_can_have_the_path_of_the_request_that_is_served(aiohttp_client, registry, url, monkeypatch):
    """Also in tasks that it starts and on a connection that is reused; what is sent outside of requests has none."""
    monkeypatch.setattr("hr_prometheus.labels.served.notes.are_taken", False)
    config = client_trace_config(by_route=True, hosts={"127.0.0.1": "back"}, registry=registry)

    async def call(_request):
        async with ClientSession(trace_configs=[config]) as session:
            await session.get(url)
            await asyncio.create_task(_try(session, url))
        return web.Response()

    app = web.Application(middlewares=[hrprometheus_middleware(registry=registry, exclude=["/excluded"])])
    for path in ("/a", "/b", "/excluded"):
        app.router.add_get(path, call)
    client = await aiohttp_client(app)
    for path in ("/a", "/b", "/a", "/excluded"):
        assert (await client.get(path)).status == 200
    await call(None)
    numbers = samples(generate_latest(registry).decode())
    labels = 'client="default",host="back",method="GET"'
    counts = [
        numbers[f'client_request_count_total{{{labels},{path}status="200"}}']
        for path in ('path="/a",', 'path="/b",', "")
    ]
    assert counts == [4, 2, 4]
    assert numbers['client_requests_in_progress{client="default",host="back",path="/a"}'] == 0


async def test_middlewares_note_no_path_that_nothing_asks_for(registry):
    """Requests pay for it only then."""
    before = notes.are_taken
    client_trace_config(registry=registry)
    assert notes.are_taken is before


async def _try(session, url):
    with suppress(OSError):  # only the first of the machine's own addresses is served
        await session.get(url)
