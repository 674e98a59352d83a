"""Scripts that serve with runners of their own."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import threading

import pytest
from conftest import APPS, DEADLINE, clean_environment, counts, hr_prometheus, read_line, wait_for
from test_serving import get, scrape


@pytest.mark.parametrize("own_port", [(), ("--metrics-port", "0")])
def test_each_application_is_measured_once(serve, own_port):
    """Whichever runner serves it; the metrics are there as with web.run_app, and the script's clean-up runs."""
    service = serve("script_with_runners.py", *own_port)
    lines = [service.announcement, *(read_line(service.process) for _ in range(3))]
    (own,) = [line for line in lines if line.startswith("serving ")]  # a busy machine may come to ours first
    lines.remove(own)
    urls = own.split()[1:]
    for url, service.announcement in zip(urls, lines, strict=True):
        assert service.announcement.startswith("hr-prometheus: script_with_runners.py (1 route) on http://127.0.0.1:")
        end = rf" ; asyncio, pid {service.process.pid}, started in \d+\.\d s, Ctrl-C to stop\n$"
        assert re.search(end, service.announcement)
        assert service.url == url
        assert (service.metrics_url == f"{url}/metrics") == (not own_port)
    paths = ["/first", "/second", "/first"]
    for url, path in zip(urls, paths, strict=True):
        assert get(url + path) == (200, "hello")
        with socket.create_connection(url.removeprefix("http://").split(":")) as client:
            client.sendall(b"no request\r\n\r\n")
            assert client.recv(1000).startswith(b"HTTP/1.0 400")
    assert counts(scrape(service)) == {
        ("GET", "/first", "200"): 2,
        ("GET", "/second", "200"): 1,
        ("unknown", "malformed", "400"): 3,
    }
    assert service.stop(2) == (0, "cleaned up\n", "")


def test_notices_about_labels(serve):
    """A pattern that matches no label of any application is warned of once."""
    service = serve("script_with_runners.py", "--exclude", "/firs", "--exclude", "/second")
    for _ in range(3):
        read_line(service.process)
    (line,) = service.stop(2)[2].splitlines()
    assert '--exclude "/firs" matches no path label' in line


#: For the command ten seconds are half a second.
IMPATIENT = "from hr_prometheus.server import script_runners\nscript_runners.SERVES_NOTHING_SECONDS = 0.5\n"
TWO = """
import asyncio
from aiohttp import web
async def hello(request):
    return web.Response(text="hello")
async def main():
    for name in ("first", "second"):
        app = web.Application()
        app.router.add_get("/" + name + "/{id}", hello, name=name)
        if name == "second":
            app.router.add_get("/metrics", hello)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
    await asyncio.Event().wait()
try:
    asyncio.run(main())
except KeyboardInterrupt:
    pass
"""


@pytest.fixture
def serve_two(serve, tmp_path):
    """Serve a script with two applications, whose routes have other names; return the service and both URLs."""

    def start(*options):
        (tmp_path / "two.py").write_text(TWO)
        service = serve("two.py", "--metrics-path", "/own", *options, cwd=tmp_path)
        first = service.url
        service.announcement = read_line(service.process)
        return service, first, service.url

    return start


@pytest.mark.parametrize("name", ["first", "second"])
@pytest.mark.parametrize(
    ("option", "shown"),
    [("--fixed-route={}=id", "{id}"), ("--allow-values={}.id=7", "other"), ("--exclude=/{}/*", None)],
)
def test_a_setting_holds_in_the_application_that_it_fits(serve_two, option, shown, name):
    """Whichever it is; the other one is measured as well, and nothing is said."""
    service, *urls = serve_two(option.format(name))
    for each, url in zip(("first", "second"), urls, strict=True):
        assert get(f"{url}/{each}/1") == (200, "hello")
    labels = {each: f"/{each}/1" for each in ("first", "second")}
    labels[name] = shown and f"/{name}/{shown}"
    paths = {path for _, path, _ in counts(scrape(service)) if path != "/own"}
    assert paths == set(filter(None, labels.values()))
    err = service.stop(2)[2]
    assert not [line for line in err.splitlines() if "keeps parameter values" not in line]


@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        ("--fixed-route=third=id", '"third=id": none of the 2 applications has a route named "third". Named routes: first, second.'),
        ("--fixed-route=second=x", '"second=x": the route "second" has no parameter "x". Its parameters: id.'),
        ("--allow-values=*.x=1", '"*.x=1": none of the 2 applications has a parameter "x". Its parameters: id.'),
        ("--exclude=/third/*", '"/third/*" matches no path label, so it leaves nothing out. See: hr-prometheus routes two.py'),
    ],
)  # fmt: skip
def test_a_setting_that_fits_no_application(serve_two, option, sentence):
    """It is warned of once, at the latest when the script ends."""
    service, *_ = serve_two(option, "--fixed-route=*")
    assert service.stop(2)[2] == f"{option.partition('=')[0]} {sentence}\n"


def test_a_setting_that_fits_no_application_of_a_script_that_goes_on(serve, tmp_path):
    """It is warned of after ten seconds, when the applications can be expected to be there."""
    (tmp_path / "two.py").write_text(TWO)
    options = "--metrics-path=/own", "--fixed-route=third=id"
    service = serve("two.py", *options, "--fixed-route=*", cwd=tmp_path, first=IMPATIENT)
    assert '"third=id": none of the 2 applications has a route' in service.process.stderr.readline()
    assert service.process.poll() is None
    assert service.stop(2)[2] == ""


