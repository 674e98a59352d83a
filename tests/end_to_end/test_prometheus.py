"""What a real Prometheus makes of the metrics, and of the rules for them."""

from __future__ import annotations

import asyncio
import http.server
import json
import math
import re
import sys
import threading
import time
import urllib.request
from collections import Counter
from decimal import Decimal
from functools import partial
from uuid import uuid4
from wsgiref.simple_server import WSGIRequestHandler, make_server

import aiohttp
import pytest
from conftest import APPS, DEADLINE, counts, hr_prometheus, samples, wait_for
from prometheus_client import CollectorRegistry
from test_serving import get, scrape

from hr_prometheus.exposition.formats import TEXT
from hr_prometheus.metric import LATENCY_BUCKETS
from hr_prometheus.metrics import ERRORS, IN_PROGRESS, LOOP_BLOCKED, LOOP_BLOCKED_SECONDS, METRICS, WORKER_RESTARTS
from hr_prometheus.observability.dry_run import load_application
from hr_prometheus.observability.objectives import ServiceLevels, objectives_of
from hr_prometheus.observability.promql import ApplicationMetrics, route_matchers
from hr_prometheus.observability.route_table import rows_of
from hr_prometheus.observability.rule_tests import render_rule_tests
from hr_prometheus.observability.rules import render_rules
from hr_prometheus.settings import Settings
from hr_prometheus.store.store import Store


class Relay(http.server.BaseHTTPRequestHandler):
    """Asks for a format of the test's, whatever the scraper accepts: Prometheus has its own order and cannot be told another."""

    def do_GET(self):
        request = urllib.request.Request(self.server.metrics_url, headers={"Accept": self.server.accept})
        with urllib.request.urlopen(request, timeout=DEADLINE) as response:
            body = response.read()
            self.send_response(200)
            self.send_header("Content-Type", response.headers["Content-Type"])
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments):
        pass


@pytest.fixture
def relay():
    """Return the address at which the metrics of another one are to be had in a format: by default as text."""
    servers = []

    def relay(url, accept="text/plain;version=0.0.4"):
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Relay)
        server.metrics_url, server.accept = url, accept
        threading.Thread(target=server.serve_forever).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}/metrics"

    yield relay
    for server in servers:
        server.shutdown()
        server.server_close()


def ours(service):
    """Return the samples of the catalogue's metrics in a scrape, by name and labels, without times of creation."""
    names = tuple(metric.name for metric in METRICS)
    return {key: value for key, value in samples(scrape(service)).items() if key.startswith(names)}


@pytest.mark.parametrize("form", ["openmetrics", "text", "protobuf"])
@pytest.mark.parametrize("processes", [(), ("--workers", "2")], ids=["one process", "workers"])
def test_prometheus_knows_what_happened(serve, request, relay, processes, form):
    """Each sample of ours arrives with its labels, odd ones too; counts are exact, and a quantile is in its bucket."""
    prometheus = request.getfixturevalue("native_prometheus" if form == "protobuf" else "prometheus")
    service = serve("observed:create_app", "--port", "0", "--metrics-port", "0", "--keep-values", "all", *processes)
    expected = {}
    for path, label, status, times in (
        ("/", "/", "200", 7),
        ("/slow", "/slow", "200", 3),
        ("/broken", "/broken", "503", 2),
        ("/nowhere", "unmatched", "404", 1),
        ("/items/%22%5C%0A%C3%A4%F0%9F%92%A5", '/items/"\\\nä\N{COLLISION SYMBOL}', "200", 1),
        ("/items/2", "/items/2", "200", 1),
        ("/items/3", "/items/3", "200", 1),
    ):
        for _ in range(times):
            get(service.url + path)
        expected["GET", label, status] = float(times)
    assert counts(scrape(service)) == expected
    job = f"{form}{len(processes)}"  # of a job's own, so that nothing is left of another one
    prometheus.scrape(job, relay(service.metrics_url) if form == "text" else service.metrics_url)
    found = wait_for(
        lambda: prometheus.query(f'sum by (method, path, status) (request_count_total{{job="{job}"}})'), bool
    )
    assert {tuple(value for _, value in labels): value for labels, value in found.items()} == expected
    exposed = Counter(key.partition("{")[0] for key in ours(service))
    query = f'count by (__name__) ({{job="{job}",__name__=~"{"|".join(names())}"}})'
    wait_for(
        lambda: {
            each["metric"]["__name__"]: int(each["value"][1]) for each in prometheus.get("query", query=query)["result"]
        },
        lambda stored: stored == exposed,
    )
    (quantile,) = prometheus.query(
        f'histogram_quantile(0.5, request_latency_bucket{{job="{job}",path="/slow"}})'
    ).values()
    assert 0.25 <= quantile <= 0.5
    assert bool(prometheus.query(f'request_count_created{{job="{job}"}}')) == (form == "openmetrics")
    (target,) = prometheus.get("targets")["activeTargets"]
    assert (target["health"], target["lastError"]) == ("up", "")


