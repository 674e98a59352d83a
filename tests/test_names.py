"""The request metrics under other names, with latencies apart by outcome, and with buckets of a route."""

from __future__ import annotations

import ssl
from collections import defaultdict
from types import SimpleNamespace

import aiohttp
import pytest
from aiohttp import web
from conftest import APPS, metrics_kept_in_files, samples, settled
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import REGISTRY, CollectorRegistry, generate_latest, values
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.parser import text_string_to_metric_families

from hr_prometheus import ConfigurationError, hrprometheus_middleware, instrument
from hr_prometheus.exposition.formats import TEXT
from hr_prometheus.metrics import METRICS
from hr_prometheus.monitors import RequestMonitor
from hr_prometheus.multiprocess.aggregate_cells import CellCollector
from hr_prometheus.names import NAME_SETS, Naming
from hr_prometheus.request.recorder import recorder_of
from hr_prometheus.request.records import Records
from hr_prometheus.request.refused import record_malformed
from hr_prometheus.store.files import FileAllocator
from hr_prometheus.store.store import Store, allocators

ROUTE = ("GET", "/x")
#: By set: the counter, the latency and the gauge, and their labels for a route.
SEED = ("request_count_total", "request_latency", "requests_in_progress", 'method="GET",path="/x"')
HTTP = (
    "http_requests_total", "http_request_duration_seconds", "http_requests_in_progress", 'handler="/x",method="GET"',
)  # fmt: skip
OTEL = (
    "", "http_server_request_duration_seconds", "http_server_active_requests",
    'http_request_method="GET",http_route="/x"',
)  # fmt: skip


def text_of(collector) -> str:
    return generate_latest(collector).decode()


def series_of(records: Records, collector) -> dict[str, float]:
    """Record one request in progress, two answers and an error, and return what is collected."""
    record = records.request(ROUTE)
    record.begin()
    for status, seconds in (("200", 0.02), ("404", 0.2), ("503", 2.0)):
        record.begin()
        record.finish(status, seconds)
        record.measure(seconds, 100, 0)
    return samples(text_of(collector))


@pytest.mark.parametrize("names", [SEED, HTTP])
def test_a_set_of_names(registry, names):
    """The same numbers have the names and labels of the set, and no others."""
    count, latency, progress, labels = names
    chosen = "http" if names is HTTP else "seed"
    series = series_of(Records(registry, names=[chosen], detail="full"), registry)
    assert [series[f'{count}{{{labels},status="{status}"}}'] for status in (200, 404, 503)] == [1, 1, 1]
    assert series[f"{latency}_sum{{{labels}}}"] == pytest.approx(2.22)
    assert series[progress + f"{{{labels}}}"] == 1
    others = SEED if names is HTTP else HTTP
    assert not any(key.startswith(others[:3]) for key in series)


def test_the_names_of_opentelemetry(registry):
    """Latencies have a status and a scheme, and count the requests, so there is no other counter."""
    _, latency, progress, labels = OTEL
    series = series_of(Records(registry, names=["otel"]), registry)
    for status, seconds in ((200, 0.02), (404, 0.2), (503, 2.0)):
        own = f'http_request_method="GET",http_response_status_code="{status}",http_route="/x",url_scheme="http"'
        assert series[f"{latency}_count{{{own}}}"] == 1
        assert series[f"{latency}_sum{{{own}}}"] == seconds
    assert series[f'{progress}{{{labels},url_scheme="http"}}'] == 1
    assert not any(key.startswith(("request", "http_request")) for key in series)


def test_what_a_set_has_no_name_for_keeps_its_own(registry):
    """Nothing is lost by a choice of names, and nothing is there twice."""
    seed = Records(CollectorRegistry(), detail="full")
    both = Records(registry, detail="full", names=["otel", "http", "otel"])
    families = {
        chosen: [family.name for store in (records.basic, records.full) for family in store.describe()]
        for chosen, records in (("seed", seed), ("both", both))
    }
    assert len(set(families["both"])) == len(families["both"])
    assert [name for name in families["seed"] if name in families["both"]] == [
        "request_loop_seconds", "websocket_connections_in_progress", "websocket_connection_duration", "websocket_closes",
    ]  # fmt: skip
    alone = Records(CollectorRegistry(), detail="full", names=["otel"])
    assert "request_size_bytes" in [family.name for family in alone.full.describe()]


