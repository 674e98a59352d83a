"""The file with the number of the process."""

from __future__ import annotations

import os
import signal

import pytest
from conftest import DEADLINE, hr_prometheus, read_line, start_command
from test_inherited_sockets import PROCESSES
from test_serving import get

OS_REFUSED = 1
IMPORTING = 'import time\nprint("importing", flush=True)\ntime.sleep(3600)\n'
RUNNER = """
import asyncio, {loop}
from aiohttp import web

async def main():
    runner = web.AppRunner(web.Application())
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    await asyncio.Event().wait()

with asyncio.Runner(loop_factory={loop}.new_event_loop) as runner:
    runner.run(main())
"""
GOES_ON = """
import time
from aiohttp import web
web.run_app(web.Application(), host="127.0.0.1", port=0, print=None)
print("goes on", flush=True)
time.sleep(3600)
"""
CHILD = """
import multiprocessing, os, sys, time
codes = set()
for _ in range(200):
    child = multiprocessing.get_context("fork").Process(target=time.sleep, args=[5])
    child.start()
    child.terminate()
    child.join()
    codes.add(child.exitcode)
print(codes, os.path.exists(sys.argv[0].replace("script.py", "pid")), flush=True)
"""


@pytest.mark.parametrize("target", ["served:app", "script.py", "script_with_runners.py"])
def test_it_is_there_while_the_process_lives(serve, tmp_path, target):
    """Whatever is served, and however."""
    file = tmp_path / "pid"
    service = serve(target, *(["--port", "0"] if target == "served:app" else []), "--pid-file", str(file))
    assert file.read_text() == f"{service.process.pid}\n"
    assert service.stop(signal.SIGINT)[0] == 0
    assert not file.exists()


@PROCESSES
def test_a_second_start_is_refused(serve, tmp_path, processes):
    """It names the process that has the file, and changes nothing. With workers that is the supervisor."""
    file = tmp_path / "pid"
    options = ("--pid-file", str(file), *processes)
    service = serve("served:app", "--port", "0", *options)
    pid = service.process.pid
    done = hr_prometheus("run", "raises_on_import:app", "--port", service.url.rpartition(":")[2], *options)
    sentence = f'Error: --pid-file "{file}": process {pid} has it. Stop that process, or choose another file.\n'
    assert (done.returncode, done.stderr) == (OS_REFUSED, sentence)
    assert file.read_text() == f"{pid}\n"
    assert get(service.url)[0] == 200
    assert service.stop()[0] == 0
    assert not file.exists()


@PROCESSES
def test_the_file_of_a_killed_process(serve, tmp_path, processes):
    """It is taken over."""
    file = tmp_path / "pid"
    options = ("served:app", "--port", "0", "--pid-file", str(file), *processes)
    first = serve(*options, is_measured=False)
    first.process.kill()
    first.process.wait(DEADLINE)
    assert file.read_text() == f"{first.process.pid}\n"
    service = serve(*options)
    assert file.read_text() == f"{service.process.pid}\n"


def test_a_killed_script_whose_children_go_on(serve, tmp_path):
    """They do not keep the file."""
    file = tmp_path / "pid"
    arguments = ("script_with_children.py", "--pid-file", str(file), "--", "3600")
    children = []
    try:
        for _ in range(2):
            service = serve(*arguments, is_measured=False)
            children.append(int(service.announcement.removeprefix("forked ")))
            assert file.read_text() == f"{service.process.pid}\n"
            service.process.kill()
            service.process.wait(DEADLINE)
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)


@pytest.mark.parametrize("processes", [(), ("--workers", "2")], ids=["one process", "workers"])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_stop_while_the_application_is_imported(tmp_path, processes, number, code):
    """The file is there already, and goes."""
    file = tmp_path / "pid"
    (tmp_path / "app.py").write_text(IMPORTING)
    process = start_command("run", "app:app", "--port", "0", "--pid-file", str(file), *processes, cwd=tmp_path)
    assert read_line(process) == "importing\n"
    assert file.read_text() == f"{process.pid}\n"
    process.send_signal(number)
    process.communicate(timeout=DEADLINE)
    assert process.returncode == code
    assert not file.exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_stop_while_a_script_is_imported(tmp_path, number):
    """It is a stop as that of an application is: the exit code is 0, and the file goes."""
    file = tmp_path / "pid"
    (tmp_path / "script.py").write_text(IMPORTING)
    process = start_command("run", "script.py", "--pid-file", str(file), cwd=tmp_path)
    assert read_line(process) == "importing\n"
    assert file.exists()
    process.send_signal(number)
    assert process.communicate(timeout=DEADLINE) == ("", "")
    assert process.returncode == 0
    assert not file.exists()


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_script_that_leaves_signals_alone(serve, tmp_path, number, loop):
    """The signal ends it, whose stop is its own, but the file goes."""
    file = tmp_path / "pid"
    (tmp_path / "script.py").write_text(RUNNER.format(loop=loop))
    service = serve("script.py", "--pid-file", str(file), cwd=tmp_path)
    assert file.exists()
    assert service.stop(number)[0] == -number
    assert not file.exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_script_that_goes_on(serve, tmp_path, number):
    """The file stays while it does more after it has served, until it ends."""
    file = tmp_path / "pid"
    (tmp_path / "script.py").write_text(GOES_ON)
    service = serve("script.py", "--pid-file", str(file), cwd=tmp_path)
    service.process.send_signal(number)
    assert read_line(service.process).startswith("Stopped after ")
    assert read_line(service.process) == "goes on\n"
    assert file.exists()
    assert service.stop(number)[0] == -number
    assert not file.exists()


def test_a_child_of_a_script(tmp_path):
    """A signal ends it as without the command, even at its first moment, and leaves the file to its parent."""
    file = tmp_path / "pid"
    (tmp_path / "script.py").write_text(CHILD)
    done = hr_prometheus("run", "script.py", "--pid-file", str(file), cwd=tmp_path)
    assert done.stdout.startswith(f"{{{-signal.SIGTERM}}} True\n")
    assert not file.exists()


def test_a_stop_that_is_forced(serve, tmp_path):
    """It goes as well when the application's clean-up does not end."""
    file = tmp_path / "pid"
    service = serve("hanging:blocked_cleanup", "--port", "0", "--pid-file", str(file))
    assert service.stop()[0] == 0
    assert "without waiting for the application's clean-up" in service.farewell
    assert not file.exists()


@PROCESSES
def test_a_start_that_fails(tmp_path, processes):
    """It leaves no file: neither without a module, nor where the address is refused."""
    file = tmp_path / "pid"
    for arguments in (["no_such_module:app", "--port", "0"], ["served:app", "--host", "192.0.2.1"]):
        done = hr_prometheus("run", *arguments, "--pid-file", str(file), *processes)
        assert done.returncode in {1, 2}
        assert not file.exists()


@PROCESSES
def test_a_file_that_cannot_be_written(processes):
    """It is one sentence, before the application is imported, with the variable that it comes from."""
    done = hr_prometheus("run", "raises_on_import:app", *processes, HR_PROMETHEUS_PID_FILE="none/pid")
    assert (done.returncode, done.stderr) == (
        OS_REFUSED,
        'Error: HR_PROMETHEUS_PID_FILE="none/pid": No such file or directory. Expected a file in a directory that can be '
        "written to.\n",
    )
