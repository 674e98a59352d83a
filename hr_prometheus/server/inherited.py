"""The sockets that a process has inherited, to serve on instead of addresses of its own."""

from __future__ import annotations

import errno
import os
import socket
from contextlib import suppress
from typing import TYPE_CHECKING

from hr_prometheus.errors import SettingError

if TYPE_CHECKING:
    from collections.abc import Iterable

_STANDARD_STREAMS = range(3)


def take_sockets(descriptors: Iterable[int], *, keep: bool = False) -> list[socket.socket]:
    """Return the sockets of inherited *descriptors*, those of Unix last, as they are bound.

    They are closed in programs that this process starts. With *keep* they can be taken again when they are closed; so can
    standard input. Raises :exc:`~hr_prometheus.errors.SettingError` for a descriptor that nothing can be served on.
    """
    sockets = [_take(descriptor, keep=keep) for descriptor in dict.fromkeys(descriptors)]
    return sorted(sockets, key=lambda each: each.family == socket.AF_UNIX)


def _take(descriptor: int, *, keep: bool) -> socket.socket:
    try:
        sock = socket.socket(fileno=descriptor)
    except OSError as error:
        raise _error(descriptor, "is not open" if error.errno == errno.EBADF else "is no socket") from error
    problem = _problem(sock)
    if problem:
        sock.detach()
        raise _error(descriptor, problem)
    if descriptor not in _STANDARD_STREAMS:
        sock.set_inheritable(False)
    if keep or descriptor in _STANDARD_STREAMS:
        return socket.socket(fileno=os.dup(sock.detach()))
    return sock


def _problem(sock: socket.socket) -> str:
    """Return why nothing can be served on a socket; empty if it can."""
    if sock.type != socket.SOCK_STREAM or sock.family not in {socket.AF_INET, socket.AF_INET6, socket.AF_UNIX}:
        return f"is of another kind ({sock.family.name}, {sock.type.name})"
    with suppress(OSError):  # it is not connected
        sock.getpeername()
        return "is connected to one client, as systemd passes it on with Accept=yes"
    name = sock.getsockname()
    is_bound = bool(name) if sock.family == socket.AF_UNIX else name[1] != 0
    return "" if is_bound else "is not bound to an address"


def _error(descriptor: int, problem: str) -> SettingError:
    sentence = f": descriptor {descriptor} {problem}. Expected a TCP or a Unix stream socket that is bound or listens."
    return SettingError("fd", f'--fd "{descriptor}"', sentence, (str(descriptor),))
