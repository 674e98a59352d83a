"""``--reload``: an application that is edited while it is served."""

from __future__ import annotations

import asyncio
import http.client
import os
import signal
from urllib.parse import urlsplit

import pytest
from conftest import DEADLINE, SLOW_START, hr_prometheus, read_line, start_command
from workers import MARK, ask, load, processes, scrape, settled, slots, until_async

USAGE = 2
APPLICATION = """
from aiohttp import web

async def version(request):
    return web.Response(text="old")

def create():
    app = web.Application()
    app.router.add_post("/", version)
    return app
"""
RELOADING = "Reloading: app.py has changed\n"
SLOW_RELOAD = "Reloading: waiting for the application's start-up in worker {}, 2 s so far\n"
#: Lines that make a start wait for a file.
SLOW = "    import os, time\n    while not os.path.exists('go'):\n        time.sleep(0.01)\n"
#: Lines that make a start fail without a file, and note that.
NEEDS_DATA = """
    try:
        open('data').close()
    except OSError:
        open('failed', 'w').close()
        raise
"""
#: Code that leaves the command without watchfiles.
WITHOUT_WATCHFILES = "import sys\nsys.modules['watchfiles'] = None\n"


@pytest.fixture
def app(tmp_path):
    """The file of an application."""
    file = tmp_path / "app.py"
    file.write_text(APPLICATION)
    return file


@pytest.fixture
def served(serve, app, tmp_path):
    """Serve the application in its directory, with options."""

    def start(*options: str, target: str = "app:create", **arguments):
        return serve(
            target, "--reload", "--port", "0", "--metrics-port", "0", *options,
            cwd=tmp_path, **{MARK: str(tmp_path), **arguments},
        )  # fmt: skip

    return start


def edit(file, old: str, new: str) -> None:
    """Replace a text in a file."""
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def replace(file, old: str, new: str) -> None:
    """The same as editors with an atomic save do it, and with the old time."""
    other = file.with_name("app.py.tmp")
    other.write_text(file.read_text().replace(old, new))
    status = file.stat()
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    other.replace(file)


def next_line(service) -> str:
    """Return the next line of the command."""
    return read_line(service.process)


async def until_answered(service, text: str) -> None:
    """Wait for an answer."""
    async with asyncio.timeout(DEADLINE):
        while await ask(service.url) != text:
            await asyncio.sleep(0.01)


def restarts(metrics: dict[str, float]) -> float:
    """Return how often the worker was replaced."""
    return sum(value for name, value in metrics.items() if name.startswith("hr_prometheus_worker_restarts_total"))


@pytest.mark.parametrize("save", [edit, replace])
@pytest.mark.parametrize("first", ["", WITHOUT_WATCHFILES], ids=["watchfiles", "poll"])
@pytest.mark.parametrize("keep_alive", [True, False])
async def test_a_save_brings_new_code_and_no_client_notices(served, app, save, first, keep_alive):
    """The addresses stay, no request is refused or cut off, and the counters go on."""
    service = served(first=first, PYTHONDONTWRITEBYTECODE="")
    async with load(service.url, keep_alive=keep_alive, connections=4) as client:
        await until_async(lambda: client.answers["old"] > 10)
        save(app, "old", "new")
        await until_async(lambda: client.answers["new"] > 10)
    assert client.failures == []
    assert client.answers.keys() == {"old", "new"}
    metrics = await settled(service)
    assert metrics['request_count_total{method="POST",path="/",status="200"}'] == client.answered
    assert restarts(metrics) == 1
    assert service.stop() == (0, RELOADING, "")


async def test_many_files_are_one_restart(served, app, tmp_path):
    """As those of ``git checkout``, with what git and Python write beside them."""
    package = tmp_path / "package"
    service = served()
    service.process.send_signal(signal.SIGSTOP)  # as if writing them took no time
    for number in range(500):
        directory = package / f"part{number % 5}"
        directory.mkdir(parents=True, exist_ok=True)
        (directory / f"module{number:03}.py").write_text("x = 1\n")
    edit(app, "old", "new")
    service.process.send_signal(signal.SIGCONT)
    assert (
        next_line(service)
        == "Reloading: app.py, package/part0/module000.py, package/part0/module005.py and 498 more files have changed\n"
    )
    await until_answered(service, "new")
    assert restarts(await scrape(service)) == 1
    assert service.stop() == (0, "", "")


