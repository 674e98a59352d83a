"""Tells a service manager, such as systemd, how far a server is, by the protocol of sd_notify(3)."""

from __future__ import annotations

import logging
import os
import socket
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio

logger = logging.getLogger("hr_prometheus")

#: Seconds for which a manager that does not read may hold the server up.
_SECONDS = 0.1
#: The shortest pause between two pings, in seconds, however short the time is that the manager waits.
_SHORTEST_PAUSE = 0.1


class ServiceManager:
    """The service manager that reads from the socket of ``NOTIFY_SOCKET``. Without one, messages go nowhere.

    What cannot be sent is one warning. https://www.freedesktop.org/software/systemd/man/latest/sd_notify.html
    """

    def __init__(self) -> None:
        self._name = os.environ.get("NOTIFY_SOCKET", "")
        self._has_warned = False
        self._loop: asyncio.AbstractEventLoop | None = None

    def ready(self, line: str) -> None:
        """Say that the server serves, with a line for people."""
        self._send("READY=1", f"STATUS={line}")

    def status(self, line: str) -> None:
        """Say what the server does, in a line for people."""
        self._send(f"STATUS={line}")

    def reloading(self) -> None:
        """Say that a reload begins; :meth:`ready` is its end."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """Say that the stop begins."""
        self._send("STOPPING=1")

    def watch(self, loop: asyncio.AbstractEventLoop) -> None:
        """Have an event loop say that it runs, twice in the time after which the manager ends a process that hangs."""
        seconds = _watchdog_seconds()
        if self._name and seconds and loop is not self._loop:
            self._loop = loop
            self._ping(loop, max(seconds / 2, _SHORTEST_PAUSE))

    def _ping(self, loop: asyncio.AbstractEventLoop, pause: float) -> None:
        self._send("WATCHDOG=1", seconds=0)  # a manager that does not read would block the event loop each time
        loop.call_later(pause, self._ping, loop, pause)

    def _send(self, *assignments: str, seconds: float = _SECONDS) -> None:
        if not self._name:
            return
        address = f"\0{self._name[1:]}" if self._name.startswith("@") else self._name
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.settimeout(seconds)
                sock.sendto("\n".join(assignments).encode(errors="replace"), address)
        except OSError as error:
            if not self._has_warned:
                reason = error.strerror or error
                logger.warning('NOTIFY_SOCKET="%s" cannot be written to: %s.', self._name, reason)
            self._has_warned = True


def _watchdog_seconds() -> float:
    """Return the time after which the manager ends this process if it hangs; 0 if it does not watch it."""
    pid, microseconds = os.environ.get("WATCHDOG_PID", ""), os.environ.get("WATCHDOG_USEC", "")
    is_ours = pid in {"", str(os.getpid())}
    return int(microseconds) / 1e6 if is_ours and microseconds.isdecimal() else 0.0
