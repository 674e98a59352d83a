"""Scripts that serve with runners of their own."""

from __future__ import annotations

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
    assert service.announcement.startswith("serving ")
    urls = service.announcement.split()[1:]
    for url in urls:
        service.announcement = read_line(service.process)
        assert service.announcement.startswith("hr-prometheus: script_with_runners.py (1 route) on http://127.0.0.1:")
        assert service.announcement.endswith(f" ; asyncio, pid {service.process.pid}, Ctrl-C to stop\n")
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
    """Once for each application, as with web.run_app."""
    service = serve("script_with_runners.py", "--exclude", "/firs")
    for _ in range(3):
        read_line(service.process)
    lines = service.stop(2)[2].splitlines()
    assert len(lines) == 2
    assert all('--exclude "/firs" matches no path label' in line for line in lines)


def test_options_that_a_runner_has_no_use_for(serve):
    """They are named in one line, and the script's own addresses hold."""
    service = serve("script_with_runners.py", "--port", "1", HR_PROMETHEUS_SHUTDOWN_TIMEOUT="3")
    code, _, error = service.stop()
    assert error == (
        '--port, HR_PROMETHEUS_SHUTDOWN_TIMEOUT="3": ignored, because "script_with_runners.py" serves with an AppRunner of '
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
        '"script_with_runners.py" serves with an AppRunner of its own: only the first application that it sets up is shown.\n',
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
        (WAITS, "neither this process nor one that it has forked has called web.run_app or AppRunner.setup."),
        (HAS_NO_SITE, NO_SITE),
        (HAS_A_SLOW_START, NO_SITE),
    ],
)
def test_a_script_that_serves_nothing_for_a_while(tmp_path, script, why):
    """After ten seconds one line says so and why, and the script goes on."""
    (tmp_path / "waits.py").write_text(script)
    code = "from hr_prometheus.server import script_runners\nscript_runners.SERVES_NOTHING_SECONDS = 0.5\nfrom hr_prometheus.cli import main\nmain()\n"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "run", str(tmp_path / "waits.py")],
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