async def test_what_is_no_change(served, app, tmp_path):
    """A save of the same content, and what editors, git and Python leave beside the sources."""
    service = served()
    edit(app, "old", "old")
    for name in (
        ".app.py.swp",
        "app.py~",
        "4913",
        "notes.txt",
        ".git/hooks.py",
        "__pycache__/app.py",
        "node_modules/gyp.py",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("nothing")
    (tmp_path / "other.py").touch()
    assert next_line(service) == "Reloading: other.py has changed\n"
    await until_async(lambda: 1 in slots(str(tmp_path)))
    assert service.stop() == (0, "", "")


async def test_a_syntax_error_is_shown_once_and_the_old_code_goes_on(served, app):
    """Until a save repairs it. What waits for it is answered by the old code."""
    service = served()
    async with load(service.url, keep_alive=False, connections=2) as client:
        await until_async(lambda: client.answered > 10)
        edit(app, "def create():", "def create(:")
        assert await asyncio.to_thread(next_line, service) == RELOADING
        before = client.answered
        await until_async(lambda: client.answered > before + 10)
        edit(app, "def create(:", "def create():")
        edit(app, "old", "new")
        assert await asyncio.to_thread(next_line, service) == RELOADING
        await until_async(lambda: client.answers["new"])
    assert client.failures == []
    code, output, error = service.stop()
    assert (code, output) == (0, "")
    assert error.count("SyntaxError") == 2  # the traceback and the line
    assert (
        'Worker 0 keeps running until the next save, because its successor has failed: "app" failed while it was imported'
        in error
    )
    assert "hr_prometheus/" not in error


async def test_a_start_up_that_fails_is_tried_again_at_a_save(served, app, tmp_path):
    """Even at one that changes nothing: what it has lacked may be elsewhere."""
    service = served()
    edit(app, "    return app\n", f"{NEEDS_DATA}    return app\n")
    edit(app, "old", "new")
    assert next_line(service) == RELOADING
    await until_async((tmp_path / "failed").exists)
    await until_async(lambda: 1 not in slots(str(tmp_path)))
    (tmp_path / "data").touch()
    line = asyncio.ensure_future(asyncio.to_thread(next_line, service))
    while not line.done():  # the failure may not be known yet
        app.touch()
        await asyncio.wait([line], timeout=0.5)
    assert await line == "Reloading: app.py has been saved\n"
    await until_answered(service, "new")
    code, _, error = service.stop()
    assert code == 0
    assert error.count("Traceback") == 1
    assert "No such file or directory: 'data'" in error


def test_the_first_start_may_fail(served, app, tmp_path):
    """It is shown, and the next save starts it again, which is announced if it is slow."""
    app.write_text("import missing\n")
    process = start_command("run", "app:create", "--reload", "--port", "0", cwd=tmp_path)
    try:
        lines = [process.stderr.readline() for _ in range(5)]
        assert lines[-2] == "ModuleNotFoundError: No module named 'missing'\n", lines
        assert 'ERROR hr_prometheus: The next save starts it again: "app" failed while it was imported' in lines[-1]
        app.write_text(APPLICATION.replace("def create():\n", f"def create():\n{SLOW}"))
        assert read_line(process) == RELOADING
        assert read_line(process, skip="nothing") == SLOW_RELOAD.format(0)
        (tmp_path / "go").touch()
        assert read_line(process).startswith("hr-prometheus: app:create (1 route, 1 worker) on http://127.0.0.1:")
        process.terminate()
        output, errors = process.communicate(timeout=DEADLINE)
    finally:
        process.kill()
    assert (process.returncode, errors) == (0, "")
    assert output.startswith("Stopped after")


def test_the_first_start_may_hang(app, tmp_path):
    """The next save starts it anew."""
    app.write_text(APPLICATION.replace("def create():\n", "def create():\n    import time\n    time.sleep(3600)\n"))
    process = start_command("run", "app:create", "--reload", "--port", "0", cwd=tmp_path)
    try:
        assert read_line(process, skip="nothing").startswith(SLOW_START)
        app.write_text(APPLICATION)
        assert read_line(process) == RELOADING
        assert read_line(process).startswith("hr-prometheus: app:create (1 route, 1 worker) on http://127.0.0.1:")
        process.terminate()
        assert process.communicate(timeout=DEADLINE)[1] == ""
    finally:
        process.kill()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_a_stop_before_the_repair(app, tmp_path, number, code):
    """It ends at once, as before any start."""
    app.write_text("import missing\n")
    process = start_command("run", "app:create", "--reload", "--port", "0", cwd=tmp_path)
    try:
        while "The next save starts it again" not in process.stderr.readline():
            pass
        process.send_signal(number)
        out, error = process.communicate(timeout=DEADLINE)
    finally:
        process.kill()
    assert [line for line in out.splitlines() if not line.startswith(SLOW_START)] == []
    assert (process.returncode, error) == (code, "")


@pytest.mark.parametrize("target", ["app:creat", "ap:create"])
def test_a_target_that_is_mistyped(app, target):
    """It is an error, as ever: no save will repair it."""
    done = hr_prometheus("run", target, "--reload", "--port", "0", "--app-dir", str(app.parent))
    assert done.returncode == USAGE
    assert done.stderr.startswith("Error: ")
    assert "Did you mean" in done.stderr


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
async def test_connections_wait_for_the_new_code(served, app, tmp_path, loop):
    """From the line on, however long it takes to start: new ones as well as idle ones, which stay open."""
    service = served("--loop", loop)
    address = urlsplit(service.url)
    idle = [http.client.HTTPConnection(address.hostname, address.port, timeout=DEADLINE) for _ in range(100)]
    for each in idle:
        assert ask_on(each) == "old"
    edit(app, "def create():\n", f"def create():\n{SLOW}")
    edit(app, "old", "new")
    assert next_line(service) == RELOADING
    assert read_line(service.process, skip="nothing") == SLOW_RELOAD.format(1)  # they have been given away by now
    sockets = [each.sock for each in idle]
    answers = [asyncio.create_task(ask(service.url))]
    answers += [asyncio.create_task(asyncio.to_thread(ask_on, each)) for each in idle[:5]]
    await asyncio.wait(answers, timeout=0.2)
    assert not any(each.done() for each in answers)
    (tmp_path / "go").touch()
    assert await asyncio.gather(*answers) == ["new"] * 6
    assert [ask_on(each) for each in idle[5:]] == ["new"] * 95
    assert [each.sock for each in idle] == sockets
    for each in idle:
        each.close()
    assert service.stop() == (0, "", "")


async def test_idle_connections_come_back_if_the_new_code_cannot_start(served, app):
    """The old process serves them again."""
    service = served()
    address = urlsplit(service.url)
    connection = http.client.HTTPConnection(address.hostname, address.port, timeout=DEADLINE)
    for code, new in (("def create():", "def create(:"), ("def create(:", "def create(::")):
        assert ask_on(connection) == "old"
        edit(app, code, new)
        assert next_line(service) == RELOADING
        assert ask_on(connection) == "old"
    connection.close()
    assert service.stop()[0] == 0


def ask_on(connection: http.client.HTTPConnection) -> str:
    """Return an answer on a connection, which stays open."""
    connection.request("POST", "/")
    return connection.getresponse().read().decode()


async def test_a_slow_start_is_announced(served, app, tmp_path):
    """For the person who waits for the new code."""
    service = served()
    edit(app, "def create():\n", f"def create():\n{SLOW}")
    edit(app, "old", "new")
    assert next_line(service) == RELOADING
    assert read_line(service.process, skip="nothing") == SLOW_RELOAD.format(1)
    (tmp_path / "go").touch()
    await until_answered(service, "new")
    assert service.stop() == (0, "", "")


async def test_a_save_during_a_slow_start_starts_anew(served, app, tmp_path):
    """What is out of date is not waited for."""
    service = served()
    endless = f"    import time\n    open('begun', 'w').close()\n    time.sleep({DEADLINE})\n"
    edit(app, "def create():\n", f"def create():\n{endless}")
    assert next_line(service) == RELOADING
    await until_async((tmp_path / "begun").exists)
    edit(app, endless, "")
    edit(app, "old", "new")
    assert next_line(service) == RELOADING
    await until_answered(service, "new")
    assert service.stop() == (0, "", "")


async def test_a_worker_that_has_died_and_cannot_start(served, app, tmp_path):
    """It is tried once. The next save starts it again, and who has asked meanwhile is answered."""
    service = served()
    edit(app, "def create():", "def create(:")
    assert next_line(service) == RELOADING
    os.kill(slots(str(tmp_path))[0], signal.SIGKILL)
    await until_async(lambda: not slots(str(tmp_path)))
    waiting = asyncio.create_task(ask(service.url))
    await asyncio.wait([waiting], timeout=1)
    assert not waiting.done()
    await until_async(lambda: not slots(str(tmp_path)))
    edit(app, "def create(:", "def create():")
    edit(app, "old", "new")
    assert next_line(service) == RELOADING
    assert await waiting == "new"
    code, _, error = service.stop()
    assert code == 0
    assert 1 <= error.count("SyntaxError: ") <= 4  # in the successor and after the death, with a line each


async def test_a_request_in_progress_does_not_keep_the_next_save_back(served, app, tmp_path):
    """The old worker answers it, while the new one serves and is replaced in its turn."""
    slow = "async def version(request):\n    import asyncio, os\n    while 'wait' in request.query and not os.path.exists('go'):\n        await asyncio.sleep(0.01)\n"
    edit(app, "async def version(request):\n", slow)
    service = served("--shutdown-timeout", "600")
    waiting = asyncio.create_task(ask(service.url + "?wait"))
    while (await scrape(service)).get('requests_in_progress{method="POST",path="/"}') != 1:
        await asyncio.sleep(0.01)
    for old, new in (("old", "newer"), ("newer", "newest")):
        edit(app, f'"{old}"', f'"{new}"')
        await until_answered(service, new)
    (tmp_path / "go").touch()
    assert await waiting == "old"
    assert service.stop()[0] == 0


async def test_more_files(served, app, tmp_path):
    """Other directories, other patterns, and what is left out of them."""
    app.write_text(APPLICATION.replace('"old"', "open('page.html').read()"))
    page = tmp_path / "page.html"
    page.write_text("old")
    other = tmp_path.with_name(f"{tmp_path.name}-other")
    other.mkdir()
    service = served(
        "--reload-dir",
        str(other),
        "--reload-include",
        "*.html",
        "--reload-exclude",
        "tests",
        "--reload-exclude",
        "*.gen.py",
    )
    (tmp_path / "tests").mkdir()
    for name in ("tests/test_app.py", "a.gen.py"):
        (tmp_path / name).write_text("x = 1\n")
    (other / "library.py").write_text("x = 1\n")
    assert next_line(service) == f"Reloading: {other}/library.py has changed\n"
    await until_async(lambda: 0 not in slots(str(tmp_path)))
    page.write_text("new")
    assert next_line(service) == "Reloading: page.html has changed\n"
    await until_answered(service, "new")
    assert service.stop() == (0, "", "")


async def test_a_package_elsewhere_on_the_path(serve, tmp_path):
    """The target's package is watched wherever it is."""
    package = tmp_path / "src" / "package"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "app.py").write_text(APPLICATION)
    (tmp_path / "here").mkdir()
    service = serve(
        "package.app:create", "--reload", "--port", "0", cwd=tmp_path / "here", PYTHONPATH=str(tmp_path / "src")
    )  # fmt: skip
    edit(package / "app.py", "old", "new")
    assert next_line(service) == f"Reloading: {package}/app.py has changed\n"
    await until_answered(service, "new")


