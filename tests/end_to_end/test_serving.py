"""The command as a user has it: a process, sockets, signals."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import urllib.error
import urllib.request

import pytest
from conftest import APPS, DEADLINE, counts, hr_prometheus, read_line, samples, wait_for


def get(url: str, **headers: str) -> tuple[int, str]:
    """Return status and text of a GET."""
    request = urllib.request.Request(url, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=DEADLINE) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def scrape(service) -> str:
    status, text = get(service.metrics_url)
    assert status == 200
    return text


def test_an_application_and_its_metrics(serve):
    """One line says what is served where, how long that took, and how it is stopped; requests are counted exactly; SIGTERM stops with 0."""
    service = serve("served:create_app", "--port", "0", "--fixed-route", "get_cell_neighbour=cell_id")
    assert re.sub(r"\d+\.\d s", "… s", service.announcement) == (
        f"hr-prometheus: served:create_app (6 routes) on {service.url}, metrics on {service.url}/metrics"
        f" ; uvloop, pid {service.process.pid}, started in … s, Ctrl-C to stop\n"
    )
    for path, status in {
        "/": 200,
        "/missing": 404,
        "/broken": 500,
        "/nowhere": 404,
        "/cell_neighbour/1948/direction/north": 200,
        "/cell_neighbour/874/direction/north": 200,
    }.items():
        assert get(service.url + path)[0] == status
    assert counts(scrape(service)) == {
        ("GET", "/", "200"): 1,
        ("GET", "/missing", "404"): 1,
        ("GET", "/broken", "500"): 1,
        ("GET", "unmatched", "404"): 1,
        ("GET", "/cell_neighbour/{cell_id}/direction/north", "200"): 2,
    }
    metrics = samples(scrape(service))
    assert metrics['requests_in_progress{method="GET",path="/metrics"}'] == 1
    assert metrics['request_count_total{method="GET",path="/metrics",status="200"}'] == 1
    code, out, err = service.stop()
    assert (code, out) == (0, "")
    assert err.count("Traceback") == 1  # of /broken, logged by aiohttp


def test_applications_that_are_nested_deeply(serve):
    """What aiohttp serves by itself is served."""
    service = serve("deep:create_app", "--port", "0", "--fixed-route", "*")
    path = "/a" * 270
    assert get(f"{service.url}{path}/1")[0] == 200
    assert counts(scrape(service)) == {("GET", path + "/{value}", "200"): 1}


@pytest.mark.parametrize(
    "target",
    [
        "served:app",
        "served:Holder.app",
        "served:create_app_async",
        "served.py:app",
        f"{APPS}/served.py:create_app",
        "package.inner.relative:app",
        "package/inner/relative.py:app",
    ],
)
def test_every_form_of_target(serve, target):
    """Objects, attributes of attributes, async factories, files, and files in packages."""
    service = serve(target, "--port", "0")
    assert get(service.url + "/")[0] == 200
    assert counts(scrape(service)) == {("GET", "/", "200"): 1}
    assert service.stop(signal.SIGINT)[0] == 0


def test_from_another_directory(serve, tmp_path):
    """--app-dir is where to import from."""
    service = serve("served:app", "--port", "0", "--app-dir", str(APPS), cwd=tmp_path)
    assert service.stop()[0] == 0


def test_arguments_behind_two_dashes(serve):
    """A factory that takes an argument gets what is behind --."""
    service = serve("served:with_arguments", "--port", "0", "--", "--debug", "x")
    assert json.loads(get(service.url + "/")[1]) == {"arguments": ["--debug", "x"]}


def test_the_installed_command(serve):
    """The console script is the same program."""
    command = shutil.which("hr-prometheus", path=os.path.dirname(sys.executable))
    service = serve("served:app", "--port", "0", command=(command, "run"))
    assert service.stop()[0] == 0


def test_a_port_of_their_own_for_the_metrics(serve):
    """Metrics on a second port; the application gets no route, and a scrape is no request of it."""
    service = serve("served:app", "--port", "0", "--metrics-port", "0", "--metrics-path", "/m")
    assert service.metrics_url.startswith("http://127.0.0.1:")
    assert not service.metrics_url.startswith(service.url)
    assert get(service.url + "/m")[0] == 404
    assert counts(scrape(service)) == {("GET", "unmatched", "404"): 1}
    assert "/m" not in scrape(service)
    assert service.stop()[0] == 0


def test_metrics_are_served_while_draining(serve, tmp_path):
    """The metrics port answers as long as a request is in the application's hands."""
    service = serve("served:app", "--port", "0", "--metrics-port", "0")
    answers = []
    thread = threading.Thread(target=lambda: answers.append(get(f"{service.url}/slow?file={tmp_path}/go")))
    thread.start()
    assert read_line(service.process) == "slow request begun\n"
    service.process.send_signal(signal.SIGTERM)
    assert read_line(service.process).startswith("Stopping: waiting for 1 request (GET /slow, ")
    metrics = samples(scrape(service))
    assert metrics['requests_in_progress{method="GET",path="/slow"}'] == 1
    (tmp_path / "go").touch()
    thread.join(DEADLINE)
    assert answers == [(200, "done")]
    assert service.process.wait(DEADLINE) == 0


