"""What a service manager is sent, on a real socket."""

from __future__ import annotations

import asyncio
import re
import signal
import socket
import threading
import time
from contextlib import suppress

import aiohttp
import pytest
from conftest import hr_prometheus, read_line, start_command, wait_for
from test_inherited_sockets import PROCESSES, tcp  # noqa: F401  # a fixture
from test_reload import APPLICATION
from test_serving import get

#: A short time after which a service that hangs is ended.
WATCHED = {"WATCHDOG_USEC": "200000"}


class Manager:
    """A service manager: it receives all messages, each as its variables."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.messages: list[dict[str, str]] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(name.replace("@", "\0"))
        self._thread = threading.Thread(target=self._receive)
        self._thread.start()

    def _receive(self) -> None:
        while message := self._socket.recv(4096).decode():
            self.messages.append(dict(line.split("=", 1) for line in message.splitlines()))

    def number_of(self, variable: str) -> int:
        """Return how many messages have a variable."""
        return sum(variable in each for each in self.messages)

    def wait_for(self, variable: str, number: int = 1) -> dict[str, str]:
        """Wait until so many messages have a variable, and return the last of them."""
        wait_for(lambda: self.number_of(variable), lambda count: count >= number)
        return [each for each in self.messages if variable in each][-1]

    def close(self) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.sendto(b"", self._socket.getsockname())
        self._thread.join()
        self._socket.close()


def status_of(service) -> str:
    """Return the line of the start, as a manager shows it."""
    return service.announcement.removesuffix(", Ctrl-C to stop\n")


@pytest.fixture
def manager(request, tmp_path):
    """A service manager, at a path unless a test wants it elsewhere."""
    manager = Manager(f"{getattr(request, 'param', '')}{tmp_path}/notify")
    yield manager
    manager.close()


@pytest.mark.parametrize("manager", ["", "@"], ids=["path", "abstract"], indirect=True)
@PROCESSES
def test_a_start_and_a_stop(serve, manager, processes):
    """It is ready when the line of the start is printed, with that line as its status, without the key, and says that it stops."""
    service = serve("served:app", "--port", "0", *processes, NOTIFY_SOCKET=manager.name)
    ready = {"READY": "1", "STATUS": status_of(service)}
    assert manager.wait_for("READY") == ready
    assert service.stop()[0] == 0
    manager.wait_for("STATUS", 2)
    assert [each for each in manager.messages if not each.get("STATUS", "").startswith("Start")] == [
        ready,
        {"STOPPING": "1"},
        {"STATUS": service.farewell.splitlines()[-1]},
    ]


@PROCESSES
def test_a_slow_start(serve, tmp_path, manager, processes):
    """It is not ready, and its status says what it waits for."""
    process = start_command(
        "run", "waiting:create_app", "--port", "0", *processes,
        NOTIFY_SOCKET=manager.name, WAIT_FOR=str(tmp_path / "file"),
    )  # fmt: skip
    try:
        assert manager.wait_for("STATUS") == {"STATUS": read_line(process, skip="\0").partition("; Ctrl-C")[0]}
        assert manager.number_of("READY") == 0
        (tmp_path / "file").touch()
        assert manager.wait_for("READY")["STATUS"].startswith("hr-prometheus: waiting:create_app")
    finally:
        process.terminate()
        process.communicate()


def test_a_stop_while_it_starts(tmp_path, manager):
    """It says so, and was never ready."""
    process = start_command(
        "run", "waiting:create_app", "--port", "0", NOTIFY_SOCKET=manager.name, WAIT_FOR=str(tmp_path / "file")
    )
    manager.wait_for("STATUS")
    process.terminate()
    manager.wait_for("STOPPING")
    process.communicate()
    assert process.returncode == 0
    assert manager.number_of("READY") == 0


@pytest.mark.parametrize("works", [True, False])
def test_a_reload(serve, tmp_path, manager, works):
    """It has a begin, with the time, and an end, whether or not the new code can be served."""
    file = tmp_path / "app.py"
    file.write_text(APPLICATION)
    service = serve("app.py:create", "--workers", "2", "--port", "0", cwd=tmp_path, NOTIFY_SOCKET=manager.name)
    if not works:
        file.write_text("raise RuntimeError")
    before = time.monotonic_ns() // 1000
    service.process.send_signal(signal.SIGHUP)
    reloading = manager.wait_for("RELOADING")
    assert before <= int(reloading["MONOTONIC_USEC"]) <= time.monotonic_ns() // 1000
    failed = "" if works else "The reload has failed, see the log. As before: "
    assert manager.wait_for("READY", 2) == {"READY": "1", "STATUS": failed + status_of(service)}
    assert service.stop()[0] == 0
    manager.wait_for("STOPPING")
    assert [manager.number_of(each) for each in ("RELOADING", "READY", "STOPPING")] == [1, 2, 1]


async def test_a_blocked_loop_is_seen(serve, manager, tmp_path):
    """With one process it is the application's, and it says nothing while it is blocked."""
    service = serve("many:create_app", "--port", "0", NOTIFY_SOCKET=manager.name, **WATCHED)
    async with aiohttp.ClientSession() as session:
        request = asyncio.create_task(session.post(f"{service.url}/block?file={tmp_path}/go"))
        assert (await asyncio.to_thread(read_line, service.process)).startswith("blocking")
        before = manager.number_of("WATCHDOG")
        await asyncio.sleep(1)
        assert manager.number_of("WATCHDOG") - before <= 1  # it may be on its way
        (tmp_path / "go").touch()
        async with await request as response:
            assert response.status == 200
    await asyncio.to_thread(manager.wait_for, "WATCHDOG", manager.number_of("WATCHDOG") + 3)
    assert service.stop()[0] == 0


