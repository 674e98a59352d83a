"""Sockets that systemd passes, by ``LISTEN_FDS``."""

from __future__ import annotations

import json
import os
import socket
import sys

import pytest
from conftest import hr_prometheus
from test_inherited_sockets import LOOPS, PROCESSES, SCRIPT, USAGE, ask, tcp, unix, url_of  # noqa: F401  # fixtures
from test_serving import get

#: Do what systemd does between fork and exec. The arguments are descriptors and the command's.
LAUNCHER = """
import fcntl, json, os, sys
copies = [fcntl.fcntl(each, fcntl.F_DUPFD, 100) for each in json.loads(sys.argv[1])]
for number, copy in enumerate(copies, 3):
    os.dup2(copy, number)
    os.close(copy)
os.closerange(3 + len(copies), 100)
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(len(copies)), "LISTEN_FDNAMES": "a"}
os.execv(sys.executable, [sys.executable, "-m", "hr_prometheus", "run", *sys.argv[2:]])
"""


def launch(*sockets: socket.socket) -> dict[str, tuple]:
    """Return the arguments of ``serve`` with which a new command gets these sockets from a stand-in for systemd."""
    numbers = tuple(each.fileno() for each in sockets)
    return {"command": (sys.executable, "-c", LAUNCHER, json.dumps(numbers)), "pass_fds": numbers}


def passed(*sockets: socket.socket, pid_offset: int = 0) -> dict[str, object]:
    """Return the arguments of ``serve`` with which a fork of the command has got these sockets and variables from systemd."""
    variables = f"'LISTEN_PID': str(os.getpid() + {pid_offset}), 'LISTEN_FDS': '{len(sockets)}', 'LISTEN_FDNAMES': 'a'"
    numbers = {number: each.fileno() for number, each in enumerate(sockets, 3)}
    return {"first": f"import os\nos.environ |= {{{variables}}}\n", "pass_fds": numbers}


@PROCESSES
@LOOPS
async def test_they_are_served_on(serve, tcp, unix, processes, loop):  # noqa: F811
    """All of them, instead of an address of our own, and what systemd has made stays."""
    service = serve("served:app", "--loop", loop, "--metrics-port", "0", *processes, **passed(unix, tcp))
    path = unix.getsockname()
    assert f" on {url_of(tcp)}, unix:{path}, metrics on http://127.0.0.1:" in service.announcement
    assert get(url_of(tcp))[0] == 200
    assert '{"arguments": null}' in await ask(unix)
    assert service.stop()[0] == 0
    assert os.stat(path).st_mode & 0o777 == 0o600


@PROCESSES
def test_programs_of_the_application_inherit_none(serve, tcp, unix, processes):  # noqa: F811
    """Else they would take the sockets for theirs, and keep them open."""
    service = serve("children:create_app", *processes, **passed(tcp, unix))
    inherited = get(service.url)[1]
    assert "PATH=" in inherited
    assert "LISTEN_" not in inherited
    assert "socket:" not in inherited


@pytest.mark.parametrize("processes", [(), ("--workers", "2")], ids=["one process", "workers"])
def test_sockets_for_another_process_are_ignored(serve, tcp, processes):  # noqa: F811
    """As those of a service in which the command is one of several programs. It is one warning."""
    service = serve("served:app", "--port", "0", *processes, **passed(tcp, pid_offset=1))
    assert service.url != url_of(tcp)
    assert get(service.url)[0] == 200
    error = service.stop()[2]
    assert error.count("ignored") == 1
    assert (
        f'LISTEN_FDS="1": ignored, because LISTEN_PID="{service.process.pid + 1}" is another process. Where a' in error
    )


def test_a_script(serve, tmp_path, tcp):  # noqa: F811
    """Its own address is replaced, as by an option."""
    (tmp_path / "script.py").write_text(SCRIPT)
    service = serve("script.py", cwd=tmp_path, **launch(tcp))
    assert service.url == url_of(tcp)
    assert get(service.url) == (200, "old")
    assert {each.name for each in tmp_path.iterdir()} == {"script.py"}


def test_a_script_with_runners_may_take_them_itself(serve, tcp, tmp_path):  # noqa: F811
    """They are left to it, in the environment as well."""
    (tmp_path / "script.py").write_text(
        "import asyncio, os, socket\nfrom aiohttp import web\n"
        "async def main():\n"
        "    runner = web.AppRunner(web.Application())\n    await runner.setup()\n"
        "    assert int(os.environ['LISTEN_PID']) == os.getpid()\n"
        "    await web.SockSite(runner, socket.socket(fileno=3)).start()\n"
        "    await asyncio.Event().wait()\n"
        "asyncio.run(main())\n"
    )
    service = serve("script.py", cwd=tmp_path, **launch(tcp))
    assert service.url == url_of(tcp)
    assert service.stop()[2] == ""


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--port", "0"], "--port was given with LISTEN_FDS, whose sockets are bound already. Leave it out."),
        (["--fd", "3"], "--fd was given, but systemd has passed sockets as well, by LISTEN_FDS. Leave it out."),
    ],
)
def test_an_address_beside_them(tcp, options, sentence):  # noqa: F811
    """It is refused."""
    done = hr_prometheus("run", "served:app", *options, **passed(tcp))
    assert (done.returncode, done.stderr) == (USAGE, f"Error: {sentence}\n")


@PROCESSES
def test_a_socket_that_cannot_be_served_on(tcp, processes):  # noqa: F811
    """It is one sentence, before the application is imported."""
    with socket.socket(type=socket.SOCK_DGRAM) as datagram:
        done = hr_prometheus("run", "raises_on_import:app", *processes, **passed(tcp, datagram))
    assert (done.returncode, done.stderr) == (
        USAGE,
        'Error: LISTEN_FDS="2": descriptor 4 is of another kind (AF_INET, SOCK_DGRAM). Expected a TCP or a Unix stream '
        "socket that is bound or listens.\n",
    )