def test_options_from_the_environment(serve):
    """Each option has a variable; a repeatable one is separated by spaces; a flag wins."""
    service = serve(
        "served:create_app",
        "--metrics-path", "/flag",
        HR_PROMETHEUS_PORT="0",
        HR_PROMETHEUS_METRICS_PATH="/variable",
        HR_PROMETHEUS_FIXED_ROUTE="get_cell_neighbour=cell_id get_cell_neighbour=direction",
        HR_PROMETHEUS_METRIC_PREFIX="my_",
        HR_PROMETHEUS_EXCLUDE="/flag unmatched",
    )  # fmt: skip
    assert service.metrics_url.endswith("/flag")
    get(service.url + "/cell_neighbour/1/direction/2")
    get(service.url + "/nowhere")
    requests = [line for line in scrape(service).splitlines() if line.startswith("my_request_count_total")]
    assert requests == [
        'my_request_count_total{method="GET",path="/cell_neighbour/{cell_id}/direction/{direction}",status="200"} 1.0'
    ]


def test_buckets_and_budget(serve):
    """--buckets are the histogram's bounds; --path-budget folds, says so once and counts."""
    service = serve("served:create_app", "--port", "0", "--buckets", "0.5,30", "--path-budget", "1")
    for number in range(3):
        get(f"{service.url}/cell_neighbour/{number}/direction/north")
    metrics = samples(scrape(service))
    template = "/cell_neighbour/{cell_id}/direction/{direction}"
    assert metrics[f'request_count_total{{method="GET",path="{template}",status="200"}}'] == 2
    assert metrics[f'hr_prometheus_folded_requests_total{{route="{template}"}}'] == 2
    assert {key.split('le="')[1].split('"')[0] for key in metrics if 'le="' in key and "latency" in key} == {
        "0.5", "30.0", "+Inf",
    }  # fmt: skip
    assert service.stop()[2].count("has used its budget of 1 path labels") == 1


def test_a_monitor_of_ones_own(serve):
    """--monitor replaces the default metrics."""
    service = serve("served:app", "--port", "0", "--monitor", "monitors:Seen")
    get(service.url + "/missing")
    text = scrape(service)
    assert 'seen_total{method="GET",path="/missing",status="404"} 1.0' in text
    assert "request_count" not in text


def test_an_application_instrumented_by_hand_is_counted_once(serve):
    """Its own middleware and route go on as they are, and options that cannot apply are named."""
    given = {"HR_PROMETHEUS_EXCLUDE": "/a /b"}
    service = serve("instrumented:by_hand", "--port", "0", "--path-budget", "7", **given)
    get(service.url + "/")
    assert counts(scrape(service)) == {("GET", "/", "200"): 1}
    variable = 'HR_PROMETHEUS_EXCLUDE="/a /b" (values are separated by spaces)'
    assert f"ignored: --path-budget, {variable}." in service.stop()[2]


@pytest.mark.parametrize("options", [(), ("--workers", "2"), ("--metrics-port", "0")])
def test_an_application_with_a_registry_of_its_own(serve, options):
    """With workers its requests are in every scrape. A port of one process has another registry, and a line says so."""
    service = serve("instrumented:own_registry", "--port", "0", *options)
    get(service.url + "/")
    assert counts(get(service.url + "/own")[1])["GET", "/", "200"] == 1
    if "--workers" in options:
        assert counts(scrape(service))["GET", "/", "200"] == 1
    assert ("records in a registry of its own, which the metrics port" in service.stop()[2]) == (
        "--metrics-port" in options
    )


def test_a_part_instrumented_by_hand_is_counted_once(serve):
    """A sub-application that carries the middleware is not counted a second time."""
    service = serve("instrumented:below", "--port", "0")
    get(service.url + "/api/hello")
    assert counts(scrape(service)) == {("GET", "/api/hello", "200"): 1}


