"""Exemplars: the trace that a client sends is in the bucket where the latency of its request lies."""

from __future__ import annotations

import asyncio
import sys
from itertools import count
from time import perf_counter, time
from types import SimpleNamespace

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from conftest import counted
from opentelemetry import trace
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from hr_prometheus import ConfigurationError, hrprometheus_middleware, instrument
from hr_prometheus.metric import LATENCY_BUCKETS
from hr_prometheus.monitors import RequestMonitor
from hr_prometheus.request import traced_records
from hr_prometheus.request.records import Records

SPAN = "b7ad6b7169203331"
numbers = count(1)


def new_trace():
    """Return the id of a trace that no other request has."""
    return f"{next(numbers):032x}"


def parent(trace_id, flags="01"):
    """Return the header of a request that belongs to a trace."""
    return {"traceparent": f"00-{trace_id}-{SPAN}-{flags}"}


async def wait(request):
    await asyncio.sleep(float(request.query.get("seconds", 0)))
    return web.Response(status=int(request.query.get("status", 200)))


async def crash(_request):
    raise ValueError


async def talk(request):
    response = web.WebSocketResponse()
    await response.prepare(request)
    await response.close()
    return response


def application(**options):
    app = web.Application(**options)
    app.router.add_get("/wait", wait)
    app.router.add_get("/crash", crash)
    app.router.add_get("/talk", talk)
    return app


@pytest.fixture
def start(aiohttp_client, registry):
    """Return a client of an application that is instrumented with some options."""

    async def start(*, app=None, **options):
        options.setdefault("exemplars", "traceparent")
        return await aiohttp_client(instrument(app or application(), registry=registry, **options))

    return start


async def exemplars(client, path="/metrics"):
    """Return the exemplars of a scrape: the value and the time, by the name and the bound or status, and the trace."""
    response = await client.get(path, headers={"Accept": "application/openmetrics-text"})
    return {
        (sample.name, sample.labels.get("le", sample.labels.get("status")), sample.exemplar.labels["trace_id"]): (
            sample.exemplar.value,
            float(sample.exemplar.timestamp),
        )
        for family in text_string_to_metric_families(await response.text())
        for sample in family.samples
        if sample.exemplar and sample.exemplar.labels["span_id"] == SPAN
    }


@pytest.mark.parametrize(
    "options",
    [{"detail": "basic"}, {"detail": "full"}, {"latency_by_status": True}, {"native_histograms": True}],
    ids=str,
)
async def test_a_trace_is_in_the_bucket_of_its_request(start, options):
    """Its value is the latency, between what the handler waits for and what the client waits for; the time is the end."""
    client, expected = await start(**options), {}
    for seconds in (0.0, 0.12, 0.6):  # far apart, so that each is in a bucket of its own on a busy machine, too
        trace_id, began = new_trace(), perf_counter()
        await client.get(f"/wait?seconds={seconds}", headers=parent(trace_id))
        expected[trace_id] = seconds, perf_counter() - began
    kept = await exemplars(client)
    assert len(kept) == len(expected)
    for (name, bound, trace_id), (value, timestamp) in kept.items():
        least, most = expected[trace_id]
        assert name == "request_latency_bucket"
        assert least <= value <= most
        bounds = [low for low in (0.0, *LATENCY_BUCKETS) if low < value]
        assert bounds[-1] < value <= float(bound)
        assert float(bound) in {*LATENCY_BUCKETS}
        assert abs(time() - timestamp) < 60


async def test_a_bucket_keeps_its_exemplar_for_ten_seconds(start, monkeypatch):
    """So that there is time to look at it, and most requests cost next to nothing."""
    assert traced_records.KEPT_SECONDS == 10.0
    client, first, second, third = await start(buckets=[60.0]), new_trace(), new_trace(), new_trace()
    for trace_id in (first, second):
        await client.get("/wait", headers=parent(trace_id))
    assert {key[2] for key in await exemplars(client)} == {first}
    monkeypatch.setattr(traced_records, "KEPT_SECONDS", 0.0)
    client = await start(buckets=[60.0], metric_prefix="other_")
    for trace_id in (first, second, third):
        await client.get("/wait", headers=parent(trace_id))
    assert {key[2] for key in await exemplars(client) if key[0].startswith("other_")} == {third}


