"""The lines of a stop and how long it takes, and the end of a terminal."""

from __future__ import annotations

import functools
import os
import pty
import re
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import pytest
from conftest import APPS, DEADLINE, clean_environment, read_line, wait_for
from test_serving import get
from workers import ASKS_PATIENTLY, MARK, is_alive, processes, slots, until

if TYPE_CHECKING:
    from collections.abc import Iterator

KINDS = [(), ("--workers", "2")]


@pytest.fixture
def serve(serve):
    """Start the command so that it names what it waits for, and no worker that is only busy."""
    return functools.partial(serve, first=ASKS_PATIENTLY)


def connect(service, path: str) -> socket.socket:
    """Ask for something that takes long, and return when its handler has begun."""
    client = socket.create_connection(service.url.removeprefix("http://").split(":"), timeout=DEADLINE)
    client.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    assert read_line(service.process).endswith("request begun\n")
    return client


@pytest.mark.parametrize("kind", KINDS)
def test_a_stop_names_the_requests_that_it_waits_for(serve, kind, tmp_path):
    """By method, route and age; a request that is answered meanwhile ends it."""
    service = serve("served:app", "--port", "0", "--fixed-route", "*", *kind)
    with connect(service, f"/slow?file={tmp_path}/go"):
        service.process.send_signal(signal.SIGINT)
        first = read_line(service.process)
        (tmp_path / "go").touch()
        code, out, error = service.end()
    assert (code, out, error) == (0, "", "")
    assert re.fullmatch(
        r"Stopping: waiting for 1 request \(GET /slow, \d+ s\), at most 10 s; Ctrl-C again to stop now\n"
        r"Stopped after \d+\.\d s\n",
        first + service.farewell,
    )


@pytest.mark.parametrize("kind", KINDS)
def test_the_shutdown_timeout_is_the_whole_time(serve, kind):
    """It is not twice that, as with aiohttp alone."""
    service = serve("served:app", "--port", "0", "--fixed-route", "*", "--shutdown-timeout", "4", *kind)
    clients = [connect(service, "/endless") for _ in range(4)]
    code, _, error = service.stop(signal.SIGINT)
    for client in clients:
        assert client.recv(1) == b""
        client.close()
    assert (code, error) == (0, "")
    first, last = service.farewell.splitlines()
    assert re.match(r"Stopping: waiting for 4 requests \((GET /endless, \d+ s; ){3}…\), at most 4 s; ", first)
    seconds = float(last.removeprefix("Stopped after ").removesuffix(" s"))
    assert 4.0 <= seconds < 8.0


@pytest.mark.parametrize("kind", KINDS)
def test_a_stop_that_waits_for_nothing(serve, kind):
    """Its only line is about its end."""
    service = serve("served:app", "--port", "0", "--fixed-route", "*", *kind)
    assert service.stop(signal.SIGINT)[0] == 0
    assert re.fullmatch(r"Stopped after \d+\.\d s\n", service.farewell)


def test_an_exit_function_that_does_not_end(serve):
    """The process ends all the same; its end is announced once."""
    service = serve("hanging:exit_function", "--port", "0", "--shutdown-timeout", "0.5")
    assert service.stop(signal.SIGINT) == (0, "", "")
    assert re.fullmatch(r"Stopped after .* s\n", service.farewell)


def test_a_thread_that_does_not_end(serve):
    """The process has not stopped before that; its end is announced once, with what it has not waited for."""
    service = serve("hanging:thread", "--port", "0", "--shutdown-timeout", "0.5")
    assert service.stop(signal.SIGINT) == (0, "", "")
    assert re.fullmatch(
        r"Stopping: waiting for the thread endless, at most 5 s; Ctrl-C again to stop now\n"
        r"Stopped after .* s, without waiting for the thread endless\n",
        service.farewell,
    )