@pytest.mark.parametrize("chosen", [["seed"], ["http"], ["otel"], ["otel", "http", "seed"]], ids=",".join)
def test_the_bytes_are_the_librarys(registry, chosen):
    """Also where a label comes before that of the buckets."""
    records = Records(registry, detail="full", names=chosen, latency_by_status=True)
    for labels in (("GET", "/"), ("GET", "/x", "a", "b"), ("GET", "/x", "z", "b")):
        for status in ("200", "500"):
            record = records.request(labels)
            record.begin()
            record.finish(status, 0.1)
            record.measure(0.1, 1, 2)
    assert TEXT.render(registry) == generate_latest(registry)


@pytest.mark.parametrize("detail", ["basic", "full"])
@pytest.mark.parametrize("chosen", [["seed"], ["http"], ["otel"], ["seed", "http", "otel"]], ids=",".join)
def test_promtool_finds_nothing_wrong_with_the_names(registry, promtool, chosen, detail):
    """In no set, and not with several at once or with outcomes."""
    records = Records(registry, names=chosen, detail=detail, latency_by_status=True, buckets={"*": [1], "r": [2]})
    for route in (None, "r"):
        record = records.request(("GET", str(route)), route)
        record.begin()
        record.finish("200", 1.0)
    done = promtool("check", "metrics", stdin=text_of(registry))
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


requests = st.lists(
    st.tuples(
        st.integers(0, 2),
        st.sampled_from(["/x", "/y", "/slow"]),
        st.sampled_from(["200", "404", "499", "500", "503", "101", "99", "6000"]),
        st.floats(0, 20),
        st.booleans(),
    ),
    max_size=20,
)
options = st.fixed_dictionaries({
    "names": st.lists(st.sampled_from(list(NAME_SETS)), min_size=1, max_size=3, unique=True),
    "latency_by_status": st.booleans(),
    "buckets": st.sampled_from([(0.1, 1.0), {"*": (0.1, 1.0), "slow": (1.0, 10.0, 15.0)}]),
})  # fmt: skip


def record_of(records: Records, path: str):
    return records.request(("GET", path), "slow" if path == "/slow" else None)


@settings(deadline=None, max_examples=60)
@given(requests, options)
def test_every_name_has_the_same_numbers(tmp_path_factory, made, chosen):
    """Whatever is asked for, it adds up to what the published names say, in one process and over workers."""
    directory, plain, one = tmp_path_factory.mktemp("slots"), CollectorRegistry(), CollectorRegistry()
    everything = [Records(plain, buckets=chosen["buckets"]), Records(one, **chosen)]
    workers = []
    with pytest.MonkeyPatch.context() as patch:
        for slot in range(3):
            registry = CollectorRegistry()
            patch.setitem(allocators, registry, FileAllocator(str(directory / f"w{slot}")))
            workers.append(Records(registry, **chosen))
    for slot, path, status, seconds, is_over in made:
        for records in (*everything, workers[slot]):
            record_of(records, path).begin()
            if is_over:
                record_of(records, path).finish(status, seconds)
    alone = text_of(one)
    of_workers = CollectorRegistry()
    of_workers.register(CellCollector(str(directory)))
    assert samples(text_of(of_workers)) == pytest.approx(samples(alone))
    expected = added_up(text_of(plain), *SEED[:3])
    for name in chosen["names"]:
        count, latency, progress, _ = {"seed": SEED, "http": HTTP, "otel": OTEL}[name]
        assert added_up(alone, count, latency, progress) == pytest.approx(
            {key: value for key, value in expected.items() if count or key[0] != "count"}
        )


def added_up(text: str, count: str, latency: str, progress: str) -> dict[tuple[str, ...], float]:
    """Return the sums of the series of one set, by what they say, path, and status or bound."""
    names = {count: "count", progress: "progress"}
    names |= {f"{latency}_{each}": each for each in ("bucket", "sum", "count")}
    sums: dict[tuple[str, ...], float] = defaultdict(float)
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name in names and sample.name:
                path = next(sample.labels[each] for each in ("path", "handler", "http_route") if each in sample.labels)
                is_count = sample.name == count
                key = ("status", sample.labels["status"]) if is_count else ("le", sample.labels.get("le", ""))
                sums[names[sample.name] if is_count else sample.name.removeprefix(latency), path, *key] += sample.value
    return {(key[0].replace(progress, "progress"), *key[1:]): value for key, value in sums.items()}


