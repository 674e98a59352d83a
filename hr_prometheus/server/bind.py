"""Binds the addresses of a server before anything is imported, so that one in use is one sentence and no half-started service."""

from __future__ import annotations

import errno
import os
import socket
import stat
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from hr_prometheus.access.access import metrics_scheme
from hr_prometheus.errors import ServingError, SettingError
from hr_prometheus.server.inherited import take_sockets
from hr_prometheus.server.metrics_routes import where_metrics_are
from hr_prometheus.settings import DEFAULT_HOST, DEFAULT_PORT

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from contextlib import ExitStack

    from hr_prometheus.settings import Settings

_REASONS = {
    errno.EADDRINUSE: "another process uses it. Stop that process or choose another port; port 0 picks a free one",
    errno.EACCES: "permission denied. Ports below 1024 usually need privileges; choose a higher one",
    errno.EADDRNOTAVAIL: "this machine has no such address. 127.0.0.1 is this machine alone, 0.0.0.0 all its networks",
}
#: The default port of ``run_app`` with TLS.
_TLS_PORT = 8443
#: Bytes of ``sockaddr_un.sun_path`` on Linux, without its final NUL.
_LONGEST_UNIX_PATH = 107


@dataclass(frozen=True)
class BoundAddresses:
    """The sockets of an application and of its metrics, bound but not listening, unless they were inherited so.

    ``metrics_sockets`` is empty if the application's own sockets serve the metrics. ``urls`` has ``unix:/path`` for a
    Unix socket.
    """

    sockets: list[socket.socket]
    metrics_sockets: list[socket.socket]
    urls: list[str]
    metrics_url: str

    def where_metrics_are(self, settings: Settings) -> str:
        """Return where the metrics and the status page are, for the line of a start."""
        return where_metrics_are(settings, self.urls[0], self.metrics_url, self.metrics_sockets)


def bind_addresses(
    settings: Settings,
    arguments: dict[str, Any],
    stack: ExitStack,
    *,
    is_script: bool = False,
    with_metrics: bool = True,
    inherited: Sequence[socket.socket] = (),
) -> BoundAddresses:
    """Move the addresses out of ``run_app``'s *arguments*, over which *settings* win, and bind them.

    The port of the metrics' own is left out unless *with_metrics*. *inherited* sockets are taken where they are bound already.
    *stack* closes the sockets and removes those of Unix that it has made. Raises
    :exc:`~hr_prometheus.errors.ServingError` for an address that the operating system refuses.
    """
    bound = {(each.family, each.getsockname()): each for each in inherited}
    scheme = "https" if settings.certfile is not None or arguments.get("ssl_context") is not None else "http"
    host, port, paths, sockets = pop_addresses(settings, arguments, is_script=is_script)
    if settings.fds:
        sockets = take_sockets(settings.fds, keep=is_script)  # a script may serve again
    elif port is None and (host is not None or not (paths or sockets)):
        port = _TLS_PORT if scheme == "https" and is_script else DEFAULT_PORT
    own_ports = [each.getsockname()[1] for each in sockets if each.family != socket.AF_UNIX]
    _check_options(settings, [port, *own_ports], paths)
    if port is not None:
        reuse_address = arguments.pop("reuse_address", None) is not False
        reuse_port = arguments.get("reuse_port") if settings.reuse_port is None else settings.reuse_port
        with _about("host", "port"):
            sockets = [*bind_tcp(host, port, bound, reuse_address=reuse_address, reuse_port=bool(reuse_port)), *sockets]
    for each in sockets:
        stack.callback(each.close)
    urls = [url_of(each, scheme) for each in sockets] + [f"unix:{path}" for path in paths]
    new_paths = [path for path in paths if (socket.AF_UNIX, path) not in bound]
    for path in new_paths:
        check_unix_path(path)
    metrics_sockets: list[socket.socket] = []
    metrics_url = urls[0] + ("" if urls[0].startswith("unix:") else settings.metrics_path)
    if settings.metrics_port is not None and with_metrics:
        metrics_sockets, metrics_url = bind_metrics(settings, host if port is not None else DEFAULT_HOST, stack)
    for path in paths:
        if path in new_paths:
            stack.callback(remove_unix_path, path)
            sockets.append(bind_unix(path, settings.unix_mode))
        else:
            sockets.append(bound[socket.AF_UNIX, path])
        stack.callback(sockets[-1].close)
    return BoundAddresses(sockets, metrics_sockets, urls, metrics_url)