def test_an_application_that_serves_the_metrics_path_itself(serve, tmp_path):
    """The other one goes on with its metrics; the options that cure it are named, as for one application."""
    (tmp_path / "two.py").write_text(TWO)
    service = serve("two.py", "--fixed-route=*", cwd=tmp_path)
    assert service.process.stderr.readline() == (
        'An application of the script is served without metrics: the application serves "/metrics" itself (the handler hello). '
        "Serve the metrics elsewhere: --metrics-path /hr-metrics, or --metrics-port 9100 for a port of their own.\n"
    )


def test_the_routes_of_one_of_two_applications(tmp_path):
    """A setting that does not fit it may be meant for the other one, so it is only warned of."""
    (tmp_path / "two.py").write_text(TWO)
    done = hr_prometheus("routes", str(tmp_path / "two.py"), "--fixed-route=second=id", "--exclude=/second/*")
    assert done.returncode == 0
    assert "/first/<id>" in done.stdout
    assert done.stderr.count(" It may be meant for another application of the script.\n") == 2


@pytest.mark.parametrize("script", [TWO, (APPS / "script.py").read_text()])
@pytest.mark.parametrize("own_logging", [False, True])
def test_the_access_log(serve, tmp_path, script, own_logging):
    """--access-log is enough where a script has no logging; where it has, that writes it. A request is one line."""
    first = "import logging\nlogging.basicConfig(level='INFO', format='own: %(message)s')\n" if own_logging else ""
    (tmp_path / "script.py").write_text(first + script)
    service = serve("script.py", "--access-log", "--fixed-route=*", "--metrics-path=/own", cwd=tmp_path)
    get(service.url + "/missing")
    scrape(service)
    (line,) = [line for line in service.stop(2)[2].splitlines() if "HTTP" in line]
    prefix = r"own: 127.0.0.1 \[.*\]" if own_logging else r"\d{4}-\d\d-\d\d \S+ INFO aiohttp.access: 127.0.0.1"
    assert re.match(prefix + ' "GET /missing HTTP/1.1" 404 ', line), line


def test_options_that_a_runner_has_no_use_for(serve):
    """They are named in one line, and the script's own addresses hold."""
    typed = "--port", "1", "--unix-mode", "600"
    service = serve("script_with_runners.py", *typed, HR_PROMETHEUS_SHUTDOWN_TIMEOUT="3")
    code, _, error = service.stop()
    assert error == (
        '--port, --unix-mode, HR_PROMETHEUS_SHUTDOWN_TIMEOUT="3": ignored, because "script_with_runners.py" serves with an AppRunner of '
        "its own, at its own addresses.\n"
    )
    assert code == -15  # the script does not handle SIGTERM


def test_an_application_that_cannot_be_instrumented(serve):
    """It is served as it is, with a warning; the others have their metrics."""
    service = serve("script_with_runners.py", "--", "--frozen")
    first, second, _ = service.announcement.split()[1:]
    assert get(second + "/below/second") == (200, "hello")
    assert get(first + "/first") == (200, "hello")
    service.announcement = read_line(service.process)
    assert counts(scrape(service)) == {("GET", "/first", "200"): 1}
    assert service.stop()[2] == (
        "An application was frozen before its AppRunner was set up, so it is served without metrics.\n"
    )


@pytest.mark.parametrize("way", ["", "--gather", "--thread"])
@pytest.mark.parametrize("start", [[], ["--start"]])
def test_its_routes(way, start):
    """The first application that a script would serve is shown, and that there may be others is said."""
    done = hr_prometheus("routes", *start, "script_with_runners.py", "--format", "json", "--", *way.split())
    assert (done.returncode, done.stderr) == (
        0,
        'Warning: "script_with_runners.py" serves with an AppRunner of its own: only the first application that it sets up '
        "is shown.\n",
    )
    assert '"/first"' in done.stdout


WAITS = """
import sys
from aiohttp import web
sys.stdin.readline()
web.run_app(web.Application(), port=0, host='127.0.0.1')
"""
HAS_NO_SITE = """
import asyncio, sys
from aiohttp import web
async def main():
    runner = web.AppRunner(web.Application())
    await runner.setup()
    await asyncio.to_thread(sys.stdin.readline)
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    await asyncio.Event().wait()
asyncio.run(main())
"""
HAS_A_SLOW_START = """
import asyncio, sys
from aiohttp import web
async def start(app):
    sys.stdin.readline()
async def main():
    app = web.Application()
    app.on_startup.append(start)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    await asyncio.Event().wait()
asyncio.run(main())
"""
NO_SITE = "it has an AppRunner, but no site of it has been started."


@pytest.mark.parametrize(
    ("script", "why"),
    [
        (WAITS, "neither this process nor its forks have called web.run_app or AppRunner.setup."),
        (HAS_NO_SITE, NO_SITE),
        (HAS_A_SLOW_START, NO_SITE),
    ],
)
def test_a_script_that_serves_nothing_for_a_while(tmp_path, script, why):
    """After ten seconds one line says so and why, and the script goes on."""
    (tmp_path / "waits.py").write_text(script)
    process = subprocess.Popen(
        [sys.executable, "-c", f"{IMPATIENT}from hr_prometheus.cli import main\nmain()\n", "run", str(tmp_path / "waits.py")],
        cwd=APPS, env=clean_environment(), text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    timer = threading.Timer(DEADLINE, process.kill)
    timer.start()
    try:
        assert process.stderr.readline() == (
            f'hr-prometheus: "{tmp_path}/waits.py" has served nothing for 0.5 s: {why} There are no metrics until then.\n'
        )
        process.stdin.write("go on\n")
        process.stdin.flush()
        assert wait_for(lambda: read_line(process), lambda line: line.startswith("hr-prometheus: "))
        process.terminate()
        assert process.communicate()[1] == ""
    finally:
        timer.cancel()
        process.kill()