def test_a_thread_that_ends_a_little_later(serve):
    """The line comes when it has ended."""
    service = serve("hanging:short_thread", "--port", "0")
    assert service.stop(signal.SIGINT) == (0, "", "")
    # A busy machine may take so long that it is announced.
    assert float(re.fullmatch(r"(?:Stopping: .*\n)?Stopped after (\d+\.\d) s\n", service.farewell)[1]) >= 0.3


HANGING = {
    "stuck": (r"1 request \(GET /stuck, \d+ s\)", "Stopped after .* s, without waiting for 1 request .*"),
    "thread": (r"1 request \(GET /thread, \d+ s\)", "Stopped after .* s, without waiting for the thread .*"),
}


@pytest.mark.parametrize("path", HANGING)
def test_a_request_that_does_not_end(serve, path):
    """The process ends all the same, names what is unfinished, and its exit code is that of a stop."""
    service = serve("hanging:requests", "--port", "0", "--shutdown-timeout", "0.5")
    with connect(service, f"/{path}"):
        code, out, error = service.stop(signal.SIGINT)
    assert (code, out, error) == (0, "", "")
    waits, last = HANGING[path]
    assert re.match(rf"Stopping: waiting for {waits}, at most 0.5 s; ", service.farewell)
    assert re.fullmatch(last, service.farewell.splitlines()[-1])


