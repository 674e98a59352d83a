"""Taking addresses before anything is imported, so that one in use is one sentence and no half-started service."""

from __future__ import annotations

import errno
import os
import socket
import stat
from contextlib import suppress
from typing import TYPE_CHECKING

from hr_prometheus.errors import ServingError

if TYPE_CHECKING:
    from collections.abc import Iterable

_REASONS = {
    errno.EADDRINUSE: "another process uses it. Stop that process or choose another port; port 0 picks a free one",
    errno.EACCES: "permission denied. Ports below 1024 usually need privileges; choose a higher one",
    errno.EADDRNOTAVAIL: "this machine has no such address. 127.0.0.1 is this machine alone, 0.0.0.0 all its networks",
}


def bind_tcp(
    hosts: str | Iterable[str] | None, port: int, *, reuse_address: bool = True, reuse_port: bool = False
) -> list[socket.socket]:
    """Return a bound socket for each address of each host; ``None`` is every address of the machine.

    The sockets do not listen yet: until the application is ready, clients are refused rather than kept
    waiting. With port 0 all share the port that the first one gets. Raises
    :exc:`~hr_prometheus.errors.ServingError`.
    """
    sockets: list[socket.socket] = []
    try:
        for host in [hosts] if hosts is None or isinstance(hosts, str) else hosts:
            for family, address in _resolve(host, port):
                taken = sockets[0].getsockname()[1] if sockets and port == 0 else address[1]
                with suppress(_FamilyMissingError):
                    sockets.append(_bound(family, (address[0], taken, *address[2:]), reuse_address, reuse_port))
    except BaseException:
        for each in sockets:
            each.close()
        raise
    if not sockets:
        raise address_refused(host_and_port(str(hosts), port), OSError(errno.EADDRNOTAVAIL, ""))
    return sockets


class _FamilyMissingError(Exception):
    """The machine has no addresses of this family, as many containers have no IPv6."""


def _resolve(host: str | None, port: int) -> list[tuple[int, tuple[str, int]]]:
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as error:
        raise ServingError(
            f'cannot listen on "{host}": {error.strerror}. Expected an address of this machine or its name.'
        ) from error
    except UnicodeError as error:
        raise ServingError(
            f'cannot listen on "{host}": it is no host name. Expected an address of this machine or its name.'
        ) from error
    except OverflowError:
        raise address_refused(host_and_port(str(host), port), OSError(0, "the port must be 0-65535")) from None
    return list(dict.fromkeys((family, address) for family, _, _, _, address in found))  # type: ignore[misc]


def _bound(family: int, address: tuple[object, ...], reuse_address: bool, reuse_port: bool) -> socket.socket:
    try:
        sock = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise _FamilyMissingError from error
    try:
        # As asyncio's create_server sets them.
        if reuse_address:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)
    except OSError as error:
        sock.close()
        if family == socket.AF_INET6 and error.errno == errno.EADDRNOTAVAIL:
            raise _FamilyMissingError from error
        raise address_refused(host_and_port(str(address[0]), address[1]), error) from error
    return sock


def address_refused(address: str, error: OSError) -> ServingError:
    """Return the error for an address that the operating system refuses."""
    reason = _REASONS.get(error.errno or 0, error.strerror or str(error))
    made = ServingError(f"cannot listen on {address}: {reason}.")
    made.errno = error.errno  # by which a script may choose another port
    return made


def host_and_port(host: str, port: object) -> str:
    """Return ``host:port``, with an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def url_of(sock: socket.socket, scheme: str) -> str:
    """Return the URL under which a bound socket can be reached."""
    name = sock.getsockname()
    if sock.family == getattr(socket, "AF_UNIX", None):
        return f"{scheme}+unix:{name}"
    return f"{scheme}://{host_and_port(*name[:2])}"


def check_unix_path(path: str) -> None:
    """Check that a Unix socket can be made at *path*: a dead socket there is fine, anything else is not."""
    directory = os.path.dirname(os.path.abspath(path))
    if not os.access(directory, os.W_OK):
        raise address_refused(f'"{path}"', OSError(0, f'"{directory}" is no directory that can be written to'))
    longest = 107  # bytes, of sockaddr_un.sun_path on Linux without its final NUL
    if len(os.fsencode(path)) > longest:
        raise address_refused(f'"{path}"', OSError(0, f"the path of a Unix socket has at most {longest} bytes"))
    if not os.path.lexists(path):
        return
    if not stat.S_ISSOCK(os.lstat(path).st_mode):
        raise address_refused(f'"{path}"', OSError(0, "there is a file of this name, and it is no socket"))
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(path)
        except OSError:
            return
    raise address_refused(
        f'"{path}"', OSError(0, "another process serves on this socket. Stop it or choose another path")
    )


def bind_unix(path: str, mode: int | None = None) -> socket.socket:
    """Return a socket that is bound to a path which has been checked; a dead one there is removed.

    *mode* are its permissions, if not those that the umask leaves.
    """
    remove_unix_path(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(path)
        if mode is not None:
            os.chmod(path, mode)
    except OSError as error:
        sock.close()
        raise address_refused(f'"{path}"', error) from error
    return sock


def remove_unix_path(path: str) -> None:
    """Remove the socket at *path*, which asyncio before Python 3.13 leaves behind."""
    with suppress(OSError):
        if stat.S_ISSOCK(os.lstat(path).st_mode):
            os.unlink(path)
