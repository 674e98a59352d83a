"""Every example runs, and shows what it is for."""

from __future__ import annotations

import os
import pty
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from conftest import DEADLINE, clean_environment, counts, hr_prometheus, samples
from test_serving import get, scrape
from test_top import Terminal

if TYPE_CHECKING:
    from collections.abc import Iterator

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
ROOT = EXAMPLES.parent


def test_every_example_is_here():
    """No example without a test, and none that the manual does not list; gunicorn has a file of its own."""
    text = Path(__file__).read_text() + Path(__file__).with_name("test_workers_gunicorn.py").read_text()
    for path in EXAMPLES.iterdir():
        if path.suffix in (".py", ".yml"):
            assert path.name in text
            assert f"/examples/{path.name})" in (ROOT / "docs" / "reference" / "examples.md").read_text()


def test_the_service(serve):
    """service.py: its routes answer, and the command groups the cells."""
    service = serve("service.py:create_app", "--port", "0", "--fixed-route", "get_cell_neighbour=cell_id", cwd=EXAMPLES)
    for path, answer in {
        "/health": '{"status": "ok"}',
        "/cells/7": '{"cell": 7, "name": null}',
        "/cell_neighbour/1948/direction/north": '{"cell": 1948, "neighbour": 1848}',
        "/cell_neighbour/874/direction/north": '{"cell": 874, "neighbour": 774}',
        "/cell_neighbour/99/direction/east": "The map ends there.\n",
        "/cell_neighbour/0/direction/up": "The directions are north, south, east, west.\n",
        "/cells/none": "There is no cell none.\n",
    }.items():
        assert get(service.url + path)[1] == answer
    assert get(service.url + "/report")[0] in (200, 503)
    found = counts(scrape(service))
    assert found["GET", "/cell_neighbour/{cell_id}/direction/north", "200"] == 2
    assert found["GET", "/cell_neighbour/{cell_id}/direction/east", "404"] == 1
    code, output, errors = service.stop()
    assert (code, output) == (0, "")
    assert len(errors.splitlines()) == 1
    assert "3 of 5 routes keep parameter values in labels" in errors


@contextmanager
def demo(*variables: str) -> Iterator[Terminal]:
    """Run ``make demo`` on a terminal."""
    pid, fd = pty.fork()
    if pid == 0:
        os.chdir(ROOT)
        os.execvpe("make", ["make", "demo", *variables], clean_environment())  # noqa: S606, S607
    terminal = Terminal(fd, pid)
    try:
        yield terminal
    finally:
        os.close(fd)  # which ends what is in its foreground
        with suppress(ProcessLookupError, ChildProcessError):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def test_make_demo_sets_up_and_runs_the_service():
    """The README's one command: its line, its traffic, its metrics, and its stop by Ctrl-C, which is no error."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with demo(f"PORT={port}", "METRICS_PORT=0", f"PYTHON={sys.executable}") as terminal:
        line = re.search("hr-prometheus: .*", terminal.wait(lambda text: "Ctrl-C to stop" in text))[0]
        url = re.search(r"metrics on (\S+)", line)[1]
        assert get(re.search(r"status page on (\S+)", line)[1])[1].startswith("<!doctype html>")
        end = time.monotonic() + DEADLINE
        while time.monotonic() < end:
            found = counts(get(url)[1])
            if ("GET", "unmatched", "404") in found and any("{cell_id}" in path for _, path, _ in found):
                break
        assert ("GET", "unmatched", "404") in found
        assert any("{cell_id}" in path for _, path, _ in found)
        terminal.type("\x03")
        assert terminal.end() == 0
        assert "make:" not in terminal.text
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), timeout=DEADLINE)


def test_make_demo_is_silent_when_it_is_interrupted(tmp_path):
    """Make has no words of its own for the exit code of a start that was interrupted, and its own is 0."""
    program = tmp_path / "bin" / "hr-prometheus"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\ntrap 'exit 130' INT\necho starting\nwhile true; do sleep 0.1; done\n")
    program.chmod(0o755)
    (tmp_path / ".installed").touch()
    with demo(f"VENV={tmp_path}") as terminal:
        terminal.wait(lambda text: "starting\n" in text)
        terminal.type("\x03")
        assert terminal.end() == 0
        assert terminal.text == "starting\r\n^C"


def test_make_demo_with_a_busy_port():
    """The reason is all that is printed of the service."""
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        done = subprocess.run(
            ["make", "demo", f"PORT={port}", "METRICS_PORT=0", f"PYTHON={sys.executable}"],  # noqa: S607
            cwd=ROOT, env=clean_environment(), capture_output=True, text=True, timeout=6 * DEADLINE, check=False,
        )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith(f"Error: cannot listen on 127.0.0.1:{port}: another process uses it.")
    assert "curl" not in done.stdout


def test_the_service_as_a_library(serve):
    """library.py as a target; served by itself it is the same application."""
    service = serve("library.py:create_instrumented_app", "--port", "0", cwd=EXAMPLES)
    get(service.url + "/cell_neighbour/1948/direction/north")
    assert counts(scrape(service)) == {("GET", "/cell_neighbour/{cell_id}/direction/north", "200"): 1}


@pytest.mark.parametrize("example", ["library.py", "custom_monitor.py"])
def test_examples_that_serve_themselves(serve, example):
    """Each is a script too; the command gives it a free port."""
    service = serve(example, "--port", "0", cwd=EXAMPLES)
    get(service.url + "/hello/ada")
    assert sum(counts(scrape(service)).values()) == 1


def test_a_custom_monitor(serve):
    """custom_monitor.py: its own metrics, with our labels."""
    service = serve("custom_monitor.py:app", "--port", "0", cwd=EXAMPLES)
    assert get(service.url + "/hello/ada") == (200, "Hello, ada!\n")
    found = samples(scrape(service))
    assert found['request_count_total{method="GET",path="/hello/ada",status="200"}'] == 1
    assert not [name for name in found if name.startswith("slow_request_seconds_count")]


def test_sub_applications(serve):
    """subapps.py: labels carry the prefixes, and names are found at every level."""
    service = serve("subapps.py:app", "--port", "0", "--fixed-route", "user=user_id", cwd=EXAMPLES)
    get(service.url + "/api/v1/users/ada")
    get(service.url + "/api/v1/users/grace")
    get(service.url + "/api/v1/nothing")
    assert counts(scrape(service)) == {
        ("GET", "/api/v1/users/{user_id}", "200"): 2,
        ("GET", "unmatched", "404"): 1,
    }


def test_the_prometheus_configuration(promtool):
    """prometheus.yml: promtool accepts it, and it has what scrape-config writes."""
    done = promtool("check", "config", EXAMPLES / "prometheus.yml")
    assert done.returncode == 0, done.stderr
    scrape_configs = hr_prometheus("scrape-config", "--job", "hr-prometheus-examples").stdout
    assert scrape_configs.partition("\n")[2] in (EXAMPLES / "prometheus.yml").read_text()