def test_errors_are_apart(registry):
    """A quick error does not make a route look quicker; what the client did wrong, or did not wait for, is no error."""
    records = Records(registry, latency_by_status=True)
    for status in ("200", "302", "404", "499", "500", "503", "599", "999"):
        record = records.request(ROUTE)
        record.begin()
        record.finish(status, 0.1)
    series = samples(text_of(registry))
    assert series['request_latency_count{method="GET",outcome="ok",path="/x"}'] == 4
    assert series['request_latency_count{method="GET",outcome="error",path="/x"}'] == 4
    assert series['requests_in_progress{method="GET",path="/x"}'] == 0


async def fail(_request: web.Request) -> web.Response:
    raise web.HTTPServiceUnavailable


async def answer(_request: web.Request) -> web.Response:
    return web.Response(text="ok")


def application(registry: CollectorRegistry, **chosen: object) -> web.Application:
    app = web.Application()
    app.router.add_get("/report", answer, name="report")
    app.router.add_get("/fail", fail)
    return instrument(app, registry=registry, **chosen)


class OwnMonitor(RequestMonitor):
    """A monitor of the application's own, with the default one's metrics."""


@pytest.mark.parametrize("monitor", [RequestMonitor, OwnMonitor])
async def test_buckets_of_a_route(aiohttp_client, registry, monitor):
    """Its latencies and first bytes have its own bounds, those of all other routes the general ones."""
    middleware = hrprometheus_middleware(
        monitor,
        registry=registry,
        detail="full",
        buckets={"*": [1, 2], "report": [30, 60]},
        names=["http"],
        latency_by_status=True,
    )
    app = web.Application(middlewares=[middleware])
    app.router.add_get("/report", answer, name="report")
    app.router.add_get("/fail", fail)
    client = await aiohttp_client(app)
    for path in ("/report", "/fail", "/nowhere"):
        async with client.get(path):
            pass
    await settled(registry)
    bounds = defaultdict(set)
    for family in text_string_to_metric_families(text_of(registry)):
        for sample in family.samples:
            if sample.name in ("http_request_duration_seconds_bucket", "http_request_first_byte_seconds_bucket"):
                bounds[sample.labels["handler"]].add((sample.labels["le"], sample.labels.get("outcome")))
    outcomes = {"/report": "ok", "/fail": "error", "unmatched": "ok"}
    assert bounds == {
        path: {(le, each) for le in (["30.0", "60.0"] if path == "/report" else ["1.0", "2.0"]) + ["+Inf"]
               for each in (outcome, None)}
        for path, outcome in outcomes.items()
    }  # fmt: skip


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_the_scheme_of_a_request_that_is_refused(registry, scheme):
    """It is that of the connection, too."""
    recorder = recorder_of(hrprometheus_middleware(registry=registry, names=["otel"]))
    record_malformed(recorder, SimpleNamespace(scheme=scheme), web.Response(status=400), 0.1)
    labels = 'http_request_method="unknown",http_response_status_code="400",http_route="malformed"'
    series = samples(text_of(registry))
    assert series[f'http_server_request_duration_seconds_count{{{labels},url_scheme="{scheme}"}}'] == 1


@pytest.mark.parametrize("monitor", [OwnMonitor, None])
async def test_instrument_with_a_monitor(aiohttp_client, registry, monitor):
    """One that inherits the default monitor has the same options."""
    client = await aiohttp_client(
        application(registry, request_monitor=monitor, names=["http"], latency_by_status=True, metric_prefix="my_")
        if monitor is None
        else application(REGISTRY, request_monitor=monitor, names=["http"], latency_by_status=True, metric_prefix="my_")
    )
    async with client.get("/report"):
        pass
    await settled(registry if monitor is None else REGISTRY)
    series = samples(text_of(registry if monitor is None else REGISTRY))
    assert series['my_http_request_duration_seconds_count{handler="/report",method="GET",outcome="ok"}'] == 1


