"""Warns of a script that serves with several processes: each counts for itself."""

from __future__ import annotations

import fcntl
import logging
import os
import sys
import termios

from hr_prometheus.server.own_sockets import is_of

logger = logging.getLogger("hr_prometheus")

_BYTES = b"12"


class ServingProcesses:
    """The processes in which a script serves: the one that makes this object, and those that it forks.

    They share a pipe with two bytes: the first process to serve reads one, and the second the other. If the script closes the
    pipe, as ``os.closerange`` does, each process knows only of itself.
    """

    def __init__(self, script: str) -> None:
        self._script = script
        self._serving_pid: int | None = None
        self._is_first = False
        self._bytes, writer = os.pipe()
        os.write(writer, _BYTES)
        os.close(writer)
        self._status = os.fstat(self._bytes)

    @property
    def others_serve(self) -> bool:
        """Whether a process other than this one has begun to serve."""
        return self._number > (self._serving_pid == os.getpid())

    @property
    def any_serves(self) -> bool:
        """Whether this process or another one has begun to serve."""
        return self._number > 0

    @property
    def _number(self) -> int:
        """How many have begun to serve, at most two."""
        if not is_of(self._bytes, self._status):
            return int(self._serving_pid == os.getpid())
        left = int.from_bytes(fcntl.ioctl(self._bytes, termios.FIONREAD, bytes(4)), sys.byteorder)
        return len(_BYTES) - left

    def note_serving(self) -> bool:
        """Note that this process is about to serve, and return whether it is the first. The second one logs what that means."""
        if self._serving_pid == os.getpid():
            return self._is_first
        self._serving_pid = os.getpid()
        byte = os.read(self._bytes, 1) if is_of(self._bytes, self._status) else b"1"
        self._is_first = byte == b"1"
        if byte == b"2":
            logger.warning(
                '"%s" serves with several processes that it has started itself. Each counts for itself, and a scrape shows '
                "the numbers of one. For the numbers of all, leave the processes to hr-prometheus: "
                "hr-prometheus run module:create_app --workers N",
                self._script,
            )
        return self._is_first