@pytest.mark.parametrize("workers", [(), ("--workers", "1")])
def test_a_part_with_a_registry_of_its_own(serve, workers):
    """The whole application is counted beside it, also with workers."""
    service = serve("instrumented:below_with_own_registry", "--port", "0", *workers)
    for path in ("/", "/api/hello"):
        get(service.url + path)
    assert counts(scrape(service)) == {("GET", "/", "200"): 1, ("GET", "/api/hello", "200"): 1}


def test_names_that_the_application_has_taken(serve):
    """With a prefix, both metrics are there."""
    service = serve("instrumented:name_taken", "--port", "0", "--metric-prefix", "hr_")
    get(service.url + "/")
    text = scrape(service)
    assert 'request_count_total{kind="own"} 7.0' in text
    assert 'hr_request_count_total{method="GET",path="/",status="200"} 1.0' in text


def test_a_script_that_serves_itself(serve):
    """It runs as __main__ with its arguments and its own address, and goes on when serving ends."""
    service = serve("script.py", "--", "one", "two")
    assert json.loads(get(service.url + "/")[1]) == {"name": "__main__", "argv": ["one", "two"]}
    assert counts(scrape(service)) == {("GET", "/", "200"): 1}
    code, out, err = service.stop()
    assert (code, out, err) == (0, "the script goes on\n", "")


@pytest.mark.parametrize("target", ["script_under_main.py", "script_under_main"])
def test_a_script_with_arguments_of_its_own(serve, target):
    """Its own argparse sees what is behind --; its port holds unless a flag says otherwise."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    service = serve(target, "--", "--port", str(port))
    assert service.url == f"http://127.0.0.1:{port}"
    service.stop()
    service = serve(target, "--port", "0", "--", "--port", str(port))
    assert service.url != f"http://127.0.0.1:{port}"
    service.stop()
    assert "the following arguments are required: --port" in hr_prometheus("run", target).stderr


def test_a_script_that_helps_itself(serve):
    """A script can catch the OSError of a port in use; it may give a port as a string; __file__ is absolute."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        service = serve("script_with_fallback.py", "--", str(port))
    assert service.url != f"http://127.0.0.1:{port}"
    assert service.stop()[0] == 0