@pytest.mark.parametrize(
    ("processes", "series"),
    [((), 7), (("--workers", "2", "--no-loop-metrics"), 6)],
    ids=["one process", "workers without loop metrics"],
)
def test_native_histograms(serve, native_prometheus, prometheus, processes, series):
    """Who asks for them has exact counts, quantiles within 5 % and few series a label; others go on as before."""
    options = ("--port", "0", "--metrics-port", "0", "--native-histograms", *processes)
    service = serve("observed:create_app", *options, HR_PROMETHEUS_BLOCKED_AFTER="")
    for path, times in (("/", 7), ("/slow", 1), ("/broken", 2)):
        for _ in range(times):
            get(service.url + path)
    wait_for(lambda: sum(counts(scrape(service)).values()), lambda total: total == 10)
    text, job = samples(scrape(service)), f"native{len(processes)}"
    expected = {(("path", "/"),): 7, (("path", "/slow"),): 1, (("path", "/broken"),): 2}
    for server, each in (
        (native_prometheus, "histogram_count(request_latency{JOB})"),
        (prometheus, "request_latency_count{JOB}"),
    ):
        server.scrape(job, service.metrics_url)
        query = "sum by (path) (" + each.replace("JOB", f'job="{job}"') + ")"
        assert wait_for(partial(server.query, query), bool) == expected
        (target,) = server.get("targets")["activeTargets"]
        assert (target["health"], target["lastError"]) == ("up", "")
    slow = f'{{job="{job}",path="/slow"}}'
    (quantile,) = native_prometheus.query(f"histogram_quantile(0.5, request_latency{slow})").values()
    assert quantile == pytest.approx(text['request_latency_sum{method="GET",path="/slow"}'], rel=0.05)
    assert native_prometheus.query(f'count({{job="{job}",path="/slow",method="GET"}})') == {(): series}
    assert native_prometheus.query(f"request_latency_bucket{slow}") == {}
    assert len(prometheus.query(f"request_latency_bucket{slow}")) == 15
    assert prometheus.query(f'histogram_count(request_latency{{job="{job}"}})') == {}


@pytest.mark.parametrize(
    ("form", "options"),
    [("openmetrics", ()), ("protobuf", ("--workers", "2")), ("native", ("--native-histograms",))],
    ids=["one process", "workers", "native"],
)
def test_prometheus_finds_the_traces_that_the_client_has_sent(serve, native_prometheus, relay, form, options):
    """Each is at the bucket in which the latency of its request lies, or at the counter of its error."""
    options = ("--port", "0", "--metrics-port", "0", "--exemplars", "traceparent", *options)
    service, sent = serve("observed:create_app", *options), {}
    for path in ("/", "/slow", "/slow", "/broken", "/broken"):
        trace = uuid4().hex
        get(service.url + path, traceparent=f"00-{trace}-b7ad6b7169203331-01")
        sent[trace] = path
    job, accept = f"exemplars-{form}", "application/openmetrics-text;version=1.0.0"
    native_prometheus.scrape(job, relay(service.metrics_url, accept) if form == "openmetrics" else service.metrics_url)
    query = {"query": f'{{job="{job}"}}', "start": time.time() - DEADLINE, "end": time.time() + DEADLINE}
    found = wait_for(lambda: native_prometheus.get("query_exemplars", **query), lambda found: len(found) >= 4)
    by_path = {}
    for each in found:
        labels = each["seriesLabels"]
        for exemplar in each["exemplars"]:
            trace, value = exemplar["labels"]["trace_id"], float(exemplar["value"])
            path = labels["path"]
            assert sent[trace] == path
            assert exemplar["labels"]["span_id"] == "b7ad6b7169203331"
            by_path.setdefault((labels["__name__"], path), []).append(trace)
            if labels["__name__"].startswith("request_latency"):
                assert value >= (0.29 if path == "/slow" else 0.0)  # uvloop's clock counts whole milliseconds
            if "le" in labels:
                bound = next(bound for bound in (*LATENCY_BUCKETS, math.inf) if value <= bound)
                assert float(labels["le"]) == bound
    assert by_path.pop(("request_count_total", "/broken"))
    latency = "request_latency" if form == "native" else "request_latency_bucket"
    assert {*by_path} == {(latency, path) for path in ("/", "/slow", "/broken")}


