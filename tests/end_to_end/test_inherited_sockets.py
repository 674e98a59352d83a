"""Sockets that the command has inherited, from systemd or another parent."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
from contextlib import ExitStack, suppress

import aiohttp
import pytest
from conftest import APPS, DEADLINE, RUN, clean_environment, hr_prometheus, read_line, wait_for
from test_reload import RELOADING, edit, next_line
from test_serving import get
from workers import MARK, are_without, load, settled, slots, until_async

USAGE = 2
PROCESSES = pytest.mark.parametrize(
    "processes", [(), ("--workers", "2"), ("--reload",)], ids=["one process", "workers", "reload"]
)
LOOPS = pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
SCRIPT = """
from aiohttp import web

async def version(request):
    return web.Response(text="old")

app = web.Application()
app.router.add_get("/", version)
web.run_app(app, path="of the script", print=None)
"""


@pytest.fixture
def tcp():
    """A socket that is bound."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock


@pytest.fixture
def unix(tmp_path):
    """A socket that listens, at a path for its owner alone."""
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
        path.chmod(0o600)
        sock.listen()
        yield sock


def url_of(sock: socket.socket) -> str:
    return "http://{}:{}".format(*sock.getsockname())


def options_for(*sockets: socket.socket) -> list[str]:
    return [word for each in sockets for word in ("--fd", str(each.fileno()))]


async def ask(sock: socket.socket) -> str:
    """Return the answer from a Unix socket."""
    connector = aiohttp.UnixConnector(sock.getsockname())
    async with aiohttp.ClientSession(connector=connector) as session, session.get("http://unix/") as response:
        return await response.text()


@PROCESSES
@LOOPS
async def test_they_are_served_on(serve, tcp, unix, processes, loop):
    """All of them, and the line of the start says where; the path of a Unix socket is not ours to remove, nor its mode to change."""
    sockets = unix, tcp
    service = serve(
        "served:app", *options_for(*sockets), "--loop", loop, "--metrics-port", "0", *processes,
        pass_fds=tuple(each.fileno() for each in sockets),
    )  # fmt: skip
    path, url = unix.getsockname(), url_of(tcp)
    assert f" on {url}, unix:{path}, metrics on http://127.0.0.1:" in service.announcement
    assert get(url)[0] == 200
    assert '{"arguments": null}' in await ask(unix)
    assert 'request_count_total{method="GET",path="/",status="200"} 2.0' in get(service.metrics_url)[1]
    assert service.stop()[0] == 0
    assert os.stat(path).st_mode & 0o777 == 0o600


def test_ipv6(serve):
    """Its URL has brackets."""
    with socket.socket(socket.AF_INET6) as sock:
        try:
            sock.bind(("::1", 0))
        except OSError:
            pytest.skip("there is no IPv6")
        service = serve("served:app", *options_for(sock), pass_fds=(sock.fileno(),))
        assert service.url == f"http://[::1]:{sock.getsockname()[1]}"
        assert get(service.url)[0] == 200


@PROCESSES
def test_clients_may_come_before_the_start(serve, tcp, processes):
    """They wait for it where the socket listens already."""
    tcp.listen()
    with socket.create_connection(tcp.getsockname()) as client:
        client.sendall(b"GET / HTTP/1.0\r\n\r\n")
        serve("served:app", *options_for(tcp), *processes, pass_fds=(tcp.fileno(),))
        client.settimeout(DEADLINE)
        assert client.recv(100).startswith(b"HTTP/1.0 200 OK")


CLIENTS = 200


def connect_clients(stack: ExitStack, sock: socket.socket) -> None:
    """Connect to a Unix socket; raise BlockingIOError if there is no room for so many that are not accepted."""
    for _ in range(CLIENTS):
        client = stack.enter_context(socket.socket(socket.AF_UNIX))
        client.setblocking(False)
        client.connect(sock.getsockname())


@PROCESSES
@LOOPS
def test_the_backlog_of_a_socket_that_listens(serve, tmp_path, processes, loop):
    """It is not cut down: after a stop as many clients can wait for the next process as before."""
    with socket.socket(socket.AF_UNIX) as sock, ExitStack() as stack:
        sock.bind(str(tmp_path / "socket"))
        sock.listen(CLIENTS)
        service = serve("served:app", *options_for(sock), "--loop", loop, *processes, pass_fds=(sock.fileno(),))
        assert service.stop()[0] == 0
        connect_clients(stack, sock)


@PROCESSES
@LOOPS
def test_the_option_of_the_backlog(serve, tmp_path, processes, loop):
    """It holds also where the socket listens already."""
    with socket.socket(socket.AF_UNIX) as sock, ExitStack() as stack:
        sock.bind(str(tmp_path / "socket"))
        sock.listen(CLIENTS)
        options = (*options_for(sock), "--loop", loop, "--backlog", "2", *processes)
        assert serve("served:app", *options, pass_fds=(sock.fileno(),)).stop()[0] == 0
        with pytest.raises(BlockingIOError):
            connect_clients(stack, sock)


@pytest.mark.parametrize("way", ["kill", "reload"])
async def test_workers_come_and_go(serve, tmp_path, tcp, way):
    """No client is refused while a worker is killed, or all are replaced."""
    service = serve(
        "many:create_app", *options_for(tcp), "--workers", "2",
        pass_fds=(tcp.fileno(),), **{MARK: str(tmp_path)},
    )  # fmt: skip
    before = slots(str(tmp_path))
    async with load(service.url, keep_alive=way == "reload") as client:
        await client.until_answered_by(*before.values())
        if way == "kill":
            os.kill(before[0], signal.SIGKILL)
            await until_async(lambda: slots(str(tmp_path)).get(0, before[0]) != before[0])
        else:
            service.process.send_signal(signal.SIGHUP)
            await until_async(lambda: are_without(str(tmp_path), *before.values()))
        await client.until_answered_by(*slots(str(tmp_path)).values())
    assert len(client.failures) <= (8 if way == "kill" else 0)  # those that the killed one had accepted
    assert (await settled(service))['request_count_total{method="POST",path="/",status="200"}'] >= client.answered
    assert service.stop()[0] == 0


