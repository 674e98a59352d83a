"""Scraping one URL again and again."""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
import urllib.request
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import pytest
from conftest import DEADLINE

from hr_prometheus.errors import ScrapeError, SettingError
from hr_prometheus.names import Naming
from hr_prometheus.status import scraper
from hr_prometheus.status.route_counters import BUCKETS, REQUESTS, Route, samples_of
from hr_prometheus.status.scraper import Scraper

if TYPE_CHECKING:
    from collections.abc import Iterator

TLS = Path(__file__).parent / "tls"
ROUTE = Route("GET", "/")
LABELS = 'method="GET",path="/"'
SAMPLES = (
    f'request_latency_bucket{{{LABELS},le="+Inf"}} 3\nrequest_count_total{{{LABELS},status="200"}} 3\n'
    f"requests_in_progress{{{LABELS}}} 0\n"
)


#: The same with the names of OpenTelemetry. What has no name there has that of the seed.
OTEL_LABELS = 'http_request_method="GET",http_route="/",http_response_status_code="200"'
OTEL_SAMPLES = "".join(
    f"http_server_request_duration_seconds_{suffix} {number}\n"
    for suffix, number in [(f'bucket{{{OTEL_LABELS},le="+Inf"}}', 4), (f"count{{{OTEL_LABELS}}}", 4)]
)
LOOP_SAMPLE = f"request_loop_seconds_total{{{LABELS}}} 1\n"


class Metrics:
    """A server of metrics. *queries* are the names that were asked for; *selects* is whether it sends no others.

    *authorizations* are the headers of all requests, by path.
    """

    def __init__(self, text: str, *, selects: bool = True, code_for_names: int = 200) -> None:
        self.text, self.selects, self.code_for_names = text, selects, code_for_names
        self.queries: list[list[str]] = []
        self.authorizations: list[tuple[str, str | None]] = []
        self.elsewhere = ""
        self.url = ""

    def answer(self, names: list[str]) -> tuple[int, str]:
        """Return a status and a body."""
        self.queries.append(names)
        if names and self.selects:
            lines = [line for line in self.text.splitlines(keepends=True) if line.partition("{")[0] in names]
            return self.code_for_names, "".join(lines)
        return self.code_for_names if names else 200, self.text


@contextmanager
def served(metrics: Metrics, tls: ssl.SSLContext | None = None) -> Iterator[Metrics]:
    """Serve the metrics at ``/metrics``, a redirection to them at ``/moved``, and at ``/events`` what does not end."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            metrics.authorizations.append((parts.path, self.headers["Authorization"]))
            if parts.path == "/moved":
                self.send_response(302)
                self.send_header("Location", f"{metrics.elsewhere}/metrics?{parts.query}")
                self.end_headers()
                return
            if parts.path == "/events":
                self.send_response(200)
                self.end_headers()
                with suppress(OSError):
                    while True:
                        self.wfile.write(b"data: x\n\n")
                return
            code, text = metrics.answer(parse_qs(parts.query).get("name[]", []))
            self.send_response(code if parts.path == "/metrics" else 404)
            self.send_header("Content-Length", str(len(text.encode())))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    metrics.url = f"http{'s' * (tls is not None)}://127.0.0.1:{server.server_port}/metrics"
    try:
        yield metrics
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_only_what_is_needed_is_asked_for():
    """The first scrape shows the metric prefix; from then on the samples are asked for by name."""
    with served(Metrics("app_" + SAMPLES.replace("\nrequest", "\napp_request"))) as metrics:
        subject = Scraper(metrics.url)
        for _ in range(3):
            assert subject.scrape().routes[ROUTE].counters[REQUESTS, "200"] == 3
    names = [*samples_of(Naming("app_"))]
    assert {f"app_{REQUESTS}", f"app_{BUCKETS}"} <= {*names}
    assert metrics.queries == [[], names, names]


@pytest.mark.parametrize("refusal", [{"code_for_names": 400}, {"text": "x{} 1\n" + SAMPLES}])
def test_a_server_that_cannot_select(refusal):
    """One that refuses names, or answers with nothing, is asked for everything."""
    metrics = Metrics(**{"text": SAMPLES, **refusal})
    if "text" in refusal:
        metrics.answer = lambda names: (metrics.queries.append(names), (200, "" if names else metrics.text))[1]
    with served(metrics):
        subject = Scraper(metrics.url)
        for _ in range(3):
            assert subject.scrape().routes
    assert [bool(query) for query in metrics.queries] == [False, True, False, False]


def test_a_server_that_sends_everything():
    """One that does not know ``name[]`` is understood."""
    with served(Metrics("other 1\n" + SAMPLES, selects=False)) as metrics:
        subject = Scraper(metrics.url)
        assert subject.scrape().routes == subject.scrape().routes


def test_a_restart_with_another_prefix():
    """It is seen at the next scrape, and names are asked for as before."""
    with served(Metrics(SAMPLES)) as metrics:
        subject = Scraper(metrics.url)
        subject.scrape()
        metrics.text = "app_" + SAMPLES.replace("\nrequest", "\napp_request")
        assert subject.scrape().routes
        assert subject.scrape().routes
    assert metrics.queries[-1][0].startswith("app_")


@pytest.mark.parametrize(("before", "after", "number"), [(SAMPLES, OTEL_SAMPLES, 4), (OTEL_SAMPLES, SAMPLES, 3)])
def test_a_restart_with_another_name_set(before, after, number):
    """It is seen at the next scrape, though some metrics are called the same, and names are asked for as before."""
    with served(Metrics(before + LOOP_SAMPLE)) as metrics:
        subject = Scraper(metrics.url)
        subject.scrape()
        metrics.text = after + LOOP_SAMPLE
        for _ in range(2):
            assert subject.scrape().routes[ROUTE].counters[REQUESTS, "200"] == number
    assert [bool(query) for query in metrics.queries] == [False, True, False, True]


def test_metrics_without_requests():
    """There are none before the first request: that is no error, and they come."""
    with served(Metrics("other 1\n")) as metrics:
        subject = Scraper(metrics.url)
        assert subject.scrape().routes == {}
        metrics.text = SAMPLES
        assert subject.scrape().routes
        metrics.text = "other 1\n"
        assert subject.scrape().routes == {}


def test_a_redirection():
    """It is followed."""
    with served(Metrics(SAMPLES)) as metrics:
        assert Scraper(metrics.url.replace("metrics", "moved")).scrape().routes


def test_a_password():
    """It is sent each time, but to no other server that a redirection names."""
    basic = "Basic bWU6cHc="
    with served(Metrics(SAMPLES)) as metrics, served(Metrics(SAMPLES)) as other:
        subject = Scraper(metrics.url.replace("metrics", "moved"), authorization=basic)
        subject.scrape()
        assert metrics.authorizations == [("/moved", basic), ("/metrics", basic)]
        metrics.elsewhere = other.url.removesuffix("/metrics")
        subject.scrape()
        assert other.authorizations == [("/metrics", None)]


def test_a_certificate_of_an_authority_of_ones_own():
    """It is refused, unless its file is given."""
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(TLS / "certificate.pem", TLS / "key.pem")
    with served(Metrics(SAMPLES), tls) as metrics:
        expected = "has a certificate that is refused: self-signed certificate. Trust its issuer with --ca-file."
        assert sentence(metrics.url) == expected
        assert Scraper(metrics.url, ca_file=str(TLS / "certificate.pem")).scrape().routes


def test_what_is_no_file_of_certificates(tmp_path):
    """A file that is not there, and one of something else, are a sentence each."""
    path = str(tmp_path / "ca.pem")
    with pytest.raises(ScrapeError) as error:
        Scraper("http://127.0.0.1:1/", ca_file=path)
    assert str(error.value) == f'--ca-file "{path}": No such file or directory. Expected certificates in PEM format.'
    (tmp_path / "ca.pem").write_text("nothing\n")
    with pytest.raises(SettingError) as setting_error:
        Scraper("http://127.0.0.1:1/", ca_file=path)
    assert str(setting_error.value) == f'--ca-file "{path}" has no certificate. Expected one or more in PEM format.'


def test_a_proxy_in_the_environment(monkeypatch):
    """It is not used: metrics are near."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with served(Metrics(SAMPLES)) as metrics:
        assert Scraper(metrics.url).scrape().routes


