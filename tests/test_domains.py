"""Applications that were added by domain, in one process and in workers."""

from __future__ import annotations

import asyncio

import pytest
from aiohttp import WSMsgType, web
from conftest import DEADLINE, in_worker, samples
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics

from hr_prometheus import hrprometheus_middleware, instrument
from hr_prometheus.exposition.formats import TEXT, Format
from hr_prometheus.labels.resources import domains
from hr_prometheus.monitors import RequestMonitor
from hr_prometheus.multiprocess.aggregate_cells import CellCollector
from hr_prometheus.observability.objectives import objectives_of, parse_objectives
from hr_prometheus.observability.route_table import render_table, rows_of
from hr_prometheus.request.records import Records
from hr_prometheus.request.websocket import WebSocketRecord
from hr_prometheus.settings import Settings
from hr_prometheus.store.families import with_created


async def ok(_request):
    return web.Response(text="ok")


async def socket(request):
    websocket = web.WebSocketResponse()
    await websocket.prepare(request)
    await websocket.close()
    return websocket


def below() -> web.Application:
    """Make an application to be added by a domain."""
    app = web.Application()
    app.router.add_get("/users/{user}", ok, name="user", allow_head=False)
    app.router.add_get("/ws", socket, allow_head=False)
    return app


def application() -> web.Application:
    """Make an application with two domains and a mask, in which the same paths are."""
    app = web.Application()
    app.router.add_get("/outer/{user}", ok, name="user", allow_head=False)
    app.add_domain("a.example", below())
    app.add_domain("*.b.example", below())
    return app


async def ask(aiohttp_client, app, registry, *asked: tuple[str, str]) -> dict[str, float]:
    """Ask for some hosts and paths, and return the samples once all requests have ended."""
    client = await aiohttp_client(app)
    for host, path in asked:
        async with client.get(path, headers={"Host": host}) as response:
            await response.read()
    async with asyncio.timeout(DEADLINE):
        while True:
            series = samples(generate_latest(registry).decode())
            if sum(number for name, number in series.items() if name.startswith("request_count_total")) == len(asked):
                return series
            await asyncio.sleep(0.001)


ASKED = [
    ("a.example", "/users/1"),
    ("A.example", "/users/1"),
    ("x.b.example", "/users/1"),
    ("y.b.example", "/users/1"),
    ("z.b.example", "/none"),
    ("other.example", "/outer/1"),
    ("other.example", "/none"),
]
COUNTED = {
    'request_count_total{host="a.example",method="GET",path="/users/1",status="200"}': 2,
    'request_count_total{host="*.b.example",method="GET",path="/users/1",status="200"}': 2,
    'request_count_total{host="*.b.example",method="GET",path="unmatched",status="404"}': 1,
    'request_count_total{method="GET",path="/outer/1",status="200"}': 1,
    'request_count_total{method="GET",path="unmatched",status="404"}': 1,
}


class OwnMonitor(RequestMonitor):
    """One that makes a monitor for each request."""

    def update_init_metrics(self) -> None:
        """Do as the base class does, with labels as they were published."""
        assert len(self.request_description) == 2
        super().update_init_metrics()


@pytest.mark.parametrize("monitor", [None, OwnMonitor])
async def test_domains_have_series_of_their_own(aiohttp_client, registry, monitor):
    """The label host is the argument of add_domain, however many Host headers there are; elsewhere there is none."""
    app = application()
    app.middlewares.append(hrprometheus_middleware(monitor, registry=registry, detail="full"))
    series = await ask(aiohttp_client, app, registry, *ASKED)
    assert {name: number for name, number in series.items() if name.startswith("request_count_total")} == COUNTED
    for host, path, number in (("a.example", "/users/1", 2), ("*.b.example", "/users/1", 2), ("", "/outer/1", 1)):
        labels = f'host="{host}",method="GET",path="{path}"'.removeprefix('host="",')
        assert series[f"request_latency_count{{{labels}}}"] == number
        assert series[f"response_size_bytes_sum{{{labels}}}"] == 2 * number
        assert series[f"requests_in_progress{{{labels}}}"] == 0


