"""What a real Prometheus makes of the metrics, and of the rules for them."""

from __future__ import annotations

import http.server
import threading
import urllib.request
from wsgiref.simple_server import WSGIRequestHandler, make_server

import pytest
from conftest import DEADLINE, counts, hr_prometheus, samples, wait_for
from prometheus_client import CollectorRegistry
from test_serving import get, scrape

from hr_prometheus.catalog import METRICS
from hr_prometheus.exposition import TEXT
from hr_prometheus.series import Store


class Relay(http.server.BaseHTTPRequestHandler):
    """Asks for the text format, whatever the scraper accepts: Prometheus prefers OpenMetrics and cannot be told not to."""

    def do_GET(self):
        request = urllib.request.Request(self.server.metrics_url, headers={"Accept": "text/plain;version=0.0.4"})
        with urllib.request.urlopen(request, timeout=DEADLINE) as response:
            body = response.read()
            self.send_response(200)
            self.send_header("Content-Type", response.headers["Content-Type"])
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments):
        pass


@pytest.fixture
def as_text():
    """Return the address at which the metrics of another one are to be had as text."""
    servers = []

    def relay(url):
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Relay)
        server.metrics_url = url
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


@pytest.mark.parametrize("form", ["openmetrics", "text"])
def test_prometheus_knows_what_happened(serve, prometheus, as_text, form):
    """Each sample of ours arrives with its labels, odd ones too; counts are exact, and a quantile is in its bucket."""
    service = serve("observed:create_app", "--port", "0", "--metrics-port", "0", "--path-budget", "2")
    expected = {}
    for path, label, status, times in (
        ("/", "/", "200", 7),
        ("/slow", "/slow", "200", 3),
        ("/broken", "/broken", "503", 2),
        ("/nowhere", "unmatched", "404", 1),
        ("/items/%22%5C%0A%C3%A4%F0%9F%92%A5", '/items/"\\\nä\N{COLLISION SYMBOL}', "200", 1),
        ("/items/2", "/items/2", "200", 1),
        ("/items/3", "/items/{item}", "200", 1),
    ):
        for _ in range(times):
            get(service.url + path)
        expected["GET", label, status] = float(times)
    assert counts(scrape(service)) == expected
    prometheus.scrape(form, service.metrics_url if form == "openmetrics" else as_text(service.metrics_url))
    found = wait_for(
        lambda: prometheus.query(f'sum by (method, path, status) (request_count_total{{job="{form}"}})'), bool
    )
    assert {tuple(value for _, value in labels): value for labels, value in found.items()} == expected
    stored = wait_for(lambda: prometheus.query(f'count({{job="{form}",__name__=~"{"|".join(names())}"}})'), bool)
    assert set(stored.values()) == {float(len(ours(service)))}
    (quantile,) = prometheus.query(
        f'histogram_quantile(0.5, request_latency_bucket{{job="{form}",path="/slow"}})'
    ).values()
    assert 0.25 <= quantile <= 0.5
    assert bool(prometheus.query(f'request_count_created{{job="{form}"}}')) == (form == "openmetrics")
    (target,) = prometheus.get("targets")["activeTargets"]
    assert (target["health"], target["lastError"]) == ("up", "")


def names():
    """Return the patterns of the names of our samples."""
    return [f"{metric.name}(_total|_bucket|_sum|_count)?" for metric in METRICS]


@pytest.fixture
def everything():
    """Serve each metric of the catalogue, with two series that count, at an address which is returned."""
    registry, store = CollectorRegistry(), Store(METRICS)
    registry.register(store)
    series = [
        store.cells(metric, tuple(f"{label}{number}" for label in metric.labels))
        for metric in METRICS
        for number in range(2)
    ]

    def render(_environ, start_response):
        for page, first in series:
            page[first] += 1.0
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


def test_the_rules_load_and_record(serve, prometheus, tmp_path):
    """Prometheus evaluates each rule without an error, and has what is recorded of a route with an objective."""
    rules = tmp_path / "rules.yml"
    done = hr_prometheus(
        "rules", "observed:create_app", "--job", "rules", "--path-budget", "2", "--latency", "0.25",
        "--objective", "item=99", "--output", str(rules),
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    service = serve("observed:create_app", "--port", "0", "--metrics-port", "0", "--path-budget", "2")
    prometheus.scrape("rules", service.metrics_url)
    prometheus.load_rules(rules)
    recorded = 'hr_prometheus:bad_requests:ratio_rate1h{job="rules"}'

    def ask():
        get(f"{service.url}/items/1")
        get(f"{service.url}/broken")
        get(f"{service.url}/slow")
        return {
            (dict(labels)["objective"], dict(labels)["route"]): v for labels, v in prometheus.query(recorded).items()
        }

    found = wait_for(ask, lambda found: len(found) == 4 and found["errors", "*"] > 0 and found["latency", "*"] > 0)
    assert found["errors", "item"] == found["latency", "item"] == 0
    assert found["errors", "*"] < 1
    assert found["latency", "*"] < 1

    def states():
        groups = prometheus.get("rules")["groups"]
        return [(rule["health"], rule.get("lastError")) for group in groups for rule in group["rules"]]

    assert len(states()) > 20
    assert set(wait_for(states, lambda states: ("unknown", None) not in states)) == {("ok", None)}