def test_a_request_that_blocks_the_event_loop(serve):
    """The stop has its time and five seconds for the clean-up all the same, as if the loop ran."""
    service = serve("hanging:requests", "--port", "0", "--shutdown-timeout", "0.5")
    with connect(service, "/block"):
        assert service.stop() == (0, "", "")
    assert re.fullmatch(
        r"Stopping: waiting for 1 request \(GET /block, \d+ s\), at most 5\.5 s; Ctrl-C again to stop now\n"
        r"Stopped after (5\.[5-9]|[6-9]\.\d|\d\d\.\d) s, without waiting for 1 request \(GET /block, \d+ s\)\n",
        service.farewell,
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_start_up_that_ignores_signals(serve, number):
    """They are the service manager's and the terminal's: they stop the process."""
    service = serve("hanging:ignoring", "--port", "0")
    assert service.stop(number) == (0, "", "")


def test_a_request_that_does_not_end_at_a_second_signal(serve):
    """The stop is at once, whatever the shutdown timeout is."""
    service = serve("hanging:requests", "--port", "0", "--shutdown-timeout", "3600")
    with connect(service, "/stuck"):
        service.process.send_signal(signal.SIGINT)
        assert read_line(service.process).startswith("Stopping: waiting for 1 request (GET /stuck, ")
        assert service.stop(signal.SIGINT) == (0, "", "")
    assert re.fullmatch(r"Stopped after .* s, without waiting for 1 request \(GET /stuck, .*\n", service.farewell)


@pytest.mark.parametrize("app", ["cleanup", "blocked_cleanup", "shutdown"])
def test_a_clean_up_that_does_not_end(serve, app):
    """A line says what the stop waits for and how long, and another one that it was given up."""
    service = serve(f"hanging:{app}", "--port", "0", "--shutdown-timeout", "0.5")
    assert service.stop(signal.SIGINT) == (0, "", "")
    seconds = "5.5" if app == "shutdown" else "5"
    assert re.fullmatch(
        rf"Stopping: waiting for the application's clean-up, at most {seconds} s; Ctrl-C again to stop now\n"
        r"Stopped after .* s, without waiting for the application's clean-up\n",
        service.farewell,
    )


def test_a_stop_that_is_forced_leaves_no_file(serve, tmp_path):
    """Neither that of the targets, nor that of the process's number, nor a Unix socket."""
    place, targets = tmp_path / "place", tmp_path / "targets"
    place.mkdir()
    targets.mkdir()
    service = serve(
        "hanging:blocked_cleanup", "--unix-path", f"{place}/socket", "--pid-file", f"{place}/pid", "--port", "0",
        "--file-sd", str(targets), "--shutdown-timeout", "0.5",
    )  # fmt: skip
    assert len([*place.iterdir(), *targets.iterdir()]) == 3
    assert service.stop(signal.SIGINT) == (0, "", "")
    assert [*place.iterdir(), *targets.iterdir()] == []


@pytest.mark.parametrize(("app", "timeout", "seconds"), [("cleanup", 3600, "5"), ("shutdown", 0.5, "5.5")])
def test_a_clean_up_of_workers_that_does_not_end(serve, app, timeout, seconds):
    """The same line, and each worker is killed after this time."""
    service = serve(f"hanging:{app}", "--port", "0", "--shutdown-timeout", str(timeout), "--workers", "2")
    code, out, error = service.stop(signal.SIGINT)
    assert (code, out) == (0, "")
    assert error.count(f" has not ended within {seconds} s and is killed.") == error.count("\n") == 2
    first, last = service.farewell.splitlines()
    assert re.match(
        rf"Stopping: waiting for the application's clean-up \(worker [01](, worker 1)?\), at most {seconds} s; ", first
    )
    assert last.startswith("Stopped after ")


@pytest.mark.parametrize(
    ("path", "reason"), [("stuck", r"1 request \(GET /stuck, \d+ s\)"), ("thread", r"the thread \S+ \(worker \d\)")]
)
def test_a_request_of_a_worker_that_does_not_end(serve, path, reason):
    """When it ignores that it was given up, the line names it as in one process."""
    service = serve("hanging:requests", "--port", "0", "--shutdown-timeout", "0.5", "--workers", "2")
    with connect(service, f"/{path}"):
        assert service.stop(signal.SIGINT)[:2] == (0, "")
    first, second, _ = service.farewell.splitlines()
    assert re.match(rf"Stopping: waiting for 1 request \(GET /{path}, \d+ s\), at most 0.5 s; ", first)
    assert re.match(rf"Stopping: waiting for {reason}, at most 5 s; ", second)


@pytest.mark.parametrize("kind", KINDS)
def test_a_clean_up_that_does_not_end_at_a_second_signal(serve, kind):
    """It is given up."""
    service = serve("hanging:cleanup", "--port", "0", *kind)
    service.process.send_signal(signal.SIGINT)
    assert read_line(service.process).startswith("Stopping: waiting for the application's clean-up")
    assert service.stop(signal.SIGINT) == (0, "", "")
    assert re.fullmatch(r"Stopped after .* s\n", service.farewell)


@pytest.mark.parametrize("kind", KINDS)
def test_a_slow_start(kind, tmp_path):
    """After two seconds a line says what the start waits for."""
    go = tmp_path / "go"
    (tmp_path / "slow.py").write_text(
        "import asyncio, os\nfrom aiohttp import web\n"
        "async def start(app):\n"
        f"    while not os.path.exists('{go}'):\n"
        "        await asyncio.sleep(0.01)\n"
        "app = web.Application()\n"
        "app.on_startup.append(start)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "hr_prometheus", "run", f"{tmp_path}/slow.py:app", "--port", "0", *kind],
        cwd=APPS, env=clean_environment(), stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        expected = r"Starting: waiting for the application('s start-up)?, 2 s so far; Ctrl-C to stop\n"
        assert re.fullmatch(expected, read_line(process, skip="nothing"))
        go.touch()
        (seconds,) = re.findall(r"^hr-prometheus: .*, started in (\d+\.\d) s, ", read_line(process))
        assert 2 <= float(seconds) < DEADLINE
        process.terminate()
        assert process.wait(DEADLINE) == 0
    finally:
        process.kill()
        process.stdout.close()


def test_sighup_stops_one_process(serve):
    """Cleanly: the exit code is 0."""
    service = serve("starting:works", "--port", "0")
    service.announcement = read_line(service.process)
    assert service.stop(signal.SIGHUP) == (0, "the application cleans up\n", "")


@contextmanager
def in_terminal(mark: str, *arguments: str, command: str = "exec {}") -> Iterator[tuple[int, int]]:
    """Run the command in a shell's terminal; give the shell's pid and the terminal's other end."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(APPS)
        line = " ".join([sys.executable, "-m", "hr_prometheus", "run", "many:create_app", "--port", "0", *arguments])
        os.execve("/bin/bash", ["bash", "-c", command.format(line)], clean_environment(**{MARK: mark}))  # noqa: S606
    try:
        yield pid, terminal
    finally:
        with suppress(OSError):
            os.close(terminal)
        for each in processes(mark):
            with suppress(ProcessLookupError):
                os.kill(each, signal.SIGKILL)
        with suppress(ChildProcessError):
            os.waitpid(pid, 0)


def read_until(terminal: int, word: bytes) -> None:
    """Read what is written to a terminal until a word comes."""
    text = b""
    while word not in text:
        text += os.read(terminal, 1000)


@pytest.mark.parametrize("kind", KINDS)
def test_a_closed_terminal_stops_what_runs_in_it(tmp_path, kind):
    """No process stays, the workers included, and the exit code is that of a stop, though its lines go nowhere."""
    mark = str(tmp_path)
    with in_terminal(mark, *kind) as (pid, terminal):
        read_until(terminal, b"hr-prometheus: ")
        os.close(terminal)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        until(lambda: not processes(mark))


def test_a_reload_behind_a_closed_terminal(tmp_path):
    """A supervisor that was started in the background outlives its terminal, and SIGHUP is a reload."""
    mark, pid_file = str(tmp_path), tmp_path / "pid"
    command = f"set -m; {{}} > {tmp_path}/out & echo $! > {pid_file}; disown; exec sleep 3600"
    with in_terminal(mark, "--workers", "2", command=command) as (_, terminal):
        wait_for((tmp_path / "out").exists, bool)
        wait_for((tmp_path / "out").read_text, lambda text: re.search(r"pid \d+", text))
        supervisor, old = int(pid_file.read_text()), slots(mark)
        os.close(terminal)
        os.kill(supervisor, signal.SIGHUP)
        until(lambda: len(slots(mark)) == 2 and set(slots(mark).values()).isdisjoint(old.values()))
        assert is_alive(supervisor)


@pytest.mark.parametrize("kind", KINDS)
def test_nohup(tmp_path, kind):
    """Where SIGHUP is ignored, it stays so."""
    mark, out = str(tmp_path), tmp_path / "out"
    with in_terminal(mark, *kind, command=f"nohup {{}} > {out}") as (_, terminal):
        wait_for(out.exists, bool)
        wait_for(out.read_text, lambda text: re.search(r"pid \d+", text))
        command = processes(mark)
        pid = int(re.search(r"pid (\d+)", out.read_text())[1])
        os.close(terminal)
        os.kill(pid, signal.SIGHUP)
        url = re.search(r" on (\S+),", out.read_text())[1]
        for _ in range(20):
            assert get(url)[0] == 200
        assert set(slots(mark).values()) <= set(command)
        os.kill(pid, signal.SIGTERM)
        until(lambda: pid not in processes(mark))


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_connections_that_wait_at_a_stop_are_answered(serve, tmp_path, loop):
    """Those that a blocked event loop has not accepted yet get their answers, whichever loop it is."""
    tmp_path.joinpath("blocking.py").write_text(
        "import time\nfrom aiohttp import web\n\nasync def block(request):\n    time.sleep(0.1)\n    return web.Response()\n\n"
        "def create():\n    app = web.Application()\n    app.router.add_get('/', block)\n    return app\n"
    )
    service = serve(f"{tmp_path / 'blocking.py'}:create", "--port", "0", "--loop", loop)
    host, port = service.url.removeprefix("http://").split(":")
    clients = [socket.create_connection((host, int(port)), DEADLINE) for _ in range(10)]
    for client in clients:
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    service.process.send_signal(signal.SIGTERM)
    assert [client.recv(12) for client in clients] == [b"HTTP/1.1 200"] * 10
    for client in clients:
        client.close()