async def test_the_scheme_is_that_of_the_connection(aiohttp_server, registry):
    """No header of a client changes it."""
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(APPS.parent / "tls" / "certificate.pem", APPS.parent / "tls" / "key.pem")
    app = application(registry, names=["otel"])
    server = await aiohttp_server(app, ssl=tls)
    async with aiohttp.ClientSession() as session:
        for path, status in (("/report", 200), ("/fail", 503)):
            headers = {"X-Forwarded-Proto": "http", "Forwarded": "proto=http"}
            async with session.get(server.make_url(path), ssl=False, headers=headers) as response:
                assert response.status == status
    await settled(registry)
    series = [sample for family in registry.collect() for sample in family.samples if "server" in sample.name]
    assert {sample.labels["url_scheme"] for sample in series if sample.value} == {"https"}
    assert not any(sample.value for sample in series if sample.name == "http_server_active_requests")


@pytest.mark.parametrize(
    ("chosen", "sentence"),
    [
        ({"names": ["https"]}, "unknown name set 'https'. Did you mean \"http\"? Expected seed, http, otel."),
        ({"names": "http"}, "names='http': no name sets. Expected a list of them"),
        ({"names": []}, "names=[]: no name sets. Expected a list of them"),
        ({"names": [3]}, "unknown name set 3. Expected seed"),
        ({"names": ["http", ["x"]]}, "unknown name set ['x']. Expected seed"),
        ({"buckets": {"report": "12"}}, "buckets={'report': '12'}: invalid buckets."),
        ({"buckets": {"report": [2, 1]}}, "buckets={'report': [2, 1]}: invalid buckets."),
        ({"buckets": {"report": "fast"}}, "buckets={'report': 'fast'}: invalid buckets."),
        ({"buckets": {1: [1]}}, "buckets={1: [1]}: invalid buckets."),
        ({"names": ["http"], "extra_labels": {"handler": "handler"}}, "the metrics have a label handler already"),
        ({"names": ["otel"], "extra_labels": {"http_route": "route"}}, "the metrics have a label http_route already"),
        ({"extra_labels": {"outcome": "const:x"}}, "the metrics have a label outcome already"),
    ],
)
def test_what_cannot_be(registry, chosen, sentence):
    """The error quotes the argument and says what was expected."""
    with pytest.raises(ConfigurationError) as caught:
        application(registry, **chosen)
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    ("chosen", "sentence"),
    [
        ({"buckets": {"reports": [1]}}, 'the application has no route named "reports". Did you mean "report"?'),
        ({"extra_labels": {"side": "match:side=a"}}, 'the application has no parameter "side". Its parameters: none.'),
    ],
)
async def test_what_fits_no_route(registry, chosen, sentence):
    """It is said when the application starts: what was meant for a route has no effect."""
    runner = web.AppRunner(application(registry, **chosen))
    with pytest.raises(ConfigurationError) as caught:
        await runner.setup()
    assert sentence in str(caught.value)
    await runner.cleanup()


def test_two_middlewares_of_one_registry_have_the_same_names(registry):
    """The error names the metric and the sets that it has already."""
    application(registry, names=["seed"])
    with pytest.raises(ConfigurationError, match=r'"request_count" exists already under the names "seed"'):
        application(registry, names=["seed", "http"])


def test_in_the_files_of_prometheus_client(registry, tmp_path, monkeypatch):
    """Under each name, of all processes, where an application has prometheus_client's own multi-process mode."""
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    with metrics_kept_in_files():
        values.ValueClass = values.MultiProcessValue(lambda: "1")
        own = series_of(Records(registry, names=["seed", "http", "otel"], latency_by_status=True), registry)
        collected = CollectorRegistry()
        MultiProcessCollector(collected, str(tmp_path))
        series = samples(text_of(collected))
    assert {key: value for key, value in series.items() if value} == pytest.approx(
        {key: value for key, value in own.items() if value}
    )


def test_no_two_sets_have_a_name_in_common():
    """So that a scrape with several of them has each family once."""
    names = [family.name for each in NAME_SETS for family in Store(METRICS, naming=Naming("", (each,))).describe()]
    of_several = {family.name for family in Store(METRICS, naming=Naming("", tuple(NAME_SETS))).describe()}
    assert set(names) == of_several