def test_standard_input_reaches_the_application(app, tmp_path):
    """So ``breakpoint()`` can be used, and no worker is killed because it waits there."""
    edit(app, "def create():\n", "def create():\n    print(input(), flush=True)\n")
    reader, writer = os.pipe()
    process = start_command("run", "app:create", "--reload", "--port", "0", cwd=tmp_path, pass_fds={0: reader})
    os.close(reader)
    try:
        with open(writer, "w") as keyboard:
            keyboard.write("typed\n")
        assert read_line(process) == "typed\n"
        assert read_line(process).startswith("hr-prometheus: ")
        process.terminate()
        process.communicate(timeout=DEADLINE)
    finally:
        process.kill()
    assert process.returncode == 0


def test_one_worker_may_be_asked_for(served, app):
    """It is the same."""
    service = served("--workers", "1")
    assert ", 1 worker)" in service.announcement
    edit(app, "old", "new")
    assert next_line(service) == RELOADING
    assert service.stop()[0] == 0


@pytest.mark.parametrize(
    ("arguments", "changes", "sentence"),
    [
        (["--reload", "--workers", "4"], {}, "--reload restarts one worker, but --workers asks for 4. Leave one of them out, or give --workers 1."),
        (
            ["--reload"], {"HR_PROMETHEUS_WORKERS": "4"},
            "--reload restarts one worker, but HR_PROMETHEUS_WORKERS asks for 4. Leave one of them out, or give --workers 1.",
        ),
        (["--reload-dir", "."], {}, "--reload-dir was given without --reload. Only --reload watches files."),
        (["--reload-include", "*.html"], {}, "--reload-include was given without --reload. Only --reload watches files."),
        (["--reload-exclude", "x"], {}, "--reload-exclude was given without --reload. Only --reload watches files."),
        (
            ["--reload", "--reload-dir", ".", "--reload-dir", "nowhere"], {},
            '--reload-dir "nowhere" is not a directory. Expected a directory whose files are watched.',
        ),
    ],
)  # fmt: skip
def test_wrong_options(arguments, changes, sentence):
    """A sentence, quoted as it was typed, and exit code 2."""
    done = hr_prometheus("run", "served:app", "--port", "0", *arguments, **changes)
    assert (done.returncode, done.stdout, done.stderr) == (USAGE, "", f"Error: {sentence}\n")


