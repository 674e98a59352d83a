"""Ctrl-C at any moment: no traceback, 130 before it serves, 0 afterwards."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time

import pytest
from conftest import APPS, DEADLINE, RUN, SLOW_START, read_line, start_command, unmeasured_environment
from workers import MARK, processes

ONE, WORKERS, SCRIPT = ("interrupted:{}",), ("interrupted:{}", "--workers", "2"), ("interrupted.py",)
BEFORE_THE_LOOP = [
    ("import", "", ONE), ("import", "destructor", ONE), ("import", "name", ONE), ("import", "", WORKERS),
    ("import", "", SCRIPT), ("import", "name", SCRIPT), ("factory", "", WORKERS), ("factory", "", SCRIPT),
]  # fmt: skip
IN_THE_LOOP = [
    ("async factory", "", ONE), ("async factory", "asynchronously", ONE), ("async factory", "asynchronously", WORKERS),
    ("start-up", "", ONE), ("start-up", "asynchronously", ONE), ("start-up", "destructor", ONE),
    ("start-up", "asynchronously", WORKERS), ("start-up", "", WORKERS), ("start-up", "asynchronously", SCRIPT),
]  # fmt: skip
MOMENTS = [(*each, "asyncio") for each in BEFORE_THE_LOOP + IN_THE_LOOP] + [(*each, "uvloop") for each in IN_THE_LOOP]

#: A module that Python imports at its start: Ctrl-C comes when a function is called for the first time.
INTERRUPTED_CALL = """
import asyncio, os, selectors, signal

def interrupt(owner, name):
    original = getattr(owner, name)

    def interrupted(*arguments, **named):
        setattr(owner, name, original)
        os.kill(os.getpid(), signal.SIGINT)
        return original(*arguments, **named)

    setattr(owner, name, interrupted)