async def test_a_blocked_worker_is_not(serve, manager, tmp_path):
    """It is the supervisor that is watched, and that watches the workers."""
    service = serve("many:create_app", "--port", "0", "--workers", "1", NOTIFY_SOCKET=manager.name, **WATCHED)
    async with aiohttp.ClientSession() as session:
        request = asyncio.create_task(session.post(f"{service.url}/block?file={tmp_path}/go"))
        assert (await asyncio.to_thread(read_line, service.process)).startswith("blocking")
        await asyncio.to_thread(manager.wait_for, "WATCHDOG", manager.number_of("WATCHDOG") + 5)
        (tmp_path / "go").touch()
        async with await request as response:
            assert response.status == 200
    assert service.stop()[0] == 0


@pytest.mark.parametrize("processes", [(), ("--workers", "2")], ids=["one process", "workers"])
def test_a_start_that_fails(manager, processes):
    """It was never ready."""
    assert hr_prometheus(
        "run", "raises_on_import:app", "--port", "0", *processes, NOTIFY_SOCKET=manager.name
    ).returncode
    assert manager.number_of("READY") == 0


@pytest.mark.parametrize("script", ["script.py", "script_with_runners.py"])
def test_a_script(serve, manager, script):
    """It is ready as any application is, and its loop is watched, whichever way it serves."""
    service = serve(script, NOTIFY_SOCKET=manager.name, **WATCHED)
    assert manager.wait_for("READY")["STATUS"].startswith(f"hr-prometheus: {script} (")
    manager.wait_for("WATCHDOG", manager.number_of("WATCHDOG") + 3)
    service.stop()


def test_a_script_that_serves_twice(serve, manager, tcp):  # noqa: F811
    """The end of the first time is no stop, after which it would be killed."""
    service = serve(
        "script_serving_twice.py", "--fd", str(tcp.fileno()), pass_fds=(tcp.fileno(),), NOTIFY_SOCKET=manager.name
    )
    with suppress(ConnectionError):
        get(f"{service.url}/leave")
    manager.wait_for("READY", 2)
    assert manager.number_of("STOPPING") == 0
    assert service.stop()[0] == 0
    manager.wait_for("STOPPING")


@PROCESSES
def test_the_application_may_send_its_own(serve, manager, processes):
    """The address stays in its environment."""
    service = serve("children:create_app", "--port", "0", *processes, NOTIFY_SOCKET=manager.name)
    assert f"NOTIFY_SOCKET={manager.name}\n" in get(service.url)[1]


@PROCESSES
def test_a_manager_that_is_gone(serve, processes):
    """It is one warning, and the application is served."""
    service = serve("children:create_app", "--port", "0", *processes, NOTIFY_SOCKET="/nowhere", **WATCHED)
    assert get(service.url)[0] == 200
    code, _, error = service.stop()
    assert code == 0
    assert error.count("/nowhere") == 1
    assert re.match(
        r'\d.* WARNING .*NOTIFY_SOCKET="/nowhere" cannot be written to: No such file or directory\.$', error
    )


@pytest.mark.parametrize("target", ["served:app", "script.py", "script_with_runners.py"])
def test_a_manager_that_is_gone_is_no_error(serve, target):
    """So it is left out where only errors are to be logged."""
    port = ("--port", "0") if target == "served:app" else ()
    service = serve(target, *port, "--log-level", "error", NOTIFY_SOCKET="/nowhere", **WATCHED)
    assert service.stop(signal.SIGINT)[2] == ""
