"""Where a server listens: its addresses, taken before anything is imported, and its certificate."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aiohttp.web import Application, SockSite

from hr_prometheus.errors import ServingError, SettingError
from hr_prometheus.server.runner import Runner
from hr_prometheus.server.sockets import address_refused, bind_tcp, bind_unix, check_unix_path, remove_unix_path, url_of
from hr_prometheus.settings import DEFAULT_HOST, DEFAULT_PORT

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterable
    from contextlib import ExitStack

    from aiohttp.typedefs import Handler

    from hr_prometheus.settings import Settings


@dataclass(frozen=True)
class Listening:
    """The addresses that were taken: bound sockets, and paths at which a Unix socket can be made."""

    sockets: list[socket.socket]
    paths: list[str]
    metrics_sockets: list[socket.socket]
    texts: list[str]
    metrics_text: str

    def announcement(self, what: str) -> str:
        """Return the line which says what is served where."""
        return f"hr-prometheus: {what} on {', '.join(self.texts)}, metrics on {self.metrics_text}"


async def serve_metrics(path: str, view: Handler, sockets: Iterable[socket.socket]) -> Runner:
    """Serve a metrics *view* at *path* on sockets of its own, until the result is cleaned up."""
    app = Application()
    app.router.add_get(path, view)
    runner = Runner(app, access_log=None, patience=1.0)
    await runner.setup()
    for each in sockets:
        try:
            await SockSite(runner, each).start()
        except OSError as error:
            raise address_refused(url_of(each, "http"), error) from error
    return runner


def take_addresses(
    settings: Settings, arguments: dict[str, Any], stack: ExitStack, *, is_script: bool = False
) -> Listening:
    """Move the addresses out of ``run_app``'s *arguments*, over which *settings* win, and bind them.

    *stack* closes the sockets and removes the paths.
    """
    is_tls = settings.certfile is not None or arguments.get("ssl_context") is not None
    host, port, paths, sockets = _where(settings, arguments, is_script=is_script)
    if port is None and (host is not None or not (paths or sockets)):
        port = 8443 if is_tls and is_script else DEFAULT_PORT  # as run_app has it
    if settings.metrics_port is not None and settings.metrics_port == port != 0:
        raise SettingError(
            "metrics_port",
            f"--metrics-port {port}",
            " is the application's port. Choose another one, or leave the option out to "
            f"serve the metrics on the application's port at {settings.metrics_path}.",
        )
    if port is not None:
        reuse_address = arguments.pop("reuse_address", None) is not False
        reuse_port = arguments.get("reuse_port") if settings.reuse_port is None else settings.reuse_port
        bound = bind_tcp(host, port, reuse_address=reuse_address, reuse_port=bool(reuse_port))
        sockets = [*bound, *sockets]
    if settings.unix_mode is not None and not paths:
        problem = " was given without a Unix socket. Give its path with --unix-path."
        raise SettingError("unix_mode", "--unix-mode", problem)
    for path in paths:
        check_unix_path(path)
        stack.callback(remove_unix_path, path)
    metrics_sockets: list[socket.socket] = []
    if settings.metrics_port is not None:
        metrics_host = settings.metrics_host or (host if port is not None else DEFAULT_HOST)
        metrics_sockets = bind_tcp(metrics_host, settings.metrics_port)
    for each in (*sockets, *metrics_sockets):
        stack.callback(each.close)
    scheme = "https" if is_tls else "http"
    texts = [url_of(each, scheme) for each in sockets] + [f"unix:{path}" for path in paths]
    where = url_of(metrics_sockets[0], "http") if metrics_sockets else texts[0]
    metrics_text = where + ("" if not metrics_sockets and not sockets else settings.metrics_path)
    if settings.unix_mode is not None:  # given before it listens, so that no one is let in too early
        for path in paths:
            sockets.append(bind_unix(path, settings.unix_mode))
            stack.callback(sockets[-1].close)
        paths = []
    return Listening(sockets, paths, metrics_sockets, texts, metrics_text)


def _where(
    settings: Settings, arguments: dict[str, Any], *, is_script: bool
) -> tuple[Any, int | None, list[str], list[socket.socket]]:
    """Move host, port, paths and sockets out of ``run_app``'s *arguments*; a flag replaces them."""
    host, port, path, sock = (arguments.pop(name, None) for name in ("host", "port", "path", "sock"))
    if settings.host is not None or settings.port is not None:
        path = sock = None
    elif settings.unix_path is not None:
        host = port = path = sock = None
    host = settings.host or host
    port = settings.port if settings.port is not None else port and int(port)  # asyncio takes a string as well
    path = settings.unix_path or path
    if not is_script and host is None and (port is not None or path is None):
        host = DEFAULT_HOST
    paths = [path] if isinstance(path, str | os.PathLike) else list(path or ())
    sockets = [sock] if isinstance(sock, socket.socket) else list(sock or ())
    return host, port, [os.fspath(each) for each in paths], sockets


def tls_context(settings: Settings) -> ssl.SSLContext | None:
    """Return the context for the certificate in *settings*, or ``None`` without one."""
    if settings.certfile is None:
        return None
    import ssl  # noqa: PLC0415  # not everyone has or needs it

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    asked: list[bool] = []

    def password() -> str:
        """Take the place of OpenSSL's question on the terminal."""
        asked.append(True)
        return ""

    key_setting = "certfile" if settings.keyfile is None else "keyfile"
    key_text = _readable("certfile", settings.certfile)
    if settings.keyfile is not None:
        key_text = _readable("keyfile", settings.keyfile)
    try:
        context.load_cert_chain(settings.certfile, settings.keyfile, password=password)
    except ssl.SSLError as error:
        reason = error.reason or ""
        if not _has_certificate(settings.certfile):
            setting, problem = "certfile", " is no certificate. Expected a certificate chain in PEM format."
        elif asked:
            setting = key_setting
            problem = ": the private key is encrypted. Expected one without a passphrase, as openssl pkey writes it."
        elif reason in _MISMATCHES:
            setting = key_setting
            problem = f': the private key does not belong to the certificate in "{settings.certfile}". Give its own.'
        elif b"PRIVATE KEY-----" in key_text:
            setting = key_setting
            problem = f": the private key is refused{f' ({reason})' * bool(reason)}. Expected the certificate's, in PEM format."
        elif settings.keyfile is None:
            setting = "certfile"
            problem = " has a certificate and no private key. Give the file of the key with --keyfile."
        else:
            setting, problem = "keyfile", " has no private key. Expected the certificate's, in PEM format."
        raise SettingError(setting, f'--{setting} "{getattr(settings, setting)}"', problem) from error
    return context


# What OpenSSL calls a key of another certificate; the last, one of another kind.
_MISMATCHES = ("KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED")


def _readable(setting: str, path: str) -> bytes:
    """Return the bytes of a file, which the operating system may refuse."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        expected = "a certificate chain" if setting == "certfile" else "a private key"
        raise ServingError(f'--{setting} "{path}": {error.strerror}. Expected {expected} in PEM format.') from error


def _has_certificate(path: str) -> bool:
    import ssl  # noqa: PLC0415  # as above

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(path)
    except ssl.SSLError:
        return False
    return True
