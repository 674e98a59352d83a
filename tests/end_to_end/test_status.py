from __future__ import annotations

import json
import signal
import urllib.error
import urllib.request

import pytest
from conftest import DEADLINE, counts, wait_for
from workers import MARK, is_alive, slots, until

EVERYWHERE = "0.0.0.0"  # noqa: S104  # which is what is tested


def get(url: str | urllib.request.Request) -> tuple[int, str]:
    """Return the status and the text of an answer."""
    try:
        with urllib.request.urlopen(url, timeout=DEADLINE) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def page_of(announcement: str) -> str:
    """Return the address of the page that a start has announced."""
    return announcement.partition("status page on ")[2].split()[0]


@pytest.mark.parametrize("arguments", [["served:create_app"], ["served:create_app", "--workers", "2"], ["script.py"]])
def test_the_metrics_port_of_this_machine_has_the_page(serve, arguments):
    """At its root, with the target and all that it shows, in one process, with workers and of a script."""
    service = serve(*arguments, "--port", "0", "--metrics-port", "0")
    page = page_of(service.announcement)
    assert page == service.metrics_url.removesuffix("metrics")
    assert get(page)[1].startswith("<!doctype html>")
    assert json.loads(get(f"{page}?file=config.json")[1])["target"] == arguments[0]
    get(f"{service.url}/nowhere")
    status, text = get(f"{page}?file=metrics&name[]=request_count_total")
    assert (status, counts(text)) == (200, {("GET", "unmatched", "404"): 1})
    assert service.stop()[0] == 0


@pytest.mark.parametrize("place", [["--metrics-port", "0"], ["--status-path", "/-/status"]])
def test_recent_requests_of_all_workers(serve, place):
    """Whichever worker has served a request that failed, and whichever process is asked."""
    service = serve("served:create_app", "--port", "0", "--workers", "2", *place)
    page = page_of(service.announcement).rstrip("/")
    for _ in range(8):
        assert get(f"{service.url}/broken")[0] == 500
    listed = wait_for(lambda: json.loads(get(f"{page}/recent.json")[1]), lambda requests: len(requests) == 8)
    assert {(each["path"], each["status"]) for each in listed} == {("/broken", "500")}
    times = [each["time"] for each in listed]
    assert times == sorted(times, reverse=True)


@pytest.mark.parametrize("options", [("--workers", "2"), ("--reload",)])
def test_what_a_worker_leaves_that_is_replaced(serve, tmp_path, options):
    """Its recent requests are in the list and its exemplars in the next scrape, as its counts are."""
    mark, options = str(tmp_path), (*options, "--exemplars", "traceparent")
    service = serve("served:create_app", "--port", "0", "--metrics-port", "0", *options, **{MARK: mark})
    old = slots(mark).values()
    for number in range(1, 9):
        request = urllib.request.Request(
            f"{service.url}/broken", headers={"traceparent": f"00-{number:032x}-{1:016x}-01"}
        )
        assert get(request)[0] == 500
    service.process.send_signal(signal.SIGHUP)
    until(lambda: not any(map(is_alive, old)))
    assert len(json.loads(get(f"{page_of(service.announcement)}recent.json")[1])) == 8
    accept = {"Accept": "application/openmetrics-text;version=1.0.0"}
    text = get(urllib.request.Request(service.metrics_url, headers=accept))[1]
    (line,) = [line for line in text.splitlines() if line.startswith('request_count_total{method="GET",path="/broken"')]
    assert 'trace_id="' in line


def test_a_metrics_port_that_others_reach_has_no_page(serve):
    """A start says which option adds it."""
    service = serve("served:create_app", "--port", "0", "--metrics-port", "0", "--metrics-host", EVERYWHERE)
    assert "(--status adds a status page) ;" in service.announcement
    port = service.metrics_url.rpartition(":")[2].partition("/")[0]
    assert get(f"http://127.0.0.1:{port}/")[0] == 404


@pytest.mark.parametrize("workers", [[], ["--workers", "2"]])
def test_the_page_beside_the_metrics_of_the_application(serve, workers):
    """At a path that is asked for, with a link to the metrics, and without a trace in them."""
    service = serve("served:create_app", "--port", "0", "--status-path", "/-/status", *workers)
    page = page_of(service.announcement)
    assert page == f"{service.url}/-/status"
    assert json.loads(get(f"{page}?file=config.json")[1])["metrics"] == "./../metrics"
    assert "process_start_time_seconds" in get(f"{page}?file=metrics")[1]
    assert "/-/status" not in get(service.metrics_url)[1]
    assert get(f"{service.url}/")[1] != get(page)[1]