def sentence(url: str) -> str:
    """Return what a scrape of a URL fails with, without the URL."""
    with pytest.raises(ScrapeError) as error:
        Scraper(url).scrape()
    return str(error.value).removeprefix(f'"{url}" ')


def test_what_is_no_metrics():
    """A status, a page and a broken value are a sentence each."""
    with served(Metrics("<p>hello</p>\n")) as metrics:
        assert sentence(metrics.url) == "does not answer with metrics. Is it the URL of the metrics?"
        assert sentence(metrics.url + "x") == "answers with 404 Not Found, instead of metrics."
        metrics.text = SAMPLES.replace("} 3", "} three")
        assert sentence(metrics.url).startswith("answers with metrics that cannot be read: ")


def test_nothing_that_answers():
    """A port without a server, and a server of something else."""
    with served(Metrics(SAMPLES)) as metrics:
        assert sentence(metrics.url.replace("http", "https")).startswith("does not answer: [SSL")
    assert sentence(metrics.url) == "does not answer: Connection refused."


@pytest.mark.parametrize(
    ("scheme", "advice"), [("http", 'Is it "https"?'), ("https", "Give a client's certificate with --cert-file")]
)
def test_a_server_that_only_closes_the_connection(monkeypatch, scheme, advice):
    """The advice fits the URL."""

    def close(*_arguments, **_options):
        raise http.client.RemoteDisconnected

    monkeypatch.setattr(urllib.request.OpenerDirector, "open", close)
    assert sentence(f"{scheme}://h/metrics").startswith(f"does not answer as a server of HTTP does. {advice}")


def test_an_answer_without_an_end(monkeypatch):
    """It is given up, after a time or a size, as one that does not come at all."""
    expected = "answers without an end. Is it the URL of the metrics?"
    with served(Metrics(SAMPLES)) as metrics:
        monkeypatch.setattr(scraper, "TIMEOUT", 0.2)
        assert sentence(metrics.url.replace("metrics", "events")) == expected
        monkeypatch.setattr(scraper, "TIMEOUT", DEADLINE)
        monkeypatch.setattr(scraper, "_LONGEST_BODY", 1)
        assert sentence(metrics.url) == expected


def test_an_answer_that_does_not_come(monkeypatch):
    """It is given up after a time."""
    monkeypatch.setattr(scraper, "TIMEOUT", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert sentence(f"http://127.0.0.1:{silent.getsockname()[1]}/metrics") == "does not answer: timed out."