def test_options_that_wait_for_reload_in_the_environment(serve):
    """They may be kept there, for when --reload is given."""
    assert serve("served:app", "--port", "0", HR_PROMETHEUS_RELOAD_EXCLUDE="tests").stop()[0] == 0


async def test_what_the_application_has_started_ends_with_its_process(served, app, tmp_path):
    """At a save and at a stop, even if it ignores SIGTERM. What has a session of its own is left alone."""
    children = (
        "    import subprocess, sys\n"
        "    subprocess.Popen(['sleep', '1001'])\n"
        "    subprocess.Popen(['sh', '-c', \"trap '' TERM; while sleep 0.1; do :; done\"])\n"
        "    quiet = {'stdout': subprocess.DEVNULL, 'stderr': subprocess.DEVNULL}\n"
        "    subprocess.Popen(['sleep', '1002'], start_new_session=True, **quiet)\n"
    )
    edit(app, "def create():\n", f"def create():\n{children}")
    service = served()

    def commands() -> list[str]:
        return [line for line in processes(str(tmp_path)).values() if line.startswith(("sleep 100", "sh "))]

    try:
        assert len(commands()) == 3
        edit(app, "old", "new")
        await until_answered(service, "new")
        await until_async(lambda: len(commands()) == 4)
        assert service.stop() == (0, RELOADING, "")
        assert [command.strip() for command in commands()] == ["sleep 1002"] * 2
    finally:
        for pid, line in processes(str(tmp_path)).items():
            if line.startswith("sleep 1002"):
                os.kill(pid, signal.SIGKILL)
