"""``--reload`` of a script, whose addresses only the script knows."""

from __future__ import annotations

import asyncio
import socket
from urllib.parse import urlsplit

import aiohttp
import pytest
from conftest import SLOW_START, hr_prometheus, read_line
from test_reload import RELOADING, USAGE, edit, next_line, until_answered
from workers import load, settled, until_async

SCRIPT = """
import sys
from aiohttp import web

async def version(request):
    return web.Response(text="old")

app = web.Application()
app.router.add_post("/", version)
if __name__ == "__main__":
    web.run_app(app, host="127.0.0.1", port=0)
    print("the script goes on", flush=True)
"""


@pytest.fixture
def script(tmp_path):
    """The file of a script."""
    file = tmp_path / "app.py"
    file.write_text(SCRIPT)
    return file


@pytest.fixture
def served(serve, script):
    """Serve the script in its directory, with options."""

    def start(*options: str, target: str = "app.py"):
        return serve(target, "--reload", *options, cwd=script.parent)

    return start


@pytest.mark.parametrize("target", ["app.py", "app"])
@pytest.mark.parametrize("options", [(), ("--metrics-port", "0")], ids=["one port", "two ports"])
async def test_a_save_brings_new_code_and_no_client_notices(served, script, target, options):
    """The script's own address stays, even a port that was picked; the counters go on, and so does the script at its end."""
    service = served(*options, target=target)
    assert f"{target} (1 route, 1 worker) on http://127.0.0.1:" in service.announcement
    assert " ; asyncio, pid " in service.announcement
    async with load(service.url, connections=4) as client:
        await until_async(lambda: client.answers["old"] > 10)
        edit(script, "old", "new")
        await until_async(lambda: client.answers["new"] > 10)
    assert client.failures == []
    metrics = await settled(service)
    assert metrics['request_count_total{method="POST",path="/",status="200"}'] == client.answered
    code, output, error = service.stop()
    assert (code, error) == (0, "")
    assert sorted(output.splitlines()) == [RELOADING.strip(), "the script goes on", "the script goes on"]


async def test_options_win(served, script):
    """As without --reload."""
    service = served("--port", "0", "--host", "localhost", "--loop", "uvloop")
    assert " ; uvloop, pid " in service.announcement
    edit(script, "old", "new")
    await until_answered(service, "new")
    assert service.stop()[0] == 0


async def test_a_script_that_is_edited_to_serve_elsewhere(served, script):
    """It does, and back; a line says where. The old address is free then."""
    service = served()
    first = urlsplit(service.url).port
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        second = free.getsockname()[1]
    for old, new in ((0, second), (second, first), (first, second)):
        edit(script, f"port={old}", f"port={new}")
        assert read_line(service.process, skip=("the script goes on", *SLOW_START)) == RELOADING
        assert (", started in " in service.announcement) == (old == 0)  # a reload is another start
        service.announcement = read_line(service.process, skip=("the script goes on", *SLOW_START))
        assert f" on http://127.0.0.1:{new}, metrics on http://127.0.0.1:{new}/metrics" in service.announcement
        await until_answered(service, "old")
    assert service.stop()[0] == 0


@pytest.mark.parametrize(
    "edition",
    [
        ('HOST, path="socket", port=0', 'HOST, path="socket", port=PORT', [True, False]),
        ('path="socket"', 'path="other"', [False, False]),
        ("HOST, port=PORT", 'HOST, port=PORT, path="socket"', [True, False]),
        ("HOST, port=PORT", "host=['127.0.0.1', '127.0.0.2'], port=PORT", [True, True]),
        ("host=['127.0.0.1', '127.0.0.2'], port=PORT", "host=['127.0.0.2'], port=PORT", [False, True]),
    ],
)
async def test_a_script_that_is_edited_to_serve_elsewhere_as_well(served, script, tmp_path, edition):
    """An address that stays is served by the new code without a pause, beside one that is new or gone."""
    *texts, hosts = edition
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    old, new = (each.replace("HOST", 'host="127.0.0.1"').replace("PORT", str(port)) for each in texts)
    edit(script, 'host="127.0.0.1", port=0', old)
    service = served("--metrics-port", "0")
    edit(script, old, new)
    assert read_line(service.process, skip=("the script goes on", *SLOW_START)) == RELOADING
    service.announcement = read_line(service.process, skip=("the script goes on", *SLOW_START))
    assert [f"{host}:{port}" in service.announcement for host in ("127.0.0.1", "127.0.0.2")] == hosts
    for path in ("socket", "other"):
        assert (f"unix:{path}" in service.announcement) == (f'path="{path}"' in new)
    edit(script, "old", "new")
    if any(hosts):
        await until_answered(service, "new")
    assert service.stop()[0] == 0
    assert not list(tmp_path.glob("[so]*"))