@pytest.mark.parametrize(
    ("application", "processes"),
    [
        (("calling:create_app", "--native-histograms"), ()),
        (("calling:create_app", "--native-histograms"), ("--workers", "2")),
        (("calling:native",), ("--workers", "2")),
    ],
    ids=["one process", "workers", "by itself"],
)
def test_native_histograms_of_calls_lags_and_scrapes(serve, native_prometheus, tmp_path, application, processes):
    """They have no classic buckets either, counts are exact, and the dashboard and the rules find them."""
    application = (*application, "--client-metrics", "--client-by-route")
    service = serve(*application, "--port", "0", "--metrics-port", "0", *processes)
    job, calls, served = f"calls-{len(application)}-{len(processes)}", 0, []
    native_prometheus.scrape(job, service.metrics_url)

    def call():
        nonlocal calls
        served.append(get(f"{service.url}/call?url={service.metrics_url}"))
        calls += 1

    call()
    expected = (("client", "default"), ("path", "/call"))
    for name in ("client_request_latency", "client_request_first_byte_latency", "client_response_size_bytes"):
        query = f'sum by (client, path) (histogram_count({name}{{job="{job}"}}))'
        assert wait_for(partial(native_prometheus.query, query), bool) == {expected: 1}
    size = f'histogram_sum(client_response_size_bytes{{job="{job}"}})'
    text = samples(scrape(service))
    assert [*native_prometheus.query(size).values()] == [
        value for name, value in text.items() if name.startswith("client_response_size_bytes_sum")
    ]
    board = hr_prometheus("dashboard", *application, "--job", job).stdout
    rules = tmp_path / "rules.yml"
    hr_prometheus("rules", *application, "--job", job, "--output", str(rules))
    native_prometheus.load_rules(rules)
    panels = [each for panel in json.loads(board)["panels"] for each in (panel, *panel.get("panels", ()))]
    queries = [target["expr"] for panel in panels for target in panel.get("targets", ())]
    histograms = [metric.name for metric in METRICS if metric.type == "histogram" and metric.name.startswith(OF_CALLS)]
    found = [query for query in queries if any(name in query for name in histograms)]
    assert len(found) > 20

    def ask(query):
        call()
        return [query, *numbers(native_prometheus.query(query))]

    for query in [*found, f'job_client_host:client_request_latency:quantile_rate5m{{job="{job}"}}']:
        filled = query.replace("$__rate_interval", "5s").replace("$job", job).replace("$instance", ".*")
        wait_for(partial(ask, filled), lambda found: len(found) > 1)
    assert native_prometheus.query(f'{{job="{job}",__name__=~".*_bucket"}}') == {}
    query = f'sum (histogram_count(client_request_latency{{job="{job}"}}))'
    wait_for(partial(native_prometheus.query, query), lambda found: [*found.values()] == [calls])
    assert [status for status, _ in served] == [200] * calls


#: The histograms that always count something, besides those of requests.
OF_CALLS = ("client_re", "asyncio_event_loop_lag", "hr_prometheus_scrape_duration")


def names():
    """Return the patterns of the names of our samples."""
    return [f"{metric.name}(_total|_bucket|_sum|_count)?" for metric in METRICS]


