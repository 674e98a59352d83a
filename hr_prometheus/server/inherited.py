"""The sockets that a process has inherited, to serve on instead of addresses of its own."""

from __future__ import annotations

import os
import socket
import stat
from contextlib import suppress
from typing import TYPE_CHECKING

from hr_prometheus.errors import ConfigurationError, SettingError

if TYPE_CHECKING:
    from collections.abc import Iterable

_STANDARD_STREAMS = range(3)
_FIRST_PASSED = 3
_MOST_DIGITS = 4
#: https://www.freedesktop.org/software/systemd/man/latest/sd_listen_fds.html
_VARIABLES = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID")


def passed_descriptors() -> tuple[int, ...]:
    """Return the descriptors that systemd has passed to this very process, by its ``LISTEN_FDS``; usually none.

    Raises :exc:`~hr_prometheus.errors.ConfigurationError` if that is no number of descriptors.
    """
    number = os.environ.get("LISTEN_FDS", "0") if _are_passed_here() else "0"
    if not number.isdecimal() or len(number) > _MOST_DIGITS:
        raise ConfigurationError(
            f'LISTEN_FDS="{number}" is not understood. Expected the number of sockets, as systemd sets it.'
        )
    return tuple(range(_FIRST_PASSED, _FIRST_PASSED + int(number)))


def _are_passed_here() -> bool:
    return os.environ.get("LISTEN_PID") == str(os.getpid())


def foreign_socket_notices() -> list[str]:
    """Return a sentence if systemd has passed sockets to another process than this one, as to a shell that has started it."""
    number, pid = os.environ.get("LISTEN_FDS", ""), os.environ.get("LISTEN_PID", "")
    if not (number and pid) or _are_passed_here():
        return []
    advice = "Where a shell script starts the command, let it do so with exec."
    return [f'LISTEN_FDS="{number}": ignored, because LISTEN_PID="{pid}" is another process. {advice}']


def take_sockets(descriptors: Iterable[int], *, keep: bool = False) -> list[socket.socket]:
    """Return the sockets of inherited *descriptors*, those of Unix last, as they are bound.

    They are closed in programs that this process starts, which get no ``LISTEN_FDS`` either. With *keep* they can be taken
    again when they are closed; so can standard input. Raises :exc:`~hr_prometheus.errors.SettingError` for a descriptor that
    nothing can be served on.
    """
    if _are_passed_here():
        for name in _VARIABLES:
            os.environ.pop(name, None)
    sockets = [_take(descriptor, keep=keep) for descriptor in dict.fromkeys(descriptors)]
    return sorted(sockets, key=lambda each: each.family == socket.AF_UNIX)


def _take(descriptor: int, *, keep: bool) -> socket.socket:
    try:
        mode = os.fstat(descriptor).st_mode
    except (OSError, OverflowError) as error:
        raise _error(descriptor, "is not open") from error
    if not stat.S_ISSOCK(mode):
        raise _error(descriptor, "is not a socket")
    sock = socket.socket(fileno=descriptor)
    problem = _problem(sock)
    if problem:
        sock.detach()
        raise _error(descriptor, problem)
    if descriptor not in _STANDARD_STREAMS:
        sock.set_inheritable(False)
    if keep or descriptor in _STANDARD_STREAMS:
        return socket.socket(fileno=os.dup(sock.detach()))
    return sock


def listens(sock: socket.socket) -> bool:
    """Return whether a socket listens already, with the backlog of the process that made it."""
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) != 0


def largest_backlog() -> int:
    """Return the largest backlog that the kernel allows a socket."""
    with suppress(OSError), open("/proc/sys/net/core/somaxconn", encoding="ascii") as file:
        return int(file.read())
    return socket.SOMAXCONN


def _problem(sock: socket.socket) -> str:
    """Return why nothing can be served on a socket; empty if it can."""
    if sock.type != socket.SOCK_STREAM or sock.family not in {socket.AF_INET, socket.AF_INET6, socket.AF_UNIX}:
        kinds = (
            str(getattr(kind, "name", kind)) for kind in (sock.family, sock.type)
        )  # a number is not known to Python
        return f"is of another kind ({', '.join(kinds)})"
    with suppress(OSError):  # it is not connected
        sock.getpeername()
        return "is connected to one client, as systemd passes it on with Accept=yes"
    name = sock.getsockname()
    is_bound = bool(name) if sock.family == socket.AF_UNIX else name[1] != 0
    return "" if is_bound else "is not bound to an address"


def _error(descriptor: int, problem: str) -> SettingError:
    sentence = f": descriptor {descriptor} {problem}. Expected a TCP or a Unix stream socket that is bound or listens."
    return SettingError("fd", f'--fd "{descriptor}"', sentence, (str(descriptor),))