async def test_a_unix_socket(served, script, tmp_path):
    """It stays over restarts, and is removed at the end."""
    edit(script, 'host="127.0.0.1", port=0', 'path="socket"')
    service = served("--metrics-port", "0")
    assert " on unix:socket, " in service.announcement

    async def ask() -> str:
        connector = aiohttp.UnixConnector(str(tmp_path / "socket"))
        async with aiohttp.ClientSession(connector=connector) as session, session.post("http://unix/") as response:
            return await response.text()

    assert await ask() == "old"
    edit(script, "old", "new")
    assert next_line(service) == RELOADING
    while await ask() != "new":
        pass
    assert service.stop()[0] == 0
    assert not (tmp_path / "socket").exists()


def test_a_script_that_serves_nothing(script):
    """It is an error, as ever."""
    script.write_text("print('done')")
    done = hr_prometheus("run", str(script), "--reload")
    assert done.returncode == USAGE
    assert "has ended without calling web.run_app" in done.stderr


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        (
            "import asyncio\nfrom aiohttp import web\nasyncio.run(web.AppRunner(web.Application()).setup())\n",
            'Error: the script "{}" sets up an AppRunner itself, whose addresses --reload cannot keep for the next process. '
            'Expected a script that calls web.run_app, or a target with an attribute, "module:attribute".\n',
        ),
        (
            "import socket\nfrom aiohttp import web\nweb.run_app(web.Application(), sock=socket.socket())\n",
            'Error: the script "{}" gives web.run_app a socket of its own, which --reload cannot keep for the next process. '
            "Expected a host and a port, or the path of a Unix socket.\n",
        ),
    ],
)
def test_scripts_whose_addresses_cannot_be_kept(script, code, sentence):
    """One sentence, and exit code 2."""
    script.write_text(code)
    done = hr_prometheus("run", str(script), "--reload")
    assert (done.returncode, done.stderr) == (USAGE, sentence.format(script))


@pytest.mark.parametrize(
    ("way", "problem"),
    [
        ("run_app", "serves in a process that it has forked, which --reload cannot replace. Expected a script that serves itself"),
        ("runner", "sets up an AppRunner itself, whose addresses --reload cannot keep for the next process. Expected a script that calls web.run_app"),
    ],
)  # fmt: skip
def test_a_script_that_serves_in_processes_of_its_own(way, problem):
    """It is one sentence as well, although each of the processes fails, and the script after them."""
    done = hr_prometheus("run", "script_with_forks.py", "--reload", "--", way)
    target = 'or a target with an attribute, "module:attribute".'
    assert (done.returncode, done.stderr) == (USAGE, f'Error: the script "script_with_forks.py" {problem}, {target}\n')


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
async def test_a_script_that_waits_for_requests_without_end(served, script, loop):
    """Its requests in progress are answered when it is replaced, and when it stops."""
    edit(script, "port=0", "port=0, shutdown_timeout=None")
    edit(
        script,
        'return web.Response(text="old")',
        'print("begun", flush=True); await asyncio.sleep(1); return web.Response(text="old")',
    )
    edit(script, "import sys", "import asyncio")
    service = served("--loop", loop)
    async with aiohttp.ClientSession() as session:

        async def ask() -> str:
            async with session.post(service.url) as response:
                return await response.text()

        first = asyncio.create_task(ask())
        assert await asyncio.to_thread(read_line, service.process) == "begun\n"
        edit(script, "old", "new")
        assert await first == "old"
        assert [read_line(service.process) for _ in range(2)] == [RELOADING, "the script goes on\n"]
        last = asyncio.create_task(ask())
        assert await asyncio.to_thread(read_line, service.process) == "begun\n"
        service.process.send_signal(15)
        assert await last == "new"
    code, _, error = service.end()
    assert (code, error) == (0, "")


def test_an_address_in_use(script):
    """One sentence, as without --reload."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        edit(script, "port=0", f"port={other.getsockname()[1]}")
        done = hr_prometheus("run", str(script), "--reload")
    assert done.returncode == 1
    assert done.stderr.startswith("Error: cannot listen on 127.0.0.1:")
    assert done.stderr.count("\n") == 1


def test_targets_of_a_script_need_a_port_of_the_metrics(script, tmp_path):
    """Else their address is not known in time."""
    done = hr_prometheus("run", str(script), "--reload", "--file-sd", str(tmp_path))
    assert (done.returncode, done.stderr) == (
        USAGE,
        f'Error: --file-sd "{tmp_path}": with --reload the metrics of a script need a port of their own, so that it is known. '
        "Give --metrics-port 9100.\n",
    )