def test_a_client_that_comes_while_it_stops(tcp):
    """It is answered, or it waits for the next process, in whichever turn of the event loop it comes."""
    tcp.listen()
    host, port = tcp.getsockname()
    done = hr_prometheus(
        "run", "script_stopping_in_turns.py", *options_for(tcp), "--", host, str(port), pass_fds=(tcp.fileno(),)
    )
    ends = {line for line in done.stdout.splitlines() if not line.startswith(("hr-prometheus: ", "St"))}
    assert ends == {"HTTP/1.0 200", "waits"}


@pytest.mark.parametrize("processes", [(), ("--workers", "1")], ids=["one process", "workers"])
def test_standard_input(tcp, processes):
    """Some process managers pass a socket on as descriptor 0."""
    process = subprocess.Popen(
        [*RUN, "served:app", "--fd", "0", *processes],
        cwd=APPS, env=clean_environment(), stdin=tcp, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert f" on {url_of(tcp)}, " in read_line(process)
        assert get(url_of(tcp))[0] == 200
    finally:
        process.terminate()
        process.communicate(timeout=DEADLINE)
    assert process.returncode == 0


def test_a_script(serve, tmp_path, tcp):
    """Its own address is replaced, as by an option."""
    (tmp_path / "script.py").write_text(SCRIPT)
    service = serve("script.py", *options_for(tcp), cwd=tmp_path, pass_fds=(tcp.fileno(),))
    assert service.url == url_of(tcp)
    assert get(service.url) == (200, "old")
    assert service.stop()[0] == 0
    assert {each.name for each in tmp_path.iterdir()} == {"script.py"}


async def test_a_script_with_reload(serve, tmp_path, unix):
    """Its new code serves on the same sockets, which stay."""
    script = tmp_path / "app.py"
    script.write_text(SCRIPT)
    service = serve("app.py", *options_for(unix), "--reload", cwd=tmp_path, pass_fds=(unix.fileno(),))
    assert f" on unix:{unix.getsockname()}, " in service.announcement
    assert await ask(unix) == "old"
    for old, new in (("old", "new"), ("of the script", "another"), ("new", "newest")):
        edit(script, old, new)
        assert next_line(service) == RELOADING
        while await ask(unix) != re.search('text="(.*)"', script.read_text())[1]:
            pass
    assert service.stop()[0] == 0
    assert os.path.exists(unix.getsockname())


def test_a_script_that_serves_twice(serve, tcp):
    """The sockets are there for the second time."""
    service = serve("script_serving_twice.py", *options_for(tcp), pass_fds=(tcp.fileno(),))

    def answer(path: str) -> str:
        with suppress(ConnectionError):  # it has just been accepted by the first one
            return get(service.url + path)[1]
        return ""

    assert answer("/") == "first"
    answer("/leave")
    wait_for(lambda: answer("/"), lambda text: text == "second")
    assert service.stop()[0] == 0


def test_a_script_with_runners(serve, tcp):
    """It serves at its own addresses, and says so."""
    service = serve("script_with_runners.py", *options_for(tcp), pass_fds=(tcp.fileno(),))
    assert service.stop()[2].startswith(
        '--fd: ignored, because "script_with_runners.py" serves with an AppRunner of its own'
    )


@PROCESSES
def test_a_descriptor_that_cannot_be_served_on(processes):
    """It is one sentence, before the application is imported."""
    with open(os.devnull, encoding="ascii") as file:
        number = str(file.fileno())
        done = hr_prometheus("run", "raises_on_import:app", "--fd", number, *processes, pass_fds=(file.fileno(),))
    assert (done.returncode, done.stderr) == (
        USAGE,
        f'Error: --fd "{number}": descriptor {number} is not a socket. Expected a TCP or a Unix stream socket that is bound or '
        "listens.\n",
    )


@pytest.mark.parametrize(
    ("option", "value", "name"),
    [
        ("host", "127.0.0.1", "HOST"),
        ("port", "0", "PORT"),
        ("unix-path", "x", "UNIX_PATH"),
        ("unix-mode", "660", "UNIX_MODE"),
        ("reuse-port", "true", "REUSE_PORT"),
    ],
)
def test_an_address_beside_them(tmp_path, tcp, option, value, name):
    """It is refused, wherever it was typed."""
    file = tmp_path / "hr-prometheus.toml"
    file.write_text(f"{option} = {value if value in ('0', 'true') else repr(value)}\n")
    typed = [f"--{option}"] if value == "true" else [f"--{option}", value]
    sentence = "Error: {} was given with --fd, whose sockets are bound already. Leave it out.\n"
    for where, arguments, environment in (
        (f"--{option}", typed, {}),
        (f'HR_PROMETHEUS_{name}="{value}"', [], {f"HR_PROMETHEUS_{name}": value}),
        (f"{option} on line 1 of {file}", ["--config", str(file)], {}),
    ):
        done = hr_prometheus(
            "run", "served:app", *options_for(tcp), *arguments, pass_fds=(tcp.fileno(),), **environment
        )
        assert (done.returncode, done.stderr) == (USAGE, sentence.format(where))