@pytest.fixture
def everything():
    """Serve each metric of the catalogue, with two series that count, at an address which is returned."""
    registry, store = CollectorRegistry(), Store(METRICS)
    registry.register(store)
    series = [
        (metric, *store.allocate(metric, tuple(f"{label}{number}" for label in metric.labels)))
        for metric in METRICS
        for number in range(2)
        if metric.ends_in is None  # else its cells are those of the histogram
    ]

    def render(_environ, start_response):
        for metric, page, first in series:
            page[first] += 1.0
            if metric.type == "histogram":
                page[first + 1] += 1.0
            if metric in IN_PROGRESS:
                page[first - 1] += 2.0
        start_response("200 OK", [("Content-Type", TEXT.content_type)])
        return [TEXT.render(registry)]

    with make_server("127.0.0.1", 0, render, handler_class=Silent) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/metrics"
        server.shutdown()
        thread.join()


class Silent(WSGIRequestHandler):
    def log_message(self, *_arguments):
        pass


def test_promtool_finds_nothing_wrong_with_the_names(everything, promtool):
    """Each name, help and sample is as the conventions want it."""
    text = get(everything)[1]
    assert text.count("# TYPE ") == len(METRICS)
    done = promtool("check", "metrics", stdin=text)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    assert "should have" in promtool("check", "metrics", stdin=text.replace("_total", "")).stderr


@pytest.fixture
def traffic():
    """Send requests of every kind to an address, as fast as they are answered, until the end of the test."""
    stop, threads = threading.Event(), []

    async def send(url):
        async with aiohttp.ClientSession(url) as session, session.ws_connect("/talk"):  # one that stays open
            while not stop.is_set():
                for path in ("/", "/broken", "/slow", "/nowhere", "/talk", f"/items/{uuid4()}"):
                    await (await session.get(path)).read()
                await (await session.put("/items/1", data=b"x" * 100)).read()
                async with session.ws_connect("/talk") as socket:
                    await socket.send_str("hello")
                    await socket.receive()

    def start(url):
        threads.append(threading.Thread(target=asyncio.run, args=[send(url)]))
        threads[-1].start()

    yield start
    stop.set()
    for thread in threads:
        thread.join()


#: What no application shows of which no worker has died, no monitor is broken and no handler blocks the event loop.
ELSEWHERE = (WORKER_RESTARTS, ERRORS, LOOP_BLOCKED, LOOP_BLOCKED_SECONDS)


#: Names, and what follows from them: a route with bounds of its own has some in common with the others.
NAMES = {
    "seed": (),
    "http": ("--names", "http", "--latency-by-status", "--buckets", "slow=0.1,0.25,1", "--metric-prefix", "my_"),
    "otel": ("--names", "otel", "--latency-by-status", "--buckets", "slow=0.1,0.25,1"),
    "native": ("--names", "otel", "--native-histograms"),
    "several": ("--names", "http", "--names", "otel", "--names", "seed"),
}


@pytest.mark.parametrize("names", NAMES.values(), ids=NAMES)
def test_every_query_of_the_dashboard_finds_something(serve, request, everything, traffic, names):
    """Every panel of a running application's dashboard has data, and every variable has values."""
    prometheus = request.getfixturevalue("native_prometheus" if "--native-histograms" in names else "prometheus")
    options = ("--path-budget", "1", "--fixed-route", "put_item=*", "--keep-values", "all", *names)
    done = hr_prometheus("dashboard", "observed:create_app", *options, "--job", "shop")
    assert done.stderr == ""
    board = json.loads(done.stdout)
    service = serve("observed:create_app", "--workers", "2", "--port", "0", "--metrics-port", "0", *options)
    traffic(service.url)
    own = f"shop-{len(names)}-{''.join(names[1:2])}"  # so that nothing is left of another application
    prometheus.scrape(own, service.metrics_url)
    prometheus.scrape("everything", everything)
    panels = [each for panel in board["panels"] for each in (panel, *panel.get("panels", ()))]
    queries = [target["expr"] for panel in panels for target in panel.get("targets", ())]
    assert len(queries) > 60
    for query in queries:
        if '"/broken"' in query and ('outcome="ok"' in query or '!~"5.."' in query):
            continue  # it answers with errors only
        job = "everything" if any(metric.name in query for metric in ELSEWHERE) else own
        filled = (
            query.replace("$__rate_interval", "5s")
            .replace("$job", job)
            .replace("$instance", ".*")
            .replace("$path", ".*")
        )
        assert "$" not in filled
        wait_for(lambda filled=filled: [filled, *numbers(prometheus.query(filled))], lambda found: len(found) > 1)
    for variable in board["templating"]["list"][1:]:
        selector, label = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"]).groups()
        selector = selector.replace("$job", own).replace("$instance", ".*")
        assert prometheus.get(f"label/{label}/values", **{"match[]": selector})