async def test_a_bucket_does_not_look_for_a_trace_at_each_request(start, monkeypatch):
    """After one without a trace it waits a hundredth of a second. An error is looked at all the same."""
    assert traced_records.MISSED_SECONDS == 0.01
    monkeypatch.setattr(traced_records, "MISSED_SECONDS", 60.0)
    client, sampled, wrong = await start(buckets=[60.0]), new_trace(), new_trace()
    await client.get("/wait", headers=parent(new_trace(), "00"))
    await client.get("/wait", headers=parent(sampled))
    await client.get("/wait?status=503", headers=parent(wrong))
    assert {(name, shown) for name, _, shown in await exemplars(client)} == {("request_count_total", wrong)}
    monkeypatch.setattr(traced_records, "MISSED_SECONDS", 0.0)
    client = await start(buckets=[60.0], metric_prefix="other_")
    await client.get("/wait")
    await client.get("/wait", headers=parent(sampled))
    assert {key[2] for key in await exemplars(client) if key[0].startswith("other_")} == {sampled}


@pytest.mark.parametrize("native_histograms", [False, True])
@pytest.mark.parametrize("detail", ["basic", "full"])
async def test_records_with_exemplars_count_as_those_without(aiohttp_client, detail, native_histograms):
    """They count by themselves, so that a request costs less."""
    scrapes = []
    for source in ("off", "traceparent"):
        registry = CollectorRegistry()
        client = await aiohttp_client(
            instrument(
                application(), registry=registry, detail=detail, native_histograms=native_histograms, exemplars=source
            )
        )
        for path in ("/wait", "/wait?seconds=0.001", "/crash", "/talk", "/nowhere"):
            await client.get(path, headers=parent(new_trace()))
        async with client.ws_connect("/talk") as socket:
            await socket.receive()
        samples = (sample for family in registry.collect() for sample in family.samples)
        scrapes.append(
            sorted(
                (sample.name, *sorted(sample.labels.items()), sample.value)
                for sample in samples
                if sample.name.endswith(("_count", "_total", "in_progress")) and "seconds" not in sample.name
            )
        )
    assert scrapes[0] == scrapes[1]


@pytest.mark.parametrize("second", [0.0006, 0.0049], ids=str)
async def test_a_native_histogram_keeps_one_exemplar_a_classic_bucket(registry, second):
    """Latencies in two cells of one classic bucket have one between them."""
    records = Records(registry, native_histograms=True, exemplars="traceparent")
    record, first = records.request(("GET", "/")), new_trace()
    for trace_id, seconds in ((first, 0.0011), (new_trace(), second), (last := new_trace(), 0.0051)):
        request = make_mocked_request("GET", "/", headers=parent(trace_id))
        record.begin()
        record.end(SimpleNamespace(request=request, began=1000.0), "200", seconds)
    (family,) = (family for family in registry.collect() if family.name == "request_latency")
    traces = [sample.exemplar.labels["trace_id"] for sample in family.samples if sample.exemplar]
    assert traces == [first, last]


async def test_the_counter_of_an_error_has_the_latest(start):
    """Of each status from 500 on, however soon after another one; other statuses have none."""
    client, traces = await start(buckets=[60.0]), [new_trace() for _ in range(5)]
    for trace_id, path in zip(
        traces, ["/crash", "/wait?status=503", "/crash", "/wait?status=404", "/nowhere"], strict=True
    ):
        await client.get(path, headers=parent(trace_id))
    counters = {key[1:]: value[0] for key, value in (await exemplars(client)).items() if "request_count" in key[0]}
    assert counters == {("500", traces[2]): 1.0, ("503", traces[1]): 1.0}


@pytest.mark.parametrize(
    "headers",
    [{}, parent("1" * 32, "00"), parent("0" * 32), parent("x"), [*parent("1" * 32).items(), *parent("2" * 32).items()]],
    ids=["none", "not sampled", "zeros", "not hexadecimal", "two"],
)
async def test_only_the_traces_of_sampled_requests_are_kept(start, headers):
    """Others cannot be looked at. Two headers contradict each other."""
    client = await start()
    await client.get("/crash", headers=headers)
    assert not await exemplars(client)


async def test_a_websocket_is_no_exemplar(start, registry):
    """It has no latency, unlike a request that asks for none."""
    client = await start()
    assert (await client.get("/talk")).status == 400
    async with client.ws_connect("/talk", headers=parent(new_trace())) as socket:
        await socket.receive()
    assert (await counted(registry))["GET", "/talk", "101"] == 1
    assert not await exemplars(client)


async def test_off_by_default(start):
    """Without the option a trace is in no metric."""
    client = await start(exemplars="off")
    await client.get("/crash", headers=parent(new_trace()))
    assert not await exemplars(client)


