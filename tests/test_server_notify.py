from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path

import pytest
from conftest import until

from hr_prometheus.server.announcer import Announcer
from hr_prometheus.server.notify import ServiceManager


@pytest.fixture
def received(tmp_path, monkeypatch):
    """A service manager's socket."""
    path = str(tmp_path / "socket")
    monkeypatch.setenv("NOTIFY_SOCKET", path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(path)
        sock.setblocking(False)
        yield sock


def messages(sock: socket.socket) -> list[str]:
    """Return what has been received."""
    texts = []
    try:
        while True:
            texts.append(sock.recv(4096).decode())
    except BlockingIOError:
        return texts


def test_without_a_manager_nothing_is_sent(monkeypatch, caplog):
    """As where a command is typed."""
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    ServiceManager().ready("it serves")
    assert not caplog.records


def test_a_reload_during_the_start(received):
    """It is a part of the start, so that the service is ready once."""
    with Announcer(lambda _line: None, lambda: "") as announcer:
        announcer.begin_reload()
        announcer.serving("it serves")
        announcer.end_reload(has_failed=False)
    (message,) = messages(received)
    assert message.startswith("READY=1\nSTATUS=it serves, started in ")
    announcer.begin_reload()
    announcer.end_reload(has_failed=False)
    assert [each.partition("=")[0] for each in messages(received)] == ["RELOADING", "READY"]


def test_a_status_of_odd_bytes(received):
    """It has what can be shown."""
    ServiceManager().status("app\udc80:create")
    assert messages(received) == ["STATUS=app?:create"]


@pytest.mark.parametrize("name", ["/nowhere/socket", "vsock:2:1", "@" + "x" * 200])
def test_a_socket_that_cannot_be_written_to(monkeypatch, caplog, name):
    """It is one warning, however much was to be sent."""
    monkeypatch.setenv("NOTIFY_SOCKET", name)
    manager = ServiceManager()
    manager.ready("it serves")
    manager.stopping()
    (record,) = caplog.records
    assert record.getMessage().startswith(f'NOTIFY_SOCKET="{name}" cannot be written to: ')


def test_a_manager_that_does_not_read(received, caplog):
    """It holds nothing up for long, and is one warning."""
    manager = ServiceManager()
    for _ in range(3 + int(Path("/proc/sys/net/unix/max_dgram_qlen").read_text())):
        manager.stopping()
    assert [record.getMessage() for record in caplog.records] == [
        f'NOTIFY_SOCKET="{received.getsockname()}" cannot be written to: timed out.'
    ]


async def test_pings_that_are_not_read(received, monkeypatch):
    """They never hold the event loop up."""
    monkeypatch.setenv("WATCHDOG_USEC", "200000")
    manager = ServiceManager()
    for _ in range(3 + int(Path("/proc/sys/net/unix/max_dgram_qlen").read_text())):
        manager.stopping()
    timeouts: list[float] = []

    class Socket(socket.socket):
        def settimeout(self, value):
            timeouts.append(value)
            super().settimeout(value)

    monkeypatch.setattr(socket, "socket", Socket)
    manager.watch(asyncio.get_running_loop())
    assert timeouts == [0]


async def test_a_loop_that_is_watched_for_a_very_short_time(received, monkeypatch):
    """It has more to do than to say that it runs."""
    monkeypatch.setenv("WATCHDOG_USEC", "1")
    ServiceManager().watch(asyncio.get_running_loop())
    await asyncio.sleep(0.25)
    assert len(messages(received)) <= 3


async def test_a_loop_that_is_watched(received, monkeypatch):
    """It says that it runs, at half of the time, and once for each time however often that is begun."""
    monkeypatch.setenv("WATCHDOG_USEC", "200000")
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    loop, manager = asyncio.get_running_loop(), ServiceManager()
    began = loop.time()
    manager.watch(loop)
    manager.watch(loop)
    pings: list[str] = []

    def three() -> bool:
        pings.extend(messages(received))
        return len(pings) >= 3

    await until(three)
    assert set(pings) == {"WATCHDOG=1"}
    assert loop.time() - began >= 0.2


@pytest.mark.parametrize("variables", [{}, {"WATCHDOG_PID": "1"}, {"WATCHDOG_USEC": "0"}, {"WATCHDOG_USEC": "soon"}])
async def test_a_loop_that_is_not_watched(received, monkeypatch, variables):
    """It says nothing: if another process is watched, or none."""
    monkeypatch.delenv("WATCHDOG_USEC", raising=False)
    if variables:
        monkeypatch.setenv("WATCHDOG_USEC", "100000")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    ServiceManager().watch(asyncio.get_running_loop())
    assert messages(received) == []
