from __future__ import annotations

import socket

import pytest
from aiohttp import web

from hr_prometheus import hrprometheus_status_view, instrument
from hr_prometheus.errors import ConfigurationError
from hr_prometheus.server.metrics_routes import metrics_routes, where_metrics_are
from hr_prometheus.settings import Settings

EVERYWHERE = "0.0.0.0"  # noqa: S104  # which is what is tested


@pytest.fixture
def sockets():
    """Make sockets that are bound to the addresses of some hosts."""
    made = []

    def bind(*hosts: str) -> list[socket.socket]:
        for host in hosts:
            made.append(socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET))
            made[-1].bind((host, 0))
        return made[-len(hosts) :]

    yield bind
    for each in made:
        each.close()


@pytest.mark.parametrize(
    ("hosts", "status", "path"),
    [
        (["127.0.0.1"], None, "/"),
        (["127.0.0.9"], None, "/"),
        ([EVERYWHERE], None, None),
        (["127.0.0.1", EVERYWHERE], None, None),
        ([EVERYWHERE], True, "/"),
        (["127.0.0.1"], False, None),
    ],
)
def test_the_page_is_where_only_this_machine_can_reach_it(sockets, hosts, status, path):
    """Unless it is asked for elsewhere, or is not wanted."""
    settings = Settings(target="x", metrics_port=0, status=status)
    assert metrics_routes(settings, sockets(*hosts)).status_path == path


def test_the_page_makes_room_for_metrics_at_the_root(sockets):
    """It is at /status then."""
    settings = Settings(target="x", metrics_port=0, metrics_path="/")
    bound = sockets("127.0.0.1")
    assert metrics_routes(settings, bound).status_path == "/status"
    assert where_metrics_are(settings, "http://app", "http://m/", bound) == (
        "metrics on http://m/ and a status page on http://m/status"
    )


def test_where_the_page_is(sockets):
    """A start says it, or which option would add the page."""

    def where(*hosts: str, url: str = "http://app", **options: object) -> str:
        bound = sockets(*hosts) if hosts else []
        metrics_url = "http://m/metrics" if hosts else f"{url}/metrics"
        return where_metrics_are(Settings(target="x", **options), url, metrics_url, bound)

    assert where() == "metrics on http://app/metrics"
    assert where(status_path="/s") == "metrics on http://app/metrics and a status page on http://app/s"
    assert where(url="unix:/a", status_path="/s").endswith("a status page on unix:/a")
    assert where("127.0.0.1") == "metrics on http://m/metrics and a status page on http://m/"
    assert where("127.0.0.1", status_path="/s").endswith("a status page on http://app/s and http://m/")
    assert where(EVERYWHERE) == "metrics on http://m/metrics (--status adds a status page)"
    assert where(EVERYWHERE, status=False) == "metrics on http://m/metrics"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"status": True}, "--status was given without --metrics-port"),
        ({"status_path": "/metrics"}, '--status-path "/metrics" is the path of the metrics'),
    ],
)
def test_a_page_that_cannot_be_served(options, words):
    """The sentence says what to do instead."""
    with pytest.raises(ConfigurationError, match=words):
        Settings(target="x", **options)


def test_instrument_adds_the_page_once(registry):
    """One that is there already is left as it is."""
    app = web.Application()
    app.router.add_get("/there", hrprometheus_status_view)
    instrument(app, registry=registry, status_path="/there")
    assert {route.handler for route in app.router.routes() if route.resource.canonical == "/there"} == {
        hrprometheus_status_view
    }


def test_a_path_of_the_application_is_not_taken(registry):
    """The sentence says which setting it is about, and where the page could be."""
    app = web.Application()
    app.router.add_static("/static", ".")
    with pytest.raises(
        ConfigurationError, match='serves "/static" itself .* Serve the status page elsewhere: status_path='
    ):
        instrument(app, registry=registry, status_path="/static")
    with pytest.raises(ConfigurationError, match='status_path="there" cannot be served'):
        instrument(app, registry=registry, status_path="there")