async def test_websockets_of_domains(aiohttp_client, registry):
    """The series of WebSockets have the label as well."""
    client = await aiohttp_client(instrument(application(), registry=registry))
    async with client.ws_connect("/ws", headers={"Host": "a.example"}) as websocket:
        assert (await websocket.receive()).type == WSMsgType.CLOSE
    name = 'websocket_closes_total{by="server",code="1000",host="a.example",path="/ws"}'
    async with asyncio.timeout(DEADLINE):
        while name not in (series := samples(generate_latest(registry).decode())):
            await asyncio.sleep(0.001)
    assert series[name] == 1
    assert series['websocket_connection_duration_count{host="a.example",path="/ws"}'] == 1
    assert series['websocket_connections_in_progress{host="a.example",path="/ws"}'] == 0


def test_the_bytes_are_the_librarys():
    """Series with extra labels are rendered as prometheus_client renders them, beside others of their family."""
    registry = CollectorRegistry()
    records = Records(registry, detail="full")
    team, host = ("team", 'odd"%s{\\'), ("host", "a.example")
    for extra in ((), team, host, (*team, "client", "%d", *host), ("host", 'odd"%s{\\')):
        labels = "GET", "/{x}%s", *extra
        record = records.request(labels)
        record.begin()
        record.finish("200", 0.1)
        record.measure(0.1, 100, 10)
        WebSocketRecord(record).begin()
        WebSocketRecord(record).end(1.0, 1000, "server")
    assert TEXT.render(registry) == generate_latest(registry)
    assert b'host="a.example",le="0.1"' in TEXT.render(registry)
    token = with_created.set(True)
    try:
        assert Format(is_openmetrics=True, version="1.0.0").render(registry) == generate_openmetrics(registry)
    finally:
        with_created.reset(token)


@pytest.mark.parametrize("own_files", [True, False])
def test_domains_in_workers(tmp_path, own_files):
    """Our files and prometheus_client's tell domains apart, and a worker goes on with its predecessor's series."""
    code = """
        from prometheus_client import REGISTRY
        from hr_prometheus.store.files import store_in_files
        from hr_prometheus.request.records import Records

        if {own_files}:
            store_in_files({path!r})
        for labels in (("GET", "/"), ("GET", "/", "host", "a.example")):
            record = Records(REGISTRY).request(labels)
            record.begin()
            record.finish("200", 1.0)
    """
    for slot in (0, 1, 1):
        in_worker(str(tmp_path), slot, code.format(own_files=own_files, path=str(tmp_path / f"w{slot}")))
    registry = CollectorRegistry()
    if own_files:
        registry.register(CellCollector(str(tmp_path)))
    else:
        MultiProcessCollector(registry, path=str(tmp_path))
    series = samples(generate_latest(registry).decode())
    for host in ("", 'host="a.example",'):
        assert series[f'request_count_total{{{host}method="GET",path="/",status="200"}}'] == 3
        assert series[f'request_latency_sum{{{host}method="GET",path="/"}}'] == 3
        assert series[f'requests_in_progress{{{host}method="GET",path="/"}}'] == 0


async def test_an_application_of_two_domains(aiohttp_client, registry):
    """It has both names in one label, because its routes are the same; a sub-application has its parent's."""
    app, both = web.Application(), below()
    both.add_subapp("/sub", below())
    app.add_domain("a.example", both)
    app.add_domain("b.example", both)
    series = await ask(aiohttp_client, instrument(app, registry=registry), registry, ("b.example", "/sub/users/1"))
    assert series['request_count_total{host="a.example,b.example",method="GET",path="/sub/users/1",status="200"}'] == 1
    assert sorted(set(domains(app).values())) == ["a.example,b.example"]


def test_routes_shows_the_domain():
    """Each route has its domain; an application without domains has no such column."""
    settings = Settings(target="x:y")
    table = rows_of(application(), settings)
    assert [(row.host, row.pattern) for row in table if row.name] == [
        ("", "/outer/{user}"),
        ("a.example", "/users/{user}"),
        ("*.b.example", "/users/{user}"),
    ]
    assert [row.host for row in table if row.label == "unmatched"] == ["", "a.example", "*.b.example"]
    assert any("*.b.example" in line for line in render_table(table, ["GET"]))
    assert "  host: *.b.example" in render_table(table, ["GET"], 40)
    assert "HOST" not in render_table(rows_of(below(), settings), ["GET"])[0]


def test_an_objective_tells_domains_apart():
    """The requests of a route are those of its own domain."""
    table = rows_of(application(), Settings(target="x:y"))
    (objective,) = (
        each for each in objectives_of(parse_objectives(["user=99"]), table, "/metrics") if each.route == "user"
    )
    assert [next(each for each in selection if "host" in each) for selection in objective.selections] == [
        'host=""',
        'host="a.example"',
        'host="*.b.example"',
    ]