def bind_metrics(settings: Settings, host: Any, stack: ExitStack) -> tuple[list[socket.socket], str]:
    """Return the sockets of the metrics' own port, and the URL of the metrics. *host* is the application's."""
    assert settings.metrics_port is not None  # noqa: S101  # they have one
    with _about("host" if settings.metrics_host is None else "metrics_host", "metrics_port"):
        sockets = bind_tcp(settings.metrics_host or host, settings.metrics_port)
    for each in sockets:
        stack.callback(each.close)
    return sockets, url_of(sockets[0], metrics_scheme(settings)) + settings.metrics_path


def pop_addresses(
    settings: Settings, arguments: dict[str, Any], *, is_script: bool
) -> tuple[Any, int | None, list[str], list[socket.socket]]:
    """Move host, port, Unix paths and sockets out of ``run_app``'s *arguments*; a setting replaces them."""
    host, port, path, sock = (arguments.pop(name, None) for name in ("host", "port", "path", "sock"))
    if settings.host is not None or settings.port is not None:
        path = sock = None
    elif settings.unix_path is not None or settings.fds:
        host = port = path = sock = None
    host = settings.host or host
    port = settings.port if settings.port is not None else port and int(port)  # asyncio takes a string as well
    path = settings.unix_path or path
    if not is_script and host is None and (port is not None or path is None):
        host = DEFAULT_HOST
    paths = [path] if isinstance(path, str | os.PathLike) else list(path or ())
    sockets = [sock] if isinstance(sock, socket.socket) else list(sock or ())
    return host, port, [os.fspath(each) for each in paths], sockets


def _check_options(settings: Settings, ports: list[int | None], unix_paths: list[str]) -> None:
    if settings.metrics_port and settings.metrics_port in ports:
        raise SettingError(
            "metrics_port",
            f"--metrics-port {settings.metrics_port}",
            " is the application's port. Choose another one, or leave the option out to "
            f"serve the metrics on the application's port at {settings.metrics_path}.",
        )
    if settings.unix_mode is not None and not unix_paths:
        problem = " was given without a Unix socket. Give its path with --unix-path."
        raise SettingError("unix_mode", "--unix-mode", problem)


def check_addresses(settings: Settings) -> None:
    """Check the addresses in the settings of a target that is no script against each other. Nothing is bound."""
    _, port, paths, _ = pop_addresses(settings, {}, is_script=False)
    _check_options(settings, [port], paths)


def bind_tcp(
    hosts: str | Iterable[str] | None,
    port: int,
    bound: Mapping[Any, socket.socket] = MappingProxyType({}),
    *,
    reuse_address: bool = True,
    reuse_port: bool = False,
) -> list[socket.socket]:
    """Return a bound socket for each address of each host; ``None`` is every address of the machine.

    It is that of *bound*, by family and address, if there is one.

    The sockets do not listen yet: until the application is ready, clients are refused rather than kept
    waiting. With port 0 all share the port that the first one gets. Raises
    :exc:`~hr_prometheus.errors.ServingError`.
    """
    sockets: list[socket.socket] = []
    left = dict(bound)
    try:
        for host in [hosts] if hosts is None or isinstance(hosts, str) else hosts:
            for family, address in _resolve(host, port):
                free_port = sockets[0].getsockname()[1] if sockets and port == 0 else address[1]
                name = (address[0], free_port, *address[2:])
                with suppress(_FamilyMissingError):
                    sockets.append(left.pop((family, name), None) or _bind(family, name, reuse_address, reuse_port))
    except BaseException:
        for each in sockets:
            each.close()
        raise
    if not sockets:
        raise address_error(host_and_port(str(hosts), port), OSError(errno.EADDRNOTAVAIL, ""))
    return sockets