def test_no_waiting_with_a_shutdown_timeout_of_zero(serve):
    """0 means that requests in progress are given up at once."""
    service = serve("served:app", "--port", "0", "--shutdown-timeout", "0")
    with socket.create_connection(service.url.removeprefix("http://").split(":"), timeout=DEADLINE) as client:
        client.sendall(b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n")
        assert read_line(service.process) == "endless request begun\n"
        assert service.stop()[0] == 0


@pytest.mark.parametrize("options", ["", " --workers 1"])
@pytest.mark.parametrize(("output", "why"), [(">&-", "it is closed"), (">/dev/full", "No space left on device")])
def test_a_standard_output_that_cannot_be_written(tmp_path, output, why, options):
    """The application is served all the same; a sentence says it, and in the end the exit code."""
    path = str(tmp_path / "socket")
    command = f"exec {sys.executable} -m hr_prometheus run served:app --fixed-route '*' --unix-path {path}{options} 2>&1 {output}"
    process = subprocess.Popen(["/bin/sh", "-c", command], cwd=APPS, stdout=subprocess.PIPE, text=True)
    try:
        with socket.socket(socket.AF_UNIX) as client:
            wait_for(lambda: process.poll() is not None or client.connect_ex(path) == 0, bool)
            client.sendall(b"GET /missing HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert client.recv(100).startswith(b"HTTP/1.1 404")
        error = read_line(process)
        process.terminate()
        error += process.communicate(timeout=DEADLINE)[0]
    finally:
        process.kill()
    sentence = f"Error: standard output cannot be written: {why}. Send it somewhere else.\n"
    assert (process.returncode, error) == (1, sentence)


def test_a_package_that_serves_itself(serve):
    """A package is run as python -m runs it."""
    service = serve("package")
    assert get(service.url + "/") == (200, "package")


def test_a_unix_socket(serve, tmp_path):
    """--unix-path replaces the port, and the socket is gone afterwards."""
    path = str(tmp_path / "socket")
    service = serve("served:app", "--unix-path", path, "--metrics-port", "0")
    assert f" on unix:{path}, metrics on http://127.0.0.1:" in service.announcement
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(DEADLINE)
        client.connect(path)
        client.sendall(b"GET /missing HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert client.recv(100).startswith(b"HTTP/1.1 404")
    assert counts(scrape(service)) == {("GET", "/missing", "404"): 1}
    assert service.stop()[0] == 0
    assert not os.path.exists(path)


def test_a_unix_socket_beside_a_port(serve, tmp_path):
    """With --port as well, both are served, and the metrics on the port."""
    path = str(tmp_path / "socket")
    service = serve("served:app", "--unix-path", path, "--port", "0")
    assert f", unix:{path}, metrics on {service.url}/metrics" in service.announcement
    scrape(service)


def test_tls(serve):
    """--certfile and --keyfile serve HTTPS, the metrics included."""
    tls = APPS.parent / "tls"  # a key for nothing but this test
    certfile = str(tls / "certificate.pem")
    service = serve("served:app", "--port", "0", "--certfile", certfile, "--keyfile", str(tls / "key.pem"))
    assert service.url.startswith("https://127.0.0.1:")
    context = ssl.create_default_context(cafile=certfile)
    with urllib.request.urlopen(service.metrics_url, context=context, timeout=DEADLINE) as response:
        assert response.status == 200


def test_logging(serve):
    """--access-log logs a line a request, --log-level sets what is logged; both are quiet by default."""
    loud = serve("served:app", "--port", "0", "--access-log")
    get(loud.url + "/missing")
    assert '"GET /missing HTTP/1.1" 404' in loud.stop()[2]
    quiet = serve("served:app", "--port", "0", "--log-level", "critical")
    get(quiet.url + "/broken")
    assert quiet.stop()[2] == ""


@pytest.mark.parametrize("signal_number", [signal.SIGTERM, signal.SIGINT])
def test_start_up_and_clean_up_run(serve, signal_number):
    """The application's own start-up and clean-up run once each; the announcement comes between them."""
    service = serve("starting:works", "--port", "0")
    assert service.announcement == "the application starts up\n"
    assert read_line(service.process).startswith("hr-prometheus: starting:works (0 routes) on ")
    assert service.stop(signal_number) == (0, "the application cleans up\n", "")
    assert service.farewell.endswith(" s\n")


def test_a_failing_clean_up(serve):
    """It is the application's failure, with its traceback and one sentence."""
    service = serve("starting:cleanup_fails", "--port", "0")
    read_line(service.process)
    code, _, error = service.stop()
    assert code == 3
    assert 'Error: the application "starting:cleanup_fails" failed while it ran or stopped: RuntimeError' in error
    assert "hr_prometheus/" not in error


def test_a_second_signal_stops_at_once(serve):
    """It gives up the requests that the drain waits for."""
    service = serve("served:app", "--port", "0")
    address = service.url.removeprefix("http://").split(":")
    with socket.create_connection(address, timeout=DEADLINE) as client:
        client.sendall(b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n")
        assert read_line(service.process) == "endless request begun\n"
        service.process.send_signal(signal.SIGTERM)
        assert read_line(service.process).startswith("Stopping: waiting for 1 request (GET /endless, ")
        code, _, _ = service.stop(signal.SIGTERM)
    assert code == 0
    assert service.farewell.count("Stopped after ") == 1


@pytest.mark.parametrize("workers", [(), ("--workers", "2")])
def test_extra_labels(serve, workers):
    """The scrape has them, with one process and with workers; a client that sends something else makes no series."""
    labels = "--label", "version=env:VERSION", "--label", "client=header:X-Client=web,ios", "--label", "handler=handler"
    service = serve("served:create_app", "--port", "0", "--fixed-route", "*", *labels, *workers, VERSION="1.4")
    for client in ("web", "ios", "web", "evil"):
        assert get(f"{service.url}/", **{"X-Client": client})[0] == 200
    assert get(f"{service.url}/nowhere")[0] == 404
    totals = {line for line in scrape(service).splitlines() if line.startswith("request_count_total{")}
    of_route = 'handler="served.hello",method="GET",path="/",status="200",version="1.4"'
    assert {line for line in totals if 'path="/metrics"' not in line} == {
        f'request_count_total{{client="web",{of_route}}} 2.0',
        f'request_count_total{{client="ios",{of_route}}} 1.0',
        f'request_count_total{{client="other",{of_route}}} 1.0',
        'request_count_total{client="none",handler="none",method="GET",path="unmatched",status="404",version="1.4"} 1.0',
    }