@pytest.mark.parametrize("options", [{}, {"latency_by_status": True, "native_histograms": True}], ids=str)
async def test_a_monitor_that_inherits_the_default_one_keeps_them_too(start, registry, options):
    """It may do something else besides."""

    class Monitor(RequestMonitor):
        pass

    ours = hrprometheus_middleware(Monitor, exemplars="traceparent", registry=registry, **options)
    client, trace_id = await start(app=application(middlewares=[ours]), exemplars="off"), new_trace()
    await client.get("/crash", headers=parent(trace_id))
    assert {(name, shown) for name, _, shown in await exemplars(client)} == {
        ("request_latency_bucket", trace_id),
        ("request_count_total", trace_id),
    }


async def test_exemplars_do_not_grow_with_the_requests(start, registry):
    """There is one a bucket of each series, and nothing else."""
    client = await start(buckets=[60.0])
    for _ in range(30):
        await client.get("/crash", headers=parent(new_trace()))
    assert len(await exemplars(client)) == 2


def unknown(exemplars):
    with pytest.raises(ConfigurationError) as error:
        hrprometheus_middleware(exemplars=exemplars)
    return str(error.value)


def test_an_unknown_source():
    """The message says what there is."""
    assert unknown("tracparent") == (
        "exemplars='tracparent': unknown source. Did you mean \"traceparent\"? Expected one of off, traceparent, otel."
    )
    assert "Expected one of" in unknown(None)


@web.middleware
async def traces(request, handler):
    """Serve a request in a span, as the middlewares of OpenTelemetry do: its trace is in a header of the test's own."""
    flags = trace.TraceFlags(int(request.query.get("sampled", "1")))
    ids = int(request.headers.get("X-Trace", "0"), 16), int(SPAN, 16)
    span = trace.NonRecordingSpan(trace.SpanContext(*ids, is_remote=False, trace_flags=flags))
    with trace.use_span(span):
        return await handler(request)


@web.middleware
async def adds_header(request, handler):
    response = await handler(request)
    response.headers["X-Added"] = "1"
    return response


async def test_the_span_of_a_middleware_further_in(start):
    """Its trace is in the bucket of the latency, which begins before the span and ends after it."""
    client = await start(app=application(middlewares=[adds_header, traces]), exemplars="otel", detail="basic")
    slow, wrong, not_sampled = new_trace(), new_trace(), new_trace()
    headers = parent(new_trace())  # does not count
    response = await client.get("/wait?seconds=0.03", headers={"X-Trace": slow, **headers})
    assert response.headers["X-Added"] == "1"
    await client.get("/wait?status=503", headers={"X-Trace": wrong})
    await client.get("/crash?sampled=0", headers={"X-Trace": not_sampled})
    kept = await exemplars(client)
    assert {(name, trace_id) for name, _, trace_id in kept} == {
        ("request_latency_bucket", slow),
        ("request_latency_bucket", wrong),
        ("request_count_total", wrong),
    }
    assert all(value >= 0.03 for (_, _, trace_id), (value, _) in kept.items() if trace_id == slow)


async def test_our_second_middleware_is_the_innermost(start):
    """Those of the application, also of its start-up, keep their order before it."""

    async def add_in_start_up(app):
        app.middlewares.append(adds_header)

    app = application(middlewares=[traces])
    app.on_startup.append(add_in_start_up)
    await start(app=app, exemplars="otel")
    names = [middleware.__name__ for middleware in app.middlewares]
    assert names == ["record_request", "traces", "adds_header", "keep_context"]


async def test_a_sub_application_has_a_second_middleware(aiohttp_client, registry):
    """Its middlewares are frozen when it is added to another application."""
    part, whole, trace_id = application(middlewares=[traces]), web.Application(), new_trace()
    whole.add_subapp("/part", instrument(part, registry=registry, exemplars="otel"))
    client = await aiohttp_client(whole)
    await client.get("/part/wait", headers={"X-Trace": trace_id})
    assert [middleware.__name__ for middleware in part.middlewares] == ["record_request", "traces", "keep_context"]
    assert {key[2] for key in await exemplars(client, "/part/metrics")} == {trace_id}


async def test_a_middleware_alone_cannot_see_spans(aiohttp_client, registry, caplog):
    """It says so at the first request."""
    app = application(middlewares=[hrprometheus_middleware(exemplars="otel", registry=registry)])
    client = await aiohttp_client(app)
    for _ in range(2):
        await client.get("/wait")
    assert [record.message for record in caplog.records if "exemplars" in record.message] == [
        'exemplars="otel": this middleware alone sees no span. Add it with instrument(app).'
    ]


def test_opentelemetry_may_be_missing(monkeypatch):
    """The message says how to repair that."""
    monkeypatch.setitem(sys.modules, "opentelemetry.trace", None)
    assert unknown("otel") == (
        'exemplars="otel" needs opentelemetry-api, which is not installed. Install hr-prometheus with the extra "otel".'
    )