@contextmanager
def _about(*settings: str) -> Iterator[None]:
    """Note in a :exc:`~hr_prometheus.errors.ServingError` which settings it is about."""
    try:
        yield
    except ServingError as error:
        error.settings = settings
        raise


class _FamilyMissingError(Exception):
    """The machine has no addresses of this family, as many containers have no IPv6."""


def _resolve(host: str | None, port: int) -> list[tuple[int, tuple[str, int]]]:
    try:
        infos = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as error:
        raise ServingError(
            f'cannot listen on "{host}": {error.strerror}. Expected an address of this machine or its name.'
        ) from error
    except UnicodeError as error:
        raise ServingError(
            f'cannot listen on "{host}": it is not a host name. Expected an address of this machine or its name.'
        ) from error
    except OverflowError:
        raise address_error(host_and_port(str(host), port), OSError(0, "the port must be 0-65535")) from None
    return list(dict.fromkeys((family, address) for family, _, _, _, address in infos))  # type: ignore[misc]


def _bind(family: int, address: tuple[object, ...], reuse_address: bool, reuse_port: bool) -> socket.socket:
    try:
        sock = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise _FamilyMissingError from error
    try:
        # The options are those of asyncio's create_server.
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
        raise address_error(host_and_port(str(address[0]), address[1]), error) from error
    return sock


def address_error(address: str, error: OSError) -> ServingError:
    """Return the error for an address that the operating system refuses."""
    reason = _REASONS.get(error.errno or 0, error.strerror or str(error))
    serving_error = ServingError(f"cannot listen on {address}: {reason}.")
    serving_error.errno = error.errno  # a script may choose another port by it
    return serving_error


def host_and_port(host: str, port: object) -> str:
    """Return ``host:port``, with an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def url_of(sock: socket.socket, scheme: str) -> str:
    """Return the URL under which a bound socket can be reached; that of a Unix socket has no path behind its own."""
    name = sock.getsockname()
    if sock.family == socket.AF_UNIX:
        return f"unix:{name if isinstance(name, str) else f'@{os.fsdecode(name[1:])}'}"  # bytes: no path, but abstract
    return f"{scheme}://{host_and_port(*name[:2])}"


def check_unix_path(path: str) -> None:
    """Check that a Unix socket can be bound at *path*: a dead socket there is fine, anything else is not."""
    directory = os.path.dirname(os.path.abspath(path))
    if not os.access(directory, os.W_OK):
        raise _unix_path_error(path, f'"{directory}" is not a directory that can be written to')
    if len(os.fsencode(path)) > _LONGEST_UNIX_PATH:
        raise _unix_path_error(path, f"the path of a Unix socket has at most {_LONGEST_UNIX_PATH} bytes")
    if not os.path.lexists(path):
        return
    if not stat.S_ISSOCK(os.lstat(path).st_mode):
        raise _unix_path_error(path, "there is a file of this name, and it is not a socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(path)
        except OSError:
            return
    raise _unix_path_error(path, "another process serves on this socket. Stop it or choose another path")


def _unix_path_error(path: str, reason: str) -> ServingError:
    return address_error(f'"{path}"', OSError(0, reason))


def bind_unix(path: str, mode: int | None = None) -> socket.socket:
    """Return a socket that is bound to a checked *path*; a dead socket there is removed.

    *mode* is its permissions; by default those that the umask leaves.
    """
    remove_unix_path(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(path)
        if mode is not None:
            os.chmod(path, mode)
    except OSError as error:
        sock.close()
        raise address_error(f'"{path}"', error) from error
    return sock


def remove_unix_path(path: str) -> None:
    """Remove the socket at *path*, if there is one."""
    with suppress(OSError):
        if stat.S_ISSOCK(os.lstat(path).st_mode):
            os.unlink(path)


def remove_unix_sockets(urls: Iterable[str]) -> None:
    """Remove those Unix sockets that *urls* name."""
    for url in urls:
        if url.startswith("unix:"):
            remove_unix_path(url.removeprefix("unix:"))