interrupt({owner}, "{name}")
"""

#: A line of a traceback that is ours to prevent: not before the first statement, with which Python's own start ends.
OUR_FRAME = r'File ".*/(aiohttp/|click/|hr_prometheus/(?!__init__\.py|__main__\.py", line [01],))'
#: Without notices about labels.
QUIET = ("--fixed-route", "*")


def start(*arguments: str, **changes: str) -> subprocess.Popen[str]:
    """Start ``run`` with arguments; unmeasured, because coverage swallows a signal while it starts."""
    return subprocess.Popen(
        [*RUN, *arguments],
        cwd=APPS, env=unmeasured_environment(**changes),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.mark.parametrize(("moment", "how", "arguments", "loop"), MOMENTS)
def test_while_it_starts(moment, how, arguments, loop, tmp_path):
    """The exit code is 130, nothing is printed, and no process stays, whatever the application is busy with."""
    factory = "create_app_async" if moment == "async factory" else "create_app"
    arguments = [argument.format(factory) for argument in arguments]
    environment = {"MOMENT": moment, "HOW": how, MARK: str(tmp_path)}
    process = start_command("run", *arguments, "--port", "0", "--loop", loop, is_measured=False, **environment)
    try:
        assert read_line(process) == "waiting\n"
        process.send_signal(signal.SIGINT)
        out, error = process.communicate(timeout=DEADLINE)
    finally:
        process.kill()
    out = "".join(line for line in out.splitlines(keepends=True) if not line.startswith(SLOW_START))
    if (moment, how, len(arguments)) == ("start-up", "", len(WORKERS)):  # a blocked worker does not notice it
        assert error.endswith(" has not ended within 5 s and is killed.\n")
        error = ""
    assert (process.returncode, out, error) == (130, "", "")
    assert not processes(str(tmp_path))


@pytest.mark.parametrize("moment", ["import", "factory", "start-up"])
@pytest.mark.parametrize(
    ("number", "arguments"), [(signal.SIGTERM, ONE), (signal.SIGTERM, WORKERS), (signal.SIGHUP, ONE)]
)
def test_a_stop_while_it_starts(number, moment, arguments, tmp_path):
    """The exit code is 0, as later: to be stopped is no failure. Nothing is left of a Unix socket."""
    arguments = [argument.format("create_app") for argument in arguments]
    how = "asynchronously" if moment == "start-up" else "destructor"
    environment = {"MOMENT": moment, "HOW": how, MARK: str(tmp_path)}
    process = start_command("run", *arguments, "--unix-path", f"{tmp_path}/socket", is_measured=False, **environment)
    try:
        assert read_line(process) == "waiting\n"
        process.send_signal(number)
        _, error = process.communicate(timeout=DEADLINE)
    finally:
        process.kill()
    assert (process.returncode, error) == (0, "")
    assert not os.path.exists(f"{tmp_path}/socket")
    assert not processes(str(tmp_path))


@pytest.mark.parametrize(
    ("owner", "name"), [("selectors", "DefaultSelector"), ("asyncio.BaseEventLoop", "create_task")]
)
@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "served:app", "--port", "0"),
        ("run", "served:app", "--port", "0", "--workers", "2"),
        ("run", "script.py"),
        ("routes", "served:create_app_async"),
        ("routes", "script.py"),
    ],
)
def test_while_an_event_loop_is_made(arguments, owner, name, tmp_path):
    """Nothing half-made is left to be destroyed, of which Python would tell."""
    (tmp_path / "sitecustomize.py").write_text(INTERRUPTED_CALL.format(owner=owner, name=name))
    command = [*RUN[:-1], *arguments, "--loop", "asyncio"][: None if arguments[0] == "run" else -2]
    result = subprocess.run(
        command, cwd=APPS, env=unmeasured_environment(PYTHONPATH=str(tmp_path)), capture_output=True, text=True,
        timeout=DEADLINE, check=False,
    )  # fmt: skip
    assert (result.returncode, result.stdout, result.stderr) == (130, "", "")


@pytest.mark.parametrize("arguments", [("served:app",), ("served:app", "--workers", "2"), ("script.py",)])
def test_as_soon_as_it_serves(serve, arguments):
    """The exit code is 0 from the announcement on."""
    service = serve(*arguments, *(("--port", "0", *QUIET) if arguments[0] == "served:app" else ()))
    code, _, error = service.stop(signal.SIGINT)
    assert (code, error) == (0, "")


@pytest.mark.parametrize("arguments", [("served:app",), ("served:app", "--workers", "2"), ("script.py",)])
def test_at_any_moment(arguments):
    """From Python's own start on, which is the only time with another code: that of the signal."""
    for number in range(20):
        process = start(*arguments, "--port", "0", *(QUIET if arguments[0] == "served:app" else ()))
        try:
            time.sleep(number / 20)  # not to wait for anything, but to come at many moments
            process.send_signal(signal.SIGINT)
            out, error = process.communicate(timeout=DEADLINE)
        finally:
            process.kill()
        is_served = "hr-prometheus: " in out
        if process.returncode in (-signal.SIGINT, 1) and not is_served:  # Python was starting, and may have said so
            assert not re.search(OUR_FRAME, error), error
            continue
        assert error == ""
        assert process.returncode in ((0,) if is_served else (0, 130))
        if is_served:
            break  # later is no other moment


def test_a_handler_of_the_applications_own(serve):
    """One that its start-up has added goes on, as with aiohttp alone."""
    service = serve("interrupted:create_app_with_a_handler", "--port", "0", MOMENT="none")
    service.process.send_signal(signal.SIGINT)
    assert read_line(service.process) == "the application's own handler\n"
    assert service.stop()[0] == 0


def test_again_and_again(serve):
    """A second Ctrl-C at the end of a stop changes nothing."""
    # Not in a fork, whose parent waits for it at any moment.
    service = serve("served:app", "--port", "0", *QUIET, command=RUN)
    service.process.send_signal(signal.SIGINT)
    while service.process.poll() is None:
        os.kill(service.process.pid, signal.SIGINT)
    code, _, error = service.end()
    assert (code, error) == (0, "")