def numbers(found):
    return [value for value in found.values() if not math.isnan(value)]


@pytest.mark.parametrize("names", NAMES.values(), ids=NAMES)
def test_the_rules_load_and_record(serve, request, tmp_path, names):
    """Prometheus evaluates each rule without an error, and has what is recorded of a route with an objective."""
    prometheus = request.getfixturevalue("native_prometheus" if "--native-histograms" in names else "prometheus")
    rules, job = tmp_path / "rules.yml", f"rules-{len(names)}-{''.join(names[1:2])}"
    done = hr_prometheus(
        "rules", "observed:create_app", "--job", job, "--path-budget", "2", "--latency", "0.25",
        "--objective", "item=99", "--output", str(rules), *names,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    service = serve("observed:create_app", "--port", "0", "--metrics-port", "0", "--path-budget", "2", *names)
    prometheus.scrape(job, service.metrics_url)
    prometheus.load_rules(rules)
    recorded = f'hr_prometheus:bad_requests:ratio_rate1h{{job="{job}"}}'

    def ask():
        get(f"{service.url}/items/1")
        get(f"{service.url}/")
        get(f"{service.url}/broken")
        get(f"{service.url}/slow")
        return {
            (dict(labels)["objective"], dict(labels)["route"]): v for labels, v in prometheus.query(recorded).items()
        }

    def are_known(found):
        return (
            len(found) == 4
            and found["errors", "*"] > 0
            and found["latency", "*"] > 0
            and not any(map(math.isnan, found.values()))
        )

    found = wait_for(ask, are_known)
    assert found["errors", "item"] == found["latency", "item"] == 0
    assert found["errors", "*"] < 1
    assert found["latency", "*"] < 1

    def states():
        groups = prometheus.get("rules")["groups"]
        return [(rule["health"], rule.get("lastError")) for group in groups for rule in group["rules"]]

    assert len(states()) > 20
    assert set(wait_for(states, lambda states: ("unknown", None) not in states)) == {("ok", None)}


def test_odd_routes(serve, prometheus, promtool, tmp_path):
    """The files for an application with the oddest routes load, and each route is told from the others."""
    settings = Settings(target="odd_routes:create_app", app_dir=str(APPS), keep_values="all")
    table = rows_of(load_application(settings)[0], settings)
    requests = sys.modules["odd_routes"].REQUESTS
    service = serve("odd_routes:create_app", "--port", "0", "--metrics-port", "0", "--keep-values", "all")
    for paths in requests.values():
        for path in paths:
            assert get(service.url + path)[0] == 200
    prometheus.scrape("odd", service.metrics_url)
    files = (tmp_path / "rules.yml", tmp_path / "tests.yml")
    # So low that no alert of theirs can fire, lower than the command takes: promtool would simulate days for each.
    objectives = objectives_of({"*": Decimal("0.99")} | dict.fromkeys(requests, Decimal("0.99")), table, "/metrics")
    levels = ServiceLevels(application=ApplicationMetrics(), job="odd", objectives=objectives)
    files[0].write_text(render_rules(levels))
    files[1].write_text(render_rule_tests(levels, "rules.yml"))
    tested = promtool("test", "rules", files[1])
    assert tested.returncode == 0, tested.stdout + tested.stderr
    prometheus.load_rules(files[0])
    recorded = 'hr_prometheus:requests:rate5m{job="odd"}'
    found = wait_for(lambda: prometheus.query(recorded), lambda found: len(found) == len(requests))
    assert {dict(labels)["route"] for labels in found} == {*requests}
    for row in table:
        if row.name:
            query = f"sum(request_count_total{{job='odd',{','.join(route_matchers(row, table))}}})"
            counted = wait_for(lambda query=query: [*prometheus.query(query).values()], bool)
            assert {row.name: counted} == {row.name: [len(requests[row.name])]}
    board = json.loads(hr_prometheus("dashboard", "odd_routes:create_app", "--job", "odd").stdout)
    for row in board["panels"]:
        for panel in row.get("panels", ()):
            prometheus.query(panel["targets"][0]["expr"].replace("$__rate_interval", "5s"))
